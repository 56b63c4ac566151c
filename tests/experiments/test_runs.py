"""The study's scripts: the paper's eps convention, limits, and that a script fills a store and resumes."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import lipcompare
from experiments import images, reproduce, study, sweeps
from experiments.data import Dataset
from experiments.models import model
from experiments.readers import Split
from experiments.train import Trained
from lipcompare.errors import InvalidInput
from lipcompare.store.database import Store
from lipcompare.study.run import Study


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
    assert "3 of 6 cells computed" in capsys.readouterr().err
    with Store(tmp_path / "r.sqlite") as store:
        assert store.frame("tiny_width")["series"].value_counts().to_dict() == {"NaiveUB": 3, "IBP": 3}
    assert study.main(sweeps.studies, "about", ["--examples", "-1"], names=names) == 2
    assert "cannot be negative" in capsys.readouterr().err


def test_a_missing_data_set_leaves_its_models_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(self: study.Choices, name: str) -> None:
        raise InvalidInput("no data")

    monkeypatch.setattr(study.Choices, "network", missing)
    chosen = study.Choices(data_root=str(tmp_path))
    (made,) = images.studies(chosen, study.Console(quiet=True))
    assert not made.tasks
    with pytest.raises(InvalidInput):
        reproduce.everything(chosen, study.Console(quiet=True))


def test_a_script_has_its_file_only_when_it_is_complete(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = argparse.Namespace(store=tmp_path / "r.sqlite", cache=tmp_path, data_root=None, full=False)
    console = study.Console(quiet=True)
    wrong = reproduce.Script("not_there", (), ())
    assert reproduce.run_scripts([wrong], given, console) == 1 and "not_there" in capfd.readouterr().err
    assert not list(tmp_path.glob("*.csv"))
    right = reproduce.Script("monotonicity", ("--synthetic", "--examples", "3", "--methods", "ibp"), (), trains=True)
    assert reproduce.run_scripts([right], given, console) == 0
    (out,) = tmp_path.glob("*.csv")
    assert out.name == "monotonicity.csv" and len(pd.read_csv(out)) == 6
    impossible = reproduce.Script("monotonicity", ("--no-such-option",), ())
    assert reproduce.run_scripts([impossible], given, console) == 0  # as the file is there


def test_ctrl_c_while_training_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(chosen: study.Choices, console: study.Console) -> list[Study]:
        raise KeyboardInterrupt

    assert study.main(interrupted, "about", []) == 130
    assert capsys.readouterr().err == "Interrupted: run again to go on.\n"
