"""Tiny problems on which floating point goes wrong, for the exact oracle (:mod:`lipcompare.testing.exact`).

Each family puts one trouble into a random network: terms of a gradient or of a pre-activation that cancel, large
biases, kinks at or next to the domain's sides and centre, extreme scales, neurons that repeat or never act, sides
without width, small domains far from the origin, balls, a slope for each neuron (of 1 too, which is no kink, and of
more), the whole space, numbers near the ends of their range.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.domain import Box, Norm, NormBall, Space
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate, Affine, Input, Network, Node
from lipcompare.network.linear_maps import Dense, Scale
from lipcompare.problem import Problem


@dataclasses.dataclass
class Draft:
    """A network and a domain while troubles are put in, in float64.

    Attributes:
        weights, biases: one (outputs, inputs) and one (outputs,) per layer.
        alphas: slopes of the activations' low sides, one (neurons,) per layer but the last.
        skip: (outputs, inputs) weights of a path around all layers, or None.
        center, radius: (inputs,) of the domain.
        ball: the norm of the domain's ball.
        everywhere: the domain is the whole space instead.
        dtype: of the problem that it becomes.
    """

    random: torch.Generator
    weights: list[Tensor]
    biases: list[Tensor]
    alphas: list[Tensor]
    skip: Tensor | None
    center: Tensor
    radius: Tensor
    ball: Norm = Norm.INF
    everywhere: bool = False
    dtype: torch.dtype = torch.float64

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.random, dtype=torch.float64))

    def integer(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.random))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random, dtype=torch.float64)

    def power(self, low: float, high: float) -> float:
        """A power of ten with a random exponent."""
        return float(10 ** self.uniform(low, high))

    @classmethod
    def of(cls, seed: int) -> Draft:
        """A random network of one to three inputs and at most nine neurons, and a box."""
        random = torch.Generator().manual_seed(seed)

        def pick(below: int) -> int:
            return int(torch.randint(below, (), generator=random))

        def make(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        inputs, layers = 1 + pick(3), 1 + pick(3)
        widths = [2 + pick(3 if layers < 3 else 2) for _ in range(layers)]
        sizes = [inputs, *widths, 1 + pick(2)]
        weights = [make(b, a) for a, b in itertools.pairwise(sizes)]
        biases = [0.5 * make(b) for b in sizes[1:]]
        alpha = (0.0, 0.0, 0.1, -1.0)[pick(4)]
        alphas = [torch.full((n,), alpha, dtype=torch.float64) for n in widths]
        skip = make(sizes[-1], inputs) if pick(4) == 0 else None
        center, radius = make(inputs), make(inputs).abs()
        return cls(random, weights=weights, biases=biases, alphas=alphas, skip=skip, center=center, radius=radius)

    def value(self, layer: int) -> Tensor:
        """Pre-activations of one layer at the centre."""
        value = self.center
        for k in range(layer + 1):
            value = self.weights[k] @ value + self.biases[k]
            if k < layer:
                value = torch.where(value > 0, value, self.alphas[k] * value)
        return value

    def domains(self, count: int) -> tuple[Tensor, Tensor]:
        """Centres and radii (count, inputs): the domain itself, then ones that share its centre, a side or a corner
        with it (where troubles were put), smaller or larger, some with sides without width."""
        size = len(self.center)
        sides = torch.randint(-1, 2, (count, size), generator=self.random).double()
        share = 10 ** (torch.rand(count, 1, generator=self.random, dtype=torch.float64) * 7 - 6)
        flat = torch.randint(6, (count, size), generator=self.random) == 0
        sides[0], share[0], flat[0] = 0.0, 1.0, False
        radius = torch.where(flat, 0.0, share * self.radius)
        return self.center + sides * (self.radius - radius), radius

    def network(self) -> Network:
        nodes: list[Node] = [Input(self.weights[0].shape[1])]
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            last = k == len(self.weights) - 1
            if last and self.skip is not None:
                nodes.append(Affine((len(nodes) - 1, 0), (Dense(weight), Dense(self.skip)), bias))
            else:
                nodes.append(Affine((len(nodes) - 1,), (Dense(weight),), bias))
            if not last:
                nodes += _activation(len(nodes) - 1, self.alphas[k])
        return Network(tuple(nodes), (nodes[0].size,), (nodes[-1].size,))

    def problem(self, norm: Norm, dtype: torch.dtype, boxes: int = 1) -> Problem:
        network = self.network()
        if self.everywhere:
            return Problem(network, Space.of(network.in_size, dtype=dtype), norm)
        center, radius = (v.to(dtype) for v in self.domains(boxes))
        if self.ball is Norm.INF:
            return Problem(network, Box(center - radius, center + radius), norm)
        return Problem(network, NormBall.around(center, radius.amax(1), self.ball), norm)


def _activation(last: int, alpha: Tensor) -> list[Node]:
    """Nodes of ``z`` where it is positive and ``alpha z`` elsewhere, of node ``last``."""
    size = len(alpha)
    if bool((alpha == alpha[0]).all()) and alpha[0] <= 1:
        return [Activate(last, LeakyReLU(float(alpha[0])), size)]
    if bool((alpha <= 1).all()):
        return [Activate(last, LeakyReLU(alpha), size)]
    # Where the slope is above 1 the neuron is concave: alpha z + (1 - alpha) relu(z), as importers make of it.
    steep = alpha > 1
    bent = Activate(last, LeakyReLU(torch.where(steep, 0.0, alpha)), size)
    straight, kept = torch.where(steep, alpha, 0.0), torch.where(steep, 1 - alpha, 1.0)
    return [bent, Affine((last + 1, last), (Scale(kept), Scale(straight)), None)]


def _cancelling_gradients(d: Draft) -> None:
    """Two neurons of one layer are almost the same, and the next layer subtracts them."""
    layer = d.integer(len(d.weights) - 1)
    share = d.power(-15, -2)
    d.weights[layer][1], d.biases[layer][1] = d.weights[layer][0], d.biases[layer][0]
    d.weights[layer + 1][:, 1] = -(1 + share) * d.weights[layer + 1][:, 0]
    d.weights[layer + 1][:, 2:] *= share


def _cancelling_terms(d: Draft) -> None:
    """Many active neurons whose terms of the gradient cancel."""
    if d.integer(2):
        d.biases[0] = d.biases[0].abs() + 10 * (d.weights[0].abs() @ (d.center.abs() + d.radius))
    weight = d.weights[-1]
    weight[:, -1] = -weight[:, :-1].sum(1) + d.power(-15, -2)
    d.weights[-2][:] = d.weights[-2][:1] * (1 + d.power(-15, -2) * d.normal(*d.weights[-2].shape))


def _cancelling_preactivations(d: Draft) -> None:
    """Large biases that the next layer takes back."""
    layer = d.integer(len(d.weights) - 1)
    large = d.power(2, 15)
    d.biases[layer] = large * (0.5 + torch.rand(d.biases[layer].shape, generator=d.random, dtype=torch.float64))
    kept = d.biases[layer + 1].clone()
    d.biases[layer + 1] = torch.zeros_like(kept)
    d.biases[layer + 1] = kept - d.value(layer + 1) + d.power(-3, 1) * d.normal(*kept.shape)


def _large_biases(d: Draft) -> None:
    for bias in d.biases:
        bias[d.integer(len(bias))] = d.power(0, 15) * (1 - 2 * d.integer(2))


def _kinks(d: Draft) -> None:
    """Kinks at or beside the domain's sides, corners and centre."""
    for layer in range(len(d.weights) - 1):
        for neuron in range(len(d.biases[layer])):
            sides = torch.randint(-1, 2, d.center.shape, generator=d.random)
            kept, d.center = d.center, d.center + sides * d.radius
            distance = 0.0 if d.integer(3) == 0 else d.power(-17, -9) * (1 - 2 * d.integer(2))
            d.biases[layer][neuron] -= d.value(layer)[neuron]
            d.biases[layer][neuron] += distance
            d.center = kept


