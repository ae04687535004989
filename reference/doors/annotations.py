"""What an annotation asks of an argument: `int` an integer and no boolean, a class an instance of it, and so on."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
import weakref
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import numpy as np

from bilevelrl.reference.arrays import check_array, check_number
from bilevelrl.reference.doors.ranges import Check, check_integer
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal

__all__ = ["check_of", "resolve"]


def resolve(annotation: object, module: str, finite: bool) -> Check | None:
    """Return the check of an annotation that may be written as a string in a module, where its names must be known."""
    if isinstance(annotation, str):
        annotation = eval(annotation, dict(vars(sys.modules[module])))
    return check_of(annotation, finite)


def check_of(kind: Any, finite: bool) -> Check | None:
    """Return the check that an annotation stands for; None where it asks for nothing."""
    if kind is Any or kind is object or isinstance(kind, (TypeVar, str)):
        return None
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        own: Check = kind.__metadata__[0]
        return own
    if origin in (Union, types.UnionType):
        return _any_of(parts, finite)
    if origin is Literal:
        return lambda name, value: _choice(name, value, parts)
    if origin is np.ndarray:
        return functools.partial(check_array, dtype=typing.get_args(parts[1])[0], finite=finite)
    if origin is collections.abc.Callable:
        return _FUNCTION
    if origin is tuple:
        return _tuple_of(parts, finite)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return _mapping_of(parts, finite)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Iterable):
        return _iterable_of(origin, parts, finite)
    if kind in _SCALARS:
        return functools.partial(check_number, finite=finite) if kind is float else _SCALARS[kind]
    if isinstance(kind, type):
        return _protocol(kind) if getattr(kind, "_is_protocol", False) else _instance_of(kind)
    return None


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(refusal(name, value, "True or False", "pass a boolean"))
    return bool(value)


def _instance_of(kind: type, expected: str = "", remedy: str = "") -> Check:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    expected = expected or f"{article} {kind.__name__}"
    usual = f"pass an instance of {kind.__module__}.{kind.__name__}"
    usual = "solve the follower of this problem" if kind.__name__.endswith("Follower") else usual
    remedy = remedy or _REMEDIES.get(kind, usual)

    def check(name: str, value: object) -> object:
        if not isinstance(value, kind):
            raise InvalidInputError(refusal(name, value, expected, remedy))
        return value

    return check


def _protocol(kind: type) -> Check | None:
    bases = [base for base in kind.__mro__ if base not in (object, typing.Generic, typing.Protocol)]
    members = {name for base in bases for name in (*vars(base), *inspect.get_annotations(base))}
    if "__call__" in members:
        return _FUNCTION
    wanted = sorted(name for name in members if not name.startswith("_"))
    complete: weakref.WeakSet[type] = weakref.WeakSet()  # most classes declare all of it

    def check(name: str, value: object) -> object:
        if type(value) in complete:
            return value
        missing = [entry for entry in wanted if isinstance(value, type) or not _has(value, entry)]
        if missing:
            raise InvalidInputError(
                refusal(name, value, f"an object with {', '.join(wanted)}", f"it lacks {', '.join(missing)}")
            )
        if all(_has(type(value), entry) for entry in wanted):
            complete.add(type(value))
        return value

    return check


def _has(value: object, attribute: str) -> bool:
    """Whether an attribute exists, without running properties."""
    if hasattr(type(value), attribute):  # the slow way below is for what only the instance has
        return True
    try:
        inspect.getattr_static(value, attribute)
    except AttributeError:
        return False
    return True


_REMEDIES: dict[Any, str] = {
    np.random.Generator: "pass numpy.random.default_rng(seed)",
    str: "pass a string",
    Path: "pass a path",
    type: "pass the class itself",
}
_SCALARS: dict[Any, Check] = {
    bool: _flag,
    int: check_integer,
    float: check_number,
    str: _instance_of(str),
    type(None): _instance_of(type(None), "None", "leave it out"),
}


_FUNCTION = _instance_of(collections.abc.Callable, "a function", "wrap it in a lambda")  # type: ignore[arg-type]


def _choice(name: str, value: object, choices: tuple[str, ...]) -> object:
    if not isinstance(value, str) or value not in choices:
        raise UnknownNameError(name, value, choices)
    return value


def _is_class(kind: object) -> bool:
    """Whether a kind asks for an instance of a class and for nothing else."""
    if not isinstance(kind, type) or typing.get_origin(kind) is not None or kind in _SCALARS:
        return False
    return not getattr(kind, "_is_protocol", False)


def _refusal(check: Check, name: str, value: object) -> InvalidInputError:
    try:
        check(name, value)
    except InvalidInputError as error:
        return error
    raise AssertionError(f"{name}: was refused and is not")


def _any_of(kinds: tuple[Any, ...], finite: bool) -> Check | None:
    checks = [check_of(kind, finite) for kind in kinds]
    if any(check is None for check in checks):
        return None

    def check(name: str, value: object) -> object:
        if value is None and type(None) in kinds:
            return None
        for accept, kind in zip(checks, kinds, strict=True):
            assert accept is not None
            # A refusal shows the whole value: it is written only where every kind refuses.
            if not _is_class(kind) or isinstance(value, kind):
                try:
                    return accept(name, value)
                except InvalidInputError:
                    continue
        refusals = [_refusal(accept, name, value) for accept in checks if accept is not None]
        # The last but None is the most general; the first says what is usual.
        others = [error for error, kind in zip(refusals, kinds, strict=True) if kind is not type(None)]
        if isinstance(value, str) and (close := [error for error in others if isinstance(error, UnknownNameError)]):
            raise close[0]
        if len(others) == 1 and (len(refusals) == 1 or isinstance(others[0], UnknownNameError)):
            raise others[0]
        if len(others) == 1:
            raise type(others[0])(str(others[0]).replace(": expected ", ": expected None or ", 1)) from others[0]
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds if kind is not type(None))
        expected, remedy = ("None or ", "leave it out") if len(others) < len(refusals) else ("", "pass one of these")
        raise InvalidInputError(refusal(name, value, expected + names, remedy)) from others[0]

    return check


def _each(check: Check | None, name: str, values: Any) -> list[object]:
    if check is None:
        return list(values)
    return [_entry(check, name, index, value) for index, value in enumerate(values)]


def _entry(check: Check, name: str, index: object, value: object) -> Any:
    """Check an entry of a container; its own name is written only where it is refused."""
    try:
        return check(name, value)
    except InvalidInputError:
        pass
    return check(f"{name}[{index!r}]", value)


def _tuple_of(parts: tuple[object, ...], finite: bool) -> Check:
    endless = len(parts) == 2 and parts[1] is Ellipsis
    checks = [check_of(part, finite) for part in parts if part is not Ellipsis]

    def check(name: str, value: object) -> tuple[object, ...]:
        size = "any number of" if endless else str(len(checks))
        if not isinstance(value, (tuple, list)) or not (endless or len(value) == len(checks)):
            raise InvalidInputError(refusal(name, value, f"a tuple of {size} entries", "put them into a tuple"))
        if endless:
            return tuple(_each(checks[0], name, value))
        return tuple(entry for one, part in zip(checks, value, strict=True) for entry in _each(one, name, [part]))

    return check


def _mapping_of(parts: tuple[object, ...], finite: bool) -> Check:
    key, entry = (check_of(part, finite) for part in parts) if parts else (None, None)

    def check(name: str, value: object) -> object:
        if not isinstance(value, collections.abc.Mapping):
            raise InvalidInputError(refusal(name, value, "a mapping", "pass a dict"))
        _each(key, f"{name}.keys", value)
        if entry is None:
            return value
        kept = {index: _entry(entry, name, index, one) for index, one in value.items()}
        return value if all(kept[index] is one for index, one in value.items()) else kept

    return check


def _iterable_of(origin: type, parts: tuple[object, ...], finite: bool) -> Check:
    entry = check_of(parts[0], finite) if parts else None
    ordered = issubclass(origin, collections.abc.Sequence)

    def check(name: str, value: object) -> object:
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if isinstance(value, np.ndarray) and value.ndim == 0:
            raise InvalidInputError(refusal(name, value, "several values", "put them into a list"))
        wanted = isinstance(value, collections.abc.Sequence if ordered else collections.abc.Iterable)
        if not wanted or isinstance(value, bytes) or (isinstance(value, str) and not ordered):
            raise InvalidInputError(refusal(name, value, f"several values ({origin.__name__})", "put them into a list"))
        entries = _each(entry, name, value)  # an iterator is used up here, once
        if issubclass(origin, collections.abc.Set) and not isinstance(value, collections.abc.Set):
            raise InvalidInputError(refusal(name, value, f"a {origin.__name__}", f"wrap it in {origin.__name__}(...)"))
        return value if isinstance(value, (str, collections.abc.Set)) else tuple(entries)

    return check
