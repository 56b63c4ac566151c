"""What is asked on the command line becomes a problem, or one sentence that says what to change."""

from __future__ import annotations

import json

import pytest
import torch
from command_line import ok, run

import lipcompare

BALL = ["--center", "0.5", "--eps", "0.1"]


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
