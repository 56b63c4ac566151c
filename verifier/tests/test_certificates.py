"""Files: what is whole is accepted, what is tampered with is refused or proves something weaker that is true."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from lipverify.certificate import Malformed, read
from lipverify.check import check
from lipverify.command import main

NETWORK = networks.dense(0, 3, 6, 5, 2)
BOX = np.full(3, -0.2), np.full(3, 0.5)
POINT = np.array([0.1, 0.2, 0.3])
VALUE = networks.dual_norm(networks.gradients(NETWORK, np.eye(2), POINT[None])[0], "inf")


def rows(upper: float = 1e3) -> list[dict[str, Any]]:
    lower = {"point": "point"}
    return [{"claim": [float(v) * (1 - 1e-12), upper], "lower": lower, "upper": {"kind": "linear"}} for v in VALUE]


def whole() -> bytes:
    return networks.pack(NETWORK, *BOX, "inf", rows(), {"point": POINT})


def test_a_whole_certificate() -> None:
    for exact in (False, True):
        for found, value in zip(check(read(io.BytesIO(whole())), exact=exact), VALUE, strict=True):
            assert not found.failures and found.lower == pytest.approx(value, rel=1e-12) and found.lower <= found.upper


def test_other_files_are_said_to_be_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, text, cut = (tmp_path / name for name in ("c.npz", "text.npz", "cut.npz"))
    file.write_bytes(whole())
    text.write_text("a certificate")
    cut.write_bytes(whole()[:300])
    layers = tmp_path / "layers.npz"
    np.savez(layers, W0=np.ones((2, 3)), b0=np.zeros(2), W1=np.ones((2, 2)), Width=np.ones(1))
    form = "layers W0, b0, ... (other formats: lipcompare certificate FILE"
    said = {
        (layers,): "layers.npz is no certificate: it is an .npz file of W0, b0, W1, Width",
        (text,): "text.npz is no certificate: it is no whole .npz file",
        (cut,): "cut.npz is no certificate: it is no whole .npz file",
        (tmp_path / "none.npz",): "none.npz is no certificate: No such file or directory",
        (file, layers): f"layers.npz is no model of {form} {layers}): 'b1 is not a file in the archive'",
        (file, file): f"c.npz is no model of {form} {file}): 'W0 is not a file in the archive'",
        (file, text): f"text.npz is no model of {form} {text}): it is no whole .npz file",
    }
    for names, sentence in said.items():
        assert main(list(map(str, names))) == 2
        assert capsys.readouterr().err.strip().endswith(sentence)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, model = tmp_path / "c.npz", tmp_path / "m.npz"
    file.write_bytes(whole())
    layers = [n for n in NETWORK.nodes if isinstance(n, networks.Affine)]
    arrays = {f"W{i}": n.terms[0][1] for i, n in enumerate(layers)} | {f"b{i}": n.bias for i, n in enumerate(layers)}
    np.savez(model, **arrays)
    assert main([str(file), str(model)]) == 0 and "row 1: [" in capsys.readouterr().out
    arrays["W1"] = np.nextafter(arrays["W1"], 9.0)
    np.savez(model, **arrays)
    assert main([str(file), str(model)]) == 1 and "REFUSED: the certificate's network" in capsys.readouterr().out
    data = bytearray(model.read_bytes())
    data[data.index(b"W1.npy") + 150] ^= 1  # in the numbers
    model.write_bytes(data)
    assert main([str(file), str(model)]) == 2 and "Bad CRC-32 for file 'W1.npy'" in capsys.readouterr().err
    file.write_bytes(b"PK nonsense")
    assert main([str(file)]) == 2
    low = networks.pack(NETWORK, *BOX, "inf", rows(upper=1e-3), {"point": POINT})
    file.write_bytes(low)
    assert main([str(file), "--exact"]) == 1 and "claims at most 0.001" in capsys.readouterr().out


def test_damaged_archives_are_malformed() -> None:
    """A bit in every byte: what zipfile, zlib and numpy raise is one error."""
    said = set()
    for place in range(0, len(whole()), 2):
        data = bytearray(whole())
        data[place] ^= 1
        try:
            read(io.BytesIO(data))
        except Malformed as error:
            said.add(type(error.__cause__).__name__)
    assert {"BadZipFile", "RuntimeError", "error"} <= said  # checksums, flags of encryption, what does not inflate


def test_norms_need_no_bounds_before_kinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("lipverify.check.settled")
    proof = [{"claim": [0.0, 1e3], "upper": {"kind": "norms"}}] * 2
    for found in check(networks.made(NETWORK, *BOX, "inf", proof)):
        assert not found.failures and found.upper < 1e3


def test_points_outside_prove_nothing() -> None:
    data = networks.pack(NETWORK, *BOX, "inf", rows(), {"point": np.array([0.1, 0.2, 0.5000001])})
    for found in check(read(io.BytesIO(data))):
        assert found.lower == 0.0 and any("lower end: input 2" in text for text in found.failures)


def test_a_kink_counts_only_where_it_is() -> None:
    # f = relu(x - 1): slope 1 at x = 1 by its right side, and nowhere to the left of it.
    one = np.ones((1, 1))
    network = networks.Network(
        1,
        (
            networks.Affine(((0, one),), -np.ones(1)),
            networks.Kink(1, np.zeros(1)),
            networks.Affine(((2, one),), np.zeros(1)),
        ),
    )
    for x, expected in ((1.0, 1.0), (np.nextafter(1.0, 0.0), 0.0)):
        proof = [{"claim": [expected, None], "lower": {"point": "x", "sides": {"2": "side"}}}]
        extra = {"x": np.array([x]), "side": np.ones(1, int)}
        (found,) = check(networks.made(network, np.array([0.9]), np.array([x]), "inf", proof, extra))
        assert found.lower == expected and not found.failures


@pytest.mark.parametrize(
    ("word", "nodes"),
    [
        ("open branches", [1, -1]),
        ("after the last leaf", [-1, -1]),
        ("names nothing", [10**6, -1, -1]),
        ("names nothing", [-2]),
    ],
)
def test_trees_must_cover(word: str, nodes: list[int]) -> None:
    proof = rows()
    proof[0]["upper"] = {"kind": "tree", "nodes": "tree"}
    data = networks.pack(NETWORK, *BOX, "inf", proof, {"point": POINT, "tree": np.array(nodes)})
    with pytest.raises(Malformed, match=f"row 0: tree: .*{word}"):
        read(io.BytesIO(data))


def test_tampering() -> None:
    """Bits, numbers and names, at random: refused, or true."""
    random = np.random.default_rng(0)
    points = random.uniform(*BOX, (20000, 3))
    truth = networks.dual_norm(networks.gradients(NETWORK, np.eye(2), points), "inf").max(0)
    limit = [check(read(io.BytesIO(whole())))[i].upper for i in range(2)]
    with np.load(io.BytesIO(whole())) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("certificate").tobytes())
    refused = 0
    for trial in range(400):
        new, head = {k: v.copy() for k, v in arrays.items()}, copy.deepcopy(header)
        if trial % 4 == 0:
            head["rows"][trial % 2]["claim"][1] *= float(random.uniform(0, 1))
        elif trial % 4 == 1:
            head["rows"][0]["upper"], head["rows"][1]["lower"] = head["rows"][1].get("lower"), None
        elif trial % 4 == 2:
            new["point"] = new["point"] + random.normal(size=3) * 10.0 ** random.integers(-8, 2)
        else:
            raw = bytearray(whole())
            for place in random.integers(len(raw), size=3):
                raw[place] ^= 1 << int(random.integers(8))
            try:
                found = read(io.BytesIO(bytes(raw)))
            except Malformed:
                refused += 1
                continue
            same = found.question.network.length == NETWORK.length and all(
                np.array_equal(a.terms[0][1], b.terms[0][1]) and np.array_equal(a.bias, b.bias)
                for a, b in zip(found.question.network.nodes[::2], NETWORK.nodes[::2], strict=True)
            )
            if (
                not same
                or not np.array_equal(found.question.lower, BOX[0])
                or not np.array_equal(found.question.upper, BOX[1])
            ):
                continue  # another question, which the comparison with the model and the printed box show
            results = check(found)
            refused += any(r.failures for r in results)
            continue
        new["certificate"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        stream = io.BytesIO()
        np.savez(stream, **new)
        stream.seek(0)
        try:
            results = check(read(stream))
        except Malformed:
            refused += 1
            continue
        for i, r in enumerate(results):
            assert r.upper >= truth[i] * (1 - 1e-12) and r.lower <= limit[i]
            refused += bool(r.failures)
    assert refused > 150
