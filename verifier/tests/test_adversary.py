"""What someone would try who wants a false number accepted: every try is refused, or proves something true."""

from __future__ import annotations

import io
import json
from typing import Any

import networks
import numpy as np
import pytest
from lipverify.certificate import Malformed, read
from lipverify.check import check
from lipverify.network import Affine, Kink, Network

NETWORK = networks.dense(0, 2, 3, 1)
BOX = np.full(2, -0.2), np.full(2, 0.5)
ROW: dict[str, Any] = {"claim": [0.0, 1e3], "upper": {"kind": "tree", "nodes": "nodes"}}
ARRAYS = {"nodes": np.array([-1]), "starts": np.array([0, 1]), "index": np.array([0]), "value": np.array([1.0])}


def chain(*factors: float, alpha: float = 0.0) -> Network:
    """``x -> ... w2 kink(w1 x + 1) ...``: near 1 the product of the factors is its slope."""
    nodes: list[Affine | Kink] = []
    for factor in factors:
        if nodes:
            nodes.append(Kink(len(nodes), np.array([alpha])))
        nodes.append(Affine(((len(nodes), np.array([[factor]])),), np.ones(1)))
    return Network(1, tuple(nodes))


def changed(header: dict[str, Any] | None = None, **arrays: np.ndarray) -> bytes:
    """A whole certificate but for some keys of its header, or some members."""
    data = networks.pack(NETWORK, *BOX, "inf", [json.loads(json.dumps(ROW))], {**ARRAYS, **arrays})
    with np.load(io.BytesIO(data)) as file:
        members = dict(file)
    whole = json.loads(members["certificate"].tobytes())
    for key, value in (header or {}).items():
        *path, last = key.split(".")
        place = whole
        for step in path:
            place = place[int(step) if isinstance(place, list) else step]
        place[last] = value
    members["certificate"] = np.frombuffer(json.dumps(whole).encode(), np.uint8)
    members |= arrays
    stream = io.BytesIO()
    np.savez(stream, **members)
    return stream.getvalue()


def test_the_unchanged_one_is_accepted() -> None:
    (row,) = check(read(io.BytesIO(changed())))
    assert not row.failures and 0 < row.upper < 1e3


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", ["norms", "linear", "tree"])
@pytest.mark.parametrize("factors", [(1e-200, 1e-200, 1e200, 1e250), (1e200, 1e200, 1e-300), (1e-320, 1e300, 1e30)])
def test_numbers_that_doubles_cannot_multiply(factors: tuple[float, ...], kind: str, exact: bool) -> None:
    """Products underflow to 0, or overflow to what is not a number: neither may count as a small gradient."""
    row = {"claim": [0.0, 1e-30], "upper": {"kind": kind, "nodes": "nodes"}}
    made = networks.made(chain(*factors), np.full(1, -1.0), np.ones(1), "inf", [row], ARRAYS)
    (found,) = check(made, exact=exact)
    assert found.failures
    assert found.upper == np.inf or (exact and found.upper >= np.prod(np.array(factors, np.longdouble)))


