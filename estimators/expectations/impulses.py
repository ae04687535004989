"""Expected factors of guiding terms: how much each state and action weighs, by the law of the state over time.

Guiding terms of the form `Σ_t w_t B̂_t h(s_t, a_t)`, with a function h of the visited pair whose mean over the policy is
zero, have the expectation `Σ_{s,a} U(s,a) h(s,a)` with

    U(s,a) = Σ_t w_t Pr(s_t = s) π(a|s) E[B̂_t | s_t = s, a_t = a].                                                  (1)

Because h is centred, any part of B̂ that does not depend on the action drops out.
"""

from __future__ import annotations

import numpy as np

from bilevelrl.estimators.critics.tables import ExactCritic
from bilevelrl.estimators.estimator import Context
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular import DiscountedSystem, policy_transition

__all__ = ["expected_impulses", "reaches_target"]


def reaches_target(estimator: AlongTrajectories) -> bool:
    """Whether leader's values are the target's, on trajectories that see its horizon or stop at geometric times."""
    if estimator.stopping is not None:
        return estimator.critic in ("exact", "independent")
    return estimator.target.horizon is not None and estimator.critic in (
        "exact_truncated",
        "independent",
        "monte_carlo",
    )


def expected_impulses(
    estimator: AlongTrajectories, context: Context, *, horizon: int, first_step_only: bool = False
) -> FloatArray:
    """Return U (S, A) for streams of `horizon` steps, up to terms that do not depend on the action.

    Parameters
    ----------
    estimator
        Whose target, critic and stopping.
    context
        Problem, follower, critic and simulator.
    horizon
        Steps of every stream, one episode each. Not used with geometric stopping.
    first_step_only
        Only t = 0 counts.
    """
    problem, theta = context.problem, context.theta
    simulator = context.simulator if context.simulator is not None else TabularSimulator()
    policy, kernel = context.follower.policy, simulator.kernel(problem, theta)
    chain, law = policy_transition(kernel, policy), np.asarray(simulator.start_law(problem, theta), dtype=np.float64)
    state, action = np.indices(policy.shape)
    discount, limit = estimator.target.discount(problem.discount_leader), estimator.target.horizon
    observed = horizon if simulator.step_limit is None else min(horizon, simulator.step_limit)
    critic = estimator.leader_critic(context)
    if estimator.critic in ("independent", "monte_carlo"):
        # What such returns are on average: values of the process that makes the samples, to where they are cut.
        cut = limit
        if estimator.critic == "monte_carlo":
            cut = observed if limit is None else min(observed, limit)
        critic = ExactCritic.solve(
            problem, theta, policy, horizon=cut, discounted=estimator.target.discounted, transition=kernel
        )
        limit = cut
    if estimator.stopping is not None:
        if not first_step_only:
            law = DiscountedSystem.factorise(chain, discount).solve_transposed(law)
        stopped: FloatArray = law[:, None] * policy * critic.action_value(state, action, steps_to_go=None)
        return stopped
    total = np.zeros(policy.shape)
    for t in range(1 if first_step_only else observed):
        if estimator.target.horizon is not None and t >= estimator.target.horizon:
            break
        to_go = None if limit is None else max(limit - t, 0)
        total += discount**t * law[:, None] * policy * critic.action_value(state, action, steps_to_go=to_go)  # (1)
        law = np.asarray(chain.T @ law)
    return total
