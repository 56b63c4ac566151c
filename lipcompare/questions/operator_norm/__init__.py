"""The operator norm ``p -> p`` of the whole Jacobian: ``sup_{x in X} max_{||v||_p = 1} ||J(x) v||_p``.

This is the constant of ``f`` with the same norm ``l_p`` on inputs and outputs, LipBaB's quantity (Bhowmick et al.
2021). For ``p = inf`` it is the largest l_1 norm of a row of ``J``, the maximum over rows of the row problem; for
``p = 1`` the largest l_1 norm of a column, the same problem on the transposed Jacobian, which has the same gates; for
``p = 2`` the largest singular value. At kinks the Jacobian ranges over all Clarke derivatives, as everywhere else.
"""

from __future__ import annotations

import torch

from lipcompare.attack.search import Effort
from lipcompare.budget import Budget, Clock, Deadline
from lipcompare.domain import Box, Norm
from lipcompare.errors import Contradiction, InvalidInput, known_keywords
from lipcompare.methods.base import HURRIED
from lipcompare.methods.lipsdp import LipSdp
from lipcompare.network.environment import computing
from lipcompare.network.graph import Network
from lipcompare.problem import Problem
from lipcompare.questions.operator_norm.answer import OperatorNorm
from lipcompare.questions.operator_norm.exact import BAB, LIPBAB, exact_operator_norms
from lipcompare.questions.operator_norm.points import search_norms
from lipcompare.questions.operator_norm.relaxations import SDP, first_bound, layer_bound, local_bound
from lipcompare.result import Status

__all__ = ["BAB", "LIPBAB", "LIPSDP", "NAIVE", "SDP", "OperatorNorm", "exact_operator_norms", "operator_norm_bounds"]

NAIVE = "naive"
"""In place of a relaxation: the product of the layers' norms, which needs no gates."""
LIPSDP = "lipsdp"
"""In place of a relaxation, for p = 2: LipSDP with all rows at once and the gates' slopes over the domain, by a conic
solver."""
_REFINING = 0.7
"""Share of the time for upper bounds; the search for points has what they leave."""


@known_keywords
@computing()
def operator_norm_bounds(
    network: Network,
    box: Box,
    norm: Norm | str | float,
    relaxation: str = "lbp",
    *,
    effort: Effort = Effort(),
    seed: int = 0,
    memory: int = 2**30,
    time_limit: float = float("inf"),
) -> OperatorNorm:
    """Bound the operator norm of the whole Jacobian from above, and from below by a search.

    Args:
        norm: ``p``, on inputs and outputs.
        relaxation: a name of the table (:mod:`lipcompare.jacobian.relaxations`); ``sdp``, the quadratic-gate program
            (for p = 2 with all rows at once, which has the value of LipSDP with local slopes; on all inputs, of its
            global form); ``lipsdp``, that program as it was published, by a conic solver (p = 2 alone); or ``naive``,
            the product of norms of the layers, which holds on all inputs. For p = 2 every relaxation also
            takes the closed form of ECLipsE over the same gates.
        effort: of the search for the lower bound.
        time_limit: seconds in all. What is not begun by then is left out; a first bound and a point always come.

    Raises:
        InvalidInput: an unknown relaxation, or ``lipsdp`` for another norm than p = 2.
        UnsupportedOperation: ``lipsdp`` of a network that is too large for it, or without its solver.
        Contradiction: the two bounds exclude each other (a bug).
    """
    norm = Norm.parse(norm)
    problem = Problem(network, box, Norm.INF)
    clock = Clock(Budget(time_limit=time_limit, memory=memory))
    refining = Deadline.after(_REFINING * time_limit)
    status, detail = Status.COMPLETE, ""
    with torch.no_grad():
        if relaxation == NAIVE:
            upper = layer_bound(problem.network, norm, problem.functionals)
        elif relaxation == LIPSDP:
            if norm is not Norm.TWO:
                raise InvalidInput("LipSDP of all outputs is for p = 2: take sdp, or bound --method lipsdp for rows.")
            found, status, detail = LipSdp().operator_norm(problem, refining)
            upper = torch.from_numpy(found).to(problem.device)
        else:
            upper = first_bound(problem, norm, memory)
            clock.record(0.0, float(upper.max()))
            if not refining.passed():
                upper = torch.minimum(upper, local_bound(problem, norm, relaxation, memory, refining))
            if refining.missed:
                status, detail = Status.TIME_LIMIT, HURRIED
        clock.record(0.0, float(upper.max()))
        lower, points, kinks = search_norms(problem, norm, effort, seed, memory, Deadline.after(clock.left))
    if not bool((lower <= upper).all()):
        raise Contradiction(f"The operator norm's lower bound {lower} is above its upper bound {upper}: a bug.")
    arrays = (t.cpu().double().numpy() for t in (lower, upper, points))
    low, high, where = arrays
    clock.record(float(low.max()), float(high.max()))
    return OperatorNorm(norm, low, high, where, kinks.cpu().numpy(), clock.elapsed, status, detail, tuple(clock.trace))
