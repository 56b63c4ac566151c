"""Small networks of all kinds for tests, built from the graph's own classes so that no importer stands between."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.network import Activate, Activation, Affine, Input, LeakyReLU, Network, Node
from lipcompare.network.activations import smooth
from lipcompare.network.linear_maps import Composed, Conv, Dense, Identity, LinearMap, Scale, Select, Transposed
from lipcompare.preactivation import interval_bounds
from lipcompare.problem import Problem


class Builder:
    """Appends nodes and hands out weights from one seed."""

    def __init__(self, size: int, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.nodes: list[Node] = [Input(size)]
        self.shape = (size,)

    @property
    def last(self) -> int:
        return len(self.nodes) - 1

    def weights(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=self.random, dtype=torch.float64)

    def affine(self, *terms: tuple[int, LinearMap]) -> int:
        parents, maps = zip(*terms, strict=True)
        self.nodes.append(Affine(parents, maps, self.weights(maps[0].out_size, scale=0.3)))
        return self.last

    def dense(self, out: int) -> int:
        size = self.nodes[-1].size
        return self.affine((self.last, Dense(self.weights(out, size, scale=size**-0.5 * 1.4))))

    def activate(self, kind: Activation | float | Tensor = 0.0) -> int:
        """An activation; a number is the slope of a leaky ReLU."""
        activation = kind if isinstance(kind, Activation) else LeakyReLU(kind)
        self.nodes.append(Activate(self.last, activation, self.nodes[-1].size))
        return self.last

    def build(self, input_shape: tuple[int, ...] | None = None) -> Network:
        sizes = self.nodes[0].size, self.nodes[-1].size
        return Network(tuple(self.nodes), input_shape or (sizes[0],), (sizes[1],))


def dense(seed: int, sizes: tuple[int, ...] = (3, 5, 5, 2), alpha: Activation | float = 0.0) -> Network:
    """A multi-layer perceptron."""
    b = Builder(sizes[0], seed)
    for size in sizes[1:-1]:
        b.dense(size)
        b.activate(alpha)
    b.dense(sizes[-1])
    return b.build()


def conv(seed: int) -> Network:
    """Two strided, padded, grouped convolutions and a dense layer on a 2 x 4 x 4 image."""
    b = Builder(32, seed)
    b.affine((0, Conv(b.weights(2, 2, 3, 3, scale=0.4), (2, 4, 4), (2, 1), (1, 1), (1, 1))))
    b.activate()
    b.affine((b.last, Conv(b.weights(2, 1, 2, 2, scale=0.7), (2, 2, 4), (1, 2), (0, 0), (1, 1), groups=2)))
    b.activate()
    b.dense(2)
    return b.build((2, 4, 4))


def residual(seed: int) -> Network:
    """A residual block whose branches meet in a sum, and an output that also reads the input."""
    b = Builder(3, seed)
    b.dense(4)
    trunk = b.activate()
    b.dense(4)
    branch = b.activate()
    joined = b.affine((branch, Dense(b.weights(4, 4, scale=0.6))), (trunk, Identity(4)))
    b.activate(0.1)
    readers = ((b.last, 4, 0.6), (joined, 4, 0.3), (0, 3, 1.0))
    b.affine(*((node, Dense(b.weights(2, size, scale=scale))) for node, size, scale in readers))
    return b.build()


def pooling(seed: int) -> Network:
    """Average pooling, a pairwise maximum (``b + relu(a - b)``) and absolute values."""
    b = Builder(8, seed)
    b.dense(8)
    b.activate()
    pool = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
    pooled = b.affine((b.last, Conv(pool, (1, 8), (2,), (0,), (1,))))
    first, second = (Select(torch.tensor(i), 4) for i in ([0, 2], [1, 3]))
    b.affine((pooled, first), (pooled, scaled(second, -1.0)))
    rest = b.activate()
    b.affine((rest, Identity(2)), (pooled, second))
    b.activate(-1.0)
    b.dense(2)
    return b.build()


def scaled(inner: LinearMap, factor: float) -> LinearMap:
    """A map times a number."""
    return Composed(Scale(torch.full((inner.out_size,), factor, dtype=torch.float64)), inner)


def concatenation(seed: int) -> Network:
    """Two branches with different activations, concatenated."""
    b = Builder(3, seed)
    b.dense(3)
    left = b.activate()
    b.affine((0, Dense(b.weights(2, 3))))
    right = b.activate(torch.tensor([0.2, -0.5], dtype=torch.float64))
    spots = torch.arange(5)
    b.affine((left, Transposed(Select(spots[:3], 5))), (right, Transposed(Select(spots[3:], 5))))
    b.dense(4)
    b.activate()
    b.dense(2)
    return b.build()


def mixed(seed: int) -> Network:
    """A residual network in which a smooth, a kinked and a nearly smooth activation meet."""
    b = Builder(3, seed)
    b.dense(4)
    trunk = b.activate(smooth.hardswish())
    b.dense(4)
    branch = b.activate()
    b.affine((branch, Dense(b.weights(4, 4, scale=0.6))), (trunk, Identity(4)))
    b.activate(smooth.elu(0.5))
    b.affine((b.last, Dense(b.weights(2, 4, scale=0.6))), (0, Dense(b.weights(2, 3))))
    return b.build()


def kinked() -> Network:
    """``relu(x) - relu(-x)``: the identity, but with Clarke slope 2 at 0."""
    one = torch.ones(1, 1, dtype=torch.float64)
    both = Affine((0,), (Dense(torch.cat([one, -one])),), None)
    out = Affine((2,), (Dense(torch.cat([one, -one], dim=1)),), None)
    return Network((Input(1), both, Activate(1, LeakyReLU(0.0), 2), out), (1,), (1,))


FAMILIES: dict[str, Callable[[int], Network]] = {
    "dense": dense,
    "leaky": lambda seed: dense(seed, alpha=0.2),
    "conv": conv,
    "residual": residual,
    "pooling": pooling,
    "concatenation": concatenation,
    "sigmoid": lambda seed: dense(seed, alpha=smooth.sigmoid()),
    "gelu": lambda seed: dense(seed, alpha=smooth.gelu()),
    "mixed": mixed,
}


def problem(network: Network, eps: float, seed: int = 0, batch: int = 1, norm: str = "inf") -> Problem:
    """A batch of balls around random centres."""
    random = torch.Generator().manual_seed(seed)
    centers = torch.rand(batch, network.in_size, generator=random, dtype=torch.float64)
    return Problem.around(network, centers, eps, norm=norm)


def sampled_norms(problem: Problem, samples: int = 300, seed: int = 1) -> Tensor:
    """Largest gradient norm (batch, rows) over random points and corners, by autograd rather than by our chain rule.

    They are on the processor, wherever the problem is.
    """
    random = torch.Generator().manual_seed(seed)
    unit = torch.rand(samples, problem.network.in_size, generator=random, dtype=torch.float64)
    unit[: samples // 3] = unit[: samples // 3].round()
    lower, upper = problem.box.interval
    best = torch.zeros(problem.batch, problem.rows, dtype=torch.float64)
    for b in range(problem.batch):
        x = (lower[b] + unit.to(lower.device) * (upper[b] - lower[b])).requires_grad_()
        with torch.enable_grad():
            values = problem.network.forward(x) @ problem.functionals[b].T
            for row in range(problem.rows):
                (gradient,) = torch.autograd.grad(values[:, row].sum(), x, retain_graph=True)
                best[b, row] = problem.norm.dual.of(gradient).max()
    return best


def free_gate_maximum(problem: Problem) -> Tensor:
    """Largest norm (batch, rows) over all patterns of the gates that interval arithmetic leaves open, feasible or not.

    By enumeration: an upper bound on the truth that every relaxation of the gates must reach or exceed.
    """
    network = problem.network
    best = torch.zeros(problem.batch, problem.rows, dtype=torch.float64, device=problem.device)
    gates = Gates.from_preactivations(network, interval_bounds(network, problem.box.interval))
    for b in range(problem.batch):
        one = gates.example(b)
        open_ = [(k, i) for k in network.activations for i in one.unstable(k)[0].nonzero().squeeze(-1).tolist()]
        count = 2 ** len(open_)
        assert count <= 2**16, "too many open gates to enumerate"
        slopes = {k: one.slopes[k].lower.expand(count, -1).clone() for k in network.activations}
        numbers = torch.arange(count, device=problem.device)
        for bit, (k, i) in enumerate(open_):
            high = ((numbers >> bit) & 1).bool()
            slopes[k][:, i] = torch.where(high, one.slopes[k].upper[0, i], one.slopes[k].lower[0, i])
        for row in range(problem.rows):
            functional = problem.functionals[b, row].expand(count, -1)
            best[b, row] = problem.norm.dual.of(network.pull_back(slopes, functional)).max()
    assert math.isfinite(float(best.sum()))
    return best
