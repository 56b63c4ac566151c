"""Lines around gates."""

from __future__ import annotations

import pytest
import torch

from lipcompare.jacobian.lines import LineRule, chords, constants
from lipcompare.network import Interval


@pytest.mark.parametrize("rule", [chords, constants])
def test_lines_hold_the_product_and_chords_touch_its_corners(rule: LineRule) -> None:
    random = torch.Generator().manual_seed(1)
    ends = torch.randn(2, 200, generator=random, dtype=torch.float64).sort(0).values
    slopes = torch.randn(2, 200, generator=random, dtype=torch.float64).sort(0).values
    gradient, slope = Interval(ends[0], ends[1]), Interval(slopes[0], slopes[1])
    lines = rule(gradient, slope)
    offset = 0.0 if lines.offset is None else lines.offset
    gaps = []
    for a in slope:
        for j in (*gradient, gradient.center, torch.zeros_like(ends[0]).clamp(*gradient)):
            middle = lines.slope * j + offset
            spread = lines.slope_spread * j + lines.offset_spread
            assert bool((a * j <= middle + spread + 1e-12).all())
            assert bool((a * j >= middle - spread - 1e-12).all())
            gaps.append(torch.stack([middle + spread - a * j, a * j - middle + spread]))
    touched = torch.stack(gaps).amin(0)
    if rule is chords:
        assert float(touched.max()) < 1e-12
