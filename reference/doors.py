"""The door of public functions: each argument is held against its annotation before the function sees it.

`@checked` stands on public functions, methods and dataclasses. What an annotation says is what is asked for: `int` is
an integer and no boolean, `float` a finite real number, `FloatArray` an array of finite real numbers (lists and other
dtypes are converted, masks and imaginary parts are never dropped), a `Literal` one of its names, a class an instance of
it. Ranges are part of the annotation too: `Count`, `Positive`, `Probability` and the others of this module. `Any` is
not looked at: such arguments (problems, θ, entries that may be traced) are checked where it is known what they must be.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from bilevelrl.reference.arrays import check_array, check_discount, check_number, check_numbers, check_positive
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, TooLargeError, UnknownNameError, refusal

__all__ = [
    "Count",
    "Deviation",
    "Discount",
    "Horizon",
    "Iterations",
    "Natural",
    "NonNegative",
    "Numbers",
    "Positive",
    "Probability",
    "Rate",
    "Real",
    "Seed",
    "Temperature",
    "check_count",
    "check_stream_steps",
    "checked",
    "checked_record",
]

T = TypeVar("T")
Check: TypeAlias = Callable[[str, Any], Any]  # (name, value) → the value to go on with, or a refusal

LARGEST_COUNT = 2**53  # counts are also used as floats
LARGEST_ITERATIONS = 10**6


def check_integer(name: str, value: Any, *, low: float = -LARGEST_COUNT, high: float = LARGEST_COUNT) -> int:
    """Return an integer between two bounds, or raise `InvalidInputError`; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        bounds = f">= {low}" if high in (math.inf, LARGEST_COUNT) else f"in [{low}, {high}]"
        raise InvalidInputError(
            refusal(name, value, f"an integer {'' if low == -LARGEST_COUNT else bounds}".strip(), "pass a Python int")
        )
    return int(value)


