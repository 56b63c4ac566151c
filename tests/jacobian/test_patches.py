"""The recursion on patches equals the one on whole images, for every period of positions."""

from __future__ import annotations

import images
import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Network
from lipcompare.budget import Deadline
from lipcompare.gates import Gates
from lipcompare.jacobian import gradient_intervals, linear, passes, patches
from lipcompare.network import Interval
from lipcompare.preactivation import interval_bounds


@settings(max_examples=15)
@given(images.conv_networks(), st.sampled_from([torch.float64, torch.float32]), st.integers(1, 2))
def test_equal_to_whole_images(network: Network, dtype: torch.dtype, batch: int) -> None:
    problem = nets.problem(network, 0.1, batch=batch)
    network = network.to("cpu", dtype)
    box = Interval(*(v.to(dtype) for v in problem.box.interval))
    functionals = problem.functionals.to(dtype)
    gates = Gates.from_preactivations(network, interval_bounds(network, box))
    tolerance = 1e-12 if dtype is torch.float64 else 3e-5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "plan", lambda network, node: None)
        whole = gradient_intervals(network, gates, functionals)
    shapes = patches.grids(network)
    random = torch.Generator().manual_seed(batch)
    for k, interval in whole.intervals.items():
        if len(shapes[k]) == 1 or k in whole.constant:
            continue
        relaxed = {j: linear._relaxed(line, whole, j) for j, line in whole.lines.items()}
        far = torch.full_like(interval.lower, 1e9)
        asked = torch.rand(far.shape, generator=random) < 0.5
        eye = torch.eye(far.shape[-1], dtype=dtype)
        upper = passes.push_forward(network, functionals, whole, k, torch.cat([eye, -eye]))
        high, low = upper.split(far.shape[-1], dim=-1)
        scale = max(1.0, float(upper.abs().max()))
        for period in patches._periods(network, k):
            how = patches.Plan(period, patches._costs(network, k, period))
            found = patches.bounded_entries(
                network, functionals, relaxed, k, Interval(-far, far), asked, how, memory=2**15, deadline=Deadline()
            )
            torch.testing.assert_close(found.upper[asked], high[asked], rtol=tolerance, atol=tolerance * scale)
            torch.testing.assert_close(found.lower[asked], -low[asked], rtol=tolerance, atol=tolerance * scale)
            assert bool((found.upper[~asked] > 1e8).all() and (found.lower[~asked] < -1e8).all())


def test_large_images_go_on_patches() -> None:
    """Otherwise nothing would be saved."""
    b = nets.Builder(3 * 16 * 16, 0)
    grid: tuple[int, ...] = (3, 16, 16)
    for stride in (2, 1):
        m = images.Conv(b.weights(4, grid[0], 3, 3), grid, (stride,) * 2, (1, 1), (1, 1))
        b.affine((b.last, m))
        b.activate()
        grid = m.out_shape
    b.dense(8)
    b.activate()
    b.dense(3)
    how = patches.plan(b.build(), 0)
    assert how is not None and how.period == (2, 2) and how.costs.windows < how.costs.images / 3
