"""A moment after which refinements are left out: what is known by then is valid, if looser."""

from __future__ import annotations

import dataclasses
import math
import time


@dataclasses.dataclass(eq=False)
class Deadline:
    """Asked before every expensive piece of work that a bound can do without.

    Attributes:
        at: in the time of ``time.perf_counter``.
        missed: whether any work was left out because of it.
    """

    at: float = math.inf
    missed: bool = False

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment so many seconds from now."""
        return cls(time.perf_counter() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then."""
        return self.at - time.perf_counter()

    def passed(self, ahead: float = 0.0) -> bool:
        """True once the moment is less than ``ahead`` seconds away; the caller then leaves its work out."""
        late = time.perf_counter() + ahead > self.at
        self.missed |= late
        return late
