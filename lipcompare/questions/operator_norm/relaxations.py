"""Upper bounds on operator norms: what layers, gates and programs over them prove."""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, fitting, tensor_bytes
from lipcompare.domain import Norm
from lipcompare.gates import Gates
from lipcompare.jacobian import Relaxation, interval_gradient, relaxation_named
from lipcompare.jacobian.norms import interval_norm, layer_product, norm_above, spectral_norm
from lipcompare.network.graph import Network
from lipcompare.network.transpose import transpose
from lipcompare.preactivation import ForwardBound, Tightening, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.quadratic.joint import joint_bound
from lipcompare.questions.entries import gates_and_lines
from lipcompare.rounding import raised

SDP = "sdp"
"""In place of a relaxation: quadratic gates, in one program with all rows for p = 2, row by row and column by column
else."""


def layer_bound(network: Network, norm: Norm, like: Tensor) -> Tensor:
    """Product of operator norms, branches added: (batch,)."""
    product = layer_product(network, norm, like)
    size = torch.full((like.shape[0],), product, dtype=torch.float64, device=like.device)
    return size.nan_to_num(nan=torch.inf, posinf=torch.inf)


def first_bound(problem: Problem, norm: Norm, memory: int) -> Tensor:
    """Upper bounds (batch,) in float64 from interval arithmetic, which costs next to nothing.

    For p = 2 the root of the sum of the rows' squared norms, and the closed form over the gates.
    """
    network, functionals, batch = problem.network, problem.functionals, problem.batch
    bounds = preactivation_bounds(network, problem.box.region, Tightening.INTERVAL, memory=memory)
    gates = Gates.from_preactivations(network, bounds)
    if norm is not Norm.TWO:
        each = tensor_bytes(Copies.EXAMPLE, batch * network.widest, functionals)
        sums = [
            interval_gradient(network, gates, part).magnitude.nan_to_num(nan=torch.inf, posinf=torch.inf)
            for part in functionals.split(fitting(memory, each), 1)
        ]
        if norm is Norm.INF:
            return torch.cat([norm_above(part, Norm.ONE) for part in sums], -1).amax(-1).double()
        total = raised(torch.stack([part.sum(1) for part in sums]).sum(0), problem.rows)
        return total.amax(-1).double()
    known = relaxation_named("ibp").gradients(network, gates, functionals, norm=norm, memory=memory)
    together = norm_above(interval_norm(known.intervals[0], norm), Norm.TWO).double()
    closed = [
        joint_bound(network, gates.example(b), functionals[b : b + 1], known.of(torch.tensor([b])), solve=False,
                    memory=memory).upper
        for b in range(batch)
    ]  # fmt: skip
    return torch.minimum(together.nan_to_num(nan=torch.inf, posinf=torch.inf), torch.cat(closed))


