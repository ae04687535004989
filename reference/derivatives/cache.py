"""What a problem remembers between calls: which of its arrays depend on θ, and which derivatives were checked.

An array is taken to depend on θ, or not to, until the values that are computed anyway speak against it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np

from bilevelrl.reference.arrays import AnyArray, BoolArray, FloatArray
from bilevelrl.reference.derivatives.alike import same
from bilevelrl.reference.derivatives.probes import Probe, Values

__all__ = ["Cache", "Point", "Seen", "point_of"]

T = TypeVar("T")
Point: TypeAlias = tuple[tuple[int, ...], bytes]


class Cache(dict[str, Any]):
    """What a problem remembers between calls; copies and pickles of the problem begin with an empty one."""

    @contextmanager
    def keeping(self, theta: FloatArray, kept: dict[Hashable, object] | None = None) -> Iterator[None]:
        """Compute what is asked at one θ once, until the end of the block; or for as long as the caller holds `kept`.

        Examples
        --------
        >>> cache, theta, calls = Cache(), np.zeros(2), []
        >>> with cache.keeping(theta):
        ...     found = [cache.once("size", theta, lambda: calls.append(1) or 7) for _ in range(2)]
        >>> found, len(calls)
        ([7, 7], 1)
        """
        point, outer = point_of(theta), self.get("kept")
        if outer is None or outer[0] != point:
            kept = {} if kept is None else kept
            kept.pop("values", None)  # asked for once in each block: whether they are still the same
            self["kept"] = (point, kept)
        try:
            yield
        finally:
            if outer is None:
                self.pop("kept", None)
            elif "kept" in self:  # else the problem has changed and everything is forgotten
                self["kept"] = outer

    def clear(self) -> None:
        """Forget everything, what callers of `keeping` hold as well."""
        self.get("kept", (None, {}))[1].clear()
        super().clear()

    def once(self, what: Hashable, theta: FloatArray, compute: Callable[[], T]) -> T:
        """Return what a function computes at θ: as it was computed before where that is kept."""
        point, kept = self.get("kept", (None, {}))
        if point is None or point != point_of(theta):
            return compute()
        if what not in kept:
            kept[what] = compute()
        found: T = kept[what]
        return found

    def __reduce__(self) -> tuple[type[Cache], tuple[()]]:
        return Cache, ()

    def __deepcopy__(self, _: object) -> Cache:
        return Cache()


def point_of(theta: FloatArray) -> Point:
    """Return what tells one θ from another."""
    return theta.shape, theta.tobytes()


@dataclass(slots=True)
class Seen:
    """What was seen of a function's arrays at one θ, and held true at others since.

    Attributes
    ----------
    point
        The last θ.
    names
        Arrays that depended on θ when last looked at.
    varying
        Arrays that ever did.
    constant
        Values of those that did not.
    still
        Of arrays that did: which entries stood still, and the values.
    points
        How many θ there were. Whatever is seen, derivatives are looked at again at the second, fourth, eighth ...: what
        a trace leaves out may begin to move in an entry that depends on θ otherwise.
    compared
        By what derivatives were compared since.
    """

    point: Point
    names: frozenset[str]
    varying: frozenset[str]
    constant: Values
    still: Mapping[str, tuple[BoolArray, AnyArray | float]]
    points: int
    compared: set[str] = field(default_factory=set)

    @classmethod
    def around(cls, probe: Probe, names: frozenset[str], before: Seen | None) -> Seen:
        """Return what is seen at the probe's θ, beside what was seen before."""
        return cls(
            point=point_of(probe.theta),
            names=names,
            varying=names if before is None else names | before.varying,
            constant={
                **({} if before is None else before.constant),
                **{name: value for name, value in probe.base.items() if name not in names},
            },
            still={
                **({} if before is None else before.still),
                **{name: (probe.still(name), probe.base[name]) for name in names if name in probe.base},
            },
            points=1 if before is None else before.points + 1,
        )

    @property
    def is_due(self) -> bool:
        """Whether the next θ is the second, fourth, eighth ..."""
        return (self.points & (self.points + 1)) == 0

    def covers(self, names: frozenset[str], values: Values) -> bool:
        """Whether another θ shows nothing new: no other array depends on it, and what stood still does."""
        return names <= self.varying and all(
            self._stands(name, value) if name in names else self.is_constant(name, value)
            for name, value in values.items()
        )

    def is_constant(self, name: str, value: object) -> bool:
        """Whether an array did not depend on θ and is what it was."""
        return name in self.constant and same(value, self.constant[name])

    def _stands(self, name: str, value: AnyArray | float) -> bool:
        still, base = self.still[name]
        return np.shape(value) == np.shape(base) and not np.any((value != base) & still)
