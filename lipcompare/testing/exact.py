"""The truth in rational arithmetic: every activation pattern of a tiny network whose closed region meets the domain.

All numbers of a problem are stored floats, so they are rational, and so is everything that piecewise linear networks
make of them. A pattern is built neuron by neuron; its region, the part of the domain where the signs so far hold, is
kept as a polytope by its vertices (the double description method: a cut keeps the vertices on its side and adds one per
edge that it crosses). No number is ever rounded. Meant for one to three inputs and about ten neurons; what takes more
is refused by the work counted, so that the same problem is refused everywhere.

The whole space has no vertices. There a point has one more coordinate, and stands for the others divided by that one:
a region is a cone, cut off at 1, and has a point exactly if one of its vertices has a last coordinate above 0.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from lipcompare.domain import Norm, NormBall, Space
from lipcompare.errors import InvalidInput
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate, Affine, Network
from lipcompare.network.linear_maps import Composed, LinearMap, Transposed
from lipcompare.problem import Problem

Vector = tuple[Fraction, ...]
Matrix = tuple[Vector, ...]


class TooLarge(InvalidInput):
    """More regions, or regions of more vertices, than the oracle is meant for."""


LIMIT = 2**16
"""Vertices at which neurons are looked at for one truth; some thousand take a second, by the length of the numbers."""


@dataclasses.dataclass(frozen=True)
class Function:
    """The affine function ``weights x + constant``."""

    weights: Vector
    constant: Fraction

    def at(self, point: Vector) -> Fraction:
        return _dot(self.weights, point) + self.constant

    def times(self, factor: Fraction) -> Function:
        return Function(tuple(factor * w for w in self.weights), factor * self.constant)


@dataclasses.dataclass(frozen=True)
class Polytope:
    """The hull of finitely many points, with the constraints (bits of a number) that are tight at each."""

    points: Mapping[Vector, int]
    constraints: int

    @property
    def empty(self) -> bool:
        return not self.points

    def cut(self, half: Function) -> Polytope:
        """The part where ``half >= 0``."""
        bit = 1 << self.constraints
        values = {p: half.at(p) for p in self.points}
        vertices = {p: tight | (bit if values[p] == 0 else 0) for p, tight in self.points.items() if values[p] >= 0}
        inside = [(p, t) for p, t in self.points.items() if values[p] > 0]
        outside = [(p, t) for p, t in self.points.items() if values[p] < 0]
        for (p, tight_p), (q, tight_q) in itertools.product(inside, outside):
            both = tight_p & tight_q
            # An edge: the smallest face with both ends has no third vertex. That holds for a flat polytope too.
            if sum(tight & both == both for tight in self.points.values()) > 2:
                continue
            share = values[p] / (values[p] - values[q])
            point = tuple(a + share * (b - a) for a, b in zip(p, q, strict=True))
            vertices[point] = vertices.get(point, 0) | both | bit
        return Polytope(vertices, self.constraints + 1)


def box_polytope(lower: Sequence[Fraction], upper: Sequence[Fraction]) -> Polytope:
    """A box; sides may have no width."""
    points = {}
    for corner in itertools.product(*zip(lower, upper, strict=True)):
        tight = sum((1 << 2 * i) * (c == lower[i]) | (1 << 2 * i + 1) * (c == upper[i]) for i, c in enumerate(corner))
        points[corner] = tight
    return Polytope(points, 2 * len(lower))


def cross_polytope(center: Sequence[Fraction], radius: Fraction) -> Polytope:
    """The l1 ball."""
    size = len(center)
    facets = list(itertools.product((1, -1), repeat=size))
    points: dict[Vector, int] = {}
    for i, sign in itertools.product(range(size), (1, -1)):
        point = tuple(c + (sign * radius if j == i else 0) for j, c in enumerate(center))
        tight = sum(1 << n for n, facet in enumerate(facets) if facet[i] == sign or radius == 0)
        points[point] = points.get(point, 0) | tight
    return Polytope(points, len(facets))


def cone_polytope(size: int) -> Polytope:
    """The whole space: directions and points, with one more coordinate than those."""
    one = Fraction(1)
    return box_polytope([*[-one] * size, Fraction(0)], [one] * (size + 1))


def domains(problem: Problem, example: int = 0) -> tuple[list[Polytope], list[Polytope]]:
    """Polytopes whose union lies inside the domain, and polytopes whose intersection holds it.

    Both are the domain itself, but for l2 balls in two or more dimensions.
    """
    box = problem.box
    if isinstance(box, Space):
        cone = [cone_polytope(problem.network.in_size)]
        return cone, cone
    lower, upper = (_vector(v[example]) for v in (box.lower, box.upper))
    if not isinstance(box, NormBall):
        both = [box_polytope(lower, upper)]
        return both, both
    center, radius = _vector(box.center[example]), _number(box.radius[example])
    size = len(center)

    def clipped(polytope: Polytope) -> Polytope:
        for i in range(size):
            axis = tuple(Fraction(int(j == i)) for j in range(size))
            polytope = polytope.cut(Function(axis, -lower[i]))
            polytope = polytope.cut(Function(tuple(-a for a in axis), upper[i]))
        return polytope

    diamond = clipped(cross_polytope(center, radius))
    if box.norm is Norm.ONE or size == 1:
        return [diamond], [diamond]
    root = Fraction(math.sqrt(size)) * (1 + Fraction(1, 2**50))
    half = radius / root
    cube = clipped(box_polytope([c - half for c in center], [c + half for c in center]))
    return [diamond, cube], [clipped(cross_polytope(center, radius * root))]


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is true of one example: gradients (rows of inputs) of each row of the problem, over all valid patterns.

    Attributes:
        inner: per row, gradients of patterns that are valid somewhere in the domain.
        outer: per row, gradients among which are those of every valid pattern. The same but for l2 balls.
    """

    inner: tuple[frozenset[Vector], ...]
    outer: tuple[frozenset[Vector], ...]

    def admits_upper(self, row: int, norm: Norm, value: float) -> bool:
        """Whether the constant of a row is at most ``value``, as far as is known."""
        return not math.isnan(value) and (
            math.isinf(value) or self._largest(self.inner[row], norm) <= _power(value, norm)
        )

    def admits_lower(self, row: int, norm: Norm, value: float) -> bool:
        """Whether the constant of a row is at least ``value``, as far as is known."""
        if not math.isfinite(value):
            return value == -math.inf
        return value <= 0 or _power(value, norm) <= self._largest(self.outer[row], norm)

    def value(self, row: int, norm: Norm) -> float:
        """The constant of a row, rounded to float64; infinite where that does not hold it."""
        return _root(self._largest(self.inner[row], norm), norm)

    def range(self, row: int, entry: int) -> tuple[Fraction, Fraction]:
        """The least and the largest derivative with respect to one input."""
        values = [g[entry] for g in self.inner[row]]
        return min(values), max(values)

    @staticmethod
    def _largest(gradients: Iterable[Vector], norm: Norm) -> Fraction:
        return max(_measure(g, norm) for g in gradients)


