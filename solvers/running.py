"""Runs one solve in a thread of its own, so that Ctrl-C and the time limit hold whatever the solver is doing.

The calling thread only waits, which keeps it open to KeyboardInterrupt while the solver is inside native
code. The solver's own limits are asked first; if it ignores them, it is left behind with its stop flag up and
the answer is made of what it had reported. The thread per solve has a second use: HiGHS keeps its pool of
workers per calling thread, so solves never share one and never need the process-wide reset, which is not safe
with two solves at once.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from solvers import ctrl_c
from solvers.program import Vector
from solvers.solution import Limits, SolveStatus, Trace

OnProgress = Callable[[float, float, float], bool | None]
"""Called as on_progress(seconds, best objective or inf, dual bound), from the solving thread; True stops the
solve."""

GRACE = 1.0
"""Seconds a solver gets to hand over its result after it was told to stop by Ctrl-C."""
BEGINNING = 30.0
"""Seconds after which a thread that has not begun never will."""
POLL = 0.1
"""Seconds between looks at the clock and at pending signals."""


@dataclass(frozen=True)
class Claim:
    """What a back end says before anyone checked it. dual_bound -inf: none. y: LP row multipliers or conic
    duals."""

    status: SolveStatus
    x: Vector | None = None
    dual_bound: float = -math.inf
    nodes: int = 0
    y: Vector | None = None
    message: str = ""


@dataclass
class Progress:
    """The running record of one solve: best point, best bound, trace, and the request to stop."""

    cutoff: float
    on_progress: OnProgress | None
    started: float = field(default_factory=time.monotonic)
    x: Vector | None = None
    objective: float = math.inf
    dual_bound: float = -math.inf
    nodes: int = 0
    _trace: list[tuple[float, float, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def report(self, objective: float, dual_bound: float, x: Vector | None = None) -> bool:
        """Takes what a solver says so far (objective inf: no point yet). True if the solver must stop.

        An error in on_progress must not travel through a solver's native code: it is kept, the solve stops,
        and supervise raises it in the calling thread.
        """
        bound = min(dual_bound, self.cutoff)
        better = objective < min(self.objective, self.cutoff)
        if better:
            self.objective = objective
            self.x = x if x is not None else self.x
        tighter = bound > self.dual_bound and math.isfinite(bound)
        if tighter:
            self.dual_bound = bound
        if better or tighter:
            self._trace.append((self.seconds(), self.objective, min(self.dual_bound, self.objective)))
            if self.on_progress is not None:
                try:
                    if self.on_progress(*self._trace[-1]):
                        self._stop.set()
                except BaseException as error:  # noqa: BLE001 - raised again by supervise
                    self._error = error
                    self._stop.set()
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()

    def must_stop(self) -> bool:
        return self._stop.is_set()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def closed_trace(self, seconds: float, objective: float | None, dual_bound: float) -> Trace:
        """The trace up to now with the checked result as its last entry, and nothing beyond that result."""
        value = math.inf if objective is None else objective
        kept = [(s, max(v, value), min(b, dual_bound)) for s, v, b in self._trace]
        if math.isfinite(value) or math.isfinite(dual_bound):
            kept.append((seconds, value, dual_bound))
        return tuple(kept)


def supervise(work: Callable[[], Claim], progress: Progress, limits: Limits) -> Claim:
    """Runs work() to its end, to the time limit or to Ctrl-C, whichever is first. Errors of work() are raised
    here."""
    claims: list[Claim] = []
    errors: list[BaseException] = []
    began, done = threading.Event(), threading.Event()

    def target() -> None:
        began.set()
        try:
            with ctrl_c.kept():
                claims.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)
        finally:
            done.set()

    outcome, late = SolveStatus.TIME_LIMIT, False
    try:
        # The bare call: Thread.start waits without end for a thread that finds no memory to begin with. Such threads do
        # not keep the process from ending, as a solver that never returns must not.
        _thread.start_new_thread(target, ())
        if not began.wait(BEGINNING):
            raise MemoryError("The thread of a solver did not begin.")
        soft = 1.02 * limits.time_limit + 0.3
        if not _wait(done, progress, soft):
            late = True
            progress.stop()
            _wait(done, progress, 1.05 * limits.time_limit + 0.8)
    except KeyboardInterrupt:
        outcome = SolveStatus.INTERRUPTED
        progress.stop()
        # A second Ctrl-C: do not even wait for the hand-over.
        with contextlib.suppress(KeyboardInterrupt):
            done.wait(GRACE)
    progress.raise_error()
    if errors:
        raise errors[0]
    if claims:
        claim = claims[0]
        if outcome is SolveStatus.INTERRUPTED:
            return replace(claim, status=outcome)  # also where the solver has just finished: Ctrl-C is not for it alone
        if claim.status is SolveStatus.INTERRUPTED and late:
            return replace(claim, status=outcome)
        return claim
    left = "the solver did not stop when told to and was left behind"
    return Claim(outcome, progress.x, progress.dual_bound, progress.nodes, message=left)


def _wait(done: threading.Event, progress: Progress, until: float) -> bool:
    """Waits until done or until `until` seconds after the start of the solve; True if done."""
    # In slices: an untimed wait does not notice Ctrl-C on every platform.
    while not done.is_set():
        left = until - progress.seconds()
        if left <= 0:
            return False
        done.wait(min(left, POLL))
        ctrl_c.take_back()  # Gurobi behind PuLP or cvxpy has no callback that could
    return True
