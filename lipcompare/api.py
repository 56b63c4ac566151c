"""``bound`` and ``compare``: the entry points. They run methods, check what comes back, and never let one method's
failure stop a comparison."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from lipcompare import methods
from lipcompare.budget import Budget, Clock, TracePoint, is_out_of_memory
from lipcompare.errors import Contradiction
from lipcompare.methods import Method
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status
from lipcompare.witness import check_witnesses


def bound(
    problem: Problem,
    method: Method | str = "lbp",
    *,
    time_limit: float = float("inf"),
    gap: float = 1e-4,
    memory: int = 2**30,
    threads: int | None = None,
    on_progress: Callable[[TracePoint], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    **options: Any,
) -> Bound:
    """Bound the local Lipschitz constants of a problem with one method.

    Args:
        problem: a batch of boxes and functionals.
        method: a name from ``lipcompare.METHODS`` or a method object.
        time_limit: seconds.
        gap: relative gap at which exact methods stop.
        memory: bytes of working memory that batched passes respect.
        threads: CPU threads of torch during the run (None leaves them as they are).
        on_progress: called with every point of the trace.
        on_note: called with what a search is doing, in words: subdomains, their rate, how many are open.
        options: fields of the method, when it is given by name.

    Returns:
        A result whose witnesses were re-checked in float64 by code that the method does not share. A method that does
        not apply, runs out of memory or is interrupted returns a status that says so, and proves nothing.

    Raises:
        InvalidInput: an unknown method or option.
        Contradiction: the result excludes itself (a lower bound above the upper one, or a witness that attains less
            than it claims): a bug that must not look like a number.
    """
    chosen = methods.get(method, **options)
    budget = Budget(time_limit, gap, memory, on_progress, on_note)
    clock = Clock(Budget(time_limit, gap, memory))
    reason = chosen.domain_reason(problem) or chosen.supports(problem)
    if reason is not None:
        return chosen.result(problem, clock, status=Status.UNSUPPORTED, detail=reason)
    try:
        with _threads(threads), torch.no_grad():
            result = chosen.run(problem, budget)
    except KeyboardInterrupt:
        return chosen.result(problem, clock, status=Status.INTERRUPTED, detail="Nothing was proved yet.")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        advice = "Lower the memory budget, the batch, or use a coarser method."
        return chosen.result(problem, clock, status=Status.OUT_OF_MEMORY, detail=advice)
    return _checked(problem, result)


def compare(
    problems: Problem | Iterable[Problem] | Mapping[str, Problem],
    methods_: Iterable[Method | str],
    *,
    time_limit: float = float("inf"),
    gap: float = 1e-4,
    memory: int = 2**30,
    threads: int | None = None,
    on_result: Callable[[str, Bound], None] | None = None,
) -> pd.DataFrame:
    """Run several methods on several problems: one row per problem, example and method.

    Columns: problem, example, method, lower, upper, gap, proves, status, message, seconds (of the whole batch), device,
    dtype, options. Ctrl-C ends the comparison and keeps what was done.
    """
    chosen = [methods.get(m) for m in methods_]
    rows: list[dict[str, Any]] = []
    for label, problem in _labelled(problems):
        for method in chosen:
            result = bound(problem, method, time_limit=time_limit, gap=gap, memory=memory, threads=threads)
            rows.extend(tidy(label, result))
            if on_result is not None:
                on_result(label, result)
            if result.status is Status.INTERRUPTED:
                return pd.DataFrame(rows)
    return pd.DataFrame(rows)


def tidy(label: str, result: Bound) -> Iterator[dict[str, Any]]:
    """One record per example of a result."""
    for b, (lower, upper, gap) in enumerate(zip(result.overall_lower, result.overall_upper, result.gap, strict=True)):
        yield {
            "problem": label,
            "example": b,
            "method": result.method,
            "lower": float(lower),
            "upper": float(upper),
            "gap": float(gap),
            "proves": result.proves,
            "status": result.status.name.lower(),
            "message": result.sentence,
            "seconds": result.seconds,
            "device": result.device,
            "dtype": result.dtype,
            "options": ", ".join(f"{k}={getattr(v, 'value', v)}" for k, v in result.options.items()),
        }


def _labelled(problems: Problem | Iterable[Problem] | Mapping[str, Problem]) -> Iterator[tuple[str, Problem]]:
    if isinstance(problems, Problem):
        problems = [problems]
    if isinstance(problems, Mapping):
        yield from problems.items()
        return
    for number, problem in enumerate(problems):
        yield f"{problem.network.name}#{number}", problem


def _checked(problem: Problem, result: Bound) -> Bound:
    """The result with its lower bounds replaced by what its witnesses attain in an independent evaluation."""
    lower = result.lower
    if result.witnesses is not None:
        attained = check_witnesses(problem, result.witnesses)
        lower = np.where(lower <= result.witnesses.values * (1 + 1e-12), np.minimum(lower, attained), lower)
    slack = 1e-9 if problem.dtype == torch.float64 else 1e-3
    bad = lower > result.upper * (1 + slack) + slack
    if bool(bad.any()):
        b, row = (int(v) for v in np.argwhere(bad)[0])
        raise Contradiction(
            f"{result.method}: example {b}, row {row} has lower bound {float(lower[b, row])!r} above upper bound "
            f"{float(result.upper[b, row])!r}. This is a bug: please report it with the model."
        )
    return dataclasses.replace(result, lower=lower)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
