"""The script that holds settled bounds against samples says when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments import settled
from lipcompare import InvalidInput
from lipcompare.network.interval import Interval
from tests import nets


def test_values_are_inside_and_settling_helps() -> None:
    problem = nets.problem(nets.dense(0, (2, 12, 12, 12, 3)), 0.3)
    found = settled.held(problem, 2_000, 5.0)
    assert found.outside == 0 and 0 <= found.margin < 0.5
    assert found.after <= found.before
    assert found.improved > 0


@pytest.mark.parametrize("share", [0.4, float("nan")])
def test_a_bound_that_is_too_tight_or_no_number_is_seen(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    problem = nets.problem(nets.dense(0, (2, 12, 12, 12, 3)), 0.3)

    def wrong(problem, root, memory, seconds):
        return {k: Interval(b.lower, torch.lerp(b.lower, b.upper, share)) for k, b in root.items()}

    monkeypatch.setattr(settled, "settled", wrong)
    found = settled.held(problem, 2_000, 5.0)
    assert found.outside > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [([], "No reference.json"), (["--cases", "other"], "contains one of"), (["--samples", "0"], "sample")],
)
def test_nothing_to_check_is_no_success(tmp_path: Path, given: list[str], says: str) -> None:
    if given:
        (tmp_path / "reference.json").write_text('{"mlp@0.1": {}}')
    with pytest.raises(InvalidInput, match=says):
        settled.main(["--data", str(tmp_path), *given])
