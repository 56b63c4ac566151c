"""The transposed Jacobian as a network of its own: ``J(x)^T = A_1^T D_1 A_2^T ... A_n^T`` has the same gates.

Everything that bounds rows of a Jacobian from gates alone then also bounds its columns.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from lipcompare.network.graph import Activate, Affine, Input, Network, Node, fold_backward
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


_Terms = list[tuple[int, LinearMap]]
"""A gradient as a sum of maps of the values of nodes of the transposed network."""


def transpose(network: Network) -> Transpose:
    """The graph with all its edges reversed: a node's readers become its parents."""
    nodes: list[Node] = [Input(network.out_size)]
    gates: dict[int, int] = {}

    def place(terms: _Terms) -> int:
        """A node here for the gradient of one of the network's nodes."""
        parents, maps = zip(*terms, strict=True)
        nodes.append(Affine(parents, maps, None))
        return len(nodes) - 1

    def activation(k: int, node: Activate, terms: _Terms) -> _Terms:
        nodes.append(Activate(place(terms), node.activation, node.size))
        gates[k] = len(nodes) - 1
        return [(gates[k], Identity(node.size))]

    def affine(k: int, node: Affine, maps: Sequence[LinearMap], terms: _Terms) -> Iterator[_Terms]:
        gradient = place(terms)
        return ([(gradient, Transposed(m))] for m in maps)

    start: _Terms = [(0, Identity(network.out_size))]
    at_input = fold_backward(network, {len(network.nodes) - 1: start}, activation, affine, add=operator.add)
    if at_input is not None:
        place(at_input)
    else:  # a constant function
        nothing = Select(torch.full((network.in_size,), -1), network.out_size)
        nodes, gates = [nodes[0], Affine((0,), (nothing,), None)], {}
    return Transpose(
        Network(tuple(nodes), network.output_shape, network.input_shape, f"{network.name}, transposed"), gates
    )
