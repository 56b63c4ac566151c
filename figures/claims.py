"""What a store's rows say for and against the paper's claims, and what is new beside them: sentences with numbers.

Every sentence says how many problems it rests on, and how many of their cells were cut short by a limit.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from figures.pareto import STUDIES
from lipcompare.display.frames import two_digits
from lipcompare.display.style import paper_name
from lipcompare.report.facts import CUT_SHORT, RAN, best_known, contradictions, distinct

TINY = ("tiny_width", "tiny_depth", "tiny_cnn", "radius")
BASELINES = ("NaiveUB", "IBP", "RecurJac", "LipSDP")
EXACT = ("LipMIP", "LipBaB")
PROVED = ("increasing", "decreasing", "constant")

EQUAL = 1e-6
"""Relative difference of two bounds that solvers' tolerances may make."""
CLOSE = 0.1
"""Relative excess over the exact constant that is called close."""
_LEAST_SECONDS = 1e-4
_NEAR = {1.01: "at most 1.01", 1.1: "at most 1.1", 2.0: "at most 2"}
_RAN_OUT = frozenset((*CUT_SHORT, "out_of_memory"))
_NAMED = 6
"""Groups of problems that a sentence names at most."""


class Verdict(enum.Enum):
    """What became of a claim."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    FAILS = "does not hold"
    OPEN = "no cells to tell by"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, what became of it, and the sentences with the numbers."""

    text: str
    verdict: Verdict
    sentences: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Two series on the problems that both bounded from above.

    Attributes:
        ratio: per problem the upper bound of the second over that of the first.
        times: the seconds of the second over those of the first.
        group: model and radius.
        short: whether the time or the memory of one of the two ended before it did.
        missing: by status, problems that the first bounded and the second did not.
        lost: by status, problems that the second bounded and the first did not.
        closed: problems, of these, that the first proved exactly.
        anytime: whether values at the limit are what is compared; else they decide nothing, as a method that was cut
            short may have handed on what another one had.
    """

    ratio: pd.Series
    times: pd.Series
    group: pd.Series
    short: pd.Series
    missing: pd.Series
    lost: pd.Series
    closed: int
    anytime: bool

    @classmethod
    def of(cls, rows: pd.DataFrame, first: str, second: str, *, anytime: bool = False) -> Pairs:
        one, other = (distinct(rows[rows["series"] == name]).set_index("problem_hash") for name in (first, second))
        both = one.index.intersection(other.index)
        one, other = one.loc[both], other.loc[both]
        mine, theirs = _bounded(one), _bounded(other)
        missing, lost = other["status"][mine & ~theirs], one["status"][theirs & ~mine]
        one, other = one[mine & theirs], other[mine & theirs]
        times = other["seconds"].clip(lower=_LEAST_SECONDS) / one["seconds"].clip(lower=_LEAST_SECONDS)
        # Of two constants that are 0 neither is tighter.
        ratio = (other["upper"] / one["upper"]).where((one["upper"] > 0) | (other["upper"] > 0), 1.0)
        return cls(
            ratio, times, _group(one), _short(one) | _short(other), missing.value_counts(), lost.value_counts(),
            int((one["status"] == "exact").sum()), anytime,
        )  # fmt: skip

    @property
    def looser(self) -> pd.Series:
        """Whether the second is looser, beyond tolerances."""
        return self.ratio > 1 + EQUAL

    @property
    def tighter(self) -> pd.Series:
        return self.ratio < 1 - EQUAL

    @property
    def deciding(self) -> Pairs:
        """Those that tell by how much one is tighter."""
        if self.anytime:
            return self
        some = ~self.short
        parts = {name: getattr(self, name)[some] for name in ("ratio", "times", "group", "short")}
        return dataclasses.replace(self, **parts)

    def verdict(self) -> Verdict:
        """Of the claim that the first is tighter everywhere."""
        told = self.deciding
        if told.ratio.empty:
            return Verdict.FAILS if len(self.lost) else Verdict.OPEN
        if not told.looser.any() or _mean(told.ratio) <= 1 + EQUAL:
            return Verdict.FAILS
        return Verdict.HOLDS if told.looser.all() and not len(self.lost) else Verdict.IN_PART

    def sentence(self, first: str, second: str) -> str:
        """How often which is tighter, and by how much."""
        count = len(self.ratio)
        if not count:
            why = f" ({_counted(self.missing)})" if len(self.missing) else ""
            return f"{second}: it and {first} have no problem that both bounded{why}."
        equal = count - int(self.looser.sum()) - int(self.tighter.sum())
        said = (
            f"{second} is looser than {first} on {int(self.looser.sum())} of {_problems(count)}, equal on {equal}, "
            f"tighter on {int(self.tighter.sum())}; "
        )
        some = self.ratio[np.isfinite(self.ratio) & (self.ratio > 0)]
        zeros = "" if len(some) == count else f" where neither is 0, as one is on {_problems(count - len(some))},"
        if len(some):
            said += (
                f"its value is {_mean(some):.4g} times that of {first} in the geometric mean ({some.min():.4g} to "
                f"{some.max():.4g}),{zeros} "
            )
        said += f"its time {two_digits(_mean(self.times))} times."
        against = self.ratio[self.tighter].groupby(self.group[self.tighter]).min().sort_values()
        if len(against):
            named = ", ".join(f"{group} (by {1 / r - 1:.2%})" for group, r in against.head(_NAMED).items())
            more = f" and {len(against) - _NAMED} more" if len(against) > _NAMED else ""
            said += f" It is tighter on {named}{more}."
        if short := int(self.short.sum()):
            counted = "its value at the limit counts" if self.anytime else "those decide nothing"
            said += f" On {_problems(short)} one of the two was cut short ({counted})."
        if len(self.missing):
            said += f" It bounded nothing on {_problems(int(self.missing.sum()))} more ({_counted(self.missing)})."
        if len(self.lost):
            count = _problems(int(self.lost.sum()))
            said += f" On {count} more it has a bound and {first} has none ({_counted(self.lost)})."
        return said


def claims(frame: pd.DataFrame) -> list[Claim]:
    """All of them, from the finished rows of a store."""
    main = frame[frame["study"].isin(STUDIES)]
    return [*_paper(frame, main), *_new(frame, main)]


def _paper(frame: pd.DataFrame, main: pd.DataFrame) -> Iterator[Claim]:
    pairs = {name: Pairs.of(main, "paper", name) for name in BASELINES}
    yield _tighter("The paper's bound is tighter than NaiveUB, IBP, RecurJac and LipSDP at every size", "paper", pairs)
    linear = Pairs.of(main, "LipLP", "paper")
    told = linear.deciding
    loss = told.ratio.max() - 1 if len(told.ratio) else np.inf
    yield Claim(
        f"It is about as tight as the linear program of LipMIP (LipLP; within {CLOSE:.0%}), and faster",
        Verdict.OPEN if told.ratio.empty
        else Verdict.HOLDS if loss <= CLOSE and _mean(told.times) < 1 and not len(linear.missing)
        else Verdict.IN_PART if _mean(told.ratio) <= 1 + CLOSE and _mean(told.times) < 1
        else Verdict.FAILS,
        [linear.sentence("LipLP", "paper")],
    )  # fmt: skip
    relaxation = frame[frame["study"] == "ablation_relaxation"]
    of_gates = {
        f"{name}, {level}": (f"paper, {level}", Pairs.of(relaxation, f"paper, {level}", f"{name}, {level}"))
        for level in ("interval", "crown", "alpha-crown")
        for name in ("IBP", "RecurJac")
    }
    yield Claim(
        "So it is with the same bounds on pre-activations: the relaxation of the gates is what helps",
        _together([p.verdict() for _, p in of_gates.values()]),
        [p.sentence(first, name) for name, (first, p) in of_gates.items()],
    )
    yield _close_to_exact(frame)
    found = Pairs.of(main, "paper, BaB", "paper", anytime=True)
    closed = f"Branch and bound closed the gap on {found.closed} of these {_problems(len(found.ratio))}."
    yield Claim(
        "Branch and bound tightens it further", found.verdict(), [found.sentence("paper, BaB", "paper"), closed]
    )
    yield _scales(main)
    yield _monotone(frame)


def _new(frame: pd.DataFrame, main: pd.DataFrame) -> Iterator[Claim]:
    sdp = Pairs.of(main, "sdp", "paper", anytime=True)
    yield Claim("New: the quadratic-gate bound (sdp) is tighter than the paper's", sdp.verdict(),
                [sdp.sentence("sdp", "paper")])  # fmt: skip
    bab = Pairs.of(main, "bab", "paper, BaB", anytime=True)
    counts = {name: (_closed(main, name), _count(main, name)) for name in ("bab", "paper, BaB", *EXACT)}
    ended = ", ".join(f"{name} {closed} of {count}" for name, (closed, count) in counts.items())
    yield Claim("New: branch and bound on it (bab) is tighter than the paper's", bab.verdict(),
                [bab.sentence("bab", "paper, BaB"), f"Constants proved exactly: {ended}."])  # fmt: skip
    yield _intervals(frame)


def _tighter(text: str, first: str, pairs: dict[str, Pairs]) -> Claim:
    verdict = _together([p.verdict() for p in pairs.values()])
    return Claim(text, verdict, [p.sentence(first, name) for name, p in pairs.items()])


def _close_to_exact(frame: pd.DataFrame) -> Claim:
    text = f"The paper's bound is close to the exact constant on small networks (within {CLOSE:.0%})"
    exact = frame[frame["status"] == "exact"].groupby("problem_hash")["upper"].min()
    tiny = distinct(frame[frame["study"].isin(TINY) & (frame["series"] == "paper")])
    tiny = tiny.join(exact.rename("constant"), on="problem_hash")
    known = tiny[tiny["constant"] > 0]
    without = int((~_bounded(known)).sum())
    known = known[_bounded(known)]
    if known.empty:
        return Claim(text, Verdict.OPEN, ["No exact constant was found of what the paper's method bounded."])
    ratio = known["upper"] / known["constant"]
    close = int((ratio <= 1 + CLOSE).sum())
    by_radius = ratio.groupby(known["label.eps"]) if "label.eps" in known else ()
    radii = ", ".join(f"{eps:g}: {_mean(r):.4g} ({len(r)})" for eps, r in by_radius)
    whole = close == len(ratio) and not without
    verdict = Verdict.HOLDS if whole else Verdict.IN_PART if close else Verdict.FAILS
    said = (
        f"Exact constants are known of {len(known) + without} of {_problems(len(tiny))}; the paper's bound is within "
        f"{CLOSE:.0%} on {close} of them, {_mean(ratio):.4g} times the constant in the geometric mean, "
        f"{ratio.max():.4g} at worst."
    )
    if without:
        said += f" On {without} of them it bounded nothing."
    return Claim(text, verdict, [said, f"By radius (problems): {radii}."])


def _scales(main: pd.DataFrame) -> Claim:
    text = "It bounds convolutional networks on which LipMIP and LipBaB run out of time"
    rows = main[main["label.model"].astype(str).str.contains("cnn")] if "label.model" in main else main[:0]
    sentences, kept = [], list[bool]()
    tried = dict.fromkeys(EXACT, 0)
    for model, cells in rows.groupby("label.model", sort=False):
        ours = distinct(cells[cells["series"] == "paper"])
        if ours.empty:
            continue
        bounded = _bounded(ours)
        parts = [f"paper bounds {int(bounded.sum())} of {_problems(len(ours))}"]
        if bounded.any():
            parts[0] += f" in {two_digits(ours['seconds'][bounded].median())} s (median)"
        ended = True
        for name in EXACT:
            theirs = distinct(cells[cells["series"] == name])
            if not theirs.empty:
                tried[name] += 1
                ended &= bool(theirs["status"].isin(_RAN_OUT).all())
                limit = ", ".join(f"{v:g}" for v in sorted(theirs["time_limit"].unique()))
                parts.append(f"{name} within {limit} s: {_counted(theirs['status'].value_counts())}")
        sentences.append(f"{model} ({ours['neurons'].iloc[0]:,.0f} neurons): {'; '.join(parts)}.")
        kept.append(bool(bounded.all()) and ended)
    if not kept:
        return Claim(text, Verdict.OPEN, ["No convolutional network was run."])
    if not all(tried.values()):
        return Claim(text, Verdict.OPEN, [*sentences, "Not both of LipMIP and LipBaB were run on them."])
    verdict = Verdict.HOLDS if all(kept) else Verdict.IN_PART if any(kept) else Verdict.FAILS
    return Claim(text, verdict, sentences)


def _monotone(frame: pd.DataFrame) -> Claim:
    text = "More examples are proved monotone by the paper's bound than by RecurJac's and interval bounds (Adult)"
    rows = frame[frame["study"] == "monotonicity"]
    if rows.empty or "label.answer" not in rows:
        return Claim(text, Verdict.OPEN, ["The study of monotonicity was not run."])
    sentences, verdict = [], Verdict.OPEN
    for data, cells in rows.groupby("label.data", sort=False):
        shares = {}
        for series, mine in cells.groupby("series", sort=False):
            answers = mine["label.answer"].fillna("no answer").value_counts(normalize=True)
            name = paper_name(str(series))
            shares[name] = float(answers.reindex(PROVED).fillna(0.0).sum())
            parts = ", ".join(f"{answer} {share:.1%}" for answer, share in answers.items())
            sentences.append(
                f"{data}, {name}: {parts} of {len(mine)} questions, {two_digits(mine['seconds'].mean())} s each."
            )
        others = [shares[name] for name in ("IBP", "RecurJac") if name in shares]
        if data == "adult" and "paper" in shares and others:  # a made-up table neither keeps nor breaks the claim
            above = [shares["paper"] > share for share in others]
            verdict = Verdict.HOLDS if all(above) else Verdict.IN_PART if any(above) else Verdict.FAILS
    return Claim(text, verdict, sentences)


def _quantities(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows in parts that bound the same: constants of functionals, and operator norms, of all outputs at once."""
    if "label.question" not in frame:
        return [frame]
    norms = frame["label.question"] == "norms"
    return [frame[~norms], frame[norms]]


