"""The study's scripts: the paper's eps convention, limits, and that a script fills a store and resumes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from torch import nn

import lipcompare
import solvers
from experiments import branching, images, measured, reproduce, solver_swap, study, sweeps
from experiments.data import Dataset
from experiments.models import model
from experiments.readers import Split
from experiments.train import Protocol, Trained, fit
from figures import branching as branching_figure
from figures import solver_swap as swap_figure
from figures.style import Results, Settings
from lipcompare.errors import InvalidInput
from lipcompare.store.database import Store
from lipcompare.study.run import Setting, Study, Task, run


def image_data() -> Dataset:
    x = np.full((2, 2, 3, 3), 51, dtype=np.uint8)
    x[:, :, 0, 0] = 255
    split = Split(x, np.zeros(2, dtype=np.int64))
    return Dataset("made up", split, split, 10, mean=(0.5, 0.4), std=(0.2, 0.25))


def test_radii_are_in_pixels_and_divided_by_the_deviation() -> None:
    network = lipcompare.load(nn.Sequential(nn.Flatten(), nn.Linear(18, 2)), input_shape=(2, 3, 3))
    (first, _) = images.boxes(network, image_data(), 2 / 255, 2)
    width = (first.box.upper - first.box.lower).reshape(2, 9)
    assert torch.allclose(width[0], torch.full((9,), 4 / 255 / 0.2, dtype=torch.float64))
    assert torch.allclose(width[1], torch.full((9,), 4 / 255 / 0.25, dtype=torch.float64))
    center = first.box.interval.center.reshape(2, 9)
    assert float(center[0, 1]) == pytest.approx((0.2 - 0.5) / 0.2)
    assert float(first.box.upper[0, 0]) > (1 - 0.5) / 0.2  # no clipping unless asked for
    (clipped, _) = images.boxes(network, image_data(), 2 / 255, 2, clip=True)
    assert float(clipped.box.upper[0, 0]) == pytest.approx((1 - 0.5) / 0.2)


def test_a_full_run_takes_the_papers_limits() -> None:
    full = study.Choices(full=True)
    limits = {s.label: s.time for s in full.settings(study.EVERYTHING)}
    assert limits["LipMIP"] == limits["LipBaB"] == 1000 and limits["paper, BaB"] is None
    assert full.limits(5.0).time == 60 and study.Choices().limits(5.0).time == 5
    quick = study.Choices(full=True, seconds=2.0)
    own = {s.label: s.time for s in study.Choices(seconds=2.0, exact_seconds=7.0).settings(study.EVERYTHING)}
    assert own["LipMIP"] == own["LipBaB"] == 7.0 and own["sdp"] is None
    assert quick.limits(5.0).time == 2 and all(s.time is None for s in quick.settings(study.EVERYTHING))
    assert [s.label for s in study.Choices(methods=("lbp", "bab")).settings(study.EVERYTHING)] == [
        "paper", "paper, BaB", "bab",
    ]  # fmt: skip


def test_a_script_fills_a_store_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def untrained(name: str, *arguments: object, **options: object) -> Trained:
        torch.manual_seed(0)
        chosen = model(name)
        return Trained(chosen, chosen.build().eval(), 0.5, tmp_path)

    monkeypatch.setattr(study, "trained", untrained)
    names = tuple(sweeps.SWEEPS)
    arguments = ["tiny_width", "--store", str(tmp_path / "r.sqlite"), "--methods", "NaiveUB;ibp"]
    assert study.main(sweeps.studies, "about", ["tiny_wdth"], names=names) == 2
    assert "Did you mean 'tiny_width'?" in capsys.readouterr().err
    assert study.main(sweeps.studies, "about", arguments, names=names) == 0
    assert "6 of 6 cells computed" in capsys.readouterr().err
    assert study.main(sweeps.studies, "about", [*arguments, "--again", "ibp"], names=names) == 0
    assert "3 of 6 cells computed, 3 were there, in" in capsys.readouterr().err
    with Store(tmp_path / "r.sqlite") as store:
        assert store.frame("tiny_width")["series"].value_counts().to_dict() == {"NaiveUB": 3, "IBP": 3}
    assert study.main(sweeps.studies, "about", ["--examples", "-1"], names=names) == 2
    assert "cannot be negative" in capsys.readouterr().err


def test_a_missing_data_set_leaves_its_models_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(self: study.Choices, name: str, console: object = None) -> None:
        raise InvalidInput("no data")

    monkeypatch.setattr(study.Choices, "network", missing)
    chosen = study.Choices(data_root=str(tmp_path))
    console = study.Console(record=True, quiet=False, file=io.StringIO(), width=400)
    (made,) = images.studies(chosen, console)
    assert not made.tasks
    assert console.export_text().splitlines() == [f"no data Left out: {', '.join(images.MODELS)}."]  # said once
    with pytest.raises(InvalidInput):
        reproduce.everything(chosen, study.Console(quiet=True))


def _counted(store: Path, calls: list[str], interrupt_at: int = 99) -> measured.Build:
    """Two questions under two settings; the call of that number is interrupted."""

    def work(tasks: Sequence[Task], setting: Setting) -> list[measured.Outcome]:
        calls.append(setting.label)
        if len(calls) == interrupt_at:
            raise KeyboardInterrupt
        return [measured.Outcome(0.5, {"found": 3, "none": None, "far": math.inf, "size": 0.5}) for _ in tasks]

    made = [Task(nets.problem(nets.dense(k), 0.1), {"net": k}) for k in range(2)]
    return lambda chosen, console: measured.Measured(Study("own", made, [Setting("ask", series=s) for s in "ab"]), work)


def test_an_experiment_of_its_own_kind_is_kept_and_resumed(tmp_path: Path) -> None:
    chosen, calls = study.Choices(store=tmp_path / "r.sqlite"), []
    console = study.Console(quiet=True)
    assert measured.compute(_counted(chosen.store, calls, interrupt_at=3), chosen, console)
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame("own")
    assert frame["status"].notna().tolist() == [True, True, False, False]
    assert not measured.compute(_counted(chosen.store, calls), chosen, console)
    assert calls == ["a", "b", "a", "a", "b"]  # what was interrupted is asked again, and nothing else
    assert not measured.compute(_counted(chosen.store, calls), chosen, console) and len(calls) == 5
    with Store(chosen.store, read_only=True) as store:
        frame = store.frame("own")
    assert (frame["label.found"] == 3).all() and (frame["label.size"] == 0.5).all() and "label.far" not in frame
    assert (frame["method"] == "ask").all() and frame["revision"].notna().all() and (frame["seconds"] == 0.5).all()


def test_solvers_and_branching_leave_rows_that_their_figures_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, chosen = study.Console(quiet=True), study.Choices(store=tmp_path / "r.sqlite", seconds=60.0)
    monkeypatch.setattr(solver_swap, "WIDTHS", (3,))
    monkeypatch.setattr(solver_swap, "mip_solvers", lambda: [solvers.get("highs")])
    assert not measured.compute(solver_swap.build, chosen, console)
    assert solver_swap.check(chosen, console) == 0
    settings = Settings(chosen.store, tmp_path)
    frame = swap_figure.solves(Results.read(settings, "solver_swap"))
    assert len(frame) == len(solver_swap.Refinement) and (frame["status"] == "optimal").all()
    assert (frame["value"] <= frame["bound"] * (1 + 1e-4)).all() and (frame["binaries"] > 0).any()
    assert "1/1" in swap_figure.table(frame).csv()
    wrong = Results.read(settings, "solver_swap").frame.assign(**{"label.bound": frame["value"] / 2})
    assert len(solver_swap.agreement(wrong)) == len(frame)

    monkeypatch.setattr(branching, "WIDTHS", (4,))
    (made,) = branching.studies(chosen, console)
    few = [s for s in made.settings if s.label in ("lbp, area", "sdp, moment")]
    run([Study("branching", made.tasks, few, study.Choices().limits(100.0))], chosen.store, console=console)
    points = branching_figure.points(Results.read(settings, "branching"))
    ends = points[points["nodes"].notna()]
    assert set(ends["variant"]) == {s.label for s in few} and (ends["nodes"] >= 1).all()
    assert (ends["status"] == "exact").all() and len(branching_figure.table(points).rows) == 2


@pytest.mark.parametrize("text", ["8/0", "x", "-1", "inf", "1/2/3"])
def test_radii_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no radius"):
        images.radius(text)


def test_images_takes_models_and_radii(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def made(self: study.Choices, name: str, console: object = None) -> tuple[object, Dataset, float]:
        asked.append(name)
        module = nn.Sequential(nn.Flatten(), nn.Linear(18, 2))
        return lipcompare.load(module, input_shape=(2, 3, 3), name=name), image_data(), 0.5

    monkeypatch.setattr(study.Choices, "network", made)
    chosen = study.Choices(radii=("1/51", "0.5"), examples=1)
    (found,) = images.studies(chosen, study.Console(quiet=True), names=["mnist_mlp"])
    assert asked == ["mnist_mlp"] and [t.labels["radius"] for t in found.tasks] == ["1/51", "0.5"]


def test_training_tells_how_far_it_is(tmp_path: Path) -> None:
    lines: list[str] = []
    fit(nn.Sequential(nn.Flatten(), nn.Linear(18, 10)), image_data(), Protocol(epochs=2), on_epoch=lines.append)
    assert len(lines) == 2 and lines[1].startswith("epoch 2 of 2, loss ")


def test_ctrl_c_while_training_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(chosen: study.Choices, console: study.Console) -> list[Study]:
        raise KeyboardInterrupt

    assert study.main(interrupted, "about", []) == 130
    assert capsys.readouterr().err == "Interrupted: run again to go on.\n"
