"""The transposed Jacobian as a network of its own: ``J(x)^T = A_1^T D_1 A_2^T ... A_n^T`` has the same gates.

Everything that bounds rows of a Jacobian from gates alone then also bounds its columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lipcompare.network.graph import Activate, Affine, Input, Network, Node
from lipcompare.network.linear_maps import Identity, LinearMap, Select, Transposed


class Transpose(NamedTuple):
    """A network whose Jacobian under given slopes is the transpose of another one's under the same slopes.

    Its values mean nothing, and its activations are those of the other network.

    Attributes:
        network: inputs and outputs exchanged, no biases.
        gates: for every activation node of the other network the node here that has its slopes.
    """

    network: Network
    gates: dict[int, int]


def transpose(network: Network) -> Transpose:
    """The graph with all its edges reversed: a node's readers become its parents."""
    last = len(network.nodes) - 1
    nodes: list[Node] = [Input(network.out_size)]
    place = {last: 0}  # node of the network -> node here that holds its gradient
    gates: dict[int, int] = {}
    for k in range(last, -1, -1):
        terms: list[tuple[int, LinearMap]] = [(0, Identity(network.out_size))] if k == last else []
        for reader in network.consumers[k]:
            node = network.nodes[reader]
            if reader not in place:
                continue  # the output does not depend on it
            if isinstance(node, Affine):
                terms.extend((place[reader], Transposed(m)) for p, m in node.terms if p == k)
            else:
                terms.append((gates[reader], Identity(node.size)))
        if not terms:
            continue
        parents, maps = zip(*terms, strict=True)
        nodes.append(Affine(parents, maps, None))
        place[k] = len(nodes) - 1
        here = network.nodes[k]
        if isinstance(here, Activate):
            nodes.append(Activate(place[k], here.activation, here.size))
            gates[k] = len(nodes) - 1
    if 0 not in place:  # a constant function
        nothing = Select(torch.full((network.in_size,), -1), network.out_size)
        nodes, gates = [nodes[0], Affine((0,), (nothing,), None)], {}
    # The input's gradient was placed last.
    return Transpose(
        Network(tuple(nodes), network.output_shape, network.input_shape, f"{network.name}, transposed"), gates
    )
