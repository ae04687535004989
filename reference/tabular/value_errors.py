"""How far an iterate of the soft Bellman operator is from its fixed point, state by state, rounding included.

Let π and T̂V be the policy and the backup computed from V, let `u m` with `m = |r| + γ P|V|` bound the rounding of the
action values, and `ρ` that of the logarithm of the sum. If `w ≥ 0` satisfies in every state

    Σ_d reach β log Σ_a π exp((γ P w + u m)/β) + |T̂V - V| + ρ  ≤  w,                                                (1)

then `|V - V*| ≤ w` and `|T̂V - V*| ≤ w`. For T is monotone and convex with derivative γ P_π at V. The left side without
`|T̂V - V|` bounds `T(V + w) - T̂V`, hence `T(V + w) ≤ V + w`, and V* lies below every such point. By convexity and
Jensen's inequality it bounds `T̂V - T(V - w)` as well, hence `T(V - w) ≥ V - w`, and V* lies above. T̂V's claim follows.

To first order (1) is the linear system `(I - γ P_π) w = |T̂V - V| + ρ + u Σ π m`: a state's bound takes from the states
that it reaches, each as probable as it is, and from no other. The second order is made up for by correcting w; should
that fail, the constant `max(...)/(1 - γ)` of the contraction satisfies (1) always.

The policy: with `x = (γ P w + u m)/β`, the bound on the error of every Q/β, and δ the errors themselves, the ratio
`π/π* = Σ_b π_b exp(δ_b - δ_a)` is one up to

    η_a = Σ_(b≠a) π_b (exp(x_a + x_b) - 1).                                                                          (2)

There x may leave out what is common to all actions of a decision, which is nearly all of w where γ is near one. The
error `e = V - V*` solves `e = γ P_π' e + s` with |s| ≤ σ, the left side of (1) at w = 0, and a π' between the policies
of V and of V*. With `R = (I - γ P_π)⁻¹` and P_a less its mean over the actions, x_a = y_a + u m_a/β serves if

    γ |(P_a - Σ_b π_b P_b) R| (σ + β Σ reach π η y) / β  ≤  y_a                                                      (3)

with the η of these x. For along the path of fixed points V - e_τ of T + (1 - τ) s the differences of `γ P e_τ / β`
start from zero and satisfy (3) with their own size in place of y, so that they never come to exceed it.

The leader's values and occupancies under a policy that is off by η π follow, for every number of steps to go, entry by
entry and to first order, with R_L = (I - γ_L P_π)^{-1} and u the rounding of one inner product:

    |δd|    ≤ R_Lᵀ (γ_L (η π P)ᵀ d + u d),                                                                          (4)
    |δV_L|  ≤ R_L Σ_a π (η |B| + u |Q_L|),      |δQ_L| ≤ γ_L P |δV_L| + u |Q_L|.                                    (5)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from bilevelrl.reference.arrays import BoolArray, FloatArray
from bilevelrl.reference.tabular.fixed_point import SoftOperator, state_scale
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import DiscountedSystem, to_dense

__all__ = ["ErrorsOnDemand", "LeaderErrors", "ValueErrors", "leader_errors", "value_errors"]

_CORRECTIONS = 8  # of w
_LARGE = 10.0  # of an exponent
_LARGEST = 1e300
_LOST = 1e-6  # of w: rounding and conditioning of an inverse leave far less
_HUGE = 1e100  # squared, still a number
_SIZE_LIMIT = 4_000_000  # entries; beyond it what is common to all actions is not left out
_NEVER = -690.0  # log of a probability that counts as zero


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueErrors:
    """Bounds on the error of a follower's response.

    Attributes
    ----------
    value : (S,)
        On |V - V*|, for the iterate and for its backup.
    action_value : (S, ..., A)
        On |Q - Q*|.
    point_value : (S, ...)
        On |V - V*| where the follower decides.
    policy : (S, ..., A)
        On |π - π*|/π*: (2) and a few roundings; zero where both are below 1e-299, inf beyond exp(10).
    """

    value: FloatArray
    action_value: FloatArray
    point_value: FloatArray
    policy: FloatArray

    def shifted(self, size: float) -> ValueErrors:
        """Return the bounds for values from which a constant was split off, or added, at the cost of `size`."""
        return replace(
            self,
            value=self.value + size,
            action_value=self.action_value + size,
            point_value=self.point_value + size,
        )

    def at(self, states: BoolArray) -> ValueErrors:
        """Return the bounds at some of the states."""
        return ValueErrors(**{entry.name: getattr(self, entry.name)[states] for entry in fields(self)})

    @property
    def bound(self) -> float:
        """Bound on max |V - V*| and max |Q - Q*|."""
        return float(max(self.value.max(), self.action_value.max()))


def value_errors(operator: SoftOperator, iterate: FloatArray, noise: FloatArray | float = 0.0) -> ValueErrors:
    """Return the bounds of the module's formulas for V = `iterate` (S,) and for what one backup makes of it.

    `noise` is what each reward may be off by besides: (S, ..., A).
    """
    discount, temperature, unit = operator.discount, operator.temperature, operator.unit
    backed_up, action_value, policy = operator.backup(iterate)
    rounded = unit * operator.size(iterate) + noise
    shifted = (action_value - action_value.max(axis=-1, keepdims=True)) / temperature
    log_policy = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    base = np.abs(backed_up - iterate) + unit * state_scale(backed_up, temperature)

    def exponents(w: FloatArray) -> FloatArray:
        """Return x = (γ P w + u m)/β."""
        with np.errstate(over="ignore"):
            result: FloatArray = np.minimum((discount * operator.ahead(w) + rounded) / temperature, _LARGEST)
        return result

    def tilt(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return π (exp(x) - 1) as far as it is small, and log Σ_a π exp(x)."""
        tilted = log_policy + x  # where π is the zero that π exp(x) is not
        peak = tilted.max(axis=-1, keepdims=True)
        grown = np.where(x <= 1.0, policy * np.expm1(np.minimum(x, 1.0)), np.exp(np.minimum(tilted, _LARGE)) - policy)
        beyond = peak[..., 0] + np.log(np.exp(tilted - peak).sum(axis=-1))
        return grown, np.where(peak[..., 0] <= _LARGE, np.log1p(grown.sum(axis=-1)), beyond)

    def left(w: FloatArray) -> FloatArray:
        """Return the left side of (1)."""
        soft = tilt(exponents(w))[1][..., None]
        result: FloatArray = (1.0 + unit) * temperature * operator.average(np.ones_like(soft), soft) + base
        return result

    w = _supersolution(operator, policy, base + operator.average(policy, rounded), left)
    x = exponents(w)
    soft = tilt(x)[1]

    def relative_of(x: FloatArray) -> FloatArray:
        """Return (2)."""
        return _relative(policy, x, tilt(x)[0])

    apart = _apart(operator, policy, w, left(np.zeros_like(w)), rounded, relative_of)
    # Each is a bound by itself; an x made of both, action by action, is a bound of neither.
    relative = (
        np.minimum(relative_of(x), relative_of(np.minimum(apart, _LARGEST)))
        + unit
        - 2.0 * np.finfo(np.float64).eps * log_policy
    )
    relative[log_policy + x + soft[..., None] < _NEVER] = 0.0
    return ValueErrors(value=w, action_value=temperature * x, point_value=temperature * soft, policy=relative)


