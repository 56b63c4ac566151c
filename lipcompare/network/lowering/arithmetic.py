"""Sums, products with constants, dense layers, batch norm, sums and means over axes."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput
from lipcompare.network.linear_maps import Dense, Identity, LinearMap, Scale, Select, Transposed
from lipcompare.network.lowering.builder import (
    Builder,
    NotLinear,
    Operand,
    Value,
    expand,
    fixed,
    known,
    per_channel,
    rearrange,
    reshape,
)


def add(b: Builder, x: Operand, y: Operand, alpha: float = 1.0) -> Operand:
    """``x + alpha y`` with broadcasting."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x + alpha * y
    shape = torch.broadcast_shapes(tuple(x.shape), tuple(y.shape))
    x, y = expand(b, x, shape), expand(b, y, shape)
    terms: list[tuple[Value, LinearMap]] = []
    bias = None
    for operand, factor in ((x, 1.0), (y, alpha)):
        if isinstance(operand, Tensor):
            bias = factor * operand
        else:
            terms.append((operand, Identity(operand.size) if factor == 1 else _scalar(factor, operand.size)))
    return b.affine(terms, shape, bias)


def subtract(b: Builder, x: Operand, y: Operand, alpha: float = 1.0) -> Operand:
    """``x - alpha y`` with broadcasting."""
    return add(b, x, y, -alpha)


def multiply(b: Builder, x: Operand, y: Operand) -> Operand:
    """``x y`` entry by entry, one of them constant."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x * y
    x, y = _one_known(b, x, y)
    if isinstance(x, Tensor):
        x, y = y, x
    assert isinstance(x, Value) and isinstance(y, Tensor)
    shape = torch.broadcast_shapes(x.shape, tuple(y.shape))
    wide = expand(b, x, shape)
    assert isinstance(wide, Value)
    return b.affine([(wide, Scale(y.to(torch.float64).expand(shape).reshape(-1)))], shape)


def _one_known(b: Builder, x: Operand, y: Operand) -> tuple[Operand, Operand]:
    """Two factors, of which one is a constant."""
    if isinstance(x, Value) and isinstance(y, Value):
        for first, second in ((x, y), (y, x)):
            constant = known(b, first)
            if constant is not None:
                return (constant, second) if first is x else (second, constant)
        raise NotLinear("the product of two values that both depend on the input is not piecewise linear")
    return x, y


def divide(b: Builder, x: Operand, y: Operand) -> Operand:
    """``x / y`` with a constant ``y``."""
    if isinstance(y, Value):
        raise NotLinear("division by a value that depends on the input is not piecewise linear")
    return multiply(b, x, 1 / y.to(torch.float64))


def negate(b: Builder, x: Operand) -> Operand:
    """``-x``."""
    return multiply(b, x, torch.tensor(-1.0, dtype=torch.float64))


def dense(b: Builder, x: Operand, weight: Operand, bias: Operand | None = None) -> Operand:
    """``x W^T + bias`` over the last axis of ``x``, ``weight`` of shape (out, in)."""
    weight = fixed(weight, "weight")
    if isinstance(x, Tensor):
        y: Operand = x @ weight.to(x.dtype).T
    else:
        blocks = math.prod(x.shape[:-1])
        y = b.affine([(x, Dense(weight.to(torch.float64), blocks))], (*x.shape[:-1], weight.shape[0]))
    return y if bias is None else add(b, y, bias)


def matmul(b: Builder, x: Operand, y: Operand) -> Operand:
    """``x @ y`` as in numpy, one of them constant."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x @ y
    x, y = _one_known(b, x, y)
    if len(y.shape) == 1:
        column = reshape(y, (*y.shape, 1))
        out = matmul(b, x, column)
        return reshape(out, out.shape[:-1])
    if len(x.shape) == 1:
        out = matmul(b, reshape(x, (1, *x.shape)), y)
        return reshape(out, (*out.shape[:-2], out.shape[-1]))
    if isinstance(x, Tensor):
        # C x = (x^T C^T)^T
        return _swap(b, matmul(b, _swap(b, y), _swap(b, x)))
    assert isinstance(y, Tensor)
    if math.prod(y.shape[:-2]) == 1:
        out = dense(b, x, y.reshape(y.shape[-2:]).T)
        missing = max(0, y.ndim - len(x.shape))
        return reshape(out, (1,) * missing + tuple(out.shape))
    # One weight per batch entry: multiply slice by slice.
    batch = torch.broadcast_shapes(x.shape[:-2], tuple(y.shape[:-2]))
    rows, columns = x.shape[-2], y.shape[-1]
    xs = reshape(expand(b, x, (*batch, *x.shape[-2:])), (-1 if 0 in batch else math.prod(batch), *x.shape[-2:]))
    weights = y.expand(*batch, *y.shape[-2:]).reshape(-1, *y.shape[-2:])
    parts = [dense(b, rearrange(b, [xs], lambda t, i=i: t[i]), w.T) for i, w in enumerate(weights)]
    return reshape(rearrange(b, parts, lambda *ts: torch.stack(ts)), (*batch, rows, columns))


