"""A problem as a mixed-integer program: activation patterns, their gradients and the norm (LipMIP).

After Jordan and Dimakis 2020 (arXiv 2003.01219, jordan2020lipmip), with every big-M taken from bounds that are handed
in:

- forward, an undecided neuron with pre-activation ``z`` in ``[l, u]`` and slopes ``{lo, hi}``: ``z = r - n``,
  ``0 <= r <= u a``, ``0 <= n <= -l (1 - a)``, ``a`` binary, value ``hi r - lo n``. Eliminating ``n`` gives the usual
  ``r >= z, r >= 0, r <= u a, r <= z - l (1 - a)``.
- backward, the gradient ``J`` in ``[L, U]`` at its output: ``J = v + w``, ``L a <= v <= U a``,
  ``L (1-a) <= w <= U (1-a)``, gradient at its input ``hi v + lo w``: McCormick's hull, exact for binary ``a``. A
  constant ``J`` needs no columns.
- p = inf: ``|J_j| = p + n`` with ``J_j = p - n``, ``0 <= p <= U s``, ``0 <= n <= -L (1 - s)``, ``s`` binary, for the
  entries whose interval holds both signs. p = 1: one binary per entry and sign that can be the largest.
- several functionals: one binary per functional, their sum is 1, and the program's value is the largest over them.

Decided neurons leave no trace: affine chains are composed, unless keeping their values as columns takes fewer
non-zeros. Both signs of ``z`` are closed, so a pattern counts if it is valid on a closed region that contains ``x``.
Every column has finite bounds.

Coefficients are rounded, so the program is that of a network a little beside the one that is meant. At the same input
and with the same pattern, each of its values differs from the true one by no more than rounding may make of the chain
that leads there (:func:`lipcompare.rounding.allowance`, times the sum of the absolute values of all terms). Ranges of
columns are widened by that, so the program has a point for every pattern that the true network takes; what its norm may
be too small by is :attr:`Encoding.error`. Equations stay equations, which presolve needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

import solvers
from lipcompare.encoding.builder import (
    Choice,
    Columns,
    Expression,
    GateColumns,
    ProgramBuilder,
    Split,
    Vector,
    in_range,
    sparse_matrix,
)
from lipcompare.gates import Gates, PreactivationBounds
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_backward, fold_forward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.problem import Norm, Problem
from lipcompare.rounding import allowance, floor

_UNSEEN = np.errstate(over="ignore", invalid="ignore")
"""Numbers out of range are looked for where they would enter a program."""

GradientIntervals = Mapping[int, Interval]
"""Intervals (batch, rows, size) of the gradient with respect to the value of each activation node and of the input."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoding:
    """A program whose minimum is minus the local Lipschitz constant, and what its columns mean.

    Attributes:
        program: minimises minus the norm.
        inputs: columns of ``x``.
        gates: undecided neurons and their binaries, per activation node.
        rows: columns of the choice between functionals; empty with a single one.
        slopes: slope range of every neuron, (neurons,) per activation node.
        error: what rounding in its coefficients may take from the norm.
    """

    program: solvers.MixedIntegerProgram
    inputs: Columns
    gates: Mapping[int, GateColumns]
    rows: Columns
    slopes: Mapping[int, tuple[Vector, Vector]]
    error: float
    forward: tuple[tuple[int, Split], ...]
    backward: tuple[Split, ...]
    materialised: tuple[tuple[Columns, Expression], ...]
    choice: Choice | None

    def point(self, x: Vector) -> Vector:
        """The input in a point of the program, inside the box."""
        columns = self.inputs
        return np.clip(x[columns], self.program.lower[columns], self.program.upper[columns])

    def pattern(self, x: Vector) -> dict[int, NDArray[np.bool_]]:
        """Which neurons take the upper end of their slope range, (neurons,) per activation node."""
        active = {k: high > 0.5 for k, (_, high) in self.slopes.items()}
        for k, gate in self.gates.items():
            active[k][gate.neurons] = x[gate.columns] > 0.5
        return active

    def start(self, x: Vector, row: int = 0, pattern: Mapping[int, NDArray[np.bool_]] | None = None) -> Vector:
        """The point of the program that belongs to an input and a functional.

        Args:
            x: (inputs,).
            row: position of the functional among those encoded.
            pattern: where given, the side that undecided neurons take (at a kink); else the sign of ``z``.
        """
        full = np.zeros(self.program.num_variables)
        full[self.inputs] = x
        full[self.rows] = np.arange(len(self.rows)) == row
        steps: list[tuple[int, int | None, Split | tuple[Columns, Expression]]] = []
        # In the order of their columns, every definition refers to earlier ones only.
        steps += [(int(s.first[0]), k, s) for k, s in self.forward]
        steps += [(int(s.first[0]), None, s) for s in self.backward]
        steps += [(int(m[0][0]), None, m) for m in self.materialised]
        gate_columns = {int(c) for gate in self.gates.values() for c in gate.columns}
        for _, k, step in sorted(steps, key=lambda s: s[0]):
            if not isinstance(step, Split):
                full[step[0]] = step[1].value(full)
                continue
            value = step.expression.value(full)
            if k is not None:
                chosen = value > 0 if pattern is None else pattern[k][self.gates[k].neurons]
                full[step.binary] = chosen
            elif len(step.binary) and int(step.binary[0]) not in gate_columns:
                full[step.binary] = value > 0
            on = full[step.binary]
            full[step.first] = on * value
            full[step.second] = (1 - on) * value * step.sign
        if self.choice is not None and len(self.choice.binary):
            value = self.choice.expression.value(full)
            best = int(value.argmax())
            if value[best] > 0:
                full[self.choice.binary[best]] = 1.0
                full[self.choice.value[best]] = value[best]
        return full


