"""The door of public functions: arguments are held against their annotations, and what leaves is an error of ours."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from bilevelrl.reference.doors.annotations import check_of, resolve
from bilevelrl.reference.doors.given_code import name_argument, raised_by_callers
from bilevelrl.reference.doors.ranges import Check
from bilevelrl.reference.errors import BilevelRLError, CallableError, TooLargeError

__all__ = ["as_is", "checked", "checked_record", "like"]

T = TypeVar("T")


def like(kind: Any) -> Check:
    """Return the check of an annotation, for `Annotated[Any, like(Problem)]`: asked for at the door, `Any` behind it.

    Raises
    ------
    InvalidInputError
        From the check, naming the argument and what it lacks.

    Examples
    --------
    >>> like(float | None)("bound", None) is None
    True
    """
    check = check_of(kind, finite=True)
    assert check is not None
    return check


def as_is(name: str, value: object) -> object:
    """Let an argument pass, as in `Annotated[Problem, as_is]`: what it must be is asked for behind.

    Examples
    --------
    >>> as_is("problem", None) is None
    True
    """
    return value


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
    ... def grid(*, rows: int) -> int:
    ...     return rows
    >>> grid(rows=1.5)
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: rows=1.5: expected an integer; pass a Python int
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
    def checks() -> tuple[dict[str, Check], list[tuple[int, str, Check]]]:
        # At the first call: until then names of modules further down are not known.
        rules = {
            name: check
            for annotations, module in sources
            for name, annotation in annotations.items()
            if name in parameters and (check := resolve(annotation, module, finite)) is not None
        }
        return rules, [(place, name, rules[name]) for place, name in enumerate(names) if name in rules]

    @functools.wraps(function)
    def door(*args: Any, **kwargs: Any) -> Any:
        rules, placed = checks()
        try:
            if args:
                taken = list(args)
                for place, name, rule in placed:
                    if place < len(args):
                        taken[place] = rule(name, args[place])
                if several in rules:
                    taken[len(names) :] = [rules[several](several, value) for value in args[len(names) :]]
                args = tuple(taken)
            for name, value in kwargs.items():
                if name in rules:
                    kwargs[name] = rules[name](name, value)
            return function(*args, **kwargs)
        except Exception as error:
            given = dict(zip(names, args, strict=False)) | kwargs
            own, cause = _own_error(error, function.__qualname__, given)
            if own is None:
                raise
            raise own from cause

    door.__dict__.update(finite=finite, rules=checks)
    return door


def _own_error(error: Exception, function: str, given: dict[str, Any]) -> tuple[Exception | None, BaseException | None]:
    """Return the error of this package that stands for another one, and what it is raised from; None: that one."""
    # The outermost door speaks of memory, in the sizes that the caller wrote.
    cause = error.__cause__ if isinstance(error, TooLargeError) else error
    if _too_large(cause):
        sizes = ", ".join(f"{name}={value}" for name, value in given.items() if isinstance(value, (int, tuple)))
        return TooLargeError(f"{function}({sizes}): memory does not suffice; pass smaller sizes"), cause
    if isinstance(error, CallableError):
        name_argument(error, given)
    if isinstance(error, (BilevelRLError, BrokenPipeError)):  # the latter: a reader of output that has seen enough
        return None, None
    return raised_by_callers(error, given), error


def _too_large(error: BaseException | None) -> bool:
    """Whether an array was asked for that memory cannot hold: NumPy has three ways to say so."""
    if isinstance(error, BilevelRLError):
        return False
    sizes = ("array is too big", "Maximum allowed dimension")
    return isinstance(error, MemoryError) or (isinstance(error, ValueError) and str(error).startswith(sizes))
