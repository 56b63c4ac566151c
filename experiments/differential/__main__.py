"""Everything against everything, for hours: ``python -m experiments.differential --hours 8``.

Random problems, and on each of them methods, questions and free solvers. Most networks are tiny and attack rounding
(:mod:`lipcompare.testing.hostile`); the truth about them is known in rational arithmetic. The others are the
same with smooth activations, and ordinary small networks (dense, convolutional, residual, pooling, sorting, leaky,
smooth), some with weights of extreme sizes; there, and where a truth takes too long, results are held against each
other and against derivatives at points, of sixty digits or enclosed in float64. Whatever contradicts, crashes, or has a
wrong status is written to a file from which ``--replay`` makes it again.

A case is one network, one domain, one norm and one precision; the domains of a network make one batch. Linear bounds
and questions run on the whole batch, two costly methods or solvers on one example each; ``--runs`` names what else is
to run on each batch instead, and ``--boxes 1`` holds costly methods against each other. At the end, and in
``counts.md`` every minute, there is a table of the cases of each kind and of how often each method or question ran on
one.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import faulthandler
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lipcompare
from experiments.differential.cases import BOXES, COSTLY, KINDS, LINEAR, Spec, named, specs
from experiments.differential.derivatives import derivatives
from experiments.differential.questions import GAP, LOOKS, QUESTIONS, Truths
from lipcompare import Bound, Problem, Status
from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.result import closed
from lipcompare.testing import exact

LATE = 300.0
"""Seconds after which a batch that has not ended says on stderr where it is."""
RUNS = (*(named(*run) for run in (*LINEAR, *COSTLY)), *QUESTIONS)
"""Everything that can be named."""


@dataclasses.dataclass
class Tally:
    """What ran and what was found.

    Attributes:
        cases: number of cases by kind of problem and precision.
        unknown: cases of tiny problems whose truth takes too long, by kind: compared by the other ways alone.
        runs: how often each method or question ran on a case, by its name, kind of problem and precision.
        found: findings, each with what makes it again.
    """

    folder: Path
    cases: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    unknown: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    runs: collections.Counter[tuple[str, str, str]] = dataclasses.field(default_factory=collections.Counter)
    found: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def report(self, spec: Spec, what: str, trouble: str, **numbers: object) -> None:
        """Keep a finding."""
        finding = {**dataclasses.asdict(spec), "what": what, "trouble": trouble, **numbers}
        self.found.append(finding)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{len(self.found):05d}.json").write_text(json.dumps(finding, default=str))
        print("FOUND", json.dumps(finding, default=str), flush=True)

    def ran(self, spec: Spec, what: str, count: int) -> None:
        """Count runs of a method or question."""
        self.runs[what, spec.kind, spec.dtype] += count

    def total(self) -> str:
        single = sum(n for (_, dtype), n in self.cases.items() if dtype == "float32")
        unknown = ", ".join(f"{kind} {n}" for kind, n in sorted(self.unknown.items()))
        return (
            f"{self.cases.total()} cases ({single} in float32), {self.runs.total()} runs on one, "
            f"{len(self.found)} findings; truths that take too long: {unknown or 'none'}"
        )

    def table(self) -> str:
        """Cases, and runs of methods and questions (rows) on kinds of problems (columns), in float32 and in float64."""
        kinds = list(dict.fromkeys(kind for kind, _ in self.cases))
        rows = {"cases": self.cases}
        for (what, kind, dtype), number in sorted(self.runs.items()):
            rows.setdefault(what, collections.Counter())[kind, dtype] += number
        header = ["", *kinds, "all"]
        lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        for name, counts in rows.items():
            cells = [[counts[kind, dtype] for dtype in ("float32", "float64")] for kind in kinds]
            cells.append([sum(column) for column in zip(*cells, strict=True)])
            lines.append(f"| {name} | " + " | ".join(f"{a} + {b}" for a, b in cells) + " |")
        return "\n".join(lines)

    def save(self) -> None:
        """The table as a file, so that a run that is killed has counts too."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "counts.md").write_text(f"{self.total()}\n\n{self.table()}\n")


