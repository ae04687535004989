"""Certified statements about solutions: one stationary point in a box, signs at active bounds, strict vertices.

Interval Newton in one coordinate: with g = ∂J/∂θ_j and X a ball around x, if

    N(X) = x - g(x)/g'(X)                                                                                          (1)

lies inside X, then X holds exactly one zero of g; the sign of g'(X) tells a maximum from a minimum. Over a ball of
radius w around x Taylor's theorem gives

    g'(X) ⊂ Σ_{k<n} k (k-1) J_k(x) [-w, w]^{k-2} + n (n-1) J_n(X) [-w, w]^{n-2},                                   (2)

with J_k the coefficients of J along θ_j.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flint import arb, arb_series, ctx

from bilevelrl.reference.certified.balls import Enclosure, ball, widened
from bilevelrl.reference.certified.closed_form import ClosedForm
from bilevelrl.reference.certified.hypergradient import CertifiedHypergradient
from bilevelrl.reference.certified.lqr.enclosure import lqr_objective_series
from bilevelrl.reference.certified.objective_series import tabular_objective_series
from bilevelrl.reference.errors import BilevelRLError, InvalidInputError, PrecisionError, refusal

__all__ = [
    "BoundedMaximum",
    "StationaryPoint",
    "VertexCertificate",
    "certify_bounded_maximum",
    "certify_vertex",
    "isolate_stationary_point",
    "objective_series",
]


def objective_series(problem: ClosedForm, theta: Sequence[arb], direction: Sequence[arb], order: int) -> arb_series:
    """Return J(θ + t · direction) up to t^(order-1) for any kind of closed form; θ may be a box."""
    if problem.kind in ("configurable_mdp", "markov_game"):
        return tabular_objective_series(problem, theta, direction, order)
    return lqr_objective_series(problem, theta, direction, order)


TAYLOR = 9
"""Coefficients that a Taylor expansion with remainder keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationaryPoint:
    """Proof that J has exactly one stationary point in one coordinate, the others held fast.

    Attributes
    ----------
    coordinate : int
        j.
    box : Enclosure
        Holds exactly one zero of ∂J/∂θ_j.
    point : Enclosure
        That zero, to many digits.
    curvature : Enclosure
        ∂²J/∂θ_j² over the whole box.
    objective : Enclosure
        J at the point.
    """

    coordinate: int
    box: Enclosure
    point: Enclosure
    curvature: Enclosure
    objective: Enclosure

    @property
    def maximum(self) -> bool:
        """Whether it is the strict maximum of J over the box in this coordinate."""
        return bool(self.curvature.ball < 0)


def isolate_stationary_point(
    problem: ClosedForm, coordinate: int, *, radius: float = 2.0**-4, digits: int = 30, bits: int = 384
) -> StationaryPoint:
    """Prove that a box around θ_j holds exactly one stationary point of J in that coordinate, and enclose it.

    Parameters
    ----------
    problem
        Its θ is where the search starts.
    coordinate
        j.
    radius
        Largest box to try; it is halved until the proof succeeds.
    digits
        Of the stationary point.
    bits
        Working precision.

    Raises
    ------
    InvalidInputError
        If there is no such coordinate.
    PrecisionError
        If Newton's method does not settle, or no box is small enough.

    Examples
    --------
    A leader who earns θ - θ²: its optimum is at one half whatever the follower does.

    >>> from bilevelrl.reference.certified import ClosedFormTable, FeatureBlock
    >>> one = ClosedFormTable(shape=(1,), base={0: 1})
    >>> pair, stay = ClosedFormTable(shape=(1, 2), base={0: 1}), ClosedFormTable(shape=(1, 2, 1), base={0: 1, 1: 1})
    >>> found = isolate_stationary_point(ClosedForm(
    ...     kind="configurable_mdp", features=(FeatureBlock(link="identity", length=1),), theta=(0.25,),
    ...     discount_leader=0.5, discount_follower=0.5, temperature=1,
    ...     tables={"transition": stay, "reward_follower": pair, "reward_leader": pair, "initial": one,
    ...             "regulariser": ClosedFormTable(shape=(), slope=((0, 0, 1),), quadratic=((0, 0, 0, -1),))}), 0)
    >>> float(found.point), found.maximum
    (0.5, True)
    """
    if not 0 <= coordinate < problem.parameters:
        raise InvalidInputError(refusal("coordinate", coordinate, f"in [0, {problem.parameters})", "count from zero"))
    with ctx.workprec(bits):
        middle = _newton(problem, coordinate)
        around = _along(problem, coordinate, middle, TAYLOR)
        width, reason = ball(radius), "none was tried"
        for _ in range(200):
            box = widened(middle, width)
            try:
                curvature = _curvature(around, _along(problem, coordinate, box, TAYLOR), width)
            except BilevelRLError as refused:  # the box is too wide for an enclosure
                reason = str(refused)
            else:
                image = middle - around[1] / curvature  # (1)
                if image.is_finite() and box.contains_interior(image):
                    point = _contracted(problem, coordinate, image, digits)
                    value = _along(problem, coordinate, point)[0]
                    return StationaryPoint(
                        coordinate=coordinate,
                        box=Enclosure(box),
                        point=Enclosure(point),
                        curvature=Enclosure(curvature),
                        objective=Enclosure(value),
                    )
                reason = f"over a radius of {float(width):.1e} the curvature is {curvature.str(5)}"
            width = width / 2
    raise PrecisionError(f"stationary point of coordinate {coordinate}: no box is proven at {bits} bits; {reason}")


