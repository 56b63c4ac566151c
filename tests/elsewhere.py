"""A device of its own in the memory of the processor: what a GPU refuses is refused here, without a GPU.

Its tensors say that they are on the device ``meta``, whose factories need no driver, and hold their numbers. What mixes
them with tensors of the processor is an error as it is on a GPU: only numbers (tensors without dimensions), indices and
copies may come from the processor. numpy does not see them, and random numbers are drawn where they are to be.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, Self
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
_ANYWHERE = ("copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_")
"""Operators that take tensors of two devices."""


class Elsewhere(Tensor):
    """A tensor on that device.

    Attributes:
        held: the same on the processor.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> NoReturn:
        raise TypeError("can't convert a tensor of another device to numpy: use Tensor.cpu() first")

    def __array__(self, dtype: Any = None) -> NoReturn:  # type: ignore[override]
        self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class Device(TorchFunctionMode):
    """While it is entered, tensors are made on the device and moved there."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.inside.enter_context(_Operators())
        # There are no generators of random numbers on this device, and views of its tensors in inference mode.
        self.inside.enter_context(mock.patch.object(torch, "Generator", _Generator))
        self.inside.enter_context(mock.patch.object(torch, "inference_mode", torch.no_grad))
        entered: Self = super().__enter__()
        return entered

    def __exit__(self, *reason: object) -> None:
        super().__exit__(*reason)
        self.inside.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = torch.device(kwargs.get("device") or "cpu") == DEVICE
        generator = kwargs.get("generator")
        if generator is not None and there != (generator in _GENERATORS):
            raise RuntimeError(f"{func.__name__}: expected a generator of the device of the tensor.")
        # These would drop the numbers before any operator is called.
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs, "device": "cpu"}).to(DEVICE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Elsewhere):
            return func(args[0], tree_map(_index, args[1], is_leaf=lambda key: isinstance(key, list)), *args[2:])
        if there and (func is torch.as_tensor or not (args and isinstance(args[0], Tensor))):
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


_GENERATORS: weakref.WeakSet[torch.Generator] = weakref.WeakSet()
"""Those of the device."""


class _Generator(torch.Generator):
    """Stands for ``torch.Generator`` and remembers which are of the device."""

    def __new__(cls, device: torch.device | str = "cpu") -> Self:
        there = torch.device(device) == DEVICE
        made = super().__new__(cls, "cpu" if there else device)
        if there:
            _GENERATORS.add(made)
        return made


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


def _call(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__  # type: ignore[attr-defined]
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [leaf for leaf in given if isinstance(leaf, Elsewhere)]
    there = bool(ours)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name not in _ANYWHERE and ours and any(not isinstance(t, Elsewhere) and t.ndim for t in given):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found two.")
    indexed = name in ("index", "index_put", "index_put_", "_index_put_impl_") and not isinstance(args[0], Elsewhere)
    if indexed and any(isinstance(i, Elsewhere) for i in args[1]):
        raise RuntimeError(f"{name}: indices should be on the processor or on the device of the indexed tensor.")
    args, kwargs = tree_map(_held, (args, kwargs))
    made = func(*args, **kwargs)
    if not there:
        return made
    known = {id(tensor.held): tensor for tensor in ours}  # what is changed in place comes back as it is
    return tree_map(lambda leaf: known.get(id(leaf)) if id(leaf) in known else _wrapped(leaf), made)


def _index(key: Any) -> Any:
    return torch.tensor(key) if isinstance(key, list) else key


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, Elsewhere) else leaf


def _wrapped(leaf: Any) -> Any:
    return Elsewhere(leaf) if isinstance(leaf, Tensor) else leaf
