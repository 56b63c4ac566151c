"""Data of the joint program, in rational arithmetic."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import torch
from quadratic.programs import maps_of

from lipcompare.quadratic.joint.program import JointData


def test_no_coordinate_is_larger_than_its_unit() -> None:
    """Gates that are what the rows say, ``K_i = sum_r c_r K_ri``: their units are at least the l2 norms, which ``c`` of
    length 1 attain, and no more than rounding takes above them. Rounded to nearest, half of the norms are below."""
    maps = maps_of(nets.problem(nets.dense(4, (3, 150, 150, 5)), 0.5, norm="2"))
    drawn = torch.randn(maps.reach.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = drawn * (maps.reach > 0)
    maps = dataclasses.replace(
        maps, gate_constant=drawn, gate_linear=torch.zeros_like(maps.gate_linear), reach=drawn.abs()
    )
    data = JointData.of(maps, torch.zeros(1, dtype=torch.bool))
    of_rows = data.gates[0, : data.rows, data.rows :].T.tolist()
    squares = [sum(Fraction(entry) ** 2 for entry in column) for column in of_rows]
    exists = data.mask[0, data.rows :].tolist()
    assert sum(exists) > 100
    assert all(1 - Fraction(1, 10**13) < s <= 1 for s, there in zip(squares, exists, strict=True) if there)