def test_slopes_above_one_are_refused() -> None:
    data = networks.pack(chain(1.0, 1.0, alpha=1.0), *(np.ones(1),) * 2, "inf", [ROW], ARRAYS)
    assert not check(read(io.BytesIO(data)))[0].failures
    with np.load(io.BytesIO(data)) as file:
        members = dict(file)
    members["2.alpha"] = np.array([1.5])
    stream = io.BytesIO()
    np.savez(stream, **members)
    stream.seek(0)
    with pytest.raises(Malformed, match="above 1"):
        read(stream)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("lower", np.array([np.nan, 0.0])),
        ("lower", np.array([0.6, -0.2])),  # above the upper end
        ("lower", np.array([-0.2])),
        ("lower", np.array([[-0.2, -0.2]])),
        ("upper", np.array([np.inf, 0.5])),
        ("upper", np.array([1, 1])),  # integers
        ("upper", np.array([0.5, 0.5], complex)),
        ("upper", np.array([0.5, 0.5], np.longdouble)),
        ("upper", np.array(["0.5", "0.5"])),
        ("1.0", np.full((3, 2), np.nan)),
        ("1.0", np.ones((2, 3))),
        ("1.bias", np.zeros(0)),
        ("rows", np.ones((0, 1))),
        ("rows", np.ones((1, 2))),
        ("rows", np.ones((2, 1))),
        ("nodes", np.array([-1.0])),
        ("nodes", np.array([2**64 - 1], np.uint64)),
        ("nodes", np.array([[-1]])),
        ("nodes", np.zeros(0, int)),
        ("nodes", np.array([-1, -1])),
        ("nodes", np.array([2**62, -1, -1])),
    ],
)
def test_members_that_do_not_fit(name: str, array: np.ndarray) -> None:
    with pytest.raises(Malformed):
        read(io.BytesIO(changed(**{name: array})))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "something else"),
        ("version", 2),
        ("version", "1"),
        ("inputs", 2.0),
        ("inputs", True),
        ("inputs", -1),
        ("inputs", 10**30),
        ("norm", 2),
        ("norm", "3"),
        ("nodes", []),
        ("nodes.0.size", -1),
        ("nodes.0.kind", "sine"),
        ("nodes.1.parent", 2),
        ("nodes.1.parent", -1),
        ("nodes.1.parent", 1.0),
        ("nodes.2.terms", [{"parent": -2, "matrix": "3.0"}]),
        ("box", ["lower"]),
        ("rows", []),
        ("rows.0.claim", [0.0]),
        ("rows.0.claim", [float("nan"), 1.0]),
        ("rows.0.claim", [0.0, "nan"]),
        ("rows.0.upper", {"kind": "trust me"}),
        ("rows.0.upper", {"kind": "tree", "nodes": "nothing"}),
        ("rows.0.upper", {"kind": "tree", "nodes": "nodes", "theta": ["starts", "index"]}),
        ("rows.0.upper", {"kind": "tree", "nodes": "nodes", "theta": ["index", "index", "value"]}),
        ("rows.0.lower", {"point": "value"}),
        ("rows.0.lower", {"point": "upper", "sides": {"9": "index"}}),
    ],
)
def test_headers_that_do_not_fit(key: str, value: object) -> None:
    with pytest.raises(Malformed):
        read(io.BytesIO(changed({key: value})))


@pytest.mark.parametrize("value", [1e300, -1e300, 5e-324, -0.0])
@pytest.mark.parametrize("part", ["theta", "lam", "conflict", "cuts"])
def test_multipliers_of_any_size_prove_nothing_false(value: float, part: str) -> None:
    upper = {"kind": "tree", "nodes": "nodes", part: ["starts", "index", "value"]}
    more = {"value": np.array([value])}
    if part == "cuts":  # of the sides of a sign with each other, with signs as coordinates
        upper["lam"], more["index"] = ["starts", "one", "ones"], np.array([7 * 11 + 8])
        more |= {"one": np.array([0]), "ones": np.array([1.0])}
    (row,) = check(read(io.BytesIO(changed({"rows.0.upper": upper, "rows.0.claim": [0.0, 0.0]}, **more))))
    points = np.random.default_rng(0).uniform(*BOX, (500, 2))
    assert row.upper >= networks.dual_norm(networks.gradients(NETWORK, np.eye(1), points), "inf").max() and row.failures


