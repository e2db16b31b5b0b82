"""What notebooks call: each function reads run folders and gives one table or one picture.

Whatever is not on disk becomes a line that names the make target, so that a notebook runs to its end on any folder of
runs, an empty one too.
"""

from frugalseg.analysis.notebook.folders import Runs, open_runs

__all__ = ["Runs", "open_runs"]
