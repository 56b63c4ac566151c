"""The commands beyond ``bound``: Jacobians, monotonicity, certified radii, operator norms, balls and all inputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from command_line import ok, run

import lipcompare
from lipcompare import Network, NormBall, Problem, Space
from lipcompare.questions import certified_radius, jacobian_bounds

BALL = ["--center", "0.5", "--eps", "0.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    random = np.random.default_rng(3)
    weights = {"W0": random.normal(size=(6, 4)), "b0": random.normal(size=6)}
    np.savez(folder / "net.npz", **weights, W1=random.normal(size=(3, 6)), b1=random.normal(size=3))
    # The sum of the inputs' positive parts, and the distance of the first input from 1/2.
    first = np.array([[1.0, 0], [0, 1.0], [1.0, 0], [-1.0, 0]])
    np.savez(folder / "known.npz", W0=first, b0=np.array([0, 0, -0.5, 0.5]),
             W1=np.array([[1.0, 1.0, 0, 0], [0, 0, 1.0, 1.0], [0, -2.0, 0, 0]]), b1=np.zeros(3))  # fmt: skip
    np.save(folder / "batch.npy", random.random((5, 4)))
    np.save(folder / "direction.npy", np.array([[1.0, 0, 0, 0], [1.0, -1, 0, 2]]))
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 2))
    torch.export.save(torch.export.export(module, (torch.zeros(1, 4),)), folder / "smooth.pt2")
    return folder


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def load(name: str) -> Network:
    return lipcompare.load(name)


def jacobians(network: Network, points: torch.Tensor) -> np.ndarray:
    """(points, outputs, inputs) by the chain rule."""
    rows = torch.eye(network.out_size, dtype=torch.float64).expand(len(points), -1, -1)
    slopes = {k: v.unsqueeze(1) for k, v in network.slopes(network.values(points)).items()}
    found: np.ndarray = network.pull_back(slopes, rows).numpy()
    return found


def test_jacobian_prints_what_the_library_proves(tmp_path) -> None:
    out = tmp_path / "entries.npz"
    text = ok("jacobian", "net.npz", *BALL, "--out", str(out))
    problem = Problem.around(load("net.npz"), 0.5, 0.1)
    bounds = jacobian_bounds(problem)
    lines = re.findall(r"^ (\d) +(\d) +(-?[\d.e-]+) +(-?[\d.e-]+) +(\S+) *$", text, re.MULTILINE)
    assert len(lines) == 12
    for row, entry, low, high, sign in lines:
        lower, upper = bounds.lower[0, int(row), int(entry)], bounds.upper[0, int(row), int(entry)]
        # Rounded away from the truth, whatever the sign.
        assert float(low) <= lower and upper <= float(high)
        assert float(high) - float(low) <= upper - lower + 1e-3 * (abs(lower) + abs(upper))
        assert sign == ("+" if lower >= 0 else "-" if upper <= 0 else "either")
    with np.load(out) as written:
        np.testing.assert_array_equal(written["upper"], bounds.upper)
    seen = jacobians(problem.network, 0.5 + 0.1 * (2 * torch.rand(200, 4, dtype=torch.float64) - 1))
    assert (bounds.lower[0] <= seen.min(0)).all() and (seen.max(0) <= bounds.upper[0]).all()


@pytest.mark.parametrize("method", ["lbp", "recurjac", "ibp"])
def test_jacobian_along_directions(method) -> None:
    content = json.loads(
        ok(
            "jacobian",
            "net.npz",
            "-i",
            "batch.npy",
            "-e",
            "0.1",
            "--direction",
            "direction.npy",
            "-m",
            method,
            "--json",
        )
    )
    assert np.shape(content["lower"]) == np.shape(content["upper"]) == (5, 3, 2)
    points = torch.as_tensor(np.load("batch.npy"))
    there = jacobians(load("net.npz"), points) @ np.load("direction.npy").T
    assert (np.array(content["lower"]) <= there + 1e-12).all() and (there - 1e-12 <= np.array(content["upper"])).all()
    assert content["problem"]["domain"] == "box" and content["along"] == "direction"


def test_many_entries_are_cut_to_the_largest() -> None:
    out = ok("jacobian", "net.npz", "-i", "batch.npy", "-e", "0.1")
    assert "The 20 largest of 60 entries" in out
    assert len(re.findall(r"^ \d +\d +\d ", out, re.MULTILINE)) == 20


def test_monotone_gives_all_four_kinds_of_answer(tmp_path) -> None:
    out = tmp_path / "answer.npz"
    text = ok("monotone", "known.npz", "--features", "0,1", "--lower", "0", "--upper", "1", "--out", str(out))
    found = re.findall(r"^ (\d) +(\d) .* (\w+) *$", text, re.MULTILINE)
    answers = {(int(row), int(feature)): answer for row, feature, answer in found}
    assert answers == {
        (0, 0): "increasing", (0, 1): "increasing", (1, 0): "neither", (1, 1): "constant", (2, 0): "constant",
        (2, 1): "decreasing",
    }  # fmt: skip
    assert re.search(r"Functional 1 rises in input 0 at \(.*\), falls at \(.*\)\.", text)
    with np.load(out) as written:
        assert written["answers"][0, 1, 0] == "neither"
        rising, falling = written["rising"][0, 1, 0], written["falling"][0, 1, 0]
    assert rising[0] > 0.5 > falling[0]


def test_monotone_json_has_the_witness_pair() -> None:
    content = json.loads(ok("monotone", "known.npz", "--features", "0:2", "--lower", "0", "--upper", "1", "--json"))
    (pair,) = content["witnesses"]
    assert (pair["functional"], pair["input"], pair["derivatives"]) == (1, 0, [1.0, -1.0])
    points = torch.tensor([pair["rising"], pair["falling"]], dtype=torch.float64)
    assert jacobians(load("known.npz"), points)[:, 1, 0].tolist() == [1.0, -1.0]
    assert content["answers"][0][1] == ["neither", "constant"]


def test_monotone_counts_over_a_batch() -> None:
    out = ok("monotone", "net.npz", "-i", "batch.npy", "-e", "0.3", "--features", "1", "-m", "ibp")
    line = re.search(r"^ 0 +1 +(\d) +(\d) +(\d) +(\d) +(\d) *$", out, re.MULTILINE)
    assert line is not None and sum(map(int, line.groups())) == 5


def test_certify() -> None:
    network, points = load("net.npz"), np.load("batch.npy")
    content = json.loads(ok("certify", "net.npz", "-i", "batch.npy", "--json"))
    expected = certified_radius(network, points)
    np.testing.assert_allclose(content["radius"], expected.radius)
    assert all(content["correct"])
    for x, label, radius in zip(points, content["labels"], content["radius"], strict=True):
        moved = x + radius * (2 * np.random.default_rng(0).integers(0, 2, (200, 4)) - 1) * (1 - 1e-9)
        assert (network.forward(torch.as_tensor(moved)).argmax(-1) == label).all()
    text = ok("certify", "net.npz", "-i", "batch.npy", "--input-index", "0:2", "-p", "2", "-m", "ibp")
    assert "radius in l_2" in text and "Mean radius" in text and "right" not in text  # nobody said what is
    labelled = ["certify", "net.npz", "-i", "batch.npy", "-m", "ibp", "--labels", "0"]
    assert f"{content['labels'].count(0)} of 5 right." in ok(*labelled)


def test_certified_share_and_the_nearest_other_class() -> None:
    text = ok("certify", "net.npz", "-i", "batch.npy", "--labels", "0", "--at", "1/1000", "-m", "crown")
    assert re.search(r"Right and certified within 0\.001: \d+\.\d\d% of 5 examples", text)
    exact = ["certify", "net.npz", "--center", "0.5", "-m", "exact", "--largest", "0.5", "--target", "0:3"]
    content = json.loads(ok(*exact, "--json"))
    assert content["status"] == "exact" and content["radius"][0] > 0
    assert content["upper"][0] is None or content["upper"][0] >= content["radius"][0]


def test_certify_with_labels_and_methods() -> None:
    said = int(load("net.npz").forward(torch.full((4,), 0.5, dtype=torch.float64)).argmax())
    other = (said + 1) % 3
    text = ok("certify", "net.npz", "--center", "0.5", "--label", str(other))
    assert f"the network says {said}" in text and re.search(r"- +the network", text)
    sharp, loose = (
        json.loads(ok("certify", "net.npz", "--center", "0.5", "-l", str(said), *arguments, "--json"))["radius"][0]
        for arguments in (["-m", "sdp", "-o", "tolerance=0.01"], ["-m", "naive"])
    )
    assert 0 < loose <= sharp <= 1


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_operator_norms(norm) -> None:
    arguments = ["operator-norm", "known.npz", "--lower", "0", "--upper", "1", "--norm", norm, "--json"]
    other = "lipsdp" if norm == "2" else "lbp"
    loose, exact = (json.loads(ok(*arguments, "-m", method)) for method in (other, "lipbab"))
    # The Jacobian is [[1, 1], [+-1, 0], [0, -2]] inside.
    jacobian = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, -2.0]])
    truth = np.linalg.norm(jacobian, ord=float(norm))
    assert exact["lower"][0] == pytest.approx(truth) and exact["upper"][0] == pytest.approx(truth)
    # At the kink both slopes of the distance count, which the relaxation cannot take apart.
    assert loose["lower"][0] <= truth * (1 + 1e-9) <= loose["upper"][0] * (1 + 2e-9)


def test_operator_norm_in_words(tmp_path) -> None:
    out = ok("operator-norm", "net.npz", *BALL, "-p", "1", "-m", "naive", "--out", str(tmp_path / "norm.npz"))
    assert "l_1 -> l_1" in out and "l_inf" not in out
    with np.load(tmp_path / "norm.npz") as written:
        assert written["points"].shape == (1, 4) and written["lower"][0] <= written["upper"][0]


def test_balls_and_all_inputs() -> None:
    network, box = load("net.npz"), torch.full((1, 4), 0.5, dtype=torch.float64)
    values = {}
    for name, arguments, domain in (
        ("ball", [*BALL, "--ball", "2"], NormBall.around(box, 0.1, 2)),
        ("box", BALL, Problem.around(network, 0.5, 0.1).box),
        ("all inputs", ["--everywhere"], Space.of(4)),
    ):
        content = json.loads(ok("bound", "net.npz", *arguments, "-p", "2", "-m", "lbp", "--json"))
        assert content["problem"]["domain"] == name
        expected = lipcompare.bound(Problem(network, domain, lipcompare.Norm.TWO), "lbp")
        assert content["upper"][0] == pytest.approx(expected.overall_upper[0])
        values[name] = content["upper"][0]
    assert values["ball"] <= values["box"] <= values["all inputs"] * (1 + 1e-9)
    assert content["problem"]["radius"] == [None]


@pytest.mark.parametrize("arguments", [[*BALL, "--ball", "1"], ["--everywhere"]])
def test_the_default_method_works_on_every_domain(arguments) -> None:
    content = json.loads(ok("bound", "net.npz", *arguments, "-t", "1", "--json"))
    assert 0 < content["lower"][0] <= content["upper"][0] * (1 + 1e-9)
    out = ok("bound", "net.npz", *arguments, "-m", "lbp")
    assert "over the ball" in out or "over all inputs" in out


def test_smooth_networks_answer_too() -> None:
    for command in (["jacobian"], ["monotone"], ["operator-norm", "-p", "2"]):
        assert json.loads(ok(*command, "smooth.pt2", *BALL, "--json"))["problem"]["outputs"] == 2
    assert json.loads(ok("certify", "smooth.pt2", "--center", "0.5", "--json"))["radius"][0] > 0


MISTAKES = [
    (["jacobian", "net.npz"], 2, "No box is given"),
    (["jacobian", "net.npz", *BALL, "-m", "naive"], 2, "does not answer this question"),
    (["jacobian", "net.npz", *BALL, "-m", "lpb"], 2, "Did you mean 'lbp'?"),
    (["jacobian", "net.npz", *BALL, "--direction", "1,2"], 2, "shape (2,); the network takes (4,)"),
    (["jacobian", "net.npz", *BALL, "--direction", "none.npy"], 2, "none.npy is not a file"),
    (["monotone", "net.npz", *BALL, "--features", "4"], 2, "beyond what is there: 0 to 3"),
    (["monotone", "net.npz", *BALL, "--features", "age"], 2, "--features 'age' cannot be read: write 3, 0:10 or 0,3,7"),
    (["certify", "net.npz"], 2, "Give the examples by --input x.npy"),
    (["certify", "net.npz", "--center", "0.5", "-l", "3"], 2, "Labels must lie in 0..2"),
    (["certify", "net.npz", "-i", "batch.npy", "-l", "1,2"], 2, "2 labels for 5 inputs"),
    (["certify", "net.npz", "--center", "0.5", "-m", "attack"], 2, "proves lower bounds only"),
    (["certify", "net.npz", "--center", "0.5", "--largest", "0"], 2, "must be positive and finite"),
    (["certify", "net.npz", "--center", "0.5", "--at", "0"], 2, "must be one positive finite number"),
    (["certify", "net.npz", "--center", "0.5", "--target", "3"], 2, "beyond what is there: 0 to 2"),
    (["certify", "smooth.pt2", "--center", "0.5", "-m", "exact"], 3, "take 'alpha-crown' for smooth ones"),
    (["certify", "net.npz", "--center", "0.5", "-m", "lbpp"], 2, "Did you mean 'lbp'?"),
    (["certify", "smooth.pt2", "--center", "0.5", "-m", "milp"], 3, "cannot certify this"),
    (["operator-norm", "net.npz", *BALL, "-p", "3"], 2, "Unknown norm '3'"),
    (["operator-norm", "net.npz", *BALL, "-m", "lipsdp"], 2, "for p = 2"),
    (["operator-norm", "net.npz", *BALL, "-m", "lipbob"], 2, "Did you mean 'lipbab'?"),
    (["operator-norm", "net.npz", "--everywhere", "-m", "lipbab"], 2, "a box, or take the method"),
    (["operator-norm", "smooth.pt2", *BALL, "-m", "lipbab"], 3, "take the method 'lbp'"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), MISTAKES, ids=[" ".join(a) for a, _, _ in MISTAKES])
def test_a_mistake_gets_one_sentence_that_names_the_fix(arguments, code, says) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr.replace("\n", " ")
    assert result.stderr.startswith("Error: ") and result.stdout == ""


@pytest.mark.parametrize("command", ["jacobian", "monotone", "certify", "operator-norm"])
def test_help_teaches(command) -> None:
    out = ok(command, "--help")
    assert f"lipcompare {command} net" in out and "Exit codes" in out


def test_an_exact_operator_norm_needs_a_box() -> None:
    problem = nets.problem(nets.dense(0), 0.1)
    ball = NormBall.around(problem.box.interval.center, 0.1, "2")
    with pytest.raises(lipcompare.InvalidInput, match="over boxes only"):
        lipcompare.questions.exact_operator_norms(problem.network, ball, "2")


@pytest.mark.parametrize("command", [["jacobian"], ["jacobian", "--direction", "direction.npy"], ["monotone"]])
def test_a_time_limit_keeps_what_was_proved_and_says_so(command: list[str]) -> None:
    name, *rest = command
    text = ok(name, "net.npz", *BALL, *rest, "--time-limit", "1e-9")
    assert "Stopped at the time limit." in text and "What was proved by then holds." in text
    found = json.loads(ok(name, "net.npz", *BALL, *rest, "--time-limit", "1e-9", "--json"))
    whole = json.loads(ok(name, "net.npz", *BALL, *rest, "--json"))
    assert (found["status"], whole["status"]) == ("time_limit", "complete")
    assert (np.array(found["upper"]) >= np.array(whole["upper"]) - 1e-12).all()
    assert np.isfinite(np.array(found["upper"])).all()


@pytest.mark.parametrize("name", ["jacobian", "monotone", "certify", "operator-norm"])
@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_a_time_limit_is_a_positive_number(name: str, limit: str) -> None:
    result = run(name, "net.npz", *(BALL if name != "certify" else BALL[:2]), "--time-limit", limit)
    assert result.exit_code == 2 and "--time-limit must be a positive number of seconds." in result.stderr
