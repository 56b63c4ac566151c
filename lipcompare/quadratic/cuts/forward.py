"""The forward pass in coordinates: inputs and activations' outputs, tied to the gates by equations of the same form.

Gates that know nothing of inputs take patterns that no input attains. Here the moving inputs ``x`` become coordinates
in [0, 1], and so does ``y = max(z, 0)`` of every undecided neuron. ``y (z - y) = 0`` is the gate equation again, with
``z`` in place of ``K``. A neuron's ``y`` and its gate's ``v`` take the same side, so ``y (K - v) = 0`` and ``(z - y) v
= 0``. Where ``K`` varies, a coordinate ``a`` in {0, 1} for the side itself makes ``v = a K`` and ``y = a z`` products
of coordinates (docs/quadratic-gates.md).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.gates import Coupling
from lipcompare.network.graph import Activate, Affine, Network
from lipcompare.quadratic.program import Coordinates, SdpData

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
    examples, device = len(low), low.device
    chosen = (width > 0).any(0).nonzero().squeeze(-1)
    inputs = len(chosen)
    linear = low.new_zeros(examples, inputs, low.shape[1])
    linear[:, torch.arange(inputs, device=device), chosen] = width[:, chosen]
    constants, linears = {0: low}, {0: linear}  # (examples, size), (examples, coordinates so far, size)
    sizes, units = {0: low.abs() + width}, {0: 2.0}  # sum of absolute values, relative rounding of a coefficient
    node = [torch.full((inputs,), INPUT, device=device)]
    neuron, present = [chosen.expand(examples, -1)], [width[:, chosen] > 0]
    constant = [low.new_zeros(examples, inputs)]
    columns = [low.new_zeros(examples, 0, inputs)]
    least, error = [low.new_zeros(examples, inputs)], [low.new_zeros(examples, inputs)]
    roundoff = torch.finfo(low.dtype).eps / 2
    for k, item in enumerate(network.nodes):
        if isinstance(item, Affine):
            terms = list(item.terms)
            bias = low.new_zeros(item.size) if item.bias is None else item.bias
            total = torch.stack([m.forward(constants[p]) for p, m in terms]).sum(0)
            pushed = low.new_zeros(examples, max(linears[p].shape[1] for p, _ in terms), item.size)
            for p, m in terms:
                pushed[:, : linears[p].shape[1]] += m.forward(linears[p])
            constants[k], linears[k] = total + bias, pushed
            sizes[k] = torch.stack([m.absolute.forward(sizes[p]) for p, m in terms]).sum(0) + bias.abs()
            units[k] = max(units[p] + 2 * m.fan_in for p, m in terms) + len(terms) + 1
        elif isinstance(item, Activate):
            z, (below, above) = item.parent, coupling.bounds[k]
            bent = (below < 0) & (above > 0)
            slopes = item.activation.slope_range(coupling.bounds[k])
            width_here = int(bent.sum(-1).max())
            index = torch.argsort((~bent).to(torch.uint8), dim=-1, stable=True)[:, :width_here]
            there = bent.gather(-1, index)
            top = torch.where(there, above.gather(-1, index), 1.0)
            before = sum(len(part) for part in node)
            z_linear = linears[z].gather(-1, index.unsqueeze(1).expand(-1, linears[z].shape[1], -1))
            column = low.new_zeros(examples, before, width_here)
            column[:, : z_linear.shape[1]] = z_linear
            node.append(torch.full((width_here,), OUTPUT - k, device=device))
            neuron.append(index)
            present.append(there)
            constant.append(constants[z].gather(-1, index) / top * there)
            columns.append(column / top.unsqueeze(1) * there.unsqueeze(1))
            least.append(below.gather(-1, index) / top * there)
            error.append((units[z] + 4) * roundoff * sizes[z].gather(-1, index) / top * there)
            # Bent: the low slope passes z, and the rest of the way up is the output's coordinate.
            straight = slopes.lower
            jump = (slopes.upper - slopes.lower).gather(-1, index) * top * there
            added = low.new_zeros(examples, width_here, item.size).scatter_(-1, index.unsqueeze(-1), jump.unsqueeze(-1))
            kept = low.new_zeros(examples, before, item.size)
            kept[:, : linears[z].shape[1]] = linears[z] * straight.unsqueeze(1)
            constants[k] = constants[z] * straight
            linears[k] = torch.cat([kept, added], 1)
            sizes[k] = sizes[z] * straight.abs() + added.sum(1).abs()
            units[k] = units[z] + 4
    count = sum(len(part) for part in node)
    padded = [torch.cat([c, low.new_zeros(examples, count - c.shape[1], c.shape[2])], 1) for c in columns]
    names = Coordinates(torch.cat(node), torch.cat(neuron, 1), torch.cat(present, 1))
    return ForwardMaps(
        names, torch.cat(constant, 1), torch.cat(padded, -1), torch.cat(least, 1), torch.cat(error, 1), inputs
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """Problems with the forward pass in their coordinates.

    Attributes:
        data: coordinates of gates (and signs) first, then sides, inputs and outputs.
        side: (problems, gates) index of each gate's side, 0 where it has none (a constant ``K`` needs none).
        output: (problems, gates) index of the output of each gate's neuron, 0 where there is none.
        first: index of the first input; ``forward``'s coordinates follow in order.
        forward: the maps, one entry per problem.
    """

    data: SdpData
    side: Tensor
    output: Tensor
    first: int
    forward: ForwardMaps


def with_forward(data: SdpData, forward: ForwardMaps, gates: int, varying: Tensor, place: Tensor) -> Joined:
    """The same problems with sides, inputs and outputs as further coordinates.

    Args:
        gates: coordinates of ``data`` that are the constant and gates; signs may follow.
        varying: (examples, gates) those with a ``K`` that is not constant.
        place: (problems,) example of each problem.
    """
    n, device = data.size, data.columns.device
    sided = varying.any(0).nonzero().squeeze(-1)
    names, m = forward.coordinates, forward.coordinates.count
    extra, first = len(sided) + m, n + len(sided)
    pad = torch.nn.functional.pad
    columns = pad(data.columns, (0, extra, 0, extra))
    with_side = data.mask[:, sided] & varying[place][:, sided]
    exists = torch.cat([with_side, names.present[place]], 1)
    constant = torch.cat([torch.ones_like(data.limit[:, sided]), forward.constant[place]], 1) * exists
    columns[:, 0, n:] = -0.5 * constant
    columns[:, first:, first:] = -0.5 * forward.linear[place]
    columns.diagonal(dim1=-2, dim2=-1)[:, n:] = 0.5 * exists
    # An input has no equation: x (1 - x) >= 0 is an inequality, and a cut.
    columns[:, :, first : first + forward.inputs] = 0
    ones = exists.to(data.limit)
    old = data.coordinates
    coordinates = Coordinates(
        torch.cat([old.node, torch.full_like(sided, SIDE), names.node]),
        torch.cat([old.neuron[data.example], old.neuron[data.example][:, sided], names.neuron[place]], 1),
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
        gate_slack=torch.cat([pad(data.gate_slack, (0, len(sided))), forward.error[place]], 1),
        example=torch.arange(data.problems, device=device),
        coordinates=coordinates,
    ).without_cuts()
    side = torch.zeros(data.problems, gates, dtype=torch.int64, device=device)
    side[:, sided] = (n + torch.arange(len(sided), device=device)) * with_side
    of_problems = dataclasses.replace(
        forward,
        coordinates=Coordinates(names.node, names.neuron[place], names.present[place]),
        constant=forward.constant[place], linear=forward.linear[place], least=forward.least[place],
        error=forward.error[place],
    )  # fmt: skip
    return Joined(joined, side, _outputs(data, gates, names, place, first), first, of_problems)


def _outputs(data: SdpData, gates: int, names: Coordinates, place: Tensor, first: int) -> Tensor:
    """Index (problems, gates) of the coordinate that is the output of each gate's neuron, 0 where there is none."""
    old = data.coordinates
    kind = OUTPUT - old.node[:gates]
    same = (kind.unsqueeze(-1) == names.node).unsqueeze(0)  # (1, gates, m)
    neuron = old.neuron[data.example][:, :gates].unsqueeze(-1)
    same = same & (neuron == names.neuron[place].unsqueeze(1)) & names.present[place].unsqueeze(1)
    same = same & data.mask[:, :gates].unsqueeze(-1)
    found = same.any(-1)
    return torch.where(found, same.to(torch.uint8).argmax(-1) + first, 0)
