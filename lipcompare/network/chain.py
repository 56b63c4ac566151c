"""How many roundings one value of a network can pass through."""

from __future__ import annotations

from lipcompare.network.graph import Affine, Network


def chain_length(network: Network) -> int:
    """The longest chain of operations from the input to any value, or from the output to any gradient.

    A sum of n products passes through n roundings and a bias and the sums over terms through one each; an activation
    multiplies once. All nodes are counted, whatever path they are on.
    """
    affine = [node for node in network.nodes if isinstance(node, Affine)]
    return sum(sum(m.fan_in + 1 for m in node.maps) + 1 for node in affine) + len(network.activations)
