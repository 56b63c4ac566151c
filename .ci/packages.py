"""Builds wheels and source distributions, and tries them where nothing else is installed.

    python .ci/packages.py

The wheel made from the source distribution has the same files as the one made from the checkout. A fresh environment
gets the wheels and what they declare that they need, without extras: those packages are linked from the environment
that runs this, nothing is downloaded, and a dependency that is not declared is missed. There the command line bounds a
network, a study is run and reported, an extra that is missing is named, and the checker checks.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
IN_WHEEL = ("lipcompare/py.typed", "solvers/py.typed", "lipcompare/report/templates/page.html", "lipcompare/cli/app.py")
IN_SOURCE = ("tests/conftest.py", "docs/architecture.md", "experiments/study.py", "LICENSE", "CITATIONS.bib")
TRY = """
import numpy as np
from pathlib import Path
import lipcompare
from lipcompare.report.pages import write_report
from lipcompare.store.database import Store
from lipcompare.study.run import Setting, Study, Task, run

assert ".venv" not in lipcompare.__file__ and lipcompare.__version__ == lipcompare.methods.base.versions()["lipcompare"]
random = np.random.default_rng(0)
layers = [(3, 2), (2, 3)]
weights = {f"W{i}": random.standard_normal(size) for i, size in enumerate(layers)}
np.savez("net.npz", **weights, **{f"b{i}": random.standard_normal(size[0]) for i, size in enumerate(layers)})
problem = lipcompare.Problem.around("net.npz", 0.5, 0.1)
run([Study("tried", [Task(problem)], [Setting("lbp")])], "r.sqlite")
with Store("r.sqlite", read_only=True) as store:
    assert "tried" in write_report(store, "report").read_text()
Path("net.onnx").write_bytes(b"not read without onnx")
"""


def call(*command: object, cwd: Path, code: int = 0) -> str:
    """The output of a command that ends with this code."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def build(source: Path, out: Path) -> tuple[Path, Path]:
    """The wheel and the source distribution of a folder."""
    call(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", out, cwd=source)
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def rebuilt(archive: Path, folder: Path) -> Path:
    """The wheel that the source distribution makes."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    missing = [name for name in IN_SOURCE if archive.name.startswith("lipcompare") and not (source / name).is_file()]
    assert not missing, f"{archive.name} lacks {missing}"
    return build(source, folder / "dist")[0]


def needed(names: list[str]) -> set[str]:
    """Names of the distributions that some need, without extras."""
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        found.add(name)
        wanted = map(Requirement, metadata.requires(name) or ())
        names += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def link(names: set[str], site: Path) -> None:
    """Put installed distributions into another environment."""
    for name in names:
        distribution = metadata.distribution(name)
        for top in {Path(f).parts[0] for f in distribution.files or () if not str(f).startswith("..")} - {
            "__pycache__"
        }:
            source, target = Path(str(distribution.locate_file(top))), site / top
            if source.exists() and not target.exists():
                target.symlink_to(source)


def main() -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        wheels = []
        for source in (ROOT, ROOT / "verifier"):
            wheel, archive = build(source, folder / source.name / "dist")
            again = rebuilt(archive, folder / source.name / "again")
            assert files(wheel) == files(again), f"{archive.name}: {files(wheel) ^ files(again)}"
            wheels.append(wheel)
        names = files(wheels[0])
        assert not [f for f in IN_WHEEL if f not in names] and "lipverify/py.typed" in files(wheels[1])
        assert {Path(f).parts[0].split("-")[0] for f in names} == {"lipcompare", "solvers"}, "more than the packages"

        environment = folder / "environment"
        venv.create(environment, with_pip=False, symlinks=True)
        python = environment / "bin" / "python"
        (site,) = (environment / "lib").glob("python*/site-packages")
        call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q", *wheels, cwd=folder)
        own = [Requirement(r) for w in ("lipcompare", "lipverify") for r in metadata.requires(w) or ()]
        plain = [r.name for r in own if r.marker is None or r.marker.evaluate({"extra": ""})]
        link(needed(plain), site)

        lipcompare = environment / "bin" / "lipcompare"
        call(python, "-c", TRY, cwd=folder)
        print("lipcompare", call(lipcompare, "--version", cwd=folder).strip(), "from", wheels[0].name)
        around = ("--center", "0.5", "--eps", "0.1")
        assert "at most" in call(lipcompare, "bound", "net.npz", *around, "--certificate", "proof.npz", cwd=folder)
        assert "'lipcompare[onnx]'" in call(lipcompare, "bound", "net.onnx", *around, cwd=folder, code=2)
        assert "largest row: [" in call(environment / "bin" / "lipverify", "proof.npz", cwd=folder)


if __name__ == "__main__":
    main()
