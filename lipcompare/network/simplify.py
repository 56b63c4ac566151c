"""The same function with fewer nodes: affine nodes merged where that makes bounds no dearer and no looser.

Merging ``y = B(Ax + a) + b`` into ``BAx + (Ba + b)`` never loosens a bound: an interval of ``y`` computed from ``|BA|``
is inside the one computed from ``|B||A|``, and backward bounds pass affine nodes exactly. What speaks against a merger
is cost alone, so that is what decides.

Nothing is computed along the graph here, it is rewritten: nodes by their numbers, in place of the folds of
:mod:`~lipcompare.network.graph`, which want one that stands.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from lipcompare.network.compose import compose, cost, merge, plain
from lipcompare.network.graph import Activate, Affine, Network, Node, tensors
from lipcompare.network.linear_maps import Identity, LinearMap


def simplify(network: Network) -> Network:
    """An equal network without the nodes its output does not need and with affine nodes merged where that is cheap.

    Activations and their order are kept. The output of an imported network stays an :class:`Affine`, even where it only
    copies an activation. ``network`` is in float64 on the CPU.
    """
    nodes: dict[int, Node] = dict(enumerate(network.nodes))
    output = len(network.nodes) - 1
    for k, node in nodes.items():
        if isinstance(node, Affine):
            nodes[k] = _merged(node)
    changed = True
    while changed:
        output, shortened = _skip_identities(nodes, output)
        _drop_unused(nodes, output)
        changed = shortened
        readers = _readers(nodes)
        for k in sorted(nodes):
            changed = _inline(nodes, readers, k, output) or changed
    order = {old: new for new, old in enumerate(sorted(nodes))}
    return dataclasses.replace(network, nodes=tuple(_renumber(nodes[k], order) for k in sorted(nodes)))


def _skip_identities(nodes: dict[int, Node], output: int) -> tuple[int, bool]:
    """Let readers of a node that only copies its parent read the parent."""
    copies = {
        k: node.parents[0]
        for k, node in nodes.items()
        if isinstance(node, Affine) and node.bias is None and len(node.maps) == 1 and isinstance(node.maps[0], Identity)
    }
    if output in copies and not isinstance(nodes[copies[output]], Affine):
        del copies[output]  # the output stays an affine node, which every method can rely on
    for k in sorted(copies):
        copies[k] = copies.get(copies[k], copies[k])
    if not copies:
        return output, False
    for k, node in nodes.items():
        if k not in copies and any(p in copies for p in node.parents):
            nodes[k] = _renumber(node, {p: copies.get(p, p) for p in node.parents})
            node = nodes[k]
            if isinstance(node, Affine):
                nodes[k] = _merged(node)
    return copies.get(output, output), any(k != output for k in copies)


def _drop_unused(nodes: dict[int, Node], output: int) -> None:
    needed, stack = {0}, [output]
    while stack:
        k = stack.pop()
        if k not in needed:
            needed.add(k)
            stack.extend(nodes[k].parents)
    for k in set(nodes) - needed:
        del nodes[k]


def _readers(nodes: dict[int, Node]) -> dict[int, set[int]]:
    """For every node the nodes that read it."""
    readers: dict[int, set[int]] = {k: set() for k in nodes}
    for j, node in nodes.items():
        for p in node.parents:
            readers[p].add(j)
    return readers


def _inline(nodes: dict[int, Node], readers: dict[int, set[int]], k: int, output: int) -> bool:
    """Merge affine node ``k`` into all its readers, if they are affine and no dearer for it; keeps ``readers`` true."""
    node = nodes[k]
    if not isinstance(node, Affine) or k == output:
        return False
    before, after, merged = _cost(node), 0, dict[int, Affine]()
    for j in readers[k]:
        reader = nodes[j]
        if not isinstance(reader, Affine):
            return False
        before += _cost(reader)
        merged[j] = _absorb(reader, k, node)
        after += _cost(merged[j])
        if after > before and len(readers[k]) == 1:
            return False
    if after > before or not all(map(_finite, merged.values())):
        return False
    nodes.update(merged)
    del nodes[k]
    for p in set(node.parents):
        readers[p] = readers[p].union(merged) - {k}
    del readers[k]
    return True


def _finite(node: Affine) -> bool:
    """Whether no product of finite weights overflowed; where one does, the factors stay apart."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors(node))


def _absorb(reader: Affine, k: int, node: Affine) -> Affine:
    """``reader`` with the terms of its parent ``k`` in place of that parent."""
    terms: list[tuple[int, LinearMap]] = []
    bias = reader.bias
    for parent, outer in reader.terms:
        if parent != k:
            terms.append((parent, outer))
            continue
        terms.extend((p, compose(outer, inner)) for p, inner in node.terms)
        if node.bias is not None:
            bias = _plus(bias, outer.forward(node.bias))
    parents, maps = zip(*terms, strict=True)
    return _merged(dataclasses.replace(reader, parents=parents, maps=maps, bias=bias))


def _merged(node: Affine) -> Affine:
    """Terms of the same parent added up where that is cheap, and a bias of zeros dropped."""
    terms: list[tuple[int, LinearMap]] = []
    for parent, m in ((p, plain(m)) for p, m in node.terms):
        for i, (other, earlier) in enumerate(terms):
            both = merge(earlier, m) if other == parent else None
            if both is not None:
                terms[i] = (parent, both)
                break
        else:
            terms.append((parent, m))
    bias = node.bias if node.bias is not None and bool(node.bias.any()) else None
    parents, maps = zip(*terms, strict=True)
    return dataclasses.replace(node, parents=parents, maps=maps, bias=bias)


def _plus(bias: Tensor | None, more: Tensor) -> Tensor:
    return more if bias is None else bias + more


def _cost(node: Affine) -> int:
    return sum(map(cost, node.maps))


def _renumber(node: Node, order: dict[int, int]) -> Node:
    if isinstance(node, Affine):
        return dataclasses.replace(node, parents=tuple(order[p] for p in node.parents))
    if isinstance(node, Activate):
        return dataclasses.replace(node, parent=order[node.parent])
    return node
