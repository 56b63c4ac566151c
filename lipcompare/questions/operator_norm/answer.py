"""What an operator norm is answered with."""

from __future__ import annotations

import dataclasses

import numpy as np

from lipcompare.budget import TracePoint
from lipcompare.domain import Norm
from lipcompare.result import Status


@dataclasses.dataclass(frozen=True, eq=False)
class OperatorNorm:
    """Bounds on the operator norm of the Jacobian over every domain of a batch.

    Attributes:
        lower, upper: (batch,).
        points: (batch, inputs), where ``lower`` is attained.
        at_kink: (batch,) true where it takes a Clarke derivative other than autograd's.
        status: why it ended; exact if both ends are proved to the gap that was asked for.
        detail: what the status leaves open, as a sentence.
        trace: the largest of either end over the batch, as they came. The first is what interval arithmetic says, for
            p = 2 with the multipliers in closed form over its gates: a few milliseconds on a small network.
    """

    norm: Norm
    lower: np.ndarray
    upper: np.ndarray
    points: np.ndarray
    at_kink: np.ndarray
    seconds: float
    status: Status = Status.COMPLETE
    detail: str = ""
    trace: tuple[TracePoint, ...] = ()
