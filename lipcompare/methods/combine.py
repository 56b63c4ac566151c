"""Several results on one problem, merged into the tightest interval they prove together."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np

from lipcompare.budget import Kept, TracePoint
from lipcompare.errors import Contradiction, InvalidInput
from lipcompare.result import Bound, Status, Witnesses, closed
from lipcompare.rounding import agree

_LOG = logging.getLogger("lipcompare")
_URGENT = (Status.INTERRUPTED, Status.TIME_LIMIT, Status.NODE_LIMIT, Status.MEMORY_LIMIT)
"""What a merged status must not hide: the interval might be tighter with a larger budget."""


def intersect(bounds: Sequence[Bound], *, gap: float = 1e-4) -> Bound:
    """The intersection of the intervals that several methods proved on the same problem, one after another.

    Args:
        bounds: results of equal shape; at least one.
        gap: relative gap at which the merged interval counts as exact.

    Returns:
        Per row the largest lower bound, with its witness, and the smallest upper bound. ``method`` joins the names,
        ``detail`` the sentences, ``seconds`` and the traces follow each other.

    Raises:
        Contradiction: the intervals exclude each other.
    """
    if not bounds:
        raise InvalidInput("There is nothing to intersect: give at least one result.")
    if len({b.lower.shape for b in bounds}) > 1:
        shapes = ", ".join(str(b.lower.shape) for b in bounds)
        raise InvalidInput(f"Only results on the same problem intersect; their shapes are {shapes}.")
    if len(bounds) == 1:
        return bounds[0]
    lowers, uppers = np.stack([b.lower for b in bounds]), np.stack([b.upper for b in bounds])
    lower, upper = lowers.max(0), uppers.min(0)
    crossed = ~agree(lower, upper)
    if crossed.any():
        example, row = (int(v) for v in np.argwhere(crossed)[0])
        one = bounds[int(lowers[:, example, row].argmax())].method
        other = bounds[int(uppers[:, example, row].argmin())].method
        raise Contradiction(
            f"Example {example}, row {row}: {one} proves at least {lower[example, row]!r}, {other} at most "
            f"{upper[example, row]!r}. This is a bug: please report it with the model."
        )
    having = [b.witnesses for b in bounds if b.witnesses is not None]
    return Bound(
        lower=lower,
        upper=upper,
        status=Status.EXACT if closed(lower, upper, gap) else _status(bounds),
        method="+".join(b.method for b in bounds),
        seconds=sum(b.seconds for b in bounds),
        detail=" ".join(f"{b.method}: {b.sentence}" for b in bounds if b.status is not Status.COMPLETE or b.detail),
        options={f"{b.method}.{name}": value for b in bounds for name, value in b.options.items()},
        trace=_trace(bounds, float(lower.max()), float(upper.max())),
        witnesses=best_witnesses(having) if having else None,
        device=bounds[0].device,
        dtype=bounds[0].dtype,
        versions={name: version for b in bounds for name, version in b.versions.items()},
    )


def side_by_side(bounds: Sequence[Bound]) -> Bound:
    """Results on consecutive pieces of a batch as one result on the batch.

    The trace is left to the caller, who knows when each piece ended; witnesses are kept if every piece has them.
    """
    if not bounds:
        raise InvalidInput("There is nothing to join: give at least one result.")
    if len(bounds) == 1:
        return bounds[0]
    first = bounds[0]
    exact = all(b.status is Status.EXACT for b in bounds)
    all_have = all(b.witnesses is not None for b in bounds)
    details = dict.fromkeys(b.detail for b in bounds if b.detail)
    return dataclasses.replace(
        first,
        lower=np.concatenate([b.lower for b in bounds]),
        upper=np.concatenate([b.upper for b in bounds]),
        status=Status.EXACT if exact else _status([b for b in bounds if b.status is not Status.EXACT]),
        seconds=sum(b.seconds for b in bounds),
        detail=" ".join(details),
        trace=(),
        witnesses=stacked([w for b in bounds if (w := b.witnesses) is not None]) if all_have else None,
    )


def stacked(having: Sequence[Witnesses]) -> Witnesses:
    """The witnesses of consecutive pieces; patterns of pieces without kinks are zeros, which nothing reads."""
    sizes = {k: p.shape[2:] for w in having for k, p in (w.patterns or {}).items()}
    patterns = {
        k: np.concatenate([(w.patterns or {}).get(k, np.zeros((*w.values.shape, *size))) for w in having])
        for k, size in sizes.items()
    }
    return Witnesses(
        points=np.concatenate([w.points for w in having]),
        values=np.concatenate([w.values for w in having]),
        at_kink=np.concatenate([w.at_kink for w in having]),
        patterns=patterns or None,
    )


def _status(bounds: Sequence[Bound]) -> Status:
    statuses = [b.status for b in bounds]
    for status in (*_URGENT, Status.COMPLETE):
        if status in statuses:
            return status
    return statuses[0]


def _trace(bounds: Sequence[Bound], lower: float, upper: float) -> tuple[TracePoint, ...]:
    """The traces one after another, each point with the best ends so far, and the merged interval at the end."""
    points, start, low, high = [], 0.0, 0.0, float("inf")
    for b in bounds:
        for point in b.trace:
            low, high = max(low, point.lower), min(high, point.upper)
            points.append(TracePoint(start + point.seconds, low, high))
        start += b.seconds
    points.append(TracePoint(start, lower, upper))
    return tuple(points)


def best_witnesses(witnesses: Sequence[Witnesses]) -> Witnesses:
    """Per example and row the witness of the largest value, the first of equal ones; at least one is given."""
    if len(witnesses) == 1:
        return witnesses[0]
    best = np.stack([w.values for w in witnesses]).argmax(0)

    def pick(arrays: Sequence[np.ndarray]) -> np.ndarray:
        index = best.reshape(1, *best.shape, *(1,) * (arrays[0].ndim - 2))
        chosen: np.ndarray = np.take_along_axis(np.stack(arrays), index, axis=0)[0]
        return chosen

    # Where a witness is at no kink nothing reads its pattern.
    sizes = {k: p.shape for w in witnesses for k, p in (w.patterns or {}).items()}
    patterns = {k: pick([(w.patterns or {}).get(k, np.zeros(shape)) for w in witnesses]) for k, shape in sizes.items()}
    return Witnesses(
        points=pick([w.points for w in witnesses]),
        values=pick([w.values for w in witnesses]),
        at_kink=pick([w.at_kink for w in witnesses]),
        patterns=patterns or None,
    )


class SoFar:
    """The tightest interval that a run has told of so far, whichever of its methods it came from.

    Attributes:
        upper: (batch, rows).
    """

    def __init__(self, batch: int, rows: int) -> None:
        self.upper = np.full((batch, rows), np.inf)
        self._parts: list[tuple[int, Witnesses]] = []
        self._asked: list[Callable[[], Kept]] = []

    def take(self, kept: Kept | Callable[[], Kept]) -> None:
        """Note what is proved, or whom to ask for it when the run has ended."""
        if callable(kept):
            self._asked.append(kept)
            return
        some = slice(kept.first, kept.first + len(kept.upper))
        self.upper[some] = np.fmin(self.upper[some], kept.upper)  # NaN proves nothing
        if kept.witnesses is not None:
            # What a method tells of the same examples later replaces nothing that is better.
            same = (kept.first, kept.witnesses.values.shape)
            older = [w for first, w in self._parts if (first, w.values.shape) == same]
            if not any((w.values >= kept.witnesses.values).all() for w in older):
                self._parts.append((kept.first, kept.witnesses))

    def ask(self) -> None:
        """Ask the searches that were to be asked at the end; one that cannot answer any more is passed over.

        What it had told before stands, and the error that ended the run is reported by whoever caught it.
        """
        while self._asked:
            source = self._asked.pop()
            try:
                self.take(source())
            except Exception as error:  # noqa: BLE001  # its state may be broken by what ended the run
                _LOG.warning("what a search had found is lost", exc_info=error)

    def witnesses(self, middle: np.ndarray) -> Witnesses | None:
        """The best witness of every row; None if there is none at all.

        Args:
            middle: (batch, inputs) points of the domain that stand in for rows without one, with the value 0.
        """
        if not self._parts:
            return None
        batch, rows = self.upper.shape
        points = np.repeat(middle[:, None], rows, axis=1)
        values, at_kink = np.zeros((batch, rows)), np.zeros((batch, rows), dtype=bool)
        sizes = {k: pattern.shape[2:] for _, w in self._parts for k, pattern in (w.patterns or {}).items()}
        patterns = {k: np.zeros((batch, rows, *size)) for k, size in sizes.items()}  # read at kinks only
        for first, attained in self._parts:
            some = slice(first, first + len(attained.values))
            better = attained.values > values[some]
            points[some][better] = attained.points[better]
            at_kink[some][better] = attained.at_kink[better]
            values[some][better] = attained.values[better]
            for k, pattern in (attained.patterns or {}).items():
                patterns[k][some][better] = pattern[better]
        return Witnesses(points, values, at_kink, patterns or None)
