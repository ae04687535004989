"""A Markov game of one's own and an estimator of it in JAX, in single precision, that discounts the wrong way.

Needs JAX: `pip install bilevelrl[jax]`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy
from bilevelrl.verification import verify

rng = np.random.default_rng(1)
game = MarkovGame(
    transition=0.5 * rng.dirichlet(np.ones(2), (2, 2, 3)),  # half of all steps are the last
    reward_follower=rng.normal(size=(2, 2, 3)),
    reward_leader=rng.normal(size=(2, 2, 3)),
    initial=np.array([0.5, 0.5]),
    discount_leader=0.9,
    discount_follower=0.8,
    temperature=0.5,
    policy=TabularSoftmaxPolicy(states=2, leader_actions=2),
    follower_sees_leader_action=True,
)


def surrogate(theta, state, leader_action, weights):
    """Σ weights log f of one stream; the logit of action 0 is 0 in each state."""
    logits = jnp.stack([jnp.zeros_like(theta), theta], axis=1)
    return (weights * jax.nn.log_softmax(logits)[state, leader_action]).sum()


def estimator(batch, context, suffix_discount=0.9):  # the leader's, where the follower's 0.8 belongs
    """One gradient per stream, float32."""
    now = jnp.asarray(0.9**batch.time_in_episode * batch.valid, dtype=jnp.float32)
    own = now * context.critic.action_value(batch.state_t, batch.action_t, leader_action=batch.leader_action_t)
    outer = now * context.critic.benefit_t(batch) / 0.5
    apart = np.arange(batch.steps)[None, :] - np.arange(batch.steps)[:, None]
    later = outer @ jnp.where(apart > 0, jnp.float32(suffix_discount) ** apart, 0.0)
    weights = (own + later * context.follower.value[batch.state_t, batch.leader_action_t]) * batch.valid
    rows = jax.vmap(jax.grad(surrogate), in_axes=(None, 0, 0, 0))
    theta = jnp.asarray(context.theta, dtype=jnp.float32)
    return rows(theta, batch.state_t, batch.leader_action_t, weights.astype(jnp.float32))


def right(batch, context):
    """The same with the follower's discount."""
    return estimator(batch, context, 0.8)


def main():
    """Print what is said of both."""
    for mine in (right, estimator):
        report = verify(mine, problem=game, theta=np.array([0.3, -0.2]), horizon=4)
        print(report.headline)
        print(report.explanation)


if __name__ == "__main__":
    main()
