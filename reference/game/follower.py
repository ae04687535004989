"""The follower's soft-optimal response in a Markov game, for both information structures.

Both are one contraction on `W(s)`, the follower's value of a state before anybody has moved. A follower decides at
*decision points*: the pairs (s, l) if it sees the leader's action, the states s if it does not. With the probability
`reach` of each decision point given the state,

    Q(s,d,a) = r(s,d,a) + γ_F Σ_s' K(s'|s,d,a) W(s'),                                                            (1)
    V(s,d) = β log Σ_a exp(Q(s,d,a)/β),                                                                          (2)
    W(s) = Σ_d reach(s,d) V(s,d).                                                                                (3)

A seeing follower has d = l, reach = f, and the game's own tables; one that does not see has a single decision point per
state, and tables averaged over f. Exchanging expectation and soft value would turn the one into the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from bilevelrl.reference.arrays import FloatArray, IntArray, check_pairs
from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.game.decisions import DecisionPoints
from bilevelrl.reference.game.model import GameAt, MarkovGame
from bilevelrl.reference.problem import FollowerMethod, Status, solve
from bilevelrl.reference.tabular.fixed_point import SoftOperator, find_fixed_point, start_value
from bilevelrl.reference.tabular.value_errors import ErrorsOnDemand, ValueErrors, value_errors

__all__ = ["GameFollower", "game_operator", "game_value_errors", "solve_game"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class GameFollower:
    """A follower's response in a Markov game.

    Attributes
    ----------
    sees_leader_action : bool
        The information structure.
    value : (S, L), or (S,) if it does not see
        V_F at the decision points: with the leader's action known, or before it.
    state_value : (S,)
        The value of a state before anybody has moved, `Σ_l f(l|s) V_F(s, l)`; the same as `value` if it does not see.
    action_value : (S, L, A)
        Q_F(s, l, a), without the entropy of the state's own action.
    policy : (S, L, A)
        g(a|s, l); the same for every l if it does not see. Rows sum to one.
    residual : float
        Largest change of `state_value` by one more backup.
    centre : float
        The constant that was split off the values before iterating.
    centred_value : (S, D), D = L or 1
        `value - centre` with all its digits.
    centred_action_value : (S, L, A)
        `action_value - centre` with all its digits.
    centred_state_value : (S,)
        `state_value - centre` with all its digits.
    errors_on_demand
        Bounds on the errors of `centred_state_value` and g, state by state, worked out when first called.
    status, iterations, sweeps, linear_solves
        How it ended and what it cost.
    """

    sees_leader_action: bool
    value: FloatArray
    state_value: FloatArray
    action_value: FloatArray
    policy: FloatArray
    residual: float
    status: Status
    iterations: int
    sweeps: int
    linear_solves: int
    centre: float
    centred_value: FloatArray
    centred_action_value: FloatArray
    centred_state_value: FloatArray
    errors_on_demand: ErrorsOnDemand = field(repr=False, compare=False)
    _cumulative: list[FloatArray] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def error_bound(self) -> float:
        """Bound on the error of `state_value`, `value` and `action_value`."""
        return self.errors_on_demand().bound + float(np.finfo(np.float64).eps) * abs(self.centre)

    @property
    def policy_error_bound(self) -> float:
        """Bound on the relative error of every g against the best response."""
        return float(self.errors_on_demand().policy.max())

    @property
    def response(self) -> FloatArray:
        """G at the decision points, (S, D, A): D = L, or 1 if it does not see."""
        return self.policy if self.sees_leader_action else self.policy[:, :1]

    @checked
    def value_at(self, state: object, leader_action: object = None) -> FloatArray:
        """Return V_F of each state, or of state and leader action where one is given and seen; zero at S, the end."""
        seen = self.sees_leader_action and leader_action is not None
        table = self.value if seen else self.state_value[:, None]
        states, points = table.shape
        ended: FloatArray = np.append(table, np.zeros((1, points)), axis=0)
        place = check_pairs(("state", state, states + 1), ("leader_action", leader_action if seen else 0, points))
        result: FloatArray = ended[place]
        return result

    @checked
    def action_value_at(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return Q_F(s, l, a), of a follower that does not see the leader's action too.

        Raises
        ------
        InvalidInputError
            If the leader's action is not given.
        """
        if leader_action is None:
            raise InvalidInputError("leader_action=None: expected the leader's actions; Q_F is that of (s, l, a)")
        states, leader_actions, actions = self.policy.shape
        result: FloatArray = self.action_value[
            check_pairs(
                ("state", state, states), ("leader_action", leader_action, leader_actions), ("action", action, actions)
            )
        ]
        return result

    @checked
    def sample(self, state: object, rng: Generator, leader_action: object = None) -> IntArray:
        """Draw an action for each state and leader action (any shape of integers).

        Raises
        ------
        InvalidInputError
            If it sees the leader's action and is not told.
        """
        if not self._cumulative:
            self._cumulative.append(np.cumsum(self.policy, axis=2))
        rows = self._cumulative[0][self._pairs(state, leader_action)]
        threshold = rng.random(rows.shape[:-1])[..., None] * rows[..., -1:]
        drawn: IntArray = (rows <= threshold).sum(axis=-1)
        return drawn.clip(max=self.policy.shape[2] - 1)

    @checked
    def log_prob(self, state: object, action: object, leader_action: object = None) -> FloatArray:
        """Return log g(a|s, l), -inf where the probability underflows."""
        with np.errstate(divide="ignore"):
            result: FloatArray = np.log(
                self.policy[self._pairs(state, leader_action, ("action", action, self.policy.shape[2]))]
            )
        return result

    def _pairs(self, state: object, leader_action: object, *others: tuple[str, object, int]) -> tuple[IntArray, ...]:
        """Return indices of the policy's table, checked; a follower that does not see has one row for all l."""
        if self.sees_leader_action and leader_action is None:
            raise InvalidInputError("leader_action=None: expected the leader's actions; this follower sees them first")
        seen = leader_action if self.sees_leader_action else 0
        states, leader_actions = self.policy.shape[:2]
        return check_pairs(("state", state, states), ("leader_action", seen, leader_actions), *others)


