"""Objects as keys of a cache, told apart by identity: arrays and estimators cannot be hashed."""

from __future__ import annotations

from typing import Any

__all__ = ["Identity"]


class Identity:
    """One or more objects as a key; keys are equal where their objects are the same ones.

    Examples
    --------
    >>> one, other = [1], [1]
    >>> Identity(one) == Identity(one), Identity(one) == Identity(other)
    (True, False)
    """

    __slots__ = ("objects",)

    def __init__(self, *objects: Any) -> None:
        self.objects = objects

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.objects)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and [*map(id, self.objects)] == [*map(id, other.objects)]