def _scales(d: Draft) -> None:
    """Layers of extreme size, that make up for each other or not."""
    for layer in range(len(d.weights)):
        factor = d.power(-30, 30)
        d.weights[layer] *= factor
        if d.integer(2):
            d.biases[layer] *= factor
        if layer + 1 < len(d.weights) and d.integer(2):
            d.weights[layer + 1] /= factor


def _small_scales(d: Draft) -> None:
    factor = d.power(-30, -10)
    for layer in range(len(d.weights)):
        d.weights[layer] *= factor
        d.biases[layer] *= factor


def _repeated(d: Draft) -> None:
    """Neurons that repeat, also with the other sign, and neurons that are always at their kink or never act."""
    for layer in range(len(d.weights) - 1):
        size = len(d.biases[layer])
        a, b = d.integer(size), d.integer(size)
        sign = 1 - 2 * d.integer(2)
        d.weights[layer][a], d.biases[layer][a] = sign * d.weights[layer][b], sign * d.biases[layer][b]
        dead = d.integer(size)
        kind = d.integer(3)
        if kind < 2:
            d.weights[layer][dead] = 0.0
            d.biases[layer][dead] = 0.0 if kind else -1.0


def _no_width(d: Draft) -> None:
    d.radius[d.integer(len(d.radius))] = 0.0


