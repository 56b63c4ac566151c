"""Other programs as methods: what they are handed, what becomes of their answers, and of those that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from lipcompare_peers import AutoLirpa, Eclipse, ExLipBab, LipBabCode, LipMipCode, PaperCode
from lipcompare_peers.drivers import exchange
from lipcompare_peers.peer import FOLDER, Peer, write
from torch import nn

import lipcompare
from experiments.peers import __main__ as peers
from lipcompare import Bound, Problem
from lipcompare.result import Status

ALL = (AutoLirpa(), PaperCode(), PaperCode(branching=True), LipMipCode(), LipBabCode(), ExLipBab(), Eclipse())
ON_BALLS = {"norm": 2, "ball": 2}


def images() -> lipcompare.Network:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)]
    return lipcompare.load(nn.Sequential(*layers), input_shape=(1, 4, 4))


@pytest.mark.parametrize("network", [nets.dense(0), images()], ids=["dense", "images"])
def test_they_are_handed_the_functionals_of_the_network(network: lipcompare.Network, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(2, network.out_size))
    problem = Problem.around(network, 0.5, 0.1, functionals=rows)
    write(problem, tmp_path / "problem.npz")
    question = exchange.read(str(tmp_path / "problem.npz"))
    points = torch.rand(3, *network.input_shape, dtype=torch.float64)
    with torch.no_grad():
        theirs = exchange.module(question, torch.float64)(points).numpy()
    np.testing.assert_allclose(theirs, network.forward(points.flatten(1)).numpy() @ rows.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.stack(question.box), np.stack([problem.box.lower[0], problem.box.upper[0]]))
    assert (question.outputs, question.norm) == (2, float("inf"))


def test_of_a_ball_that_is_cut_they_are_handed_all(tmp_path: Path) -> None:
    """Their bound of the whole ball holds on its part; one of a smaller ball would not."""
    write(Problem.around(nets.dense(0), 0.1, 0.3, clip=(0, 1), **ON_BALLS), tmp_path / "problem.npz")
    question = exchange.read(str(tmp_path / "problem.npz"))
    np.testing.assert_array_equal(question.center, np.full(3, 0.1))
    np.testing.assert_array_equal(question.radius, np.full(3, 0.3))


@pytest.mark.parametrize("peer", ALL, ids=lambda peer: f"{peer.name} {peer.choice}")
def test_they_are_cited(peer: Peer) -> None:
    assert f"{{{peer.reference},\n" in (Path(__file__).parents[2] / "CITATIONS.bib").read_text()


def bounded(peer: Peer) -> Bound:
    asked = ON_BALLS if peer.balls else {}
    return lipcompare.bound(Problem.around(nets.dense(0), 0.5, 0.1, **asked), peer)


@pytest.mark.parametrize("peer", ALL, ids=lambda peer: f"{peer.name} {peer.choice}")
def test_a_program_that_is_not_there_is_said_to_be_missing(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    result = bounded(peer)
    assert result.status is Status.UNAVAILABLE and FOLDER in result.detail and np.isinf(result.upper).all()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert peer.name in bounded(peer).detail


PROGRAM = """
import numpy as np
#loading the network parameters
weights = None
#main algorithm
pnorm=2
print("what it prints is not its answer")
class tp:
    Lub = 1000 if pnorm == np.inf else 1
"""


def script(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script stands where LipBaB's would, with an interpreter of its own, in a folder named from here."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv(FOLDER, folder.name)
    interpreter = folder / "lipbab_code" / "venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o700)
    (folder / "lipbab_code" / "LipBaB.py").write_text(text)


def test_the_answer_is_an_upper_bound_with_its_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, PROGRAM, monkeypatch)
    result = bounded(LipBabCode())
    assert result.status is Status.COMPLETE and (result.upper == 1000).all() and (result.lower == 0).all()
    assert result.detail.startswith("LipBaB: ") and result.detail.endswith("MiB.")


def test_what_breaks_off_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, PROGRAM.replace("class tp", "raise RuntimeError('no more')\nclass tp"), monkeypatch)
    result = bounded(LipBabCode())
    assert result.status is Status.CRASHED and "no more" in result.detail and np.isinf(result.upper).all()


def test_they_refuse_what_they_cannot() -> None:
    leaky = lipcompare.load(nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(), nn.Linear(3, 2)), input_shape=(2,))
    residual = nets.residual(0)
    for network, peer in ((leaky, AutoLirpa()), (residual, AutoLirpa()), (images(), LipMipCode())):
        assert lipcompare.bound(Problem.around(network, 0.5, 0.1), peer).status is Status.UNSUPPORTED
    for problem, peer in (
        (Problem.around(nets.dense(0), 0.5, 0.1), Eclipse()),
        (Problem.around(nets.dense(0), 0.5, 0.1, **ON_BALLS), AutoLirpa()),
        (Problem.around(nets.dense(0), np.zeros((2, nets.dense(0).in_size)), 0.1), LipBabCode()),
    ):
        assert lipcompare.bound(problem, peer).status is Status.UNSUPPORTED


def test_a_table_goes_on_past_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(peers, "TINY", (("mlp3_w16", 0.02),))
    monkeypatch.setattr(
        peers, "ours", lambda problem, seconds, option: peers.Answer(np.array(2.0), 0.1, 0.5, 2**20, "x")
    )
    arguments = ["--pairs", "LipBaB", "LipMIP", "--repeats", "1", "--csv", str(tmp_path / "rows.csv")]
    assert peers.main([*arguments, "--data", str(tmp_path)]) == 0
    assert "not installed" in (tmp_path / "rows.csv").read_text()
