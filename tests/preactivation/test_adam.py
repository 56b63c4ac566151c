"""Adam, against the paper's formulas (torch's own takes seconds to import)."""

from __future__ import annotations

import math

import torch

from lipcompare.preactivation.adam import Moments, adam_step


def test_it_is_adam_clipped_to_the_unit_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    point = torch.rand(20, generator=generator, dtype=torch.float64)
    expected, first, second = point.tolist(), [0.0] * 20, [0.0] * 20
    moments = Moments.like(point)
    for number in range(1, 20):
        gradient = torch.randn(20, generator=generator, dtype=torch.float64)
        adam_step(point, gradient, moments, number, 0.1)
        for i, g in enumerate(gradient.tolist()):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            unbiased = first[i] / (1 - 0.9**number), second[i] / (1 - 0.999**number)
            expected[i] = min(1.0, max(0.0, expected[i] - 0.1 * unbiased[0] / (math.sqrt(unbiased[1]) + 1e-8)))
        torch.testing.assert_close(point, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert 0.0 in expected and 1.0 in expected


def test_a_negative_rate_goes_up() -> None:
    point = torch.full((1,), 0.5)
    adam_step(point, torch.ones(1), Moments.like(point), 1, -0.1)
    assert float(point) > 0.5
