"""Bounds that are worked out when somebody reads them, for a problem that must still be the same then.

A bound costs ten times its gradient, and most gradients are used without it. It needs the slopes of the problem's
functions once more, which may close over arrays that their owner has changed in the meantime: what the functions gave
is remembered, and a bound of something else is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import numpy as np

from bilevelrl.reference.arrays import is_frozen
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.problem.protocol import At, Problem, Question

__all__ = ["BOUND_SIZE_LIMIT", "FIRST_ORDER", "AnswerBounds", "error_bound", "when_read"]

BOUND_SIZE_LIMIT = 64_000_000
"""Jacobian entries beyond which a bound is not computed: 64 million doubles, half a gigabyte."""

FIRST_ORDER = 0.1
"""Relative change, of values or of a closed loop, beyond which the first order is not trusted."""


class AnswerBounds(NamedTuple):
    """First-order bounds on the error of a hypergradient, in the maximum norm, and of the objective beside it."""

    gradient: float
    objective: float


error_bound: Question[AnswerBounds] = Question("error bound")
"""(at, follower, objective) → how far J and ∇J computed from a response can be from those of the best response."""

_COPIED = 2**20  # bytes: a copy costs a quarter of a hash, but is held for as long as the result


Bound = TypeVar("Bound")
AtT = TypeVar("AtT", bound=At[Problem])


def when_read(at: AtT, bound: Callable[[AtT], Bound]) -> Callable[[], Bound]:
    """Return `bound` of the problem evaluated once more when it is read, refused where it gives something else by then.

    Parameters
    ----------
    at
        The problem at θ, as it was. Only what tells its values from others is kept: no trace lives as long as a result.
    bound
        Works the bound out.

    Raises
    ------
    InvalidInputError
        By the function returned, if the problem has changed.

    Examples
    --------
    >>> from bilevelrl.reference import ConfigurableMDP, Tables
    >>> reward = np.zeros((1, 1))
    >>> problem = ConfigurableMDP(
    ...     tables=lambda theta: Tables(
    ...         transition=np.ones((1, 1, 1)), reward_follower=reward, reward_leader=reward, initial=np.ones(1)),
    ...     discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    >>> source = when_read(problem.at(np.zeros(1)), lambda at: 1e-15)
    >>> source()
    1e-15
    >>> reward[0, 0] = 1.0
    >>> source()
    Traceback (most recent call last):
        ...
    bilevelrl.reference.errors.InvalidInputError: error_bound: the problem's functions no longer give the arrays that \
the hypergradient was computed from, ...
    """
    marks = [_mark(entry) for entry in _entries(at.values)]
    evaluate, theta = at.problem.at, at.theta

    def checked() -> Bound:
        again = cast("AtT", evaluate(theta))
        now = _entries(again.values)
        if len(now) != len(marks) or not all(map(_is_same, marks, now)):
            raise InvalidInputError(
                "error_bound: the problem's functions no longer give the arrays that the hypergradient was computed "
                "from, expected a problem that stays as it is; read error_bound before changing what it closes over"
            )
        return bound(again)

    return checked


def _entries(values: object) -> list[object]:
    names = getattr(values, "__dataclass_fields__", None)
    return [values] if names is None else [entry for name in names for entry in _entries(getattr(values, name))]


def _mark(entry: object) -> object:
    """What an entry is known by later: itself if nobody can write to it, a copy, or a hash if it is large."""
    if entry is None or isinstance(entry, (int, float)):
        return entry
    array = np.asarray(entry)
    if array is entry and is_frozen(array):
        return array
    return array.copy() if array.nbytes <= _COPIED else (hash(array.tobytes()),)


def _is_same(mark: object, entry: object) -> bool:
    if isinstance(mark, tuple):
        return bool(hash(np.asarray(entry).tobytes()) == mark[0])
    return mark is entry or np.array_equal(np.asarray(mark), np.asarray(entry))
