"""Whatever the caller has set in torch, runs give the same values and leave it as it was."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Problem
from lipcompare.network import environment
from lipcompare.questions import jacobian_bounds, monotonicity, operator_norm_bounds


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def fewer_bits() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


SETTINGS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": default_dtype,
    "default device": lambda: torch.device("meta"),
    "fewer bits": fewer_bits,
}


def module() -> torch.nn.Module:
    layers = torch.nn.Linear(3, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)
    made = torch.nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


MODULE = module()


def state() -> tuple[object, ...]:
    products = [product.fp32_precision for product in environment._PRODUCTS]
    return (
        torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(), torch.get_default_device(), torch.get_float32_matmul_precision(), products,
        torch.get_num_threads(), list(warnings.filters), dict(os.environ), random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.random.get_rng_state().tolist(),
    )  # fmt: skip


def run(method: str) -> list[np.ndarray]:
    """From the module to the result, all of it under the caller's settings."""
    problem = Problem.around(lipcompare.load(MODULE, input_shape=(3,)), 0.5, 0.1)
    result = lipcompare.bound(problem, method, threads=1)
    assert result.status not in (lipcompare.Status.CRASHED, lipcompare.Status.UNSUPPORTED), result.sentence
    return [result.lower, result.upper]


@functools.cache
def undisturbed(method: str) -> list[np.ndarray]:
    """The result under no setting."""
    return run(method)


@pytest.mark.parametrize("method", ["lbp", "sdp", "milp", "bab", "attack"])
@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_the_same_values_and_nothing_changed(setting: str, method: str) -> None:
    expected = undisturbed(method)
    with SETTINGS[setting]():
        before = state()
        found = run(method)
        assert state() == before
    for end, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(end, other, rtol=1e-9)


def asked() -> list[np.ndarray]:
    """What the questions answer."""
    problem = Problem.around(lipcompare.load(MODULE, input_shape=(3,)), 0.5, 0.1)
    entries, answer = jacobian_bounds(problem), monotonicity(problem)
    found = operator_norm_bounds(problem.network, problem.box, 2)
    return [entries.lower, entries.upper, answer.lower, answer.seen_upper, found.lower, found.upper]


@functools.cache
def answers() -> list[np.ndarray]:
    """The same under no setting."""
    return asked()


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_questions_too(setting: str) -> None:
    expected = answers()
    with SETTINGS[setting]():
        before = state()
        found = asked()
        assert state() == before
    for end, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(end, other, rtol=1e-9)


def test_products_have_all_their_bits_inside() -> None:
    with fewer_bits(), environment.computing():
        assert environment._PRODUCTS
        assert all(product.fp32_precision == "ieee" for product in environment._PRODUCTS)