def _apart(
    operator: SoftOperator,
    policy: FloatArray,
    w: FloatArray,
    source: FloatArray,
    rounded: FloatArray,
    relative_of: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """Return the x of (3), inf where none is found or the arrays would be too large."""
    if policy.size * w.size > _SIZE_LIMIT:
        return np.full_like(policy, np.inf)
    scale = operator.discount / operator.temperature
    inverse = operator.system(policy).solve(np.eye(w.size))
    reached = operator.ahead(inverse)  # (S, ..., A, S)
    differences = np.abs(reached - np.einsum("...a,...as->...s", policy, reached)[..., None, :])
    ahead = operator.ahead(w)
    lost = _LOST * scale * (ahead + np.vecdot(policy, ahead)[..., None])  # what rounding leaves of the differences

    def needed(y: FloatArray) -> FloatArray:
        """Return the left side of (3)."""
        moved = np.minimum(np.minimum(relative_of(y + rounded / operator.temperature), _HUGE) * y, _HUGE)
        result: FloatArray = scale * (differences @ (source + operator.temperature * operator.average(policy, moved)))
        return np.asarray(np.minimum(result + lost, _HUGE))

    y: FloatArray = np.minimum((1.0 + 1e-6) * (scale * (differences @ source) + lost), _HUGE)
    for _ in range(_CORRECTIONS):
        lacking = np.maximum(needed(y) - y, 0.0)
        if not lacking.any():
            break
        y = np.minimum(y + 2.0 * lacking, _HUGE)
    failing: BoolArray = np.asarray(((needed(y) > y) | (y >= _HUGE)).reshape(w.size, -1).any(axis=1))
    y[_reaching(operator, failing)] = np.inf
    return np.asarray(y + rounded / operator.temperature)


def _relative(policy: FloatArray, x: FloatArray, grown: FloatArray) -> FloatArray:
    """Return (2), inf where it is out of all proportion."""
    others = np.maximum(policy.sum(axis=-1, keepdims=True) - policy, 0.0)
    grown_others = np.maximum(grown.sum(axis=-1, keepdims=True) - grown, 0.0)
    moved = np.minimum(x, _LARGE)
    result: FloatArray = np.expm1(moved) * others + np.exp(moved) * grown_others
    return np.where((x < _LARGE) & (result < np.exp(_LARGE)), result, np.inf)


def _supersolution(
    operator: SoftOperator, policy: FloatArray, source: FloatArray, left: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Return w that satisfies (1)."""
    solve = operator.system(policy).solve
    w = np.maximum(solve(source), source) * (1.0 + 1e-6)
    for _ in range(_CORRECTIONS):
        lacking = np.maximum(left(w) - w, 0.0)
        if not lacking.any():
            return w
        w = w + 2.0 * np.maximum(solve(lacking), lacking)
    failing = _reaching(operator, ~(left(w) <= w))
    return np.where(failing, float(left(np.zeros_like(w)).max()) / (1.0 - operator.discount), w)


def _reaching(operator: SoftOperator, states: BoolArray) -> BoolArray:
    """Return which states are among the given ones or lead to one of them; the others are a problem of their own."""
    while True:
        ahead = operator.ahead(states.astype(np.float64)).reshape(states.size, -1).any(axis=1)
        if not (ahead & ~states).any():
            return states
        states = states | ahead


class ErrorsOnDemand:
    """Bounds worked out when they are first read; pickled with them worked out."""

    __slots__ = ("_source",)

    def __init__(self, source: Callable[[], ValueErrors] | ValueErrors) -> None:
        self._source = source

    def __call__(self) -> ValueErrors:
        """Return the bounds."""
        source = self._source
        if not isinstance(source, ValueErrors):
            source = self._source = source()
        return source

    def __reduce__(self) -> tuple[type[ErrorsOnDemand], tuple[ValueErrors]]:
        """Pickle the bounds: what they would be worked out from stays behind."""
        return ErrorsOnDemand, (self(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderErrors:
    """The leader's quantities by stage (K stages: one per step of an episode, or one for ever) and their errors.

    Attributes
    ----------
    law, law_off : (K, S)
        Discounted probability of the state, its error.
    ahead, ahead_off : (K, S)
        |V_L| with one step less to go, its error.
    action_size, benefit, action_off : (K, S, A)
        |Q_L|, |B|, and the error of Q_L.
    value, value_off : (S,)
        |V_L| with everything to go, its error.
    """

    law: FloatArray
    law_off: FloatArray
    ahead: FloatArray
    ahead_off: FloatArray
    action_size: FloatArray
    benefit: FloatArray
    action_off: FloatArray
    value: FloatArray
    value_off: FloatArray


def leader_errors(
    tables: Tables,
    policy: FloatArray,
    off: FloatArray,
    *,
    centre: float,
    discount: float,
    horizon: int | None,
    rounding: float,
) -> LeaderErrors:
    """Carry η through the leader's evaluation: (4) and (5)."""
    kernel = to_dense(tables.transition)
    flat = kernel.reshape(-1, tables.states)
    chain = np.matmul(policy[:, None, :], kernel)[:, 0, :]
    moved = np.matmul((off * policy)[:, None, :], kernel)[:, 0, :]  # η π P
    carrying = chain + moved
    reward = tables.reward_leader - centre
    initial = np.asarray(tables.initial, dtype=np.float64)

    def ahead_of(value: FloatArray) -> FloatArray:
        return discount * (flat @ value).reshape(policy.shape)

    def stage(value: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        action_value = reward + ahead_of(value)
        size = np.abs(reward) + ahead_of(np.abs(value))
        centred = np.abs(action_value - (policy * action_value).sum(axis=1, keepdims=True))
        source = (policy * (off * centred + (1.0 + off) * rounding * size)).sum(axis=1)
        return size, centred, source, (policy * action_value).sum(axis=1)

    if horizon is None:
        system, carry = (DiscountedSystem.factorise(matrix, discount) for matrix in (chain, carrying))
        value = system.solve((policy * reward).sum(axis=1))
        size, centred, source, _ = stage(value)
        value_off = carry.solve(source)  # (5)
        law = system.solve_transposed(initial)
        law_off = carry.solve_transposed(discount * (moved.T @ law) + rounding * law)  # (4)
        return LeaderErrors(
            law=law[None],
            law_off=law_off[None],
            ahead=np.abs(value)[None],
            ahead_off=value_off[None],
            action_size=size[None],
            benefit=centred[None],
            action_off=(ahead_of(value_off) + rounding * size)[None],
            value=np.abs(value),
            value_off=value_off,
        )
    steps = horizon
    values, values_off = np.zeros((steps + 1, tables.states)), np.zeros((steps + 1, tables.states))  # by steps to go
    sizes, benefits, offs = (np.zeros((steps, *policy.shape)) for _ in range(3))
    for h in range(1, steps + 1):
        size, centred, source, values[h] = stage(values[h - 1])
        values_off[h] = source + discount * (carrying @ values_off[h - 1])
        sizes[steps - h], benefits[steps - h] = size, centred
        offs[steps - h] = ahead_of(values_off[h - 1]) + rounding * size
    laws, laws_off = np.zeros((steps, tables.states)), np.zeros((steps, tables.states))
    laws[0], laws_off[0] = initial, rounding * initial
    for t in range(1, steps):
        laws[t] = discount * (chain.T @ laws[t - 1])
        laws_off[t] = discount * (carrying.T @ laws_off[t - 1] + moved.T @ laws[t - 1]) + rounding * laws[t]
    return LeaderErrors(
        law=laws,
        law_off=laws_off,
        ahead=np.abs(values[steps - 1 :: -1]),
        ahead_off=values_off[steps - 1 :: -1],
        action_size=sizes,
        benefit=benefits,
        action_off=offs,
        value=np.abs(values[steps]),
        value_off=values_off[steps],
    )
