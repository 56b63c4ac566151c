"""Certificates are written by one program and checked by another that shares nothing with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import torch
from lipverify.certificate import read
from lipverify.check import check
from lipverify.tree import settled

import lipcompare
from lipcompare import InvalidInput, Norm, NormBall, Problem, UnsupportedOperation
from lipcompare.branching.bounds import sdp
from lipcompare.certificates import differs, search, write, write_certificate
from lipcompare.certificates.file import check_network

NETWORKS = {
    "dense": nets.dense(0, (3, 8, 8, 3)),
    "leaky": nets.dense(1, (2, 6, 6, 6, 2), 0.3),
    "residual": nets.residual(2),
    "conv": nets.conv(3),
    "pooling": nets.pooling(1),
}


@pytest.mark.parametrize(
    ("name", "norm"), [*((name, "inf") for name in NETWORKS), ("dense", "2"), ("dense", "1"), ("leaky", "2")]
)
def test_both_ends_are_proved_again(name: str, norm: str, tmp_path: Path) -> None:
    problem = nets.problem(NETWORKS[name], 0.2, norm=norm)
    result = lipcompare.bound(problem, "bab", time_limit=20)
    summary = write_certificate(problem, result, tmp_path / "c.npz", time_limit=20)
    proved = check(read(tmp_path / "c.npz"))
    assert [f for row in proved for f in row.failures] == []
    assert max(row.lower for row in proved) >= float(result.overall_lower[0]) * (1 - 1e-12)
    for row, end in zip(proved, result.upper[0], strict=True):
        assert row.lower <= row.upper <= float(end) * (1 + 1e-5)
    assert summary.leaves > 0 and summary.bytes < 2**20


@pytest.mark.parametrize("method", ["naive", "ibp", "recurjac", "lbp"])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_upper_bounds_are_derived_again(method: str, norm: str, tmp_path: Path) -> None:
    problem = nets.problem(NETWORKS["residual"], 0.3, norm=norm)
    options = {} if method == "naive" else {"tightening": "crown"}
    result = lipcompare.bound(problem, method, **options)
    result.certificate(tmp_path / "c.npz")
    for row, upper in zip(check(read(tmp_path / "c.npz")), result.upper[0], strict=True):
        assert not row.failures and row.upper <= float(upper) * (1 + 1e-9)
        if method in ("naive", "lbp"):
            assert row.upper == pytest.approx(float(upper), rel=1e-9)


def test_optimised_slopes_are_kept(tmp_path: Path) -> None:
    problem = nets.problem(nets.dense(6, (4, 12, 12, 12, 2)), 0.5)
    result = lipcompare.bound(problem, "lbp")
    plain = lipcompare.bound(problem, "lbp", tightening="crown")
    summary = write_certificate(problem, result, tmp_path / "c.npz")
    upper = float(result.overall_upper[0])
    assert summary.upper == pytest.approx(upper, rel=1e-6) and summary.upper < 0.99 * float(plain.overall_upper[0])
    file = read(tmp_path / "c.npz")
    assert file.below and [f for row in check(file) for f in row.failures] == []


def test_bounds_without_a_value_attained_are_proved_to_their_end(tmp_path: Path) -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1e-3, 0.0], [0.0, 0.0, 3e-20]])
    problem = dataclasses.replace(nets.problem(nets.dense(5, (4, 12, 12, 3)), 0.5), functionals=rows.double())
    for norm in (Norm.INF, Norm.TWO):
        asked = dataclasses.replace(problem, norm=norm)
        result = lipcompare.bound(asked, "sdp", all_rows=True)
        summary = write_certificate(asked, result, tmp_path / "c.npz", time_limit=20)
        proved = check(read(tmp_path / "c.npz"))
        assert summary.lower == 0.0 and [f for row in proved for f in row.failures] == []
        for row, end in zip(proved[:2], result.upper[0], strict=False):
            assert row.upper <= float(end) * (1 + 1e-5)
        assert proved[2].upper < 1e-16  # a row that the others dwarf is proved no further than chords go


def test_cuts_go_into_the_file_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdp, "_LARGE", 10)  # programs of this size are not worth cuts otherwise
    monkeypatch.setattr(sdp, "_WORTH", 1.0)
    monkeypatch.setattr(search, "_BOUNDS", ("sdp",))
    problem = nets.problem(nets.dense(9, (8, 12, 12, 2)), 0.15)
    result = lipcompare.bound(problem, "bab", time_limit=60)
    write_certificate(problem, result, tmp_path / "c.npz", time_limit=60)
    file = read(tmp_path / "c.npz")
    assert any(value > 0 for proof in file.proofs for leaf in proof.leaves for value in leaf.cuts.values())
    for row, end in zip(check(file), result.upper[0], strict=True):
        assert not row.failures and row.upper <= float(end) * (1 + 1e-5)
    bare = [proof._replace(leaves=tuple(leaf._replace(cuts={}) for leaf in proof.leaves)) for proof in file.proofs]
    without = check(dataclasses.replace(file, proofs=tuple(bare)))
    assert any(row.failures for row in without)  # they were needed


def test_signs_that_halving_settles_go_into_the_file(tmp_path: Path) -> None:
    problem = Problem.around(nets.dense(0, (3, 12, 12, 12, 12, 2)), 0.5, 0.3)
    result = lipcompare.bound(problem, "sdp", time_limit=20)
    result.certificate(tmp_path / "c.npz", time_limit=20)
    file = read(tmp_path / "c.npz")
    assert file.lemmas and [f for row in check(file) for f in row.failures] == []
    undecided = [
        sum(int(((lower < 0) & (upper > 0)).sum()) for lower, upper in whole.bounds.values())
        for whole in (settled(file.question, file.below, file.lemmas), settled(file.question, file.below, ()))
    ]
    assert undecided[0] < undecided[1]


def test_a_row_that_the_checker_takes_for_less_is_aimed_at_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = nets.problem(nets.dense(9, (4, 8, 8, 3)), 0.3)
    result = lipcompare.bound(problem, "sdp", all_rows=True)
    result = dataclasses.replace(result, method="bab", lower=0.0 * result.lower, witnesses=None)
    asked: list[tuple[int, np.ndarray]] = []
    proofs, proved = write.proof_trees, write._proved

    def watched(part: Problem, bounds: Any, linear: Any, own: Any, upper: np.ndarray, **rest: Any) -> Any:
        asked.append((part.rows, upper))
        return proofs(part, bounds, linear, own, upper, **rest)

    def losing(path: Path, rows: Any) -> list[float]:
        """The middle row of the first proof loses a thousandth."""
        highs = proved(path, rows)
        if len(asked) == 1:
            highs[1] = rows[1]["claim"][1] * (1 + 1e-3)
        return highs

    monkeypatch.setattr(write, "proof_trees", watched)
    monkeypatch.setattr(write, "_proved", losing)
    write_certificate(problem, result, tmp_path / "c.npz", time_limit=20)
    (rows, first), (again, second) = asked
    assert (rows, again) == (3, 1) and second == pytest.approx([first[1] * (1 - 2e-3)], rel=1e-4)
    ends = [row.upper for row in check(read(tmp_path / "c.npz")) if not row.failures]
    assert len(ends) == 3 and ends[1] <= float(result.upper[0, 1]) * (1 + 1e-5)


@pytest.mark.parametrize("ahead", ["sdp", "lbp"])
def test_the_tree_of_either_bound_is_a_proof(ahead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BOUNDS", (ahead,))
    problem = nets.problem(NETWORKS["dense"], 0.2)
    result = lipcompare.bound(problem, "bab", time_limit=20)
    result.certificate(tmp_path / "c.npz", time_limit=20)
    file = read(tmp_path / "c.npz")
    assert any(leaf.theta for proof in file.proofs for leaf in proof.leaves) == (ahead == "sdp")
    for row, end in zip(check(file), result.upper[0], strict=True):
        assert not row.failures and row.upper <= float(end) * (1 + 1e-5)


def test_a_tiny_one_in_rational_arithmetic(tmp_path: Path) -> None:
    problem = nets.problem(nets.dense(4, (2, 4, 4, 2)), 0.3)
    lipcompare.bound(problem, "milp").certificate(tmp_path / "c.npz")
    for row in check(read(tmp_path / "c.npz"), exact=True):
        assert not row.failures and row.lower <= row.upper


def test_any_example_of_a_batch_and_either_precision(tmp_path: Path) -> None:
    network = NETWORKS["dense"]
    problem = Problem.around(network, torch.rand(3, network.in_size), 0.1, dtype=torch.float32)
    result = lipcompare.bound(problem, "bab", time_limit=20)
    write_certificate(problem, result, tmp_path / "c.npz", example=2)
    file = read(tmp_path / "c.npz")
    assert np.array_equal(file.question.lower, problem.box.lower[2].double().cpu().numpy())
    assert max(row.lower for row in check(file)) >= float(result.overall_lower[2]) * (1 - 1e-12)


def test_without_time_it_claims_less_and_says_so(tmp_path: Path) -> None:
    problem = nets.problem(nets.dense(5, (4, 20, 20, 20, 3)), 0.5)
    result = lipcompare.bound(problem, "bab", node_limit=40)
    summary = write_certificate(problem, result, tmp_path / "c.npz", time_limit=0.0)
    assert summary.upper > float(result.overall_upper[0])
    assert [f for row in check(read(tmp_path / "c.npz")) for f in row.failures] == []


def test_what_it_does_not_cover_is_an_error(tmp_path: Path) -> None:
    smooth = lipcompare.load(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)))
    problem = Problem.around(smooth, 0.0, 0.1)
    with pytest.raises(UnsupportedOperation, match="piecewise linear"):
        write_certificate(problem, lipcompare.bound(problem, "lbp"), tmp_path / "c.npz")
    ball = Problem.around(NETWORKS["dense"], 0.0, 0.1, ball="2")
    assert isinstance(ball.box, NormBall)
    with pytest.raises(UnsupportedOperation, match="boxes only"):
        write_certificate(ball, lipcompare.bound(ball, "lbp"), tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("operations", "helps"),
    [
        (["Softmax"], True),
        (["Relu", "LogSoftmax"], True),
        (["Softmax", "MatMul"], False),  # it does not end in one
        (["Tanh", "Softmax"], False),  # nor is it all that is smooth
        (["Sigmoid"], False),
    ],
)
def test_a_softmax_at_the_end_can_be_left_out(operations: list[str], helps: bool, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    kinds, weight = ["MatMul", *operations], onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    nodes = [
        onnx.helper.make_node(kind, [f"x{i}", "w"] if kind == "MatMul" else [f"x{i}"], [f"x{i + 1}"])
        for i, kind in enumerate(kinds)
    ]
    ends = [onnx.helper.make_tensor_value_info(f"x{i}", onnx.TensorProto.FLOAT, [1, 3]) for i in (0, len(kinds))]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedOperation, match="at the origin only") as raised:
        check_network(lipcompare.load(tmp_path / "m.onnx"))
    assert ("--logits" in str(raised.value)) == helps


def test_the_network_is_compared_number_by_number(tmp_path: Path) -> None:
    network = NETWORKS["residual"]
    lipcompare.bound(nets.problem(network, 0.3), "naive").certificate(tmp_path / "c.npz")
    assert differs(tmp_path / "c.npz", network) is None
    assert differs(tmp_path / "c.npz", nets.residual(3)) == "array 1.0"
    assert differs(tmp_path / "c.npz", NETWORKS["dense"]) == "the nodes, their sizes or their order"
    whole = bytearray((tmp_path / "c.npz").read_bytes())
    whole[whole.index(b"certificate.npy") + 60] ^= 255  # in the compressed numbers
    for damaged in (b"PK", bytes(whole)):
        (tmp_path / "no.npz").write_bytes(damaged)
        said = "it is no .npz file" if damaged == b"PK" else "not a readable certificate"
        with pytest.raises(InvalidInput, match=said):
            differs(tmp_path / "no.npz", network)


def test_what_is_no_certificate_is_said_to_be_something_else(tmp_path: Path) -> None:
    network, model, text = nets.dense(0), tmp_path / "model.npz", tmp_path / "text.npz"
    np.savez(model, W0=np.ones(2), b0=np.ones(2))
    text.write_text("a certificate")
    with pytest.raises(InvalidInput, match=r"model.npz is no certificate: it is an .npz file of W0, b0."):
        differs(model, network)
    with pytest.raises(InvalidInput, match=r"text.npz is no certificate: it is no .npz file"):
        differs(text, network)


def test_a_result_that_was_put_together_knows_no_problem(tmp_path: Path) -> None:
    result = dataclasses.replace(lipcompare.bound(nets.problem(NETWORKS["dense"], 0.3), "naive"), prover=None)
    with pytest.raises(ValueError, match="write_certificate"):
        result.certificate(tmp_path / "c.npz")


@pytest.mark.parametrize("scale", [1e-40, 1e35])
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_weights_beyond_single_precision(scale: float, norm: str, tmp_path: Path) -> None:
    """Multipliers left its range: the file could not be read and its writer ended with an error."""
    problem = nets.problem(nets.dense(0, (3, 8, 8, 1)), 0.2, norm=norm)
    problem = dataclasses.replace(problem, functionals=problem.functionals * scale)
    result = lipcompare.bound(problem, "sdp")
    result.certificate(tmp_path / "c.npz", time_limit=20)
    (row,) = check(read(tmp_path / "c.npz"))
    assert not row.failures and row.upper <= 1.5 * float(result.upper[0, 0])


def test_weights_beyond_doubles_are_said_to_be(tmp_path: Path) -> None:
    problem = nets.problem(nets.dense(0, (3, 8, 8, 1)), 0.2)
    problem = dataclasses.replace(problem, functionals=problem.functionals * 1e-310)
    lipcompare.bound(problem, "sdp").certificate(tmp_path / "c.npz", time_limit=20)
    (row,) = check(read(tmp_path / "c.npz"))
    assert row.upper == float("inf") and "too large or too small for doubles" in row.failures[0]
