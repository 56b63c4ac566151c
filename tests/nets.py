"""The networks of :mod:`lipcompare.testing.networks`, and those that hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

from lipcompare import Network
from lipcompare.testing.networks import (
    FAMILIES,
    Builder,
    concatenation,
    conv,
    dense,
    free_gate_maximum,
    kinked,
    mixed,
    pooling,
    problem,
    residual,
    sampled_norms,
)

__all__ = [
    "FAMILIES",
    "Builder",
    "concatenation",
    "conv",
    "dense",
    "free_gate_maximum",
    "kinked",
    "mixed",
    "networks",
    "pooling",
    "problem",
    "residual",
    "sampled_norms",
]


def networks() -> st.SearchStrategy[Network]:
    """A network of any family."""
    return st.builds(
        lambda family, seed: FAMILIES[family](seed), st.sampled_from(sorted(FAMILIES)), st.integers(0, 10**6)
    )
