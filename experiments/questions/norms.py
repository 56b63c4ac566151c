"""Operator norms of the Jacobian of all outputs, by several ways."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from rich.console import Console

import lipcompare
from experiments.measured import Measured, Outcome
from experiments.questions.cells import NAME, NORMS, REPEATS, present, reference, settings, shape, timed, verdict
from experiments.study import Choices
from lipcompare import Box, Network, Norm, Problem, Status
from lipcompare.budget import Deadline
from lipcompare.errors import InvalidInput
from lipcompare.jacobian import RELAXATIONS
from lipcompare.methods.lipsdp import LipSdp, Scope
from lipcompare.network import Affine
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate
from lipcompare.quadratic.joint import joint_bound
from lipcompare.questions import exact_operator_norms, operator_norm_bounds
from lipcompare.study.run import Setting, Study, Task
from lipcompare.testing.clock import processor
from lipcompare.testing.networks import dense

SPECTRAL = (("mlp3_w16", 0.1), ("mlp3_w32", 0.3), ("mlp_d4_w32", 0.1))
PUBLISHED = (("iris_4_5_5_3", 1.0), ("sdnet_10_20_15_10_3", 0.1))
"""Networks of LipBaB's authors, and the upper end of the box, whose lower one is 0."""
SHAPE = (10, 30, 30, 30, 3)
PUBLISHED_FORM = "Gen-Local CF"
PUBLISHED_PROGRAMS = {"LipSDP": Scope.LOCAL, "LipSDP global": Scope.GLOBAL}
"""The published program of all outputs, by a conic solver: with slopes over the box, and with those everywhere."""
FIRST = "first"
"""What ``operator-norm`` knows first: for p = 2 the closed form over the gates of interval arithmetic."""
METHODS = (PUBLISHED_FORM, FIRST, "program", *PUBLISHED_PROGRAMS, "lbp", "sdp", "bab")
"""The first one is the closed form of ECLipsE-Gen-Local with its own ranges of slopes, by the published formulas and in
plain floating point: not a bound that is proved here, and no end of an interval."""
TARGETS = {"mlp3_w16@0.1": 7.05, "mlp3_w32@0.3": 9.21, "mlp_d4_w32@0.1": 15.73}
"""What the program should be under, in the time that LipSDP takes."""
TOLERANCE = 1e-3
"""Relative, to which the published program is solved where no value is known."""
SLOWER = 10
"""Times that the first bound may take of what Gen-Local's formula takes, which it should not be looser than."""


def corner(network: Network, reach: float, norm: str) -> Problem:
    """A network on ``[0, reach]^n``."""
    low = torch.zeros(1, network.in_size, dtype=torch.float64)
    return Problem(network, Box(low, low + reach), Norm(norm))


def build(chosen: Choices, console: Console) -> Measured:
    """Operator norms of the Jacobian of all outputs; for p = 2 the published ways and our program too."""
    cases = [("random 8-12-12-4", Problem.around(dense(0, (8, 12, 12, 4)), 0.0, 0.1, norm="2"))]
    root = chosen.reference
    if root is not None:
        cases = [(f"{name}@{eps}", reference(root, name, eps, "2")) for name, eps in SPECTRAL]
        folder = root.parent / "data" / "networks" / "lipbab"
        cases += [
            (name, corner(lipcompare.load(present(folder / f"{name}.npz")), reach, norm))
            for name, reach in PUBLISHED
            for norm in NORMS
        ]
    seeds = 3 if chosen.full else 1
    cases += [(f"random {shape(SHAPE)} #{s}", corner(dense(s, SHAPE), 0.1, n)) for s in range(seeds) for n in NORMS]
    tasks = [Task(problem, {"question": "norms", "case": c, "norm": problem.norm.value}) for c, problem in cases]
    limits = chosen.limits(30.0, 300.0)

    def work(some: Sequence[Task], setting: Setting) -> list[Outcome]:
        return [_operator_norm(task.problem, str(setting.options["method"]), limits.time) for task in some]

    return Measured(Study(NAME, tasks, settings("norms", METHODS, chosen), limits), work)


