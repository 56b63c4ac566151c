"""Bounds without search that run out of time: valid, looser, and they say so."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch

import lipcompare
from lipcompare import Status
from lipcompare.budget import Copies, Deadline, chunk_size, fitting, tensor_bytes
from lipcompare.errors import is_out_of_memory
from lipcompare.jacobian import RELAXATIONS
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate


def test_a_deadline_remembers_that_it_was_missed() -> None:
    far, gone = Deadline(), Deadline.after(-1)
    assert not far.passed() and not far.missed
    assert not gone.missed and gone.passed() and gone.missed


@pytest.mark.parametrize("family", ["dense", "conv", "residual", "pooling", "sigmoid"])
@pytest.mark.parametrize("method", ["ibp", "recurjac", "lbp"])
def test_out_of_time_the_bound_holds(family: str, method: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](3), 0.4)
    hurried, whole = (lipcompare.bound(problem, method, time_limit=t) for t in (1e-9, 60.0))
    assert whole.status is Status.COMPLETE
    assert hurried.status is Status.TIME_LIMIT and "interval arithmetic" in hurried.detail
    assert (hurried.upper >= nets.sampled_norms(problem).numpy() * (1 - 1e-9)).all()
    assert (hurried.upper >= whole.upper * (1 - 1e-9)).all() and np.isfinite(hurried.upper).all()


def test_more_time_is_never_worse() -> None:
    """The stages are cut off one after another: pre-activations first, then gradients."""
    problem = nets.problem(nets.dense(4, (4, 12, 12, 12, 2)), 0.4)

    def upper(seconds: float) -> np.ndarray:
        found = propagate(
            problem, Tightening.ALPHA_CROWN, RELAXATIONS["lbp"], joint=True, memory=2**30, seconds=seconds
        )
        assert found.hurried == (seconds < 0)
        return found.upper.cpu().numpy()

    assert (upper(-1.0) > upper(float("inf"))).all()


def test_how_much_fits() -> None:
    single, double = (torch.zeros(1, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert tensor_bytes(Copies.PLANE, 10, double) == 2 * tensor_bytes(Copies.PLANE, 10, single) == 480
    assert [fitting(1000, each) for each in (0, 1, 300, 1000, 1001)] == [1000, 1000, 3, 1, 1]
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert chunk_size(2**40, gpu, 2**20) == 2**20
    assert chunk_size(2**40, cpu, 2**20) == 16  # a tile in the cache
    assert chunk_size(2**22, cpu, 2**20) == 4  # or less, where the budget is less
    assert chunk_size(1, cpu, 2**20) == 1


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "could not create a primitive",
        "could not create a memory object",
        "std::bad_alloc",
        "CUDA error: out of memory",
        "can't start new thread",
    ],
)
def test_what_allocators_say(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words)) and not is_out_of_memory(RuntimeError("shapes do not match"))