def truth(problem: Problem, example: int = 0, limit: int = LIMIT) -> Truth:
    """The truth about one example of a problem with one kink per neuron, at the origin.

    Raises:
        TooLarge: it takes more than ``limit`` looks at vertices, for each polytope of :func:`domains`.
    """
    rows = [_vector(c) for c in problem.functionals[example]]
    inner, outer = domains(problem, example)

    def gradients(parts: Sequence[Polytope]) -> tuple[frozenset[Vector], ...]:
        matrices: set[Matrix] = set()
        for piece in parts:
            matrices.update(jacobians(problem.network, piece, limit))
        return tuple(frozenset(_combine(row, j) for j in matrices) for row in rows)

    inside = gradients(inner)
    return Truth(inside, inside if outer is inner or outer == inner else gradients(outer))


def jacobians(network: Network, domain: Polytope, limit: int = LIMIT) -> set[Matrix]:
    """The Jacobians (outputs of inputs) of all patterns whose closed region in the domain is not empty."""
    size = network.in_size
    return {tuple(f.weights[:size] for f in outputs) for outputs, _ in pieces(network, domain, limit)}


def least(network: Network, domain: Polytope, row: Sequence[float], limit: int = LIMIT) -> Fraction:
    """The smallest value of a functional of the outputs over the domain."""
    weights = tuple(map(Fraction, row))
    return min(
        _dot(weights, (f.at(point) for f in outputs))
        for outputs, part in pieces(network, domain, limit)
        for point in part.points
    )


