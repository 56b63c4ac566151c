"""A program outside this repository as a method: the problem goes to it in a file, the answer comes back on a line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from lipcompare.budget import Budget, Clock
from lipcompare.domain import Norm, NormBall
from lipcompare.methods import Method
from lipcompare.network.activations.leaky import LeakyReLU
from lipcompare.network.graph import Activate, Affine, Network
from lipcompare.network.linear_maps import Conv, Dense, Identity
from lipcompare.problem import Problem
from lipcompare.result import Bound, Status

FOLDER = "LIPCOMPARE_PEERS"
"""Environment variable: the folder that has a folder per program, named as the method is."""

_STARTING = 60.0
"""Seconds that a program may take beyond its time limit: to start, to import, to end a step."""

_MISSING = ("ModuleNotFoundError", "ImportError", "importlib.metadata.PackageNotFoundError")
"""How the last line of a program begins that lacks something."""

_LONG = 1e6
"""Seconds that stand for no limit."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a program said.

    Attributes:
        values: (rows,) its upper bounds; or one number.
        preparing: processor seconds of making its form of the network, without imports.
        seconds: processor seconds of answering.
        memory: bytes that its process held at most.
        version: of the program.
    """

    values: np.ndarray
    preparing: float
    seconds: float
    memory: int
    version: str


class NotInstalled(Exception):
    """The program is not there."""


class Failed(Exception):
    """It broke off; the message is the last line that it printed."""


class OutOfTime(Exception):
    """It was ended a while after its time limit."""


@dataclasses.dataclass(frozen=True)
class Peer(Method):
    """A program that says an upper bound. Nothing that it says is checked; a comparison finds contradictions.

    Its name is that of its driver in ``lipcompare_peers.drivers`` and of its folder under ``LIPCOMPARE_PEERS``.
    """

    proves: ClassVar[str] = "upper"
    convolutions: ClassVar[bool] = False

    @property
    def choice(self) -> str:
        """What its driver takes besides the problem and the time limit."""
        return ""

    def supports(self, problem: Problem) -> str | None:
        if problem.batch > 1:
            return "It takes one example at a time."
        if isinstance(problem.box, NormBall) and not self.balls:
            return "It takes boxes."
        try:
            layers = layers_of(problem.network)
        except ValueError as error:
            return str(error)
        if not self.convolutions and any(kind == "conv" for kind, *_ in layers):
            return "It takes dense layers only."
        if not self.balls and problem.norm is not Norm.INF:
            return "It is run for the input norm inf."
        return None

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        try:
            answer = ask(self.name, problem, clock.left, self.choice)
        except NotInstalled as error:
            return self.result(problem, clock, status=Status.UNAVAILABLE, detail=str(error))
        except Failed as error:
            return self.result(problem, clock, status=Status.CRASHED, detail=str(error))
        except OutOfTime:
            return self.result(problem, clock, status=Status.TIME_LIMIT)
        said = f"{answer.version}: {answer.preparing + answer.seconds:.3g} CPU s, {answer.memory >> 20} MiB."
        return self.result(problem, clock, upper=np.broadcast_to(answer.values, (1, problem.rows)).copy(), detail=said)


def ask(program: str, problem: Problem, seconds: float, choice: str = "") -> Answer:
    """Have a program answer the problem of one example.

    Raises:
        NotInstalled, Failed, OutOfTime: it did not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        write(problem, path)
        home = home_of(program)
        own = home / "venv" / "bin" / "python"
        interpreter = str(own) if own.is_file() else sys.executable
        paths = [str(Path(__file__).parent), str(home), str(home / "src")]
        return start([interpreter, "-W", "ignore", "-m", f"drivers.{program}"], paths, home, path, seconds, choice)


def home_of(program: str) -> Path:
    """The folder of a program.

    Raises:
        NotInstalled: there is none.
    """
    root = os.environ.get(FOLDER)
    if root is None:
        raise NotInstalled(f"Set {FOLDER} to the folder that has the other programs; docs/peers.md says how.")
    home = Path(root).resolve() / program  # the program runs in its own folder
    if not home.is_dir():
        raise NotInstalled(f"There is no folder {program} in {FOLDER}.")
    return home


