"""Balls: exact numbers in, rigorous midpoint and radius out.

Every number of a certified computation is an Arb ball `[midpoint ± radius]` that contains the exact value; rounding,
truncation and every bound only ever widen it. Doubles and fractions enter without rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from flint import arb, arb_mat, ctx, fmpq

from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.tabular.transitions import ROW_SUM_TOLERANCE

__all__ = [
    "Enclosure",
    "Exact",
    "as_law",
    "ball",
    "column",
    "float_above",
    "largest",
    "law_cotangent",
    "peak",
    "softmax",
    "sums_to_one",
    "upper",
    "widened",
]

Exact: TypeAlias = int | float | Fraction
"""A number with one exact meaning: a double is the binary fraction that it stores."""


def ball(number: Exact) -> arb:
    """Return the exact ball of a double or integer, or the smallest one around a fraction at the working precision.

    Raises
    ------
    InvalidInputError
        If the number is not finite.

    Examples
    --------
    >>> ball(0.5), ball(Fraction(1, 2))
    (0.500000000000000, 0.500000000000000)
    """
    if isinstance(number, Fraction):
        return arb(fmpq(number.numerator, number.denominator))
    if isinstance(number, float) and not math.isfinite(number):
        raise InvalidInputError(refusal("number", number, "a finite number", "check where it comes from"))
    return arb(number)


def column(entries: Sequence[arb]) -> arb_mat:
    """Return a column vector of balls."""
    return arb_mat(len(entries), 1, list(entries))


def upper(value: arb) -> arb:
    """Return an exact upper bound on |value|."""
    return value.abs_upper()


def largest(values: Iterable[arb]) -> arb:
    """Return an exact upper bound on max |value|; zero where there is none."""
    bound = arb(0)
    for value in values:
        candidate = upper(value)
        if not candidate <= bound:
            bound = candidate
    return bound


def widened(middle: arb, radius: arb) -> arb:
    """Return a ball that contains everything within `radius` of a ball."""
    return middle + arb(0, upper(radius))


def peak(values: Sequence[arb]) -> arb:
    """Return the largest midpoint, exactly."""
    highest = values[0].mid()
    for value in values[1:]:
        if value.mid() > highest:
            highest = value.mid()
    return highest


def softmax(logits: Sequence[arb]) -> list[arb]:
    """Return softmax of balls; the shift by the largest midpoint changes no value.

    Examples
    --------
    >>> [float(share) for share in softmax([arb(0), arb(0)])]
    [0.5, 0.5]
    """
    shift = peak(logits)
    weights = [(logit - shift).exp() for logit in logits]
    mass = sum(weights, arb(0))
    return [weight / mass for weight in weights]


def sums_to_one(row: Sequence[arb]) -> bool:
    """Whether a row is a law that was rounded, and means itself divided by its sum.

    Examples
    --------
    >>> sums_to_one([ball(0.1), ball(0.2), ball(0.7)]), sums_to_one([ball(0.5), ball(0.25)])
    (True, False)
    """
    return bool(abs(sum(row, arb(0)) - 1) <= ball(ROW_SUM_TOLERANCE))


def as_law(row: Sequence[arb]) -> list[arb]:
    """Return the row divided by its sum where it is a law, and as it is elsewhere.

    Examples
    --------
    >>> third = as_law([ball(0.25), ball(0.5 + 2.0**-50), ball(0.25)])
    >>> sum(third, arb(0)).contains(1), third[0] < 0.25, as_law([ball(0.5)])
    (True, True, [0.500000000000000])
    """
    mass = sum(row, arb(0))
    return [entry / mass for entry in row] if sums_to_one(row) else list(row)


def law_cotangent(law: Sequence[arb], weights: Sequence[arb], row: Sequence[arb]) -> list[arb]:
    """Return the weights on a row that weights on the law row / Σ row come from: (w - Σ law w) / Σ row."""
    mean, mass = sum((p * w for p, w in zip(law, weights, strict=True)), arb(0)), sum(row, arb(0))
    return [(w - mean) / mass for w in weights]


@dataclass(frozen=True, slots=True)
class Enclosure:
    """A real number known to lie within a radius of a midpoint.

    Parameters
    ----------
    ball : arb
        Arb's ball.

    Examples
    --------
    >>> third = Enclosure(arb(1) / 3)
    >>> third.decimal(5)
    ('3.3333e-1', '3.4e-6')
    >>> float(third), third.contains(Fraction(1, 3)), third.digits > 14
    (0.3333333333333333, True, True)
    """

    ball: arb

    def __float__(self) -> float:
        """Return the double next to the midpoint; zero where zero is inside."""
        return 0.0 if self.ball.contains(0) else float(self.ball.mid())

    def __repr__(self) -> str:
        return f"Enclosure({self.ball.str(30)})"

    @classmethod
    def parse(cls, midpoint: str, radius: str = "0") -> Enclosure:
        """Return the enclosure of a decimal midpoint and radius, rounded outwards.

        Raises
        ------
        InvalidInputError
            If either string is not a finite decimal number, or the radius is negative.
        """
        with ctx.workprec(max(ctx.prec, 64 + 4 * len(midpoint))):  # as many bits as the string has digits
            try:
                middle, width = arb(midpoint), arb(radius)
            except (ValueError, TypeError):
                middle, width = arb("nan"), arb(0)
            enclosed = widened(middle, width)
        if not (middle.is_finite() and width.is_finite()) or width < 0:
            raise InvalidInputError(
                refusal("enclosure", (midpoint, radius), "two decimal numbers, radius >= 0", "write them as '1.25e-3'")
            )
        return cls(enclosed)

    @property
    def radius(self) -> float:
        """The radius, rounded up to a double."""
        return float_above(self.ball.rad())

    @property
    def digits(self) -> float:
        """Correct significant digits, `-log10(radius / |midpoint|)`; inf for an exact number, 0 if zero is inside."""
        if self.ball.is_exact():
            return math.inf
        if self.ball.contains(0):
            return 0.0
        relative = self.ball.rad() / self.ball.abs_lower()
        return max(0.0, float(-(relative.log() / arb(10).log()).mid()))

    def contains(self, number: Exact) -> bool:
        """Whether an exact number lies inside for certain."""
        return bool(self.ball.contains(ball(number)))

    def distance(self, number: Exact) -> float:
        """Return an upper bound on |number - truth|, as a double rounded up."""
        return float_above(upper(self.ball - ball(number)))

    def decimal(self, digits: int = 30) -> tuple[str, str]:
        """Return (midpoint, radius) as decimal strings; the pair contains the ball, its own rounding included."""
        if self.ball.contains(0):  # no digit of it is known but that it may be zero
            middle, radius, exponent = (int(part) for part in self.ball.abs_upper().mid_rad_10exp(4))
            return "0", _scientific(_rounded_up(middle + radius), exponent)
        middle, radius, exponent = (int(part) for part in self.ball.mid_rad_10exp(digits))
        unit = 10 ** max(0, len(str(abs(middle))) - digits)
        shorter = (middle + unit // 2) // unit * unit
        return _scientific(shorter, exponent), _scientific(_rounded_up(radius + abs(shorter - middle)), exponent)


def float_above(value: arb) -> float:
    """Return a double that is not below an upper bound of |value|; inf where none is."""
    bound = upper(value)
    try:
        nearest = float(bound)
    except OverflowError:
        return math.inf
    return nearest if arb(nearest) >= bound else math.nextafter(nearest, math.inf)


def _rounded_up(number: int, keep: int = 2) -> int:
    unit: int = 10 ** max(0, len(str(number)) - keep)
    return -(-number // unit) * unit


def _scientific(number: int, exponent: int) -> str:
    if number == 0:
        return "0"
    sign, digits = ("-" if number < 0 else ""), str(abs(number))
    power = exponent + len(digits) - 1
    digits = digits.rstrip("0")
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}" + (f"e{power}" if power else "")
