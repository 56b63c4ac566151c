"""The answer: certified lower and upper bounds with their witnesses, and everything needed to judge them."""

from __future__ import annotations

import dataclasses
import enum
import html
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lipcompare.budget import TracePoint
from lipcompare.rounding import gap_text, lower_text, upper_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Status(enum.Enum):
    """Why a method stopped; the value is the sentence a person reads."""

    COMPLETE = "The method ran to its end."
    EXACT = "The value is proved to the requested gap."
    TIME_LIMIT = "Stopped at the time limit."
    NODE_LIMIT = "Stopped at the node limit."
    MEMORY_LIMIT = "Stopped at the memory limit."
    INTERRUPTED = "Interrupted."
    UNSUPPORTED = "The method does not apply to this problem."
    UNAVAILABLE = "The solver is not installed or has no licence."
    LICENCE_TOO_SMALL = "The solver's licence does not allow a model of this size."
    OUT_OF_MEMORY = "Out of memory."
    NUMERICAL = "The solver met numerical trouble; only what was checked is reported."
    CRASHED = "The method crashed: a bug, please report it."

    @property
    def early(self) -> bool:
        """Whether the method ended before it was done."""
        return self not in (Status.COMPLETE, Status.EXACT, Status.UNSUPPORTED)


def closed(lower: np.ndarray, upper: np.ndarray, gap: float) -> bool:
    """Whether the largest rows of all examples are known to the relative gap; lower and upper are (batch, rows)."""
    low, high = lower.max(1), upper.max(1)
    return bool(np.isfinite(low).all() and np.isfinite(high).all() and (high - low <= gap * high).all())


