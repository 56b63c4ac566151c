"""The forward pass in coordinates: inputs and activations' outputs, tied to the gates by equations of the same form.

Gates that know nothing of inputs take patterns that no input attains. Here the moving inputs ``x`` become coordinates
in [0, 1], and so does ``y = max(z, 0)`` of every undecided neuron. ``y (z - y) = 0`` is the gate equation again, with
``z`` in place of ``K``. A neuron's ``y`` and its gate's ``v`` take the same side, so ``y (K - v) = 0`` and ``(z - y) v
= 0``. Where ``K`` varies, a coordinate ``a`` in {0, 1} for the side itself makes ``v = a K`` and ``y = a z`` products
of coordinates (docs/quadratic-gates.md).
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from lipcompare.gates import Coupling
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward, linear_value
from lipcompare.quadratic.program import Coordinates, SdpData
from lipcompare.rounding import allowance, floor

INPUT = -3  # the "node" of a coordinate that is an input
SIDE = -4  # of one that is a gate's side
OUTPUT = -10  # less the activation node: of one that is an activation's output


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardMaps:
    """Inputs and outputs as coordinates ``t`` in [0, 1], and what each activation's output is bent from.

    Attributes:
        coordinates: names; inputs first, then outputs node by node. There is no constant among them.
        constant: (examples, m) constant part of ``z / u`` for each output ``y / u``, ``u`` the upper bound of ``z``.
        linear: (examples, m, m) coefficients of ``z / u`` in column i.
        least: (examples, m) lower bound of ``z / u``; 0 for inputs.
        error: (examples, m) bound on the rounding of ``z / u``.
        inputs: how many of the coordinates are inputs.
    """

    coordinates: Coordinates
    constant: Tensor
    linear: Tensor
    least: Tensor
    error: Tensor
    inputs: int


def moving_inputs(coupling: Coupling) -> int:
    """Inputs that any example's box lets move."""
    return int((coupling.box.upper > coupling.box.lower).any(0).sum())


def forward_maps(network: Network, coupling: Coupling) -> ForwardMaps:
    """Push inputs and outputs forward through a network whose activations have one kink, at the origin."""
    low, high = coupling.box
    width = high - low
    chosen = (width > 0).any(0).nonzero().squeeze(-1)
    linear = low.new_zeros(len(low), len(chosen), low.shape[1])
    linear[:, torch.arange(len(chosen), device=low.device), chosen] = width[:, chosen]
    start = _Value(constant=low, linear=linear, size=low.abs() + width, unit=2.0)
    walk = _Walk(coupling, [_moving(coupling, chosen)])
    fold_forward(network, {0: start}, walk.through_activation, _through_maps)
    return _assembled(walk.layers)


@dataclasses.dataclass(frozen=True, eq=False)
class _Value:
    """A node's value as an affine map of the coordinates met so far.

    Attributes:
        constant: (examples, size).
        linear: (examples, coordinates, size).
        size: (examples, size) sum of the absolute values of all terms, with what covers underflow before the last sum.
        unit: operations on the way to a coefficient, whose rounding is relative to ``size``.
    """

    constant: Tensor
    linear: Tensor
    size: Tensor
    unit: float

    @property
    def covered(self) -> Tensor:
        """``size`` with what covers underflow: once for the constant, once for every coordinate, each at most 1."""
        return self.size + floor(self.size.dtype) * (1 + self.linear.shape[1])


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    """The coordinates of one activation node or of the input, in the terms of :class:`ForwardMaps`.

    Attributes:
        node: what they are, ``INPUT`` or ``OUTPUT`` less the node.
        neuron, present: (examples, width).
        constant, least, error: (examples, width).
        linear: (examples, coordinates met before, width).
    """

    node: int
    neuron: Tensor
    present: Tensor
    constant: Tensor
    linear: Tensor
    least: Tensor
    error: Tensor

    @property
    def width(self) -> int:
        return int(self.neuron.shape[-1])


