"""The question: a network, a domain of inputs, a norm, and the functionals whose gradients are bounded."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lipcompare.domain import Box, Norm, NormBall
from lipcompare.errors import InvalidInput, known_keywords
from lipcompare.network.environment import ordinary
from lipcompare.network.from_torch import example_shape
from lipcompare.network.graph import Network
from lipcompare.network.load import Source, load
from lipcompare.network.room import MEMORY

__all__ = ["ArrayLike", "Box", "Norm", "NormBall", "Problem", "as_batch", "margins", "row_names"]

ArrayLike = Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]] | float


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """``L_i = sup_{x in box} || grad (c_i^T f)(x) ||_q`` for every box of a batch and every row ``c_i``.

    The problem's device and precision are those of its box; network and functionals follow. The gradient at a kink
    ranges over every Clarke derivative of the activations there, as in the paper (arXiv 2210.07394) and in LipMIP.

    Attributes:
        network: the network ``f``.
        box: a batch of boxes, balls or whole spaces over the flattened input (:mod:`lipcompare.domain`).
        norm: ``p``, the norm on the input (``L_i`` is measured in its dual ``q``).
        functionals: (batch, rows, outputs); also accepted: (rows, outputs), or None for one row per output.
        classes: names of the outputs for people (:meth:`row_names`), or none.
    """

    network: Network
    box: Box
    norm: Norm = Norm.INF
    functionals: Tensor = None  # type: ignore[assignment]  # None stands for the outputs until creation ends
    classes: tuple[str, ...] = ()

    @ordinary()
    def __post_init__(self) -> None:
        _require(self.network, Network, "A problem's network", "lipcompare.load(...)")
        _require(self.box, Box, "A problem's box", "Box(lower, upper), or use Problem.around(model, center, eps)")
        lower, network = self.box.lower, self.network
        if lower.shape[1] != network.in_size:
            raise InvalidInput(
                f"The box has {lower.shape[1]} inputs, the network has {network.in_size} (shape {network.input_shape})."
            )
        if not lower.is_floating_point():
            raise InvalidInput(f"The box must hold floating-point numbers, not {lower.dtype}.")
        rows = _outputs(network.out_size) if self.functionals is None else _numbers(self.functionals, "functionals")
        rows = rows.to(device=lower.device, dtype=lower.dtype)
        if rows.ndim == 2:
            rows = rows.expand(self.box.batch, *rows.shape)
        if rows.ndim != 3 or rows.shape[0] != self.box.batch or rows.shape[1] == 0 or rows.shape[2] != network.out_size:
            raise InvalidInput(
                f"Functionals have shape {tuple(rows.shape)}; expected (rows, {network.out_size}) or "
                f"({self.box.batch}, rows, {network.out_size}) with at least one row."
            )
        if not bool(torch.isfinite(rows).all()):
            raise InvalidInput("The functionals hold NaN or infinite entries.")
        if self.classes and len(self.classes) != network.out_size:
            raise InvalidInput(f"There are {len(self.classes)} names of classes for {network.out_size} outputs.")
        object.__setattr__(self, "norm", Norm.parse(self.norm))
        object.__setattr__(self, "functionals", rows)
        object.__setattr__(self, "network", network.to(lower.device, lower.dtype))

    @classmethod
    @known_keywords
    @ordinary()
    def around(
        cls,
        network: Source,
        center: ArrayLike,
        eps: ArrayLike,
        *,
        norm: Norm | str | float = Norm.INF,
        ball: Norm | str | float = Norm.INF,
        functionals: ArrayLike | None = None,
        clip: tuple[float, float] | None = None,
        input_shape: Sequence[int] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Problem:
        """The problem on the ball of radius ``eps`` around ``center``.

        Args:
            network: a network, or what :func:`lipcompare.load` makes one of: a ``torch.nn.Module``, the path of a file.
            center: a number (every input), one input of any shape with the right size, or a batch of them.
            eps: a number, or one per input; for l_1 and l_2 balls a number, or one per example.
            norm: the norm that the constant is about.
            ball: the norm of the ball, l_inf (a box) unless said otherwise, whatever ``norm`` is.
            functionals: (rows, outputs) or (batch, rows, outputs); one row per output if None.
            clip: the range of valid inputs, such as ``(0, 1)``, which cuts the ball.
            device: where to compute; by default where ``center`` is, and on the CPU if that is no tensor.
            input_shape: shape of one example, for a model that does not say and a ``center`` that does not either.

        Raises:
            InvalidInput: a shape or value that does not fit, or a model that cannot be read.
            UnsupportedOperation: an operation of the model.
        """
        if input_shape is None and isinstance(network, nn.Module):
            input_shape = example_shape(network, _numbers(center, "center").shape)
        _require(dtype, torch.dtype, "dtype", "torch.float64 or torch.float32")
        network = load(network, input_shape=input_shape)
        points = as_batch(center, network, device=device, dtype=dtype)
        radius = _numbers(eps, "eps").to(points)
        shape = Norm.parse(ball)
        if shape is not Norm.INF:
            return cls(network, NormBall.around(points, radius, shape, clip), Norm.parse(norm), functionals)  # type: ignore[arg-type]
        if radius.ndim:
            if radius.numel() not in (1, network.in_size, points.numel()):
                raise InvalidInput(f"eps has shape {tuple(radius.shape)}, the input has shape {network.input_shape}.")
            radius = radius.reshape(-1, 1 if radius.numel() == 1 else network.in_size)
        return cls(network, Box.ball(points, radius, clip), Norm.parse(norm), functionals)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        rows = f"{self.rows} functional{'' if self.rows == 1 else 's'}"
        return f"<Problem: {self.box.described}, norm l_{self.norm.value}, {rows}, of {self.network!r}>"

    def _repr_html_(self) -> str:
        facts = {
            "network": f"{self.network.name}, {self.network.input_shape} → {self.network.output_shape}, "
            f"{self.network.neurons} neurons",
            "inputs": self.box.described,
            "input norm": f"l_{self.norm.value} (gradients in l_{self.norm.dual.value})",
            "functionals": str(self.rows),
            "computed": f"{str(self.dtype).removeprefix('torch.')} on {self.device}",
        }
        lines = "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
        return f"<table>{lines}</table>"

    @property
    def batch(self) -> int:
        return self.box.batch

    @property
    def rows(self) -> int:
        return int(self.functionals.shape[1])

    def row_names(self, example: int = 0) -> list[str]:
        """What the functionals of an example are called (:func:`row_names`)."""
        return row_names(self.functionals[example], self.classes)

    @property
    def device(self) -> torch.device:
        return self.box.lower.device

    @property
    def dtype(self) -> torch.dtype:
        return self.box.lower.dtype

    def double(self, device: torch.device | str | None = None) -> Problem:
        """The same problem in float64, where its numbers are exactly representable, on the same or another device.

        Itself where it is so already.
        """
        if self.dtype is torch.float64 and (device is None or torch.device(device) == self.device):
            return self
        return dataclasses.replace(self, box=self.box.to(self.device if device is None else device, torch.float64))

    def example(self, b: int) -> Problem:
        """The problem of one box of the batch."""
        return self.slice(b, b + 1)

    def slice(self, start: int, stop: int) -> Problem:
        """The problem of some consecutive boxes of the batch."""
        some = slice(start, stop)
        return dataclasses.replace(self, box=self.box.slice(start, stop), functionals=self.functionals[some])


@ordinary()
def as_batch(
    values: ArrayLike, network: Network, *, device: str | torch.device | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Inputs as a tensor (batch, in_size): a number, one input of any shape with the right size, or a batch.

    On ``device``, which by default is where they are.
    """
    x = _numbers(values, "center").to(device=device, dtype=dtype)
    if x.ndim == 0:
        return x.expand(1, network.in_size).clone()
    if x.numel() == 0:
        raise InvalidInput("The batch of inputs is empty.")
    if x.numel() == network.in_size and (x.ndim == 1 or tuple(x.shape) == network.input_shape or x.shape[0] == 1):
        return x.reshape(1, -1)
    if math.prod(x.shape[1:]) == network.in_size:
        return x.reshape(x.shape[0], -1)
    raise InvalidInput(
        f"The input has shape {tuple(x.shape)}; the network takes {network.input_shape} or a batch of that."
    )


