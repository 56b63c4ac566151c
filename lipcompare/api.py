"""``bound``: run a method, check what comes back, and keep what was proved whatever ends the run."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from lipcompare import methods
from lipcompare.budget import Budget, Clock, TracePoint
from lipcompare.certificates import write_certificate
from lipcompare.display.progress import Display, watched
from lipcompare.display.progress import progress as news
from lipcompare.errors import (
    BeyondMemory,
    Contradiction,
    InvalidInput,
    LipcompareError,
    UnsupportedOperation,
    is_out_of_memory,
    nearest,
)
from lipcompare.methods import Method
from lipcompare.methods.combine import SoFar
from lipcompare.network.environment import computing
from lipcompare.network.graph import Network, once_per_network, tensors
from lipcompare.network.load import Source
from lipcompare.problem import ArrayLike, Problem
from lipcompare.result import Bound, Status, Witnesses, closed
from lipcompare.rounding import agree
from lipcompare.witness import check_witnesses

_LOG = logging.getLogger("lipcompare")


METHOD, TIME_LIMIT = "auto", 60.0
"""What is run where nothing else is asked for, here and on the command line."""

_CHECK, _MOST = 1.5e-3, 0.2
"""Seconds a node that the check of a result takes, with witnesses in exact arithmetic, and the largest share of the
limit that is kept for it."""

_UNCHECKED = "Points were found whose check found no memory: what they attain does not count."

_ASKED = tuple(k for k, v in inspect.signature(Problem.around).parameters.items() if v.kind is v.KEYWORD_ONLY)
"""What may be said of a question besides its centre and radius."""


def bound(
    problem: Problem | Source,
    method: Method | str = METHOD,
    *,
    center: ArrayLike | None = None,
    eps: ArrayLike | None = None,
    time_limit: float = TIME_LIMIT,
    gap: float = 1e-4,
    memory: int = 2**30,
    threads: int | None = None,
    progress: bool | None = None,
    on_progress: Callable[[TracePoint], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    **options: Any,
) -> Bound:
    """Bound the local Lipschitz constants of a problem, or of a model around inputs, with one method.

    >>> lipcompare.bound("model.onnx", center=0.5, eps=0.1)
    >>> lipcompare.bound(problem, "sdp", time_limit=10)

    Args:
        problem: a batch of boxes and functionals; or a model (a network, a ``torch.nn.Module``, the path of a file)
            with ``center`` and ``eps``.
        method: a name from ``lipcompare.METHODS`` or a method object.
        center, eps: of a model the inputs and the radius around them, as :meth:`Problem.around` takes them.
        time_limit: seconds; infinity for none.
        gap: relative gap at which exact methods stop.
        memory: bytes of working memory that batched passes respect.
        threads: CPU threads of torch during the run, and processes in which ``bab``, and what uses it, evaluates
            subdomains side by side once a search has lasted; None leaves torch's as they are, and searches alone.
        progress: show the interval while the run goes on, once it takes more than a second; None: on a terminal or in a
            notebook.
        on_progress: called with every point of the trace.
        on_note: called with what a search is doing, in words: subdomains, their rate, how many are open.
        options: fields of the method, when it is given by name; of a model also ``norm``, ``ball``, ``clip``,
            ``functionals``, ... of :meth:`Problem.around`.

    Returns:
        A result whose witnesses were re-checked in float64 by code that the method does not share. A method that does
        not apply returns a status that says so. Whatever ends a run early (Ctrl-C, also out of ``on_progress``, no
        memory, an unexpected error), the interval that it had told of by then is returned with a status that says
        what happened; the traceback of an unexpected error goes to the logger ``lipcompare``.

    Raises:
        InvalidInput: an unknown method or option, a value that does not fit, or a model that cannot be read.
        UnsupportedOperation: an operation of the model.
        Contradiction: the result excludes itself (a lower bound above the upper one, or a witness that attains less
            than it claims): a bug that must not look like a number.
    """
    require_limits(time_limit, gap, memory, threads)
    asked = {name: options.pop(name) for name in _ASKED if name in options}
    chosen = _method(method, options)
    problem = _question(problem, center, eps, asked)
    clock = Clock(Budget(time_limit, gap, memory, int(threads or 1)))
    so_far = SoFar(problem.batch, problem.rows)
    try:
        with computing(threads):
            problem = _ordinary(problem)
            reason = chosen.domain_reason(problem) or chosen.supports(problem)
            if reason is not None:
                return chosen.result(problem, clock, status=Status.UNSUPPORTED, detail=reason)

            with _watching(progress, chosen.name) as shown:
                checking = min(_CHECK * len(problem.network.nodes), _MOST * time_limit)
                budget = dataclasses.replace(clock.budget, time_limit=time_limit - checking)
                listeners = (on_progress, shown and shown.show), (on_note, shown and shown.note)
                return _checked(problem, _run(problem, chosen, budget, clock, so_far, *listeners), gap)
    except KeyboardInterrupt:
        # It came before the run began or when it was over: all that it had told of is kept.
        with computing(threads):
            problem = _ordinary(problem)
            return _checked(problem, _ended(problem, chosen, clock, so_far, Status.INTERRUPTED), gap)


@contextlib.contextmanager
def _watching(wanted: bool | None, work: str) -> Iterator[Display | None]:
    """What shows the news of a run to whoever sees them."""
    if wanted or (wanted is None and watched()):
        with news() as announce:
            yield announce(work)
    else:
        yield None


def _method(method: Method | str, options: Mapping[str, Any]) -> Method:
    """The method with its options; of a keyword that is neither an option nor one of ``bound`` the likeliest ones."""
    fields = methods.option_types(method)
    unknown = next((name for name in options if name not in fields), None)
    if unknown is not None:
        own = [k for k, v in inspect.signature(bound).parameters.items() if v.kind is v.KEYWORD_ONLY]
        name = method if isinstance(method, str) else method.name
        known = nearest(unknown, [*fields, *own, *_ASKED])
        raise InvalidInput(f"Method {name!r} has no option {unknown!r}, and bound() neither.{known}")
    return methods.get(method, **options)


def _question(
    given: Problem | Source, center: ArrayLike | None, eps: ArrayLike | None, asked: dict[str, Any]
) -> Problem:
    """The problem, or the one on a model around inputs."""
    if isinstance(given, Problem):
        said = [name for name, value in {"center": center, "eps": eps, **asked}.items() if value is not None]
        if said:
            raise InvalidInput(f"The problem says where already: {', '.join(said)} belong to a model in its place.")
        return given
    if isinstance(given, (list, tuple)):
        raise InvalidInput("bound() takes one problem: lipcompare.compare takes several.")
    if center is None or eps is None:
        raise InvalidInput("A model needs center=... (an input or a number) and eps=... (a radius); or give a Problem.")
    return Problem.around(given, center, eps, **asked)


def require_limits(time_limit: float, gap: float, memory: int, threads: int | None) -> None:
    """Raises InvalidInput if a limit is no number, or none that makes sense."""
    for name, value in (("time_limit", time_limit), ("gap", gap), ("memory", memory), ("threads", threads)):
        if not isinstance(value, (int, float, np.number)) and not (name == "threads" and value is None):
            raise InvalidInput(f"{name} must be a number, not {value!r}.")
    if not time_limit > 0:
        raise InvalidInput(f"time_limit must be a positive number of seconds, not {time_limit!r}.")
    if not 0 <= gap < 1:
        raise InvalidInput(f"gap must be at least 0 and under 1, such as 0.01 for one per cent, not {gap!r}.")
    if not memory > 0 or (threads is not None and not (threads >= 1 and threads == int(threads))):
        raise InvalidInput("memory must be a positive number of bytes, and threads a positive number of threads.")


def refused(problem: Problem, method: Method, error: LipcompareError) -> Bound:
    """The line of a method that raised on purpose: it proves nothing and says why."""
    kinds: dict[type[LipcompareError], Status] = {
        UnsupportedOperation: Status.UNSUPPORTED,
        InvalidInput: Status.UNSUPPORTED,
        Contradiction: Status.CRASHED,
    }
    status = next((status for kind, status in kinds.items() if isinstance(error, kind)), Status.CRASHED)
    return method.result(problem, Clock(Budget()), status=status, detail=str(error))


def _ordinary(problem: Problem) -> Problem:
    """The problem in tensors that can be written to and differentiated; those of inference mode cannot."""
    asked = any(tensor.is_inference() for tensor in tensors((problem.box, problem.functionals)))
    return copy.deepcopy(problem) if asked or _inferred(problem.network) else problem


@once_per_network
def _inferred(network: Network) -> bool:
    """Whether any weight is of inference mode."""
    return any(tensor.is_inference() for tensor in tensors(network.nodes))


def _run(
    problem: Problem,
    method: Method,
    budget: Budget,
    clock: Clock,
    so_far: SoFar,
    of_progress: Iterable[Callable[[TracePoint], None] | None],
    of_notes: Iterable[Callable[[str], None] | None],
) -> Bound:
    """What a method returns, or what it had told of when something ended it.

    Args:
        of_progress, of_notes: who else is told of points of the trace, and of what the method is doing.
    """

    def tell(point: TracePoint) -> None:
        clock.trace.append(point)
        for listener in of_progress:
            if listener is not None:
                listener(point)

    def note(text: str) -> None:
        for listener in of_notes:
            if listener is not None:
                listener(text)

    told = dataclasses.replace(budget, on_progress=tell, on_note=note, on_kept=so_far.take)
    try:
        return method.run(problem, told)
    except KeyboardInterrupt:
        return _ended(problem, method, clock, so_far, Status.INTERRUPTED)
    except LipcompareError:
        raise
    except Exception as error:  # noqa: BLE001  # reported below; what was proved stands whatever it is
        if is_out_of_memory(error):
            advice = "Lower the memory budget, the batch, or use a coarser method."
            said = str(error) if isinstance(error, BeyondMemory) else advice
            return _ended(problem, method, clock, so_far, Status.OUT_OF_MEMORY, said)
        _LOG.error("%s ended with an unexpected error", method.name, exc_info=error)
        return _ended(problem, method, clock, so_far, Status.CRASHED, _described(error))


def _ended(problem: Problem, method: Method, clock: Clock, so_far: SoFar, status: Status, detail: str = "") -> Bound:
    """The result of a run that did not return one."""
    so_far.ask()
    witnesses = so_far.witnesses(problem.box.window.center.cpu().double().numpy())
    return method.result(
        problem,
        clock,
        lower=None if witnesses is None else witnesses.values,
        upper=so_far.upper,
        status=status,
        detail=detail,
        witnesses=witnesses,
    )


def _described(error: Exception) -> str:
    """What an error says and where it was raised, as one sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}."


