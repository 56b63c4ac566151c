"""What ``lipverify``, where it is installed, says of a certificate."""

from __future__ import annotations

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Checked:
    """What is proved of every row.

    Attributes:
        lower, upper: (rows,)
        failures: claims that are not met, in words.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    failures: tuple[str, ...]


def checked(path: str | os.PathLike[str]) -> Checked | None:
    """Check a certificate; None where ``lipverify`` is not installed. A file that it cannot read proves nothing."""
    try:
        from lipverify.certificate import Malformed, read
        from lipverify.check import check
    except ImportError:
        return None
    try:
        rows = check(read(path))
    except Malformed as error:
        return Checked((), (), (str(error),))
    failures = tuple(text for row in rows for text in row.failures)
    return Checked(tuple(row.lower for row in rows), tuple(row.upper for row in rows), failures)
