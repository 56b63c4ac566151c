"""A branch and bound whose tree is kept: what was decided, and the multipliers that bound every leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from lipcompare.branching.bounds import Settings, tree_bound
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment, Search, SearchLimits, run
from lipcompare.branching.evaluator import NetworkEvaluator
from lipcompare.branching.heuristics import HEURISTICS
from lipcompare.branching.inheritance import inherited_multipliers
from lipcompare.branching.tree import Subdomain
from lipcompare.gates import PreactivationBounds
from lipcompare.preactivation.split import split_bounds
from lipcompare.problem import Norm, Problem
from lipcompare.regions.program import Region, deepest
from lipcompare.result import Witness

_TOLERANCE = 1e-5
"""Relative accuracy of the programs: better than in a search, as leaves are to hold with multipliers in float32."""
_TOGETHER = 64
"""Cases that are propagated at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """A case of a proof.

    Attributes:
        multipliers: (gates + inputs,) of its quadratic-gate bound, zeros where it needs none.
        bound: what it proves.
        conflict: multipliers by gate of decisions that contradict each other.
    """

    multipliers: np.ndarray
    bound: float
    conflict: Mapping[int, float] = dataclasses.field(default_factory=dict)


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
    linear: Sequence[float],
    witnesses: Sequence[Witness],
    upper: float,
    *,
    time_limit: float,
    memory: int,
) -> list[Tree]:
    """One tree per row of a problem with one example, which prove ``upper`` together if the time suffices.

    Args:
        bounds: over the whole box, as a checker derives them.
        linear: (rows,) bounds that follow from them.
        witnesses: values that were attained.
        time_limit: seconds.
    """
    numbering = Numbering(problem.network)
    # For p = 1 there is a program per entry and no multipliers to hand on: the linear bound closes cases there.
    bound = tree_bound("lbp" if problem.norm is Norm.ONE else "sdp")
    heuristic = HEURISTICS[bound.default_heuristic(problem.norm)]
    settings = Settings(tolerance=_TOLERANCE, memory=memory)
    evaluator = NetworkEvaluator(
        problem=problem,
        bounds=dict(bounds),
        bound=bound.on(numbering, problem.norm, heuristic, settings),
        sweeps=bound.sweeps,
        passes=bound.passes,
        memory=memory,
    )
    recorder = _Recorder(evaluator)
    search = Search.start(np.full(problem.rows, np.inf), witnesses)
    # Multipliers are kept in float32, which costs a bound some 1e-7: aim a little lower than what is to be proved.
    goal = max(upper * (1 - 1e-6), search.best * (1 + 1e-7))
    run(search, recorder, SearchLimits(gap=0.0, target=goal, seconds=time_limit, memory=memory, batch=64))
    return [_tree(recorder, numbering, row, linear[row], goal) for row in range(problem.rows)]


def _tree(recorder: _Recorder, numbering: Numbering, row: int, linear: float, goal: float) -> Tree:
    nodes: list[int] = []
    leaves: list[Leaf] = []
    without: dict[int, tuple[int, ...]] = {}  # decisions of the leaves that hold no input
    blank = np.zeros(numbering.gates + numbering.network.in_size, np.float32)

    def visit(
        decisions: tuple[int, ...], above: float, multipliers: np.ndarray
    ) -> Iterator[tuple[tuple[int, ...], float, np.ndarray]]:
        """Writes a node; yields the cases that follow it. Without multipliers of its own a case has its parent's."""
        said = recorder.said.get((row, decisions))
        upper = above if said is None else said.upper
        if said is not None and said.inherited:
            own = inherited_multipliers(numbering, [said.inherited])[0, 1:].numpy()
            multipliers = own if own.any() else multipliers
        if said is None or not said.chain or upper <= goal:
            nodes.append(-1)
            if upper == -np.inf:
                without[len(leaves)] = decisions
            leaves.append(Leaf(multipliers, max(upper, 0.0)))
            return
        for m, last in enumerate(said.chain):
            nodes.append(last)
            yield (*decisions, *said.chain[:m], last ^ 1), upper, multipliers
        if said.closed:
            nodes.append(-1)
            without[len(leaves)] = (*decisions, *said.chain)
            leaves.append(Leaf(blank, 0.0))
        else:
            yield (*decisions, *said.chain), upper, multipliers

    # Depth first without recursion: trees can be deep.
    stack = [visit((), linear, blank)]
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
        split = split_bounds(network, box, signs, evaluator.bounds, sweeps=evaluator.sweeps, passes=evaluator.passes)
        spaces = split.halfspaces
        for case in range(len(made)):
            here = spaces.node[case] >= 0
            first = torch.tensor([numbering.start[k] for k in spaces.node[case][here].tolist()], dtype=torch.int64)
            found = deepest(
                Region(
                    matrix=spaces.normal[case][here].numpy(),
                    offset=spaces.offset[case][here].numpy(),
                    error=np.zeros(int(here.sum())),
                    gate=(first + spaces.neuron[case][here]).numpy(),
                    lower=box.lower[case].numpy(),
                    upper=box.upper[case].numpy(),
                )
            )
            results.append(dict(zip(found.conflict, found.weights, strict=True)))
    return results