def _far(d: Draft) -> None:
    """A small domain far from the origin."""
    d.center *= d.power(0, 6)
    d.radius *= d.power(-12, -1)


def _ball(d: Draft) -> None:
    d.ball = (Norm.ONE, Norm.TWO)[d.integer(2)]
    d.radius *= d.power(-6, 0)


def _slopes(d: Draft) -> None:
    """Slopes of their own for all neurons, many of them next to 0 and 1 or beyond."""
    for alpha in d.alphas:
        for i in range(len(alpha)):
            near = d.power(-17, -6) * (1 - 2 * d.integer(2))
            alpha[i] = (0.0, 1.0, 1.0, near, 1 + near, d.uniform(-2, 1), d.uniform(1, 3), 1e3)[d.integer(8)]


def _extreme_scales(d: Draft) -> None:
    """Weights, biases and domains near the ends of what floating point holds."""
    least, most = (-44, 36) if d.dtype is torch.float32 or d.integer(2) else (-320, 300)

    def scaled(values: Tensor) -> Tensor:
        exponent = d.uniform(least, most)
        # In two steps: a power may be out of range where the product is not.
        return (values * 10 ** (exponent / 2) * 10 ** (exponent / 2)).clamp(-(10.0**most), 10.0**most)

    for layer in range(len(d.weights)):
        if d.integer(3):
            d.weights[layer] = scaled(d.weights[layer])
        if d.integer(2):
            d.biases[layer] = scaled(d.biases[layer])
    if not d.integer(3):
        d.radius = scaled(d.radius)


def _everywhere(d: Draft) -> None:
    (lambda d: None, _slopes, _repeated, _kinks, _cancelling_preactivations)[d.integer(5)](d)
    d.everywhere = True


_FIRST: dict[str, Callable[[Draft], None]] = {
    "plain": lambda d: None,
    "cancelling gradients": _cancelling_gradients,
    "cancelling terms": _cancelling_terms,
    "cancelling pre-activations": _cancelling_preactivations,
    "large biases": _large_biases,
    "kinks": _kinks,
    "scales": _scales,
    "small scales": _small_scales,
    "repeated neurons": _repeated,
    "sides without width": _no_width,
    "far from the origin": _far,
    "balls": _ball,
}
FAMILIES: dict[str, Callable[[Draft], None]] = {
    **_FIRST,
    "slopes": _slopes,
    "everywhere": _everywhere,
    "extreme scales": _extreme_scales,
}
"""Later families never are a second trouble: the problems that seeds stand for, in tests and findings, stay."""


def problem(family: str, seed: int, norm: Norm | str, dtype: torch.dtype, boxes: int = 1) -> Problem:
    """A problem of one family on a batch of domains (of one, if that is the whole space), the first of which does not
    depend on how many there are; every third one has a second trouble, whichever the seed says."""
    draft = Draft.of(seed)
    draft.dtype = dtype
    if seed % 3 == 0:
        names = sorted(_FIRST)
        _FIRST[names[draft.integer(len(names))]](draft)
    FAMILIES[family](draft)
    return draft.problem(Norm.parse(norm), dtype, boxes)