def _intervals(frame: pd.DataFrame) -> Claim:
    rows = frame[frame["study"].isin(STUDIES) & frame["status"].isin(RAN)]
    ends = pd.DataFrame({"lower": best_known(rows), "upper": rows.groupby("problem_hash")["upper"].min()})
    count, ends = len(ends), ends[ends["lower"].notna() & np.isfinite(ends["upper"])]
    bounded, wrong = 0, 0
    for cells in map(distinct, _quantities(frame)):
        bounded, wrong = bounded + int(_bounded(cells).sum()), wrong + len(contradictions(cells))
    within = ", ".join(f"{int((ends['upper'] <= ends['lower'] * far).sum())} {words}" for far, words in _NEAR.items())
    sentences = [
        f"{len(ends)} of {_problems(count)} have both ends. Best upper over best lower bound: {within}.",
        f"{wrong} of {bounded} upper bounds are below a lower bound of another method.",
    ]
    whole = Verdict.HOLDS if len(ends) == count else Verdict.IN_PART
    verdict = Verdict.FAILS if wrong else Verdict.OPEN if ends.empty else whole
    return Claim(
        "New: both ends of every constant, without a contradiction between any two methods", verdict, sentences
    )


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim about several pairs: where some have no cells to tell by, it holds in part at most."""
    told = set(verdicts)
    if told == {Verdict.OPEN, Verdict.FAILS}:
        return Verdict.FAILS
    return told.pop() if len(told) == 1 else Verdict.IN_PART


def _closed(rows: pd.DataFrame, series: str) -> int:
    return int((distinct(rows[rows["series"] == series])["status"] == "exact").sum())


def _count(rows: pd.DataFrame, series: str) -> int:
    return len(distinct(rows[rows["series"] == series]))


def _bounded(rows: pd.DataFrame) -> pd.Series:
    return rows["status"].isin(RAN) & np.isfinite(rows["upper"])


def _short(rows: pd.DataFrame) -> pd.Series:
    return rows["status"].isin(CUT_SHORT)


def _group(rows: pd.DataFrame) -> pd.Series:
    """Model and radius in words."""
    radius = pd.Series("", index=rows.index, dtype=object)
    for label in ("label.eps", "label.radius"):
        if label in rows:
            here = rows[label].notna()
            radius[here] = [f"{v:g}" if isinstance(v, float) else str(v) for v in rows.loc[here, label]]
    return rows.get("label.model", rows["network"]).astype(str) + " at " + radius.astype(str)


def _mean(ratios: pd.Series) -> float:
    """Geometric."""
    return float(np.exp(np.log(ratios).mean()))


def _problems(count: int) -> str:
    return f"{count} problem{'' if count == 1 else 's'}"


def _counted(statuses: pd.Series) -> str:
    return ", ".join(f"{str(status).replace('_', ' ')} {count}" for status, count in statuses.items())
