"""What leaves a real number as it is, and what would not."""

from __future__ import annotations

import pytest
import torch

from lipcompare.network.lowering.builder import NotLinear
from lipcompare.network.lowering.unchanged import cast, dropout


def test_dropout_in_evaluation_and_casts_between_floats() -> None:
    x = torch.ones(2)
    assert dropout(x, training=False) is x and cast(x, to=None) is x
    with pytest.raises(NotLinear, match="draws random numbers"):
        dropout(x, training=True)
    with pytest.raises(NotLinear, match="cast to int64"):
        cast(x, to="int64")
