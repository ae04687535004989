"""Score-function hypergradients of linear-quadratic games from stored transitions, many runs at once.

From drawn transitions i with their episodes' remainders, Theorem 2 (8)-(9) of arXiv:2603.14867 in its sampled form is

    mean_i [ ∇log f(l_i|x_i) A_i  +  (1/β) B_i Σ_k γ_F^k ∇log f(l_{i+k}|x_{i+k}) U_{i+k} ],                          (1)

with A the advantage of the leader's action, B the benefit of the follower's and U what a leader's action is worth to
the follower: `BCHG`, or without the second term `NaivePGD`, on episodes whose steps weigh as they were drawn.
Transitions are drawn with probability proportional to γ_L^t, so it is the hypergradient over `Σ_{t<T} γ_L^t`. Here is
what A and B are read from: means of a learnt critic over both players' actions, in the published forms and in those
without their faults.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.gaussian_game import ValuesAtVisits
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.methods.pathwise_game import fit_cost_gradient
from bilevelrl.estimators.sampling.gaussian_game import LQRGameBatch, StackedFollowers, check_linear_leader
from bilevelrl.estimators.sampling.linear_quadratic import gaussian_root
from bilevelrl.estimators.sampling.replay_memory import Draws
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.reference import LQRGame
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import UnsupportedError

__all__ = ["AveragedValues", "LeaderValues", "ScoreForm", "score_directions"]

_LEADER_DRAWS, _FOLLOWER_DRAWS = 32, 256
# The leader hardly trembles; the follower's noise is twice as wide as the leader's reward, which eight nodes step over.
_LEADER_NODES, _FOLLOWER_NODES = 3, 32


class LeaderValues(Protocol):
    """The leader's action values of several runs."""

    def action_value(self, state: FloatArray, leader_action: FloatArray, action: FloatArray) -> FloatArray:
        """Return Q_L (R, B) at states (R, B, n), leader's actions (R, B, p) and follower's actions (R, B, m)."""
        ...


@runtime_checkable
class AveragedValues(LeaderValues, Protocol):
    """Values that know their mean over the follower's action."""

    def over_follower(self, state: FloatArray, leader_action: FloatArray) -> FloatArray:
        """Return E_a Q_L (R, B) at states (R, B, n) and leader's actions (R, B, p)."""
        ...


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreForm:
    """How the terms are formed.

    Parameters
    ----------
    influence_baseline
        Subtract from V_F(x, l), what a leader's action is worth to the follower, its mean over the leader's action.
    same_step
        Let the inner sum start at the transition's own leader action; its mean is zero there.
    baseline
        Of A = Q_L - baseline. "action_dependent": the mean over leader's actions at the follower's own action, which
        answered the leader's and so biases the term. "state_value": the mean over both. "coupled": the mean over the
        leader's action l' with the follower's own deviation from its mean, now from its mean at l': valid, and it
        cancels the follower's noise.
    averages
        Over the players' actions: "sampled", 32 leader's and 256 follower's ones as published; "quadrature",
        Gauss-Hermite with 3 and 32 nodes, for scalar actions, or the critic's own closed form.
    suffix
        ∇Q_F of the guiding term: "sampled", the inner sum over the rest of the episode; "fitted", minus its mean over
        the follower's action, from the quadratic fit of `fit_cost_gradient`, which takes no scores.

    Raises
    ------
    UnknownNameError, InvalidInputError
        If an option is not known.

    Examples
    --------
    >>> ScoreForm().baseline
    'coupled'
    """

    influence_baseline: bool = True
    same_step: bool = False
    baseline: Literal["action_dependent", "state_value", "coupled"] = "coupled"
    averages: Literal["sampled", "quadrature"] = "quadrature"
    suffix: Literal["sampled", "fitted"] = "sampled"


