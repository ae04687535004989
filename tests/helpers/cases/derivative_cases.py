"""Problems whose derivatives are known by hand.

With one state, J = ρ + Σ_a π r_L / (1 - γ_L), so that ∂J/∂r_F = π (r_L - π·r_L) / (β (1 - γ_L)).
"""

import autograd.numpy as anp
import numpy as np
from autograd import extend

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    ConfigurableLQR,
    ConfigurableMDP,
    LQRMatrices,
    MarkovGame,
    Tables,
)

THETA = np.array([0.3, -0.7])

WITHOUT_DERIVATIVES = ("complex_step", "finite_difference")

TABULAR = sorted(name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableMDP in route.kinds)

DIFFERENTIATING = [name for name in TABULAR if name not in WITHOUT_DERIVATIVES]


def one_state(reward_follower=lambda x: anp.reshape(x, (1, 2)), regulariser=lambda x: 0.0, **options):
    """One state, two actions, γ = .9, β = 1, r_L = (0, 1)."""

    def tables(theta):
        return Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=reward_follower(theta),
            reward_leader=np.array([[0.0, 1.0]]),
            initial=np.ones(1),
            regulariser=regulariser(theta),
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0, **options)


def by_hand(theta, slopes=((1.0, 0.0), (0.0, 1.0))):
    """∂J/∂θ of `one_state` from ∂r_F/∂θ (actions, N), at r_F = θ."""
    chance = 1.0 / (1.0 + np.exp(theta[0] - theta[1]))
    return chance * (1.0 - chance) / 0.1 * (np.array(slopes[1]) - np.array(slopes[0]))


def plain(x):
    return np.reshape(np.asarray(x), (1, 2))


WRONG = {
    "sign": -1.0,
    "a per mille": 1.001,
    "in single precision": float(np.float32(1.0 + 1e-7)),
}

ONE = np.eye(1)


def regulator(drift=lambda x: anp.reshape(x, (1, 1)), regulariser=lambda x: 0.0, **options):
    def matrices(theta):
        return LQRMatrices(
            dynamics_state=drift(theta), dynamics_action=ONE, noise_covariance=0.1 * ONE, cost_state_follower=ONE,
            cost_action_follower=ONE, cost_state_leader=ONE, cost_action_leader=0.5 * ONE, initial_mean=np.ones(1),
            initial_covariance=0.0 * ONE, regulariser=regulariser(theta),
        )  # fmt: skip

    return ConfigurableLQR(matrices=matrices, discount_leader=0.5, discount_follower=0.9, temperature=0.1, **options)


def leaders_choice(logits, derivative=None):
    """One state, two actions of the leader, one of the follower: J = 2 Σ_l f_l r_l at γ_L = .5."""
    value = extend.primitive(lambda x: np.exp(x) / np.exp(x).sum())
    extend.defvjp(value, derivative or (lambda f, x: lambda g: f * (g - (f * g).sum())))
    return MarkovGame(
        transition=np.ones((1, 2, 1, 1)),
        reward_follower=np.zeros((1, 2, 1)),
        reward_leader=np.array([[[1.0], [3.0]]]),
        initial=np.ones(1),
        policy=lambda theta: anp.reshape(value(theta * np.array([1.0, logits])), (1, 2)),
        follower_sees_leader_action=True,
        discount_leader=0.5,
        discount_follower=0.5,
        temperature=1.0,
    )
