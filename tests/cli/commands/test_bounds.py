"""The command line as a user meets it: what it prints, its JSON, its exit codes, and one sentence per mistake."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import ok, run
from lipverify.certificate import read
from lipverify.check import check

import lipcompare
from lipcompare import METHODS, Bound, Contradiction, Problem, Status
from lipcompare.budget import Budget, Clock
from lipcompare.cli.commands import bounds
from lipcompare.methods import Method

QUICK = ["-o", "samples=32", "-o", "rounds=2", "-o", "regions=2"]
BALL = ["--center", "0.5", "--eps", "0.1"]


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def test_the_default_is_an_interval() -> None:
    out = ok("bound", "net.npz", *BALL)
    low, high = map(float, re.search(r"largest +([\d.]+) +([\d.]+)", out).groups())
    problem = Problem.around(lipcompare.load("net.npz"), 0.5, 0.1)
    result = lipcompare.bound(problem, "auto")
    lower, upper = result.overall_lower[0], result.overall_upper[0]
    # Rounded outward to five digits: what is printed is proved.
    assert low <= lower <= low * (1 + 1e-3)
    assert upper <= high <= upper * (1 + 1e-3)
    assert "Found by auto" in out


def test_json_is_one_object_with_a_fixed_schema() -> None:
    content = json.loads(ok("bound", "net.npz", "-i", "batch.npy", "-e", "1/10", "--json"))
    assert {"lower", "upper", "status", "seconds", "rows", "method", "problem"} <= set(content)
    assert np.shape(content["lower"]) == np.shape(content["upper"]) == (5,)
    assert np.shape(content["rows"]["lower"]) == np.shape(content["rows"]["upper"]) == (5, 3)
    assert content["method"] == "auto"
    assert content["seconds"] > 0
    assert content["problem"] == {
        "network": "net",
        "inputs": 4,
        "outputs": 3,
        "input_shape": [4],
        "domain": "box",
        "boxes": 5,
        "radius": pytest.approx([0.1] * 5),
        "norm": "inf",
        "gradient_norm": "1",
        "functionals": 3,
        "functional_names": [["0", "1", "2"]] * 5,
    }


def test_json_has_null_where_nothing_is_proved() -> None:
    content = json.loads(ok("bound", "net.npz", *BALL, "-m", "attack", *QUICK, "--json"))
    assert content["upper"] == [None]
    assert content["lower"][0] > 0
    assert content["options"]["samples"] == 32


def test_a_batch_has_a_line_per_example() -> None:
    out = ok("bound", "net.npz", "-i", "batch.npy", "-e", "0.1", "-m", "lbp", "-o", "tightening=crown")
    assert [line.split()[0] for line in out.splitlines() if re.match(r" *\d ", line)] == list("01234")


def test_files_that_bound_writes(tmp_path) -> None:
    ok("bound", "net.npz", *BALL, "--witness", str(tmp_path / "new" / "w.npz"), "--plot", str(tmp_path / "t.png"))
    with np.load(tmp_path / "new" / "w.npz") as written:
        assert written["points"].shape == (1, 3, 4)
        assert (written["lower"] <= written["upper"]).all()
        assert (abs(written["points"] - 0.5) <= 0.1 + 1e-12).all()
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_compare_shows_every_method(tmp_path) -> None:
    csv, plot = tmp_path / "out.csv", tmp_path / "out.svg"
    out = ok("compare", "net.npz", *BALL, "-t", "2", "--csv", str(csv), "--plot", str(plot))
    for name in (*METHODS, "together"):
        assert re.search(rf"^ *{name} ", out, re.MULTILINE)
    frame = pd.read_csv(csv)
    assert list(frame["method"]) == list(METHODS)
    assert {"problem", "example", "lower", "upper", "status", "seconds"} <= set(frame.columns)
    assert "<svg" in plot.read_text()


def test_compare_writes_a_row_for_every_functional(tmp_path) -> None:
    csv = tmp_path / "rows.csv"
    asked = ("net.npz", *BALL, "-m", "ibp,attack", "-f", "margins:1", "--classes", "cat,dog,eel", "--rows")
    ok("compare", *asked, "--csv", str(csv))
    frame = pd.read_csv(csv)
    assert frame["functional"].tolist() == ["dog-cat", "dog-eel"] * 2
    assert frame["method"].tolist() == ["ibp"] * 2 + ["attack"] * 2


def test_compare_with_chosen_methods_and_options() -> None:
    content = json.loads(
        ok(
            "compare",
            "net.npz",
            "-i",
            "batch.npy",
            "-e",
            "0.1",
            "-m",
            "naive,ibp",
            "-o",
            "ibp.tightening=interval",
            "--json",
        )
    )
    assert [r["method"] for r in content["results"]] == ["naive", "ibp"]
    assert content["results"][1]["options"] == {"tightening": "interval"}
    assert content["problem"]["boxes"] == 5
    assert "mean" in ok("compare", "net.npz", "-i", "batch.npy", "-e", "0.1", "-m", "naive,ibp")


def test_lists() -> None:
    out = " ".join(ok("methods").split())
    for name, cls in METHODS.items():
        assert f" {name} {cls.proves} " in out and cls.summary in out
    assert "highs" in ok("solvers")
    assert ok("--version").strip() == lipcompare.__version__


def test_references_are_in_the_bibliography() -> None:
    bibliography = (Path(__file__).parents[3] / "CITATIONS.bib").read_text()
    for cls in METHODS.values():
        assert f"{{{cls.reference}," in bibliography


@pytest.mark.parametrize("command", [[], ["bound"], ["compare"]])
def test_help_teaches(command) -> None:
    out = ok(*command, "--help")
    assert "Exit codes" in out
    assert "130" in out
    assert "lipcompare bound" in out or "lipcompare compare" in out


def test_compare_takes_one_method_with_several_options(tmp_path) -> None:
    csv = tmp_path / "out.csv"
    asked = ["compare", "net.npz", *BALL, "-m", "ibp:tightening=interval,ibp,naive", "--csv", str(csv)]
    content = json.loads(ok(*asked, "--json"))
    assert [r["method"] for r in content["results"]] == ["ibp(tightening=interval)", "ibp", "naive"]
    assert content["results"][0]["options"] == {"tightening": "interval"} != content["results"][1]["options"]
    assert bounds._with_options("milp:solver=pulp:HiGHS:rows=maximum") == (
        "milp", {"solver": "pulp:HiGHS", "rows": "maximum"}
    )  # fmt: skip
    assert pd.read_csv(csv)["method"].tolist() == ["ibp(tightening=interval)", "ibp", "naive"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "lbp,lbpp"], "Did you mean 'lbp'?"),
        (["-m", ","], "names no method"),
        (["-m", "naive", "--rows"], "name a file with --csv"),
        (["-o", "tightening=crown"], "write method.name=value"),
        (["-m", "naive", "-o", "ibp.tightening=crown"], "one of naive"),
        (["-m", "milp,milp", "-o", "solver=pulp"], "with one of milp. To compare two solvers, write them beside"),
        (["-m", "ibp,ibp"], "names ibp twice with the same options. To compare two solvers"),
        (["-m", "ibp:tightning=crown,ibp"], "Did you mean 'tightening'?"),
    ],
)
def test_mistakes_in_compare(arguments, says) -> None:
    result = run("compare", "net.npz", *BALL, *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_an_unsupported_operation_is_named(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"], name="the_node")], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "hardmax.onnx")
    result = run("bound", str(tmp_path / "hardmax.onnx"), *BALL)
    assert result.exit_code == 3
    assert "Hardmax" in result.stderr
    assert "`lipcompare operations` lists all" in result.stderr


@dataclasses.dataclass(frozen=True)
class Troubled(Method):
    """Ends as it is told to."""

    name: ClassVar[str] = "troubled"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "for tests"
    reference: ClassVar[str] = "nobody"

    trouble: str = "memory"
    proved: bool = False

    def supports(self, problem: Problem) -> str | None:
        return "It applies to nothing." if self.trouble == "unsupported" else None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        if self.trouble == "memory":
            raise MemoryError
        if self.trouble == "interrupt":
            raise KeyboardInterrupt
        if self.trouble == "bug":
            raise ZeroDivisionError("nobody expected it")
        if self.trouble == "contradiction":
            raise Contradiction("Two results exclude each other.")
        upper = torch.full((problem.batch, problem.rows), 1e3) if self.proved else None
        return self.result(problem, Clock(budget), status=Status(Status[self.trouble]), upper=upper)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ("memory", 4),
        ("interrupt", 130),
        ("unsupported", 3),
        ("contradiction", 1),
        ("bug", 5),
        ("UNAVAILABLE", 3),
        ("LICENCE_TOO_SMALL", 3),
    ],
)
def test_exit_codes(trouble, code, monkeypatch) -> None:
    monkeypatch.setitem(METHODS._registered, "troubled", Troubled)
    result = run("bound", "net.npz", *BALL, "-m", "troubled", "-o", f"trouble={trouble}")
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


def test_what_was_proved_without_the_solver_is_a_success_with_a_remark(monkeypatch) -> None:
    monkeypatch.setitem(METHODS._registered, "troubled", Troubled)
    text = ok("bound", "net.npz", *BALL, "-m", "troubled", "-o", "trouble=UNAVAILABLE", "-o", "proved=true")
    assert "1000" in text and "The solver is not installed" in text


def test_an_interrupted_comparison_prints_what_was_proved(monkeypatch) -> None:
    monkeypatch.setitem(METHODS._registered, "troubled", Troubled)
    result = run("compare", "net.npz", *BALL, "-m", "ibp,troubled,naive", "-o", "troubled.trouble=interrupt")
    assert result.exit_code == 130
    assert re.search(r"ibp +- +\d", result.stdout)
    assert "Interrupted" in result.stdout
    assert "naive" not in result.stdout


def test_a_contradiction_in_a_comparison_keeps_its_rows(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(METHODS._registered, "troubled", Troubled)
    out = tmp_path / "rows.csv"
    arguments = ("-m", "ibp,troubled,naive", "-o", "troubled.trouble=contradiction", "--csv", str(out))
    result = run("compare", "net.npz", *BALL, *arguments)
    assert result.exit_code == 1 and "Two results exclude each other." in result.output
    assert re.search(r"ibp +- +\d", result.stdout) and re.search(r"naive +- +\d", result.stdout)
    assert list(pd.read_csv(out)["method"]) == ["ibp", "troubled", "naive"]


SLOW = """
import dataclasses, sys, time
import numpy as np
from lipcompare.budget import Clock, Kept
from lipcompare.cli.entry import main
from lipcompare.methods import Method, register