def _attained(problem: Problem, witnesses: Witnesses) -> np.ndarray:
    """What witnesses attain, (batch, rows); where memory is too short for all together one example after another, NaN
    for those that it is too short for alone."""
    try:
        return check_witnesses(problem, witnesses)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    if problem.batch == 1:
        return np.full(witnesses.values.shape, np.nan)
    some = [slice(b, b + 1) for b in range(problem.batch)]
    return np.concatenate([_attained(problem.example(one.start), witnesses.part(one)) for one in some])


def _checked(problem: Problem, result: Bound, gap: float) -> Bound:
    """The result with its lower bounds replaced by what its witnesses attain in an independent evaluation.

    A lower bound without a witness and an end that is NaN prove nothing; a claim to be exact takes two finite ends
    within the gap after that.
    """
    upper = np.where(np.isnan(result.upper), np.inf, result.upper)
    lower = np.zeros_like(upper)
    if result.witnesses is not None:
        attained = _attained(problem, result.witnesses)
        if np.isnan(attained).any():
            result = dataclasses.replace(result, status=Status.OUT_OF_MEMORY, detail=_UNCHECKED)
        lower = np.fmax(np.minimum(result.lower, attained), 0.0)
    bad = ~agree(lower, upper)
    if bool(bad.any()):
        b, row = (int(v) for v in np.argwhere(bad)[0])
        raise Contradiction(
            f"{result.method}: example {b}, row {row} has lower bound {float(lower[b, row])!r} above upper bound "
            f"{float(upper[b, row])!r}. This is a bug: please report it with the model."
        )
    result = dataclasses.replace(result, lower=lower, upper=upper, prover=functools.partial(write_certificate, problem))
    if result.status is Status.EXACT and not closed(lower, upper, gap):
        detail = f"What was checked leaves a gap of {float(result.gap.max()):.2g}. {result.detail}".strip()
        result = dataclasses.replace(result, status=Status.NUMERICAL, detail=detail)
    return result
