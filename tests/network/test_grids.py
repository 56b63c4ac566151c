"""Windows of convolutions, entry by entry, and the shapes that a network's values have as images."""

from __future__ import annotations

import pytest
import torch
from nets import Builder

from lipcompare.network.grids import Frame, between, clipped, factors, grids, reached, spread, whole
from lipcompare.network.linear_maps import Composed, Conv, Identity, Scale, Transposed


def conv(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Conv:
    """Along one axis, with ones: the entries of its matrix are where it reads and writes."""
    return Conv(torch.ones(1, 1, kernel, dtype=torch.float64), (1, size), (stride,), (padding,), (dilation,))


CONVS = [conv(9, 3, 1, 1, 1), conv(10, 2, 2, 0, 1), conv(11, 3, 1, 2, 2), conv(12, 2, 3, 1, 2), conv(9, 1, 2, 0, 1)]


@pytest.mark.parametrize("m", CONVS)
def test_an_entry_reads_its_window(m: Conv) -> None:
    """The first and last input that outputs t to t + 1 read, and no window of another size would do."""
    matrix = m.adjoint(torch.eye(m.out_size, dtype=torch.float64))
    frame = spread(m, Frame((0,), (1,), (2,)))
    for t in range(m.out_size - 1):
        read = {i for row in matrix[t : t + 2] for i in row.nonzero().flatten().tolist()}
        first = frame.offset[0] + frame.step[0] * t
        window = range(first, first + frame.size[0])
        assert read <= set(window)
        inside = [i for i in (window[0], window[-1]) if 0 <= i < m.in_size]
        assert set(inside) <= read


@pytest.mark.parametrize("m", CONVS)
def test_an_entry_reaches_its_window(m: Conv) -> None:
    matrix = m.forward(torch.eye(m.in_size, dtype=torch.float64))
    stride = m.stride[0]
    frame = reached(m, Frame((0,), (stride,), (1,)))
    assert frame is not None
    for t in range((m.in_size - 1) // stride + 1):
        written = set(matrix[t * stride].nonzero().flatten().tolist())
        first = frame.offset[0] + frame.step[0] * t
        assert written <= set(range(first, first + frame.size[0]))
    if stride > 1:
        assert reached(m, Frame((0,), (1,), (1,))) is None


def test_windows_that_cover_two() -> None:
    first, second = Frame((-1, 0), (1, 2), (2, 1)), Frame((0, 3), (1, 2), (4, 1))
    assert first.union(second) == second.union(first) == Frame((-1, 0), (1, 2), (5, 4))
    assert first.union(Frame((0, 0), (1, 1), (1, 1))) is None


def test_windows_that_stay_inside() -> None:
    frame = Frame((0, 1), (1, 2), (3, 2))
    assert frame.inside((5, 7), (3, 3)) and frame.volume == 6
    assert not frame.inside((4, 7), (3, 3)) and not frame.inside((5, 6), (3, 3))
    assert not Frame((-1, 0), (0, 0), (2, 2)).inside((5, 5), (1, 1))


def test_only_windows_that_do_not_move_are_cut() -> None:
    assert clipped(Frame((-2, 1), (0, 0), (4, 9)), (3, 5)) == Frame((0, 1), (0, 0), (2, 4))
    moving = Frame((-2, 1), (0, 1), (4, 9))
    assert clipped(moving, (3, 5)) == moving


def test_convolutions_state_the_shapes_of_values() -> None:
    """And hand them on, through activations and sums, forwards and backwards; a dense layer has none."""
    b = Builder(16, 0)
    first = Conv(b.weights(2, 1, 3, 3), (1, 4, 4), (1, 1), (1, 1), (1, 1))
    b.affine((0, Identity(16)))
    b.activate()
    b.affine((b.last, first))
    b.activate()
    b.affine((b.last, Scale(b.weights(32))))
    b.dense(3)
    network = b.build()
    assert grids(network) == ((1, 4, 4),) * 3 + ((2, 4, 4),) * 3 + ((3,),)


def test_shapes_between_the_factors_of_a_product() -> None:
    inner, outer = conv(9, 3, 1, 1, 1), conv(9, 3, 3, 0, 1)
    product = Composed(outer, inner)
    assert factors(product) == (inner, outer)
    back = factors(Transposed(product))
    assert [f.base for f in back if isinstance(f, Transposed)] == [outer, inner]
    scale = Scale(torch.ones(9, dtype=torch.float64))
    assert factors(Transposed(Composed(Transposed(inner), scale))) == (inner, scale)
    assert between(product, (1, 9), (1, 3)) == ((1, 9), (1, 9), (1, 3))
    assert between(Transposed(product), (1, 3), (1, 9)) == ((1, 3), (1, 9), (1, 9))
    assert whole((1, 9)) == Frame((0,), (0,), (9,))
