"""`python -m frugalseg` is the command line."""

import sys

from frugalseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