def test_multipliers_that_are_no_numbers() -> None:
    upper = {"kind": "tree", "nodes": "nodes", "theta": ["starts", "index", "value"]}
    for wrong in ({"value": np.array([np.nan])}, {"index": np.array([-1])}, {"index": np.array([3])},
                  {"starts": np.array([0, 2])}, {"starts": np.array([0])}):  # fmt: skip
        with pytest.raises(Malformed, match="row 0"):
            read(io.BytesIO(changed({"rows.0.upper": upper}, **wrong)))
    upper = {"kind": "tree", "nodes": "nodes", "cuts": ["starts", "index", "value"]}
    for pair in (-1, 11 * 11, 2**62):
        with pytest.raises(Malformed, match="row 0"):
            read(io.BytesIO(changed({"rows.0.upper": upper}, index=np.array([pair]))))


@pytest.mark.parametrize(
    "slopes",
    [
        [{"node": 1, "neurons": "index", "below": {"2": "value"}}],  # a shape that does not fit
        [{"node": 1, "neurons": "index", "below": {"1": "value"}}],  # no kinks
        [{"node": 9, "neurons": "index", "below": {}}],
        [{"node": 1, "neurons": "starts", "below": {"2": "nothing"}}],
        {"node": 1},
    ],
)
def test_slopes_that_do_not_fit(slopes: object) -> None:
    with pytest.raises(Malformed):
        read(io.BytesIO(changed({"slopes": slopes})))


@pytest.mark.parametrize(
    "settled",
    [
        [{"node": 2, "tree": "value"}],  # no integers
        [{"node": 2, "tree": "index"}],  # no tree
        [{"node": 1, "tree": "nodes"}],  # no kink
        [{"node": 0, "tree": "nodes"}],
        [{"node": -1, "tree": "nodes"}],
        [{"node": 2.0, "tree": "nodes"}],
        [{"node": True, "tree": "nodes"}],
        [{"node": 2, "tree": "nothing"}],
        [{"node": 2}],
        {"node": 2, "tree": "nodes"},
        2,
    ],
)
def test_what_is_settled_does_not_fit(settled: object) -> None:
    with pytest.raises(Malformed):
        read(io.BytesIO(changed({"settled": settled})))


@pytest.mark.parametrize(
    "nodes",
    [
        [-1],
        [0, -1, -1],  # a gate
        [1, 1, 0, -1, -1, -1, -1],  # and against itself
        [6, -1, 10, -1, -1],  # the sign of an entry, and a half
    ],
)
def test_settling_by_any_tree_proves_nothing_false(nodes: list[int]) -> None:
    settled = [{"node": 2, "tree": "tree"}] * 2
    data = changed({"settled": settled, "rows.0.claim": [0.0, 0.0]}, tree=np.array(nodes))
    points = np.random.default_rng(0).uniform(*BOX, (2000, 2))
    (row,) = check(read(io.BytesIO(data)))
    assert row.upper >= networks.dual_norm(networks.gradients(NETWORK, np.eye(1), points), "inf").max() and row.failures


@pytest.mark.parametrize(
    "nodes",
    [
        [1, 1, 1, -1, -1, -1, -1],  # the same gate again and again
        [1, 0, -1, -1, -1],  # and against itself
        [6, 6, -1, -1, 7, -1, -1],  # the sign of an entry twice
        [10, 10, 10, 11, -1, -1, -1, -1, -1],  # one input halved to the end
    ],
)
def test_trees_that_repeat_themselves_still_cover(nodes: list[int]) -> None:
    (row,) = check(read(io.BytesIO(changed({"rows.0.claim": [0.0, 0.0]}, nodes=np.array(nodes)))))
    points = np.random.default_rng(0).uniform(*BOX, (2000, 2))
    assert row.upper >= networks.dual_norm(networks.gradients(NETWORK, np.eye(1), points), "inf").max() and row.failures


def test_another_norm_or_functional_is_another_question() -> None:
    names = {read(io.BytesIO(changed(change, **arrays))).digest
             for change, arrays in (({}, {}), ({"norm": "2"}, {}), ({}, {"rows": np.full((1, 1), 0.5)}),
                                    ({}, {"upper": np.full(2, 0.4)}), ({}, {"3.bias": np.zeros(1)}))}  # fmt: skip
    assert len(names) == 5
