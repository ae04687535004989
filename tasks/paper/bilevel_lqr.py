"""The bi-level LQR game: the leader pushes a follower's system towards a narrow peak of its own reward."""

from __future__ import annotations

import numpy as np

from bilevelrl.reference import LQRGame
from bilevelrl.reference.doors import Deviation, checked
from bilevelrl.tasks.registry import register_task

__all__ = ["lqr_game"]


@register_task("lqr_game", "a two-dimensional LQR game: a noisy linear leader and a follower that sees its action")
@checked
def lqr_game(
    *,
    policy_deviation: Deviation = 1e-3,
    target: tuple[float, float] = (-0.8, 0.0),
    reward_width: tuple[float, float] = (0.2, 0.01),
    leader_effect: float = 0.1,
    follower_effect: float = 0.1,
    temperature: float = 0.1,
    discount_leader: float = 0.99,
    discount_follower: float = 0.95,
) -> LQRGame:
    """Return the bi-level LQR game (arXiv:2603.14867, experiments on the LQR game).

    `x1' = x2 + leader_effect · l`, `x2' = follower_effect · a`, from x = (1, 0). The follower pays |x|² + a², the
    leader earns a Gaussian bump around the target. θ is its gain K, flattened: l ~ N(K x, policy_deviation²).
    Published returns are undiscounted over 100 steps: `horizon=100, discounted=False`.

    Parameters
    ----------
    policy_deviation
        Standard deviation of the leader's action.
    target, reward_width
        Centre and standard deviations of the leader's reward.
    leader_effect, follower_effect
        How far one unit of an action moves the state.
    temperature, discount_leader, discount_follower
        β, γ_L and γ_F.

    Raises
    ------
    InvalidInputError
        If a number is out of range.

    Examples
    --------
    >>> from bilevelrl.reference import leader_objective
    >>> round(leader_objective(lqr_game(), np.array([-9.9615, -10.0]), horizon=100, discounted=False), 2)
    18.36
    """
    return LQRGame(
        dynamics_state=np.array([[0.0, 1.0], [0.0, 0.0]]),
        dynamics_action=np.array([[0.0], [follower_effect]]),
        dynamics_leader=np.array([[leader_effect], [0.0]]),
        cost_state=np.eye(2),
        cost_action=np.eye(1),
        target=np.array(target),
        width=np.diag(np.square(reward_width)),
        initial_mean=np.array([1.0, 0.0]),
        initial_covariance=np.zeros((2, 2)),
        leader_covariance=np.array([[policy_deviation**2]]),
        discount_leader=discount_leader,
        discount_follower=discount_follower,
        temperature=temperature,
        name="lqr_game",
    )
