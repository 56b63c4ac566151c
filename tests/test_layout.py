"""Tests mirror the packages: what tests a module is where its path says.

A module with functions or classes has a test file at the mirrored path (``lipcompare/jacobian/linear.py`` has
``tests/jacobian/test_linear.py``, ``solvers/program.py`` has ``tests/solvers/test_program.py``). A family whose members
are run through one table has one file for the table instead, and so have modules that are steps of one computation of
which only the result can be checked: ``TOGETHER`` names these families.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent

TOGETHER: dict[str, tuple[str, ...]] = {
    # Entries of a table, which one file runs through, and what they have in common.
    "methods/test_conformance.py": (
        "methods/__init__.py", "methods/attack.py", "methods/base.py", "methods/baselines.py",
        "methods/sdp.py",
    ),
    "solvers/test_conformance.py": (
        "solvers/cbc.py", "solvers/cvxpy.py", "solvers/gurobi.py", "solvers/highs.py", "solvers/interface.py",
        "solvers/mps.py", "solvers/pulp.py", "solvers/solution.py",
    ),
    "branching/heuristics/test_table.py": (
        "branching/heuristics/__init__.py", "branching/heuristics/base.py", "branching/heuristics/linear.py",
        "branching/heuristics/mixed.py", "branching/heuristics/moment.py",
    ),
    "network/activations/test_activations.py": (
        "network/activations/base.py", "network/activations/curve.py", "network/activations/functions.py",
        "network/activations/leaky.py", "network/activations/smooth.py",
    ),
    "network/from_torch/test_operations.py": ("network/from_torch/graph.py", "network/from_torch/moves.py"),
    "network/from_onnx/test_importer.py": ("network/from_onnx/operations.py",),
    # What a source calls an operation and what becomes of it: seen only in a whole import.
    "network/lowering/test_products.py": ("network/lowering/native.py",),
    "network/test_smooth_imports.py": ("network/lowering/decomposed.py",),
    "network/test_softmax.py": ("network/lowering/heads.py", "network/lowering/refused.py"),
    "network/test_load.py": ("network/shapes.py",),
    "network/test_damaged_files.py": ("network/arrays.py", "network/room.py"),
    # The rules by which maps are composed: seen in the networks that they simplify.
    "network/test_simplify.py": ("network/compose.py",),
    # Programs whose parts are right if their optimum is: nothing else says what one of them should be.
    "programs/test_preactivation.py": ("programs/prepared.py",),
    "methods/test_milp.py": ("programs/witness.py",),
    "jacobian/test_smooth.py": ("preactivation/functionals.py",),
    "quadratic/cuts/test_separation.py": ("quadratic/cuts/forms.py",),
    "quadratic/cuts/test_forward.py": ("quadratic/cuts/pairs.py",),
    "quadratic/joint/test_bound.py": ("quadratic/joint/solver.py",),
    # Steps of a search, which are right if no point is lost and no bound is too small.
    "branching/test_evaluator.py": (
        "branching/bounds/__init__.py", "branching/bounds/base.py", "branching/bounds/lbp.py",
    ),
    # Ways to one answer, held against the same truth.
    "questions/certify/test_certify.py": (
        "questions/certify/__init__.py", "questions/certify/forward.py", "questions/certify/lipschitz.py",
    ),
    "questions/operator_norm/test_operator_norm.py": (
        "questions/operator_norm/__init__.py", "questions/operator_norm/answer.py",
        "questions/operator_norm/exact.py", "questions/operator_norm/points.py",
        "questions/operator_norm/relaxations.py",
    ),
    "questions/test_entries.py": ("questions/jacobian.py",),
    "certificates/test_write.py": ("certificates/file.py", "certificates/search.py"),
    # What is seen from outside alone: processes of a run, pages, the command line, signals.
    "study/test_run.py": ("study/lanes.py",),
    "study/test_process.py": ("processes/spawning.py", "processes/serving.py"),
    "branching/workers/test_pool.py": ("branching/workers/serve.py",),
    "report/test_pages.py": ("report/templating.py",),
    "cli/commands/test_bounds.py": ("cli/app.py", "cli/options.py"),
    "cli/test_light.py": ("cli/asked.py",),
    "cli/test_entry.py": ("cli/errors.py",),
    "solvers/test_checks.py": ("solvers/ctrl_c.py", "solvers/running.py"),
    # What is there for tests, shown by the tests that it is for.
    "testing/test_suites.py": ("testing/suites/methods.py", "testing/suites/solvers.py"),
    "testing/test_exact.py": ("testing/hostile.py", "testing/networks.py"),
    # Names that are handed on.
    "test_api.py": ("__init__.py",),
}  # fmt: skip


def modules() -> Iterator[str]:
    """Paths of all modules with a function or a class, below ``lipcompare`` or with ``solvers`` in front."""
    for package, base in ((ROOT / "lipcompare", ROOT / "lipcompare"), (ROOT / "solvers", ROOT)):
        for path in sorted(package.rglob("*.py")):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in nodes):
                yield path.relative_to(base).as_posix()


def mirror(module: str) -> Path:
    """Where the test file of a module is."""
    path = Path(module)
    return TESTS / path.with_name(f"test_{path.name}")


EVERY = tuple(modules())
SHARED = {module: test for test, several in TOGETHER.items() for module in several}


@pytest.mark.parametrize("module", EVERY)
def test_every_module_has_its_test(module: str) -> None:
    own = mirror(module)
    assert own.is_file() or module in SHARED, f"{module} has no {own.relative_to(ROOT)}, nor a line in TOGETHER here"
    assert not (own.is_file() and module in SHARED), f"{module} has a test of its own: take it out of TOGETHER here"


@pytest.mark.parametrize("test", TOGETHER)
def test_shared_tests_are_there(test: str) -> None:
    assert (TESTS / test).is_file()
    assert set(TOGETHER[test]) <= set(EVERY), "a module that is gone"


def test_no_test_stands_in_a_folder_of_its_own() -> None:
    """Folders of tests are packages', or those that are listed here with what they are about."""
    about = {"oracle": "all methods against exact arithmetic", "docs": "the blocks of the documentation", "figures": "",
             "experiments": "", "solvers": ""}  # fmt: skip
    folders = {p.parent.relative_to(TESTS).as_posix() for p in TESTS.rglob("test_*.py")} - {"."}
    strange = {f for f in folders if f not in about and not (ROOT / "lipcompare" / f).is_dir()}
    assert not strange
