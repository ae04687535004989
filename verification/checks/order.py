"""Order and invariance checks: what the exact hypergradient must do, for any function `gradient(problem, theta)`.

The Taylor test judges the order of a remainder instead of one difference: `|J(θ+εh) - J(θ)|` must shrink like ε, and
`|J(θ+εh) - J(θ) - ε g·h|` like ε². A gradient that is wrong by a thousandth shows rate 1 as soon as ε is small, while
one finite difference would have to be accurate to a thousandth. Only the smallest steps above rounding are judged: at
large ε higher orders can hide an error.

The invariances change the problem in a way that leaves the answer alone, or changes it in a known way:

- states renumbered: ∇J is the same;
- constants added to rewards where every row sums to one: ∇J is the same;
- the follower's reward shaped by a potential, `r_F + γ_F Σ P(s'|s,a;θ) Φ(s') - Φ(s)` with Φ free of θ and zero at the
  end, differentiated through P: V_F drops by Φ, and π, J and ∇J are the same;
- θ = ψ(φ): ∇_φ J = (∂ψ/∂φ)ᵀ ∇_θ J;
- asked before about something else, or solved by another solver or from another start: ∇J is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bilevelrl.reference import ConfigurableMDP, hypergradient, leader_objective, named_stream
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError
from bilevelrl.reference.tabular import to_dense
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import find_scenario
from bilevelrl.verification.checks.changed_problems import permuted, reparameterised, reward_shifted, shaped
from bilevelrl.verification.checks.gradients import ACCURACY, GradientFunction, evaluate_gradient
from bilevelrl.verification.checks.results import CheckResult, failed_by
from bilevelrl.verification.checks.verdicts import Outcome, Verdict, judge_exact, unjudged

__all__ = [
    "ORDER_SCENARIOS",
    "TaylorTest",
    "check_history",
    "check_orders",
    "check_permutation",
    "check_reparameterisation",
    "check_reward_shift",
    "check_shaping",
    "check_solvers",
    "check_taylor",
    "taylor_test",
]

ORDER_SCENARIOS = (
    "gamble",
    "envelope bandit",
    "layered",
    "layered, cold",
    "layered, patient leader",
    "random",
    "garnet",
    "absorbing",
    "slow chain",
)
"""Where order and invariance checks run unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changed:
    """A changed problem, where to look at it, and how the answer there follows from the old one."""

    problem: ConfigurableMDP
    theta: FloatArray
    matrix: FloatArray


