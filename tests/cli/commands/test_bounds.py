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
from lipcompare.methods import Method

QUICK = ["-o", "samples=32", "-o", "rounds=2", "-o", "regions=2"]
BALL = ["--center", "0.5", "--eps", "0.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network 4-6-3, inputs of all kinds, and files that are broken in all ways."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    weights = {
        "W0": random.normal(size=(6, 4)),
        "b0": random.normal(size=6),
        "W1": random.normal(size=(3, 6)),
        "b1": random.normal(size=3),
    }
    np.savez(folder / "net.npz", **weights)
    np.savez(folder / "nan.npz", **{**weights, "W1": weights["W1"] * np.nan})
    np.save(folder / "batch.npy", random.random((5, 4)))
    np.save(folder / "bytes.npy", random.integers(0, 256, (2, 2, 2), dtype=np.uint8))
    np.save(folder / "labels.npy", np.array([0, 1, 2, 1, 0]))
    np.save(folder / "rows.npy", random.normal(size=(2, 3)))
    np.save(folder / "with_nan.npy", np.array([0.1, np.nan, 0, 0]))
    np.save(folder / "with_inf.npy", np.array([0.1, np.inf, 0, 0]))
    np.save(folder / "seven.npy", np.zeros(7))
    np.save(folder / "empty.npy", np.zeros((0, 4)))
    np.save(folder / "texts.npy", np.array(["a", "b"]))
    np.save(folder / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    (folder / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00 and then nothing")
    (folder / "broken.npz").write_bytes(b"PK nothing")
    (folder / "broken.onnx").write_bytes(b"nothing")
    torch.save({}, folder / "net.pt")
    box = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))\n" for i in range(4))
    (folder / "box.vnnlib").write_text(box + "(declare-const Y_0 Real)(assert (<= Y_0 0))")
    (folder / "open.vnnlib").write_text("(declare-const X_0 Real)(assert (>= X_0 0))")
    (folder / "one.vnnlib").write_text("(declare-const X_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))")
    return folder


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def test_one_output_and_one_margin(folder) -> None:
    every = json.loads(ok("bound", "net.npz", *BALL, "-m", "ibp", "--json"))
    assert every["problem"]["functional_names"] == [["0", "1", "2"]]
    one = json.loads(ok("bound", "net.npz", *BALL, "-m", "ibp", "-f", "2", "--json"))
    assert one["problem"]["functional_names"] == [["2"]] and one["rows"]["upper"][0][0] == every["rows"]["upper"][0][2]
    said = int(lipcompare.load("net.npz").forward(torch.full((4,), 0.5, dtype=torch.float64)).argmax())
    own = json.loads(ok("bound", "net.npz", *BALL, "-m", "ibp", "-f", "margins", "--json"))
    names = [f"{said}-{j}" for j in range(3) if j != said]
    assert own["problem"]["functional_names"] == [names]
    single = json.loads(ok("bound", "net.npz", *BALL, "-m", "ibp", "-f", f"margins:own:{(said + 1) % 3}", "--json"))
    name = f"{said}-{(said + 1) % 3}"
    assert single["problem"]["functional_names"] == [[name]]
    assert single["upper"][0] == own["rows"]["upper"][0][names.index(name)]
    assert name in ok("bound", "net.npz", *BALL, "-m", "ibp", "-f", f"margins:{said}:{(said + 1) % 3}")


def test_outputs_have_the_names_that_are_given(folder) -> None:
    asked = ["bound", "net.npz", *BALL, "-m", "ibp", "-f", "margins:0"]
    found = json.loads(ok(*asked, "--classes", "cat, dog,eel", "--json"))
    assert found["problem"]["functional_names"] == [["cat-dog", "cat-eel"]]
    (folder / "classes.txt").write_text("cat\ndog\neel\n")
    assert "cat-eel" in ok(*asked, "--classes", "classes.txt")
    for wrong, says in (("cat,dog", "2 names of classes for 3 outputs"), ("none.txt", "none.txt")):
        result = run(*asked, "--classes", wrong)
        assert result.exit_code == 2 and says in result.output


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


@pytest.mark.parametrize(
    ("arguments", "boxes", "rows"),
    [
        (["--center", "0,0.1,1/3,-1", "-e", "0.1,0.2,0,0"], 1, 3),
        (["--center", "seven.npy", "-e", "0.1"], None, None),
        (["--input", "batch.npy", "-e", "0.1", "--input-index", "0,2:4"], 3, 3),
        (["--input", "bytes.npy", "-e", "8/255", "--scale", "255", "--clip", "0,1"], 2, 3),
        (["--lower", "0", "--upper", "1"], 1, 3),
        (["--lower", "batch.npy", "--upper", "2", "--input-index", "4"], 1, 3),
        (["--vnnlib", "box.vnnlib"], 1, 3),
        ([*BALL, "--ball", "2", "-p", "2"], 1, 3),
        (["-i", "batch.npy", "-e", "0.1,0.2,0,0.3,1", "--ball", "l1", "--clip", "0,1"], 5, 3),
        (["-i", "batch.npy", "-e", "0.1,0.2,0,0.3,1", "--ball", "l1", "--input-index", "1:4"], 3, 3),
        (["-i", "batch.npy", "-e", "0", "--input-index", "0:3", "-f", "margins:labels.npy"], 3, 2),
        (["--everywhere"], 1, 3),
        ([*BALL, "-f", "margins:1"], 1, 2),
        (["-i", "batch.npy", "-e", "0", "-f", "margins:labels.npy"], 5, 2),
        ([*BALL, "-f", "rows.npy"], 1, 2),
        ([*BALL, "-p", "2", "--dtype", "float32", "--threads", "1", "--memory", "0.5", "-t", "9"], 1, 3),
        ([*BALL, "-p", "1", "--input-shape", "4"], 1, 3),
    ],
)
def test_ways_to_ask(arguments, boxes, rows) -> None:
    result = run("bound", "net.npz", *arguments, "-m", "ibp", "--json")
    if boxes is None:
        assert result.exit_code == 2
        return
    assert result.exit_code == 0, result.output
    problem = json.loads(result.stdout)["problem"]
    assert (problem["boxes"], problem["functionals"]) == (boxes, rows)


def test_bytes_are_scaled_and_clipped() -> None:
    arguments = [
        "bound",
        "net.npz",
        "-i",
        "bytes.npy",
        "-e",
        "2",
        "--scale",
        "255",
        "--clip",
        "0,1",
        "-m",
        "ibp",
        "--json",
    ]
    assert json.loads(ok(*arguments))["problem"]["radius"] == [0.5, 0.5]
    asked = run(*arguments).stderr.replace("\n", " ")
    assert "a radius of 2 is 510 of the file's units" in asked and "write --eps 2/255" in asked
    wide = run("bound", "net.npz", "-i", "batch.npy", "-e", "1", "--clip", "0,1", "-m", "ibp").stderr
    assert "covers the whole range 0 to 1" in wide.replace("\n", " ")
    usual = run("bound", "net.npz", "-i", "bytes.npy", "-e", "8/255", "--scale", "255", "--clip", "0,1", "-m", "ibp")
    assert not usual.stderr
    unscaled = run("bound", "net.npz", "-i", "bytes.npy", "-e", "1", "-m", "ibp")
    assert "--scale 255" in unscaled.stderr


def test_outputs_of_a_vnnlib_file_are_ignored_with_a_note() -> None:
    result = run("bound", "net.npz", "--vnnlib", "box.vnnlib", "-m", "lbp")
    assert "ignored" in result.stderr
    assert "ignored" not in result.stdout


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
    out = ok("methods")
    for name, cls in METHODS.items():
        assert f" {name} " in out
        assert cls.reference in out
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


MISTAKES = [
    (["nan.npz", *BALL], 2, "NaN or infinite entries"),
    (["net.npz", "-i", "with_nan.npy", "-e", "0.1"], 2, "NaN or infinite bounds: give finite"),
    (["net.npz", "-i", "with_inf.npy", "-e", "0.1"], 2, "NaN or infinite bounds: give finite"),
    (["net.npz", "--lower", "with_nan.npy", "--upper", "1"], 2, "NaN or infinite bounds"),
    (["net.npz", "--center", "nan", "-e", "0.1"], 2, "NaN or infinite bounds"),
    (["net.npz", "--center", "0.5", "-e", "-0.1"], 2, "--eps -0.1 must be a finite number that is not negative"),
    (["net.npz", "--center", "0.5", "-e", "nan"], 2, "--eps nan must be a finite number"),
    (["net.npz", "--center", "0.5", "-e", "inf"], 2, "--eps inf must be a finite number"),
    (["net.npz", "--center", "0.5", "-e", "1/0"], 2, "'1/0' is neither a number (0.5, 8/255)"),
    (["net.npz", "--center", "half", "-e", "0.1"], 2, "'half' is neither a number"),
    (["net.npz", "--center", "0.5", "-e", "0.1,0.2"], 2, "shape (2,); the network takes (4,)"),
    (["net.npz", "-i", "batch.npy", "-e", "bytes.npy"], 2, "2 examples, the input has 5: give one or equally many"),
    (["net.npz", "--lower", "1", "--upper", "0"], 2, "lower 1 is above upper 0"),
    (["net.npz", "--lower", "batch.npy", "--upper", "bytes.npy"], 2, "--lower has 5 boxes, --upper has 2"),
    (["net.npz", "-i", "seven.npy", "-e", "0.1"], 2, "shape (7,); the network takes (4,)"),
    (["net.npz", "-i", "empty.npy", "-e", "0.1"], 2, "batch of inputs is empty"),
    (["net.npz", *BALL, "--input-shape", "5"], 2, "(5,) does not fit the network's own (4,)"),
    (["net.npz", *BALL, "--input-shape", "a"], 2, "write sizes such as 1,28,28"),
    (["net.npz", *BALL, "--input-shape", "\u0664"], 2, "write sizes such as 1,28,28"),
    (["net.npz", *BALL, "--input-shape", "4" * 5000], 2, "write sizes such as 1,28,28"),
    (["net.npz", *BALL, "--device", "cuda:" + "1" * 5000], 2, "Unknown device"),
    (["net.npz", "--center", "1_0", "-e", "0.1"], 2, "'1_0' is neither a number"),
    (["net.npz", "--center", "0", "-e", "\u0661"], 2, "is neither a number"),
    (["net.npz", *BALL, "-m", "naive", "-o", "a=b"], 2, "has no option 'a'. Known: none."),
    (["net.npz", *BALL, "-f", "margin"], 2, "margins:LABEL, margins:LABEL:OTHER, outputs"),
    (["net.npz", *BALL, "-m", "lbpp"], 2, "Did you mean 'lbp'?"),
    (["net.npz", *BALL, "-p", "3"], 2, "Unknown norm '3'. Known: 1, 2, inf"),
    (["net.npz", *BALL, "-p", "int"], 2, "Did you mean 'inf'?"),
    (["net.npz", *BALL, "-m", "lbp", "-o", "tightning=crown"], 2, "Did you mean 'tightening'?"),
    (["net.npz", *BALL, "-m", "lbp", "-o", "tightening=crwon"], 2, "Did you mean 'crown'?"),
    (["net.npz", *BALL, "-m", "lbp", "-o", "tightening"], 2, "write name=value"),
    (["net.npz", *BALL, "-m", "attack", "-o", "samples=many"], 2, "it takes int"),
    (["net.npz", *BALL, "-o", "tightening=crown"], 2, "--option needs a --method"),
    (["missing.npz", *BALL], 2, "missing.npz is not a file: check the path"),
    (["broken.npz", *BALL], 2, "save it again with numpy.savez"),
    (["broken.onnx", *BALL], 2, "broken.onnx"),
    (["net.pt", *BALL], 2, "export it with torch.export.save"),
    (["net.onxx", *BALL], 2, "Did you mean '.onnx'?"),
    (["net.npz", "-i", "missing.npy", "-e", "0.1"], 2, "missing.npy is not a file: check the path"),
    (["net.npz", "-i", "net.npz", "-e", "0.1"], 2, "archive of several arrays"),
    (["net.npz", "-i", "broken.npy", "-e", "0.1"], 2, "save the array again with numpy.save"),
    (["net.npz", "-i", "objects.npy", "-e", "0.1"], 2, "save the array again with numpy.save"),
    (["net.npz", "-i", "texts.npy", "-e", "0.1"], 2, "save real numbers"),
    (["net.npz", "--vnnlib", "missing.vnnlib"], 2, "check the path"),
    (["net.npz", "--vnnlib", "open.vnnlib"], 2, "no upper bound: add one"),
    (["net.npz", "--vnnlib", "one.vnnlib"], 2, "bounds 1 inputs, the network has 4"),
    (["net.npz", *BALL, "--device", "cuda:99"], 2, "Device 'cuda:99' is not there"),
    (["net.npz", *BALL, "--device", "cdua"], 2, "Did you mean 'cuda'"),
    (["net.npz", *BALL, "--dtype", "float16"], 2, "Did you mean"),
    (["net.npz"], 2, "No box is given: use --input x.npy --eps E"),
    (["net.npz", "-e", "0.1"], 2, "No box is given"),
    (["net.npz", "--center", "0.5"], 2, "--center needs --eps"),
    (["net.npz", "-i", "batch.npy", *BALL], 2, "--input and --center contradict each other"),
    (["net.npz", *BALL, "--vnnlib", "box.vnnlib"], 2, "--center and --vnnlib contradict each other"),
    (["net.npz", "--lower", "0", "--upper", "1", "-e", "0.1"], 2, "--eps goes with --input or --center"),
    (["net.npz", "--lower", "0"], 2, "--upper is missing"),
    (["net.npz", *BALL, "--ball", "3"], 2, "Unknown norm '3'"),
    (["net.npz", "--center", "0.5", "-e", "0.1,0.2,0,0", "--ball", "2"], 2, "an l_2 ball has one radius"),
    (["net.npz", "--lower", "0", "--upper", "1", "--ball", "2"], 2, "drop --lower and --upper"),
    (["net.npz", "--everywhere", *BALL], 2, "--center and --everywhere contradict each other"),
    (["net.npz", "--everywhere", "-e", "1"], 2, "drop --eps, --clip and --input-index"),
    (["net.npz", *BALL, "--scale", "255"], 2, "drop --scale"),
    (["net.npz", "-i", "batch.npy", "-e", "0", "--scale", "0"], 2, "--scale must be a positive number"),
    (["net.npz", *BALL, "--input-index", "1"], 2, "drop --input-index"),
    (["net.npz", "-i", "batch.npy", "-e", "0", "--input-index", "5"], 2, "beyond what is there: 0 to 4"),
    (["net.npz", "-i", "batch.npy", "-e", "0", "--input-index", "first"], 2, "write 3, 0:10 or 0,3,7"),
    (["net.npz", *BALL, "--clip", "1,0"], 2, "write the smaller number first"),
    (["net.npz", *BALL, "--clip", "1"], 2, "such as 0,1"),
    (["net.npz", *BALL, "--clip", "2,3"], 2, "lies outside --clip 2,3: check the scale"),
    (["net.npz", *BALL, "-f", "margin:1"], 2, "Did you mean 'margins"),
    (["net.npz", *BALL, "-f", "margins:3"], 2, "Labels must lie in 0..2"),
    (["net.npz", *BALL, "-f", "3"], 2, "beyond what is there: 0 to 2"),
    (["net.npz", *BALL, "-f", "margins:1:1"], 2, "against another class"),
    (["net.npz", *BALL, "-f", "margins:0.5"], 2, "not whole numbers"),
    (["net.npz", *BALL, "-f", "margins:labels.npy"], 2, "5 labels for 1 inputs: give one per input"),
    (["net.npz", *BALL, "-f", "seven.npy"], 2, "expected (rows, 3)"),
    (["net.npz", *BALL, "-t", "0"], 2, "--time-limit must be a positive number"),
    (["net.npz", *BALL, "-t", "nan"], 2, "--time-limit must be a positive number"),
    (["net.npz", *BALL, "--gap", "-1"], 2, "--gap must be at least 0"),
    (["net.npz", *BALL, "--memory", "0"], 2, "--memory must be a positive number"),
    (["net.npz", *BALL, "--threads", "0"], 2, "--threads must be at least 1"),
    (["net.npz", *BALL, "--memory", "1e300"], 2, "--memory must be a positive number of GiB, at most"),
    (["net.npz", *BALL, "--threads", "1000000000000"], 2, "--threads must be at least 1 and at most"),
    (["n" * 300 + ".npz", *BALL], 2, "check the path"),
    (["n\udcff.npz", *BALL], 2, "check the path"),
    (["net.npz", "--center", "c\udcff.npy", "-e", "0.1"], 2, "check the path"),
    (["net.npz", "--center", "c" * 300 + ".npy", "-e", "0.1"], 2, "is not a readable .npy file"),
    (["net.npz", "--vnnlib", "v" * 300], 2, "save it again"),
    (["net.npz", *BALL, "--plot", "out.txt"], 2, "must be .png, .pdf or .svg"),
    (["net.npz", *BALL, "-m", "naive", "--witness", "net.npz/w.npz"], 2, "name a file in a folder you may write to"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), MISTAKES, ids=[" ".join(a[:7]) for a, _, _ in MISTAKES])
def test_a_mistake_gets_one_sentence_that_names_the_fix(arguments, code, says) -> None:
    result = run("bound", *arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr.replace("\n", " ")
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output
    if "--witness" not in arguments:
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "lbp,lbpp"], "Did you mean 'lbp'?"),
        (["-m", ","], "names no method"),
        (["-m", "naive", "--rows"], "name a file with --csv"),
        (["-o", "tightening=crown"], "write method.name=value"),
        (["-m", "naive", "-o", "ibp.tightening=crown"], "one of naive"),
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
    assert "Relu" in result.stderr  # the list of what is supported


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["x" * 300 + ".npz", *BALL],
        [b"n\xff.npz".decode("utf-8", "surrogateescape"), *BALL],
        ["net.npz", "--input", "x" * 300 + ".npy", "--eps", "1"],
        ["net.npz", *BALL, "--memory", "1e300"],
        ["net.npz", *BALL, "--threads", "1000000000000"],
        ["net.npz", *BALL, "-m", "naive", "--witness", "w" * 300],
        ["net.npz", *BALL, "-m", "naive", "--plot", "p" * 300 + ".png"],
    ],
)
def test_names_and_sizes_beyond_any_system_are_one_sentence(arguments) -> None:
    result = run("bound", *arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


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
