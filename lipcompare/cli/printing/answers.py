"""What ``lipcompare jacobian``, ``monotone``, ``certify`` and ``operator-norm`` print: tables and JSON objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box as boxes
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from lipcompare.budget import counted
from lipcompare.cli.printing.bounds import (
    MOST_ROWS,
    describe_domain,
    domain_json,
    interval_cells,
    numbers,
    relative_gap,
    seconds_text,
    where,
)
from lipcompare.domain import Box
from lipcompare.network import Network
from lipcompare.problem import Problem
from lipcompare.questions import Certificate, Direction, EntryBounds, Monotonicity, OperatorNorm
from lipcompare.result import Status
from lipcompare.rounding import lower_text, signed_lower_text, signed_upper_text, upper_text

_MOST_INPUTS = 12
"""Points with more coordinates than this are written to files only."""


def print_entries(console: Console, problem: Problem, bounds: EntryBounds, along: str, how: str) -> None:
    """A line per entry; of many entries those that may be largest."""
    size = np.maximum(np.abs(bounds.lower), np.abs(bounds.upper))
    order = np.arange(size.size)
    if size.size > MOST_ROWS:
        order = np.sort(np.argsort(-size.reshape(-1), kind="stable")[:MOST_ROWS])
    table = _table(*_example(problem), "functional", along, "at least", "at most", "sign")
    for number in order:
        b, row, entry = np.unravel_index(number, size.shape)
        low, high = float(bounds.lower[b, row, entry]), float(bounds.upper[b, row, entry])
        table.add_row(
            *_example(problem, b), problem.row_names(int(b))[row], str(entry), *_ends(low, high), _sign(low, high)
        )
    console.print(escape(f"{describe_domain(problem.network, problem.box)}; {counted(problem.rows, 'functional')}"))
    console.print(table)
    if size.size > MOST_ROWS:
        console.print(f"The {MOST_ROWS} largest of {size.size} entries; --out or --json has all.")
    what = "Derivatives" if along == "input" else "Derivatives along the directions"
    console.print(f"{what} of the functionals over {where(problem.box)}, proved by {escape(how)}.")
    _print_status(console, bounds.status)


def entries_json(problem: Problem, bounds: EntryBounds, along: str, method: str, seconds: float) -> dict[str, Any]:
    """Bounds of shape (boxes, functionals, inputs or directions)."""
    return {
        "method": method,
        "along": along,
        "lower": numbers(bounds.lower),
        "upper": numbers(bounds.upper),
        "status": bounds.status.name.lower(),
        "seconds": seconds,
        "problem": _problem_json(problem),
    }


def _problem_json(problem: Problem) -> dict[str, Any]:
    """The domains, and what the functionals of every example are called."""
    return {
        **domain_json(problem.network, problem.box),
        "functionals": problem.rows,
        "functional_names": [problem.row_names(b) for b in range(problem.batch)],
    }


def print_monotone(console: Console, problem: Problem, answer: Monotonicity, how: str) -> None:
    """A line per functional and input for one example, counts for a batch; and what the answers mean."""
    console.print(escape(f"{describe_domain(problem.network, problem.box)}; {counted(problem.rows, 'functional')}"))
    if problem.batch > 1:
        console.print(_counts(answer, _names(problem)))
    else:
        console.print(_answers(answer, problem.row_names()))
        if answer.directions[0].size > MOST_ROWS:
            console.print(f"The first {MOST_ROWS} of {answer.directions[0].size} lines; --json has all.")
        if problem.network.in_size <= _MOST_INPUTS:
            _print_pairs(console, answer, problem.row_names())
    for direction in Direction:
        if (answer.directions == direction).any():
            console.print(f"{direction.name.lower()}: {direction.value}", soft_wrap=True)
    console.print(f"By {escape(how)}. --out FILE.npz writes the points.")
    _print_status(console, answer.status)


def _print_status(console: Console, status: Status) -> None:
    """Why a question ended, if it was before its end."""
    if status is not Status.COMPLETE:
        console.print(f"{status.value} What was proved by then holds.")


def _names(problem: Problem) -> list[str]:
    """What the functionals are called where all examples have the same, else their numbers."""
    same = bool((problem.functionals == problem.functionals[:1]).all())
    return problem.row_names() if same else [str(row) for row in range(problem.rows)]


def _answers(answer: Monotonicity, names: Sequence[str]) -> Table:
    table = _table("functional", "input", "at least", "at most", "seen from", "to", "answer")
    for row, column in list(np.ndindex(answer.directions[0].shape))[:MOST_ROWS]:
        index = (0, row, column)
        ends = _ends(float(answer.lower[index]), float(answer.upper[index]))
        seen = (f"{answer.seen_lower[index]:.5g}", f"{answer.seen_upper[index]:.5g}")
        table.add_row(names[row], str(answer.features[column]), *ends, *seen, answer.directions[index].name.lower())
    return table


def _counts(answer: Monotonicity, names: Sequence[str]) -> Table:
    table = _table("functional", "input", *(d.name.lower() for d in Direction))
    _, rows, features = answer.directions.shape
    for row, place_ in list(np.ndindex(rows, features))[:MOST_ROWS]:
        counts = [int((answer.directions[:, row, place_] == d).sum()) for d in Direction]
        table.add_row(names[row], str(answer.features[place_]), *map(str, counts))
    return table


def _print_pairs(console: Console, answer: Monotonicity, names: Sequence[str]) -> None:
    """The two points of every answer "neither"."""
    for row, place_ in list(np.argwhere(answer.directions[0] == Direction.NEITHER))[:MOST_ROWS]:
        rising, falling = (_point(points[0, row, place_]) for points in (answer.rising, answer.falling))
        console.print(
            f"Functional {names[row]} rises in input {answer.features[place_]} at {rising}, falls at {falling}.",
            soft_wrap=True, markup=False,
        )  # fmt: skip


def _point(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def monotone_json(problem: Problem, answer: Monotonicity, method: str, seconds: float) -> dict[str, Any]:
    """Answers of shape (boxes, functionals, features), with the pair of points where the answer is "neither"."""
    names = np.vectorize(lambda d: d.name.lower(), otypes=[object])(answer.directions)
    pairs = [
        {
            "box": int(b), "functional": int(row), "input": answer.features[place_],
            "rising": numbers(answer.rising[b, row, place_]), "falling": numbers(answer.falling[b, row, place_]),
            "derivatives": [float(answer.seen_upper[b, row, place_]), float(answer.seen_lower[b, row, place_])],
        }
        for b, row, place_ in np.argwhere(answer.directions == Direction.NEITHER)
    ]  # fmt: skip
    return {
        "method": method,
        "features": list(answer.features),
        "answers": names.tolist(),
        "lower": numbers(answer.lower),
        "upper": numbers(answer.upper),
        "witnesses": pairs,
        "status": answer.status.name.lower(),
        "seconds": seconds,
        "problem": _problem_json(problem),
    }


def monotone_arrays(answer: Monotonicity) -> dict[str, np.ndarray]:
    """Everything as arrays; answers as text."""
    return {
        "features": np.array(answer.features),
        "answers": np.vectorize(lambda d: d.name.lower(), otypes=["U16"])(answer.directions),
        **{name: getattr(answer, name) for name in (
            "lower", "upper", "rising", "falling", "seen_lower", "seen_upper"
        )},
    }  # fmt: skip


def print_radii(
    console: Console,
    network: Network,
    points: Tensor,
    certificate: Certificate,
    method: str,
    at: float | None,
    targets: Sequence[int] | None = None,
    *,
    labelled: bool,
) -> None:
    """A line per example; several also get their mean.

    Args:
        targets: the classes that count as a change, if not all.
        labelled: whether somebody said what is right; else the class is what the network says.
    """
    looked_for = bool(np.isfinite(certificate.upper).any())
    table = _table("example", "class", "margin", "radius", *(["nearest other"] if looked_for else []), "by", "")
    for b, radius in enumerate(certificate.radius[:MOST_ROWS]):
        remark = "" if certificate.correct[b] else f"the network says {_says(network, points, b)}"
        far = [upper_text(float(certificate.upper[b]))] if looked_for else []
        cells = (str(b), str(certificate.labels[b]), f"{certificate.margin[b]:.5g}", lower_text(float(radius)), *far)
        table.add_row(*cells, certificate.route[b].value if radius > 0 else "", remark)
    total = len(certificate.radius)
    console.print(escape(f"{network.name}: {counted(total, 'example')}; radius in l_{certificate.norm.value}"))
    console.print(table)
    if total > MOST_ROWS:
        console.print(f"The first {MOST_ROWS} of {total} examples; --json has all.")
    if total > 1:
        right = f"; {int(certificate.correct.sum())} of {total} right" if labelled else ""
        console.print(f"Mean radius {lower_text(float(certificate.radius.mean()))}{right}.")
    if at is not None:
        console.print(
            f"{'Right and certified' if labelled else 'Certified'} within {at:.6g}: {certificate.share(at):.2%} of "
            f"{counted(total, 'example')}."
        )
    early = f" {certificate.status.value}" if certificate.status is not Status.COMPLETE else ""
    console.print(
        f"No input closer than the radius gets {_change(targets)}; proved by {escape(method)}, "
        f"{seconds_text(certificate.seconds)}.{early}",
        soft_wrap=True,
    )


def _change(targets: Sequence[int] | None) -> str:
    if targets is None:
        return "another class"
    return f"{'class' if len(targets) == 1 else 'any of the classes'} {', '.join(map(str, targets))}"


def _says(network: Network, points: Tensor, b: int) -> int:
    return int(network.to(points.device, points.dtype).forward(points[b]).argmax())


def radii_json(
    network: Network, certificate: Certificate, method: str, at: float | None, targets: Sequence[int] | None = None
) -> dict[str, Any]:
    """Arrays of shape (examples,)."""
    share = {} if at is None else {"at": at, "certified_share": certificate.share(at)}
    return {
        "method": method,
        "network": network.name,
        "norm": certificate.norm.value,
        "radius": numbers(certificate.radius),
        "route": [route.name.lower() for route in certificate.route],
        "labels": certificate.labels.tolist(),
        "targets": None if targets is None else list(targets),
        "correct": certificate.correct.tolist(),
        "margin": numbers(certificate.margin),
        "upper": numbers(certificate.upper),
        "points": [numbers(point) if np.isfinite(point).all() else None for point in certificate.points],
        "status": certificate.status.name.lower(),
        "message": certificate.status.value,
        "seconds": certificate.seconds,
        **share,
    }


def print_operator(console: Console, network: Network, domain: Box, answer: OperatorNorm, method: str) -> None:
    """A line per example, and what the number means."""
    table = _table("example", "at least", "at most", "gap")
    for b in range(min(len(answer.lower), MOST_ROWS)):
        low, high = float(answer.lower[b]), float(answer.upper[b])
        table.add_row(str(b), *interval_cells(low, high, relative_gap(low, high)))
    console.print(escape(describe_domain(network, domain)))
    console.print(table)
    if len(answer.lower) > MOST_ROWS:
        console.print(f"The first {MOST_ROWS} of {len(answer.lower)} examples; --json has all.")
    p = answer.norm.value
    console.print(
        f"The operator norm l_{p} -> l_{p} of the Jacobian over {where(domain)}: if x moves by d there (in l_{p}), all "
        f'outputs together move by at most d times "at most" (in l_{p}). By {escape(method)}, '
        f"{seconds_text(answer.seconds)}.",
        soft_wrap=True,
    )
    if answer.status is not Status.COMPLETE:
        console.print(escape(f"{answer.status.value} {answer.detail}".strip()), soft_wrap=True)


def operator_json(network: Network, domain: Box, answer: OperatorNorm, method: str) -> dict[str, Any]:
    """Arrays of shape (boxes,); ``trace`` are rows of seconds, lower and upper end, the largest over the boxes."""
    return {
        "method": method,
        "norm": answer.norm.value,
        "lower": numbers(answer.lower),
        "upper": numbers(answer.upper),
        "at_kink": answer.at_kink.tolist(),
        "status": answer.status.name.lower(),
        "message": f"{answer.status.value} {answer.detail}".strip(),
        "seconds": answer.seconds,
        "trace": [numbers(list(point)) for point in answer.trace],
        "problem": domain_json(network, domain),
    }


def _table(*columns: str) -> Table:
    table = Table(box=boxes.SIMPLE_HEAD, pad_edge=False)
    words = ("example", "functional", "input", "direction", "class", "sign", "answer", "by", "")
    for name in columns:
        table.add_column(name, justify="left" if name in words else "right")
    return table


def _example(problem: Problem, b: int | None = None) -> tuple[str, ...]:
    """The column of the example's number, where there are several."""
    return () if problem.batch == 1 else ("example" if b is None else str(b),)


def _ends(low: float, high: float) -> tuple[str, str]:
    return signed_lower_text(low), signed_upper_text(high)


def _sign(low: float, high: float) -> str:
    if low == high == 0:
        return "0"
    return "+" if low >= 0 else "-" if high <= 0 else "either"
