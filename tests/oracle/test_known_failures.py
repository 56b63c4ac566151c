"""Problems on which bounds were once below the truth, with the truth in rational arithmetic."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Box, Norm, Problem, Status
from lipcompare.network import Activate, Affine, Input, LeakyReLU, Network, Node
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening
from lipcompare.questions import jacobian_bounds
from lipcompare.questions.certify import certified_radius
from lipcompare.questions.monotone import Direction, monotonicity
from lipcompare.questions.operator_norm import operator_norm_bounds
from lipcompare.testing import exact, hostile


def network(*layers: tuple[torch.Tensor, torch.Tensor]) -> Network:
    """A multi-layer perceptron with ReLUs from weights (outputs, inputs) and biases in float64."""
    nodes: list[Node] = [Input(layers[0][0].shape[1])]
    for number, (weight, bias) in enumerate(layers):
        if number:
            nodes.append(Activate(len(nodes) - 1, LeakyReLU(0.0), layers[number - 1][0].shape[0]))
        nodes.append(Affine((len(nodes) - 1,), (Dense(weight.double()),), bias.double()))
    return Network(tuple(nodes), (nodes[0].size,), (nodes[-1].size,))


def interval(net: Network, low: float, high: float, dtype: torch.dtype) -> Problem:
    ends = (torch.full((1, net.in_size), v, dtype=dtype) for v in (low, high))
    return Problem(net, Box(*ends), Norm.INF)


def check(problem: Problem, method: str) -> None:
    truth = exact.truth(problem)
    result = lipcompare.bound(problem, method, time_limit=5.0)
    assert truth.admits_upper(0, problem.norm, result.upper[0, 0]), (result.upper, truth.value(0, problem.norm))
    assert truth.admits_lower(0, problem.norm, result.lower[0, 0]), (result.lower, truth.value(0, problem.norm))
    assert result.status is not Status.CRASHED, result.detail


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["naive", "ibp", "recurjac", "lbp", "sdp", "enumerate", "bab", "auto"])
def test_terms_of_a_gradient_that_cancel(method: str, dtype: torch.dtype) -> None:
    """1-64-1, all neurons active: float32 said 0 for 2.4e-4, float64 1.48773215e-05 for 1.48773219e-05."""
    random = torch.Generator().manual_seed(3)
    weight = 100 * torch.randn(64, 1, generator=random, dtype=torch.float64)
    out = torch.randn(1, 64, generator=random, dtype=torch.float64)
    # The last term makes up for the others, but for what its own storage rounds.
    stored, first = out.to(dtype).double(), weight.to(dtype).double()
    out[0, -1] = -(stored[0, :-1] @ first[:-1, 0]) / first[-1, 0]
    net = network((weight, torch.full((64,), 1e4)), (out, torch.zeros(1)))
    check(interval(net, 0.0, 1.0, dtype), method)


@pytest.mark.parametrize(("size", "dtype"), [(1e6, torch.float32), (1e13, torch.float64)])
@pytest.mark.parametrize("method", ["naive", "ibp", "recurjac", "lbp", "sdp", "enumerate", "bab", "milp", "lp", "auto"])
def test_biases_that_later_layers_cancel(method: str, size: float, dtype: torch.dtype) -> None:
    """1-3-2-1-1 with large first biases: 0 was proved for 0.9; enumerate said EXACT 0."""
    for seed in range(4):
        random = torch.Generator().manual_seed(seed)

        def draw(*shape: int, random: torch.Generator = random) -> torch.Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        first, second, third, last = draw(3, 1), draw(2, 3), draw(1, 2), draw(1, 1)
        bias = size * (0.5 + draw(3).abs())
        # Exact: all numbers are stored ones, so that the kink lies inside the box in real numbers.
        cancel = -(second.to(dtype).double() @ bias.to(dtype).double())
        net = network((first, bias), (second, cancel), (third, 0.1 * draw(1)), (last, torch.zeros(1)))
        check(interval(net, -1.0, 1.0, dtype), method)


def test_a_slope_in_the_noise_is_not_called_constant() -> None:
    """1000 relu(x + 5) - 1000.01 relu(x + 5) falls with slope 0.01 everywhere."""
    weight = torch.tensor([[1000.0, -1000.01]])
    net = network((torch.ones(2, 1), torch.full((2,), 5.0)), (weight, torch.zeros(1)))
    answer = monotonicity(interval(net, -1.0, 1.0, torch.float32))
    assert answer.directions[0, 0, 0] in (Direction.DECREASING, Direction.UNDECIDED)
    assert monotonicity(interval(net, -1.0, 1.0, torch.float64)).directions[0, 0, 0] is Direction.DECREASING


@pytest.mark.parametrize("seed", range(3))
def test_deep_networks_are_not_constant(seed: int) -> None:
    """Random 10-6x100-3, radius 1e-4, float32: 'constant: proved' on 30 of 30."""
    random = torch.Generator().manual_seed(seed)
    sizes = [10, *[100] * 6, 3]
    layers = [
        (torch.randn(b, a, generator=random) * a**-0.5, 0.1 * torch.randn(b, generator=random))
        for a, b in itertools.pairwise(sizes)
    ]
    problem = Problem.around(network(*layers), 0.3, 1e-4, dtype=torch.float32)
    directions = monotonicity(problem, features=[0, 1], tightening=Tightening.INTERVAL).directions
    assert Direction.CONSTANT not in directions.flatten().tolist()


def test_a_kink_outside_the_box_does_not_count() -> None:
    """relu(x - 1) on [0.9, 1 - 1e-15] is 0: a tolerance at the kink once made it 1, EXACT."""
    net = network((torch.ones(1, 1), torch.tensor([-1.0])), (torch.ones(1, 1), torch.zeros(1)))
    box = Box(*(torch.tensor([[v]], dtype=torch.float64) for v in (0.9, 1 - 1e-15)))
    problem = Problem(net, box, Norm.INF)
    for method in ("attack", "enumerate", "bab", "milp", "auto"):
        result = lipcompare.bound(problem, method, time_limit=5.0)
        assert result.lower[0, 0] == 0.0, method


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize(("scale", "dtype"), [(1e-30, torch.float32), (1e-30, torch.float64), (1e-160, torch.float64)])
def test_extreme_scales(scale: float, dtype: torch.dtype, norm: str) -> None:
    """Weights of 1e-30 gave 0, those of 1e-160 an exception."""
    random = torch.Generator().manual_seed(0)
    layers = [(scale * torch.randn(b, a, generator=random).double(), torch.zeros(b)) for a, b in ((2, 3), (3, 1))]
    problem = Problem.around(network(*layers), 0.1, 1.0, norm=norm, dtype=dtype)
    truth = exact.truth(problem)
    for method in ("naive", "ibp", "recurjac", "lbp", "sdp"):
        upper = lipcompare.bound(problem, method).upper[0, 0]
        assert 0 < upper < 1e-20 and truth.admits_upper(0, problem.norm, upper), method


def test_a_bound_out_of_range_is_infinite() -> None:
    """Magnitudes beyond float32 once became its largest number, below a truth of 3.6e40."""
    problem = hostile.problem("scales", 20, "1", torch.float32)
    truth = exact.truth(problem)
    for method in ("naive", "ibp", "recurjac", "lbp"):
        assert truth.admits_upper(0, problem.norm, lipcompare.bound(problem, method).upper[0, 0]), method


@pytest.mark.parametrize("alphas", [(-1e200, 1.0, 1.0), (1.0, -1e200, 1.0), (1.0, 1.0, -1e200)])
@pytest.mark.parametrize("method", ["ibp", "recurjac", "lbp", "sdp", "lp", "milp", "bab", "lipbab", "exact"])
def test_what_underflows_is_multiplied_by_a_steep_side(method: str, alphas: tuple[float, ...]) -> None:
    """Two weights of 1e-170 before a slope of 1e200: bounds were 6.6e-321 for 1e-140."""
    weights, nodes = (1.0, 1e-170, 1e-170, 1.0), list[Node]([Input(1)])
    for weight, alpha in itertools.zip_longest(weights, alphas):
        nodes.append(Affine((len(nodes) - 1,), (Dense(torch.tensor([[weight]], dtype=torch.float64)),), None))
        if alpha is not None:
            nodes.append(Activate(len(nodes) - 1, LeakyReLU(alpha), 1))
    check(interval(Network(tuple(nodes), (1,), (1,)), -1.5, -0.5, torch.float64), method)


@pytest.mark.parametrize("method", ["ibp", "recurjac", "lbp", "sdp", "lipbab", "bab", "exact"])
def test_what_underflows_between_gates_is_multiplied_by_steep_weights(method: str) -> None:
    """Three gates one after another take 1 to 5e-401, and the weight that to 5e-101: 0 was called exact."""
    nodes: list[Node] = [
        Input(1),
        Affine((0,), (Dense(torch.tensor([[1e300]], dtype=torch.float64)),), -torch.ones(1, dtype=torch.float64)),
    ]
    nodes += [Activate(k + 1, LeakyReLU(alpha), 1) for k, alpha in enumerate((0.5, 1e-200, 1e-200))]
    nodes.append(Affine((4,), (Dense(torch.ones(1, 1, dtype=torch.float64)),), None))
    check(interval(Network(tuple(nodes), (1,), (1,)), -1e-301, 1e-301, torch.float64), method)


@pytest.mark.parametrize("method", ["sdp", "bab", "milp"])
def test_programs_with_numbers_out_of_range_leave_the_linear_bound(method: str) -> None:
    """Eigenvalues of a matrix with infinite entries ended these in a crash."""
    ends = (1e-170, 0.5), (1e-170, -1e200), (1.0, None)
    nodes = list[Node]([Input(1)])
    for weight, alpha in ends:
        nodes.append(Affine((len(nodes) - 1,), (Dense(torch.tensor([[weight]], dtype=torch.float64)),), None))
        if alpha is not None:
            nodes.append(Activate(len(nodes) - 1, LeakyReLU(alpha), 1))
    check(interval(Network(tuple(nodes), (1,), (1,)), -0.5, 0.5, torch.float64), method)


@pytest.mark.parametrize("norm", [Norm.INF, Norm.ONE])
@pytest.mark.parametrize("method", ["lp", "milp", "lipsdp", "enumerate", "bab", "lipbab", "attack", "auto"])
def test_a_network_beyond_float64_ends_with_a_status(method: str, norm: Norm) -> None:
    """Pre-activations of 1e400 whose gradients are 1e100: these ended in crashes, attack's value was NaN, and auto
    called that a contradiction."""
    weights = [[1e200], [-1e200]], [[1e200, -1e200], [-1e200, 1e200]], [[1e-300, 1e-300]]
    net = network(*((torch.tensor(v, dtype=torch.float64), torch.zeros(len(v))) for v in weights))
    problem = dataclasses.replace(interval(net, -1.0, 1.0, torch.float64), norm=norm)
    check(problem, method)


def test_a_program_is_compared_with_a_point_up_to_its_rounding() -> None:
    """Terms of 1e38 that cancel to 1e32: milp called the difference of both values a contradiction."""
    check(hostile.problem("extreme scales", 3111, "inf", torch.float32), "milp")


@pytest.mark.parametrize("method", ["lbp", "recurjac"])
def test_where_single_precision_matters_the_result_says_so(method: str) -> None:
    random = torch.Generator().manual_seed(3)
    weight, out = torch.randn(64, 1, generator=random), torch.randn(1, 64, generator=random)
    out[0, -1] = -(out[0, :-1] @ weight[:-1, 0]) / weight[-1, 0]
    net = network((weight, torch.full((64,), 1e3)), (out, torch.zeros(1)))
    said = {d: lipcompare.bound(interval(net, 0.0, 1.0, d), method).detail for d in (torch.float32, torch.float64)}
    assert "float64" in said[torch.float32] and not said[torch.float64]


def test_entries_out_of_range_are_unbounded() -> None:
    """Numbers beyond float32 that cancelled made both ends of an entry NaN."""
    bounds = jacobian_bounds(hostile.problem("scales", 21020, "1", torch.float32, boxes=32))
    assert np.isinf(bounds.lower).any() and (bounds.lower <= bounds.upper).all()


def test_radii_where_the_gradient_is_out_of_range() -> None:
    """A step of the search for a radius was not finite, and ended in an exception."""
    problem = hostile.problem("repeated neurons", 21041, "2", torch.float64, boxes=32)
    found = certified_radius(problem.network, problem.box.lower, norm="2", method="alpha-crown", largest=1.0, steps=4)
    assert (found.radius >= 0).all() and (found.radius <= 1).all()


def test_cuts_where_no_input_moves() -> None:
    """A box of one point at a kink has gates, but neither inputs nor outputs as coordinates: an IndexError."""
    problem = hostile.problem("sides without width", 22020, "inf", torch.float64, boxes=32).example(6)
    assert lipcompare.bound(problem, "sdp", cuts=20).status is Status.COMPLETE


def test_operator_norms_of_numbers_out_of_range() -> None:
    """A Jacobian beyond float32 once ended in a LinAlgError."""
    problem = hostile.problem("scales", 102, "inf", torch.float32)
    for bounding in ("naive", "ibp", "lbp"):
        found = operator_norm_bounds(problem.network, problem.box, "2", bounding)
        assert 0 <= found.lower[0] <= found.upper[0]