def examine(spec: Spec, tally: Tally, only: str | None = None) -> None:
    """All cases of one batch; with ``only``, one method or question alone."""
    try:
        problem = spec.problem()
    except InvalidInput:  # weights that its precision does not hold
        return
    truths = [_truth(spec, problem, b, tally) for b in range(spec.boxes)]
    tally.cases[spec.kind, spec.dtype] += spec.boxes
    points = derivatives(problem)
    seen = points.norms(problem)
    lowest, highest = np.zeros_like(seen), np.full_like(seen, np.inf)
    for method, options, examples in spec.runs():
        name = named(method, options)
        if only not in (None, name):
            continue
        part = problem.slice(examples.start, examples.stop)
        try:
            result = lipcompare.bound(part, method, time_limit=5.0, gap=GAP, **options)
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            tally.ran(spec, name, len(examples))
            tally.report(spec, name, "exception", error=f"{type(error).__name__}: {error}", first=examples.start)
            continue
        if result.status is Status.UNSUPPORTED:
            continue
        tally.ran(spec, name, len(examples))
        some = slice(examples.start, examples.stop)
        for trouble in _troubles(part, result, truths[some], seen[some]):
            tally.report(spec, name, trouble, lower=result.lower.tolist(), upper=result.upper.tolist(),
                         status=result.status.name, detail=result.detail, first=examples.start)  # fmt: skip
        lowest[some] = np.maximum(lowest[some], result.lower)
        highest[some] = np.minimum(highest[some], result.upper)
        if (lowest > highest).any():
            tally.report(spec, name, "contradiction", lower=lowest.tolist(), upper=highest.tolist())
            return
    for question in spec.questions():
        if only not in (None, question):
            continue
        try:
            trouble, count = QUESTIONS[question](problem, truths, points, spec.random)
        except UnsupportedOperation:
            continue
        except exact.TooLarge:
            tally.unknown[question] += spec.boxes
            continue
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            trouble, count = f"{type(error).__name__}: {error}", spec.boxes
        tally.ran(spec, question, count)
        if trouble:
            tally.report(spec, question, trouble)


def _truth(spec: Spec, problem: Problem, example: int, tally: Tally) -> exact.Truth | None:
    """The truth about one example of a tiny problem, unless it takes too long; None about others."""
    if not spec.tiny:
        return None
    try:
        return exact.truth(problem, example, LOOKS)
    except exact.TooLarge:
        tally.unknown[spec.kind] += 1
        return None


def _troubles(problem: Problem, result: Bound, truths: Truths, seen: np.ndarray) -> Iterator[str]:
    if np.isnan(result.lower).any() or np.isnan(result.upper).any():
        yield "NaN"
    if result.status in (Status.CRASHED, Status.OUT_OF_MEMORY):
        yield "crash"
    if (result.lower > result.upper).any():
        yield "crossed"
    proves = lipcompare.METHODS[result.method].proves
    known = closed(result.lower, result.upper, GAP) if proves in ("exact", "interval") else np.isfinite(result.upper)
    if proves != "lower" and result.status is Status.COMPLETE and not result.detail and not np.all(known):
        yield "a gap without a reason"
    if result.status is Status.EXACT and not (result.gap <= GAP).all():
        yield "not exact"
    if (seen > result.upper).any():
        yield "upper bound under a derivative"
    for b, row in np.ndindex(problem.batch, problem.rows):
        truth = truths[b]
        if truth is None:
            continue
        if not truth.admits_upper(row, problem.norm, float(result.upper[b, row])):
            yield f"example {b}: upper bound under the truth, {truth.value(row, problem.norm)!r}"
        if not truth.admits_lower(row, problem.norm, float(result.lower[b, row])):
            yield f"example {b}: lower bound above the truth, {truth.value(row, problem.norm)!r}"


def main(arguments: list[str] | None = None) -> int:
    """Run until the time or the number of cases is reached; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="hours to run (default: %(default)g)")
    parser.add_argument("--cases", type=int, default=10**9, help="cases after which to stop")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--boxes", type=int, default=BOXES, help="domains of one network (default: %(default)s)")
    parser.add_argument(
        "--runs", nargs="+", default=[], choices=(*RUNS, "costly"), metavar="NAME",
        help="what runs on every batch; 'costly' stands for all costly methods. Names: " + ", ".join(RUNS),
    )  # fmt: skip
    parser.add_argument(
        "--kinds", nargs="+", default=KINDS, choices=KINDS, metavar="KIND",
        help="of problems (default: all): " + ", ".join(KINDS),
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where problems are: cpu or cuda (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("differential"), help="folder for findings")
    parser.add_argument("--replay", type=Path, help="a finding to make again")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tally = Tally(chosen.out)
    if chosen.replay is not None:
        kept = json.loads(chosen.replay.read_text())
        examine(Spec(**{f.name: kept[f.name] for f in dataclasses.fields(Spec)}), tally, kept["what"])
        print(tally.total())
        return int(bool(tally.found))
    end, told = time.monotonic() + 3600 * chosen.hours, time.monotonic()
    names = [name for name in chosen.runs if name != "costly"]
    if "costly" in chosen.runs:
        names += [named(*run) for run in COSTLY]
    for spec in specs(chosen.seed, chosen.boxes, ",".join(dict.fromkeys(names)), chosen.device, chosen.kinds):
        if time.monotonic() > end or tally.cases.total() >= chosen.cases:
            break
        faulthandler.dump_traceback_later(LATE)  # where it is, should it hang
        examine(spec, tally)
        faulthandler.cancel_dump_traceback_later()
        if time.monotonic() - told > 60:
            told = time.monotonic()
            tally.save()
            print(f"at {spec}, {time.process_time():.0f} s of CPU: {tally.total()}", flush=True)
    tally.save()
    print(f"{time.process_time():.0f} s of CPU: {tally.total()}\n\n{tally.table()}")
    return int(bool(tally.found))


if __name__ == "__main__":
    raise SystemExit(main())
