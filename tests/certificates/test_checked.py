"""What the other program says of a file, in numbers and words."""

from __future__ import annotations

import sys
from pathlib import Path

import nets
import pytest

import lipcompare
from lipcompare.certificates import checked


def test_what_is_proved_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.npz"
    result = lipcompare.bound(nets.problem(nets.dense(0, (3, 4, 2)), 0.2), "lbp")
    result.certificate(path)
    found = checked(path)
    assert found is not None and found.failures == ()
    assert found.upper == pytest.approx(result.upper[0].tolist(), rel=1e-9)
    path.write_bytes(b"PK")
    refused = checked(path)
    assert refused is not None and refused.upper == () and len(refused.failures) == 1
    monkeypatch.setitem(sys.modules, "lipverify.check", None)
    assert checked(path) is None
