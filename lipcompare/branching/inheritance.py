"""What a subdomain leaves to its children, as bytes: settled sides of the kink, multipliers of its bound, and cuts.

The first bytes are bits, one per gate and side. Then come the number (int32) of multipliers that are not zero, and a
pair of an index (int32) and a value (float32) for each (see :mod:`~lipcompare.branching.multipliers`); and last, for
each cut, two names (int32) and a multiplier (float32). No bytes at all say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipcompare.branching.cuts import NamedCuts
from lipcompare.branching.decisions import Numbering
from lipcompare.network.interval import Interval

_COUNT = np.dtype(np.int32)
_PAIR = np.dtype([("index", np.int32), ("value", np.float32)])
_CUT = np.dtype([("names", np.int32, 2), ("nu", np.float32)])


def pack_sides(numbering: Numbering, bounds: Mapping[int, Interval]) -> list[bytes]:
    """Which side of its kink, without touching it, every gate is known to be on: one string of bits per subdomain.

    Args:
        bounds: per activation node (subdomains, neurons).
    """
    sides = [torch.stack([bounds[k].lower > 0, bounds[k].upper < 0], 1) for k in numbering.network.activations]
    bits = np.packbits(torch.cat(sides, -1).cpu().numpy(), axis=-1)
    return [row.tobytes() for row in bits]


def sides_of(numbering: Numbering, inherited: bytes) -> bytes:
    """The bits alone."""
    return inherited[: 2 * _width(numbering)]


def pack_multipliers(multipliers: Tensor) -> list[bytes]:
    """Multipliers (subdomains, 1 + gates + inputs), to be put after the bits of the same subdomain."""
    packed = []
    for row in multipliers.cpu().numpy():
        indices = np.flatnonzero(row)
        pairs = np.empty(len(indices), _PAIR)
        pairs["index"], pairs["value"] = indices, row[indices]
        packed.append(np.int32(len(indices)).tobytes() + pairs.tobytes())
    return packed


def pack_cuts(cuts: NamedCuts) -> list[bytes]:
    """Cuts of a batch of subdomains, to be put after the multipliers of the same subdomain."""
    packed = []
    for names, nu in zip(cuts.names.cpu().numpy(), cuts.nu.cpu().numpy(), strict=True):
        active = np.flatnonzero(nu > 0)
        triples = np.empty(len(active), _CUT)
        triples["names"], triples["nu"] = names[active], nu[active]
        packed.append(triples.tobytes())
    return packed


def inherited_bounds(
    numbering: Numbering, inherited: Sequence[bytes], bounds: Mapping[int, Interval]
) -> dict[int, Interval]:
    """``bounds`` (1, neurons) cut just beside the kink where a side is settled: (subdomains, neurons) per node."""
    width = _width(numbering)
    blank = bytes(2 * width)
    bits = np.frombuffer(b"".join(packed[: 2 * width] or blank for packed in inherited), dtype=np.uint8)
    table = torch.from_numpy(np.unpackbits(bits.reshape(len(inherited), 2, width), axis=-1)[..., : numbering.gates])
    active, idle = (numbering.split(side) for side in table.bool().unbind(1))
    cut = {}
    for k, (lower, upper) in bounds.items():
        # The kink itself is ruled out: the nearest number to it is where the cut may be.
        least = torch.nextafter(torch.zeros_like(lower), torch.ones_like(lower))
        on, off = active[k].to(lower.device), idle[k].to(lower.device)
        cut[k] = Interval(
            torch.where(on, torch.maximum(lower, least), lower), torch.where(off, torch.minimum(upper, -least), upper)
        )
    return cut


def inherited_multipliers(numbering: Numbering, inherited: Sequence[bytes]) -> Tensor:
    """The inverse of :func:`pack_multipliers`, (subdomains, 1 + gates + inputs) zeros where nothing is inherited."""
    table = np.zeros((len(inherited), 1 + numbering.gates + numbering.network.in_size), np.float32)
    width = _width(numbering)
    for row, packed in zip(table, inherited, strict=True):
        if len(packed) > 2 * width:
            pairs = np.frombuffer(packed, _PAIR, _multipliers(packed, width), 2 * width + _COUNT.itemsize)
            row[pairs["index"]] = pairs["value"]
    return torch.from_numpy(table)


def inherited_cuts(numbering: Numbering, inherited: Sequence[bytes]) -> NamedCuts:
    """The inverse of :func:`pack_cuts`."""
    width, cuts = _width(numbering), []
    for packed in inherited:
        if len(packed) > 2 * width:
            rest = packed[2 * width + _COUNT.itemsize + _multipliers(packed, width) * _PAIR.itemsize :]
        else:
            rest = b""
        cuts.append(np.frombuffer(rest, _CUT))
    most = max(map(len, cuts), default=0)
    names, nu = np.zeros((len(cuts), most, 2), np.int64), np.zeros((len(cuts), most))
    for i, each in enumerate(cuts):
        names[i, : len(each)], nu[i, : len(each)] = each["names"], each["nu"]
    return NamedCuts(torch.from_numpy(names), torch.from_numpy(nu))


def _multipliers(packed: bytes, width: int) -> int:
    """How many multipliers there are."""
    return int(np.frombuffer(packed, _COUNT, 1, 2 * width)[0])


def _width(numbering: Numbering) -> int:
    """Bytes that hold one bit per gate."""
    return -(-numbering.gates // 8)