def check_count(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return an integer ≥ minimum, or raise `InvalidInputError`.

    Examples
    --------
    >>> check_count("states", 3)
    3
    """
    return check_integer(name, value, low=minimum)


def check_steps(name: str, value: Any) -> int | None:
    """Return None or an integer ≥ 1, or raise `InvalidInputError`."""
    if value is None or (isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1):
        return None if value is None else check_integer(name, value)
    raise InvalidInputError(refusal(name, value, "None or an integer >= 1", "count the steps of an episode"))


def check_stream_steps(name: str, value: Any) -> int:
    """Return how many steps an exact sum over time adds one by one, in [1, 1,000,000], or raise `InvalidInputError`."""
    return check_integer(name, value, low=1, high=LARGEST_ITERATIONS)


def check_seed(name: str, value: Any) -> int:
    """Return an integer ≥ 0 of any length, or raise `InvalidInputError`."""
    return check_integer(name, value, low=0, high=math.inf)


def _between(low: float, high: float, expected: str, remedy: str, *, ends: bool = True) -> Check:
    def check(name: str, value: Any) -> float:
        number = check_number(name, value)
        if not (low <= number <= high if ends else low < number < high):
            raise InvalidInputError(refusal(name, value, expected, remedy))
        return number

    return check


def check_real(name: str, value: Any) -> float:
    """Return a real number that may be infinite, or NaN for what was not measured, or raise `InvalidInputError`."""
    return check_number(name, value, finite=False)


Numbers = Annotated[NDArray[Any], check_numbers]
"""An array of integers or of real numbers."""
Count = Annotated[int, check_count]
"""An integer ≥ 1."""
Natural = Annotated[int, functools.partial(check_count, minimum=0)]
"""An integer ≥ 0."""
Iterations = Annotated[int, functools.partial(check_integer, low=0, high=LARGEST_ITERATIONS)]
"""An integer in [0, 1,000,000]."""
Horizon = Annotated[int | None, check_steps]
"""None, or an integer ≥ 1: the steps of an episode."""
Seed = Annotated[int, check_seed]
"""An integer ≥ 0 of any length."""
Real = Annotated[float, check_real]
"""A real number; inf and NaN are allowed."""
Deviation = Annotated[float, _between(-1e150, 1e150, "a number whose square is finite", "check its unit")]
"""A number whose square is a variance."""
Discount = Annotated[float, check_discount]
"""A number in [0, 1)."""
Positive = Annotated[float, functools.partial(check_positive, remedy="check its sign and unit")]
"""A finite number > 0."""
Temperature = Annotated[
    float, functools.partial(check_positive, remedy="for a greedy follower use a small temperature such as 1e-4")
]
"""β, a finite number > 0."""
NonNegative = Annotated[float, _between(0.0, math.inf, "a finite number >= 0", "check its sign")]
"""A finite number ≥ 0."""
Probability = Annotated[float, _between(0.0, 1.0, "a probability in [0, 1]", "pass a fraction, not a percentage")]
"""A number in [0, 1]."""
Rate = Annotated[float, _between(0.0, 1.0, "a number in (0, 1)", "pass a fraction, not a percentage", ends=False)]
"""A number strictly between 0 and 1."""


def checked(target: T) -> T:
    """Check the arguments of a function, or of a class's constructor, against their annotations.

    Raises
    ------
    InvalidInputError
        From the decorated function, naming the argument, its value, what was expected and the remedy.
    TooLargeError
        From the decorated function, where the memory does not suffice.

    Examples
    --------
    >>> @checked
    ... def grid(*, rows: Count) -> int:
    ...     return rows
    >>> grid(rows=0)
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: rows=0: expected an integer >= 1; pass a Python int
    """
    decorated: T = _decorate(target, finite=True)
    return decorated


def checked_record(target: T) -> T:
    """As `checked`, for results: numbers may be infinite, or NaN where something was not measured."""
    decorated: T = _decorate(target, finite=False)
    return decorated


def _decorate(target: Any, finite: bool) -> Any:
    if isinstance(target, type):
        # A dataclass's fields are resolved in the modules of the classes that declare them.
        sources = [(vars(base).get("__annotations__", {}), base.__module__) for base in reversed(target.__mro__)]
        owner: Any = target
        owner.__init__ = _door(owner.__init__, sources, finite)
        return target
    return _door(target, [(target.__annotations__, target.__module__)], finite)


def _door(function: Callable[..., Any], sources: list[tuple[dict[str, Any], str]], finite: bool) -> Any:
    parameters = inspect.signature(function).parameters
    names = [name for name, entry in parameters.items() if entry.kind is entry.POSITIONAL_OR_KEYWORD]
    several = next((name for name, entry in parameters.items() if entry.kind is entry.VAR_POSITIONAL), "")

    @functools.lru_cache(maxsize=1)
    def checks() -> dict[str, Check]:  # at the first call: until then names of modules further down are not known
        return {
            name: check
            for annotations, module in sources
            for name, annotation in annotations.items()
            if name in parameters and (check := _resolve(annotation, module, finite)) is not None
        }

    @functools.wraps(function)
    def door(*args: Any, **kwargs: Any) -> Any:
        rules = checks()
        if args:
            labels = [*names, *[several] * (len(args) - len(names))]
            args = tuple(
                rules[name](name, value) if name in rules else value for name, value in zip(labels, args, strict=False)
            )
        for name, value in kwargs.items():
            if name in rules:
                kwargs[name] = rules[name](name, value)
        try:
            return function(*args, **kwargs)
        except (MemoryError, ValueError) as error:
            if isinstance(error, BilevelRLError) or not _too_large(error):
                raise
            given = dict(zip(names, args, strict=False)) | kwargs
            sizes = ", ".join(f"{name}={value}" for name, value in given.items() if isinstance(value, int))
            raise TooLargeError(
                f"{function.__qualname__}({sizes}): memory does not suffice; pass smaller sizes"
            ) from error

    door.__dict__["finite"] = finite
    return door


def _too_large(error: Exception) -> bool:
    """Whether an array was asked for that memory cannot hold: NumPy has three ways to say so."""
    return isinstance(error, MemoryError) or str(error).startswith(("array is too big", "Maximum allowed dimension"))


def _resolve(annotation: Any, module: str, finite: bool) -> Check | None:
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(vars(sys.modules[module])))
        except NameError:
            return None  # a name of an optional package, imported for type checkers only
    return _check_of(annotation, finite)


def _check_of(kind: Any, finite: bool) -> Check | None:
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
        return _instance_of(collections.abc.Callable, "a function", "wrap it in a lambda")
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


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(refusal(name, value, "True or False", "pass a boolean"))
    return bool(value)


def _instance_of(kind: type, expected: str = "", remedy: str = "") -> Check:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    expected = expected or f"{article} {kind.__name__}"
    remedy = remedy or _REMEDIES.get(kind, f"pass an instance of {kind.__module__}.{kind.__name__}")

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise InvalidInputError(refusal(name, value, expected, remedy))
        return value

    return check


def _protocol(kind: type) -> Check | None:
    bases = [base for base in kind.__mro__ if base not in (object, typing.Generic, typing.Protocol)]
    members = {name for base in bases for name in (*vars(base), *inspect.get_annotations(base))}
    wanted = sorted(name for name in members if not name.startswith("_"))

    def check(name: str, value: Any) -> Any:
        missing = [entry for entry in wanted if isinstance(value, type) or not _has(value, entry)]
        if missing:
            raise InvalidInputError(
                refusal(name, value, f"an object with {', '.join(wanted)}", f"it lacks {', '.join(missing)}")
            )
        return value

    return check


def _has(value: Any, attribute: str) -> bool:
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


def _choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise UnknownNameError(name, value, choices)
    return value


def _any_of(kinds: tuple[Any, ...], finite: bool) -> Check | None:
    checks = [_check_of(kind, finite) for kind in kinds]
    if any(check is None for check in checks):
        return None

    def check(name: str, value: Any) -> Any:
        refusals: list[InvalidInputError] = []
        for accept in checks:
            assert accept is not None
            try:
                return accept(name, value)
            except InvalidInputError as error:
                refusals.append(error)
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


def _each(check: Check | None, name: str, values: Any) -> list[Any]:
    if check is None:
        return list(values)
    return [check(f"{name}[{index}]", value) for index, value in enumerate(values)]


def _tuple_of(parts: tuple[Any, ...], finite: bool) -> Check:
    endless = len(parts) == 2 and parts[1] is Ellipsis
    checks = [_check_of(part, finite) for part in parts if part is not Ellipsis]

    def check(name: str, value: Any) -> tuple[Any, ...]:
        size = "any number of" if endless else str(len(checks))
        if not isinstance(value, (tuple, list)) or not (endless or len(value) == len(checks)):
            raise InvalidInputError(refusal(name, value, f"a tuple of {size} entries", "put them into a tuple"))
        if endless:
            return tuple(_each(checks[0], name, value))
        return tuple(entry for one, part in zip(checks, value, strict=True) for entry in _each(one, name, [part]))

    return check


def _mapping_of(parts: tuple[Any, ...], finite: bool) -> Check:
    key, entry = (_check_of(part, finite) for part in parts) if parts else (None, None)

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, collections.abc.Mapping):
            raise InvalidInputError(refusal(name, value, "a mapping", "pass a dict"))
        _each(key, f"{name}.keys", value)
        if entry is None:
            return value
        kept = {index: entry(f"{name}[{index!r}]", one) for index, one in value.items()}
        return value if all(kept[index] is one for index, one in value.items()) else kept

    return check


def _iterable_of(origin: type, parts: tuple[Any, ...], finite: bool) -> Check:
    entry = _check_of(parts[0], finite) if parts else None
    ordered = issubclass(origin, collections.abc.Sequence)

    def check(name: str, value: Any) -> Any:
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
