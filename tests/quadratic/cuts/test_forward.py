"""Inputs in the semidefinite program: every form, link and cut holds at real inputs, and the bounds at enumeration."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Network, Problem
from lipcompare.gates import Conflicts, Coupling, Gates
from lipcompare.jacobian import gradient_intervals, norm_bound
from lipcompare.methods import Sdp
from lipcompare.network import Affine
from lipcompare.network.interval import Interval
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.probing import probe
from lipcompare.quadratic.cuts.forms import SIGN, Group, chords, forward_forms, sign_sides
from lipcompare.quadratic.cuts.forward import (
    INPUT,
    OUTPUT,
    Joined,
    forward_maps,
    with_forward,
)
from lipcompare.quadratic.cuts.pairs import conflict_pairs, equations, links
from lipcompare.quadratic.cuts.separation import CutFamily, Tightened, tighten, with_signs
from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import Cuts, GateMaps, SdpData, gate_maps, l1_data
from lipcompare.quadratic.scaling import rescaled
from lipcompare.quadratic.solver.interior_point import solve

KINKED = ("concatenation", "conv", "dense", "leaky", "pooling", "residual")


def setting(problem: Problem) -> tuple[SdpData, GateMaps, Coupling, Gates]:
    network, box = problem.network, problem.box.interval
    bounds, conflicts = probe(network, box, preactivation_bounds(network, box, Tightening.CROWN))
    gates = Gates.from_preactivations(network, bounds)
    gradients = gradient_intervals(network, gates, problem.functionals)
    linear = norm_bound(network, problem.functionals, gradients, problem.norm)
    maps = gate_maps(network, gates, problem.functionals, gradients)
    example, row = (linear > 0).nonzero(as_tuple=True)
    data = l1_data(maps, gradients, linear[example, row], example, row)
    return rescaled(data, explore(data)), maps, Coupling(box, bounds, conflicts), gates


def joined_of(problem: Problem) -> tuple[SdpData, GateMaps, Coupling, Joined]:
    data, maps, coupling, _ = setting(problem)
    signed = with_signs(data, solve(data).moments, 64)
    forward = forward_maps(problem.network, coupling)
    varying = (maps.gate_linear != 0).any(1)
    return data, maps, coupling, with_forward(signed, forward, maps.coordinates.count, varying, data.example)


def points(problem: Problem, rows: SdpData, maps: GateMaps, coupling: Coupling, joined: Joined) -> torch.Tensor:
    """The coordinates (problems, points, n) that inputs give, kinks aside, by the network's own passes."""
    network, names, data = problem.network, joined.data.coordinates, joined.data
    gates = Gates.from_preactivations(network, coupling.bounds)
    low, high = problem.box.interval
    count = 300
    w = torch.zeros(data.problems, count, data.size, dtype=torch.float64)
    w[..., 0] = 1
    unit = torch.rand(count, network.in_size, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    unit[: count // 4] = unit[: count // 4].round()
    for p in range(data.problems):
        b, functional = int(rows.example[p]), problem.functionals[rows.example[p], rows.row[p]].expand(count, -1)
        values = network.values(low[b] + unit * (high[b] - low[b]))
        slopes = network.slopes(values)
        gradient = network.pull_back(slopes, functional)
        for c in data.mask[p, 1:].nonzero().squeeze(-1).add(1).tolist():
            node, neuron = int(names.node[c]), int(names.neuron[p, c])
            if node > 0:
                jump = slopes[node][:, neuron] - gates.slopes[node].lower[b, neuron]
                w[p, :, c] = jump * network.pull_back(slopes, functional, stop=node)[:, neuron] / data.radius[p, c]
            elif node == SIGN:
                w[p, :, c] = torch.where(gradient[:, neuron] >= 0, 1.0, -1.0)
            elif node == INPUT:
                w[p, :, c] = unit[:, neuron]
            elif node <= OUTPUT:
                z = values[network.nodes[OUTPUT - node].parents[0]][:, neuron]
                w[p, :, c] = z.clamp(min=0) / coupling.bounds[OUTPUT - node].upper[b, neuron]
        for g in joined.side[p].nonzero().squeeze(-1).tolist():
            node, neuron = int(maps.coordinates.node[g]), int(maps.coordinates.neuron[b, g])
            high_slope = gates.slopes[node].upper[b, neuron]
            w[p, :, joined.side[p, g]] = (slopes[node][:, neuron] == high_slope).double()
    return w


def products(w: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    return (w @ cuts.left) * (w @ cuts.right)


SIZES = {"conv": 1}  # examples, two of the others; it has the most neurons
PROBLEMS = {f: nets.problem(nets.FAMILIES[f](7), 0.4, batch=SIZES.get(f, 2)) for f in KINKED}


@pytest.mark.parametrize("family", KINKED)
def test_equations_forms_and_links_hold_at_inputs(family: str) -> None:
    problem = PROBLEMS[family]
    rows, maps, coupling, joined = joined_of(problem)
    w = points(problem, rows, maps, coupling, joined)
    data = joined.data
    own = 2 * (w @ data.columns) * w  # w_i (w_i - K_i)
    expected = data.right.unsqueeze(1).expand_as(own)
    torch.testing.assert_close(own, expected, atol=1e-9, rtol=0)
    forms = sign_sides(data) + chords(data, maps, rows.example, rows.row)
    forms = forms + forward_forms(joined, maps, rows.example, rows.row)
    assert forms.count > 40
    assert bool((w @ forms.columns >= -1e-9 - forms.error.unsqueeze(1)).all())
    tied = links(joined)
    excluded = equations(data, *conflict_pairs(coupling.conflicts, maps.coordinates, rows.example))
    for cuts in (tied, excluded):
        value = products(w, cuts)
        assert bool((value >= -1e-9).all())
        assert bool((value.abs() <= 1e-9).masked_fill(~cuts.equal.unsqueeze(1), True).all())
    assert tied.count > 0


@pytest.mark.parametrize(("high", "errs"), [((True, True), False), ((False, True), True), ((True, False), True)])
def test_errors_of_gates_are_in_equations_of_low_states(high: tuple[bool, bool], errs: bool) -> None:
    """A high one is ``v`` itself, a low one ``K - v``."""
    data = setting(PROBLEMS["dense"])[0]
    data = dataclasses.replace(data, gate_slack=0.01 * data.mask)
    pairs = torch.tensor([1, 2]).expand(data.problems, 1, 2)
    cuts = equations(data, pairs, torch.tensor(high).expand(data.problems, 1, 2))
    assert bool(cuts.mask.any()) and bool(((cuts.slack > 1e-4) == errs)[cuts.mask].all())


def test_errors_of_gates_are_in_the_forms_that_read_them() -> None:
    """Sides and links of gates with a constant gradient, faces of the others."""
    data, maps, _, joined = joined_of(PROBLEMS["dense"])
    rough = dataclasses.replace(joined.data, gate_slack=joined.data.gate_slack + 0.01 * joined.data.mask)
    fine, worse = (
        forward_forms(dataclasses.replace(joined, data=d), maps, data.example, data.row) for d in (joined.data, rough)
    )
    more = ((worse.error - fine.error > 1e-4) & (worse.columns != 0).any(1)).sum(0)
    exists = joined.data.mask[:, 1 : maps.coordinates.count]
    sided, plain = (int((some & exists).sum()) for some in (joined.side[:, 1:] > 0, joined.side[:, 1:] == 0))
    assert sided > 0 and plain > 0
    assert int(more[worse.group == Group.SIDE].sum()) == 2 * plain
    assert int(more[worse.group == Group.FORWARD].sum()) == 2 * sided + 2 * plain


def test_faces_hold_where_a_gates_gradient_is_at_an_end_of_its_interval() -> None:
    """``v <= u a`` and ``v >= l a`` at ``a = 1`` and ``v = K``, in rational arithmetic: ``u`` and ``l`` are scaled, and
    so are the forms, which rounds even where the maps do not err."""
    data, maps, coupling, _ = setting(PROBLEMS["dense"])
    data = dataclasses.replace(data, gate_slack=torch.zeros_like(data.gate_slack))
    signed = with_signs(data, torch.zeros_like(data.columns), 64)
    varying = (maps.gate_linear != 0).any(1)
    forward = forward_maps(PROBLEMS["dense"].network, coupling)
    joined = with_forward(signed, forward, maps.coordinates.count, varying, data.example)
    forms = forward_forms(joined, maps, data.example, data.row)
    seen = 0
    for p, g in joined.side.nonzero().tolist():
        side, ends = int(joined.side[p, g]), [end[data.example[p], data.row[p], g] for end in maps.gate_interval]
        pair = forms.columns[p, [side, g]]
        faces = (pair != 0).all(0) & ((forms.columns[p] != 0).sum(0) == 2)
        for f in faces.nonzero().squeeze(-1).tolist():
            of_side, of_gate = (Fraction(float(c)) for c in pair[:, f])
            v = Fraction(float(ends[of_gate < 0])) / Fraction(float(joined.data.radius[p, g]))
            assert 0 <= of_side + of_gate * v <= Fraction(1, 10**12)
            seen += 1
    assert seen > 20


@pytest.mark.parametrize("family", KINKED)
@pytest.mark.parametrize("kind", [CutFamily.CONFLICT, CutFamily.FORWARD, CutFamily.ALL])
def test_cuts_hold_at_inputs_and_bounds_above_them(family: str, kind: CutFamily) -> None:
    problem = PROBLEMS[family]
    rows, maps, coupling, joined = joined_of(problem)
    found = tighten(
        rows, solve(rows), maps, rows.example, rows.row, cuts=120, tolerance=1e-4, family=kind,
        network=problem.network, coupling=coupling,
    )  # fmt: skip
    sampled = nets.sampled_norms(problem).to(problem.device)[rows.example, rows.row]
    assert bool((found.upper >= sampled * (1 - 1e-12)).all())
    if found.data.size == joined.data.size:
        w = points(problem, rows, maps, coupling, joined)
        data = found.data
        assert bool((products(w, data.cuts) >= -1e-9).all())


def test_the_maps_are_the_networks_own() -> None:
    """Pushed forward, the coordinates of an input give its pre-activations."""
    problem = PROBLEMS["residual"]
    rows, maps, coupling, joined = joined_of(problem)
    w = points(problem, rows, maps, coupling, joined)
    forward = joined.forward
    ahead = w[..., joined.first :]
    z = forward.constant.unsqueeze(1) + ahead @ forward.linear
    outputs = forward.coordinates.present[:, forward.inputs :].unsqueeze(1)
    bent = z[..., forward.inputs :].clamp(min=0)
    torch.testing.assert_close(bent * outputs, ahead[..., forward.inputs :] * outputs, atol=1e-9, rtol=0)


@pytest.mark.parametrize("end", [0, 1])
def test_a_neuron_that_ends_at_its_kink_has_one_side(end: int) -> None:
    """Its slope has a range, of which the wrong end once passed its value on."""
    posed = nets.problem(nets.dense(0, (2, 3, 3, 1)), 0.4)
    network, box = posed.network, posed.box.interval
    first, second = network.activations
    bounds = dict(preactivation_bounds(network, box, Tightening.INTERVAL))
    low, high = bounds[first]
    bounds[first] = Interval(torch.zeros_like(low), high.abs()) if end == 0 else Interval(-low.abs(), 0 * high)
    wide = torch.ones_like(low)
    bounds[second] = Interval(-wide, wide)
    forward = forward_maps(network, Coupling(box, bounds, Conflicts.none(low.device)))
    x = box.lower + 0.5 * (box.upper - box.lower)
    values = network.values(x)
    z = values[1] if end == 0 else torch.zeros_like(values[1])
    node = network.nodes[3]
    assert isinstance(node, Affine) and node.bias is not None
    expected = node.maps[0].forward(z) + node.bias
    said = forward.constant + 0.5 * forward.linear[:, : forward.inputs].sum(1)
    torch.testing.assert_close(said[:, forward.inputs :], expected)


@settings(max_examples=5)
@given(
    network=st.builds(lambda family, seed: nets.FAMILIES[family](seed), st.sampled_from(KINKED), st.integers(0, 10**6)),
    eps=st.sampled_from([0.1, 0.3, 0.6]),
)
def test_with_cuts_the_bound_stays_above_the_exact_value(network: Network, eps: float) -> None:
    problem = nets.problem(network, eps)
    exact = lipcompare.bound(problem, "enumerate")
    if not np.isfinite(exact.overall_upper[0]):  # too many undecided neurons to enumerate
        return
    plain = lipcompare.bound(problem, Sdp(tightening=Tightening.CROWN))
    cut = lipcompare.bound(problem, Sdp(tightening=Tightening.CROWN, cuts=120))
    assert cut.overall_upper[0] >= exact.overall_lower[0] * (1 - 1e-12)
    assert cut.overall_upper[0] <= plain.overall_upper[0] * (1 + 1e-9)


def test_inputs_close_what_free_gates_cannot() -> None:
    """The constant of free gates is above the true one, and cuts that know the inputs go below it."""
    closer = 0
    for seed in range(4):
        problem = nets.problem(nets.dense(seed, (3, 6, 5, 2)), 0.4)
        exact = float(lipcompare.bound(problem, "enumerate").overall_upper[0])
        plain = float(lipcompare.bound(problem, Sdp(tightening=Tightening.CROWN)).overall_upper[0])
        cut = float(lipcompare.bound(problem, Sdp(tightening=Tightening.CROWN, cuts=200)).overall_upper[0])
        gates = float(nets.free_gate_maximum(problem).max())
        assert exact * (1 - 1e-9) <= cut <= plain * (1 + 1e-9)
        if plain > exact * 1.001:
            assert plain - cut >= 0.5 * (plain - exact)
        closer += cut < gates * (1 - 1e-3)
    assert closer >= 2


def test_a_batch_gives_what_its_examples_give() -> None:
    together = PROBLEMS["dense"]
    method = Sdp(tightening=Tightening.CROWN, cuts=80, all_rows=True)
    result = lipcompare.bound(together, method).upper
    for b in range(together.batch):
        alone = lipcompare.bound(together.example(b), method).upper
        torch.testing.assert_close(torch.as_tensor(result[b : b + 1]), torch.as_tensor(alone), rtol=3e-3, atol=0)


def test_rows_that_stop_early_are_taken_up_again() -> None:
    """Where cuts push the largest row under the pattern that made another one stop, that one gets cuts too."""
    problem = nets.problem(nets.dense(0, (3, 6, 5, 4)), 0.4)  # without that, its bound is 97 % higher
    every = lipcompare.bound(problem, Sdp(tightening=Tightening.CROWN, cuts=120, all_rows=True))
    largest = lipcompare.bound(problem, Sdp(tightening=Tightening.CROWN, cuts=120))
    np.testing.assert_allclose(largest.overall_upper, every.overall_upper, rtol=1e-3)


def test_little_memory_changes_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs with cuts are larger than those without: where memory is short they are solved one by one."""
    problem = PROBLEMS["dense"]
    method = Sdp(tightening=Tightening.CROWN, cuts=60, all_rows=True)
    batches: list[int] = []

    def counted(data: SdpData, *arguments: object, **options: object) -> Tightened:
        batches.append(data.problems)
        return tighten(data, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("lipcompare.quadratic.bound.tighten", counted)
    plenty = lipcompare.bound(problem, method, memory=2**30).upper
    assert max(batches) > 1
    batches.clear()
    little = lipcompare.bound(problem, method, memory=2**22).upper
    assert set(batches) == {1}
    np.testing.assert_allclose(plenty, little, rtol=1e-6)