@_UNSEEN
def encode(
    problem: Problem,
    bounds: PreactivationBounds,
    gates: Gates,
    gradients: GradientIntervals,
    *,
    least: float = 0.0,
    coupled: bool = True,
) -> Encoding:
    """The program of one example: the largest norm over its functionals.

    Args:
        problem: with a batch of 1; piecewise linear; p = inf or p = 1.
        bounds: pre-activation bounds, (1, neurons) per activation node.
        gates: slope ranges, (1, neurons) per activation node.
        gradients: (1, rows, size) per activation node and for the input (0).
        least: for p = 1, entries that cannot exceed it are left out (their value is then at most that).
        coupled: False leaves the forward network out: gates are then free, and the linear relaxation of the program is
            exactly the linear program over the hulls of gates and norm.

    Raises:
        OutOfRange: a number of the program is not finite.
    """
    if problem.batch != 1 or problem.norm is Norm.TWO:
        raise ValueError("a mixed-integer program encodes one example, with p = inf or p = 1")
    if coupled and not problem.network.piecewise_linear:
        raise ValueError("smooth activations have no exact program of the forward network")
    maker = _Encoder(problem.network, gates)
    lower, upper = (_numpy(v[0]) for v in problem.box.interval)
    inputs = maker.builder.add_columns(lower, upper) if coupled else np.zeros(0, np.intp)
    if coupled:
        maker.forward(inputs, bounds)
    else:
        for k in maker.network.activations:
            maker.gate_columns(k)
    functionals = _numpy(problem.functionals[0])
    rows = np.zeros(0, np.intp)
    seed = Expression.of(functionals[0])
    if len(functionals) > 1:
        rows = maker.builder.add_binaries(len(functionals))
        maker.builder.add_rows(1.0, Expression.columns(rows).mapped(sp.csr_matrix(np.ones((1, len(rows))))), 1.0)
        seed = Expression.columns(rows).mapped(sp.csr_matrix(functionals.T))
    intervals = {k: (_numpy(v.lower[0]).min(0), _numpy(v.upper[0]).max(0)) for k, v in gradients.items()}
    gradient = maker.backward(_Value(seed, np.abs(functionals).max(0)), intervals)
    if problem.norm is Norm.INF:
        objective, choice = maker.absolute_sum(gradient, *intervals[0]), None
    else:
        objective, choice = maker.largest_entry(gradient, *intervals[0], least)
    if not maker.builder.width:  # a program needs a column, even if its value is a constant
        maker.builder.add_columns(np.zeros(1), np.zeros(1))
    return Encoding(
        program=maker.builder.program(objective),
        inputs=inputs,
        gates=maker.gates,
        rows=rows,
        slopes=maker.slopes,
        error=float(problem.norm.dual.of(torch.from_numpy(maker.error(gradient.size)))),
        forward=tuple(maker.forward_splits),
        backward=tuple(maker.backward_splits),
        materialised=tuple(maker.materialised),
        choice=choice,
    )


