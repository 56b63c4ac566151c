"""Batches of cases that can be made again, and what runs on each."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.differential.questions import QUESTIONS
from lipcompare import METHODS, Network, Problem
from lipcompare.network.activations import smooth
from lipcompare.network.from_torch import from_module
from lipcompare.network.graph import Activate, Affine, Node
from lipcompare.network.linear_maps import Dense
from lipcompare.testing import hostile

BOXES = 32
"""Domains of one network."""
LINEAR: tuple[tuple[str, dict[str, Any]], ...] = (
    ("naive", {}),
    ("ibp", {}),
    ("recurjac", {}),
    ("lbp", {}),
    ("lbp", {"tightening": "interval"}),
    ("lbp", {"tightening": "crown"}),
    ("lbp", {"relaxation": "middle"}),
)
"""What runs on the whole batch: the first two always, and two of the others."""
COSTLY: tuple[tuple[str, dict[str, Any]], ...] = (
    *((m, {}) for m in sorted(METHODS) if m not in ("naive", "ibp", "recurjac", "lbp")),
    *((m, {"solver": s}) for m in ("lp", "milp") for s in ("pulp", "cvxpy:CLARABEL", "cvxpy:HIGHS")),
    ("bab", {"bound": "lbp"}),
    ("sdp", {"cuts": 20}),
    ("milp", {"rows": "maximum"}),
)
"""Two of these run, on the example that the troubles were made for and on any one."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """A batch of cases that can be made again.

    Attributes:
        kind: a family of tiny problems, or of ordinary networks.
        seed: of the network, its domains and what else is drawn.
        norm, dtype: by name.
        boxes: domains, each of which is a case.
        chosen: what runs, by name and separated by commas; what is drawn if empty.
        device: where it runs.
    """

    kind: str
    seed: int
    norm: str
    dtype: str
    boxes: int = BOXES
    chosen: str = ""
    device: str = "cpu"

    @property
    def tiny(self) -> bool:
        """Whether the truth is known in rational arithmetic."""
        return self.kind in hostile.FAMILIES

    @property
    def random(self) -> random.Random:
        """What chooses the methods: the same for the same batch."""
        return random.Random(f"{self.kind} {self.seed}")  # noqa: S311  # no secret

    def problem(self) -> Problem:
        made = self._made()
        return dataclasses.replace(made, box=made.box.to(self.device, made.dtype))

    def _made(self) -> Problem:
        dtype: torch.dtype = getattr(torch, self.dtype)
        if self.kind in SMOOTH:
            made = hostile.problem(SMOOTH[self.kind], self.seed, self.norm, dtype, self.boxes)
            return Problem(_smoothed(made.network, self.seed), made.box, made.norm)
        if self.tiny:
            return hostile.problem(self.kind, self.seed, self.norm, dtype, self.boxes)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = NETWORKS[self.kind]()
        if self.seed % 2 and self.kind in EXTREME:
            network = _stretched(network, generator)
        center = torch.rand(self.boxes, network.in_size, generator=generator, dtype=torch.float64)
        radius = 10 ** (-3 * torch.rand(self.boxes, 1, generator=generator, dtype=torch.float64))
        ball = ("inf", "inf", "inf", "1", "2")[int(torch.randint(5, (), generator=generator))]
        size = radius.expand_as(center) if ball == "inf" else radius.squeeze(1)
        return Problem.around(network, center, size, norm=self.norm, ball=ball, dtype=dtype)

    def runs(self) -> Iterator[tuple[str, dict[str, Any], range]]:
        """Methods with their options and the examples that they run on."""
        draw = self.random
        names = self.chosen.split(",") if self.chosen else []
        linear = [run for run in LINEAR if named(*run) in names]
        costly = [run for run in COSTLY if named(*run) in names]
        if not names:
            linear, costly = [*LINEAR[:2], *draw.sample(LINEAR[2:], 2)], draw.sample(COSTLY, 2)
        for method, options in linear:
            yield method, options, range(self.boxes)
        for number, (method, options) in enumerate(costly):
            first = draw.randrange(self.boxes) if number % 2 else 0
            yield method, options, range(first, first + 1)

    def questions(self) -> list[str]:
        if self.chosen:
            return [name for name in self.chosen.split(",") if name in QUESTIONS]
        return self.random.sample(sorted(QUESTIONS), 1)


ACTIVATIONS = ("sigmoid", "tanh", "softplus", "elu", "silu", "gelu", "softsign", "arctan", "erf")
"""Those whose derivatives are known to many digits, but for two that leave every range of numbers."""


def _smoothed(network: Network, seed: int) -> Network:
    """The same network with one smooth activation, or two that alternate."""
    makers = [smooth.TABLE[ACTIVATIONS[(seed // 3 + number * (seed % 2)) % len(ACTIVATIONS)]] for number in range(2)]
    nodes = [
        dataclasses.replace(node, activation=makers[k % 2]()) if isinstance(node, Activate) else node
        for k, node in enumerate(network.nodes)
    ]
    return Network(tuple(nodes), network.input_shape, network.output_shape)


def _stretched(network: Network, generator: torch.Generator) -> Network:
    """The same network with biases, and what dense layers multiply with, of other sizes."""
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Affine) and all(isinstance(m, Dense) for m in node.maps):
            factor = float(10 ** (20 * torch.rand((), generator=generator, dtype=torch.float64) - 10))
            maps = tuple(Dense(factor * m.matrix()) for m in node.maps)
            scaled = None if node.bias is None else factor * node.bias
            nodes.append(dataclasses.replace(node, maps=maps, bias=scaled))
        else:
            nodes.append(node)
    return Network(tuple(nodes), network.input_shape, network.output_shape)


def named(method: str, options: dict[str, Any]) -> str:
    """A method with its options, as counts and ``--runs`` call it."""
    return " ".join([method, *(str(v) for v in options.values())])


class Residual(nn.Module):
    """Two layers beside the identity."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Sorted(nn.Module):
    """GroupSort of pairs."""

    def forward(self, x: Tensor) -> Tensor:
        pairs: Tensor = x.unflatten(-1, (-1, 2)).sort(-1).values
        return pairs.flatten(-2)


