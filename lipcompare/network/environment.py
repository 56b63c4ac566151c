"""The torch settings under which everything here computes, whatever the caller's are; the caller's are put back."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator

import torch

_PRODUCTS = tuple(
    operator.attrgetter(name)(torch.backends)
    for name in ("mkldnn.matmul", "mkldnn.conv")
    + (("cuda.matmul", "cudnn.conv", "cudnn.rnn") if torch.backends.cuda.is_built() else ())
)
"""Kinds of products that this torch may round to fewer bits than the dtype has (TF32, bfloat16)."""


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """No gradients recorded, no inference mode, no autocast, torch's own default dtype and device, so that tensors are
    made as the code says and can be written to. Only what differs is set. Also a decorator."""
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.is_grad_enabled():
            stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        unsaid = torch.empty(0)  # of the default dtype and device (asking for the latter takes longer)
        if unsaid.device.type != "cpu":
            stack.enter_context(torch.device("cpu"))  # a mode that costs time on every call, so only where it must
        if unsaid.dtype is not torch.float32:
            stack.callback(torch.set_default_dtype, unsaid.dtype)
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
        for product in _PRODUCTS:
            precision = product.fp32_precision
            if precision != "ieee":
                stack.callback(setattr, product, "fp32_precision", precision)
                product.fp32_precision = "ieee"
        if threads is not None and threads != torch.get_num_threads():
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        yield
