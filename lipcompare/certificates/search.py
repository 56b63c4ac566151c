"""A branch and bound whose tree is kept: what was decided, and the multipliers that bound every leaf."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from lipcompare.branching.bounds import Settings, tree_bound
from lipcompare.branching.cuts import MOST_CUTS
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment, Search, SearchLimits
from lipcompare.branching.evaluator import NetworkEvaluator, effort, shares_subdomains
from lipcompare.branching.heuristics import HEURISTICS
from lipcompare.branching.inheritance import inherited_cuts, inherited_multipliers
from lipcompare.branching.ledger import Ledger
from lipcompare.branching.race import Tree as Entrant
from lipcompare.branching.race import race
from lipcompare.branching.tree import Subdomain
from lipcompare.budget import Deadline
from lipcompare.gates import PreactivationBounds
from lipcompare.preactivation.split import split_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.regions.program import Regions, deepest
from lipcompare.result import Witness

_BOUNDS = ("sdp", "lbp")
"""What bounds the cases of trees that race: few of them tightly, or many."""
_AHEAD = 10.0
"""A tree goes on alone when it is so many times closer to the goal. More than in a search, whose interval is worth
something when time ends: here only a tree that ends counts, and the first moments, where other work takes turns on the
processor, may mislead."""
_ENOUGH = 1e-6
"""Relative room for the rounding of multipliers to float32."""
_SMALLEST = 2.0**-40
"""Rows below this share of the largest are proved with it: their multipliers would leave the range of float32."""
_TOGETHER = 64
"""Cases that are propagated at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """A case of a proof.

    Attributes:
        multipliers: (gates + inputs,) of its quadratic-gate bound, zeros where it needs none.
        cuts: (cuts, 2) names of the forms that its cuts multiply, as in :class:`~lipcompare.branching.cuts.NamedCuts`.
        nu: (cuts,) their multipliers.
        bound: what it proves.
        conflict: multipliers by gate of decisions that contradict each other.
    """

    multipliers: np.ndarray
    cuts: np.ndarray
    nu: np.ndarray
    bound: float
    conflict: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def unscaled(self, scale: float, norm: Norm) -> Leaf:
        """For a row, of one for ``scale`` times the row: its gates have coordinates that are ``scale`` times as large.

        The terms of a bound on a square (p = 2) and the square itself grow alike; forms of cuts have no unit. In
        double precision, as rows of very small or large weights leave the range of single precision here.
        """
        multipliers = self.multipliers.astype(np.float64)
        multipliers = multipliers if norm is Norm.TWO else multipliers * scale
        return dataclasses.replace(self, multipliers=multipliers, nu=self.nu / scale, bound=self.bound / scale)


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """One row's proof: in preorder a decision per inner node and -1 per leaf, and the leaves in that order."""

    nodes: list[int]
    leaves: list[Leaf]

    @property
    def bound(self) -> float:
        """What the leaves prove together."""
        return max((leaf.bound for leaf in self.leaves), default=0.0)


@dataclasses.dataclass(eq=False)
class _Recorder:
    """An evaluator that remembers what it was asked and what it said."""

    inner: NetworkEvaluator
    said: dict[tuple[int, tuple[int, ...]], Assessment] = dataclasses.field(default_factory=dict)

    def evaluate(self, nodes: Sequence[Subdomain], floor: float, target: float) -> list[Assessment]:
        """See :class:`~lipcompare.branching.driver.Evaluator`."""
        results = self.inner.evaluate(nodes, floor, target)
        for node, result in zip(nodes[: len(results)], results, strict=True):
            upper = result.upper if result.upper < node.upper else node.upper
            self.said[node.row, node.decisions] = dataclasses.replace(result, upper=upper)
        return results