def soft_values(action_value: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
    """Return V = β log Σ_a exp(Q/β) and π = exp((Q - V)/β) over the last axis; finite for every temperature."""
    largest = action_value.max(axis=-1, keepdims=True)
    weights = np.exp((action_value - largest) / temperature)
    total = weights.sum(axis=-1, keepdims=True)
    return (largest + temperature * np.log(total))[..., 0], weights / total  # (2)


@solve.register(MarkovGame)
def solve_game(
    at: GameAt,
    *,
    method: FollowerMethod = "newton",
    tolerance: float = 1e-12,
    max_iterations: int | None = None,
    warm_start: GameFollower | FloatArray | None = None,
    stop_after: int | None = None,
    throw: bool = True,
) -> GameFollower:
    """Solve the follower of a game; arguments and errors as in `solve_follower`.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, Section 3.2.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> follower = solve_game(toy_markov_game().at(np.zeros(3)))
    >>> follower.policy.shape, follower.status.name
    ((3, 2, 3), 'CONVERGED')
    """
    game, points = at.problem, at.points
    discount, temperature = game.discount_follower, game.temperature
    offset = points.centre_follower / (1.0 - discount)

    found = find_fixed_point(
        start_value(game.states, warm_start, offset),
        game_operator(points, discount, temperature),
        method=method,
        tolerance=tolerance,
        max_iterations=max_iterations,
        stop_after=stop_after,
        throw=throw,
    )
    value, _ = soft_values(found.action_value, temperature)
    sees = bool(game.follower_sees_leader_action)
    action_value = found.action_value
    if not sees:
        # From the iterate that the policy was made from, so that Σ_l f Q_F is what the follower compared.
        action_value = game.reward_follower - points.centre_follower + discount * (game.transition @ found.iterate)

    public = value if sees else value[:, 0]
    return GameFollower(
        sees_leader_action=sees,
        value=public + offset,
        state_value=found.value + offset,
        action_value=action_value + offset,
        policy=np.broadcast_to(found.policy, game.reward_follower.shape).copy() if not sees else found.policy,
        residual=found.residual,
        status=found.status,
        iterations=found.iterations,
        sweeps=found.sweeps,
        linear_solves=found.linear_solves,
        centre=offset,
        centred_value=value,
        centred_action_value=action_value,
        centred_state_value=found.value,
        errors_on_demand=ErrorsOnDemand(lambda: game_value_errors(game, points, found.iterate)),
    )


def game_value_errors(game: MarkovGame, points: DecisionPoints, iterate: FloatArray) -> ValueErrors:
    """Return the bounds for W = `iterate` (S,) and one backup of it, those on Q_F by the leader's action (S, L, A)."""
    operator = game_operator(points, game.discount_follower, game.temperature)
    bounds = value_errors(operator, iterate)
    if game.follower_sees_leader_action:
        return bounds
    size = np.abs(game.reward_follower - points.centre_follower)
    size += game.discount_follower * (game.transition @ np.abs(iterate))
    off = game.discount_follower * (game.transition @ bounds.value) + operator.unit * size
    return replace(bounds, action_value=off)


def game_operator(points: DecisionPoints, discount: float, temperature: float) -> SoftOperator:
    """Return the follower's operator on W (S,)."""

    def backup(value: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        action_value = points.reward_follower + discount * points.ahead(value)  # (1)
        soft, response = soft_values(action_value, temperature)
        return np.vecdot(points.reach, soft), action_value, response  # (3)

    return SoftOperator(
        reward=points.reward_follower,
        discount=discount,
        temperature=temperature,
        rounding_unit=points.unit,
        backup=backup,
        ahead=points.ahead,
        average=points.average,
        chain=points.chain,
    )
