"""Damaged files: what the command line says to files of its five formats with bytes changed at random.

Each file is a good one with a few changes, to its bytes or, inside archives, to the bytes of one record (so that the
damage gets past the archive's checksums). A child process reads it as the command line does, under limits on its memory
and its time; it must end with exit code 0, 2 or 3 and one sentence.

    python -m experiments.mutations --count 2000
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gzip
import importlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

KINDS = ("npz", "onnx", "pt2", "vnnlib", "npy")
MEMORY, SECONDS = 2**30, 10
ALLOWED = (0, 2, 3)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run of the command line ended.

    Attributes:
        code: exit code; negative for a signal.
        said: what it wrote to stderr.
        memory: largest resident set in bytes.
        seconds: CPU time.
    """

    code: int
    said: str
    memory: int
    seconds: float

    @property
    def fault(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.code not in ALLOWED:
            return f"exit code {self.code}"
        lines = [line for line in self.said.splitlines() if line and not line.startswith("Note: ")]
        if "Traceback" in self.said or (self.code and not any(line.startswith("Error: ") for line in lines)):
            return "no sentence"
        if len(lines) > 1:
            return "more than one line"
        if self.memory > MEMORY:
            return f"{self.memory / 2**20:.0f} MiB"
        return f"{self.seconds:.0f} s" if self.seconds > SECONDS else ""


def good_files(folder: Path) -> list[Path]:
    """Small good files of every kind, some of them compressed."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    layers: dict[str, Any] = {
        "W0": rng.normal(size=(4, 3)),
        "b0": rng.normal(size=4),
        "W1": rng.normal(size=(2, 4)),
        "b1": np.ones(2),
    }
    np.savez(folder / "a.npz", **layers)
    np.savez_compressed(folder / "b.npz", **{k: v.astype(np.float32) for k, v in layers.items()})
    np.save(folder / "a.npy", rng.random((2, 3)))
    np.save(folder / "b.npy", rng.integers(0, 255, (2, 3), dtype=np.uint8))
    text = "".join(f"(declare-const X_{i} Real)\n(assert (>= X_{i} -0.5)) ; lower\n(assert (<= X_{i} (/ 1 2)))\n"
                   for i in range(3))  # fmt: skip
    text += "(declare-const Y_0 Real)\n(assert (or (and (<= Y_0 0) (>= X_0 0)) (and (>= Y_0 1))))\n"
    (folder / "a.vnnlib").write_text(text)
    (folder / "b.vnnlib.gz").write_bytes(gzip.compress(text.encode()))

    def model(nodes: list[Any], shape: list[int], **weights: Any) -> Any:
        info = helper.make_tensor_value_info
        tensors = [numpy_helper.from_array(v, k) for k, v in weights.items()]
        graph = helper.make_graph(nodes, "g", [info("x", 1, shape)], [info("y", 1, None)], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    node = helper.make_node
    w = {k: v.astype(np.float32) for k, v in layers.items()}
    dense = [node("Gemm", ["x", "W0", "b0"], ["h"], transB=1), node("Relu", ["h"], ["r"]),
             node("Gemm", ["r", "W1", "b1"], ["y"], transB=1)]  # fmt: skip
    onnx.save(model(dense, [1, 3], **w), folder / "a.onnx")
    conv = [
        node("Conv", ["x", "c"], ["h"], pads=[1, 1, 1, 1], strides=[1, 1]), node("Relu", ["h"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]), node("Reshape", ["p", "to"], ["f"]),
        node("Slice", ["f", "from", "until", "axis"], ["s"]), node("Clip", ["s", "low"], ["t"]),
        node("Concat", ["t", "t"], ["u"], axis=1), node("ReduceSum", ["u", "axis"], ["v"], keepdims=1),
        node("ConstantOfShape", ["to2"], ["z"]), node("Add", ["v", "z"], ["y"]),
    ]  # fmt: skip
    numbers = {"to": [1, -1], "from": [0], "until": [5], "axis": [1], "to2": [1, 2]}
    weights: dict[str, Any] = {"c": rng.normal(size=(2, 1, 3, 3)).astype(np.float32), "low": np.array(-0.5, np.float32),
               **{k: np.array(v, np.int64) for k, v in numbers.items()}}  # fmt: skip
    onnx.save(model(conv, [1, 1, 4, 4], **weights), folder / "b.onnx")
    torch.manual_seed(0)
    modules = {"a": (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,)),
               "b": (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.LeakyReLU(), nn.AvgPool2d(2),
                                   nn.Flatten(), nn.Linear(8, 2), nn.Hardtanh()), (1, 4, 4))}  # fmt: skip
    for name, (module, shape) in modules.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module.eval(), (torch.zeros(1, *shape),))
            torch.export.save(program, folder / f"{name}.pt2")
    return sorted(folder.iterdir())


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The same bytes with one to three changes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.choice(("flip", "byte", "digit", "remove", "repeat", "cut", "insert", "swap"))
        span = rng.choice((1, 1, 2, 4, 16, 256))
        if kind == "flip" and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "byte" and data:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == "digit":
            places = [i for i, c in enumerate(data) if chr(c) in "0123456789"]
            if places:
                at = rng.choice(places)
                data[at : at + 1] = rng.choice((b"-1", b"0", b"9", b"99999999", b"1e9", b"", b"9" * 20))
        elif kind == "remove":
            del data[at : at + span]
        elif kind == "repeat":
            data[at:at] = data[at : at + span] * rng.choice((1, 2, 50))
        elif kind == "cut" and rng.random() < 0.3:
            del data[at:]
        elif kind == "insert":
            data[at:at] = rng.randbytes(span)
        elif kind == "swap" and data:
            other = rng.randrange(len(data))
            data[at : at + span], data[other : other + span] = data[other : other + span], data[at : at + span]
    return bytes(data)


def damage(path: Path, target: Path, rng: random.Random) -> None:
    """A damaged copy of a file: its bytes, or what is inside it."""
    content = path.read_bytes()
    if rng.random() < 0.3:
        target.write_bytes(mutated(content, rng))
    elif path.suffix == ".gz":
        target.write_bytes(gzip.compress(mutated(gzip.decompress(content), rng)))
    elif path.suffix in (".npz", ".pt2"):
        with zipfile.ZipFile(io.BytesIO(content)) as source:
            records = {name: source.read(name) for name in source.namelist()}
        worth = [n for n in records if n.endswith(("model.json", "config.json"))] if rng.random() < 0.7 else []
        name = rng.choice(worth or list(records))
        records[name] = mutated(records[name], rng)
        with zipfile.ZipFile(target, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name, record in records.items():
                archive.writestr(name, record)
    else:
        target.write_bytes(mutated(content, rng))


def arguments(path: Path, model: Path) -> list[str]:
    """The command that reads a file."""
    bound = ["bound", "--method", "naive", "--memory", "0.5", "--json"]
    if path.suffix in (".vnnlib", ".gz"):
        return [*bound, str(model), "--vnnlib", str(path)]
    if path.suffix == ".npy":
        return [*bound, str(model), "--input", str(path), "--eps", "0.1"]
    return [*bound, str(path), "--center", "0.5", "--eps", "0.1"]


def run(command: list[str], folder: Path, started: Callable[[], None]) -> Outcome:
    """The command line in a child of this process (which has imported everything already), under its limits."""
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            for path, number in ((out, 1), (err, 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            started()
            code = _command(command)
        except BaseException:  # noqa: BLE001 - it is a child, and this is its report
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    said = err.read_text(errors="replace")
    return Outcome(os.waitstatus_to_exitcode(status), said, used.ru_maxrss * 1024, seconds)


def _command(command: list[str]) -> int:
    from lipcompare.cli.app import app

    try:
        app(command, standalone_mode=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _limits() -> None:
    """Beyond what this process takes already: so much data, and so much CPU and wall time."""
    with Path("/proc/self/statm").open() as file:
        data = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY, data + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
    signal.alarm(60 * SECONDS)


@contextlib.contextmanager
def _folder(keep: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        keep.mkdir(parents=True, exist_ok=True)
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("results/mutations"), help="folder for what failed")
    chosen = parser.parse_args()
    # What a run needs is loaded before children are forked, and before their limits count.
    for needed in ("onnxruntime", "lipcompare.cli.app", "lipcompare.cli.commands.bounds"):
        importlib.import_module(needed)
    torch.set_num_threads(1)
    rng = random.Random(chosen.seed)  # noqa: S311 - it damages files
    codes: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}
    faults = 0
    most, longest = 0, 0.0
    with _folder(chosen.keep) as folder:
        (folder / "good").mkdir()
        files = good_files(folder / "good")
        model = folder / "good" / "a.npz"
        for path in files:
            outcome = run(arguments(path, model), folder, _limits)
            if outcome.code or outcome.fault:
                raise SystemExit(f"{path.name}, which is good: {outcome.fault}\n{outcome.said}")
        before = time.monotonic()
        for k in range(chosen.count):
            path = files[k % len(files)]
            target = folder / f"m{''.join(path.suffixes)}"
            damage(path, target, rng)
            outcome = run(arguments(target, model), folder, _limits)
            kind = next(kind for kind in KINDS if f".{kind}" in path.suffixes)
            codes[kind][outcome.code] += 1
            most, longest = max(most, outcome.memory), max(longest, outcome.seconds)
            if outcome.fault:
                faults += 1
                kept = chosen.keep / f"{chosen.seed}-{k}{''.join(path.suffixes)}"
                kept.write_bytes(target.read_bytes())
                print(f"{kept}: {outcome.fault}\n{outcome.said[-1500:]}", flush=True)
            if (k + 1) % 100 == 0:
                print(f"{k + 1} files, {faults} faults", flush=True)
    print(f"{chosen.count} damaged files, {faults} faults, in {time.monotonic() - before:.0f} s")
    print(f"most memory {most / 2**20:.0f} MiB (the interpreter and its libraries included), longest {longest:.1f} s")
    for kind, found in codes.items():
        print(f"{kind:>7}: " + ", ".join(f"exit code {code}: {n}" for code, n in sorted(found.items())))
    raise SystemExit(faults > 0)


if __name__ == "__main__":
    main()
