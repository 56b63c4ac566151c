"""What methods that search in a tree share: example after example in shares of the time, and what that proved."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lipcompare.branching.driver import Stop
from lipcompare.branching.ledger import Ledger
from lipcompare.budget import Clock, Deadline, counted
from lipcompare.errors import is_out_of_memory
from lipcompare.methods.base import Method, as_array
from lipcompare.methods.linear import Linear
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status, closed
from lipcompare.witness import as_witnesses

PART = 0.5
"""Of the time that the bounds over the whole box took: about what the first subdomains take at least."""
_STATUS = {
    Stop.TIME: Status.TIME_LIMIT,
    Stop.NODES: Status.NODE_LIMIT,
    Stop.MEMORY: Status.MEMORY_LIMIT,
    Stop.INTERRUPTED: Status.INTERRUPTED,
}


UNDECIDED = (
    "Nothing is left to split: the rest of the gap belongs to parts in which no point of floating point was found "
    "(they are too thin, or too far away), and which are not proved to be empty."
)
"""Why a search that ran to its end leaves a gap."""


class Ended(NamedTuple):
    """Why the search on one example ended, and the numbers of subdomains and of linear programs."""

    stop: Stop
    nodes: int
    programs: int


Search = Callable[[Ledger, int, Linear, Deadline], Ended]
"""Searches one example: where it keeps what it finds, its number, its linear bounds, when it has to end."""


def searched(
    method: Method, problem: Problem, linear: Linear, clock: Clock, search: Search, *, nodes: str, saved: bool = False
) -> Bound:
    """Go on from the linear bounds of a problem, in float64, by a search for every example.

    Args:
        nodes: what the search calls its subdomains.
        saved: there are searches to go on with, which are worth a look even after the time.
    """
    whole = linear.problem
    ledger = Ledger(whole, as_array(linear.upper), clock.record, clock.note, nodes)
    clock.keep(ledger.kept)
    stop, bounded, solved = Stop.DONE, 0, 0
    try:
        # Without an activation there is one gradient, and the bound over the whole box is its norm.
        for b in range(whole.batch) if whole.network.activations else ():
            if not (clock.running() or saved):
                stop = Stop.TIME
                break
            ended = search(ledger, b, linear.part(b), Deadline.after(clock.left / (whole.batch - b)))
            stop = ended.stop if ended.stop is not Stop.DONE else stop
            bounded, solved = bounded + ended.nodes, solved + ended.programs
            if stop is Stop.INTERRUPTED:
                break
    except KeyboardInterrupt:
        stop = Stop.INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        stop = Stop.MEMORY
    noted = ledger.kept().witnesses
    # Where memory ran out the values stand as they were noted: nothing more is computed.
    witnesses = noted if stop is Stop.MEMORY else as_witnesses(whole, ledger.attained)
    status, why = outcome(stop, witnesses.values, ledger.upper, clock.budget.gap)
    return method.result(
        problem,
        clock,
        lower=witnesses.values,
        upper=ledger.upper,
        status=status,
        detail=f"{why} {counted(bounded, nodes)}, {counted(solved, 'linear program')}.".strip(),
        witnesses=witnesses,
    )


def outcome(stop: Stop, lower: np.ndarray, upper: np.ndarray, gap: float) -> tuple[Status, str]:
    """The status of a search that left these bounds (batch, rows), and why if that does not say it."""
    if closed(lower, upper, gap):
        return Status.EXACT, ""
    return _STATUS.get(stop, Status.COMPLETE), UNDECIDED if stop is Stop.DONE else ""