def start(
    command: Sequence[str], paths: Sequence[str], folder: Path, problem: Path, seconds: float, choice: str
) -> Answer:
    """Run a driver on a problem's file, in a process of its own and on one thread.

    Args:
        command: that starts it.
        paths: where it finds its modules.
        folder: that it runs in.

    Raises:
        NotInstalled, Failed, OutOfTime: it gave no answer.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    full = [*command, str(problem), f"{min(seconds, _LONG):.3f}", choice]
    limit = seconds + _STARTING if seconds <= _LONG else None
    try:
        done = subprocess.run(  # noqa: S603 - a program that the user put there
            full, env=environment, cwd=folder, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise (NotInstalled if lines[-1].startswith(_MISSING) else Failed)(lines[-1])
    said = json.loads(done.stdout.splitlines()[-1])
    values = np.asarray(said.pop("values"), dtype=np.float64)
    return Answer(values, **said)


Layers = list[tuple[str, dict[str, Any], np.ndarray | None, np.ndarray | None]]
"""Kind, options, weight and bias of every layer, as ``drivers.exchange`` reads them."""


def layers_of(network: Network) -> Layers:
    """A network of layers one after another.

    Raises:
        ValueError: it is another one; the message says why.
    """
    layers: Layers = []
    image = False
    for before, node in enumerate(network.nodes[1:]):
        if tuple(node.parents) != (before,):
            raise ValueError("It takes layers one after another.")
        if isinstance(node, Activate):
            slope = node.activation.alpha if isinstance(node.activation, LeakyReLU) else None
            if isinstance(slope, Tensor) or slope != 0:
                raise ValueError("It takes ReLU networks.")
            layers.append(("relu", {}, None, None))
            continue
        assert isinstance(node, Affine)
        (form,) = node.maps
        if isinstance(form, Identity) and node.bias is None:
            continue
        if isinstance(form, Conv) and len(form.stride) == 2:
            image = True
            kind, outputs = "conv", form.out_shape[0]
            options: dict[str, Any] = {
                "stride": form.stride, "padding": form.padding, "dilation": form.dilation, "groups": form.groups,
            }  # fmt: skip
            bias = None if node.bias is None else node.bias.reshape(outputs, -1)
            if bias is not None and bool((bias != bias[:, :1]).any()):
                raise ValueError("It takes convolutions with a bias per channel.")
            bias = None if bias is None else bias[:, 0]
        elif isinstance(form, Dense) and form.blocks == 1:
            if image or (not layers and len(network.input_shape) > 1):
                layers.append(("flatten", {}, None, None))
                image = False
            kind, options, outputs, bias = "dense", {}, form.out_size, node.bias
        else:
            raise ValueError("It takes dense layers and convolutions of images.")
        offset = np.zeros(outputs) if bias is None else bias.double().numpy()
        layers.append((kind, options, form.weight.double().numpy(), offset))
    return layers


def write(problem: Problem, path: Path) -> None:
    """The problem of one example, whose outputs are its functionals, in a file that the drivers read."""
    layers = layers_of(problem.network)
    rows = problem.functionals[0].double().numpy()
    kind, options, weight, bias = layers[-1]
    if kind == "dense":
        layers[-1] = (kind, options, rows @ weight, rows @ bias)
    else:
        layers.append(("dense", {}, rows, np.zeros(len(rows))))
    arrays: dict[str, Any] = {}
    for k, (_, _, weight, bias) in enumerate(layers):
        if weight is not None and bias is not None:
            arrays[f"weight{k}"], arrays[f"bias{k}"] = weight, bias
    # Of a ball that is cut these are those of the whole ball, whose bound holds on its part too.
    box = problem.box
    center, radius = box.window.center[0].double(), box.window.radius[0].double()
    if isinstance(box, NormBall):
        center, radius = box.center[0].double(), box.radius[0].double().expand(len(center))
    about = {
        "layers": [(kind, options) for kind, options, *_ in layers],
        "shape": problem.network.input_shape,
        "norm": problem.norm.value,
    }
    np.savez(path, about=json.dumps(about), center=center.numpy(), radius=radius.numpy(), **arrays)
