"""The study: one script per table or figure, run from the checkout with ``python -m experiments.<name>``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lipcompare.errors import InvalidInput


def told(main: Callable[[], int]) -> int:
    """A script's exit code; what was asked wrongly is said in a sentence, with exit code 2."""
    try:
        return main()
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 2
