"""Equal questions have equal hashes, whatever object asks; different ones differ."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from lipcompare import Norm
from lipcompare.fingerprint import Fingerprints


@dataclasses.dataclass(frozen=True)
class Named:
    value: float
    name: str = dataclasses.field(default="", compare=False)


def of(*values: object) -> str:
    return Fingerprints().of(*values)


DIFFERENT: list[tuple[object, ...]] = [
    (1,), (1.0,), (True,), ("1",), (None,), (1, 1), ((1, 1),), ("a", "b"), ("ab",), ("", "ab"),
    (np.zeros(2),), (np.zeros(2, np.float32),), (np.zeros((1, 2)),), (torch.zeros(2),), (torch.zeros(2, 1),),
    ({"a": 1},), ({"a": 2},), (Norm.TWO,), (Norm.INF,), (Named(1.0),), (Named(2.0),), (abs,), (sum,),
    (functools.partial(pow, 2),), (functools.partial(pow, 3),),
]  # fmt: skip


def test_any_difference_shows() -> None:
    hashes = [of(*values) for values in DIFFERENT]
    assert len(set(hashes)) == len(DIFFERENT) and {len(h) for h in hashes} == {32}


def test_equal_contents_are_equal_and_names_for_people_do_not_count() -> None:
    assert of({"a": 1, "b": torch.ones(3)}) == of({"b": torch.ones(3), "a": 1})
    assert of(Named(1.0, "x")) == of(Named(1.0, "y"))
    assert of(np.arange(6).reshape(2, 3).T) == of(np.ascontiguousarray(np.arange(6).reshape(2, 3).T))


def test_the_hash_is_the_same_in_every_process() -> None:
    assert of("problem", 1, torch.arange(3, dtype=torch.float64)) == "ed999a7c63f35b67f5f7fe588f270a85"


def test_what_has_no_content_is_refused() -> None:
    with pytest.raises(TypeError, match="has no fingerprint"):
        of(object())