@register
@dataclasses.dataclass(frozen=True)
class Slow(Method):
    name, proves, summary, reference = "slow", "upper", "for tests", "none"
    def supports(self, problem):
        return None
    def run(self, problem, budget):
        Clock(budget).keep(Kept(0, np.full((problem.batch, problem.rows), 123.5)))
        print("ready", file=sys.stderr, flush=True)
        time.sleep(60)

main()
"""


def test_a_terminated_run_prints_what_was_proved() -> None:
    command = [sys.executable, "-c", SLOW, "bound", "net.npz", *BALL, "-m", "slow", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        assert process.stderr is not None and "ready" in process.stderr.readline()
        process.terminate()
        out, _ = process.communicate(timeout=60)
    answer = json.loads(out)
    assert process.returncode == 130 and answer["status"] == "interrupted" and answer["upper"] == [123.5]


def test_an_interrupted_default_keeps_the_interval_so_far(monkeypatch) -> None:
    monkeypatch.setattr("lipcompare.methods.Attack.run", Troubled(trouble="interrupt").run)
    result = run("bound", "net.npz", *BALL)
    assert result.exit_code == 130
    assert re.search(r"largest +- +\d", result.stdout)
    assert "Interrupted" in result.stdout


def test_a_method_that_does_not_apply_keeps_its_line(monkeypatch) -> None:
    monkeypatch.setitem(METHODS._registered, "troubled", Troubled)
    arguments = ["compare", "net.npz", *BALL, "-m", "troubled,naive", "-o", "troubled.trouble=unsupported"]
    assert re.search(r"troubled +- +- +- +- +The method does not apply.*It applies to nothing", ok(*arguments))


def test_the_installed_command() -> None:
    command = str(Path(sys.executable).with_name("lipcompare"))
    done = subprocess.run(
        [command, "bound", "net.npz", *BALL, "--json", "-m", "lbp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["upper"][0] > 0


def test_trained_networks_from_elsewhere(shared) -> None:
    networks = shared / "data" / "networks"
    out = ok(
        "bound", str(networks / "vnncomp" / "reach_prob_density" / "vdp.onnx"),
        "--vnnlib", str(networks / "vnncomp" / "specs" / "reach_prob_density_vdp_0.vnnlib"), "-m", "lbp", "--json",
    )  # fmt: skip
    assert json.loads(out)["upper"][0] > 0


def test_piped_tables_have_no_trailing_blanks() -> None:
    result = run("compare", "net.npz", *BALL, "-m", "naive,lbp")
    assert result.exit_code == 0 and not [line for line in result.stdout.splitlines() if line.endswith(" ")]


def test_a_witness_goes_to_the_file_that_is_named(tmp_path) -> None:
    out = tmp_path / "out.txt"
    result = run("bound", "net.npz", *BALL, "-m", "attack", *QUICK, "--witness", str(out))
    assert result.exit_code == 0 and [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    with np.load(out) as arrays:
        assert set(arrays) >= {"lower", "upper", "points"}


def test_a_folder_without_permission_is_one_sentence(tmp_path, monkeypatch) -> None:
    def denied(self, *arguments, **options) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    result = run("bound", "net.npz", *BALL, "-m", "naive", "--witness", str(tmp_path / "a" / "w.npz"))
    assert result.exit_code == 2 and "Permission denied" in result.stderr and "Traceback" not in result.stderr


def test_a_certificate_is_written_and_checked(tmp_path) -> None:
    out = tmp_path / "c.npz"
    result = run("bound", "net.npz", *BALL, "-m", "bab", "--certificate", str(out))
    assert result.exit_code == 0 and "check it with lipverify" in result.stderr
    assert [failure for row in check(read(out)) for failure in row.failures] == []


def test_what_no_certificate_covers_is_refused_before_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("lipcompare.cli.commands.bounds.run_method", None)
    out = tmp_path / "c.npz"
    result = run("bound", "net.npz", *BALL, "--ball", "2", "-m", "bab", "--certificate", str(out))
    assert result.exit_code == 3 and "Certificates cover boxes only" in result.stderr and not out.exists()


def test_a_certificates_network_is_compared_with_a_model(tmp_path) -> None:
    out = tmp_path / "c.npz"
    run("bound", "net.npz", *BALL, "-m", "naive", "--certificate", str(out))
    same = run("certificate", str(out), "net.npz")
    assert same.exit_code == 0 and "is that of net.npz, number by number" in same.output.replace("\n", " ")
    arrays = dict(np.load("net.npz"))
    arrays["W1"] = np.nextafter(arrays["W1"], 9)
    np.savez(tmp_path / "other.npz", **arrays)
    other = run("certificate", str(out), str(tmp_path / "other.npz"))
    assert other.exit_code == 1 and "First difference: array 3.0" in other.output
    assert run("certificate", "net.npz", "net.npz").exit_code == 2
    assert run("certificate", str(out), str(tmp_path / "none.onnx")).exit_code == 2
