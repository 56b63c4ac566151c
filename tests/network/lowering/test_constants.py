"""Numbers of a source model as float64 tensors of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lipcompare import InvalidInput
from lipcompare.network.lowering.constants import double, from_numpy, require_finite


def test_a_copy_in_float64_and_integers_as_they_are() -> None:
    given = torch.ones(2, dtype=torch.float16)
    copy = double(given, "w")
    assert copy.dtype is torch.float64 and copy.tolist() == [1, 1]
    double(copy, "w").zero_()
    assert copy.tolist() == [1, 1]
    assert double(torch.arange(2), "index").dtype is torch.int64
    assert from_numpy(np.array([0.1], np.float32), "w").tolist() == [float(np.float32(0.1))]
    assert from_numpy(np.array([True]), "mask").dtype is torch.bool


def test_what_is_no_real_number_is_refused_by_name() -> None:
    for value in (torch.ones(1, dtype=torch.complex64), torch.eye(2).to_sparse()):
        with pytest.raises(InvalidInput, match=r"w has (complex|sparse)"):
            double(value, "w")
    for array in (np.ones(1, complex), np.array(["a"])):
        with pytest.raises(InvalidInput, match="w has entries of type"):
            from_numpy(array, "w")
    with pytest.raises(InvalidInput, match="NaN or infinite"):
        require_finite(torch.tensor([1.0, float("inf")]), "w")
    require_finite(torch.tensor([1]), "w")
