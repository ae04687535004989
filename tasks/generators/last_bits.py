"""Problems with their last bits moved: how many digits of an answer parsing the problem into doubles may cost."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from numpy.random import Generator

from bilevelrl.reference import certified_hypergradient, named_stream
from bilevelrl.reference.certified import ClosedForm, ClosedFormTable, Exact

if TYPE_CHECKING:
    from bilevelrl.reference.certified import CertifiedHypergradient

__all__ = ["digits_surviving_rounding", "level_of"]

_LEVELS = ((12.5, "easy"), (10.5, "moderate"), (8.0, "hard"), (-math.inf, "cruel"))


def level_of(digits: float) -> str:
    """Return how hard a problem is, by the digits of its gradient that survive rounding the problem to doubles.

    Examples
    --------
    >>> level_of(15.0), level_of(3.5)
    ('easy', 'cruel')
    """
    return next(level for floor, level in _LEVELS if digits >= floor)


def _perturbed(problem: ClosedForm, rng: Generator) -> ClosedForm:
    """The problem with every number moved by one part in 2^53, up or down at random; symmetry is kept."""

    def moved(number: Exact, up: bool) -> Fraction:
        return Fraction(number) * (1 + Fraction(1 if up else -1, 2**53))

    def numbers(values: tuple[Exact, ...]) -> tuple[Exact, ...]:
        return tuple(moved(value, bool(up)) for value, up in zip(values, rng.integers(0, 2, len(values)), strict=True))

    def table(entry: ClosedFormTable) -> ClosedFormTable:
        draws = rng.integers(0, 2, entry.size)
        symmetric = problem.kind.endswith(("lqr", "lqr_game")) and len(set(entry.shape)) == 1 and len(entry.shape) == 2
        width = entry.width

        def up(place: int) -> bool:
            row, column = divmod(place, width)
            return bool(draws[max(row, column) * width + min(row, column)] if symmetric else draws[place])

        return ClosedFormTable(
            shape=entry.shape,
            base={place: moved(number, up(place)) for place, number in entry.base.items()},
            slope=tuple((place, j, moved(number, up(place))) for place, j, number in entry.slope),
            quadratic=tuple((place, i, j, moved(number, up(place))) for place, i, j, number in entry.quadratic),
            link=entry.link,
            support=entry.support,
            scale=numbers(entry.scale) if isinstance(entry.scale, tuple) else entry.scale,
        )

    leader, follower, temperature = numbers((problem.discount_leader, problem.discount_follower, problem.temperature))
    return replace(
        problem,
        tables={name: table(entry) for name, entry in problem.tables.items()},
        theta=numbers(problem.theta),
        discount_leader=leader,
        discount_follower=follower,
        temperature=temperature,
    )


def digits_surviving_rounding(
    problem: ClosedForm, certified: CertifiedHypergradient, *, entropy: int, draws: int = 3
) -> float:
    """Return how many digits of ∇J stand when every number of the problem is moved by its last bit: the worst draw.

    No double-precision code can promise more, however it computes: this much is lost before it starts.

    Parameters
    ----------
    problem, certified
        It, and its answer.
    entropy
        Root of the random signs.
    draws
        How often the bits are moved.
    """
    size = max((abs(float(entry)) for entry in certified.value), default=0.0)
    off = 0.0
    for draw in range(draws):
        rng = named_stream(entropy, problem.name, "last bits", str(draw))
        other = certified_hypergradient(_perturbed(problem, rng), digits=18)
        for new, old in zip(other.value, certified.value, strict=True):
            off = max(off, abs(float((new.ball - old.ball).mid())))
    if size == 0.0:
        return 0.0
    return 16.0 if off == 0.0 else round(min(16.0, -math.log10(off / size)), 1)
