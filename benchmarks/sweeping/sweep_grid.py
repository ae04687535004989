"""What a sweep runs over, declared: named axes with their values, every combination once."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, refusal

__all__ = ["Cell", "Grid", "cell_name"]

Cell: TypeAlias = Mapping[str, Any]
"""One combination: axis → value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """All combinations of the values of some axes.

    Parameters
    ----------
    axes
        Pairs of a name and its values (text, numbers, booleans or None), or a mapping. The last axis varies fastest.
    known
        Names that are allowed; None: any.

    Raises
    ------
    InvalidInputError
        If there is no axis, a name or a value is there twice, an axis is empty or a value is not plain.
    UnknownNameError
        If a name is not among the known ones; the message lists close matches.

    Examples
    --------
    >>> grid = Grid(axes=[("temperature", [0.001, 0.003]), ("seed", [0, 1])])
    >>> len(grid), list(grid)[1]
    (4, {'temperature': 0.001, 'seed': 1})
    """

    axes: Sequence[tuple[str, Sequence[Any]]] | Mapping[str, Sequence[Any]]
    known: Sequence[str] | None = None

    def __post_init__(self) -> None:
        pairs = tuple(self.axes.items()) if isinstance(self.axes, Mapping) else tuple(self.axes)
        axes = tuple((name, tuple(values) if not isinstance(values, str) else (values,)) for name, values in pairs)
        if not axes:
            raise InvalidInputError("axes=(): expected at least one axis; name what the sweep varies")
        names = [name for name, _ in axes]
        for name, values in axes:
            if names.count(name) > 1:
                raise InvalidInputError(f"axes: {name!r} is there twice; put all its values into one axis")
            if self.known is not None and name not in self.known:
                raise UnknownNameError("axis", name, self.known)
            if not values:
                raise InvalidInputError(f"axes: {name!r} has no value; expected at least one, or leave the axis out")
            for value in values:
                if not (value is None or isinstance(value, (str, int, float, bool))) or value != value:
                    raise InvalidInputError(
                        refusal(f"axes[{name!r}]", value, "text, numbers or None", "name the value")
                    )
                if values.count(value) > 1:
                    raise InvalidInputError(f"axes: {name!r} has {value!r} twice; every combination runs once")
        object.__setattr__(self, "axes", axes)

    @classmethod
    def parse(cls, words: Sequence[str], *, known: Sequence[str] | None = None) -> Grid:
        """Read axes as a command line gives them, `name=value,value`.

        Raises
        ------
        InvalidInputError
            If a word has another form, or as `Grid`.

        Examples
        --------
        >>> Grid.parse(["learning_rate=0.1,0.5", "method=bc_hg"]).axes
        (('learning_rate', (0.1, 0.5)), ('method', ('bc_hg',)))
        """
        pairs = []
        for word in words:
            name, equals, values = word.partition("=")
            if not (equals and name):
                raise InvalidInputError(refusal("axis", word, "name=value,value,...", "e.g. learning_rate=0.1,0.5"))
            pairs.append((name, [_read(value) for value in values.split(",") if value]))
        return cls(axes=pairs, known=known)

    def __len__(self) -> int:
        return math.prod(len(values) for _, values in self.pairs)

    @property
    def pairs(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """Names and values."""
        assert isinstance(self.axes, tuple)  # made so on construction
        return self.axes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names, values = zip(*self.pairs, strict=True)
        for chosen in itertools.product(*values):
            yield dict(zip(names, chosen, strict=True))


def cell_name(cell: Cell) -> str:
    """Return the name under which a cell is stored: it depends on its content only.

    Examples
    --------
    >>> cell_name({"a": 1, "b": 2}) == cell_name({"b": 2, "a": 1}), len(cell_name({}))
    (True, 16)
    """
    return hashlib.sha256(json.dumps(dict(cell), sort_keys=True).encode()).hexdigest()[:16]


def _read(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