# Halfway between the rate of a right gradient and that of a wrong one.
_RATE = 1.5
_STEPS: FloatArray = np.exp2(-np.arange(2.0, 26.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaylorTest:
    """Remainders of zeroth and first order along one direction.

    Attributes
    ----------
    steps : (K,)
        ε, decreasing; only those whose remainder is above rounding.
    rate_0, rate_1 : float
        Order at which `|J(θ+εh) - J(θ)|` and the first-order remainder shrink: the last rate, and the median of the
        last three (where two orders cancel at some ε, one rate is too high and the next too low); nan where there are
        fewer than two steps.
    detectable : float
        Smallest relative error of g·h that this test would have seen.
    exact : bool
        Every first-order remainder is at the level of rounding: J is linear along h, and g·h is right.
    """

    steps: FloatArray
    rate_0: float
    rate_1: float
    detectable: float
    exact: bool


def taylor_test(
    objective: Callable[[FloatArray], float],
    theta: FloatArray,
    gradient: FloatArray,
    direction: FloatArray,
    *,
    rounding: float,
) -> TaylorTest:
    """Return the orders of the remainders of an objective along a direction.

    Parameters
    ----------
    objective
        θ → J.
    theta, gradient, direction
        (N,) each.
    rounding
        Bound on the error of one value of J.

    Examples
    --------
    >>> curve = lambda x: float(np.exp(x[0]))
    >>> right = taylor_test(curve, np.zeros(1), np.ones(1), np.ones(1), rounding=1e-15)
    >>> wrong = taylor_test(curve, np.zeros(1), np.array([1.001]), np.ones(1), rounding=1e-15)
    >>> round(right.rate_1, 1), round(wrong.rate_1, 1)
    (2.0, 1.0)
    """
    return _orders(_moved(objective, theta, direction), float(gradient @ direction), rounding)


def _moved(objective: Callable[[FloatArray], float], theta: FloatArray, direction: FloatArray) -> FloatArray:
    here = objective(theta)
    return np.array([objective(theta + step * direction) - here for step in _STEPS])


def _orders(moved: FloatArray, slope: float, rounding: float) -> TaylorTest:
    """Judge differences of the objective at all steps against a slope."""
    first = np.abs(moved - _STEPS * slope)
    # Two values of J, and the product with the slope: below a hundred times that a remainder says little of its order.
    noise = 2.0 * rounding + 4.0 * np.finfo(np.float64).eps * np.abs(moved)
    clear = first > 100.0 * noise
    # From the first step at rounding on, nothing is judged.
    last = int(np.argmin(clear)) if not clear.all() else clear.size
    steps, first, zeroth = _STEPS[:last], first[:last], np.abs(moved[:last])
    size = abs(slope) if slope != 0.0 else 1.0
    if steps.size < 2:
        seen = 200.0 * noise[0] / _STEPS[0] if last == 0 else first[-1] / steps[-1]
        return TaylorTest(steps=steps, rate_0=np.nan, rate_1=np.nan, detectable=float(seen / size), exact=last == 0)
    rates = np.log2(first[:-1] / first[1:])
    rates_0 = np.log2(np.maximum(zeroth[:-1], 1e-300) / np.maximum(zeroth[1:], 1e-300))
    # An error δ of the slope turns the rate where δ ε exceeds the curvature's share.
    return TaylorTest(
        steps=steps,
        rate_0=float(rates_0[-1]),
        rate_1=float(np.median(rates[-3:])),
        detectable=float(first[-1] / (steps[-1] * size)),
        exact=False,
    )


def check_taylor(gradient: GradientFunction, on: Scenario | str, *, directions: int = 3) -> CheckResult:
    """Judge the order of the first-order remainder in random directions: the median over an odd number of them.

    A wrong gradient is wrong in almost every direction, while two orders of a right one may cancel in one. The margin
    is how far the rate falls short of 2, in units of a half.
    """
    entry = _scenario(on)
    value, _ = evaluate_gradient(gradient, entry.problem, entry.theta)
    rounding = _objective_rounding(entry)
    tests = [_orders(moved, float(value @ direction), rounding) for direction, moved in _differences(entry, directions)]
    rates = [2.0 if test.exact else test.rate_1 for test in tests if test.exact or not np.isnan(test.rate_1)]
    detectable = float(np.median([test.detectable for test in tests]))
    if 2 * len(rates) <= directions:
        return CheckResult(
            check="Taylor order",
            scenario=entry.name,
            verdict=unjudged(Outcome.NO_POWER, "fewer than two steps above rounding in most directions"),
            margin=0.0,
        )
    rate = float(np.median(rates))
    margin = max(0.0, (2.0 - rate) / (2.0 - _RATE))
    outcome = Outcome.FAILED if margin > 1.0 else Outcome.PASSED
    text = f"the first-order remainder shrinks like ε^{rate:.2f}; a right gradient has 2, a wrong one 1"
    verdict = Verdict(outcome=outcome, detectable=detectable, reason=text)
    return CheckResult(check="Taylor order", scenario=entry.name, verdict=verdict, margin=margin)


@lru_cache(maxsize=128)
def _differences(entry: Scenario, directions: int) -> list[tuple[FloatArray, FloatArray]]:
    """Random unit directions, and the objective's differences along them: they do not depend on any gradient."""
    rng = named_stream(20260314, "taylor", entry.name)
    found = []
    for _ in range(directions):
        direction = rng.standard_normal(entry.theta.size)
        direction /= np.linalg.norm(direction)
        moved = _moved(lambda theta: leader_objective(entry.problem, theta), entry.theta, direction)
        found.append((direction, moved))
    return found


def check_permutation(gradient: GradientFunction, on: Scenario | str, *, accuracy: float = ACCURACY) -> CheckResult:
    """Renumber the states so that every one moves: the answer must not."""
    entry = _scenario(on)
    if entry.problem.states_at(entry.theta) == 1:
        return _inapplicable("permutation", entry, "a single state")
    return _same("permutation", gradient, entry, accuracy)


def check_reward_shift(gradient: GradientFunction, on: Scenario | str, *, accuracy: float = ACCURACY) -> CheckResult:
    """Add constants to both rewards: the answer must not move where every row sums to one."""
    entry = _scenario(on)
    rows = np.asarray(to_dense(entry.problem.tables_at(entry.theta).transition)).sum(axis=2)
    if np.abs(rows - 1.0).max() > 1e-12:
        return _inapplicable("reward shift", entry, "rows sum to less than one: a constant is not only a constant")
    return _same("reward shift", gradient, entry, accuracy)


def check_shaping(gradient: GradientFunction, on: Scenario | str, *, accuracy: float = ACCURACY) -> CheckResult:
    """Shape the follower's reward by a random potential: the answer must not move."""
    return _same("shaping", gradient, _scenario(on), accuracy)


def check_reparameterisation(
    gradient: GradientFunction, on: Scenario | str, *, accuracy: float = ACCURACY
) -> CheckResult:
    """Read θ as a curved function of other, more numerous parameters: the answer must follow the chain rule."""
    return _same("reparameterisation", gradient, _scenario(on), accuracy)


@lru_cache(maxsize=256)
def _change(check: str, entry: Scenario) -> _Changed:
    problem, theta, states = entry.problem, entry.theta, entry.problem.states_at(entry.theta)
    rng = named_stream(20260314, check, entry.name)
    same = np.eye(theta.size)
    if check == "permutation":
        changed = permuted(problem, np.roll(np.arange(states), 1 + int(rng.integers(states - 1))))
        return _Changed(problem=changed, theta=theta, matrix=same)
    if check == "reward shift":
        return _Changed(problem=reward_shifted(problem, leader=-2.5, follower=1.5), theta=theta, matrix=same)
    if check == "shaping":
        return _Changed(problem=shaped(problem, rng.standard_normal(states)), theta=theta, matrix=same)
    matrix, bend = (3.0 * rng.standard_normal((theta.size, theta.size + 1)) for _ in range(2))
    changed = reparameterised(problem, theta, matrix, bend)
    return _Changed(problem=changed, theta=np.zeros(theta.size + 1), matrix=matrix)


@lru_cache(maxsize=256)
def _allowances(check: str, entry: Scenario) -> tuple[float, float, float]:
    """Error bounds of the exact answer before and after a change, carried through it, and the size of the answer."""
    before = hypergradient(entry.problem, entry.theta)
    size = max(float(np.abs(part).max()) for part in before.parts.values())
    if check == "none":
        return before.error_bound, 0.0, size
    changed = _change(check, entry)
    # Each entry of the answer after is a sum of N products with the matrix.
    factor = float(np.abs(changed.matrix).sum(axis=0).max())
    return factor * before.error_bound, hypergradient(changed.problem, changed.theta).error_bound, (1.0 + factor) * size


def check_history(gradient: GradientFunction, on: Scenario | str, *, accuracy: float = ACCURACY) -> CheckResult:
    """Ask about other parameters in between: a warm start may change the cost, never the answer."""
    entry = _scenario(on)
    first, _ = evaluate_gradient(gradient, entry.problem, entry.theta)
    for shift in (1.0, -1.0):
        evaluate_gradient(gradient, entry.problem, entry.theta + shift)
    again, _ = evaluate_gradient(gradient, entry.problem, entry.theta)
    return _judged("history", entry, again - first, 2.0 * _allowed(entry, accuracy), first)


def check_solvers(
    variants: Iterable[GradientFunction], on: Scenario | str, *, accuracy: float = ACCURACY
) -> CheckResult:
    """Compare the same gradient under other solvers, tolerances, step sizes or warm starts, given as functions."""
    entry = _scenario(on)
    values = [evaluate_gradient(gradient, entry.problem, entry.theta)[0] for gradient in variants]
    if len(values) < 2:
        raise EstimatorError("variants: expected at least two functions to compare; pass one per solver or warm start")
    off = np.concatenate([value - values[0] for value in values[1:]])
    return _judged("solvers", entry, off, 2.0 * _allowed(entry, accuracy), values[0])


CHECKS: tuple[Callable[..., CheckResult], ...] = (
    check_taylor,
    check_permutation,
    check_reward_shift,
    check_shaping,
    check_reparameterisation,
    check_history,
)


@checked
def check_orders(gradient: GradientFunction, on: Iterable[Scenario | str] = ORDER_SCENARIOS) -> list[CheckResult]:
    """Run the Taylor test and every invariance on each scenario.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> results = check_orders(lambda problem, theta: hypergradient(problem, theta).value, ["gamble", "random"])
    >>> any(result.failed for result in results)
    False
    >>> clipped = check_orders(lambda problem, theta: 0.5 * hypergradient(problem, theta).value, ["gamble"])
    >>> [result.check for result in clipped if result.failed]
    ['Taylor order']
    """
    results = []
    for entry in (_scenario(name) for name in on):
        for check in CHECKS:
            try:
                results.append(check(gradient, entry))
            except EstimatorError as broken:
                results.append(failed_by("contract", entry.name, str(broken)))
    return results


def _scenario(on: Scenario | str) -> Scenario:
    return find_scenario("on", on) if isinstance(on, str) else on


def _same(check: str, gradient: GradientFunction, entry: Scenario, accuracy: float) -> CheckResult:
    changed = _change(check, entry)
    before, _ = evaluate_gradient(gradient, entry.problem, entry.theta)
    after, _ = evaluate_gradient(gradient, changed.problem, changed.theta)
    one, other, size = _allowances(check, entry)
    return _judged(check, entry, after - changed.matrix.T @ before, one + other + accuracy * size, before)


def _judged(check: str, entry: Scenario, difference: FloatArray, allowed: float, answer: FloatArray) -> CheckResult:
    size = float(np.linalg.norm(answer))
    verdict = judge_exact(difference, tolerance=allowed, scale=size if size > 0.0 else 1.0)
    margin = float(np.abs(difference).max(initial=0.0) / allowed)
    return CheckResult(check=check, scenario=entry.name, verdict=verdict, margin=margin, difference=difference)


def _inapplicable(check: str, entry: Scenario, reason: str) -> CheckResult:
    return CheckResult(check=check, scenario=entry.name, verdict=unjudged(Outcome.NOT_APPLICABLE, reason), margin=0.0)


def _allowed(entry: Scenario, accuracy: float) -> float:
    """Rounding and conditioning of the exact answer, and the accuracy that a function is allowed."""
    bound, _, size = _allowances("none", entry)
    return bound + accuracy * size


def _objective_rounding(entry: Scenario) -> float:
    """Error of one value of J: relative rounding of values of that size, amplified by both linear systems."""
    problem = entry.problem
    amplified: float = 1.0 / (
        (1.0 - problem.discount_leader) * (1.0 - problem.discount_follower) * min(1.0, problem.temperature)
    )
    return 4.0 * float(np.finfo(np.float64).eps) * max(1.0, abs(entry.truth.objective)) * min(amplified, 1e3)
