"""The torch settings under which everything here computes, whatever the caller's are; the caller's are put back."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator

import torch

_PRODUCTS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv")
"""Kinds of products that torch may round to fewer bits than the dtype has (TF32, bfloat16)."""


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """No gradients recorded, no inference mode, no autocast, torch's own default dtype and device, so that tensors are
    made as the code says and can be written to. Also a decorator."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))  # a mode that costs time on every call, so only where it must
        if torch.get_default_dtype() is not torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        yield


@contextlib.contextmanager
def computing(threads: int | None = None) -> Iterator[None]:
    """The ordinary settings and products of full precision, so that bounds are rounded as their allowances assume.

    Also a decorator. Nothing may be traced by torch inside: its tracer refuses some states of these flags.

    Args:
        threads: CPU threads of torch meanwhile; None leaves them as they are.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(ordinary())
        for name in _PRODUCTS:
            product = operator.attrgetter(name)(torch.backends)
            if product.fp32_precision != "ieee":
                stack.callback(setattr, product, "fp32_precision", product.fp32_precision)
                product.fp32_precision = "ieee"
        if threads is not None and threads != torch.get_num_threads():
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        yield