def einsum(b: Builder, equation: str, operands: Sequence[Operand]) -> Operand:
    """A sum of products in Einstein's notation, all factors but one constant."""
    names, output, operands = _spelled(b, equation, operands)
    if sum(isinstance(x, Value) for x in operands) > 1:
        constants = [known(b, x) if isinstance(x, Value) else x for x in operands]
        operands = [x if constant is None else constant for x, constant in zip(operands, constants, strict=True)]
    moving = [k for k, x in enumerate(operands) if isinstance(x, Value)]
    if len(moving) != 1:
        raise NotLinear("the product of two values that both depend on the input is not piecewise linear")
    (k,) = moving
    ours, x = names[k], operands[k]
    sizes = {c: n for name, y in zip(names, operands, strict=True) for c, n in zip(name, y.shape, strict=True)}
    used = {c for name in (*names[:k], *names[k + 1 :]) for c in name}
    gone = [i for i, c in enumerate(ours) if c not in used and c not in output]
    if gone:
        x, ours = total(b, x, gone, False), "".join(c for c in ours if c in used or c in output)
    shared = [c for c in ours if c in used and c in output]
    summed = [c for c in ours if c in used and c not in output]
    kept = [c for c in ours if c not in used]
    new = [c for c in output if c not in ours]
    b.require([sizes[c] for c in (*shared, *summed, *new)])
    rest = [y.to(torch.float64) for y in operands if isinstance(y, Tensor)]
    pattern = ",".join(n for i, n in enumerate(names) if i != k) + "->" + "".join((*shared, *summed, *new))
    factor = torch.einsum(pattern, *rest) if rest else torch.ones((), dtype=torch.float64)

    def size(letters: Sequence[str]) -> int:
        return math.prod(sizes[c] for c in letters)

    order = [ours.index(c) for c in (*shared, *kept, *summed)]
    flat = reshape(rearrange(b, [x], lambda t: t.permute(order)), (size(shared), size(kept), size(summed)))
    product = matmul(b, flat, factor.reshape(size(shared), size(summed), size(new)))
    result = [*shared, *kept, *new]
    wide = reshape(product, [sizes[c] for c in result])
    return rearrange(b, [wide], lambda t: t.permute([result.index(c) for c in output]))


