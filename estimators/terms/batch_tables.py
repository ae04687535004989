"""Guiding terms from averages over the visits of states and pairs inside a batch, as experiments compute them.

With R and G the sums of the leader's rewards and of the follower's derivatives from a step to the end of its episode,
and Ĝ_Q(s,a), Ĝ_V(s), R̂_Q(s,a), R̂_V(s) their plain averages over all visits in a batch (0 where there is none), it is

    (1/(β D)) Σ_{visits} γ_L^t B̂(s_t,a_t) [ Ĝ_Q(s_t,a_t) - Ĝ_V(s_t) ].                                              (1)

Swapped, each visit j of the batch that supplied the averages carries U(s_j,a_j)/n(s_j,a_j) - U(s_j)/n(s_j), where U
sums the factors of the visits that use the pair or the state and n counts visits; a forward trace then spreads that
over the rest of the episode. Ratios of sums: biased at any finite batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bilevelrl.estimators.estimator import Context, Contribution
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.sums.traces import backward_sum, forward_trace
from bilevelrl.estimators.terms.fresh_suffixes import weighted_steps
from bilevelrl.estimators.terms.tabular import Scores
from bilevelrl.reference.arrays import FloatArray, IntArray

__all__ = ["averaged_guiding_term", "monte_carlo_benefit", "visit_indices"]

# Both differences are of an average over a pair's visits and one over a state's.
KINDS = {"pair": 1.0, "state": -1.0}


def visit_indices(trajectories: Trajectories, actions: int) -> dict[str, IntArray]:
    """Return (streams, steps) numbers of the visited pairs and states."""
    state = np.asarray(trajectories.state_t)
    return {"pair": state * actions + np.asarray(trajectories.action_t), "state": state}


def _sums(values: FloatArray, index: IntArray, trajectories: Trajectories, size: int) -> FloatArray:
    seen = trajectories.valid
    totals: FloatArray = np.bincount(index[seen], weights=values[seen], minlength=size).astype(np.float64)
    return totals


def _sizes(context: Context) -> Mapping[str, int]:
    states, actions = context.follower.policy.shape
    return {"pair": states * actions, "state": states}


def monte_carlo_benefit(visits: Trajectories, source: Trajectories, context: Context) -> FloatArray:
    """Return R̂_Q(s_t,a_t) - R̂_V(s_t) at each visit, averages of returns in `source`; 0 where `source` has none.

    R̂_V averages over visits of the state, not over the policy.
    """
    actions = context.follower.policy.shape[1]
    returns = backward_sum(source, source.reward_leader_t, context.problem.discount_leader)
    wanted, given, sizes = visit_indices(visits, actions), visit_indices(source, actions), _sizes(context)
    benefit = np.zeros(np.shape(visits.reward_leader_t))
    for kind, sign in KINDS.items():
        total = _sums(returns, given[kind], source, sizes[kind])
        count = _sums(np.ones_like(returns), given[kind], source, sizes[kind])
        benefit += sign * (total / np.maximum(count, 1.0))[wanted[kind]]
    return benefit


def averaged_guiding_term(
    visits: Trajectories, factors: FloatArray, source: Trajectories, context: Context, scores: Scores = "value"
) -> Contribution:
    """Return Σ_{visits} factor [Ĝ_Q(s_t,a_t) - Ĝ_V(s_t)] as weights on the transitions of `source`.

    Parameters
    ----------
    visits, factors
        The visited steps and their scalar factors (streams, steps), 1/β included.
    source
        The batch whose visits are averaged: the same, or an extra one.
    scores
        As in `weighted_steps`.
    """
    actions = context.follower.policy.shape[1]
    wanted, given, sizes = visit_indices(visits, actions), visit_indices(source, actions), _sizes(context)
    impulses = np.zeros(np.shape(source.reward_leader_t))
    for kind, sign in KINDS.items():
        used = _sums(factors, wanted[kind], visits, sizes[kind])
        count = _sums(np.ones_like(impulses), given[kind], source, sizes[kind])
        impulses += sign * (used / np.maximum(count, 1.0))[given[kind]]
    trace = forward_trace(source, impulses, context.problem.discount_follower)  # (1)
    return Contribution(part="response", batch=source, weights=weighted_steps(context, source, trace, scores))
