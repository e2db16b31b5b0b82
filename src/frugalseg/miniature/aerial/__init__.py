"""Pictures from above: grounds, roads and fifteen kinds of objects, painted with exact maps of what is where."""