def proved(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends as frames and files have them: NaN where nothing is proved.

    That is a lower bound of 0, which every network has, unless the upper bound says that the value is 0; and an upper
    bound that is infinite.
    """
    return np.where((lower > 0) | (upper == 0), lower, np.nan), np.where(np.isfinite(upper), upper, np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class Witness:
    """A point that attains a value of one row.

    Attributes:
        point: (inputs,).
        slopes: (neurons,) slopes of all activation nodes from the input on that give the value; None where those that
            autograd takes do.
    """

    row: int
    value: float
    point: np.ndarray
    slopes: np.ndarray | None = None


class Attained:
    """The best witness of every row of one example, as a method comes by them.

    Attributes:
        lower: (rows,) the values, 0 where there is no witness.
        witnesses: by row.
    """

    def __init__(self, rows: int, witnesses: Sequence[Witness] = ()) -> None:
        self.lower = np.zeros(rows)
        self.witnesses: dict[int, Witness] = {}
        for witness in witnesses:
            self.note(witness)

    @property
    def best(self) -> float:
        """The largest value of any row."""
        return float(self.lower.max())

    def note(self, witness: Witness) -> bool:
        """Take up a witness if it is better; a value that overflowed, or is not a number, is none."""
        better = bool(self.lower[witness.row] < witness.value < np.inf)
        if better:
            self.witnesses[witness.row] = witness  # first, as Ctrl-C may come in between
            self.lower[witness.row] = witness.value
        return better

    def learn(self, other: Attained) -> None:
        """Take up what is known elsewhere."""
        for witness in other.witnesses.values():
            self.note(witness)


@dataclasses.dataclass(frozen=True, eq=False)
class Witnesses:
    """Points that attain the lower bounds, one per example and row.

    Attributes:
        points: (batch, rows, inputs).
        values: (batch, rows), the dual norm of the gradient there.
        at_kink: (batch, rows), true where the value needs the pattern, since a pre-activation vanishes at the point, or
            is so small there that rounding hides its sign; elsewhere autograd at the point gives the value.
        patterns: per activation node (batch, rows, neurons), slopes taken; None when no witness is at a kink.
    """

    points: np.ndarray
    values: np.ndarray
    at_kink: np.ndarray
    patterns: Mapping[int, np.ndarray] | None = None

    def part(self, some: slice) -> Witnesses:
        """Those of some consecutive examples."""
        patterns = None if self.patterns is None else {k: p[some] for k, p in self.patterns.items()}
        return Witnesses(self.points[some], self.values[some], self.at_kink[some], patterns)

    def example(self, b: int) -> list[Witness]:
        """The witnesses of one example, row by row."""
        slopes = None
        if self.patterns is not None:
            slopes = np.concatenate([self.patterns[k][b] for k in sorted(self.patterns)], -1)
        return [
            Witness(row, float(value), point, slopes[row] if slopes is not None and kinked else None)
            for row, (value, point, kinked) in enumerate(
                zip(self.values[b], self.points[b], self.at_kink[b], strict=True)
            )
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Bound:
    """What a method proved about a batch of problems.

    Attributes:
        lower, upper: (batch, rows); 0 and inf where nothing is proved (NaN in frames and CSV files, null in JSON).
        status, detail: why it stopped, and what else there is to say.
        method, options: the method's name and the fields it ran with.
        seconds: wall-clock time of the method.
        trace: the overall interval on the way there.
        witnesses: points that attain ``lower``.
        device, dtype: where and in which precision it was computed.
        versions: versions of the packages that took part.
        prover: writes certificates of it; None where it does not come from :func:`lipcompare.bound`.
    """

    lower: np.ndarray
    upper: np.ndarray
    status: Status
    method: str
    seconds: float
    detail: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trace: tuple[TracePoint, ...] = ()
    witnesses: Witnesses | None = None
    device: str = "cpu"
    dtype: str = "float64"
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prover: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)

    def certificate(
        self, path: str | os.PathLike[str], *, example: int = 0, time_limit: float = 60.0, memory: int = 2**30
    ) -> Any:
        """Write a proof of one example's interval that ``lipverify`` checks (docs/certificates.md).

        Args:
            example: of the batch.
            time_limit: seconds for the proof; where they do not suffice, it proves less and says so.
            memory: bytes of working memory.

        Returns:
            What was written: :class:`lipcompare.certificates.Summary`.

        Raises:
            ValueError: the result does not come from :func:`lipcompare.bound`, or nothing was proved.
            UnsupportedOperation: certificates do not cover the network or the domain.
        """
        if self.prover is None:
            raise ValueError(
                "Only what lipcompare.bound has proved knows its problem; for other results there is "
                "certificates.write_certificate."
            )
        return self.prover(self, path, example=example, time_limit=time_limit, memory=memory)

    def example(self, b: int) -> Bound:
        """What is proved of one example; the trace is that of the batch and left out."""
        one = slice(b, b + 1)
        witnesses = None if self.witnesses is None else self.witnesses.part(one)
        return dataclasses.replace(self, lower=self.lower[one], upper=self.upper[one], trace=(), witnesses=witnesses)

    @property
    def overall_lower(self) -> np.ndarray:
        """Lower bound on ``max_i L_i``, (batch,)."""
        overall: np.ndarray = np.max(self.lower, axis=1)
        return overall

    @property
    def overall_upper(self) -> np.ndarray:
        """Upper bound on ``max_i L_i``, (batch,)."""
        overall: np.ndarray = np.max(self.upper, axis=1)
        return overall

    @property
    def gap(self) -> np.ndarray:
        """Relative gap of the overall interval (batch,), ``(upper - lower) / upper``; 0 for the zero function."""
        lower, upper = self.overall_lower, self.overall_upper
        with np.errstate(invalid="ignore"):
            ratio = (upper - lower) / np.where(upper > 0, upper, 1.0)
        return np.where(np.isinf(upper), np.inf, ratio)

    @property
    def proves(self) -> str:
        """``exact``, ``interval``, ``upper``, ``lower`` or ``nothing``."""
        lower, upper = bool((self.overall_lower > 0).any()), bool(np.isfinite(self.overall_upper).any())
        if self.status is Status.EXACT:
            return "exact"
        return {(True, True): "interval", (False, True): "upper", (True, False): "lower"}.get((lower, upper), "nothing")

    @property
    def sentence(self) -> str:
        """Status, whether anything is proved where the method ended early, and detail as one text."""
        stands = "Nothing was proved." if self.proves == "nothing" else "The interval so far holds."
        # A method that proved something did apply, up to what the detail says.
        applied = self.status is Status.UNSUPPORTED and self.detail and self.proves != "nothing"
        status = "" if applied else self.status.value
        return " ".join(filter(None, (status, stands if self.status.early else "", self.detail)))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON; an end that is not proved is None."""
        lower, upper = proved(self.overall_lower, self.overall_upper)
        rows_lower, rows_upper = proved(self.lower, self.upper)
        return {
            "method": self.method,
            "options": {k: _plain(v) for k, v in self.options.items()},
            "lower": [_number(v) for v in lower],
            "upper": [_number(v) for v in upper],
            "proves": self.proves,
            "status": self.status.name.lower(),
            "message": self.sentence,
            "seconds": self.seconds,
            "rows": {
                "lower": [[_number(v) for v in row] for row in rows_lower],
                "upper": [[_number(v) for v in row] for row in rows_upper],
            },
            "device": self.device,
            "dtype": self.dtype,
            "versions": dict(self.versions),
        }

    def __str__(self) -> str:
        lines = [f"{self.method}: {self.sentence} ({self.seconds:.3g} s, {self.device}, {self.dtype})"]
        for b, (low, high) in enumerate(zip(self.overall_lower, self.overall_upper, strict=True)):
            lines.append(f"  example {b}: {interval_text(low, high)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Bound by {self}>" if len(self.lower) == 1 else f"<Bound by {self}\n>"

    def plot(self, *, example: int = 0) -> Figure:
        """The interval of every functional of one example, and over time where the method told of it on the way."""
        from lipcompare.display.intervals import one_result  # loads matplotlib

        lower, upper = proved(self.lower, self.upper)
        title = f"{self.method}: {interval_text(self.overall_lower[example], self.overall_upper[example])}"
        return one_result(lower[example], upper[example], self.trace, self.seconds, title=title)

    def _repr_html_(self) -> str:
        lower, upper = proved(self.overall_lower, self.overall_upper)
        cells = "".join(
            f"<tr><td>{b}</td><td>{'0' if high == 0 else lower_text(low, 6)}</td><td>{upper_text(high, 6)}</td>"
            f"<td>{gap_text(gap if low >= 0 else np.nan)}</td></tr>"
            for b, (low, high, gap) in enumerate(zip(lower, upper, self.gap, strict=True))
        )
        return (
            f"<p><b>{html.escape(self.method)}</b> {html.escape(self.sentence)} "
            f"({self.seconds:.3g} s, {self.device}, {self.dtype})</p>"
            f"<table><tr><th>example</th><th>lower</th><th>upper</th><th>gap</th></tr>{cells}</table>"
        )


def interval_text(lower: float, upper: float) -> str:
    """``[lower, upper]`` as a person reads it: unproved ends are said to be so."""
    if lower <= 0 and np.isinf(upper):
        return "nothing proved"
    if np.isinf(upper):
        return f"at least {lower_text(lower, 6)} (no upper bound)"
    if lower <= 0:
        return f"at most {upper_text(upper, 6)} (no lower bound)"
    return f"between {lower_text(lower, 6)} and {upper_text(upper, 6)}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(value: object) -> int | float | str | bool | None:
    if isinstance(value, enum.Enum):
        return str(value.value)
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
