"""From the command line's options to a problem: arrays, boxes, functionals, devices."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lipcompare.cli.vnnlib import read_vnnlib
from lipcompare.domain import Space
from lipcompare.errors import InvalidInput, nearest, reading, require_file, shown
from lipcompare.network import Network
from lipcompare.network.arrays import read_npy
from lipcompare.network.load import load
from lipcompare.problem import Box, Norm, NormBall, Problem, as_batch, margins

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclasses.dataclass(frozen=True)
class Question:
    """What the command line asks, as the user wrote it."""

    model: str
    input: str | None = None
    center: str | None = None
    eps: str | None = None
    lower: str | None = None
    upper: str | None = None
    vnnlib: str | None = None
    clip: str | None = None
    input_index: str | None = None
    scale: float = 1.0
    input_shape: str | None = None
    norm: str = "inf"
    functional: str = "outputs"
    device: str = "cpu"
    dtype: str = "float64"
    ball: str = "inf"
    everywhere: bool = False
    memory: float = 1.0  # GiB
    logits: bool = False
    classes: str | None = None

    def problem(self, note: Callable[[str], None]) -> Problem:
        """The problem; ``note`` takes remarks for the user.

        Raises:
            InvalidInput, UnsupportedOperation: something in the question is wrong, and the message names the fix.
        """
        norm = Norm.parse(self.norm)
        network, domain = self.domain(note)
        rows = self._functionals(network, domain)
        return Problem(network, domain, norm, rows, self._names())  # type: ignore[arg-type]  # None: the outputs

    def _names(self) -> tuple[str, ...]:
        """The outputs' names, as they are given or as a file has them; none if none are given."""
        if self.classes is None:
            return ()
        path = Path(self.classes)
        if path.suffix.lower() == ".txt":
            require_file(path)
            with reading(path, "text file", "write one name per line, in UTF-8"):
                names = path.read_text(encoding="utf-8").splitlines()
        else:
            names = self.classes.split(",")
        return tuple(name.strip() for name in names if name.strip())

    def domain(self, note: Callable[[str], None]) -> tuple[Network, Box]:
        """The network and the sets of inputs, where no gradient is asked for."""
        device, dtype = _placement(self.device, self.dtype)
        ball = Norm.parse(self.ball)
        self._check_combination(ball)
        network = self._network()
        if self.everywhere:
            return network, Space.of(network.in_size, device=device, dtype=dtype)
        if ball is not Norm.INF:
            center = self._centers(network, note)
            radius = torch.as_tensor(self._ball_radius(ball, len(center)), dtype=dtype)
            middle = torch.as_tensor(center, device=device, dtype=dtype)
            return network, NormBall.around(middle, radius.to(device), ball, self.clip_range)
        lower, upper = self._box(network, note)
        if self.clip_range is not None:
            low, high = self.clip_range
            if (lower > high).any() or (upper < low).any():
                raise InvalidInput(f"The box lies outside --clip {self.clip}: check the scale of the input.")
            lower, upper = np.clip(lower, low, high), np.clip(upper, low, high)
        return network, Box(*(torch.as_tensor(end, device=device, dtype=dtype) for end in (lower, upper)))

    def examples(self, note: Callable[[str], None]) -> tuple[Network, Tensor]:
        """The network and the inputs (batch, inputs) themselves, where no set around them is asked for."""
        device, dtype = _placement(self.device, self.dtype)
        if (self.input is None) == (self.center is None):
            raise InvalidInput("Give the examples by --input x.npy or, for a single one, --center 0.1,0.2.")
        self._check_numbers()
        network = self._network()
        return network, torch.as_tensor(self._centers(network, note), device=device, dtype=dtype)

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """The range of valid inputs, if there is one."""
        return None if self.clip is None else _pair(self.clip)

    def _network(self) -> Network:
        shape = input_shape(self.input_shape)
        return load(self.model, input_shape=shape, memory=int(self.memory * 2**30), logits=self.logits)

    def _check_combination(self, ball: Norm) -> None:
        sources = {
            "--input": self.input is not None,
            "--center": self.center is not None,
            "--lower and --upper": self.lower is not None or self.upper is not None,
            "--vnnlib": self.vnnlib is not None,
            "--everywhere": self.everywhere,
        }
        given = [name for name, there in sources.items() if there]
        if not given:
            raise InvalidInput(
                "No box is given: use --input x.npy --eps E, --center 0.5 --eps E, --lower a.npy --upper b.npy, or "
                "--vnnlib FILE (or --everywhere for all inputs)."
            )
        if len(given) > 1:
            raise InvalidInput(f"{' and '.join(given)} contradict each other: each describes a box, so give only one.")
        around = given[0] in ("--input", "--center")
        if self.everywhere and (self.eps, self.clip, self.input_index) != (None, None, None):
            raise InvalidInput("--everywhere means all inputs: drop --eps, --clip and --input-index.")
        if around and self.eps is None:
            raise InvalidInput(f"{given[0]} needs --eps, the radius of the box around it.")
        if not around and self.eps is not None:
            raise InvalidInput(f"--eps goes with --input or --center: the box from {given[0]} already has its size.")
        if not around and ball is not Norm.INF:
            raise InvalidInput(f"--ball {ball.value} goes with --input or --center and --eps: drop {given[0]}.")
        if (self.lower is None) != (self.upper is None):
            missing = "--lower" if self.lower is None else "--upper"
            raise InvalidInput(f"{missing} is missing: a box has two corners, --lower and --upper.")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.input is None and self.scale != 1.0:
            raise InvalidInput("--scale divides the numbers of an --input file: give one, or drop --scale.")
        if self.center is not None and self.input_index is not None:
            raise InvalidInput("--input-index picks from a batch, and --center is one input: drop --input-index.")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InvalidInput("--scale must be a positive number, such as 255.")

    def _box(self, network: Network, note: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corners, (batch, inputs) in float64."""
        if self.vnnlib is not None:
            boxes = read_vnnlib(self.vnnlib, memory=int(self.memory * 2**30))
            if boxes.outputs_ignored:
                note(f"Output constraints in {self.vnnlib} are ignored: only the box of the inputs matters here.")
            lower, upper = (self._picked(end) for end in (boxes.lower, boxes.upper))
            if lower.shape[1] != network.in_size:
                raise InvalidInput(f"{self.vnnlib} bounds {lower.shape[1]} inputs, the network has {network.in_size}.")
            return lower, upper
        if self.lower is not None and self.upper is not None:
            lower, upper = (_inputs(text, network) for text in (self.lower, self.upper))
            if 1 not in (len(lower), len(upper)) and len(lower) != len(upper):
                raise InvalidInput(f"--lower has {len(lower)} boxes, --upper has {len(upper)}: give equally many.")
            lower, upper = np.broadcast_arrays(lower, upper)
            return self._picked(lower), self._picked(upper)
        center = self._centers(network, note)
        radius = self._radius(network, len(center))
        self._question_radius(float(radius.max(initial=0.0)), note)
        return center - radius, center + radius

    def _question_radius(self, radius: float, note: Callable[[str], None]) -> None:
        """Say so where a radius looks like one in other units than the inputs."""
        low, high = self.clip_range or (0.0, 0.0)
        if self.scale > 1 and radius >= 1:
            note(
                f"--scale divides the inputs and not --eps: a radius of {radius:g} is {radius * self.scale:g} of the "
                f"file's units. If that is not meant, write --eps {self.eps}/{self.scale:g}."
            )
        elif high > low and radius >= high - low:
            note(f"A radius of {radius:g} covers the whole range {low:g} to {high:g} of --clip: is --eps in its units?")

    def _centers(self, network: Network, note: Callable[[str], None]) -> np.ndarray:
        """The inputs that are named, (batch, inputs) in float64."""
        if self.input is None:
            return _inputs(self.center or "", network)
        raw = array(self.input, files_only=True)
        if raw.dtype.kind in "iu" and self.scale == 1.0:
            note(f"{self.input} holds integers up to {raw.max(initial=0)}; --scale 255 turns bytes into 0..1.")
        return self._picked(_batch(raw.astype(np.float64) / self.scale, network))

    def _radius(self, network: Network, batch: int) -> np.ndarray:
        """Radii that broadcast to (batch, inputs)."""
        values = _lengths(self.eps or "")
        if values.ndim == 0:
            return values
        radius = self._per_example(_batch(values, network), batch)
        if len(radius) not in (1, batch):
            raise InvalidInput(
                f"--eps {self.eps} has {len(radius)} examples, the input has {batch}: give one or equally many."
            )
        return radius

    def _ball_radius(self, ball: Norm, batch: int) -> np.ndarray:
        """One radius, or one per example."""
        values = self._per_example(_lengths(self.eps or "").reshape(-1), batch)
        if len(values) not in (1, batch):
            raise InvalidInput(
                f"--eps {self.eps} has {len(values)} numbers, and an l_{ball.value} ball has one radius: give a "
                f"number, or one per example ({batch})."
            )
        return values

    def _functionals(self, network: Network, box: Box) -> Tensor | None:
        """``outputs``, one of them by number, ``margins:LABEL`` or ``margins:LABEL:OTHER`` (LABEL a number, one per
        example, a file of them, or ``own``), or a matrix in a file."""
        if self.functional == "outputs":
            return None
        if self.functional.isdecimal() and self.functional.isascii():
            (output,) = indices(self.functional, "--functional", network.out_size)
            row = torch.zeros(1, network.out_size, dtype=torch.float64)
            row[0, output] = 1.0
            return row
        kind, _, classes = self.functional.partition(":")
        if kind == "margins":
            text, colon, other = classes.partition(":")
            against = indices(other, "--functional margins:LABEL:", network.out_size)[0] if colon else None
            return margins(self._classes(text or "own", network, box), network.out_size, against)
        if self.functional.lower().endswith(".npy"):
            matrix = array(self.functional, files_only=True)
            return torch.as_tensor(matrix[None] if matrix.ndim == 1 else matrix)
        known = ("outputs", "margins", "margins:LABEL", "margins:LABEL:OTHER", "FILE.npy")
        raise InvalidInput(f"Unknown functional {self.functional!r}.{nearest(self.functional, known)}")

    def _classes(self, text: str, network: Network, box: Box) -> Tensor:
        """Labels of the examples; ``own`` are the classes that the network gives the centres."""
        if text != "own":
            return self.labels(text, box.batch)
        center = box.window.center
        with torch.no_grad():
            said: Tensor = network.to(center.device, center.dtype).forward(center).argmax(-1)
        return said

    def labels(self, text: str, batch: int) -> Tensor:
        """Classes: a number, one per example, or a file of them (of all that ``--input-index`` picks from)."""
        values = array(text)
        return _whole(self._per_example(values.reshape(-1), batch) if values.ndim else values, text, batch)

    def _per_example(self, values: np.ndarray, batch: int) -> np.ndarray:
        """What goes with the examples, of which ``--input-index`` left ``batch``: it picks the same of both."""
        return values if len(values) in (1, batch) else self._picked(values)

    def _picked(self, batch: np.ndarray) -> np.ndarray:
        """The examples that ``--input-index`` names, such as ``3``, ``0:10`` or ``0,3,7``."""
        if self.input_index is None:
            return batch
        chosen = indices(self.input_index, "--input-index", len(batch))
        return batch[chosen]


def indices(text: str, option: str, size: int) -> list[int]:
    """Indices below ``size``, such as ``3``, ``0:10`` or ``0,3,7``; at least one."""
    if not re.fullmatch(r"\d{1,18}(:\d{1,18})?(,\d{1,18}(:\d{1,18})?)*", text, re.ASCII):
        raise InvalidInput(f"{option} {text!r} cannot be read: write 3, 0:10 or 0,3,7.")
    ranges = [(int(first), int(last or first) + (not last)) for first, _, last in
              (part.partition(":") for part in text.split(","))]  # fmt: skip
    if max(last for _, last in ranges) > size or not any(last > first for first, last in ranges):
        raise InvalidInput(f"{option} {text} picks nothing, or beyond what is there: 0 to {size - 1}.")
    return [i for first, last in ranges for i in range(first, last)]


def array(text: str, *, files_only: bool = False) -> np.ndarray:
    """An array from a ``.npy`` file, or from numbers such as ``0.5``, ``8/255`` or ``0,0.1,-2``."""
    if not files_only and not text.lower().endswith(".npy"):
        try:
            numbers = [_number(part) for part in text.split(",")]
        except ValueError:
            raise InvalidInput(
                f"{text!r} is neither a number (0.5, 8/255), nor numbers separated by commas, nor a .npy file."
            ) from None
        return np.array(numbers[0] if len(numbers) == 1 else numbers)
    with reading(text, ".npy file of numbers", "save the array again with numpy.save"):
        if not Path(text).is_file():
            raise InvalidInput(f"{shown(text)} is not a file: check the path, and save the array with numpy.save.")
        if zipfile.is_zipfile(text):
            raise InvalidInput(f"{shown(text)} is an archive of several arrays: save the one that is meant by itself.")
        loaded = read_npy(text)
    if loaded.dtype.kind not in "fiu":
        raise InvalidInput(f"{shown(text)} holds {loaded.dtype} entries: save real numbers with numpy.save.")
    return loaded


def _number(text: str) -> float:
    """A number, or a fraction such as ``8/255``."""
    if not text.isascii() or "_" in text:  # float reads more than people mean
        raise ValueError
    over, slash, under = text.partition("/")
    if not slash:
        return float(over)
    if float(under) == 0:
        raise ValueError
    return float(over) / float(under)


def _inputs(text: str, network: Network) -> np.ndarray:
    return _batch(array(text).astype(np.float64), network)


def _batch(values: np.ndarray, network: Network) -> np.ndarray:
    batch: np.ndarray = as_batch(values, network).numpy()
    return batch


def _lengths(text: str) -> np.ndarray:
    values = array(text).astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise InvalidInput(f"--eps {text} must be a finite number that is not negative.")
    return values


def radius(text: str, option: str) -> float:
    """One positive length, such as ``0.1`` or ``8/255``."""
    values = _lengths(text).reshape(-1)
    if len(values) != 1 or not 0 < values[0] < np.inf:
        raise InvalidInput(f"{option} {text!r} must be one positive finite number, such as 8/255.")
    return float(values[0])


def directions(text: str, network: Network) -> Tensor:
    """Directions (directions, inputs), written like inputs."""
    return torch.as_tensor(_inputs(text, network))


def _whole(values: np.ndarray, text: str, batch: int) -> Tensor:
    """Classes: a number, or one per example."""
    if not (values == np.floor(values)).all():
        raise InvalidInput(f"The labels {text} are not whole numbers.")
    if values.ndim and values.size != batch:
        raise InvalidInput(f"There are {values.size} labels for {batch} inputs: give one per input, or one for all.")
    return torch.as_tensor(values.reshape(-1) if values.ndim else values).long()


def setting(text: str) -> tuple[str, str]:
    """Name and value of an option of a method, ``name=value``."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInput(f"--option {text}: write name=value.")
    return name.strip(), value.strip()


def settings(texts: Sequence[str]) -> dict[str, str]:
    """Several of them."""
    return dict(map(setting, texts))


def _placement(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    if dtype not in _DTYPES:
        raise InvalidInput(f"Unknown dtype {dtype!r}.{nearest(dtype, _DTYPES)}")
    kind, _, index = device.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in counts or not re.fullmatch(r"\d{0,9}", index, re.ASCII):
        raise InvalidInput(f"Unknown device {device!r}.{nearest(kind, ('cpu', 'cuda', 'cuda:1', 'mps'))}")
    if int(index or 0) >= counts[kind]:
        there = [name for name, count in counts.items() if count]
        raise InvalidInput(f"Device {device!r} is not there: this machine and this torch have {', '.join(there)}.")
    if kind == "mps" and dtype == "float64":
        raise InvalidInput("Device 'mps' has no float64: add --dtype float32.")
    return torch.device(device), _DTYPES[dtype]


def input_shape(text: str | None) -> tuple[int, ...] | None:
    """The shape of one example that ``--input-shape`` names, if any."""
    if text is None:
        return None
    parts = re.split(r"[,x]", text)
    if not all(re.fullmatch(r"0*[1-9]\d{0,17}", part, re.ASCII) for part in parts):
        raise InvalidInput(f"--input-shape {text!r} cannot be read: write sizes such as 1,28,28.")
    return tuple(int(part) for part in parts)


def _pair(text: str) -> tuple[float, float]:
    values = array(text)
    if values.shape != (2,) or not np.isfinite(values).all():
        raise InvalidInput(f"--clip {text!r} cannot be read: write the range of valid inputs, such as 0,1.")
    if values[0] > values[1]:
        raise InvalidInput(f"--clip {text}: {values[0]:g} is above {values[1]:g}; write the smaller number first.")
    return float(values[0]), float(values[1])
