"""LipSDP: slope-restricted semidefinite bounds (Fazlyab et al. 2019, arXiv 1906.04893), through any conic solver."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import ClassVar, final

import numpy as np
import torch

import solvers
from lipcompare.budget import Budget, Clock, Deadline, Kept
from lipcompare.domain import Space
from lipcompare.encoding.builder import OutOfRange
from lipcompare.encoding.lipsdp import Tangents, certified, semidefinite_program, tangents
from lipcompare.errors import UnsupportedOperation, install
from lipcompare.gates import Gates
from lipcompare.jacobian import norm_product
from lipcompare.jacobian.interval import scales
from lipcompare.jacobian.norms import norm_above, spectral_norm
from lipcompare.methods.base import Method, as_array, pieces
from lipcompare.methods.milp import FATAL, STATUSES, said
from lipcompare.network.graph import Network
from lipcompare.preactivation import Tightening, interval_bounds, preactivation_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.result import Bound, Status
from lipcompare.rounding import allowance, sum_above

_REFINING = 0.3
"""Share of the time for the bounds that slopes come from; the programs take most of it, unlike elsewhere."""

_CONIC = f"LipSDP needs a conic solver: {install('cvxpy')}."


class Multipliers(enum.Enum):
    """How many multipliers share the slope restrictions."""

    NEURON = "neuron"  # one for each undecided neuron
    LAYER = "layer"  # one for each activation node


class Scope(enum.Enum):
    """Where slopes are restricted to the range they take."""

    LOCAL = "local"  # over the box
    GLOBAL = "global"  # over the whole input space


class LinfForm(enum.Enum):
    """How a bound for p = inf is made."""

    SCALED = "scaled"  # the l_2 bound times sqrt(inputs), as published comparisons do
    DIAGONAL = "diagonal"  # weights d_j on the squares of the inputs' differences, minimising their sum


@final
@dataclasses.dataclass(frozen=True)
class LipSdp(Method):
    """LipSDP-Neuron and LipSDP-Layer, one semidefinite program per row.

    Two inputs that differ by ``dx`` have pre-activations that differ by ``dz`` and activations by ``s dz`` with ``s``
    in the slope range. Neurons whose slope is one number are substituted. The network variant of the paper, with a
    multiplier for every pair of neurons, is unsound (Pauli et al. 2021) and left out. For p = 1 the l_2 bound holds as
    it is.

    A solver's answer is not trusted: its multipliers are rounded to valid ones, the smallest eigenvalue of the matrix
    they give is computed, and what it lacks is paid for in the bound.

    Attributes:
        solver: a name of a conic solver that ``lipcompare solvers`` lists.
        multipliers: one for each undecided neuron, or one for each layer.
        scope: restrict slopes to their range over the box, or over all inputs.
        linf: for p = inf the l_2 bound times the root of the number of inputs, as published comparisons do, or weights
            on the inputs' differences, minimising their sum.
        tightening: pre-activation bounds that slopes come from.
        limit: largest order of the semidefinite matrix; a network that needs more is refused.
    """

    name: ClassVar[str] = "lipsdp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "semidefinite bound from slope restrictions (LipSDP-Neuron, LipSDP-Layer)"
    reference: ClassVar[str] = "fazlyab2019lipsdp"
    everywhere: ClassVar[bool] = True

    solver: str = "cvxpy:CLARABEL"
    multipliers: Multipliers = Multipliers.NEURON
    scope: Scope = Scope.LOCAL
    linf: LinfForm = LinfForm.SCALED
    tightening: Tightening = Tightening.CROWN
    limit: int = 300  # order of the semidefinite matrix

    def supports(self, problem: Problem) -> str | None:
        network = problem.network
        undecided = int(_gates(self, problem, Tightening.INTERVAL).unstable_count.max()) if network.activations else 0
        order = undecided + (network.in_size if self._diagonal(problem.norm) else min(network.in_size, undecided + 1))
        if order > self.limit:
            return f"The matrix may have order {order}, the limit is {self.limit}: use sdp, or raise the limit."
        widest = network.widest
        if (network.in_size + undecided) * widest > 2**27:
            return "The network's dense matrices are too large for LipSDP: use sdp or lbp."
        return None

    def _diagonal(self, norm: Norm) -> bool:
        return norm is Norm.INF and self.linf is LinfForm.DIAGONAL

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        try:
            solver = solvers.get(self.solver)
        except ValueError as error:
            return self.result(problem, clock, status=Status.UNAVAILABLE, detail=f"{error} {_CONIC}")
        double = problem.double("cpu")
        # What holds for rows without a program of their own, where the time ends before their turn.
        upper = as_array(norm_product(double.network, double.functionals, double.norm))
        clock.keep(Kept(0, upper))
        status, detail = Status.COMPLETE, ""
        for piece in pieces(double, clock, budget.memory):  # one example each
            b, example, ends = piece.first, piece.problem, Deadline.after(piece.seconds)
            gates = _gates(self, example, self.tightening, Deadline.after(_REFINING * piece.seconds))
            together, rounding = tangents(example.network, gates, example.functionals[0]), _rounding(example, gates)
            took = 0.0
            if not together.count:
                upper[b] = norm_above(torch.from_numpy(together.output), problem.norm.dual).numpy() + rounding
                continue
            # A solver takes one program at a time, so the rows of a piece are a loop, as in lp.
            for row in range(problem.rows):
                if ends.passed(ahead=took):  # as long as the last one, of the same size, took
                    status, detail = Status.TIME_LIMIT, "Rows that were not solved have the product of layer norms."
                    break
                began = clock.elapsed
                value, outcome, message = self._program(
                    problem.norm, together.row(row), solver, ends.left / (problem.rows - row)
                )
                took = clock.elapsed - began
                if outcome is Status.INTERRUPTED:
                    raise KeyboardInterrupt  # the solver turned it into a status
                if math.isfinite(value):
                    upper[b, row] = value + rounding[row]
                clock.keep(Kept(0, upper))
                clock.record(0.0, float(upper.max()))
                if outcome is not Status.COMPLETE:
                    status, detail = outcome, message
                    if outcome in FATAL:
                        return self.result(problem, clock, upper=upper, status=status, detail=detail)
        return self.result(problem, clock, upper=upper, status=status, detail=detail)

    def _program(
        self, norm: Norm, tangent: Tangents, solver: solvers.Solver, seconds: float
    ) -> tuple[float, Status, str]:
        """What the program of some functionals proves of their l_2 norm together, which for p = inf is scaled."""
        diagonal = self._diagonal(norm)
        inputs = tangent.output.shape[1]
        try:
            reduced, lost = (tangent, 0.0) if diagonal else tangent.without_idle_directions()
            groups = reduced.groups if self.multipliers is Multipliers.LAYER else np.arange(reduced.count)
            program = semidefinite_program(reduced, groups, diagonal=diagonal)
        except OutOfRange as error:
            return math.inf, Status.NUMERICAL, str(error)
        solution = solver.solve(program, solvers.Limits(time_limit=max(seconds, 0.01)))
        outcome = STATUSES[solution.status]
        if solution.x is None:
            return math.inf, outcome, said(solution)
        value = float(sum_above(certified(reduced, groups, solution.x, diagonal=diagonal), lost))
        scaled = norm is Norm.INF and not diagonal
        return value * (math.sqrt(inputs) if scaled else 1.0), outcome, said(solution)

    def operator_norm(self, problem: Problem, deadline: Deadline) -> tuple[np.ndarray, Status, str]:
        """Upper bounds (batch,) on the largest singular value of the Jacobian of all functionals: one program with all
        of them at once. Infinite where the solver gives no point; status and message are of the last such program.

        Raises:
            UnsupportedOperation: the network is too large for it, or the solver is not there.
        """
        double = problem.double("cpu")
        reason = self.supports(dataclasses.replace(double, norm=Norm.TWO))
        if reason is not None:
            raise UnsupportedOperation(reason)
        try:
            solver = solvers.get(self.solver)
        except ValueError as error:
            raise UnsupportedOperation(f"{error} {_CONIC}") from None
        upper, ended, said = np.full(problem.batch, np.inf), Status.COMPLETE, ""
        for b in range(problem.batch):
            example = dataclasses.replace(double.example(b), norm=Norm.TWO)
            ends = Deadline.after(deadline.left / (problem.batch - b))
            gates = _gates(self, example, self.tightening, Deadline.after(_REFINING * ends.left))
            together = tangents(example.network, gates, example.functionals[0])
            if together.count:
                value, status, message = self._program(Norm.TWO, together, solver, ends.left)
                if status is Status.INTERRUPTED:
                    raise KeyboardInterrupt  # the solver turned it into a status
                if status in FATAL:
                    raise UnsupportedOperation(message)
                if status is not Status.COMPLETE:
                    ended, said = status, message
            else:
                value = float(spectral_norm(torch.from_numpy(together.output)))
            # The data's rounding, row by row, as the length of all rows.
            rounding = float(norm_above(torch.from_numpy(_rounding(example, gates)), Norm.TWO))
            upper[b] = float(sum_above(value, rounding))
        return upper, ended, said


def _gates(method: LipSdp, problem: Problem, tightening: Tightening, deadline: Deadline | None = None) -> Gates:
    network: Network = problem.network
    if method.scope is Scope.GLOBAL or isinstance(problem.box, Space):
        return Gates.free(network, problem.batch, problem.device, problem.dtype)
    if tightening is Tightening.INTERVAL:
        return Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    bounds = preactivation_bounds(network, problem.box.interval, tightening, deadline=deadline)
    return Gates.from_preactivations(network, bounds)


def _rounding(problem: Problem, gates: Gates) -> np.ndarray:
    """What the rounding of the programs' data may take from the norms of an example's rows, (rows,).

    An entry of the data is a sum over paths between undecided gates, so for any choice of slopes the gradient that the
    data describe differs from the true one by at most the allowance times the sum of absolute values over all paths.
    """
    network = problem.network
    error = allowance(network.operations, problem.dtype) * scales(network, gates, problem.functionals)[0][0]
    found: np.ndarray = norm_above(error, problem.norm.dual).numpy()
    return found