def _spelled(b: Builder, equation: str, operands: Sequence[Operand]) -> tuple[list[str], str, list[Operand]]:
    """Letters of each operand and of the result, ellipses and a result without a name written out; no diagonals."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    used = sorted(set(inputs) - {",", "."})
    ranks = [len(x.shape) - len(n.replace("...", "")) for n, x in zip(names, operands, strict=False)]
    fits = [r >= 0 if "..." in n else r == 0 for n, r in zip(names, ranks, strict=False)]
    if len(names) != len(operands) or not all(fits):
        raise InvalidInput(f"{b.at}: the equation {equation!r} does not fit its operands.")
    most = max(ranks)
    dots = "".join(c for c in string.ascii_letters if c not in used)[:most]
    if not arrow:
        output = "..." + "".join(c for c in used if inputs.count(c) == 1)
    names = [n.replace("...", dots[most - r :]) for n, r in zip(names, ranks, strict=True)]
    output = output.replace("...", dots)
    if len(set(output)) < len(output):
        raise NotLinear("einsum with a letter twice in its result is not supported")
    spelled = []
    lengths = {c: max(x.shape[n.index(c)] for n, x in zip(names, operands, strict=True) if c in n) for c in dots}
    for k, x in enumerate(operands):
        # Axes under dots are broadcast; of a letter that comes twice the diagonal is taken.
        x = expand(b, x, [lengths.get(c, n) for c, n in zip(names[k], x.shape, strict=True)])
        once = "".join(dict.fromkeys(names[k]))
        if once != names[k]:
            x = rearrange(b, [x], lambda t, rule=f"{names[k]}->{once}": torch.einsum(rule, t))
            names[k] = once
        spelled.append(x)
    return names, output, spelled


def lerp(b: Builder, start: Operand, end: Operand, weight: Operand) -> Operand:
    """``start + weight (end - start)``."""
    return add(b, start, multiply(b, subtract(b, end, start), weight))


def batch_norm(
    b: Builder,
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    mean: Operand | None,
    variance: Operand | None,
    epsilon: float,
    *,
    training: bool = False,
) -> Operand:
    """Batch norm (in evaluation also instance norm) with running statistics; channels on axis 1."""
    if training:
        raise NotLinear("batch norm in training mode depends on the batch; export the model in evaluation mode")
    if mean is None or variance is None:
        raise NotLinear("batch norm without running statistics is not linear")
    factor = (fixed(variance, "variance").to(torch.float64) + epsilon).rsqrt()
    if weight is not None:
        factor = factor * fixed(weight, "weight")
    shift = -fixed(mean, "mean").to(torch.float64) * factor
    if bias is not None:
        shift = shift + fixed(bias, "bias")
    rank = len(x.shape) - 2
    return add(b, multiply(b, x, per_channel(factor, rank)), per_channel(shift, rank))


def total(b: Builder, x: Operand, axes: Sequence[int] | None, keepdim: bool) -> Operand:
    """Sum over axes (all of them where ``axes`` is None or empty)."""
    shape, kept, squeezed = _reduced(x, axes)
    final = kept if keepdim else squeezed
    if isinstance(x, Tensor):
        return x.to(torch.float64).sum(_axes(x, axes)).reshape(final)
    out = math.prod(kept)
    where = torch.arange(out).reshape(kept).expand(shape).reshape(-1)
    return b.affine([(x, Transposed(Select(where, out)))], final)


def mean(b: Builder, x: Operand, axes: Sequence[int] | None, keepdim: bool) -> Operand:
    """Mean over axes (all of them where ``axes`` is None or empty)."""
    shape, kept, _ = _reduced(x, axes)
    count = math.prod(shape) / max(1, math.prod(kept))
    return multiply(b, total(b, x, axes, keepdim), torch.tensor(1 / count, dtype=torch.float64))


def _axes(x: Operand, axes: Sequence[int] | None) -> list[int]:
    rank = len(x.shape)
    return sorted({a % rank for a in axes}) if axes else list(range(rank))


def _reduced(x: Operand, axes: Sequence[int] | None) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shape, shape with the reduced axes of length 1, shape without them."""
    gone, shape = _axes(x, axes), tuple(x.shape)
    kept = tuple(1 if k in gone else n for k, n in enumerate(shape))
    return shape, kept, tuple(n for k, n in enumerate(shape) if k not in gone)


def _scalar(factor: float, size: int) -> Scale:
    return Scale(torch.full((size,), float(factor), dtype=torch.float64))


def _swap(b: Builder, x: Operand) -> Operand:
    return rearrange(b, [x], lambda t: t.transpose(-1, -2))
