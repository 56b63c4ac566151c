"""``python -m figures``: see :mod:`figures.everything`."""

import sys

from figures.everything import main

if __name__ == "__main__":
    sys.exit(main())
