"""What settling proves of pre-activations on the reference networks, against values at many points of the box.

    python -m experiments.settled [--cases mlp_d8_w32] [--samples 1000000] [--seconds 20] [--data ../shared/reference]

A line per case: neurons without a settled sign before and after, the ends of bounds that settling moved, and the least
distance from a value to a bound of its neuron, in units of the bounds' width. A quarter of the points are corners.
Exits with 1 if a value is outside; values are those of the network in float64, which the bounds' allowances for
rounding cover.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from experiments.reference import DEFAULT_DATA, cases
from experiments.study import guarded
from lipcompare import Problem
from lipcompare.branching.roots import root_bounds, settled
from lipcompare.errors import InvalidInput
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening

_TOGETHER = 20_000
MEMORY = 2**30


class Held(NamedTuple):
    """How the bounds of one problem fared.

    Attributes:
        before, after: neurons without a settled sign under the linear bounds, and with what settling adds.
        improved: ends of intervals that settling moved.
        outside: values that are not within the bounds of their neuron, or whose bounds are not numbers.
        margin: the least distance from the others to a bound, over the bounds' width.
    """

    before: int
    after: int
    improved: int
    outside: int
    margin: float


def undecided(bounds: Mapping[int, Interval]) -> int:
    return sum(int((~((b.lower >= 0) | (b.upper <= 0))).sum()) for b in bounds.values())


def held(problem: Problem, samples: int, seconds: float, seed: int = 0) -> Held:
    """Bounds of one box, in float64, and what ``samples`` of its points say of them."""
    problem = problem.double()
    network, box = problem.network, problem.box
    root, _ = root_bounds(problem, Tightening.ALPHA_CROWN, MEMORY)
    bounds = settled(problem, root, MEMORY, seconds)
    improved = sum(int((b.lower > root[k].lower).sum() + (b.upper < root[k].upper).sum()) for k, b in bounds.items())
    generator, outside, margin = torch.Generator().manual_seed(seed), 0, float("inf")
    for first in range(0, samples, _TOGETHER):
        share = torch.rand(min(_TOGETHER, samples - first), network.in_size, generator=generator, dtype=torch.float64)
        corner = torch.arange(len(share)).remainder(4) == 0
        share = torch.where(corner.unsqueeze(-1), share.round(), share)
        values = network.values(torch.lerp(box.lower, box.upper, share))
        for k, bound in bounds.items():
            z = values[network.nodes[k].parents[0]]
            inside = (z >= bound.lower) & (z <= bound.upper)
            outside += int((~inside).sum())
            width = (bound.upper - bound.lower).clamp(min=torch.finfo(z.dtype).tiny)
            distance = torch.minimum(z - bound.lower, bound.upper - z) / width
            margin = min(margin, float(torch.where(inside, distance, torch.inf).min()))
    return Held(undecided(root), undecided(bounds), improved, outside, margin)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with reference.json and the networks")
    parser.add_argument("--cases", default="", help="only cases whose key contains one of these, comma-separated")
    parser.add_argument("--samples", type=int, default=1_000_000, help="points of every box")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for settling, which ends itself")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    if chosen.samples < 1:
        raise InvalidInput("Give at least one sample.")
    torch.set_num_threads(1)
    outside = 0
    for case in cases(chosen.data, chosen.cases):
        found = held(case.problem, chosen.samples, chosen.seconds, chosen.seed)
        outside += found.outside
        print(
            f"{case.key}: {found.before} undecided, {found.after} after settling, {found.improved} ends moved; "
            f"{found.outside} values outside, least margin {found.margin:.1e}",
            flush=True,
        )
    print(f"{outside} values outside their bounds.")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(guarded(main))
