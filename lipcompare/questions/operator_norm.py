"""The operator norm ``p -> p`` of the whole Jacobian: ``sup_{x in X} max_{||v||_p = 1} ||J(x) v||_p``.

This is the constant of ``f`` with the same norm ``l_p`` on inputs and outputs, LipBaB's quantity (Bhowmick et al.
2021). For ``p = inf`` it is the largest l_1 norm of a row of ``J``, the maximum over rows of the row problem; for
``p = 1`` the largest l_1 norm of a column, the same problem on the transposed Jacobian, which has the same gates; for
``p = 2`` the largest singular value. At kinks the Jacobian ranges over all Clarke derivatives, as everywhere else.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch
from torch import Tensor

from lipcompare.api import bound
from lipcompare.attack.search import Effort, kink_patterns, search
from lipcompare.branching.driver import Stop
from lipcompare.budget import Budget, Clock, Copies, Deadline, TracePoint, fitting, tensor_bytes
from lipcompare.domain import Box, Norm, NormBall, Space
from lipcompare.errors import Contradiction, InvalidInput, UnsupportedOperation, known_keywords, nearest
from lipcompare.gates import Gates, by_node, has_patterns
from lipcompare.jacobian import Relaxation, interval_gradient, relaxation_named
from lipcompare.jacobian.norms import interval_norm, layer_product, norm_above, spectral_norm
from lipcompare.methods.base import HURRIED
from lipcompare.methods.lipbab import lipbab_operator_norm, spectral_search
from lipcompare.methods.lipsdp import LipSdp
from lipcompare.methods.searches import outcome
from lipcompare.network.environment import computing
from lipcompare.network.graph import Network
from lipcompare.network.interval import Interval
from lipcompare.network.transpose import transpose
from lipcompare.preactivation import ForwardBound, Tightening, interval_bounds, preactivation_bounds
from lipcompare.problem import Problem
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.quadratic.joint import joint_bound
from lipcompare.questions.entries import gates_and_lines
from lipcompare.result import Status
from lipcompare.rounding import agree, lowered, raised
from lipcompare.witness import clarke

NAIVE = "naive"
"""In place of a relaxation: the product of the layers' norms, which needs no gates."""
SDP = "sdp"
"""In place of a relaxation: quadratic gates, in one program with all rows for p = 2, row by row and column by column
else."""
LIPSDP = "lipsdp"
"""In place of a relaxation, for p = 2: LipSDP with all rows at once and the gates' slopes over the domain, by a conic
solver."""
BAB, LIPBAB = "bab", "lipbab"
"""What proves the value to a gap."""
_MOST_SIGNS = 8
"""Outputs up to which the norm for p = 1 is a problem of rows: one for every choice of their signs but the first's."""
_MOST_SIGNS_EVERYWHERE = 12
"""The same on all inputs, where nothing else proves it."""
_REFINING = 0.7
"""Share of the time for upper bounds; the search for points has what they leave."""
_LEAST_SECONDS = 1e-3
"""What a search gets when the time is over: it ends at once, with the interval that costs nothing."""


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
            upper = _layer_product(problem.network, norm, problem.functionals)
        elif relaxation == LIPSDP:
            if norm is not Norm.TWO:
                raise InvalidInput("LipSDP of all outputs is for p = 2: take sdp, or bound --method lipsdp for rows.")
            found, status, detail = LipSdp().operator_norm(problem, refining)
            upper = torch.from_numpy(found).to(problem.device)
        else:
            upper = _first_bound(problem, norm, memory)
            clock.record(0.0, float(upper.max()))
            if not refining.passed():
                upper = torch.minimum(upper, _local_bound(problem, norm, relaxation, memory, refining))
            if refining.missed:
                status, detail = Status.TIME_LIMIT, HURRIED
        clock.record(0.0, float(upper.max()))
        lower, points, kinks = _search(problem, norm, effort, seed, memory, Deadline.after(clock.left))
    if not bool((lower <= upper).all()):
        raise Contradiction(f"The operator norm's lower bound {lower} is above its upper bound {upper}: a bug.")
    arrays = (t.cpu().double().numpy() for t in (lower, upper, points))
    low, high, where = arrays
    clock.record(float(low.max()), float(high.max()))
    return OperatorNorm(norm, low, high, where, kinks.cpu().numpy(), clock.elapsed, status, detail, tuple(clock.trace))


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
        upper = _first_bound(problem.double(), problem.norm, memory).cpu().numpy()
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
        lower[b] = _attained(part, found.point, found.slopes)
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


def _attained(problem: Problem, point: np.ndarray, slopes: np.ndarray | None) -> float:
    """A lower bound in real numbers on the norm of one example at a point, with slopes (neurons,) where it has a kink.

    As the slopes of a kink are chosen there, so they are where no choice is given: as autograd takes them.
    """
    x = torch.from_numpy(point).to(problem.device).unsqueeze(0)
    if slopes is None:
        pattern = clarke(problem.network.to(problem.device, torch.float64), x).slopes
    else:
        pattern = {k: v.unsqueeze(0) for k, v in by_node(problem.network, torch.from_numpy(slopes).to(x)).items()}
    return float(_proved(problem, x, pattern, problem.norm))