@ordinary()
def margins(labels: int | Sequence[int] | Tensor, outputs: int, against: int | None = None) -> Tensor:
    """Functionals ``e_label - e_j`` for all ``j != label``, or for ``j = against`` alone: (batch, rows, outputs), or
    without the batch axis where one label is given."""
    chosen = torch.as_tensor(labels)
    if outputs < 2:
        raise InvalidInput("Margins need a network with at least two outputs.")
    if bool(((chosen < 0) | (chosen >= outputs)).any()):
        raise InvalidInput(f"Labels must lie in 0..{outputs - 1}; got {chosen.tolist()}.")
    if against is not None and (not 0 <= against < outputs or bool((chosen == against).any())):
        raise InvalidInput(
            f"A margin is against another class in 0..{outputs - 1}; got {against} for {chosen.tolist()}."
        )
    eye = _outputs(outputs)
    others = range(outputs) if against is None else [against]
    rows = [torch.stack([eye[y] - eye[j] for j in others if j != y]) for y in chosen.reshape(-1).tolist()]
    return rows[0] if chosen.ndim == 0 else torch.stack(rows)


def _outputs(outputs: int) -> Tensor:
    """A functional for each output.

    Raises:
        InvalidInput: they are so many that the matrix does not fit where a network has to.
    """
    if 8 * outputs**2 > MEMORY:
        raise InvalidInput(
            f"The network has {outputs:,} outputs, and a functional for each does not fit in {MEMORY / 2**30:g} GiB: "
            "name one (--functional 3 on the command line) or some (functionals=... in Python)."
        )
    return torch.eye(outputs, dtype=torch.float64)


