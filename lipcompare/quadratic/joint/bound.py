"""From gates to a certified bound on the largest singular value of the Jacobian."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian.gradients import Gradients
from lipcompare.network.graph import Network
from lipcompare.quadratic.coordinates import coordinate_count, gate_maps
from lipcompare.quadratic.joint.closed_form import closed_form
from lipcompare.quadratic.joint.program import JointData
from lipcompare.quadratic.joint.solver import minimised
from lipcompare.quadratic.memory import program_bytes
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.dual import Dual
from lipcompare.rounding import root_above


@dataclasses.dataclass(frozen=True, eq=False)
class JointBound:
    """Upper bounds on largest singular values.

    Attributes:
        upper: (examples,) inf where one program does not fit in memory, or its numbers are out of range.
        data: the programs; None where one does not fit.
        theta: (examples, n) multipliers.
        moments: (examples, n, n) near the optimal moment matrix; None without a solution.
    """

    upper: Tensor
    data: JointData | None = None
    theta: Tensor | None = None
    moments: Tensor | None = None


def joint_bound(
    network: Network,
    gates: Gates,
    functionals: Tensor,
    gradients: Gradients,
    *,
    solve: bool = True,
    tolerance: float = 1e-4,
    target: Tensor | None = None,
    memory: int = 2**30,
    deadline: Deadline | None = None,
) -> JointBound:
    """Bound ``|| rows J ||_2`` for all rows of every example together.

    Args:
        functionals: (examples, rows, outputs).
        gradients: what a relaxation of :mod:`lipcompare.jacobian` gives for the same gates.
        solve: whether to optimise the multipliers; without, they are those of the closed form.
        tolerance: relative gap of the program.
        target: (examples,) a bound under this need not be smaller.
    """
    network = network.to(functionals.device, torch.float64)
    gates, gradients, functionals = gates.double(), gradients.double(), functionals.double()
    examples, rows, _ = functionals.shape
    order = int(coordinate_count(gates, gradients).max()) + rows
    each = program_bytes(order, 0) + 8 * order * (2 * network.in_size + 2 * network.widest)
    if each > memory:
        return JointBound(functionals.new_full((examples,), torch.inf))
    entries = gradients.intervals.get(0)  # of zeros, which are exact, where it is zero; none where no output depends
    nothing = torch.ones(examples, dtype=torch.bool, device=functionals.device)
    if entries is not None:
        nothing = (entries.magnitude == 0).flatten(1).all(-1)
    data = JointData.of(gate_maps(network, gates, functionals, gradients), nothing)
    if not bool(data.cost.isfinite().all() and data.gates.isfinite().all()):
        return JointBound(functionals.new_full((examples,), torch.inf))
    rho, theta = closed_form(data)
    upper, moments = _certified(data, rho, theta), None
    if solve:
        aim = None if target is None else target.to(data.scale).square() / data.scale
        rho, theta, moments = minimised(data, (rho, theta), tolerance=tolerance, target=aim, deadline=deadline)
        upper = torch.minimum(upper, _certified(data, rho, theta))
    return JointBound(upper, data, theta, moments)


def _certified(data: JointData, rho: Tensor, theta: Tensor) -> Tensor:
    multipliers = theta.clamp(min=0)
    multipliers[:, : data.rows] = rho.unsqueeze(-1)
    none = multipliers[:, :0]
    certifiable = data.certifiable()
    square = certify(certifiable, Dual(multipliers, none, torch.zeros_like(rho))) * data.scale
    return torch.where(data.nothing, 0.0, root_above(square, data.scale))