def forward_programs(
    network: Network, box: Interval, bounds: PreactivationBounds, gates: Gates, k: int, neurons: Sequence[int]
) -> Iterator[tuple[int, solvers.MixedIntegerProgram, float]]:
    """Programs that minimise the pre-activation of single neurons of activation node ``k`` over the box, exactly.

    Args:
        box, bounds, gates: of one example, with a batch axis of 1; only nodes before ``k`` are read.

    Yields:
        The neuron, its program, and what rounding in the program's coefficients may add to its minimum.

    Raises:
        OutOfRange: a number of the programs is not finite.
    """
    maker = _Encoder(network, gates)
    inputs = maker.builder.add_columns(*(_numpy(v[0]) for v in box))
    value = maker.forward(inputs, bounds, stop=network.nodes[k].parents[0])
    z, error = value.expression, maker.error(value.size)
    constraints = maker.builder.program(Expression.of(np.zeros(1)))
    costs = z.widened(maker.builder.width)
    for neuron in neurons:
        cost = costs[neuron].toarray().ravel()
        in_range(cost, z.constant[[neuron]])
        program = dataclasses.replace(constraints, cost=cost, offset=float(z.constant[neuron]))
        yield neuron, program, float(error[neuron])


@dataclasses.dataclass(eq=False)
class _Value:
    """A node's value or gradient.

    Attributes:
        expression: may be replaced by an equal one with fewer entries.
        size: (n,) the sum of the absolute values of all terms, which rounding is measured by.
    """

    expression: Expression
    size: Vector