def pieces(network: Network, domain: Polytope, limit: int = LIMIT) -> Iterator[tuple[list[Function], Polytope]]:
    """The outputs as affine functions, and the closed region where they are so, for every pattern in the domain."""
    affine = {k: node for k, node in enumerate(network.nodes) if isinstance(node, Affine)}
    tables = {k: [exact_matrix(m) for m in node.maps] for k, node in affine.items()}
    if domain.empty:
        return
    size, coordinates = network.in_size, len(next(iter(domain.points)))
    axes = [tuple(Fraction(int(i == j)) for j in range(coordinates)) for i in range(coordinates)]
    start = [Function(axis, Fraction(0)) for axis in axes[:size]]
    # What constants are multiplied with: 1, or the last coordinate of a cone.
    one = (
        Function(tuple(Fraction(0) for _ in axes), Fraction(1))
        if coordinates == size
        else Function(axes[-1], Fraction(0))
    )

    spent = 0

    def spend(vertices: int) -> None:
        nonlocal spent
        spent += vertices
        if spent > limit:
            raise TooLarge(f"More than {limit} looks at vertices: this oracle is for tiny networks.")

    def walk(k: int, values: list[list[Function]], domain: Polytope) -> Iterator[tuple[list[Function], Polytope]]:
        if k == len(network.nodes):
            yield values[-1], domain
            return
        node = network.nodes[k]
        if isinstance(node, Activate):
            for images, part in _sides(network, k, values[node.parent], domain, spend):
                if any(one.at(p) > 0 for p in part.points):
                    yield from walk(k + 1, [*values, images], part)
        else:
            assert isinstance(node, Affine)
            yield from walk(k + 1, [*values, _affine(node, tables[k], values, one)], domain)

    yield from walk(1, [start], domain)


def exact_matrix(linear: LinearMap) -> Matrix:
    """The matrix (outputs of inputs) of a map, as its stored weights say."""
    if isinstance(linear, Composed):
        inner = exact_matrix(linear.inner)
        return tuple(_combine(row, inner) for row in exact_matrix(linear.outer))
    if isinstance(linear, Transposed):
        return tuple(zip(*exact_matrix(linear.base), strict=True))
    return tuple(_vector(row) for row in linear.to(torch.device("cpu"), torch.float64).matrix())


def _sides(
    network: Network, k: int, values: list[Function], domain: Polytope, spend: Callable[[int], None]
) -> Iterator[tuple[list[Function], Polytope]]:
    """Every choice of sides of the neurons of one node that is left in the domain."""
    activation = network.activation(k)
    if not isinstance(activation, LeakyReLU):
        raise InvalidInput("Only networks with one kink per neuron, at the origin, have patterns.")
    alpha = torch.as_tensor(activation.alpha, dtype=torch.float64).expand(len(values))
    low = _vector(alpha)

    def extend(i: int, images: list[Function], domain: Polytope) -> Iterator[tuple[list[Function], Polytope]]:
        if i == len(values):
            yield images, domain
            return
        spend(len(domain.points))
        ends = [values[i].at(p) for p in domain.points]
        if max(ends) >= 0:
            side = domain.cut(values[i]) if min(ends) < 0 else domain
            yield from extend(i + 1, [*images, values[i]], side)
        if min(ends) <= 0:
            side = domain.cut(values[i].times(Fraction(-1))) if max(ends) > 0 else domain
            yield from extend(i + 1, [*images, values[i].times(low[i])], side)

    yield from extend(0, [], domain)


def _affine(
    node: Affine, tables: Sequence[Matrix], values: Sequence[Sequence[Function]], one: Function
) -> list[Function]:
    bias = [Fraction(0)] * node.size if node.bias is None else list(_vector(node.bias))
    result = []
    for i in range(node.size):
        weights, constant = [bias[i] * w for w in one.weights], bias[i] * one.constant
        for p, table in zip(node.parents, tables, strict=True):
            for factor, function in zip(table[i], values[p], strict=True):
                if factor:
                    constant += factor * function.constant
                    weights = [w + factor * v for w, v in zip(weights, function.weights, strict=True)]
        result.append(Function(tuple(weights), constant))
    return result


def _dot(a: Iterable[Fraction], b: Iterable[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def _combine(row: Vector, matrix: Matrix) -> Vector:
    """``row`` times ``matrix``."""
    total = [Fraction(0)] * len(matrix[0])
    for factor, line in zip(row, matrix, strict=True):
        if factor:
            total = [t + factor * v for t, v in zip(total, line, strict=True)]
    return tuple(total)


def _number(value: Tensor) -> Fraction:
    return Fraction(float(value))


def _vector(values: Tensor) -> Vector:
    return tuple(map(Fraction, values.detach().double().tolist()))


def _measure(gradient: Vector, norm: Norm) -> Fraction:
    """The dual norm of a gradient; its square for p = 2."""
    if norm is Norm.INF:
        return sum(map(abs, gradient), Fraction(0))
    if norm is Norm.ONE:
        return max(map(abs, gradient))
    return _dot(gradient, gradient)


def _power(value: float, norm: Norm) -> Fraction:
    return Fraction(value) ** (2 if norm is Norm.TWO else 1)


def _root(value: Fraction, norm: Norm) -> float:
    if norm is not Norm.TWO or value == 0:
        return _float(value)
    shift = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    scaled = value / Fraction(4) ** shift
    return _float(Fraction(math.sqrt(scaled)) * Fraction(2) ** shift)


def _float(value: Fraction) -> float:
    """The nearest float64; infinite where there is none."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