def _layer_product(network: Network, norm: Norm, like: Tensor) -> Tensor:
    """Product of operator norms, branches added: (batch,)."""
    product = layer_product(network, norm, like)
    size = torch.full((like.shape[0],), product, dtype=torch.float64, device=like.device)
    return size.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _first_bound(problem: Problem, norm: Norm, memory: int) -> Tensor:
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


def _local_bound(problem: Problem, norm: Norm, name: str, memory: int, deadline: Deadline) -> Tensor:
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


def _search(
    problem: Problem, norm: Norm, effort: Effort, seed: int, memory: int, deadline: Deadline
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest operator norm found (batch,), where (batch, inputs), and whether at a kink (batch,).

    The points are those where single rows are large; for p = 1 and 2 a local search then follows the norm itself.
    """
    starts = search(problem, effort, seed=seed, memory=memory, deadline=deadline)  # (batch, rows, inputs)
    center = problem.box.clamp(problem.box.window.center.unsqueeze(1))
    points = torch.cat([center, starts], 1)
    values = _norms_at(problem, points, norm)
    random = torch.Generator().manual_seed(seed)
    radius = problem.box.window.radius.unsqueeze(1)
    rounds = effort.scaled(problem.network, problem.network.out_size).rounds
    for _ in range(rounds):
        if deadline.passed():
            break
        size = 10.0 ** (-3 * torch.rand(points.shape[1], 1, generator=random, dtype=torch.float64))
        step = torch.randn(points.shape[1:], generator=random, dtype=torch.float64) * size
        moved = problem.box.clamp(points + radius * step.to(points))
        found = _norms_at(problem, moved, norm)
        better = found > values
        points = torch.where(better.unsqueeze(-1), moved, points)
        values = torch.where(better, found, values)
    best = values.argmax(1, keepdim=True)
    where = points.gather(1, best.unsqueeze(-1).expand(-1, -1, points.shape[-1])).squeeze(1)
    value = values.gather(1, best).squeeze(1)
    value, middle = _proved(problem, where, None, norm), center.squeeze(1)
    kinked = _at_center(problem, middle, norm)
    at_kink = kinked > value
    where = torch.where(at_kink.unsqueeze(-1), middle, where)
    return torch.maximum(value, kinked), where, at_kink


def _at_center(problem: Problem, centers: Tensor, norm: Norm) -> Tensor:
    """The norm (batch,) at the centre with the patterns of its kinks, 0 if it has none: a lower bound in float64."""
    patterns = kink_patterns(problem, centers.unsqueeze(1).expand(-1, problem.rows, -1))
    best = centers.new_zeros(len(centers), dtype=torch.float64)
    for row in range(problem.rows if patterns is not None else 0):
        slopes = {k: v[:, row] for k, v in (patterns or {}).items()}
        best = torch.maximum(best, _proved(problem, centers, slopes, norm))
    return best


def _proved(problem: Problem, points: Tensor, pattern: dict[int, Tensor] | None, norm: Norm) -> Tensor:
    """Lower bounds (batch,) on the norm at points (batch, inputs) of the domain, in float64.

    The Jacobian there is enclosed; ``pattern`` chooses the slopes (batch, neurons) of neurons that are exactly at a
    kink. Of an enclosure with centre ``C`` and radius ``R``, the spectral norm is at least ``||C|| - ||R||``.
    """
    network, x = problem.network.to(problem.device, torch.float64), points.double()
    slopes = Gates.from_preactivations(network, interval_bounds(network, Interval(x, x))).slopes
    if pattern is not None:
        kinks = clarke(network, x).kinks
        chosen = {k: Interval(pattern[k].double(), pattern[k].double()) for k in kinks}
        slopes = {**slopes, **{k: chosen[k].select(kinks[k], slopes[k]) for k in kinks}}
    entries = interval_gradient(network, Gates(slopes), problem.functionals.double())
    if norm is not Norm.TWO:
        least = torch.maximum(entries.lower, -entries.upper).clamp(min=0)
        return lowered(matrix_norm(least, norm), sum(least.shape[-2:]))
    radius = raised(torch.maximum(entries.upper - entries.center, entries.center - entries.lower), 1)
    size = sum(radius.shape[-2:])
    return lowered((lowered(matrix_norm(entries.center, norm), 8 * size) - spectral_norm(radius)).clamp(min=0), 1)


def _norms_at(problem: Problem, points: Tensor, norm: Norm) -> Tensor:
    """Operator norms (batch, k) of the Jacobian at points (batch, k, inputs)."""
    slopes = problem.network.slopes(problem.network.values(points))
    slopes = {k: v.unsqueeze(2) for k, v in slopes.items()}
    rows = problem.functionals.unsqueeze(1).expand(*points.shape[:2], -1, -1)
    return matrix_norm(problem.network.pull_back(slopes, rows), norm)


def matrix_norm(matrices: Tensor, norm: Norm) -> Tensor:
    """Operator norm ``p -> p`` of matrices (..., outputs, inputs); for p = 2, 0 where an entry is not finite."""
    if norm is Norm.TWO:
        finite = matrices.isfinite().all(-1).all(-1)
        largest = torch.linalg.matrix_norm(torch.where(finite[..., None, None], matrices, 0.0), ord=2)
        return torch.where(finite, largest, 0.0)
    return matrices.abs().sum(-1 if norm is Norm.INF else -2).amax(-1)
