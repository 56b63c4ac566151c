"""The table of relaxations of the chain rule: what is in it works in methods, questions and branch and bound.

A new one is a class and a line in ``RELAXATIONS``; one of another package is an entry point of the group
``lipcompare.relaxations``, or a call of ``RELAXATIONS.register``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.errors import entry_of, look_up
from lipcompare.gates import Gates
from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.interval import reaches
from lipcompare.jacobian.linear import gradient_intervals, norm_bound
from lipcompare.jacobian.lines import LineRule, chords, constants
from lipcompare.jacobian.norms import interval_norm
from lipcompare.jacobian.passes import functional_bound
from lipcompare.jacobian.shared import shared_gradients
from lipcompare.jacobian.smooth import Forward
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.problem import Norm
from lipcompare.rounding import SPARE, allowance, floor
from solvers.plugins import Registry


class Relaxation(ABC):
    """Bounds on gradients as a function of the gates. Subclasses are final and hold no state."""

    name: ClassVar[str]
    summary: ClassVar[str]
    planes: ClassVar[bool] = False
    """Whether it can relax slopes of smooth activations jointly with the gradients that they multiply."""

    @abstractmethod
    def gradients(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        *,
        norm: Norm | None = Norm.INF,
        forward: Forward | None = None,
        memory: int = 2**30,
        deadline: Deadline | None = None,
    ) -> Gradients:
        """Intervals of the gradient at every activation that the output depends on and at the input, rounded outward.

        Branch and bound takes an activation without an interval for one that does not matter.

        Args:
            functionals: (batch, rows, outputs).
            norm: what the input's gradient is for; None if only :meth:`along` will be asked.
            forward: bounds on functionals of pre-activations, for a relaxation with ``planes``.
            memory: bytes that one pass may take.
            deadline: when it has passed, intervals are left as loose as they are.
        """

    def norms(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        gradients: Gradients,
        norm: Norm,
        forward: Forward | None = None,
    ) -> Tensor:
        """Upper bound (batch, rows) on the dual norm of the input gradient."""
        return interval_norm(gradients.intervals[0], norm)

    def along(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        gradients: Gradients,
        vectors: Tensor,
        forward: Forward | None = None,
    ) -> Interval:
        """Intervals (batch, rows, directions) of the input gradient's products with vectors (directions, inputs)."""
        return combined(gradients.intervals[0], vectors)


class Linear(Relaxation):
    """Gates between two lines each; functionals of gradients are bounded by pushing them towards the output."""

    rule: ClassVar[LineRule]

    def gradients(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        *,
        norm: Norm | None = Norm.INF,
        forward: Forward | None = None,
        memory: int = 2**30,
        deadline: Deadline | None = None,
    ) -> Gradients:
        return gradient_intervals(
            network,
            gates,
            functionals,
            type(self).rule,
            norm=norm,
            forward=forward,
            memory=memory,
            deadline=deadline,
        )

    def norms(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        gradients: Gradients,
        norm: Norm,
        forward: Forward | None = None,
    ) -> Tensor:
        return norm_bound(network, functionals, gradients, norm, forward)

    def along(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        gradients: Gradients,
        vectors: Tensor,
        forward: Forward | None = None,
    ) -> Interval:
        both = torch.cat([vectors, -vectors])
        bound = functional_bound(network, functionals, gradients, 0, both, forward)
        upper, lower = bound.split(len(vectors), dim=-1)
        apart = combined(gradients.intervals[0], vectors)
        return Interval(torch.maximum(-lower, apart.lower), torch.minimum(upper, apart.upper))


@final
class Lbp(Linear):
    """The paper's: the convex hull of each gate (arXiv 2210.07394), and planes around smooth ones."""

    name: ClassVar[str] = "lbp"
    summary: ClassVar[str] = "the paper's linear relaxation, with planes for smooth activations"
    planes: ClassVar[bool] = True
    rule: ClassVar[LineRule] = staticmethod(chords)


@final
class Middle(Linear):
    """Hulls over intervals from one pass with middle slopes for all rows: far cheaper on images, a little looser."""

    name: ClassVar[str] = "middle"
    summary: ClassVar[str] = "one pass with middle slopes for all rows, then the paper's lines for the norm alone"
    rule: ClassVar[LineRule] = staticmethod(chords)

    def gradients(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        *,
        norm: Norm | None = Norm.INF,
        forward: Forward | None = None,
        memory: int = 2**30,
        deadline: Deadline | None = None,
    ) -> Gradients:
        within = shared_gradients(network, gates, functionals, memory=memory).intervals
        past = Deadline(at=-math.inf)  # nothing is refined
        return gradient_intervals(network, gates, functionals, chords, norm=norm, within=within, deadline=past)


@final
class RecurJac(Linear):
    """Zhang et al. 2019 (arXiv 1810.11783): a gate whose incoming gradient has no sign passes on its interval."""

    name: ClassVar[str] = "recurjac"
    summary: ClassVar[str] = "like lbp, but a gate whose incoming gradient has no sign passes on its interval"
    rule: ClassVar[LineRule] = staticmethod(constants)


@final
class Ibp(Relaxation):
    """Interval arithmetic, entry by entry: the recursion without time for anything but its steps."""

    name: ClassVar[str] = "ibp"
    summary: ClassVar[str] = "interval arithmetic on the chain rule"

    def gradients(
        self,
        network: Network,
        gates: Gates,
        functionals: Tensor,
        *,
        norm: Norm | None = Norm.INF,
        forward: Forward | None = None,
        memory: int = 2**30,
        deadline: Deadline | None = None,
    ) -> Gradients:
        reached = reaches(network, gates, functionals)
        # Without lines no functional of a later gradient is ever asked for, so no other scale is.
        return Gradients(
            intervals={k: reach.interval for k, reach in reached.items()},
            lines={},
            constant=frozenset(),
            scales={0: reached[0].scale},
        )


RELAXATIONS: Registry[Relaxation] = Registry(
    "lipcompare.relaxations",
    {entry.name: entry for entry in (Lbp(), Middle(), RecurJac(), Ibp())},
    entry_of(Relaxation, "relaxation"),
)


def relaxation_named(name: str) -> Relaxation:
    """The relaxation of that name.

    Raises:
        InvalidInput: there is none.
    """
    return look_up(RELAXATIONS, name, "relaxation")


def combined(entries: Interval, vectors: Tensor) -> Interval:
    """Functionals ``vectors`` (directions, inputs) of a gradient in an interval, rounded outward."""
    middle, size = entries.center @ vectors.T, vectors.abs().T
    error = allowance(len(size) + SPARE, middle.dtype) * (entries.magnitude @ size)
    error = error + floor(middle.dtype) * (error > 0)
    spread = entries.radius @ size + error
    # A sum of terms of one sign has that sign, whatever rounding may do to its size.
    above, below = ((side > 0).to(middle.dtype) for side in (entries.upper, -entries.lower))
    along, against = ((side > 0).to(middle.dtype).T for side in (vectors, -vectors))
    rising, falling = above @ along + below @ against, below @ along + above @ against
    lower = torch.where(falling > 0, middle - spread, (middle - spread).clamp(min=0))
    return Interval(lower, torch.where(rising > 0, middle + spread, (middle + spread).clamp(max=0)))