def proof_trees(
    problem: Problem,
    bounds: PreactivationBounds,
    linear: np.ndarray,
    witnesses: Sequence[Witness],
    upper: np.ndarray,
    *,
    tolerance: float,
    time_limit: float,
    memory: int,
) -> list[Tree]:
    """One tree per row of a problem with one example, which prove ``upper`` if the time suffices.

    A search knows one goal for all rows. The first one's is the largest row's end, which is what a result is about, and
    by which it divides all rows. In the time that is left a second one takes the rows that are not proved so far, each
    divided by its own end.

    Args:
        bounds: over the whole box, as a checker derives them.
        linear: (rows,) bounds that follow from them.
        witnesses: values that were attained.
        upper: (rows,) what is to be proved, finite.
        tolerance: relative, of the programs of cases.
        time_limit: seconds.
    """
    begun = time.perf_counter()

    def searched(rows: list[int], scale: np.ndarray, goal: float) -> list[Tree]:
        """Trees of some rows, times ``scale`` (rows,), with one goal."""
        factor = torch.as_tensor(scale[rows]).to(problem.functionals)
        part = dataclasses.replace(problem, functionals=problem.functionals[:, rows] * factor[:, None])
        own = [
            dataclasses.replace(w, row=rows.index(w.row), value=w.value * scale[w.row])
            for w in witnesses
            if w.row in rows
        ]
        left = time_limit - (time.perf_counter() - begun)
        found = _search(part, bounds, linear[rows] * scale[rows], own, goal, tolerance, left, memory)
        return [
            Tree(tree.nodes, [leaf.unscaled(float(scale[row]), problem.norm) for leaf in tree.leaves])
            for row, tree in zip(rows, found, strict=True)
        ]

    largest = float(upper.max())
    # Multipliers are handed on in single precision: those of a row of about one fit there.
    trees = searched(list(range(problem.rows)), _inverse(np.full(problem.rows, largest)), 1.0)
    behind = [
        row
        for row, tree in enumerate(trees)
        if largest * _SMALLEST < upper[row] < min(largest, tree.bound * (1 - _ENOUGH))
    ]
    if behind and time.perf_counter() - begun < time_limit:
        for row, tree in zip(behind, searched(behind, _inverse(upper), 1.0), strict=True):
            trees[row] = tree if tree.bound < trees[row].bound else trees[row]
    return trees


def _inverse(ends: np.ndarray) -> np.ndarray:
    """Factors that take rows with these ends to one; 1 where that is out of range."""
    return 1 / np.where(ends >= np.finfo(ends.dtype).tiny, ends, 1.0)


