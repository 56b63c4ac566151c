"""The experiments on large images and on growing networks, on their smallest members."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments import large, scaling
from lipcompare.errors import InvalidInput


def test_stand_ins_have_the_shapes_of_the_references(tmp_path: Path) -> None:
    posed = large.problem(tmp_path, "mnist_cnn@2")
    assert posed.network.in_size == 784 and posed.network.out_size == 10
    assert [posed.network.nodes[k].size for k in posed.network.activations] == [5000, 3872, 100]
    width = posed.box.upper - posed.box.lower
    assert float(width.max()) == pytest.approx(4 / 255)
    with pytest.raises(InvalidInput, match="mnist_cnn"):
        large.problem(tmp_path, "mnist_cn@2")


def test_values_against_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert large.main(["--data", str(tmp_path), "--cases", "mnist_cnn@0.1", "--methods", "ibp"]) == 0
    out = capsys.readouterr().out
    assert "mnist_cnn@0.1, ibp" in out and "One CPU thread: " in out


def test_powers_are_slopes_of_logarithms() -> None:
    assert scaling.power([1, 2, 4, 8], [9.0, 12.0, 48.0, 192.0]) == pytest.approx(2.0)
    assert math.isnan(scaling.power([1, 2], [0.0, 0.0]))


def test_a_point_and_its_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One point in a process of its own, as all are in earnest, and one here."""
    apart = scaling.measure

    def measure(axis: str, value: int, method: str, seconds: float, device: str) -> scaling.Point:
        if value == 32:
            return apart(axis, value, method, seconds, device)
        return scaling.Point(value, **scaling.run_one(axis, value, method, seconds, device))

    monkeypatch.setattr(scaling, "measure", measure)
    monkeypatch.setitem(scaling.AXES, "width", scaling.AXES["width"]._replace(values=(32, 64)))
    figure = tmp_path / "scaling.pdf"
    assert scaling.main(["--axes", "width", "--methods", "ibp", "--figure", str(figure)]) == 0
    assert "width" in capsys.readouterr().out and figure.stat().st_size > 1000