def row_names(functionals: Tensor, classes: Sequence[str] = ()) -> list[str]:
    """What each functional (rows, outputs) is called: ``3`` for an output, ``3-0`` for a margin, else ``row 2``; with
    the names of the ``classes``, one per output, where there are any."""
    called = classes or [str(j) for j in range(functionals.shape[-1])]
    names = []
    for number, row in enumerate(functionals.tolist()):
        used = {j: value for j, value in enumerate(row) if value}
        signs = sorted(used, key=lambda j: -used[j])
        if list(used.values()) == [1.0]:
            names.append(called[signs[0]])
        elif len(used) == 2 and [used[j] for j in signs] == [1.0, -1.0]:
            names.append(f"{called[signs[0]]}-{called[signs[1]]}")
        else:
            names.append(f"row {number}")
    return names


def _numbers(values: Any, what: str) -> Tensor:
    """An argument as a tensor, in its own precision.

    Raises:
        InvalidInput: it does not consist of numbers, or its rows differ in length.
    """
    if isinstance(values, Tensor) and not values.is_complex():
        return values.detach()
    try:
        array = np.asarray(values)
    except ValueError:
        raise InvalidInput(f"{what} has rows of different lengths: give an array.") from None
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"{what} must be a number or an array of numbers, not {_kind(values)}.")
    return torch.as_tensor(array)


def _require(value: object, wanted: type, what: str, advice: str) -> None:
    if not isinstance(value, wanted):
        raise InvalidInput(f"{what} cannot be {_kind(value)}: give {advice}.")


def _kind(value: object) -> str:
    """A value of the wrong type in a few words."""
    return repr(value) if isinstance(value, (str, type(None))) else f"of type {type(value).__name__}"