def _search(
    problem: Problem,
    bounds: PreactivationBounds,
    linear: np.ndarray,
    witnesses: Sequence[Witness],
    upper: float,
    tolerance: float,
    seconds: float,
    memory: int,
) -> list[Tree]:
    """One tree per row, with one goal for all; arguments as for :func:`proof_trees`."""
    numbering, deadline = Numbering(problem.network), Deadline.after(seconds)
    # Multipliers are kept in float32, which costs a bound some 1e-7: aim a little lower than what is to be proved. What
    # ends on the value that is attained has to stop short of it: optimal multipliers stand on the edge of the cone, and
    # the last digits of one that is rounded off it cost up to a thousandth.
    goal = max(upper * (1 - _ENOUGH), max((w.value for w in witnesses), default=0.0) * (1 + 2 * _ENOUGH))
    # For p = 1 there is a program per entry and no multipliers to hand on: the linear bound closes cases there.
    names = ("lbp",) if problem.norm is Norm.ONE else _BOUNDS
    limits = SearchLimits(gap=0.0, target=goal, memory=memory // len(names), batch=64)
    ledger = Ledger(problem, np.full((1, problem.rows), np.inf), lambda *_: None, lambda _: None)
    recorders: list[_Recorder] = []

    def entrant(name: str) -> Entrant:
        bound = tree_bound(name)
        heuristic = HEURISTICS[bound.default_heuristic(problem.norm)]
        settings = Settings(tolerance=tolerance, memory=memory, cuts=MOST_CUTS, deadline=deadline)
        shares = shares_subdomains(bound, problem)
        pivots, passes = effort(bound, shares)
        evaluator = NetworkEvaluator(
            problem=problem,
            bounds=dict(bounds),
            bound=bound.on(numbering, problem.norm, heuristic, settings),
            pivots=pivots,
            passes=passes,
            memory=memory,
            deadline=deadline,
            shares=shares,
        )
        recorders.append(_Recorder(evaluator))
        search = Search.start(linear, witnesses, together=shares)
        return Entrant([search], recorders[-1], limits, ledger, 0)

    race(entrant(names[0]), [partial(entrant, name) for name in names[1:]], deadline, _AHEAD)
    # What one of them has left open the other may have proved, row by row.
    trees = [
        [_tree(recorder, numbering, row, float(linear[row]), goal) for row in range(problem.rows)]
        for recorder in recorders
    ]
    return [
        min(found, key=lambda tree: (max(tree.bound, goal), len(tree.leaves))) for found in zip(*trees, strict=True)
    ]


def _tree(recorder: _Recorder, numbering: Numbering, row: int, linear: float, goal: float) -> Tree:
    nodes: list[int] = []
    leaves: list[Leaf] = []
    without: dict[int, tuple[int, ...]] = {}  # decisions of the leaves that hold no input
    blank = _leaf(numbering, b"", 0.0)
    bounded = {decisions for number, decisions in recorder.said if number == row}

    def visit(decisions: tuple[int, ...], above: Leaf) -> Iterator[tuple[tuple[int, ...], Leaf]]:
        """Writes a node; yields the cases that follow it. Without multipliers of its own a case has its parent's."""
        said = recorder.said.get((row, decisions))
        upper = above.bound if said is None else said.upper
        own = dataclasses.replace(above, bound=max(upper, 0.0))
        if said is not None and said.inherited:
            found = _leaf(numbering, said.inherited, own.bound)
            own = found if found.multipliers.any() else own
        # A part that was not bounded any more has its parent's bound, and of its cuts only some: the parent is a case.
        if said is None or not said.chain or upper <= goal or not _parted(said, decisions) <= bounded:
            nodes.append(-1)
            if upper == -np.inf:
                without[len(leaves)] = decisions
            leaves.append(own)
            return
        for m, last in enumerate(said.chain):
            nodes.append(last)
            yield (*decisions, *said.chain[:m], last ^ 1), own
        if said.closed:
            nodes.append(-1)
            without[len(leaves)] = (*decisions, *said.chain)
            leaves.append(blank)
        else:
            yield (*decisions, *said.chain), own

    # Depth first without recursion: trees can be deep.
    stack = [visit((), dataclasses.replace(blank, bound=linear))]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        else:
            stack.append(visit(*step))
    conflicts = _contradictions(recorder.inner, list(without.values()))
    for i, conflict in zip(without, conflicts, strict=True):
        leaves[i] = dataclasses.replace(leaves[i], conflict=conflict)
    return Tree(nodes, leaves)


def _parted(said: Assessment, decisions: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The parts into which a case is split that are not closed at once."""
    parts = {(*decisions, *said.chain[:m], last ^ 1) for m, last in enumerate(said.chain)}
    return parts if said.closed else {*parts, (*decisions, *said.chain)}


def _leaf(numbering: Numbering, inherited: bytes, bound: float) -> Leaf:
    """From what a subdomain leaves to its parts."""
    multipliers, cuts = inherited_multipliers(numbering, [inherited]), inherited_cuts(numbering, [inherited])
    # A program takes a product twice, as ``f g' + g f'``.
    return Leaf(multipliers[0, 1:].numpy(), cuts.names[0].numpy(), 2 * cuts.nu[0].numpy(), bound)


def _contradictions(evaluator: NetworkEvaluator, decisions: Sequence[tuple[int, ...]]) -> list[dict[int, float]]:
    """Multipliers of the decided gates' half-spaces that prove that no input takes all decisions of a case, if there
    are.

    Where there are none, contradictory signs or intervals show it, to the checker as well.
    """
    network, numbering = evaluator.problem.network, evaluator.numbering
    results: list[dict[int, float]] = []
    for i in range(0, len(decisions), _TOGETHER):
        made = [np.array(some, dtype=np.int64) for some in decisions[i : i + _TOGETHER]]
        signs, _ = numbering.signs(made)
        box = numbering.boxes(made, evaluator.box)
        split = split_bounds(network, box, signs, evaluator.bounds, pivots=evaluator.pivots, passes=evaluator.passes)
        spaces = split.halfspaces
        first = torch.zeros_like(spaces.neuron)
        for k, start in numbering.start.items():
            first = torch.where(spaces.node == k, start, first)
        regions = Regions(
            matrix=spaces.normal,
            offset=spaces.offset,
            error=torch.zeros_like(spaces.offset),
            gate=first + spaces.neuron,
            lower=box.lower,
            upper=box.upper,
        )
        results += [dict(zip(located.conflict, located.weights, strict=True)) for located in deepest(regions)]
    return results
