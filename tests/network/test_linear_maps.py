"""Every linear map keeps the contract of its base class."""

from __future__ import annotations

import pytest
import torch

from lipcompare.network.linear_maps import (
    Composed,
    Conv,
    Dense,
    Identity,
    LinearMap,
    Scale,
    Select,
    Transposed,
)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _conv(weight, in_shape, stride=1, padding=0, dilation=1, groups=1) -> Conv:
    rank = len(in_shape) - 1
    each = lambda v: (v,) * rank if isinstance(v, int) else v  # noqa: E731
    return Conv(_random(*weight), in_shape, each(stride), each(padding), each(dilation), groups)


MAPS: dict[str, LinearMap] = {
    "identity": Identity(5),
    "dense": Dense(_random(4, 6)),
    "dense blocks": Dense(_random(4, 3), blocks=5),
    "conv1d": _conv((4, 3, 3), (3, 9), stride=2, padding=1),
    "conv2d": _conv((6, 2, 3, 2), (4, 7, 8), stride=(2, 3), padding=(1, 0), dilation=(2, 1), groups=2),
    "conv2d stride beyond kernel": _conv((2, 1, 1, 1), (1, 8, 7), stride=3),
    "conv2d leftover": _conv((2, 1, 2, 2), (1, 7, 7), stride=4),
    "conv3d": _conv((2, 3, 2, 2, 2), (3, 4, 5, 3), stride=2, padding=1),
    "depthwise": _conv((3, 1, 2, 2), (3, 5, 5), groups=3),
    "scale": Scale(_random(5)),
    "select": Select(torch.tensor([3, 0, 0, 2]), 5),
    "select with holes": Select(torch.tensor([-1, 3, 0, -1, 0, 4]), 5),
    "transposed conv": Transposed(_conv((4, 3, 3, 3), (3, 6, 6), stride=2, padding=1)),
    "transposed select": Transposed(Select(torch.tensor([1, 1, 4, 0, -1]), 6)),
    "composed": Composed(Dense(_random(3, 4)), Select(torch.tensor([2, -1, 0, 2]), 6)),
    "composed exact": Composed(Scale(_random(4)), Dense(_random(4, 6))),
}


@pytest.fixture(params=MAPS, ids=list(MAPS))
def linear(request: pytest.FixtureRequest) -> LinearMap:
    return MAPS[request.param]


@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3), (0,)], ids=str)
def test_adjoint_identity_and_shapes(linear: LinearMap, lead: tuple[int, ...]) -> None:
    x, y = _random(*lead, linear.in_size), _random(*lead, linear.out_size, seed=1)
    ax, aty = linear.forward(x), linear.adjoint(y)
    assert ax.shape == y.shape and aty.shape == x.shape
    torch.testing.assert_close((ax * y).sum(-1), (x * aty).sum(-1), rtol=1e-12, atol=1e-12)


def test_matrix_is_the_map(linear: LinearMap) -> None:
    matrix = linear.matrix()
    assert matrix.shape == (linear.out_size, linear.in_size)
    x = _random(4, linear.in_size)
    torch.testing.assert_close(linear.forward(x), x @ matrix.T, rtol=1e-12, atol=1e-12)
    assert int((matrix != 0).sum(1).max()) <= linear.fan_in
    some = torch.tensor([linear.in_size - 1, 0])
    torch.testing.assert_close(linear.columns(some, x), matrix.T[some], rtol=1e-12, atol=1e-12)


def test_absolute_is_the_matrix_of_absolute_values(linear: LinearMap) -> None:
    absolute, matrix = linear.absolute.matrix(), linear.matrix().abs()
    assert bool((absolute >= matrix - 1e-13).all())
    if not isinstance(linear, Composed) or isinstance(linear.outer, Scale):
        torch.testing.assert_close(absolute, matrix, rtol=1e-13, atol=1e-13)
    assert linear.absolute is linear.absolute  # computed once


def test_signs_of_the_adjoint_are_those_of_its_terms(linear: LinearMap) -> None:
    """Against the matrix; for a composition, whose entries are sums themselves, against its factors' matrices."""
    y = torch.randint(-1, 2, (3, linear.out_size), generator=torch.Generator().manual_seed(0)).double()
    rises, falls = (y > 0).double(), (y < 0).double()
    rises[2], falls[2] = 1.0, 2.0  # of either sign, counted twice as sums of branches may be
    found = linear.adjoint_signs(torch.stack([falls, rises]))
    for m in (linear.outer, linear.inner) if isinstance(linear, Composed) else (linear,):
        above, below = m.matrix().clamp(min=0), (-m.matrix()).clamp(min=0)
        rises, falls = (rises @ above + falls @ below).sign(), (falls @ above + rises @ below).sign()
    torch.testing.assert_close(found[0], falls, rtol=0, atol=0)
    torch.testing.assert_close(found[1], rises, rtol=0, atol=0)


def test_to_changes_precision_and_keeps_indices(linear: LinearMap) -> None:
    single = linear.to(torch.device("cpu"), torch.float32)
    x = _random(2, linear.in_size)
    assert single.forward(x.float()).dtype == torch.float32
    torch.testing.assert_close(single.forward(x.float()).double(), linear.forward(x), rtol=1e-4, atol=1e-4)


def test_autograd_through_a_map_is_its_adjoint(linear: LinearMap) -> None:
    x, y = _random(linear.in_size).requires_grad_(), _random(linear.out_size, seed=1)
    (gradient,) = torch.autograd.grad((linear.forward(x) * y).sum(), x)
    torch.testing.assert_close(gradient, linear.adjoint(y), rtol=1e-12, atol=1e-12)
