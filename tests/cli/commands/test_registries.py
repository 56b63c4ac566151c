"""What ``lipcompare methods``, ``solvers`` and ``operations`` print."""

from __future__ import annotations

import json

import pytest
from command_line import ok, run

from lipcompare.cli import options
from lipcompare.methods import METHODS
from lipcompare.network.from_onnx.operations import supported as onnx_names
from lipcompare.network.from_torch.operations import supported as torch_names


def test_the_methods_are_listed_and_each_explains_its_options() -> None:
    table = ok("methods")
    found = {m["name"]: m for m in json.loads(ok("methods", "--json"))["methods"]}
    assert list(found) == list(METHODS) and set(options.METHODS) <= set(found)
    for name, method in found.items():
        assert name in table and method["norms"]
        for option in method["options"]:
            assert option["meaning"], f"{name}: the docstring says nothing of {option['name']}"


def test_one_method_is_explained() -> None:
    text = " ".join(ok("methods", "bab").split())
    assert "Proves: exact. Norms: inf, 2, 1." in text and "'queue' or 'classes'" in text
    assert "regions bounded in all" in text or "subdomains bounded in all" in text
    assert "``" not in text and ":mod:" not in text
    assert "It has no options." in ok("methods", "naive")
    wrong = run("methods", "sd")
    assert wrong.exit_code == 2 and "Did you mean 'sdp'?" in wrong.stderr


def test_names_of_methods_complete() -> None:
    assert options.method_names("l") == ["lbp", "lp", "lipsdp", "lipbab"]
    assert set(options.METHODS) == {name for name, cls in METHODS.items() if cls.__module__.startswith("lipcompare.")}


@pytest.mark.parametrize("command", ["methods", "solvers", "operations"])
def test_lines_of_a_pipe_end_where_they_end(command: str) -> None:
    lines = ok(command).splitlines()
    assert all(line == line.rstrip() for line in lines) and max(map(len, lines)) <= 120


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pip install" not in run("solvers").stderr
    monkeypatch.setattr("solvers.gurobi.Gurobi.is_available", lambda self: False)
    assert "pip install 'lipcompare[gurobi]' brings gurobi." in run("solvers").stderr


def test_the_table_of_methods_says_what_is_in_it() -> None:
    assert repr(METHODS).startswith("<lipcompare.methods: naive, ibp, recurjac, lbp, ")


def test_the_operations_are_those_of_the_tables() -> None:
    text = ok("operations").split()
    names = {name.rstrip(",") for name in text}
    assert {*onnx_names(), *torch_names()} <= names and "layer_norm" not in names
