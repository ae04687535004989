"""How far floating-point objectives and hypergradients of LQR games can be from the truth, to first order.

The method of `bilevelrl.reference.lqr.error_bounds`, with the Gaussian chain of states as the formula
(`bilevelrl.reference.lqr_game.leader`). An infinite horizon is summed until the rest of the return is below 1e-17 of
its largest value; what the rest can add to a derivative is bounded by the spread of an undiscounted, stable closed
loop. Bounds are infinite where that loop is not shown to be stable, where it is known too coarsely, and where the chain
is cut off because the state has spread beyond double precision.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.errors import IllPosedError
from bilevelrl.reference.lqr.follower import LQRFollower, action_covariance
from bilevelrl.reference.lqr.response_errors import (
    UNKNOWN,
    Response,
    Tail,
    bounds_of,
    column,
    pulled,
    respond,
    response_cotangents,
    stretch_of,
)
from bilevelrl.reference.lqr.rounding import EPSILON, Ledger, UnprovenError, plain
from bilevelrl.reference.lqr.solvers import discounted_lyapunov, riccati_backup
from bilevelrl.reference.lqr_game.leader import closed_loop, evaluate_game_leader, game_steps
from bilevelrl.reference.lqr_game.model import LeaderGaussian, LQRGame, LQRGameAt
from bilevelrl.reference.problem import GAME_PARTS, AnswerBounds, Objective, Part, error_bound

__all__ = ["lqr_game_error_bounds"]

_SPARE = 8


class _Chain:
    """The chain of states in a formula: J without the regulariser, and the cotangents of F and N."""

    __slots__ = ("by_loop", "by_noise", "objective")

    def __init__(
        self,
        ledger: Ledger,
        game: LQRGame,
        loop: Traced,
        noise: Traced,
        discount: float,
        horizon: int | None,
        steps: int,
    ) -> None:
        size = len(game.initial_mean)
        one, target, width = np.eye(1), column(game.target), ledger.symmetric(game.width)
        mean, law = column(game.initial_mean), ledger.symmetric(game.initial_covariance)
        means = ledger.recurrence(loop, one, mean, np.zeros((steps - 1, size, 1)))
        laws = ledger.recurrence(loop, loop.T, law, noise + np.zeros((steps - 1, 1, 1)))
        spread = ledger.total((1.0, laws), (1.0, width + np.zeros((steps, 1, 1))))
        wide = ledger.inverse(spread)
        away = ledger.total((1.0, means), (-1.0, target + np.zeros((steps, 1, 1))))
        pull = ledger.product(wide, away)
        turned = _transposed(pull)
        exponent = ledger.total(
            (-0.5, turned, away),
            (0.5, _log_determinant(ledger, wide, spread)),
            (0.5, _log_determinant(ledger, width[None], np.linalg.inv(game.width)[None]) + np.zeros((steps, 1, 1))),
        )
        # Powers by repeated multiplication lose a rounding in every step.
        powers = (discount ** np.arange(steps))[:, None, None]
        reward = powers * anp.exp(exponent)
        drift = (2.0 * np.arange(steps)[:, None, None] + _SPARE) * EPSILON
        weighted = ledger.off(reward, drift * plain(reward))
        self.objective = ledger.summed((1.0, weighted))
        by_mean = ledger.off(-weighted * pull, _SPARE * EPSILON * np.abs(plain(weighted) * plain(pull)))
        pulls = ledger.total((0.5, pull, turned), (-0.5, wide))
        by_law = ledger.off(weighted * pulls, _SPARE * EPSILON * np.abs(plain(weighted) * plain(pulls)))
        # Backwards through time: entry s belongs to step T - 1 - s.
        adjoints = ledger.recurrence(loop.T, one, by_mean[-1], by_mean[: steps - 1][::-1])
        spreads = ledger.recurrence(loop.T, loop, by_law[-1], by_law[: steps - 1][::-1])
        before, law_before = means[: steps - 1][::-1], laws[: steps - 1][::-1]
        self.by_noise = ledger.summed((1.0, spreads[: steps - 1]))
        self.by_loop = ledger.summed(
            (1.0, adjoints[: steps - 1], _transposed(before)), (2.0, spreads[: steps - 1], loop, law_before)
        )
        if horizon is None and discount > 0.0:
            self._add_rest(ledger, game, plain(loop), plain(noise), discount, steps)

    def _add_rest(
        self, ledger: Ledger, game: LQRGame, loop: FloatArray, noise: FloatArray, discount: float, steps: int
    ) -> None:
        """What the steps after the last can add: |r| ≤ 1, |∂r/∂m| ≤ |D^{-1/2}|, |∂r/∂Z| ≤ |D^{-1}|."""
        rest = discount**steps / (1.0 - discount)
        try:
            amplification = float(np.linalg.norm(discounted_lyapunov(loop, np.eye(len(loop)), 1.0), 2))
        except IllPosedError as unstable:
            raise UnprovenError(str(unstable)) from None
        narrow = 1.0 / float(np.linalg.eigvalsh(game.width)[0])
        largest = amplification**2 * float(np.linalg.norm(game.initial_covariance, 2) + np.linalg.norm(noise, 2))
        means = amplification * float(np.linalg.norm(game.initial_mean))
        by_loop = 2.0 * narrow * amplification * float(np.linalg.norm(loop, 2)) * largest
        self.objective = ledger.off(self.objective, rest)
        self.by_noise = ledger.off(self.by_noise, rest * narrow * amplification)
        self.by_loop = ledger.off(self.by_loop, rest * (by_loop + np.sqrt(narrow * amplification) * means))


def _transposed(stack: Traced) -> Traced:
    return anp.swapaxes(stack, 1, 2)


def _log_determinant(ledger: Ledger, matrix: Traced, inverse: Traced) -> Traced:
    """Return log det of each of a stack, (T, 1, 1), off by what an LU factorisation may be off by."""
    found = anp.reshape(anp.linalg.slogdet(matrix)[1], (-1, 1, 1))
    size = plain(matrix).shape[-1]
    # d log det M = ⟨M^{-1}, dM⟩ with |dM| ≤ u |L| |U|, taken as u |M| in every entry of the rows.
    through = np.abs(plain(inverse)) @ np.abs(plain(matrix))
    trace = np.abs(through).sum(axis=(1, 2))[:, None, None]
    return ledger.off(found, (size + _SPARE) * EPSILON * (trace + np.abs(plain(found))))


def _cotangents(
    ledger: Ledger,
    game: LQRGame,
    policy: LeaderGaussian,
    response: Response,
    chain: _Chain,
    planned: Traced,
    through: Traced,
    tail: Tail | None,
) -> dict[Part, dict[str, Traced]]:
    b, c = game.dynamics_action, game.dynamics_leader
    by_noise = 0.5 * (chain.by_noise + chain.by_noise.T)
    by_after = ledger.total(
        (1.0, chain.by_loop, planned.T), (2.0, by_noise, through, ledger.symmetric(policy.covariance), c.T)
    )
    found = response_cotangents(
        ledger,
        response,
        b,
        game.discount_follower,
        game.temperature,
        by_reaction=ledger.total((-1.0, b.T, by_after)),
        by_covariance=ledger.product(b.T, by_noise, b),
        tail=tail,
    )
    return {
        "policy": {
            "gain": ledger.product(through.T, chain.by_loop),
            "covariance": ledger.product(through.T, by_noise, through),
        },
        "response": {"gain": ledger.product(c.T, found["dynamics_state"])},
        "regulariser": {"regulariser": np.ones((1, 1))},
    }


def _summed_steps(game: LQRGame, policy: LeaderGaussian, cost_to_go: FloatArray, objective: Objective) -> int:
    """Steps of the chain before it is cut off, where it is."""
    _, curvature, reaction = riccati_backup(
        cost_to_go,
        game.planned_dynamics(policy),
        game.dynamics_action,
        game.cost_state,
        game.cost_action,
        game.discount_follower,
    )
    covariance = action_covariance(curvature, game.temperature)
    loop = closed_loop(game, policy.gain, policy.covariance, reaction, covariance)
    found = evaluate_game_leader(game, loop, objective=objective, derivatives=False)
    return len(found.reward)


def lqr_game_error_bounds(
    at: LQRGameAt,
    cost_to_go: FloatArray,
    *,
    objective: Objective,
    tail: Tail | None = None,
    frozen: bool = False,
    gradient: bool = True,
) -> AnswerBounds:
    """Return the bounds for a route that has found P; parameters as of `lqr_error_bounds`.

    Examples
    --------
    >>> from bilevelrl.reference import solve_follower
    >>> from bilevelrl.tasks import lqr_game
    >>> game, theta = lqr_game(), np.array([-3.0, 0.0])
    >>> follower = solve_follower(game, theta)
    >>> bounds = lqr_game_error_bounds(game.at(theta), follower.cost_to_go, objective=Objective(100))
    >>> 0.0 < bounds.gradient < 1e-12
    True
    """
    game, theta, policy = at.problem, at.theta, at.policy
    discount = objective.discount(game.discount_leader)
    steps = _summed_steps(game, policy, cost_to_go, objective)
    if steps < game_steps(discount, objective.horizon):
        return UNKNOWN
    b, c = game.dynamics_action, game.dynamics_leader
    jacobian = game.jacobian(theta) if gradient else {}
    stretch = [0.0]

    def formula(ledger: Ledger) -> Traced:
        planned = ledger.total((1.0, game.dynamics_state), (1.0, c, policy.gain))
        response = respond(
            ledger,
            planned,
            b,
            ledger.symmetric(game.cost_state),
            ledger.symmetric(game.cost_action),
            game.discount_follower,
            game.temperature,
            cost_to_go,
            frozen=frozen,
        )
        after = ledger.total((1.0, np.eye(len(b))), (-1.0, b, response.reaction))
        loop, through = ledger.product(after, planned), ledger.product(after, c)
        spoken = ledger.symmetric(policy.covariance)
        noise = ledger.total((1.0, through, spoken, through.T), (1.0, b, response.covariance, b.T))
        for rate, length in ((game.discount_follower, None), (1.0, None if objective.horizon is None else steps)):
            stretch[0] = max(stretch[0], stretch_of(plain(loop), response.loop_error, rate, length))
        chain = _Chain(ledger, game, loop, noise, discount, objective.horizon, steps)
        parts: list[Traced] = []
        if gradient:
            cotangents = _cotangents(ledger, game, policy, response, chain, planned, through, tail)
            parts = pulled(ledger, cotangents, jacobian, GAME_PARTS, theta.size)
        earned = ledger.total((1.0, chain.objective), (1.0, np.reshape(policy.regulariser, (1, 1))))
        return anp.concatenate([anp.reshape(entry, (-1,)) for entry in (earned, *parts)])

    return bounds_of(formula, theta.size, lambda: stretch[0])


@error_bound.register(LQRGame)
def follower_error_bound(at: LQRGameAt, follower: LQRFollower, objective: Objective) -> AnswerBounds:
    """The bounds for a problem solved by this follower."""
    return lqr_game_error_bounds(at, follower.riccati.cost_to_go, objective=objective)
