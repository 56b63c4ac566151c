"""Entries of the Jacobian and its products with vectors: they hold, and say what is wrong."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from questions.samples import entries_at, samples

from lipcompare import InvalidInput, Network, NormBall, Problem
from lipcompare.questions import directional_bounds, jacobian_bounds, monotonicity


@settings(max_examples=25, deadline=None)
@given(
    network=nets.networks(),
    eps=st.sampled_from([0.0, 0.1, 0.5]),
    bounding=st.sampled_from(["ibp", "lbp"]),
    ball=st.booleans(),
)
def test_entries_and_products_hold(network: Network, eps: float, bounding: str, ball: bool) -> None:
    center = torch.full((2, network.in_size), 0.4, dtype=torch.float64)
    box = NormBall.around(center, eps, "2" if ball else "inf")
    problem = Problem(network, box)
    seen = entries_at(problem, samples(problem))
    bounds = jacobian_bounds(problem, bounding)
    assert bounds.lower.shape == (2, network.out_size, network.in_size)
    assert (bounds.lower <= seen.min(1)).all() and (bounds.upper >= seen.max(1)).all()
    vectors = torch.randn(3, network.in_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products = directional_bounds(problem, vectors, bounding)
    along = seen @ vectors.numpy().T
    assert (products.lower <= along.min(1)).all() and (products.upper >= along.max(1)).all()
    middle, radius = (bounds.upper + bounds.lower) / 2, (bounds.upper - bounds.lower) / 2
    reach = middle @ vectors.numpy().T + radius @ np.abs(vectors.numpy()).T
    assert (products.upper <= reach + 1e-9).all()


def test_a_product_is_tighter_than_its_entries() -> None:
    problem = nets.problem(nets.dense(0, (5, 12, 12, 2)), 0.4)
    ones = torch.ones(1, 5, dtype=torch.float64)
    product, entries = directional_bounds(problem, ones), jacobian_bounds(problem)
    assert (product.upper[..., 0] < entries.upper.sum(-1) * (1 - 1e-3)).any()


def test_bad_questions_are_named() -> None:
    problem = nets.problem(nets.dense(0), 0.1)
    with pytest.raises(InvalidInput, match="Directions have shape"):
        directional_bounds(problem, torch.ones(2))
    with pytest.raises(InvalidInput, match="Unknown relaxation 'naive'"):
        jacobian_bounds(problem, "naive")
    with pytest.raises(InvalidInput, match="indices"):
        monotonicity(problem, [7])
