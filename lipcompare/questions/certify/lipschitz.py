"""Radii from Lipschitz constants of the margins.

If ``L_j`` bounds the dual norm of the gradient of ``f_y - f_j`` over the ball of radius ``r`` around ``x``, no point
closer than ``min(r, (f_y(x) - f_j(x)) / L_j)`` has class ``j`` (Hein and Andriushchenko 2017; Weng et al. 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.api import bound
from lipcompare.budget import Deadline
from lipcompare.errors import UnsupportedOperation
from lipcompare.methods import Method
from lipcompare.problem import Problem
from lipcompare.questions.certify.balls import Balls
from lipcompare.result import Status
from lipcompare.rounding import unit_roundoff

_NO_ANSWER = (Status.UNSUPPORTED, Status.UNAVAILABLE, Status.LICENCE_TOO_SMALL)
_BEYOND = 1.02
"""Times the radius that is known already: where the first constant is asked for."""


def lipschitz_radius(
    balls: Balls, method: Method, start: Tensor, largest: float, steps: int, deadline: Deadline
) -> Tensor:
    """Certified radii (batch,), float64, by bisection beyond those that are known; examples that do not gain keep them.

    Args:
        start: (batch,) radii that are proved already.
        deadline: every step may take an equal share of the time until then, which methods that can stop midway keep.

    Raises:
        UnsupportedOperation: the method does not apply to the network or the norm, or is not there.
    """
    best = start.clone()
    low, high = start.clone(), torch.full_like(start, largest)
    # The constant holds where the segment from the example lies, which is in the domain with the example alone.
    alive = (balls.correct & balls.valid & (start < largest)).nonzero().squeeze(-1)
    for step in range(steps):
        if not len(alive) or deadline.passed():
            break
        some, proved = balls.select(alive), low[alive]
        radius = torch.where(proved > 0, proved * _BEYOND, high[alive]) if step == 0 else (proved + high[alive]) / 2
        radius = torch.minimum(radius, high[alive])
        domain = some.domain(radius)
        problem = Problem(some.network, domain, some.norm, some.rows)
        result = bound(problem, method, time_limit=deadline.left / (steps - step), progress=False)
        if result.status in _NO_ANSWER:
            raise UnsupportedOperation(f"{result.method} cannot certify this: {result.sentence}")
        upper = torch.as_tensor(result.upper).to(some.gaps)
        # The quotient is off by one roundoff; the factor takes two off.
        safe = torch.where(upper > 0, some.gaps / upper * (1 - 4 * unit_roundoff(upper.dtype)), torch.inf).amin(-1)
        radius = some.inner(domain, radius)
        best[alive] = torch.maximum(best[alive], torch.minimum(safe, radius))
        holds = safe >= radius
        if step == 0 and bool((proved > 0).any()):
            # Where not even a little more than what is known holds, this route does not win.
            alive = alive[holds | (proved == 0)]
            low[alive] = torch.maximum(low[alive], best[alive])
            continue
        low[alive] = torch.maximum(torch.where(holds, radius, proved), torch.minimum(best[alive], high[alive]))
        high[alive] = torch.where(holds, high[alive], radius)
        alive = alive[(high - low > 1e-4 * high)[alive]]  # as close as exact answers are asked for
    return best