def _moved(problem: ClosedForm, coordinate: int, place: arb) -> list[arb]:
    theta = [ball(entry) for entry in problem.theta]
    theta[coordinate] = place
    return theta


def _unit(problem: ClosedForm, coordinate: int) -> list[arb]:
    return [arb(int(j == coordinate)) for j in range(problem.parameters)]


def _along(problem: ClosedForm, coordinate: int, place: arb, order: int = 3) -> arb_series:
    return objective_series(problem, _moved(problem, coordinate, place), _unit(problem, coordinate), order)


def _curvature(around: arb_series, over: arb_series, width: arb) -> arb:
    """Return ∂²J over a box of half-width `width` by (2).

    Coefficients at the midpoint are sharp; only the last one is taken over the box, where balls overestimate.
    """
    away, last = arb(0, width), TAYLOR - 1
    total = last * (last - 1) * over[last]
    for k in range(last - 1, 1, -1):
        total = total * away + k * (k - 1) * around[k]
    return total


def _newton(problem: ClosedForm, coordinate: int) -> arb:
    place = ball(problem.theta[coordinate])
    for _ in range(60):
        series = _along(problem, coordinate, place)
        step = (series[1] / (2 * series[2])).mid()
        if not step.is_finite():
            break
        place = (place - step).mid()
        if abs(step) <= arb(2) ** -(ctx.prec // 2):
            return place
    raise PrecisionError(f"Newton's method for coordinate {coordinate} does not settle; start nearer to the solution")


def _contracted(problem: ClosedForm, coordinate: int, box: arb, digits: int) -> arb:
    """Shrink a box that is known to hold the zero."""
    for _ in range(20):
        if box.rad() <= arb(10) ** -(digits + 1) * box.abs_upper():
            break
        middle = box.mid()
        around, over = (_along(problem, coordinate, place, TAYLOR) for place in (middle, box))
        box = box.intersection(middle - around[1] / _curvature(around, over, box.rad()))
    return box


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedMaximum:
    """Proof of a strict local maximum of J over a box of θ: one free coordinate, all others at a bound.

    Attributes
    ----------
    free : StationaryPoint
        The free coordinate.
    inside : bool
        Whether it is between its bounds, for certain.
    slopes : {coordinate: Enclosure}
        ∂J/∂θ_i for every other coordinate, over the enclosure of the free one.
    lower, upper : tuple of int
        Which coordinates are at their lower and upper bounds.
    """

    free: StationaryPoint
    inside: bool
    slopes: Mapping[int, Enclosure]
    lower: tuple[int, ...]
    upper: tuple[int, ...]

    @property
    def strict(self) -> bool:
        """Whether every slope points out of the box and the free coordinate is at a maximum in it, for certain."""
        outward = all(self.slopes[j].ball < 0 for j in self.lower) and all(self.slopes[j].ball > 0 for j in self.upper)
        return outward and self.inside and self.free.maximum


def certify_bounded_maximum(
    problem: ClosedForm, coordinate: int, *, bounds: tuple[float, float] = (0.0, 1.0), digits: int = 30
) -> BoundedMaximum:
    """Prove signs at the active bounds along with a stationary point in the free coordinate.

    Parameters
    ----------
    problem
        Its θ has every coordinate but one at a bound.
    coordinate
        The free one.
    bounds
        The box, the same for every coordinate.
    digits
        Of the free coordinate.

    Raises
    ------
    InvalidInputError
        If another coordinate is not at a bound.
    PrecisionError
        As `isolate_stationary_point`.
    """
    low, high = bounds
    if not -math.inf < low < high < math.inf:
        raise InvalidInputError(refusal("bounds", bounds, "two numbers, low < high", "give the box"))
    others = [j for j in range(problem.parameters) if j != coordinate]
    for j in others:
        if problem.theta[j] not in bounds:
            raise InvalidInputError(refusal(f"theta[{j}]", problem.theta[j], f"one of {bounds}", "put it at its bound"))
    free = isolate_stationary_point(problem, coordinate, digits=digits)
    with ctx.workprec(256):
        inside = bool(ball(low) < free.point.ball < ball(high))
        theta = _moved(problem, coordinate, free.point.ball)
        slopes = {j: Enclosure(objective_series(problem, theta, _unit(problem, j), 2)[1]) for j in others}
    return BoundedMaximum(
        free=free,
        inside=inside,
        slopes=slopes,
        lower=tuple(j for j in others if problem.theta[j] == bounds[0]),
        upper=tuple(j for j in others if problem.theta[j] == bounds[1]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexCertificate:
    """Proof that the vertex θ = 0 of {θ ≥ 0} is a strict local maximum of J, or that this was not shown.

    Attributes
    ----------
    coordinate : int
        Where the derivative may be largest.
    slope : Enclosure
        That derivative: every other is provably no larger than its upper end.
    strict : bool
        All derivatives are negative for certain; every feasible direction is a non-negative combination of axes, so
        that J falls along all of them.
    """

    coordinate: int
    slope: Enclosure
    strict: bool


def certify_vertex(certified: CertifiedHypergradient) -> VertexCertificate:
    """Judge the vertex of a non-negative orthant from the certified hypergradient there."""
    slopes = [entry.ball for entry in certified.value]
    largest = 0
    for j, slope in enumerate(slopes):
        if slope.upper() > slopes[largest].upper():
            largest = j
    return VertexCertificate(
        coordinate=largest, slope=certified.value[largest], strict=all(slope < 0 for slope in slopes)
    )