def local_bound(problem: Problem, norm: Norm, name: str, memory: int, deadline: Deadline) -> Tensor:
    """Upper bounds (batch,) from gates over the domain."""
    network, solve = problem.network, name == SDP
    relaxation = relaxation_named("lbp" if solve else name)
    gates, forward = gates_and_lines(problem, relaxation, Tightening.ALPHA_CROWN, memory, deadline)
    if solve and norm is not Norm.TWO:
        return _largest_by_programs(problem, norm, gates, memory, deadline)
    if norm is Norm.INF:
        return _largest_row(network, gates, problem.functionals, relaxation, forward, memory, deadline)
    if norm is Norm.ONE:
        return _largest_column(problem, gates, relaxation, memory, deadline)
    # ||J||_2^2 <= ||J||_1 ||J||_inf; |J| <= M entrywise gives ||J||_2 <= ||M||_2; J = C + E with |E| <= R gives
    # ||J||_2 <= ||C||_2 + ||R||_2; and the spectral norm is at most the Frobenius norm.
    rows = _largest_row(network, gates, problem.functionals, relaxation, forward, memory, deadline)
    columns = _largest_column(problem, gates, relaxation, memory, deadline)
    bounds_2 = [raised(rows.sqrt() * columns.sqrt(), 3)]
    known = relaxation.gradients(
        network, gates, problem.functionals, norm=Norm.TWO, forward=forward, memory=memory, deadline=deadline
    )
    entries = known.intervals[0]
    each = relaxation.norms(network, gates, problem.functionals, known, Norm.TWO, forward)
    bounds_2.append(norm_above(each, Norm.TWO))
    center = entries.center
    # Around the centre as it is stored.
    radius = raised(torch.maximum(entries.upper - center, center - entries.lower), 1)
    spectral = [entries.magnitude, center, radius]
    if all(bool(t.isfinite().all()) for t in spectral):
        largest, middle, spread = (spectral_norm(t) for t in spectral)
        bounds_2 += [largest, raised(middle + spread, 1)]
    with_gates = [
        joint_bound(network, gates.example(b), problem.functionals[b : b + 1], known.of(torch.tensor([b])), solve=way,
                    memory=memory, deadline=deadline).upper
        for b in range(problem.batch)
        for way in ([False, True] if solve else [False])
    ]  # fmt: skip
    together = torch.cat(with_gates).reshape(problem.batch, -1).amin(-1)
    # Only now in float64: in single precision casting down would round to either side.
    bounds_2 = [b.double() for b in bounds_2] + [together]
    return torch.stack(bounds_2).nan_to_num(nan=torch.inf, posinf=torch.inf).amin(0)


def _largest_by_programs(problem: Problem, norm: Norm, gates: Gates, memory: int, deadline: Deadline) -> Tensor:
    """Upper bounds (batch,) by the quadratic-gate program of every row, or of every column of the Jacobian."""
    network, functionals = problem.network, problem.functionals
    if norm is Norm.ONE:
        turned = transpose(network)
        network = turned.network
        gates = Gates({turned.gates[k]: slope for k, slope in gates.slopes.items() if k in turned.gates})
        columns = torch.eye(network.out_size, device=problem.device, dtype=problem.dtype)
        functionals = columns.expand(problem.batch, -1, -1)
    each = tensor_bytes(Copies.EXAMPLE, problem.batch * network.widest, functionals)
    best = functionals.new_zeros(problem.batch, dtype=torch.float64)
    for part in functionals.split(min(fitting(memory, each), 256), dim=1):
        known = relaxation_named("lbp").gradients(network, gates, part, memory=memory)
        found = sdp_bound(network, gates, part, known, Norm.INF, prune_below=best, memory=memory, deadline=deadline.at)
        best = torch.maximum(best, found.upper.amax(-1))
    return best


def _largest_row(
    network: Network,
    gates: Gates,
    functionals: Tensor,
    relaxation: Relaxation,
    forward: ForwardBound | None,
    memory: int,
    deadline: Deadline,
) -> Tensor:
    """Upper bounds (batch,) on the largest l_1 norm of a row."""
    known = relaxation.gradients(network, gates, functionals, forward=forward, memory=memory, deadline=deadline)
    return relaxation.norms(network, gates, functionals, known, Norm.INF, forward).amax(-1)


def _largest_column(problem: Problem, gates: Gates, relaxation: Relaxation, memory: int, deadline: Deadline) -> Tensor:
    """Upper bounds (batch,) on the largest l_1 norm of a column: rows of the transposed Jacobian, a few at a time."""
    turned = transpose(problem.network)
    moved = Gates({turned.gates[k]: slope for k, slope in gates.slopes.items() if k in turned.gates})
    columns = torch.eye(problem.network.in_size, device=problem.device, dtype=problem.dtype)
    each = tensor_bytes(Copies.EXAMPLE, problem.batch * problem.network.widest, columns)
    parts = [
        _largest_row(turned.network, moved, part.expand(problem.batch, -1, -1), relaxation, None, memory, deadline)
        for part in columns.split(min(fitting(memory, each), 256))
    ]
    return torch.stack(parts).amax(0)
