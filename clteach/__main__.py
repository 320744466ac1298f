"""``python -m clteach`` is the command line."""

import sys

from clteach.cli import main

if __name__ == "__main__":
    sys.exit(main())