def _operator_norm(problem: Problem, method: str, limit: float) -> Outcome:
    network, box, norm = problem.network, problem.box, problem.norm
    assert isinstance(box, Box)
    if method == FIRST:
        with processor():
            ends = [operator_norm_bounds(network, box, norm, time_limit=0.0).trace[0] for _ in range(REPEATS)]
        return Outcome(statistics.median(end.seconds for end in ends), upper=ends[0].upper, proves="upper")
    if method in (PUBLISHED_FORM, "program"):
        if norm is not Norm.TWO:
            return Outcome(0.0, status=Status.UNSUPPORTED, message="It is for p = 2.")
        if method == PUBLISHED_FORM:
            value, seconds = timed(lambda: published_form(network, box))
            return Outcome(seconds, {"formula": value})
        upper, seconds = timed(lambda: _joint(problem))
        return Outcome(seconds, upper=upper, proves="upper")
    if method in PUBLISHED_PROGRAMS:
        if norm is not Norm.TWO:
            return Outcome(0.0, status=Status.UNSUPPORTED, message="It is for p = 2.")
        published = LipSdp(scope=PUBLISHED_PROGRAMS[method])
        (bounds, status, message), seconds = timed(lambda: published.operator_norm(problem, Deadline.after(limit)))
        return Outcome(seconds, upper=float(bounds[0]), proves="upper", status=status, message=message)
    if method == "bab":
        found, seconds = timed(lambda: exact_operator_norms(network, box, norm, gap=1e-3, time_limit=limit))
    else:
        found, seconds = timed(lambda: operator_norm_bounds(network, box, norm, method, time_limit=limit))
    proves = "exact" if method == "bab" else "interval"
    low, high = float(found.lower[0]), float(found.upper[0])
    return Outcome(seconds, {}, low, high, proves, found.status, found.status.value)


def published_form(network: Network, box: Box) -> float:
    """ECLipsE-Gen-Local's closed form for a ReLU network of dense layers (Xu and Sivaranjani 2025).

    From the inputs on, ``M`` measures changes: those of the input have length at most that of the box's diagonal, which
    with ``W M^-1 W^T`` gives each neuron's range and so its slopes; ``M = l I - l^2 / 4 S W M^-1 W^T S`` with ``S`` the
    sums of the ends of the slopes and ``l`` twice the inverse of the largest eigenvalue of ``S W M^-1 W^T S``.
    """
    value, reach = box.interval.center[0].double(), box.interval.radius[0].double().norm()
    layers = [node for node in network.nodes if isinstance(node, Affine)]
    metric = torch.eye(network.in_size, dtype=torch.float64)
    for node in layers:
        weight = node.maps[0].matrix()
        inner = weight @ torch.linalg.solve(metric, weight.mT)
        if node is layers[-1]:
            return float(torch.linalg.eigvalsh(inner)[-1].sqrt())
        value = weight @ value + (0.0 if node.bias is None else node.bias)
        slopes = (value + reach * inner.diagonal().sqrt() > 0).double()
        inner = slopes.unsqueeze(-1) * inner * slopes
        if not bool(slopes.any()):
            return 0.0  # nothing passes
        scale = 2 / torch.linalg.eigvalsh(inner)[-1]
        metric = scale * torch.eye(len(inner), dtype=torch.float64) - scale**2 / 4 * inner
        value = value.relu()
    raise InvalidInput("A network without layers has no closed form.")


def verdicts(frame: pd.DataFrame) -> Iterator[str]:
    """What the rows say of the targets."""
    rows = frame[(frame["label.question"] == "norms") & (frame["label.norm"] == Norm.TWO.value)]
    for case, each in rows.groupby("label.case", sort=False):
        of = each.set_index("series")
        if not {"program", FIRST, PUBLISHED_FORM, *PUBLISHED_PROGRAMS} <= set(of.index):
            continue
        ours, published = of.loc["program"], [of.loc[name] for name in PUBLISHED_PROGRAMS]
        least = min(row["seconds"] for row in published)
        target = TARGETS.get(str(case), min(row["upper"] for row in published) * (1 + TOLERANCE))
        kept = ours["upper"] <= target and ours["seconds"] <= least
        yield (
            f"{case}: program {ours['upper']:.5g} in {ours['seconds']:.3f} s; at most {target:.5g} in LipSDP's "
            f"{least:.3f} s: {verdict(kept)}"
        )
        form, theirs = of.loc[FIRST], of.loc[PUBLISHED_FORM]
        kept = form["upper"] <= theirs["label.formula"] and form["seconds"] <= SLOWER * theirs["seconds"]
        yield (
            f"{case}: first bound {form['upper']:.5g} in {1000 * form['seconds']:.1f} ms; at most Gen-Local's "
            f"{theirs['label.formula']:.5g} in {SLOWER} times its {1000 * theirs['seconds']:.2f} ms: {verdict(kept)}"
        )


def _joint(problem: Problem) -> float:
    with torch.no_grad():
        found = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=False, memory=2**30)
        bound = joint_bound(problem.network, found.gates, problem.functionals, found.gradients)
    return float(bound.upper[0])
