"""Methods, questions and proofs where problems are not in the memory of the processor, without a GPU
(:mod:`elsewhere`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import elsewhere
import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import METHODS, Problem
from lipcompare.branching.driver import SearchLimits
from lipcompare.domain import Space
from lipcompare.methods import bab
from lipcompare.questions import (
    EXACT_RADIUS,
    certified_radius,
    exact_operator_norms,
    jacobian_bounds,
    monotonicity,
)

OURS = [name for name, cls in METHODS.items() if cls.__module__.startswith("lipcompare.")]


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    with elsewhere.Device():
        there, here = torch.tensor([1.0, 2.0], device=elsewhere.DEVICE), torch.ones(2)
        assert there.device == elsewhere.DEVICE and (there + 1).tolist() == [2.0, 3.0]
        assert float((there * torch.tensor(2.0)).sum()) == 6.0  # a number may come from here
        assert torch.equal((there + here.to(there.device)).cpu(), torch.tensor([2.0, 3.0]))
        assert there[torch.tensor([1])].tolist() == [2.0]
        for mixed in (lambda: there + here, lambda: here[there.long()], lambda: torch.cat([there, here])):
            with pytest.raises(RuntimeError, match="device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, generator=torch.Generator(), device=there.device)
        assert torch.rand(2, generator=torch.Generator(there.device), device=there.device).device == there.device


@pytest.mark.elsewhere
@pytest.mark.parametrize(
    ("method", "family"), [*((name, "dense") for name in OURS), ("lbp", "conv"), ("bab", "conv"), ("ibp", "gelu")]
)
def test_methods(method: str, family: str) -> None:
    posed = Problem.around(nets.FAMILIES[family](0), 0.5, 0.05)
    assert isinstance(posed.box.lower, elsewhere.Elsewhere)
    found = lipcompare.bound(posed, method, time_limit=1.0)
    assert found.status is not lipcompare.Status.CRASHED, found.detail
    if found.status in (lipcompare.Status.UNSUPPORTED, lipcompare.Status.UNAVAILABLE):
        return
    assert found.device == str(elsewhere.DEVICE)
    assert np.isfinite(found.upper).all() or METHODS[method].proves == "lower"
    assert (found.lower <= lipcompare.bound(posed, "ibp").upper).all()


@pytest.mark.elsewhere
def test_branch_and_bound_takes_many_subdomains_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[SearchLimits] = []
    monkeypatch.setattr(bab, "SearchLimits", lambda **how: limits.append(SearchLimits(**how)) or limits[-1])
    lipcompare.bound(Problem.around(nets.FAMILIES["dense"](0), 0.5, 0.5), "bab", node_limit=4)
    assert limits[0].least > SearchLimits().least


def _twice(ask: Callable[[Problem], Any]) -> tuple[Any, Any]:
    """What is answered there and here."""
    posed = Problem.around(nets.FAMILIES["dense"](0), 0.5, 0.05)
    return ask(posed), ask(Problem(posed.network, posed.box.to("cpu", posed.dtype)))


@pytest.mark.elsewhere
@pytest.mark.parametrize("method", ["bab", "lipbab"])
def test_the_whole_space(method: str) -> None:
    """Slopes of one's own below the kink lie on the device too."""
    posed = Problem(nets.FAMILIES["concatenation"](0), Space.of(3))
    found = lipcompare.bound(posed, method, time_limit=2.0)
    assert found.status is not lipcompare.Status.CRASHED, found.detail


@pytest.mark.elsewhere
@pytest.mark.parametrize("bounding", ["recurjac", "lbp"])
def test_entries(bounding: str) -> None:
    there, here = _twice(lambda posed: jacobian_bounds(posed, bounding))
    np.testing.assert_allclose(there.upper, here.upper, rtol=1e-12)


@pytest.mark.elsewhere
def test_directions() -> None:
    there, here = _twice(monotonicity)
    assert there.directions.tolist() == here.directions.tolist()


@pytest.mark.elsewhere
@pytest.mark.parametrize("bounding", ["bab", "lipbab"])
def test_operator_norms(bounding: str) -> None:
    def ask(posed: Problem) -> Any:
        return exact_operator_norms(posed.network, posed.box, "2", method=bounding, time_limit=2.0)

    there, here = _twice(ask)
    np.testing.assert_allclose(np.asarray(there.upper), np.asarray(here.upper), rtol=1e-3)


@pytest.mark.elsewhere
@pytest.mark.parametrize("method", ["crown", "auto", EXACT_RADIUS])
def test_radii(method: str) -> None:
    network = nets.FAMILIES["dense"](0)
    centers = torch.full((2, network.in_size), 0.5, dtype=torch.float64)
    moved = centers.to(elsewhere.DEVICE)  # and no device is said
    there, here = (certified_radius(network, x, method=method, steps=2, time_limit=2.0) for x in (moved, centers))
    np.testing.assert_allclose(np.asarray(there.radius), np.asarray(here.radius), rtol=1e-2)


@pytest.mark.elsewhere
@pytest.mark.parametrize("method", ["lbp", "sdp"])
def test_proofs(method: str, tmp_path: Path) -> None:
    found = lipcompare.bound(Problem.around(nets.FAMILIES["dense"](0), 0.5, 0.05), method, time_limit=2.0)
    assert found.certificate(tmp_path / "proof.npz").upper >= found.upper.max() * (1 - 1e-6)
