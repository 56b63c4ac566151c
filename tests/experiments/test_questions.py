"""The questions of the study, on their smallest members."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from experiments import questions, study
from experiments.measured import Outcome
from experiments.questions import cells, everywhere, exact, norms, radius
from experiments.questions.__main__ import main
from experiments.questions.cells import NAME
from experiments.questions.norms import published_form
from lipcompare import Space
from lipcompare.network import Affine
from lipcompare.problem import Norm, Problem
from lipcompare.store.database import Store
from lipcompare.study.run import Task
from lipcompare.testing.networks import dense


def outcome(part: str, number: int, method: str) -> tuple[Task, Outcome]:
    """One cell of the reduced study."""
    chosen = study.Choices(methods=(method,))
    made = questions.PARTS[part](chosen, Console(file=io.StringIO()))
    task, (setting,) = made.study.tasks[number], made.study.settings
    return task, made.work([task], setting)[0]


def test_the_whole_space_agrees_with_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everywhere, "TABLES", {})
    for number in (0, 1):
        task, found = outcome("everywhere", number, "bab")
        assert isinstance(task.problem.box, Space)
        missed = found.facts["missed"]
        assert isinstance(missed, float) and missed < questions.MISSED
        assert found.upper > 0


def test_norms_by_two_ways_enclose_each_other() -> None:
    (_, closed), (_, proved) = (outcome("norms", 0, method) for method in (norms.FIRST, "bab"))
    assert closed.lower == 0 and proved.lower <= proved.upper <= closed.upper


def test_the_published_form_by_hand() -> None:
    network = dense(0, (3, 4, 2))
    first, last = (node for node in network.nodes if isinstance(node, Affine))
    inner, outer = first.maps[0].matrix(), last.maps[0].matrix()
    assert first.bias is not None
    center = torch.tensor([0.5, -1.0, 1.0], dtype=torch.float64)
    open_ = (inner @ center + first.bias > 0).double()
    assert 0 < open_.sum() < 4
    gram = inner @ inner.T * torch.outer(open_, open_)
    size = torch.linalg.eigvalsh(gram)[-1]
    metric = 2 / size * torch.eye(4, dtype=torch.float64) - gram / size**2
    value = published_form(network, Problem.around(network, center, 1e-9).box)
    assert value == pytest.approx(float(torch.linalg.eigvalsh(outer @ metric.inverse() @ outer.T)[-1].sqrt()))


def test_table_networks_sort_pairs_and_do_not_depend_on_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everywhere, "STEPS", 3)
    network = everywhere.table_network("abalone", everywhere.GroupSort)
    torch.manual_seed(5)
    again = everywhere.table_network("abalone", everywhere.GroupSort)
    x = torch.randn(4, 8, dtype=torch.float64)
    assert torch.equal(network.forward(x), again.forward(x)) and network.out_size == 1
    assert everywhere.GroupSort()(torch.tensor([2.0, 1.0, 3.0, 4.0])).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_ratios_are_to_the_best_method_that_closes() -> None:
    rows = [
        ("a", "exact", "exact", 3.0),
        ("a", "milp", "exact", 2.0),
        ("a", "bab", "time_limit", 1.0),
        ("b", "exact", "time_limit", 1.0),
        ("b", "bab", "exact", 9.0),
        ("c", "exact", "time_limit", 1.0),
    ]
    frame = pd.DataFrame(rows, columns=["label.case", "series", "status", "seconds"])
    frame = frame.assign(**{"label.question": "exact", "label.norm": "2"})
    found = exact.ratios(frame)
    assert found[["case", "best", "ratio"]].values.tolist() == [["a", "milp", 1.5], ["b", "bab", np.inf]]


def test_what_is_aimed_at_is_judged() -> None:
    form, local, everywhere_ = norms.PUBLISHED_FORM, *norms.PUBLISHED_PROGRAMS
    rows = [
        ("mlp3_w16@0.1", form, np.nan, 7.8, 0.001),
        ("mlp3_w16@0.1", norms.FIRST, 7.2, np.nan, 0.009),
        ("mlp3_w16@0.1", "program", 7.0, np.nan, 0.3),
        ("mlp3_w16@0.1", local, 7.0, np.nan, 0.4),
        ("mlp3_w16@0.1", everywhere_, 7.0, np.nan, 0.2),
        ("other", "program", 7.0, np.nan, 0.1),
    ]
    frame = pd.DataFrame(rows, columns=["label.case", "series", "upper", "label.formula", "seconds"])
    frame = frame.assign(**{"label.question": "norms", "label.norm": "2"})
    first, second = norms.verdicts(frame)
    assert first.endswith("0.200 s: MISSED") and second.endswith("1.00 ms: kept")
    rows_of_radii = pd.DataFrame(
        [("mnist-net_256x2", "crown", radius, 0.1) for radius in (0.012, 0.0122)],
        columns=["label.case", "series", "label.radius", "seconds"],
    ).assign(**{"label.question": "radius"})
    assert next(radius.verdicts(rows_of_radii)).endswith("in 0.3 s: kept")
    assert next(radius.verdicts(rows_of_radii.assign(seconds=1.0))).endswith("MISSED")


def test_work_is_timed_a_few_times_or_once_where_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 3.0, 0.0, 1.0, 0.0, 1.5, 0.0, 1.2])
    monkeypatch.setattr(cells.time, "process_time", lambda: next(ticks))
    assert cells.timed(lambda: "long") == ("long", 3.0)
    assert cells.timed(lambda: "short") == ("short", 1.2)


def test_what_is_compared_is_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 0.0, 9.0, 0.0, 3.0, 0.0, 2.0])
    monkeypatch.setattr(cells.time, "process_time", lambda: next(ticks))
    order: list[str] = []
    found = cells.timed_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 9.0)
    assert order == ["a", "b", "a", "a"]
    assert {name: seconds for name, (_, seconds) in found.items()} == {"a": 2.0, "b": 9.0}


def test_it_is_stored_printed_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exact, "RANDOM", (((2, 3, 2), 0.1), ((2, 2, 2), 0.1)))
    store = tmp_path / "r.sqlite"
    given = ["--only", "exact", "--methods", "exact;bab", "--cases", "random 2-3-2@0.1", "--store", str(store)]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "random 2-3-2@0.1" in printed and "times as long as the best method" in printed
    with Store(store, read_only=True) as open_:
        frame = open_.frame(NAME)
    assert len(frame) == 6 and set(frame["status"]) == {"exact"} and set(frame["label.norm"]) == {"inf", "2", "1"}
    assert set(exact.ratios(frame)["norm"]) == set(frame["label.norm"])
    wrong = frame.assign(lower=np.where(frame["series"] == "bab", 2 * frame["upper"], frame["lower"]))
    monkeypatch.setattr(Store, "frame", lambda self, name: wrong)
    console = io.StringIO()
    assert questions.check(study.Choices(store=store), Console(file=console)) == 1
    assert "CONTRADICTION" in console.getvalue()


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "norms", "--reference", str(tmp_path), "--store", str(tmp_path / "s")]) == 2
    assert "There is no" in capsys.readouterr().err
    assert main(["--only", "exact", "--cases", "radnom", "--store", str(tmp_path / "s")]) == 2
    assert "No case is called radnom" in capsys.readouterr().err
    assert main(["--only", "nroms", "--store", str(tmp_path / "s")]) == 2
    assert "Did you mean 'norms'" in capsys.readouterr().err


def test_brute_force_knows_a_kink_everywhere() -> None:
    network = dense(0, (1, 2, 1))
    x = torch.linspace(-50, 50, 4001, dtype=torch.float64).unsqueeze(-1)
    slopes = (network.forward(x[1:]) - network.forward(x[:-1])).abs().max() / 0.025
    assert everywhere.brute_force(Problem(network, Space.of(1), Norm.INF)) >= float(slopes) * (1 - 1e-9)
