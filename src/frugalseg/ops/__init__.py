"""Pure functions of tensors: no state, no files, no Lightning."""