def score_directions(
    game: LQRGame,
    gains: FloatArray,
    followers: StackedFollowers,
    batch: LQRGameBatch,
    draws: Draws,
    critic: LeaderValues,
    *,
    form: ScoreForm,
    guiding: bool,
    rng: list[Generator],
) -> FloatArray:
    """Return each run's estimate (R, N) of the hypergradient over `Σ_{t<T} γ_L^t`.

    Parameters
    ----------
    game
        θ must be the leader's gain.
    gains : (R, p, n)
        Of the leaders now; data may come from others, and nothing is reweighted.
    followers, batch, draws
        The followers now, stored episodes, and which transitions of them count.
    critic
        Leader's action values.
    form, guiding
        How the terms are formed; without the guiding term it is the naive policy gradient.
    rng
        One generator per run, for sampled averages.

    Raises
    ------
    SupportError
        If Ω is singular.
    UnsupportedError
        For quadrature over actions of several dimensions.

    Examples
    --------
    >>> from bilevelrl.estimators.sampling.gaussian_game import sample_games
    >>> from bilevelrl.estimators.sampling.replay_memory import Draws
    >>> from bilevelrl.tasks import lqr_game
    >>> class Zero:
    ...     def action_value(self, state, leader_action, action):
    ...         return np.zeros(state.shape[:2])
    >>> game, theta, rng = lqr_game(), np.zeros((1, 2)), [np.random.default_rng(0)]
    >>> followers = StackedFollowers.solve(game, theta)
    >>> batch = sample_games(game, followers, streams=4, steps=100, rng=rng)
    >>> draws = Draws.every(game.discount_leader, 1, 4, 100)
    >>> score_directions(game, theta[:, None], followers, batch, draws, Zero(), form=ScoreForm(), guiding=True, rng=rng)
    array([[0., 0.]])
    """
    runs = len(gains)
    at = (np.arange(runs)[:, None], draws.episode, draws.time)
    state, leader, action = batch.state_t[at], batch.leader_action_t[at], batch.action_t[at]
    averages = _Averages(game, gains, followers, form, rng)
    seen = critic.action_value(state, leader, action)
    advantage = seen - averages.over_leader(critic, state, leader, action)
    fitted = guiding and form.suffix == "fitted"
    if not guiding or fitted:
        steps = batch.of_steps(at)
        values = (
            ValuesAtVisits(benefit=np.zeros((draws.time.shape[1], 1)), advantage=row[:, None]) for row in advantage
        )
        direction = _estimates(NaivePGD(critic="context"), averages, steps, draws.weight[:, :, None], values)
        if not guiding:
            return direction
    benefit = seen - averages.over_follower(critic, state, leader)
    if fitted:
        suffix = _fitted(game, averages, followers, batch, state, leader, action)
        guided: FloatArray = np.matmul((draws.weight * benefit)[:, None], suffix)[:, 0]
        return direction + guided / game.temperature
    # Steps that were drawn twice count once, with the mean of what the critic said of them.
    weight = draws.summed(draws.weight, batch.state_t.shape[1], batch.steps)
    over = np.where(weight > 0.0, weight, 1.0)
    summed = (draws.summed(draws.weight * each, *weight.shape[1:]) / over for each in (benefit, advantage))
    values = (ValuesAtVisits(benefit=b, advantage=a) for b, a in zip(*summed, strict=True))
    estimator = BCHG(critic="context", influence_baseline=form.influence_baseline, same_step=form.same_step)
    return _estimates(estimator, averages, batch, weight, values)  # (1)


