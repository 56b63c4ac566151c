"""The studies of the quadratic-gate bound run, without any data, on what they make themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

import lipcompare
from experiments import (
    relaxations,
    semidefinite,
    semidefinite_cuts,
    semidefinite_device,
    semidefinite_random,
    semidefinite_solvers,
)
from experiments.semidefinite_programs import coupled_programs, programs
from experiments.study import Choices
from figures import relaxation_sweeps
from figures.style import Results, Settings
from lipcompare import Problem
from lipcompare.quadratic.cuts.separation import CutFamily
from lipcompare.quadratic.solver.interior_point import solve
from lipcompare.study.run import run

PROBLEM = Problem.around(relaxations.random_network(3, 8, seed=1), 0.5, 0.3)


def test_the_sweeps_write_a_table_that_the_figure_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxations, "RADII", (0.1,))
    chosen = Choices(store=tmp_path / "r.sqlite", seconds=100.0, methods=("ibp", "lbp", "sdp", "exact", "sdp+cuts"))
    (made,) = relaxations.studies(chosen, Console(quiet=True))
    small = [task for task in made.tasks if task.labels["model"] == "random_d3_w8"]
    run([dataclasses.replace(made, tasks=small)], chosen.store, console=Console(quiet=True))
    settings = Settings(chosen.store, tmp_path)
    frame = relaxation_sweeps.bounds(Results.read(settings, "relaxations"))
    assert set(frame["method"]) == {"ibp", "lbp", "sdp", "sdp+cuts"} and len(frame) == 4 * len(relaxations.RADII)
    by_method = frame.pivot(index="eps", columns="method", values="upper")
    assert bool((by_method["sdp"] <= by_method["lbp"]).all())
    assert frame["exact"].notna().all() and bool((frame["exact"] <= frame["upper"] * (1 + 1e-9)).all())
    assert bool((by_method["sdp+cuts"] <= by_method["sdp"] * (1 + 1e-3)).all())
    assert len(list(relaxation_sweeps.draw(settings))) == 3
    assert (tmp_path / "relaxation_sweeps.png").stat().st_size > 1000


def test_each_family_of_cuts_gains_and_all_gain_most() -> None:
    problem = Problem.around(relaxations.random_network(3, 5, seed=1), 0.5, 0.3)
    made = programs(problem, 4), coupled_programs(problem, 4)
    plain, probed, *families = (u for u, _ in semidefinite_cuts.bounds(*made, problem.network, 30))
    signs, chords, conflicts, forward, both = families
    assert probed <= plain * (1 + 1e-4)
    assert max(signs, chords, forward) < plain * 0.9999 and conflicts <= probed
    assert both <= min(families) * (1 + 2e-3)
    exact = float(lipcompare.bound(problem, "exact").overall_lower[0])
    assert min(families) >= exact * (1 - 1e-9)
    assert list(semidefinite_cuts.FAMILIES.values()) == [*CutFamily, CutFamily.ALL]


def test_the_program_for_public_solvers_has_our_optimum() -> None:
    data = programs(PROBLEM, 1).data
    optimum = float(semidefinite_solvers.program(data).solve(solver="CLARABEL"))
    assert float(solve(data, tolerance=1e-6).value[0]) == pytest.approx(optimum, rel=1e-5)


def test_the_device_study_makes_programs_of_the_size_it_says() -> None:
    data = semidefinite_device.made(3, 20, "cpu")
    assert data.problems == 3 and 15 <= data.size <= 21
    assert semidefinite_device.matrix_rate(data, "cpu") > 0
    assert semidefinite_device.operations(100, 8) == pytest.approx(20 * 100**3, rel=0.1)


def test_a_line_of_the_image_study_holds_all_methods() -> None:
    cells = semidefinite.line("random", 0.3, [PROBLEM], 0.2)
    assert len(cells) == len(semidefinite.COLUMNS)
    lbp, sdp, attack = (float(c) for c in cells[3:6])
    assert attack <= sdp <= lbp


def test_random_networks_need_few_iterations(capsys: pytest.CaptureFixture[str]) -> None:
    """In seed 65 all patterns leave a node at zero, which says nothing of its size."""
    assert semidefinite_random.main(["--first", "65", "--count", "2"]) == 0
    assert "2 networks: at most" in capsys.readouterr().out
