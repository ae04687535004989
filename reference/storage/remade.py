"""Functions that pickle as the call that made them.

A generator's tables are local functions over arrays that a few arguments determine, and local functions do not pickle.
Calling the generator again gives the same numbers to the bit, read-only arrays included, and is smaller than they are.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from operator import attrgetter
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["remade"]

P = ParamSpec("P")
D = TypeVar("D", bound="DataclassInstance")


class _Call:
    """A call of a factory; pickled once however many functions came of it."""

    def __init__(
        self, factory: Callable[..., object], positional: tuple[object, ...], named: dict[str, object]
    ) -> None:
        self.factory, self.positional, self.named = factory, positional, named

    def __reduce__(self) -> tuple[object, ...]:
        return _Call, (self.factory, self.positional, self.named)

    def made(self, name: str) -> object:
        if not hasattr(self, "_made"):
            self._made = self.factory(*self.positional, **self.named)
        return attrgetter(name)(self._made)


class _Remade:
    """A function of what a call made."""

    def __init__(self, function: Callable[..., object], call: _Call, name: str) -> None:
        self.function, self.call, self.name = function, call, name

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return _make, (self.call, self.name)


def _make(call: _Call, name: str) -> object:
    return call.made(name)


def remade(factory: Callable[P, D]) -> Callable[P, D]:
    """Decorate a factory of dataclasses whose fields may be local functions: they pickle as the call.

    The arguments must pickle, and determine what is made.

    Examples
    --------
    >>> import pickle
    >>> from bilevelrl.tasks import random_mdp
    >>> len(pickle.dumps(random_mdp(seed=7))) < 2000
    True
    """

    @wraps(factory)
    def making(*positional: P.args, **named: P.kwargs) -> D:
        found = factory(*positional, **named)  # first, for it refuses bad arguments by name
        try:
            call = _Call(making, *deepcopy((positional, named)))  # arrays of the caller's may change afterwards
        except TypeError:  # an iterator, say: used up by now, so that no other call makes the same
            return found
        return _marked(found, call, "")

    return making


def _marked(made: D, call: _Call, path: str) -> D:
    """Return a dataclass whose local functions, and those of its dataclasses, know the call that makes them."""
    changes: dict[str, object] = {}
    for entry in fields(made):
        value = getattr(made, entry.name) if entry.init else None
        function: object = value.function if isinstance(value, _Remade) else value
        if callable(function) and "<locals>" in getattr(function, "__qualname__", ""):
            changes[entry.name] = _Remade(function, call, path + entry.name)
        elif is_dataclass(value) and not isinstance(value, type):
            marked = _marked(value, call, f"{path}{entry.name}.")
            if marked is not value:
                changes[entry.name] = marked
    return replace(made, **changes) if changes else made