class _Encoder:
    """The program of one network as it grows."""

    def __init__(self, network: Network, gates: Gates) -> None:
        self.network = network.to("cpu", torch.float64)
        self.builder = ProgramBuilder()
        self.slopes = {k: (_numpy(s.lower[0]), _numpy(s.upper[0])) for k, s in gates.slopes.items()}
        self.gates: dict[int, GateColumns] = {}
        self.forward_splits: list[tuple[int, Split]] = []
        self.backward_splits: list[Split] = []
        self.materialised: list[tuple[Columns, Expression]] = []
        self._matrices: dict[int, sp.csr_matrix] = {}

    def gate_columns(self, k: int) -> GateColumns:
        """Binaries for the undecided neurons of a node."""
        low, high = self.slopes[k]
        neurons = np.flatnonzero(high > low)
        self.gates[k] = GateColumns(neurons, self.builder.add_binaries(len(neurons)))
        return self.gates[k]

    def error(self, size: Vector) -> Vector:
        """What rounding may make of values, (n,), from the sums of the absolute values of their terms."""
        dtype = torch.float64
        return np.asarray(allowance(self.network.operations, dtype) * (size + floor(dtype)))

    def widened(self, lower: Vector, upper: Vector, size: Vector) -> tuple[Vector, Vector]:
        """Intervals of true values, as those of the program's values."""
        error = self.error(size)
        return lower - error, upper + error

    @_UNSEEN
    def forward(self, inputs: Columns, bounds: PreactivationBounds, stop: int | None = None) -> _Value:
        """Adds the forward network up to node ``stop`` (the output); returns the value of that node."""

        def activation(k: int, node: Activate, z: _Value) -> _Value:
            return _Value(self._activate(k, node, z, bounds[k]), self._through_gate(k, z.size))

        def affine(k: int, node: Affine, terms: Terms[_Value]) -> _Value:
            bias = np.zeros(node.size) if node.bias is None else _numpy(node.bias)
            total, size = Expression.of(bias), np.abs(bias)
            for m, value in terms:
                matrix = self._matrix(m)
                total, size = total + self._apply(matrix, value), size + _carried(matrix, value.size)
            return _Value(total, size)

        size = np.maximum(*map(np.abs, self.builder.ranges(inputs)))
        start = _Value(Expression.columns(inputs), size)
        value = fold_forward(self.network, {0: start}, activation, affine, stop=stop)
        assert value is not None  # every node depends on the input
        return value

    def _through_gate(self, k: int, size: Vector) -> Vector:
        """Sums of the absolute values of terms through an activation's slopes; as :func:`_carried` for maps."""
        steepest = np.maximum(*map(np.abs, self.slopes[k]))
        return np.asarray(steepest * (size + floor(torch.float64)))

    def _activate(self, k: int, node: Activate, value: _Value, bound: Interval) -> Expression:
        low, high = self.slopes[k]
        gate, z = self.gate_columns(k), value.expression
        i = gate.neurons
        result = z.scaled(np.where(high > low, 0.0, high))
        if not len(i):
            return result
        error = self.error(value.size[i])
        lower, upper = (_numpy(end[0])[i] for end in bound)
        # Where the true value is just above or below 0, the program's may be on the other side of it.
        lower, upper = np.minimum(lower, 0) - error, np.maximum(upper, 0) + error
        positive = self.builder.add_columns(-error, upper)
        negative = self.builder.add_columns(-error, -lower)
        self.forward_splits.append((k, self._split(z[i], positive, negative, -1.0, gate.columns)))
        self._switched(positive, upper, gate.columns, on=True)
        self._switched(negative, -lower, gate.columns, on=False)
        image = Expression.columns(positive, high[i]) + Expression.columns(negative, -low[i])
        return result + image.placed(i, node.size)

    def backward(self, seed: _Value, intervals: Mapping[int, tuple[Vector, Vector]]) -> _Value:
        """Adds the chain rule from the output's gradient ``seed``; returns the gradient of the input."""

        def activation(k: int, node: Activate, gradient: _Value) -> _Value:
            ends = self.widened(*intervals[k], gradient.size)
            return _Value(self._gate(k, gradient.expression, *ends), self._through_gate(k, gradient.size))

        def affine(k: int, node: Affine, maps: Sequence[LinearMap], gradient: _Value) -> Iterator[_Value]:
            for m in maps:
                matrix = self._matrix(m).T.tocsr()
                yield _Value(self._apply(matrix, gradient), _carried(matrix, gradient.size))

        def add(old: _Value, new: _Value) -> _Value:
            return _Value(old.expression + new.expression, old.size + new.size)

        last = len(self.network.nodes) - 1
        gradient = fold_backward(self.network, {last: seed}, activation, affine, add=add)
        zero = np.zeros(self.network.in_size)
        return _Value(Expression.of(zero), zero) if gradient is None else gradient

    def _gate(self, k: int, gradient: Expression, lower: Vector, upper: Vector) -> Expression:
        low, high = self.slopes[k]
        gate = self.gates[k]
        result = gradient.scaled(np.where(high > low, 0.0, high))
        fixed = gradient.is_constant[gate.neurons]
        i, a = gate.neurons[fixed], gate.columns[fixed]
        if len(i):  # slope lo + (hi - lo) a times a number
            number = gradient.constant[i]
            product = Expression.columns(a, number * (high - low)[i]) + Expression.of(number * low[i])
            result = result + product.placed(i, gradient.size)
        i, a = gate.neurons[~fixed], gate.columns[~fixed]
        if len(i):
            first = self.builder.add_columns(np.minimum(lower[i], 0), np.maximum(upper[i], 0))
            second = self.builder.add_columns(np.minimum(lower[i], 0), np.maximum(upper[i], 0))
            self.backward_splits.append(self._split(gradient[i], first, second, 1.0, a))
            for columns, on in ((first, True), (second, False)):
                self._switched(columns, upper[i], a, on=on)
                self._switched(columns, lower[i], a, on=on, above=True)
            passed = Expression.columns(first, high[i]) + Expression.columns(second, low[i])
            result = result + passed.placed(i, gradient.size)
        return result

    def absolute_sum(self, value: _Value, lower: Vector, upper: Vector) -> Expression:
        """The l1 norm as a column expression of one entry, a valid upper side only: it is to be maximised."""
        gradient = value.expression
        constant = gradient.is_constant
        sign = np.where(lower >= 0, 1.0, np.where(upper <= 0, -1.0, 0.0))
        sign = np.where(constant, np.sign(gradient.constant), sign)
        total = gradient.mapped(sp.csr_matrix(sign))
        open_ = np.flatnonzero((sign == 0) & ~constant)
        if len(open_):
            lower, upper = self.widened(lower, upper, value.size)
            binary = self.builder.add_binaries(len(open_))
            positive = self.builder.add_columns(np.zeros(len(open_)), upper[open_])
            negative = self.builder.add_columns(np.zeros(len(open_)), -lower[open_])
            self.backward_splits.append(self._split(gradient[open_], positive, negative, -1.0, binary))
            self._switched(positive, upper[open_], binary, on=True)
            self._switched(negative, -lower[open_], binary, on=False)
            both = Expression.columns(positive) + Expression.columns(negative)
            total = total + both.mapped(sp.csr_matrix(np.ones((1, len(open_)))))
        return total

    def largest_entry(
        self, gradient: _Value, lower: Vector, upper: Vector, least: float
    ) -> tuple[Expression, Choice | None]:
        """The largest absolute entry as one column expression, and the choice between entries and signs."""
        n = len(gradient.size)
        lower, upper = self.widened(lower, upper, gradient.size)
        sides = sp.vstack([sp.identity(n), -sp.identity(n)], format="csr")
        high, low = np.concatenate([upper, -lower]), np.concatenate([lower, -upper])
        entries = np.flatnonzero(high > least)
        if not len(entries):
            return Expression.of(np.array([least])), None
        candidates = gradient.expression.mapped(sides[entries])
        high, low = high[entries], np.minimum(low[entries], 0.0)
        binary = self.builder.add_binaries(len(entries))
        value = self.builder.add_columns(np.zeros(len(entries)), np.maximum(high, 0.0))
        ones = sp.csr_matrix(np.ones((1, len(entries))))
        # None of them may be chosen, so every input stays in the program, also where no entry exceeds that.
        self.builder.add_rows(0.0, Expression.columns(binary).mapped(ones), 1.0)
        self._switched(value, high, binary, on=True)
        # value <= candidate - low (1 - binary)
        slack = Expression.columns(value) + candidates.scaled(-np.ones(len(entries))) + Expression.columns(binary, -low)
        self.builder.add_rows(-np.inf, slack, -low)
        return Expression.columns(value).mapped(ones), Choice(candidates, value, binary)

    def _split(self, expression: Expression, first: Columns, second: Columns, sign: float, binary: Columns) -> Split:
        parts = Expression.columns(first, -1.0) + Expression.columns(second, -sign)
        self.builder.add_rows(0.0, expression + parts, 0.0)
        return Split(expression, first, second, sign, binary)

    def _switched(self, columns: Columns, limit: Vector, binary: Columns, *, on: bool, above: bool = False) -> None:
        """``columns <= limit * binary`` (on) or ``limit * (1 - binary)``; ``>=`` with ``above``."""
        sides = (0.0, np.inf) if above else (-np.inf, 0.0)
        if on:
            self.builder.add_rows(sides[0], Expression.columns(columns) + Expression.columns(binary, -limit), sides[1])
        else:
            difference = Expression.columns(columns) + Expression.columns(binary, limit) + Expression.of(-limit)
            self.builder.add_rows(sides[0], difference, sides[1])

    def _matrix(self, linear: LinearMap) -> sp.csr_matrix:
        if id(linear) not in self._matrices:
            self._matrices[id(linear)] = sparse_matrix(linear)
        return self._matrices[id(linear)]

    def _apply(self, linear: sp.csr_matrix, value: _Value) -> Expression:
        """``linear`` times a value, which gets columns of its own, for later readers too, where that is smaller."""
        expression = value.expression
        composed = expression.mapped(linear)
        dense = np.flatnonzero(np.diff(expression.matrix.indptr) > 1)
        if composed.nnz <= linear.nnz + expression.nnz + len(dense) or not len(dense):
            return composed
        chosen = expression[dense]
        columns = self.builder.add_columns(*self.builder.reach(chosen))
        self.builder.add_rows(0.0, chosen + Expression.columns(columns, -1.0), 0.0)
        self.materialised.append((columns, chosen))
        others = np.ones(expression.size)
        others[dense] = 0.0
        value.expression = expression.scaled(others) + Expression.columns(columns).placed(dense, expression.size)
        return value.expression.mapped(linear)


def _carried(linear: sp.csr_matrix, size: Vector) -> Vector:
    """Sums of the absolute values of terms through a map; what underflowed before it is multiplied by its weights."""
    carried: Vector = abs(linear) @ (size + floor(torch.float64))
    return carried


def _numpy(values: torch.Tensor) -> Vector:
    array: Vector = values.detach().cpu().double().numpy()
    return array