def _estimates(
    estimator: AlongTrajectories,
    averages: _Averages,
    batch: LQRGameBatch,
    weight: FloatArray,
    values: Iterable[ValuesAtVisits],
) -> FloatArray:
    """Return each run's estimate (R, N) from episodes whose steps have weights (R, M, T)."""
    rows = []
    for row, critic in enumerate(values):
        context = Context(
            problem=averages.game,
            theta=averages.gains[row].ravel(),
            follower=_Response(averages=averages, row=row),
            critic=critic,
        )
        visits = batch.trajectories(averages.game, row, weight[row])
        # Both terms weigh the same scores, so that one pullback serves them.
        scores = sum(item.weights["log_policy_leader"] for item in estimator.contributions(visits, context))
        rows.append(averages.game.pullback(context.theta, visits, {"log_policy_leader": np.asarray(scores)}))
    return np.stack(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Response:
    """One run's follower, which may have answered an earlier gain, as estimators read it under the present one."""

    averages: _Averages
    row: int

    def value_at(self, state: FloatArray, leader_action: FloatArray | None = None) -> FloatArray:
        """V_F(x, l), or its mean over the leader's present policy."""
        followers, one = self.averages.followers, slice(self.row, self.row + 1)
        if leader_action is None:
            return np.asarray(self.averages.mean_worth(state[None], one)[0])
        return np.asarray(followers.value(state[None], leader_action[None], one)[0])


def _fitted(
    game: LQRGame,
    averages: _Averages,
    followers: StackedFollowers,
    batch: LQRGameBatch,
    state: FloatArray,
    leader: FloatArray,
    action: FloatArray,
) -> FloatArray:
    """∇Q_F minus its mean over the follower's action, (R, B, N): quadratic in the next state."""
    fitted, b = fit_cost_gradient(game, followers, batch), game.dynamics_action
    planned = state @ game.dynamics_state.T + leader @ game.dynamics_leader.T
    mean = planned + averages.response(state, leader) @ b.T
    tremble = planned + action @ b.T - mean
    spread = np.sum(fitted * (b @ followers.covariance @ b.T)[:, None], axis=(2, 3))
    crossed = np.einsum("rbi,rnij,rbj->rbn", tremble, fitted, 2.0 * mean + tremble)
    centred: FloatArray = -game.discount_follower * (crossed - spread[:, None])
    return centred


class _Averages:
    """Scores and means over the players' actions under the present gains."""

    def __init__(
        self, game: LQRGame, gains: FloatArray, followers: StackedFollowers, form: ScoreForm, rng: list[Generator]
    ) -> None:
        omega = check_linear_leader(game)
        self.game, self.gains, self.followers, self.form, self.rng = game, gains, followers, form, rng
        self.root, self.omega = gaussian_root(omega), omega
        self.reacting = np.stack([gaussian_root(covariance) for covariance in followers.covariance])
        if form.averages == "quadrature" and (omega.shape[0] > 1 or followers.covariance.shape[1] > 1):
            raise UnsupportedError("averages='quadrature': expected scalar actions of both players; use 'sampled'")

    def mean_worth(self, state: FloatArray, rows: slice) -> FloatArray:
        """E_l V_F(x, l) of some runs under the present gains: V_F is quadratic in l."""
        flat = state.reshape(len(state), -1, state.shape[-1])
        centre = (flat @ np.swapaxes(self.gains[rows], 1, 2)).reshape(*state.shape[:-1], -1)
        n = state.shape[-1]
        spread = np.sum(self.followers.cost_seen[rows, n:, n:] * self.omega, axis=(1, 2))
        mean: FloatArray = self.followers.value(state, centre, rows) - spread.reshape(-1, *(1,) * (state.ndim - 2))
        return mean

    def response(self, state: FloatArray, leader: FloatArray) -> FloatArray:
        """The follower's mean action, (R, B, m)."""
        planned = state @ self.game.dynamics_state.T + leader @ self.game.dynamics_leader.T
        result: FloatArray = -planned @ np.swapaxes(self.followers.reaction, 1, 2)
        return result

    def over_leader(
        self, critic: LeaderValues, state: FloatArray, leader: FloatArray, action: FloatArray
    ) -> FloatArray:
        """The baseline of the leader's own term, (R, B)."""
        centre = state @ np.swapaxes(self.gains, 1, 2)
        offsets, weights = self._nodes(centre, self.root[None], _LEADER_DRAWS, _LEADER_NODES)
        others = centre[:, :, None] + offsets
        if self.form.baseline == "action_dependent":
            return _mean(critic, state, others, action, weights)
        planned = self._repeated(self.response, state, others)
        if self.form.baseline == "coupled":
            deviation = action - self.response(state, leader)
            return _mean(critic, state, others, planned + deviation[:, :, None], weights)
        if self.form.averages == "sampled":
            trembles, _ = self._nodes(action, self.reacting, _LEADER_DRAWS, _FOLLOWER_NODES)
            return _mean(critic, state, others, planned + trembles, weights)
        answered = [self.over_follower(critic, state, others[:, :, node]) for node in range(len(weights))]
        mean: FloatArray = np.tensordot(weights, np.stack(answered), axes=1)
        return mean

    def over_follower(self, critic: LeaderValues, state: FloatArray, leader: FloatArray) -> FloatArray:
        """E_a Q_L given the leader's action, (R, B)."""
        if self.form.averages == "quadrature" and isinstance(critic, AveragedValues):
            return critic.over_follower(state, leader)
        centre = self.response(state, leader)
        offsets, weights = self._nodes(centre, self.reacting, _FOLLOWER_DRAWS, _FOLLOWER_NODES)
        return _mean(critic, state, leader, centre[:, :, None] + offsets, weights)

    def _nodes(self, like: FloatArray, root: FloatArray, draws: int, nodes: int) -> tuple[FloatArray, FloatArray]:
        """Offsets (R, B, k, dim) of a Gaussian with that root, and their weights (k,)."""
        shape = (*like.shape[:2], draws, like.shape[2])
        if self.form.averages == "sampled":
            normal = np.stack([one.standard_normal(shape[1:]) for one in self.rng])
            turned = normal.reshape(shape[0], -1, shape[3]) @ np.swapaxes(root, 1, 2)
            return turned.reshape(shape), np.full(draws, 1.0 / draws)
        points, weights = _gauss(nodes)
        return points[None, None, :, None] * root[:, None, None, 0], weights / weights.sum()

    @staticmethod
    def _repeated(
        function: Callable[[FloatArray, FloatArray], FloatArray], state: FloatArray, others: FloatArray
    ) -> FloatArray:
        flat = np.repeat(state, others.shape[2], axis=1)
        result = function(flat, others.reshape(len(others), -1, others.shape[3]))
        return result.reshape(*others.shape[:3], -1)


@functools.cache
def _gauss(nodes: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Hermite nodes and weights, which are the same at every step."""
    found: tuple[FloatArray, FloatArray] = np.polynomial.hermite_e.hermegauss(nodes)
    return found


def _mean(
    critic: LeaderValues, state: FloatArray, leader: FloatArray, action: FloatArray, weights: FloatArray
) -> FloatArray:
    """Σ_k w_k Q_L over nodes; what has no axis of nodes is the same at all of them."""
    runs, visits, count = len(state), state.shape[1], len(weights)

    def spread(array: FloatArray) -> FloatArray:
        wide = array if array.ndim == 4 else array[:, :, None]
        return np.broadcast_to(wide, (runs, visits, count, wide.shape[3])).reshape(runs, visits * count, -1)

    values = critic.action_value(spread(state), spread(leader), spread(action))
    result: FloatArray = values.reshape(runs, visits, count) @ weights
    return result
