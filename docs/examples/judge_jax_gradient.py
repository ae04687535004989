"""Judge a hypergradient and an estimator that are written in JAX.

Nothing here is adapted to `bilevelrl`: the scenario is read as plain arrays, the gradient is JAX's own, and what comes
back is a JAX array. Run with `pip install 'bilevelrl[jax]'`; on the CPU it takes a few seconds.

The scenario "a parameter per pair" adds θ to both players' rewards, one parameter per state and action, so the whole
problem fits in four lines of JAX.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bilevelrl.tasks import scenario
from bilevelrl.tasks.exporting import scenario_arrays
from bilevelrl.verification.testing.assertions import assert_matches_truth
from bilevelrl.verification.testing.failures import CheckFailedError
from bilevelrl.verification.testing.judge import judge_draws

jax.config.update("jax_enable_x64", True)

AT = scenario("a parameter per pair")
ARRAYS = {name: jnp.asarray(value) for name, value in scenario_arrays(AT).items() if name != "name"}
SWEEPS = 3  # every path ends within three steps, so three sweeps reach the fixed point


def rewards(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both players' rewards at another θ: linear in it."""
    move = theta - ARRAYS["theta"]
    return (
        ARRAYS["reward_follower"] + ARRAYS["jacobian_reward_follower"] @ move,
        ARRAYS["reward_leader"] + ARRAYS["jacobian_reward_leader"] @ move,
    )


def leader_objective(theta: jax.Array) -> jax.Array:
    """The leader's return under the follower's soft best response, unrolled."""
    reward_follower, reward_leader = rewards(theta)
    temperature = ARRAYS["temperature"]
    value = jnp.zeros(reward_follower.shape[0])
    for _ in range(SWEEPS):
        action_value = reward_follower + ARRAYS["discount_follower"] * ARRAYS["transition"] @ value
        value = temperature * jax.nn.logsumexp(action_value / temperature, axis=1)
    policy = jax.nn.softmax(action_value / temperature, axis=1)
    chain = jnp.einsum("sa,sap->sp", policy, ARRAYS["transition"])
    system = jnp.eye(value.size) - ARRAYS["discount_leader"] * chain
    return ARRAYS["initial"] @ jnp.linalg.solve(system, (policy * reward_leader).sum(axis=1))


def frozen_follower_objective(theta: jax.Array) -> jax.Array:
    """The same with a planted mistake: the follower is not differentiated through."""
    _, reward_leader = rewards(theta)
    policy = jax.lax.stop_gradient(ARRAYS["follower_policy"])
    chain = jnp.einsum("sa,sap->sp", policy, ARRAYS["transition"])
    system = jnp.eye(chain.shape[0]) - ARRAYS["discount_leader"] * chain
    return ARRAYS["initial"] @ jnp.linalg.solve(system, (policy * reward_leader).sum(axis=1))


def evolution_strategies(
    objective: Callable[[jax.Array], jax.Array], key: jax.Array, count: int, radius: float = 0.05
) -> jax.Array:
    """Antithetic evolution strategies: (count, N) independent estimates, biased by O(radius²) only."""
    directions = jax.random.normal(key, (count, AT.theta.size))
    step = jax.vmap(lambda u: objective(ARRAYS["theta"] + radius * u))
    return (step(directions) - step(-directions))[:, None] / (2 * radius) * directions


def main() -> None:
    """Judge the right gradient, the wrong one, and an estimator."""
    assert_matches_truth(jax.grad(leader_objective)(ARRAYS["theta"]), AT)
    print("jax.grad through the unrolled follower: agrees with the stored truth")
    try:
        assert_matches_truth(jax.grad(frozen_follower_objective)(ARRAYS["theta"]), AT)
    except CheckFailedError as failed:
        print(f"jax.grad with a frozen follower:\n{failed}")
    for objective in (leader_objective, frozen_follower_objective):
        draws = evolution_strategies(objective, jax.random.PRNGKey(0), 50_000)
        print(f"evolution strategies on {objective.__name__}:\n{judge_draws(draws, AT)}")


if __name__ == "__main__":
    main()
