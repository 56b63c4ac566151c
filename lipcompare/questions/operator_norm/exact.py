"""Operator norms to a gap: branch and bound, and rows that ``exact`` closes."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch

from lipcompare.api import bound
from lipcompare.branching.driver import Stop
from lipcompare.budget import Budget, Clock
from lipcompare.domain import Box, Norm, NormBall, Space
from lipcompare.errors import Contradiction, InvalidInput, UnsupportedOperation, known_keywords, nearest
from lipcompare.gates import has_patterns
from lipcompare.methods.lipbab import lipbab_operator_norm, spectral_search
from lipcompare.methods.searches import outcome
from lipcompare.network.environment import computing
from lipcompare.network.graph import Network
from lipcompare.problem import Problem
from lipcompare.questions.operator_norm.answer import OperatorNorm
from lipcompare.questions.operator_norm.points import attained_norm
from lipcompare.questions.operator_norm.relaxations import first_bound
from lipcompare.rounding import agree

BAB, LIPBAB = "bab", "lipbab"
"""What proves the value to a gap."""
_MOST_SIGNS = 8
"""Outputs up to which the norm for p = 1 is a problem of rows: one for every choice of their signs but the first's."""
_MOST_SIGNS_EVERYWHERE = 12
"""The same on all inputs, where nothing else proves it."""
_LEAST_SECONDS = 1e-3
"""What a search gets when the time is over: it ends at once, with the interval that costs nothing."""


@known_keywords
@computing()
def exact_operator_norms(
    network: Network,
    box: Box,
    norm: Norm | str | float,
    *,
    method: str = BAB,
    gap: float = 1e-4,
    time_limit: float = float("inf"),
    memory: int = 2**30,
) -> OperatorNorm:
    """The operator norm to a relative gap; one example after another.

    Args:
        method: ``bab`` for p = 2 decides gates over the joint program; for p = inf, and for p = 1 where the outputs are
            few, the norm is the largest of a few rows, which the method ``exact`` closes. ``lipbab`` is LipBaB's search
            over activation regions.
        time_limit: seconds in all; an interval that is still open then holds nevertheless.

    Raises:
        InvalidInput: the domain is no box.
        UnsupportedOperation: the network has activations without regions.
    """
    clock = Clock(Budget(time_limit=time_limit, memory=memory))
    problem = Problem(network, box, Norm.parse(norm))
    if isinstance(box, NormBall):
        raise InvalidInput("Activation regions are searched over boxes only: give a box, or take the method 'lbp'.")
    if not has_patterns(network):
        raise UnsupportedOperation(
            "Activation regions need ReLU-like activations: take the method 'lbp' for smooth ones."
        )
    if method not in (BAB, LIPBAB):
        raise InvalidInput(f"Unknown exact method {method!r}.{nearest(method, [BAB, LIPBAB])}")
    signs = _MOST_SIGNS_EVERYWHERE if isinstance(box, Space) else _MOST_SIGNS
    if method == BAB and (problem.norm is Norm.INF or (problem.norm is Norm.ONE and network.out_size <= signs)):
        return _as_rows(problem, gap, clock)
    if isinstance(box, Space) and (method == LIPBAB or problem.norm is Norm.ONE):
        raise InvalidInput(
            "On all inputs 'bab' proves the norms for p = inf and p = 2, and for p = 1 with up to "
            f"{_MOST_SIGNS_EVERYWHERE} outputs: give a box, or take the method 'sdp'."
        )
    with torch.no_grad():
        upper = first_bound(problem.double(), problem.norm, memory).cpu().numpy()
    clock.record(0.0, float(upper.max()))
    lower, points = np.zeros(problem.batch), box.window.center.cpu().double().numpy().copy()
    kinks = np.zeros(problem.batch, dtype=bool)
    stop = Stop.DONE
    for b in range(problem.batch):
        left, part = clock.left / (problem.batch - b), problem.example(b)
        if method == BAB and problem.norm is Norm.TWO:
            found = spectral_search(part, float(upper[b]), gap=gap, time_limit=left, memory=memory)
        else:
            found = lipbab_operator_norm(part, float(upper[b]), gap=gap, time_limit=left)
        upper[b], points[b], kinks[b] = found.upper, found.point, found.slopes is not None
        lower[b] = attained_norm(part, found.point, found.slopes)
        clock.record(float(lower.max()), float(upper.max()))
        stop = found.stop if found.stop is not Stop.DONE else stop
        if stop is Stop.INTERRUPTED:
            break
    if not bool(agree(lower, upper).all()):
        raise Contradiction(f"The operator norm's lower bound {lower} is above its upper bound {upper}: a bug.")
    status, detail = outcome(stop, lower[:, None], upper[:, None], gap)
    return OperatorNorm(problem.norm, lower, upper, points, kinks, clock.elapsed, status, detail, tuple(clock.trace))


def _as_rows(problem: Problem, gap: float, clock: Clock) -> OperatorNorm:
    """p = inf: the largest l1 norm of a row. p = 1: the largest l1 norm of a column is the largest entry of any signed
    sum of rows, so with all signs as functionals it is a problem of rows too."""
    rows = problem
    if problem.norm is Norm.ONE:
        count = problem.network.out_size
        signs = torch.tensor(list(itertools.product([1.0, -1.0], repeat=count - 1)), dtype=problem.dtype)
        ones = torch.ones(len(signs), 1, dtype=problem.dtype)
        rows = dataclasses.replace(problem, functionals=torch.cat([ones, signs.reshape(len(signs), count - 1)], 1))
    left = max(clock.left, _LEAST_SECONDS)
    found = bound(rows, "exact", gap=gap, time_limit=left, memory=clock.budget.memory)
    best = found.lower.argmax(1)
    every = np.arange(problem.batch)
    points = problem.box.window.center.cpu().double().numpy()
    kinks = np.zeros(problem.batch, dtype=bool)
    if found.witnesses is not None:
        points, kinks = found.witnesses.points[every, best], found.witnesses.at_kink[every, best]
    return OperatorNorm(
        problem.norm, found.overall_lower, found.overall_upper, points, kinks, clock.elapsed, found.status,
        found.detail, found.trace,
    )  # fmt: skip
