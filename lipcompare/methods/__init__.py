"""The methods, by name. A new one is a file here and a line in ``METHODS`` (what else names it is in
docs/architecture.md); one of another package is an entry point of the group ``lipcompare.methods``, or a call of
:func:`register`."""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from typing import Any

from lipcompare.errors import InvalidInput, look_up, nearest
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
    "option_types",
    "register",
    "type_text",
]


def get(method: Method | str, **options: Any) -> Method:
    """A method object from its name and options, or the object itself.

    Option values may be the strings that a command line gives: they are converted to the field's type.

    Raises:
        InvalidInput: an unknown name or option, or a value that does not fit.
    """
    types = option_types(method)
    name = method if isinstance(method, str) else method.name
    values = {}
    for option, value in options.items():
        if option not in types:
            raise InvalidInput(f"Method {name!r} has no option {option!r}.{nearest(option, types)}")
        values[option] = _convert(name, option, value, types[option])
    if isinstance(method, Method):
        return dataclasses.replace(method, **values) if values else method  # type: ignore[type-var]
    return METHODS[method](**values)


def option_types(method: Method | str) -> dict[str, Any]:
    """The types of a method's options by name.

    Raises:
        InvalidInput: an unknown method, or something else.
    """
    cls = look_up(METHODS, method, "method") if isinstance(method, str) else type(method)
    if not issubclass(cls, Method):
        raise InvalidInput(f"A method is a name or an object such as lipcompare.METHODS['lbp'](), not {method!r}.")
    return _option_types(cls)


@functools.cache
def _option_types(cls: type[Method]) -> dict[str, Any]:
    """Types of a method's options, by name; read once, since evaluating annotations shows beside a small bound."""
    types = typing.get_type_hints(cls)
    return {f.name: types[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _convert(method: str, name: str, value: Any, wanted: Any) -> Any:
    """An option's value in the type of its field."""
    kinds = typing.get_args(wanted) or (wanted,)
    if not isinstance(value, str) or wanted is str:
        if isinstance(value, kinds) or (float in kinds and isinstance(value, int)):
            return value
        raise InvalidInput(f"Option {name!r} of {method!r} cannot be {value!r}: it takes {type_text(wanted)}.")
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        choices = {str(member.value): member for member in wanted}
        if value not in choices:
            raise InvalidInput(f"Option {name!r} of {method!r} cannot be {value!r}.{nearest(value, choices)}")
        return choices[value]
    if wanted is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
    raise InvalidInput(f"Option {name!r} of {method!r} cannot be {value!r}: it takes {type_text(wanted)}.")


def type_text(wanted: Any) -> str:
    """The type of an option as a person reads it: an enumeration by its values."""
    words = []
    for kind in typing.get_args(wanted) or (wanted,):
        choices = issubclass(kind, enum.Enum)
        words.append(" or ".join(repr(m.value) for m in kind) if choices else kind.__name__.replace("NoneType", "None"))
    return " or ".join(words)
