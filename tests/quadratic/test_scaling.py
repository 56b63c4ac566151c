"""Units change numbers, not problems: the same values, limits and errors, in sizes near 1."""

from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from quadratic.programs import data_of

from lipcompare.quadratic.patterns import evaluate, explore, random_patterns
from lipcompare.quadratic.scaling import rescaled


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_values_and_points_are_those_of_before(norm: str) -> None:
    data = data_of(nets.problem(nets.dense(7, (3, 7, 6, 2), 0.2), 0.4, batch=2, norm=norm))
    data = dataclasses.replace(data, slack=data.slack + 0.1, gate_slack=data.gate_slack + 0.2 * data.mask)
    scaled = rescaled(data, explore(data))
    high = random_patterns(data, 20)
    before, after = evaluate(data, high), evaluate(scaled, high)
    value = (before.values + data.offset.unsqueeze(-1)) * data.scale.unsqueeze(-1)
    torch.testing.assert_close((after.values + scaled.offset.unsqueeze(-1)) * scaled.scale.unsqueeze(-1), value)
    # v_i = radius_i w_i is a gate's own value, whatever its unit; it is within the same limits.
    own, same = (p.points * d.radius.unsqueeze(1) for p, d in ((before, data), (after, scaled)))
    torch.testing.assert_close(same, own)
    torch.testing.assert_close(scaled.limit * scaled.radius, data.limit * data.radius)
    torch.testing.assert_close(scaled.slack * scaled.scale, data.slack * data.scale)
    torch.testing.assert_close(scaled.gate_slack * scaled.radius, data.gate_slack * data.radius)
    torch.testing.assert_close(2 * (after.points @ scaled.columns) * after.points,
                               data.right.unsqueeze(1).expand_as(after.points), atol=1e-9, rtol=0)  # fmt: skip


def test_sizes_and_the_optimum_are_near_one() -> None:
    data = data_of(nets.problem(nets.dense(4, (5, 12, 12, 12, 3)), 0.6))
    patterns = explore(data)
    scaled = rescaled(data, patterns)
    points = patterns.points * (data.radius / scaled.radius).unsqueeze(1)
    for start, stop in data.ranges:
        exists = data.mask[:, start:stop]
        mean = points[:, :, start:stop].square().mean(1).masked_fill(~exists, 0).sum(-1) / exists.sum(-1)
        torch.testing.assert_close(mean, torch.ones_like(mean))
    # The best pattern's value is the optimum's, or a little less.
    best = evaluate(scaled, patterns.high).values.amax(-1)
    torch.testing.assert_close(best, torch.full_like(best, 1 / 1.1))
    assert bool((scaled.trace <= scaled.bound).all())
    assert bool((scaled.trace <= 3 * data.mask.sum(-1)).all())


def test_what_patterns_say_nothing_of_keeps_its_unit() -> None:
    data = data_of(nets.problem(nets.dense(7, (3, 7, 6, 2)), 0.4))
    low = torch.zeros(data.problems, 3, data.size, dtype=torch.bool, device=data.radius.device)
    low[..., 0] = True
    scaled = rescaled(data, evaluate(data, low))
    torch.testing.assert_close(scaled.radius, data.radius)
