"""Does an imported network compute what its source computes?"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate, Affine, Network, Terms, affine_value, fold_forward, tensors

_RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-2}
"""Of the largest output: some hundred to a million roundoffs of the precision, so a network of some thousand operations
passes, and one with a wrong weight, layer or constant does not."""


def check_agreement(
    network: Network, source: Callable[[Tensor], Tensor], dtype: torch.dtype, *, samples: int = 4, seed: int = 0
) -> None:
    """Compare the network with its source on random inputs.

    Args:
        network: float64, on the CPU.
        source: takes one input of shape ``network.input_shape`` in float64 and returns the model's output.
        dtype: precision in which the source computes. The tolerance scales with it, with the size of the outputs, and
            with how much the network itself amplifies rounding (measured by running it in float32) and what its parts
            are off by (measured by running it with each of them off by as much).

    Raises:
        InvalidInput: they differ, or the outputs are not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1, samples, dtype=torch.float64)[:, None]
    x = torch.randn(samples, network.in_size, generator=generator, dtype=torch.float64) * scale
    x[samples // 2 :] = torch.rand(samples - samples // 2, network.in_size, generator=generator, dtype=torch.float64)
    # Exactly what the source sees, so that only the computation is compared.
    x = x.to(dtype).to(torch.float64)
    ours = network.forward(x)
    theirs = torch.stack([source(row.reshape(network.input_shape).clone()).reshape(-1).to(torch.float64) for row in x])
    if not bool(torch.isfinite(theirs).all()):
        raise InvalidInput("The model's own output is NaN or infinite on ordinary inputs: retrain or repair the model.")
    if ours.shape != theirs.shape:
        raise InvalidInput(
            f"The imported network has {ours.shape[-1]} outputs, the model returns {theirs.shape[-1]}: please report "
            "this model."
        )
    amplified = _amplified(network, x, ours) * (torch.finfo(dtype).eps / torch.finfo(torch.float32).eps)
    inexact = _inexact(network, x, ours, torch.finfo(dtype).eps, generator)
    allowed = _RELATIVE[dtype] * ours.abs().amax(-1) + 100 * amplified + 16 * inexact + torch.finfo(dtype).tiny
    difference = (ours - theirs).abs().amax(-1)
    differs = ~(difference <= allowed)  # also where ours is NaN
    if bool(differs.any()):
        worst = int(differs.int().argmax())
        raise InvalidInput(
            f"The imported network differs from its source by {float(difference[worst]):.3g} on a random input "
            f"(allowed {float(allowed[worst]):.3g}): please report this model."
        )


def _amplified(network: Network, x: Tensor, ours: Tensor) -> Tensor:
    """How far each output is off, (samples,), where everything is rounded to float32; 0 where that leaves its range, as
    nothing is measured then."""
    largest = max((float(t.abs().max()) for t in tensors(network.nodes) if t.numel()), default=0.0)
    if largest > torch.finfo(torch.float32).max:
        return torch.zeros(len(x), dtype=x.dtype)
    single = network.to("cpu", torch.float32).forward(x.to(torch.float32)).to(torch.float64)
    return (ours - single).abs().amax(-1).nan_to_num(nan=0.0, posinf=0.0)


def _inexact(network: Network, x: Tensor, ours: Tensor, unit: float, generator: torch.Generator) -> Tensor:
    """How far each output is off, (samples,), where every part is off by what its own formula may be.

    A sum is off by the ``unit`` of its largest term, however little is left of it: libraries add in orders of their
    own. (In float32 nothing may be left at all, which then measures nothing.)

    Libraries compute a sigmoid, an error function or a hyperbolic tangent by polynomials that are accurate to the
    precision's ``unit`` against the function's range, not against its value: a saturated sigmoid of 3e-4 may be off by
    1e-7. Those that multiply by their argument scale that up. What the rest of the network makes of it is measured by
    shifting each value by that much, up or down by chance.
    """

    def activation(k: int, node: Activate, z: Tensor) -> Tensor:
        y = node.activation.value(z)
        if isinstance(node.activation, LeakyReLU):
            return y
        sign = torch.randint(0, 2, z.shape, generator=generator, dtype=z.dtype) * 2 - 1
        return y + sign * unit * (1 + z.abs()) * y.abs().clamp(min=1)

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        parts = [m.forward(value).abs() for m, value in terms]
        size = reduce(torch.maximum, parts if node.bias is None else [*parts, node.bias.abs()])
        y = affine_value(node, terms)
        sign = torch.randint(0, 2, y.shape, generator=generator, dtype=y.dtype) * 2 - 1
        return y + sign * unit * size

    draws = [fold_forward(network, {0: x}, activation, affine) for _ in range(2)]
    return torch.stack([(ours - y).abs().amax(-1) for y in draws if y is not None]).amax(0)
