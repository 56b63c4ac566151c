"""LipSDP as a conic program: how differences of inputs travel through slope-restricted activations.

With ``dx`` a difference of two inputs and, for every undecided neuron ``i`` with slopes in ``[lo, hi]``,
``v_i = dy_i - lo dz_i`` its difference beyond the low slope, all differences in the network are linear in
``w = (dx, v)``, and ``v_i ((hi - lo) dz_i - v_i) >= 0``. With ``O`` the linear map of the outputs' differences, of one
functional or of all at once, multipliers ``t >= 0`` and a diagonal ``D`` on ``dx``,

    S = D - O^T O - sum_i t_i (e_i K_i^T + K_i e_i^T - 2 e_i e_i^T)   psd ,     K_i = (hi - lo) dz_i as a row,

gives ``|O w|_2^2 <= dx^T D dx`` for every pair of inputs. ``D = rho I`` bounds the l2 constant by ``sqrt(rho)``; any
``D`` bounds the constant for p = inf by ``sqrt(sum_j D_jj)`` (Fazlyab et al. 2019, theorem 1, after the substitution).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

import solvers
from lipcompare.encoding.builder import in_range
from lipcompare.gates import Gates
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward, linear_value
from lipcompare.rounding import SPARE, allowance

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Tangents:
    """Differences in a network as linear maps of ``w = (dx, v)``.

    Attributes:
        output: of the functionals, their part in ``dx`` (rows, inputs).
        output_gates: their part in ``v`` (rows, count).
        gates_input: rows ``K_i``, their part in ``dx`` (count, inputs).
        gates_gates: their part in ``v`` (count, count), strictly lower triangular.
        groups: number of the activation node of each neuron, (count,).
    """

    output: Vector
    output_gates: Vector
    gates_input: Vector
    gates_gates: Vector
    groups: NDArray[np.intp]

    @property
    def count(self) -> int:
        """Number of undecided neurons."""
        return int(self.output_gates.shape[1])

    def row(self, number: int) -> Tangents:
        """Those of one functional."""
        one = slice(number, number + 1)
        return dataclasses.replace(self, output=self.output[one], output_gates=self.output_gates[one])

    def reach(self) -> tuple[Vector, float]:
        """``|v_i| <= r_i ||dx||_2`` (count,), and the same for the outputs together."""
        reach = np.zeros(self.count)
        for i in range(self.count):
            reach[i] = np.linalg.norm(self.gates_input[i]) + np.abs(self.gates_gates[i]) @ reach
        outputs = np.linalg.norm(self.output, axis=1) + np.abs(self.output_gates) @ reach
        return reach, float(np.linalg.norm(outputs))

    def without_idle_directions(self) -> tuple[Tangents, float]:
        """The same in an orthonormal basis of the input directions that matter, and what rounding in it may take from
        the l2 norm of the gradient, for any slopes.

        By Householder's method a row of ``n`` in ``m`` dimensions is that of an exact rotation of a row that differs by
        ``n gamma_cm`` times its length, with a small ``c`` (Higham 2002, theorem 19.4; ``SPARE`` here). What that does
        to the gradient is as much of the reach, which sums up lengths along all paths.

        Raises:
            OutOfRange: a number of them is not finite.
        """
        rows = len(self.output)
        stacked = np.vstack([self.output, self.gates_input])
        in_range(stacked)
        if stacked.shape[1] <= stacked.shape[0]:
            return self, 0.0
        _, triangle = np.linalg.qr(stacked.T)
        turned = triangle.T  # (rows + count, rows + count): all of them in that basis
        lost = allowance(SPARE * stacked.size, torch.float64) * self.reach()[1]
        return dataclasses.replace(self, output=turned[:rows], gates_input=turned[rows:]), lost


def tangents(network: Network, gates: Gates, functionals: Tensor) -> Tangents:
    """The linear maps of all rows; ``gates`` of one example (batch 1), ``functionals`` (rows, outputs), float64."""
    masks = {k: gates.unstable(k)[0] for k in network.activations}
    count = sum(int(m.sum()) for m in masks.values())
    inputs = network.in_size
    # Values are (inputs + count, size): row j is the response to coordinate j.
    basis = torch.eye(inputs + count, inputs, dtype=torch.float64)
    incoming = torch.zeros(count, inputs + count, dtype=torch.float64)
    groups = np.zeros(count, np.intp)
    at = 0

    def activation(k: int, node: Activate, z: Tensor) -> Tensor:
        nonlocal at
        slope = gates.slopes[k]
        low, high = slope.lower[0], slope.upper[0]
        result = z * low
        chosen = masks[k].nonzero().squeeze(-1)
        places = torch.arange(at, at + len(chosen))
        incoming[places] = (z * (high - low))[:, chosen].T
        groups[places.numpy()] = k
        result[inputs + places, chosen] += 1.0
        at += len(chosen)
        return result

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        return linear_value(terms)

    response = fold_forward(network, {0: basis}, activation, affine)
    assert response is not None  # every node depends on the input
    outputs = (functionals @ response.T).numpy()
    left, right = incoming[:, :inputs].numpy(), incoming[:, inputs:].numpy()
    return Tangents(outputs[:, :inputs], outputs[:, inputs:], left, right, groups)


@np.errstate(over="ignore", invalid="ignore")
def _matrices(tangent: Tangents) -> tuple[Vector, Vector, Vector, float]:
    """Scaled data: rows ``K`` and ``O`` over ``w = (dx, v / r)``, the scale ``r`` and the outputs' reach (divided
    out).

    Raises:
        OutOfRange: a number of them is not finite.
    """
    # Any larger numbers are reaches too: that no coordinate is scaled up from next to nothing, and no divisor is 0.
    reach, size = tangent.reach()
    reach, size = np.maximum(reach, 1e-12 * max(size, 1e-300)), max(size, 1e-300)
    rows = np.hstack([tangent.gates_input, tangent.gates_gates * reach]) / reach[:, None]
    output = np.hstack([tangent.output, tangent.output_gates * reach]) / size
    in_range(rows, output, reach, np.array([size]))
    return rows, output, reach, size


def semidefinite_program(tangent: Tangents, groups: NDArray[np.intp], *, diagonal: bool) -> solvers.ConicProgram:
    """Minimises ``rho`` (or the sum of the diagonal) over it and one ``t >= 0`` per group.

    In scaled coordinates ``|w| <= |dx|`` entry by entry, so the columns are of one size. Columns: the weights of ``dx``
    (one, or one per input), then the multipliers.
    """
    rows, output, _, _ = _matrices(tangent)
    count, inputs = tangent.count, tangent.output.shape[1]
    n = inputs + count
    names, places = np.unique(groups, return_inverse=True)
    weights = inputs if diagonal else 1
    columns = []
    for j in range(weights):
        block = np.zeros((n, n))
        ones = [j] if diagonal else list(range(inputs))
        block[ones, ones] = 1.0
        columns.append(sp.csc_matrix(-solvers.svec(block)[:, None]))
    blocks = (_restriction(rows, places == group, inputs) for group in range(len(names)))
    columns += [sp.csc_matrix(-solvers.svec(block)[:, None]) for block in blocks]
    total = weights + len(names)
    constraints = sp.vstack([-sp.identity(total), sp.hstack(columns)], format="csr")
    return solvers.ConicProgram(
        cost=np.concatenate([np.ones(weights), np.zeros(len(names))]),
        A=constraints,
        b=np.concatenate([np.zeros(total), solvers.svec(-output.T @ output)]),
        cones=solvers.Cones(nonneg=total, psd=(n,)),
    )


def _restriction(rows: Vector, chosen: NDArray[np.bool_], inputs: int) -> Vector:
    """``-sum_i (e_i K_i^T + K_i e_i^T - 2 e_i e_i^T)`` over the chosen neurons."""
    n = rows.shape[1]
    product = np.zeros((n, n))
    for i in np.flatnonzero(chosen):
        product[inputs + i] -= rows[i]
        product[:, inputs + i] -= rows[i]
        product[inputs + i, inputs + i] += 2.0
    return product


def certified(tangent: Tangents, groups: NDArray[np.intp], x: Vector, *, diagonal: bool) -> float:
    """The bound that a point of the program proves, whether or not it is feasible.

    With ``S`` short of psd by ``m`` (its smallest eigenvalue, less the rounding of forming and decomposing it),
    ``|O w|^2 <= dx^T D dx + m |w|^2`` and ``|w|^2 <= (1 + count) |dx|^2``; for p = inf, ``|dx|^2`` is at most the
    number of inputs.
    """
    rows, output, _, size = _matrices(tangent)
    count, inputs = tangent.count, tangent.output.shape[1]
    weights = inputs if diagonal else 1
    x = np.maximum(np.where(np.isfinite(x), x, 0.0), 0.0)
    _, places = np.unique(groups, return_inverse=True)
    multipliers = x[weights:][places]
    slack = -output.T @ output
    slack[np.arange(inputs), np.arange(inputs)] += x[:weights]
    for i in range(count):
        slack[inputs + i] -= multipliers[i] * rows[i]
        slack[:, inputs + i] -= multipliers[i] * rows[i]
        slack[inputs + i, inputs + i] += 2.0 * multipliers[i]
    # Forming an entry takes three operations more than rows, decomposing the matrix as many as its size.
    rounding = 4 * allowance(len(slack) + len(output) + SPARE, torch.float64) * float(np.linalg.norm(slack) + 1.0)
    lacking = max(0.0, -float(np.linalg.eigvalsh(slack)[0])) + rounding
    total = float(x[:weights].sum()) + lacking * (1 + count) * (inputs if diagonal else 1)
    return math.sqrt(total * (1 + allowance(weights + SPARE, torch.float64))) * size * (1 + allowance(4, torch.float64))
