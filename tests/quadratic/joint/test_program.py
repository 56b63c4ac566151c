"""Data of the joint program, in rational arithmetic."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import nets
import pytest
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


def test_errors_of_gates_are_those_of_all_rows_in_the_gates_units() -> None:
    """A ``c`` of length 1 adds up to the l2 norm of them; no more than their sum is charged."""
    maps = maps_of(nets.problem(nets.dense(4, (3, 12, 12, 5)), 0.5, norm="2"))
    random = torch.Generator().manual_seed(1)
    reach, error = (0.1 + torch.rand(maps.reach.shape, generator=random, dtype=torch.float64) for _ in range(2))
    reach, error = 7 * reach * (maps.reach > 0), 1e-3 * error
    data = JointData.of(
        dataclasses.replace(maps, gate_constant=reach, gate_error=error, reach=reach), torch.zeros(1, dtype=torch.bool)
    )
    exists = data.mask[0, data.rows :]
    assert int(exists.sum()) > 10
    radius = (reach[0, 0, 1:] / data.gates[0, 0, data.rows :])[exists]
    charged, of_rows = data.gate_slack[0, data.rows :][exists] * radius, error[0, :, 1:][:, exists]
    assert bool((charged >= torch.linalg.vector_norm(of_rows, dim=0)).all())
    assert bool((charged <= of_rows.sum(0) * (1 + 1e-12)).all())
    assert not bool(data.gate_slack[0, : data.rows].any())


@pytest.mark.parametrize("kind", ["entry_error", "entry_drift"])
def test_errors_of_entries_are_those_of_all_rows(kind: str) -> None:
    """The sum of squares at the ``c`` that has a part of every row, with all of them off the same way."""
    maps = maps_of(nets.problem(nets.dense(4, (3, 5, 5, 6)), 0.5, norm="2"))
    none, small = torch.zeros_like(maps.entry_error), torch.full_like(maps.entry_error, 1e-3)
    maps = dataclasses.replace(
        maps, entry_constant=small, entry_linear=torch.zeros_like(maps.entry_linear), entry_error=none, entry_drift=none
    )
    off = torch.ones_like(none)
    data = JointData.of(dataclasses.replace(maps, **{kind: off}), torch.zeros(1, dtype=torch.bool))
    c = torch.full((data.rows,), data.rows**-0.5, dtype=torch.float64)
    change = (c @ (small + off)[0]).square().sum() - (c @ small[0]).square().sum()
    charged = float(data.slack * data.scale)
    assert float(change) <= charged <= 10 * float(change)