def _imported(shape: tuple[int, ...], *layers: nn.Module) -> Network:
    return from_module(nn.Sequential(*layers).double(), input_shape=shape)


NETWORKS: dict[str, Callable[[], Network]] = {
    "dense": lambda: _imported((4,), nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)),
    "leaky": lambda: _imported((3,), nn.Linear(3, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)),
    "residual": lambda: _imported((3,), nn.Linear(3, 4), Residual(4), nn.Linear(4, 2)),
    "convolutional": lambda: _imported(
        (1, 4, 4), nn.Conv2d(1, 2, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(2, 2, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(2, 2),
    ),
    "larger convolutional": lambda: _imported(
        (1, 5, 5), nn.Conv2d(1, 3, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(27, 8), nn.ReLU(), nn.Linear(8, 3),
    ),
    "larger dense": lambda: _imported(
        (6,), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    ),
    "pooling": lambda: _imported(
        (1, 4, 4), nn.Conv2d(1, 1, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 2)
    ),
    "smooth": lambda: _imported((3,), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 2)),
    "gelu": lambda: _imported((3,), nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 2)),
    "softmax": lambda: _imported((3,), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(-1)),
    "log-softmax": lambda: _imported((2,), nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(-1)),
    "max pooling": lambda: _imported((2,), nn.Linear(2, 6), nn.Unflatten(1, (1, 6)), nn.MaxPool1d(2), nn.Flatten(),
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
    "sorting": lambda: _imported((2,), nn.Linear(2, 4), Sorted(), nn.Linear(4, 4), Sorted(), nn.Linear(4, 2)),
    "elu": lambda: _imported((3,), nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 2)),
}  # fmt: skip
SMOOTH = {
    f"smooth, {family}": family
    for family in (
        "plain", "cancelling gradients", "cancelling terms", "large biases", "scales", "balls", "far from the origin",
        "extreme scales",
    )
}  # fmt: skip
"""Families of tiny problems, with smooth activations in place of those with kinks."""
EXTREME = ("dense", "leaky", "softmax", "log-softmax", "max pooling", "sorting", "smooth", "gelu", "elu")
"""Ordinary networks every second of which has layers of extreme sizes."""


KINDS = (*hostile.FAMILIES, *NETWORKS, *SMOOTH)
"""Everything that problems are made of."""


def specs(seed: int, boxes: int, chosen: str, device: str, kinds: Sequence[str] = KINDS) -> Iterator[Spec]:
    """Batches without end: every kind in turn, half of them in float32."""
    for number in itertools.count(seed):
        for place, kind in enumerate(kinds):
            norm = ("inf", "2", "1")[(number + place) % 3]
            dtype = ("float32", "float64")[(number // 3 + place) % 2]
            yield Spec(kind, number, norm, dtype, 1 if kind == "everywhere" else boxes, chosen, device)
