"""A branch and bound whose tree is kept: what was decided, and the multipliers that bound every leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lipcompare.branching.bounds import BOUNDS, Settings
from lipcompare.branching.decisions import Numbering
from lipcompare.branching.driver import Assessment, Search, SearchLimits, run
from lipcompare.branching.evaluator import NetworkEvaluator
from lipcompare.branching.heuristics import HEURISTICS
from lipcompare.branching.inheritance import inherited_multipliers
from lipcompare.branching.roots import root_bounds
from lipcompare.branching.tree import Subdomain
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening
from lipcompare.preactivation.split import split_bounds
from lipcompare.problem import Problem
from lipcompare.regions.program import deepest, region_of
from lipcompare.result import Witness

_TOLERANCE = 1e-4
"""Relative accuracy of the programs: better than in a search, as leaves are to hold with multipliers in float32."""


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """A case of a proof.

    Attributes:
        multipliers: (1 + gates + inputs,) of its quadratic-gate bound, zeros where it needs none.
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
    problem: Problem, witnesses: Sequence[Witness], upper: float, *, time_limit: float, memory: int
) -> list[Tree]:
    """One tree per row of a problem with one example, which prove ``upper`` together if the time suffices.

    The root's bounds are plain CROWN's, which a checker can derive without being told anything.

    Args:
        witnesses: values that were attained.
        time_limit: seconds.
    """
    bounds, linear = root_bounds(problem, Tightening.CROWN, memory)
    numbering = Numbering(problem.network)
    bound = BOUNDS["sdp"]
    heuristic = HEURISTICS[bound.default_heuristic(problem.norm)]
    settings = Settings(tolerance=_TOLERANCE, memory=memory)
    evaluator = NetworkEvaluator(
        problem=problem,
        bounds=bounds,
        bound=bound.on(numbering, problem.norm, heuristic, settings),
        sweeps=bound.sweeps,
        passes=bound.passes,
        memory=memory,
    )
    recorder = _Recorder(evaluator)
    search = Search.start(np.full(problem.rows, np.inf), witnesses)
    # Multipliers are kept in float32, which costs a bound some 1e-7: aim a little lower than what is to be proved.
    goal = max(upper * (1 - 1e-6), search.best * (1 + 1e-7))
    gap = 1 - search.best / goal if goal > 0 else 0.0
    run(search, recorder, SearchLimits(gap=gap, seconds=time_limit, memory=memory, batch=64))
    return [_tree(recorder, numbering, row, float(linear[row]), goal) for row in range(problem.rows)]


def _tree(recorder: _Recorder, numbering: Numbering, row: int, linear: float, goal: float) -> Tree:
    nodes: list[int] = []
    leaves: list[Leaf] = []
    blank = np.zeros(1 + numbering.gates + numbering.network.in_size, np.float32)

    def visit(
        decisions: tuple[int, ...], above: float, inherited: bytes
    ) -> Iterator[tuple[tuple[int, ...], float, bytes]]:
        """Writes a node; yields the cases that follow it. Without multipliers of its own a case has its parent's."""
        said = recorder.said.get((row, decisions))
        upper = above if said is None else said.upper
        inherited = inherited if said is None else said.inherited
        if said is None or not said.chain or upper <= goal:
            nodes.append(-1)
            packed = inherited_multipliers(numbering, [inherited])[0].numpy() if inherited else blank
            leaves.append(Leaf(packed, max(upper, 0.0)))
            return
        for m, last in enumerate(said.chain):
            nodes.append(last)
            yield (*decisions, *said.chain[:m], last ^ 1), upper, inherited
        if said.closed:
            nodes.append(-1)
            leaves.append(Leaf(blank, 0.0, _contradiction(recorder.inner, (*decisions, *said.chain))))
        else:
            yield (*decisions, *said.chain), upper, inherited

    # Depth first without recursion: trees can be deep.
    stack = [visit((), linear, b"")]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        else:
            stack.append(visit(*step))
    return Tree(nodes, leaves)


def _contradiction(evaluator: NetworkEvaluator, decisions: tuple[int, ...]) -> dict[int, float]:
    """Multipliers of the decided gates that prove that no input takes all these decisions.

    The decided gates of a layer are affine functions of the input where all gates before it are decided.
    """
    network, numbering = evaluator.problem.network, evaluator.numbering
    made = [np.array(decisions, dtype=np.int64)]
    signs, _ = numbering.signs(made)
    box = numbering.boxes(made, evaluator.box)
    split = split_bounds(network, box, signs, evaluator.bounds, sweeps=evaluator.sweeps, passes=evaluator.passes)
    if bool(split.empty.any()):
        return {}  # re-propagation shows it, to the checker as well
    rows, settled = {}, True
    for k in network.activations:
        rows[k] = (signs[k][0] != 0) & settled
        settled = settled and not bool(split.gates.unstable(k).any())
    slopes = {k: s.lower[0] for k, s in split.gates.slopes.items()}
    inside = Interval(box.lower[0], box.upper[0])
    found = deepest(region_of(network, inside, slopes, {k: s[0] > 0 for k, s in signs.items()}, rows))
    return dict(zip(found.conflict, found.weights, strict=True))
