"""Central finite differences of high order with an error estimate (`scipy.differentiate`), part by part.

The only thing this route knows of a hypergradient is the objective, split by each kind of problem into a function of
one θ per part (`split_objective`). Several initial steps are tried per coordinate and the one with the smallest error
estimate wins, because a cold follower's objective bends on the scale of β. `error_bound` is the sum of all estimates
and of what the split objective says of the errors of the response that most parts hold fixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.differentiate import derivative

from bilevelrl.reference.arrays import BoolArray, FloatArray, IntArray
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, NotConvergedError
from bilevelrl.reference.game.split import split_game
from bilevelrl.reference.lqr.split import split_lqr
from bilevelrl.reference.lqr_game.split import split_lqr_game
from bilevelrl.reference.problem import (
    INFINITE_HORIZON,
    AnswerBounds,
    At,
    Objective,
    Part,
    Problem,
    SplitObjective,
    split_objective,
    when_read,
)
from bilevelrl.reference.registry import Hypergradient, register_route
from bilevelrl.reference.tabular.split import split_tabular

__all__ = ["INITIAL_STEPS", "finite_difference", "split_game", "split_lqr", "split_lqr_game", "split_tabular"]

INITIAL_STEPS = tuple(0.25 / 8.0**k for k in range(12))
"""First steps tried, largest first, until truncation is below noise; each is halved further by the method itself."""

WANTED = 1e-9
"""Relative error estimate at which a coordinate is done."""

CLOSE = np.array([2e-5, 1e-5]) / np.pi
"""Steps close to θ, of no common measure with the others: what wide steps pass over is seen by these."""


@register_route(
    "finite_difference",
    split_objective,
    summary="central differences of order 8 with an error estimate (scipy.differentiate)",
    family="objective values",
    accuracy="its own error estimate, 1e-9 relative where the objective allows",
)
def finite_difference(
    at: At[Problem],
    *,
    objective: Objective = INFINITE_HORIZON,
    warm_start: object = None,
    bound: bool = True,
) -> Hypergradient:
    """∇J by finite differences, for every kind of problem that splits its objective."""
    split = split_objective(at, objective, warm_start=warm_start)
    moved = _Moved(at, split)
    parts: dict[Part, FloatArray] = {}
    error = np.zeros(at.theta.size)
    for part in split.parts:
        parts[part], part_error = _differentiate(moved, part)
        error += part_error

    def error_bound(at: At[Problem]) -> AnswerBounds:
        found = split.error_bound(at)
        return found._replace(gradient=float(error.max(initial=0.0)) + found.gradient)

    return Hypergradient(
        value=sum(parts.values(), np.zeros(at.theta.size)),
        parts=parts,
        objective=split.base,
        residual=split.follower.residual,
        condition_source=split.condition,
        error_bound_source=when_read(at, error_bound) if bound else np.inf,
        route="finite_difference",
        follower=split.follower,
        status=split.follower.status.value,
        counters={"evaluations": moved.evaluations},
    )


class _Moved:
    """A split objective along coordinates of θ; counts at how many other θ the problem was evaluated."""

    def __init__(self, at: At[Problem], split: SplitObjective) -> None:
        self.at, self.split, self.evaluations = at, split, 0

    def values(self, part: Part, x: FloatArray, j: IntArray) -> FloatArray:
        """Return the objective at θ + x e_j inside one part, NaN where it does not exist; x and j broadcast."""
        x, j = np.broadcast_arrays(x, j)
        steps = zip(x.ravel(), j.ravel(), strict=True)
        points = [self._evaluated(float(offset), int(coordinate)) for offset, coordinate in steps]
        inside = np.array([point is not None for point in points], dtype=np.bool_)
        results = np.full(x.size, np.nan)
        if inside.any():
            results[inside] = self.split.values(part, [point for point in points if point is not None])
        return results.reshape(x.shape)

    def _evaluated(self, offset: float, coordinate: int) -> At[Problem] | None:
        """Return the problem at θ + x e_j; None where the step has left what has a value."""
        if offset == 0.0:
            return self.at
        point = self.at.theta.copy()
        point.flat[coordinate] += offset
        try:
            found = self.at.problem.at(point)
        except (IllPosedError, InvalidInputError, NotConvergedError):
            return None
        self.evaluations += 1
        return found


def _differentiate(moved: _Moved, part: Part) -> tuple[FloatArray, FloatArray]:
    """Return derivatives by all coordinates and their error estimates."""
    split, count = moved.split, moved.at.theta.size
    best = np.zeros(count)
    best_error = np.zeros(count)
    if count == 0 or not split.depends(part):
        return best, best_error
    best_error[:] = np.inf
    seen = np.zeros(count, dtype=np.bool_)
    pending = np.arange(count)
    noise_of_values = split.noise(part)
    differentiate: Any = derivative  # its stub admits no function of (x, *args)
    for step in INITIAL_STEPS:
        result = differentiate(
            lambda x, j: moved.values(part, x, j),
            np.zeros(pending.size),
            args=(pending,),
            initial_step=step,
            maxiter=8,
            tolerances={"rtol": 0.1 * WANTED, "atol": noise_of_values / step},
            preserve_shape=False,
        )
        # Noise of the values enters the quotient too: at order 8 the smallest step of `nit` sets is step / 2^(nit+2).
        noise = 2.0 * noise_of_values / (step / 2.0 ** (np.maximum(result.nit, 1) + 2))
        change = np.abs(result.error)
        seen[pending] |= np.isfinite(result.df)
        # Quotients that still move by more than a hundredth of themselves say nothing: the step spans a bend.
        estimate = np.where(change <= np.maximum(0.01 * np.abs(result.df), noise), change + noise, np.inf)
        # A smaller step that contradicts a larger one has seen a bend that the larger one stepped over.
        contradicted = np.abs(result.df - best[pending]) > best_error[pending] + estimate
        better = np.isfinite(estimate) & np.isfinite(result.df) & ((estimate < best_error[pending]) | contradicted)
        best[pending[better]] = result.df[better]
        best_error[pending[better]] = estimate[better]
        scale = np.abs(best).max(initial=0.0)
        # A smaller step helps against truncation only: where noise dominates, this is the best there is.
        done = change <= np.maximum(WANTED * scale, noise)
        if step > CLOSE[0]:
            done[done] = _holds_close(moved, part, pending[done], best, best_error)
        pending = pending[~done]
        if pending.size == 0:
            break
    if not seen.all():
        raise IllPosedError(
            f"theta[{int(np.argmin(seen))}]: no step to both sides keeps rows of probabilities; expected a θ "
            "inside the set where the tables are; use another route there"
        )
    return best, best_error


def _holds_close(
    moved: _Moved, part: Part, coordinates: IntArray, best: FloatArray, best_error: FloatArray
) -> BoolArray:
    """Tell whether quotients close to θ allow the derivatives found: wide steps pass over a narrow feature unseen."""
    close = [(moved.values(part, h, coordinates) - moved.values(part, -h, coordinates)) / (2.0 * h) for h in CLOSE]
    slope, truncation = close[1], np.abs(close[1] - close[0])  # three times that of the closer one
    noise = moved.split.noise(part) / CLOSE[1] * 2.0
    rounding = np.abs(slope) * np.finfo(float).eps * np.abs(moved.at.theta.ravel()[coordinates]) / CLOSE[1]
    allowed = best_error[coordinates] + truncation + noise + rounding
    return np.asarray(~(np.abs(slope - best[coordinates]) > allowed))  # where there is no value, nothing contradicts
