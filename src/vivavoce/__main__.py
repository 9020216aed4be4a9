"""``python -m vivavoce`` is the same as ``vivavoce``."""

import sys

from vivavoce.cli import main

if __name__ == "__main__":
    sys.exit(main())