def _moving(coupling: Coupling, inputs: Tensor) -> _Layer:
    """The ``inputs`` (some,) that any example lets move, as coordinates."""
    low, high = coupling.box
    zero = low.new_zeros(len(low), len(inputs))
    return _Layer(
        node=INPUT,
        neuron=inputs.expand(len(low), -1),
        present=(high - low)[:, inputs] > 0,
        constant=zero,
        linear=low.new_zeros(len(low), 0, len(inputs)),
        least=zero,
        error=zero,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Walk:
    """The walk from the input to the output, which meets the activations layer by layer."""

    coupling: Coupling
    layers: list[_Layer]

    def through_activation(self, k: int, node: Activate, z: _Value) -> _Value:
        """Outputs of undecided neurons become coordinates of a new layer."""
        bounds = self.coupling.bounds[k]
        bent = (bounds.lower < 0) & (bounds.upper > 0)
        slopes = node.activation.slope_range(bounds)
        width = int(bent.sum(-1).max())
        index = torch.argsort((~bent).to(torch.uint8), dim=-1, stable=True)[:, :width]
        present = bent.gather(-1, index)
        top = torch.where(present, bounds.upper.gather(-1, index), 1.0)
        before = sum(layer.width for layer in self.layers)
        examples, met, size = z.linear.shape
        pushed = z.linear.gather(-1, index.unsqueeze(1).expand(-1, met, -1)) / top.unsqueeze(1) * present.unsqueeze(1)
        self.layers.append(
            _Layer(
                node=OUTPUT - k,
                neuron=index,
                present=present,
                constant=z.constant.gather(-1, index) / top * present,
                linear=_padded(pushed, before),
                least=bounds.lower.gather(-1, index) / top * present,
                error=allowance(z.unit + 4, top.dtype) * z.covered.gather(-1, index) / top * present,
            )
        )
        # Bent: the low slope passes z, and the rest of the way up is the output's coordinate. Where z ends at its kink,
        # the slope has a range but only one side counts.
        straight = torch.where(bounds.lower < 0, slopes.lower, slopes.upper)
        jump = (slopes.upper - slopes.lower).gather(-1, index) * top * present
        added = top.new_zeros(examples, width, size).scatter_(-1, index.unsqueeze(-1), jump.unsqueeze(-1))
        return _Value(
            constant=z.constant * straight,
            linear=torch.cat([_padded(z.linear * straight.unsqueeze(1), before), added], 1),
            size=z.size * straight.abs() + added.sum(1).abs(),
            unit=z.unit + 4,
        )


def _through_maps(k: int, node: Affine, terms: Terms[_Value]) -> _Value:
    """The value of an affine node."""
    total = linear_value([(m, z.constant) for m, z in terms])
    size = linear_value([(m.absolute, z.covered) for m, z in terms])
    met = max(z.linear.shape[1] for _, z in terms)
    return _Value(
        constant=total if node.bias is None else total + node.bias,
        linear=functools.reduce(operator.add, (_padded(m.forward(z.linear), met) for m, z in terms)),
        size=size if node.bias is None else size + node.bias.abs(),
        # A term's products and sums are as many as it has entries; then come the sums over terms, and the bias.
        unit=max(z.unit + m.fan_in for m, z in terms) + len(terms),
    )


def _padded(linear: Tensor, count: int) -> Tensor:
    """Maps (examples, coordinates, size) over ``count`` coordinates, of which those at the end are new."""
    return torch.nn.functional.pad(linear, (0, 0, 0, count - linear.shape[1]))


def _assembled(layers: Sequence[_Layer]) -> ForwardMaps:
    """All layers side by side."""
    count = sum(layer.width for layer in layers)
    return ForwardMaps(
        coordinates=Coordinates(
            node=torch.cat([torch.full_like(layer.neuron[0], layer.node) for layer in layers]),
            neuron=torch.cat([layer.neuron for layer in layers], 1),
            present=torch.cat([layer.present for layer in layers], 1),
        ),
        constant=torch.cat([layer.constant for layer in layers], 1),
        linear=torch.cat([_padded(layer.linear, count) for layer in layers], -1),
        least=torch.cat([layer.least for layer in layers], 1),
        error=torch.cat([layer.error for layer in layers], 1),
        inputs=layers[0].width,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """Problems with the forward pass in their coordinates.

    Attributes:
        data: coordinates of gates (and signs) first, then sides, inputs and outputs.
        side: (problems, gates) index of each gate's side, 0 where it has none (a constant ``K`` needs none).
        output: (problems, gates) index of the output of each gate's neuron, 0 where present is none.
        first: index of the first input; ``forward``'s coordinates follow in order.
        forward: the maps, one entry per problem.
    """

    data: SdpData
    side: Tensor
    output: Tensor
    first: int
    forward: ForwardMaps


def with_forward(data: SdpData, forward: ForwardMaps, gates: int, varying: Tensor, example: Tensor) -> Joined:
    """The same problems with sides, inputs and outputs as further coordinates.

    Args:
        gates: coordinates of ``data`` that are the constant and gates; signs may follow.
        varying: (examples, gates) those with a ``K`` that is not constant.
        example: (problems,) example of each problem.
    """
    n, device = data.size, data.columns.device
    sided = varying.any(0).nonzero().squeeze(-1)
    names, m = forward.coordinates, forward.coordinates.count
    extra, first = len(sided) + m, n + len(sided)
    pad = torch.nn.functional.pad
    columns = pad(data.columns, (0, extra, 0, extra))
    with_side = data.mask[:, sided] & varying[example][:, sided]
    exists = torch.cat([with_side, names.present[example]], 1)
    constant = torch.cat([torch.ones_like(data.limit[:, sided]), forward.constant[example]], 1) * exists
    columns[:, 0, n:] = -0.5 * constant
    columns[:, first:, first:] = -0.5 * forward.linear[example]
    columns.diagonal(dim1=-2, dim2=-1)[:, n:] = 0.5 * exists
    # An input has no equation: x (1 - x) >= 0 is an inequality, and a cut.
    columns[:, :, first : first + forward.inputs] = 0
    ones = exists.to(data.limit)
    old = data.coordinates
    coordinates = Coordinates(
        torch.cat([old.node, torch.full_like(sided, SIDE), names.node]),
        torch.cat([old.neuron[data.example], old.neuron[data.example][:, sided], names.neuron[example]], 1),
        torch.cat([old.present[data.example], exists], 1),
    )
    joined = dataclasses.replace(
        data,
        columns=columns,
        mask=torch.cat([data.mask, exists], 1),
        right=pad(data.right, (0, extra)),
        cost=pad(data.cost, (0, extra, 0, extra)),
        entries=pad(data.entries, (0, 0, 0, extra)),
        limit=torch.cat([data.limit, ones], 1),
        trace=data.trace + ones.sum(-1),
        radius=torch.cat([data.radius, ones], 1),
        gate_slack=torch.cat([pad(data.gate_slack, (0, len(sided))), forward.error[example]], 1),
        example=torch.arange(data.problems, device=device),
        coordinates=coordinates,
    ).without_cuts()
    side = torch.zeros(data.problems, gates, dtype=torch.int64, device=device)
    side[:, sided] = (n + torch.arange(len(sided), device=device)) * with_side
    of_problems = dataclasses.replace(
        forward,
        coordinates=Coordinates(names.node, names.neuron[example], names.present[example]),
        constant=forward.constant[example], linear=forward.linear[example], least=forward.least[example],
        error=forward.error[example],
    )  # fmt: skip
    return Joined(joined, side, _outputs(data, gates, names, example, first), first, of_problems)


def _outputs(data: SdpData, gates: int, names: Coordinates, example: Tensor, first: int) -> Tensor:
    """Index (problems, gates) of the coordinate that is the output of each gate's neuron, 0 where there is none."""
    old = data.coordinates
    kind = OUTPUT - old.node[:gates]
    same = (kind.unsqueeze(-1) == names.node).unsqueeze(0)  # (1, gates, m)
    neuron = old.neuron[data.example][:, :gates].unsqueeze(-1)
    same = same & (neuron == names.neuron[example].unsqueeze(1)) & names.present[example].unsqueeze(1)
    same = same & data.mask[:, :gates].unsqueeze(-1)
    index = first + torch.arange(same.shape[-1], device=same.device)
    return (same * index).sum(-1)  # one at most
