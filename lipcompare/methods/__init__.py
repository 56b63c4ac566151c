"""The methods, by name. A new one is a file here and a line in ``METHODS``; one of another package is an entry point of
the group ``lipcompare.methods``, or a call of :func:`register`."""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from typing import Any

from lipcompare.errors import InvalidInput, nearest
from lipcompare.methods.attack import Attack
from lipcompare.methods.auto import Auto
from lipcompare.methods.bab import Bab
from lipcompare.methods.base import Method
from lipcompare.methods.baselines import Ibp, Naive
from lipcompare.methods.enumerate import Enumerate
from lipcompare.methods.exact import Exact
from lipcompare.methods.lbp import Lbp, RecurJac
from lipcompare.methods.lipbab import LipBab
from lipcompare.methods.lipsdp import LipSdp
from lipcompare.methods.lp import Lp
from lipcompare.methods.milp import Milp
from lipcompare.methods.sdp import Sdp
from solvers.plugins import Registry


def _checked(name: str, entry: object) -> type[Method]:
    """The class of a method under its own name.

    Raises:
        InvalidInput: something else.
    """
    if not (isinstance(entry, type) and issubclass(entry, Method)) or not hasattr(entry, "__dataclass_fields__"):
        raise InvalidInput(f"{entry!r} is no method: a method is a frozen dataclass that inherits lipcompare.Method.")
    missing = [field for field in ("name", "proves", "summary", "reference") if not hasattr(entry, field)]
    if missing:
        raise InvalidInput(f"The method {entry.__qualname__} lacks {', '.join(missing)}.")
    if entry.name != name:
        raise InvalidInput(f"The method {entry.__qualname__} is called {entry.name!r}, not {name!r}.")
    return entry


METHODS: Registry[type[Method]] = Registry(
    "lipcompare.methods",
    {
        m.name: m
        for m in (Naive, Ibp, RecurJac, Lbp, Lp, LipSdp, Sdp, Milp, Bab, LipBab, Enumerate, Attack, Exact, Auto)
    },
    _checked,
)


def register(cls: type[Method]) -> type[Method]:
    """Add a method of one's own under its name; also a class decorator.

    It is then known in this process. A study's workers import the module that defines it, which a script that is run
    (``__main__``) is not: put the class in a module of its own.

    Raises:
        InvalidInput: no method, or a name that is taken by one of ours.
    """
    try:
        return METHODS.register(_checked(cls.name, cls).name, cls)
    except ValueError as error:
        raise error if isinstance(error, InvalidInput) else InvalidInput(str(error)) from None


__all__ = [
    "METHODS",
    "Attack",
    "Auto",
    "Bab",
    "Enumerate",
    "Exact",
    "Ibp",
    "Lbp",
    "LipBab",
    "LipSdp",
    "Lp",
    "Method",
    "Milp",
    "Naive",
    "RecurJac",
    "Sdp",
    "get",
    "register",
]


def get(method: Method | str, **options: Any) -> Method:
    """A method object from its name and options, or the object itself.

    Option values may be the strings that a command line gives: they are converted to the field's type.

    Raises:
        InvalidInput: an unknown name or option, or a value that does not fit.
    """
    if isinstance(method, Method):
        return dataclasses.replace(method, **options) if options else method  # type: ignore[type-var]
    if method not in METHODS:
        raise InvalidInput(f"Unknown method {method!r}.{nearest(method, METHODS)}")
    cls = METHODS[method]
    known, values = _option_types(cls), {}
    for name, value in options.items():
        if name not in known:
            raise InvalidInput(f"Method {method!r} has no option {name!r}.{nearest(name, known)}")
        values[name] = _convert(method, name, value, known[name])
    return cls(**values)


@functools.cache
def _option_types(cls: type[Method]) -> dict[str, Any]:
    """Types of a method's options, by name; read once, since evaluating annotations shows beside a small bound."""
    types = typing.get_type_hints(cls)
    return {f.name: types[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _convert(method: str, name: str, value: Any, wanted: Any) -> Any:
    """An option's value in the type of its field."""
    if not isinstance(value, str) or wanted is str:
        return value
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        choices = {str(member.value): member for member in wanted}
        if value not in choices:
            raise InvalidInput(f"Option {name!r} of {method!r} cannot be {value!r}.{nearest(value, choices)}")
        return choices[value]
    if wanted is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        if wanted is kind or (wanted is not bool and kind in typing.get_args(wanted)):
            try:
                return kind(value)
            except ValueError:
                continue
    raise InvalidInput(
        f"Option {name!r} of {method!r} cannot be {value!r}: it takes {getattr(wanted, '__name__', wanted)}."
    )
