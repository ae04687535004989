"""SoBiRL's synthetic problem: the smallest policy that a random MDP can be led to, at the price of ‖x‖.

|S| = 10, |A| = 5, x ∈ R^100, γ = 1/2, β = 1; rewards `r(s,a;x) = c(s,a) xᵀMx` with c the product of two uniforms and M
standard normal, transitions to between one and nine successors with uniform weights, normalised. The leader minimises
`‖x‖²/2 + ‖π‖_F²/2`: here it maximises the negative, which occupancy and leader's reward have no part in. The published
run starts at x ~ N(0, I) and descends with step .008 for 3,000 iterations. Its MDP cannot be made again: random numbers
are seeded after it is drawn.

Reference: Yang et al. (2025), arXiv:2405.19697, and its released code.
"""

from __future__ import annotations

from collections.abc import Mapping

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference import ConfigurableMDP, Tables, named_stream
from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.doors import Count, Discount, Seed, checked
from bilevelrl.reference.general_objective import GeneralObjective
from bilevelrl.reference.storage import remade

__all__ = ["policy_norm", "policy_norm_start"]


@remade
@checked
def policy_norm(
    *,
    states: Count = 10,
    actions: Count = 5,
    parameters: Count = 100,
    seed: Seed = 0,
    temperature: float = 1.0,
    discount: Discount = 0.5,
) -> GeneralObjective:
    """Return SoBiRL's synthetic problem for one seed.

    Parameters
    ----------
    states, actions, parameters
        S, A and N.
    seed
        Root entropy of its tables.
    temperature, discount
        β, and γ of both players.

    Examples
    --------
    >>> from bilevelrl.reference import hypergradient
    >>> problem, x = policy_norm(), policy_norm_start()
    >>> exact = hypergradient(problem, x)
    >>> x.shape, exact.objective < -0.5 * float(x @ x) - 1.0
    ((100,), True)
    """
    rng = named_stream(seed, "policy norm", f"{states}x{actions}x{parameters}")
    kernel = np.zeros((states, actions, states))
    for row in kernel.reshape(-1, states):
        reached = rng.choice(states, size=rng.integers(1, max(2, states)), replace=False)
        weights = rng.random(reached.size)
        row[reached] = weights / weights.sum()
    scale = rng.random((states, actions)) * rng.random((states, actions))
    form = rng.standard_normal((parameters, parameters))
    symmetric = form + form.T
    still, law = np.zeros((states, actions)), np.full(states, 1.0 / states)
    for array in (kernel, still, law):
        array.setflags(write=False)

    def tables(x: Traced) -> Tables:
        return Tables(
            transition=kernel,
            reward_follower=scale * anp.dot(x, anp.dot(form, x)),
            reward_leader=still,
            initial=law,
        )

    def tables_pullback(x: FloatArray, cotangents: Mapping[str, FloatArray]) -> FloatArray:
        result: FloatArray = np.sum(scale * cotangents["reward_follower"]) * (symmetric @ x)
        return result

    def objective(x: Traced, policy: Traced, occupancy: Traced) -> Traced:
        return -0.5 * anp.sum(x**2) - 0.5 * anp.sum(policy**2)

    def cotangents(x: FloatArray, policy: FloatArray, occupancy: FloatArray) -> dict[str, FloatArray]:
        return {"theta": -x, "policy": -policy}

    return GeneralObjective(
        process=ConfigurableMDP(
            tables=tables,
            discount_leader=discount,
            discount_follower=discount,
            temperature=temperature,
            theta_shape=(parameters,),
            tables_pullback=tables_pullback,
        ),
        objective=objective,
        cotangents=cotangents,
        name=f"policy_norm(seed={seed})",
    )


@checked
def policy_norm_start(*, parameters: Count = 100, seed: Seed = 0) -> FloatArray:
    """Return where the published run starts: x ~ N(0, I), (N,).

    Examples
    --------
    >>> policy_norm_start(parameters=3).shape
    (3,)
    """
    return named_stream(seed, "policy norm", "start").standard_normal(parameters)
