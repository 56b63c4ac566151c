"""What fits in memory: batches of similar examples, and which gates and signs to keep where one example is too large.

A gate without a coordinate costs the bound at most what it can change in the input gradient: half its slope range,
times the size of its gradient, times the sum of absolute values along all paths to the input. The gates for which
this is largest get the coordinates that there is room for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lipcompare.budget import CACHED_ENTRIES, core_seconds, fitting
from lipcompare.gates import Gates
from lipcompare.jacobian.gradients import Gradients
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward, linear_value
from lipcompare.quadratic.coordinates import Lifted, coordinate_count, undecided_gates

_SIGNS = 0.25  # of the memory for signs at most, where not all of them fit


@dataclasses.dataclass(frozen=True, eq=False)
class Pack:
    """Examples whose programs are prepared together.

    Attributes:
        examples: (some,) which ones.
        coordinates: (examples,) how many gates of each are to be lifted, the constant included.
        most_signs: signs that are kept; None for all.
        restricted: whether some gates or signs of these examples are not.
    """

    examples: Tensor
    coordinates: Tensor
    most_signs: int | None
    restricted: bool


def packs(network: Network, gates: Gates, gradients: Gradients, rows: int, squared: bool, memory: int) -> list[Pack]:
    """Examples of similar size whose coefficient maps fit in memory together; those that do not fit restricted.

    Examples for which there is no room at all are in no pack.

    Args:
        squared: there are no signs, as for p = 2 and p = 1.
    """
    count = coordinate_count(gates, gradients)
    signs = torch.zeros_like(count) if squared else sign_count(gradients)
    result: list[Pack] = []
    group: list[int] = []

    def close(restricted: bool, most: Tensor, most_signs: int | None) -> None:
        if group:
            index = torch.tensor(group, device=count.device)
            result.append(Pack(index, most[index], most_signs, restricted))
            group.clear()

    def fits(signs_left: int, n: int) -> bool:
        return max(maps_bytes(network, n, rows), program_bytes(n, signs_left)) <= memory

    for b in torch.argsort(count, stable=True).tolist():
        n, j = int(count[b]), int(signs[b])
        each = maps_bytes(network, n, rows)
        if each > memory or program_bytes(n, j) > memory:
            close(False, count, None)
            most = j if program_bytes(0, j) <= _SIGNS * memory else int((_SIGNS * memory / 48) ** 0.5)
            room = _largest(n, partial(fits, most))
            if room > 1:
                group.append(b)
                close(True, torch.full_like(count, room), most if most < j else None)
            continue
        # The largest comes last and sets the width of all; a pack of very different sizes would be mostly padding.
        if group and ((len(group) + 1) * each > memory or n > 1.25 * int(count[group[0]]) + 16):
            close(False, count, None)
        group.append(b)
    close(False, count, None)
    return result


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to ``most`` that fits, 0 if none does; what fits gets no worse for smaller numbers."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def lifted_gates(network: Network, gates: Gates, gradients: Gradients, most: int) -> Lifted:
    """The ``most - 1`` undecided gates of each example that can change its input gradient most."""
    reach = _paths_to_input(network, gates)
    weights = {}
    for k in gates.slopes:
        if k in gradients.intervals:
            lower, upper = gates.slopes[k]
            size = (upper - lower) * gradients.intervals[k].magnitude.amax(1) * reach[k]
            weights[k] = size.masked_fill(~undecided_gates(gates, gradients, k), -1.0)
    joined = torch.cat(list(weights.values()), -1)
    chosen = torch.zeros_like(joined, dtype=torch.bool)
    chosen.scatter_(-1, joined.topk(min(most - 1, joined.shape[-1]), dim=-1).indices, True)
    return dict(zip(weights, chosen.split([w.shape[-1] for w in weights.values()], -1), strict=True))


def _paths_to_input(network: Network, gates: Gates) -> dict[int, Tensor]:
    """The sum of absolute values along all paths from each pre-activation to the input, (examples, neurons)."""
    some = next(iter(gates.slopes.values())).lower
    reach: dict[int, Tensor] = {}

    def activation(k: int, node: Activate, paths: Tensor) -> Tensor:
        reach[k] = paths
        return paths * gates.slopes[k].magnitude

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        return linear_value([(m.absolute, paths) for m, paths in terms])

    fold_forward(network, {0: some.new_ones(len(some), network.in_size)}, activation, affine)
    return reach


def sign_count(gradients: Gradients) -> Tensor:
    """Undecided signs of the input gradient, the largest number over the rows of each example, (examples,)."""
    lower, upper = gradients.intervals[0]
    return ((lower < 0) & (upper > 0)).sum(-1).amax(-1)


def maps_bytes(network: Network, n: int, rows: int) -> int:
    """Memory that an example's maps of ``n`` coordinates take at their largest."""
    # Coefficients at a gate: before and after it, the new ones, and what a convolution unfolds on the way back.
    return 8 * (8 * n * network.widest + 4 * n * n + 2 * n * network.in_size + 8 * rows * network.widest)


def program_bytes(n: int, signs: int) -> int:
    """Memory of one program of ``n`` coordinates in the interior point method."""
    return 8 * (24 * n * n + 8 * n * signs + 6 * (n + signs) ** 2)


def first_seconds(network: Network, n: int, signs: int, device: torch.device) -> float:
    """About how long it takes at the least until a program of ``n`` coordinates has a bound: to pull its coefficients
    back through the network, and for an iteration, most of it products of all entries with all coordinates."""
    return core_seconds(n * (network.products + 2.0 * (n + signs) ** 2), device)


def widths(pack: Pack, signs: Tensor, memory: int) -> tuple[int, Tensor]:
    """Programs of a batch: for all of the pack, and (examples of the pack,) what each example alone would have."""
    count = pack.coordinates
    signs = signs[pack.examples]
    if pack.most_signs is not None:
        signs = signs.clamp(max=pack.most_signs)
    own = [fitting(memory, program_bytes(n, j)) for n, j in zip(count.tolist(), signs.tolist(), strict=True)]
    largest = fitting(memory, program_bytes(int(count.max()), int(signs.max())))
    each = torch.tensor(own, device=count.device)
    if count.device.type == "cpu":
        size = count + signs
        largest = min(largest, max(1, CACHED_ENTRIES // int(size.max()) ** 2))
        each = torch.minimum(each, (CACHED_ENTRIES // size.square()).clamp(min=1))
    return largest, each
