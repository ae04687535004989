"""The tasks by name, for the command line and for loops over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal

__all__ = ["TASKS", "Task", "make_task", "register_task"]

Factory = TypeVar("Factory", bound=Callable[..., Any])


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A registered task.

    Attributes
    ----------
    summary : str
        One line about it.
    make : function
        Builds the problem; every argument is by keyword and has a default.
    """

    summary: str
    make: Callable[..., Any]


_tasks: dict[str, Task] = {}

TASKS: Mapping[str, Task] = MappingProxyType(_tasks)
"""Every task by name."""


def _origin(make: Callable[..., Any]) -> tuple[str, str]:
    """File and name of a function: a module that is imported again registers the same functions again."""
    code = getattr(make, "__code__", None)
    return (code.co_filename if code else str(id(make)), getattr(make, "__qualname__", repr(make)))


@checked
def register_task(name: str, summary: str) -> Callable[[Factory], Factory]:
    """Register a function that builds a problem under a name.

    Raises
    ------
    InvalidInputError
        If the name is taken by another function.

    Examples
    --------
    >>> from bilevelrl.tasks import TASKS
    >>> TASKS["four_rooms"].make(kernel="paper").theta_shape
    (105,)
    """

    def decorate(make: Factory) -> Factory:
        if name in _tasks and _origin(_tasks[name].make) != _origin(make):
            raise InvalidInputError(refusal("name", name, "a name that is not taken", "register under another name"))
        _tasks[name] = Task(summary=summary, make=make)
        return make

    return decorate


@checked
def make_task(name: str, **options: Any) -> Any:
    """Build the task of a name.

    Raises
    ------
    UnknownNameError
        If there is no such task; close matches are listed.

    Examples
    --------
    >>> from bilevelrl.tasks import make_task
    >>> make_task("four_rooms", temperature=0.005).temperature
    0.005
    """
    if name not in _tasks:
        raise UnknownNameError("task name", name, _tasks)
    return _tasks[name].make(**options)
