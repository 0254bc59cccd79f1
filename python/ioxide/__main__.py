"""`python -m ioxide …`: the `ioxide` command for an interpreter of one's choice."""

import sys

from ioxide.cli import main

if __name__ == "__main__":
    sys.exit(main())
