"""BC-HG and Naive-PGD as experiments run them, against tables filled visit by visit; own randomness given the path."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from bilevelrl.estimators import (
    BCHG,
    ESTIMATORS,
    Claim,
    Context,
    Draw,
    ExactCritic,
    NaivePGD,
    Objective,
    TableCritic,
    TabularSimulator,
    Trajectories,
    sample_trajectories,
)
from bilevelrl.reference import ConfigurableMDP, named_stream, solve_follower
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.tasks import four_rooms, initial_theta, layered_mdp, random_mdp

pytestmark = pytest.mark.exact

PRACTICAL: dict[str, Any] = {
    "critic": "context",
    "normalisation": "episodes",
    "leader_average": "start_visits",
    "guiding_average": "pairs",
}


def batch_tables(batch: Trajectories, context: Context) -> tuple[Any, Any]:
    """The published direction, written as its tables: (leader's terms, guiding term).

    G_t, H_t are sums of ∇r_F, ∇r_L (and scores) to the end of the episode or of the stream; tables are plain averages
    over all visits of the batch.
    """
    problem, theta, follower, critic = context.problem, context.theta, context.follower, context.critic
    assert critic is not None
    tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)
    zero = np.zeros(theta.size)

    def score(s: int, a: int, s2: int) -> Any:
        if "transition" not in jacobian:
            return zero
        if s2 == tables.states:
            return -jacobian["transition"][s, a].sum(axis=0) / (1.0 - tables.transition[s, a].sum())
        return jacobian["transition"][s, a, s2] / tables.transition[s, a, s2]

    follower_sums, leader_sums = defaultdict(list), defaultdict(list)
    starts, initial = [], []
    for m in range(batch.streams):
        ahead_follower, ahead_leader = zero, zero
        for t in reversed(range(batch.steps)):
            s, a, s2 = int(batch.state_t[m, t]), int(batch.action_t[m, t]), int(batch.state_tp1[m, t])
            if batch.terminated[m, t] or batch.truncated[m, t]:
                ahead_follower, ahead_leader = zero, zero
            value = 0.0 if s2 == tables.states else follower.value[s2]
            ahead_follower = (
                jacobian["reward_follower"][s, a]
                + problem.discount_follower * value * score(s, a, s2)
                + problem.discount_follower * ahead_follower
            )
            ahead_leader = (
                jacobian["reward_leader"][s, a]
                + problem.discount_leader * critic.value(s2) * score(s, a, s2)
                + problem.discount_leader * ahead_leader
            )
            follower_sums[s, a].append(ahead_follower)
            leader_sums[s].append(ahead_leader)
            if batch.time_in_episode[m, t] == 0:
                starts.append(s)
                if "initial" in jacobian:
                    initial.append(critic.value(s) * jacobian["initial"][s] / tables.initial[s])
    first = np.mean([np.mean(leader_sums[s], axis=0) for s in starts], axis=0)
    first = first + (np.mean(initial, axis=0) if initial else zero)
    done = int((batch.terminated | batch.truncated).sum())
    third = zero
    for m in range(batch.streams):
        for t in range(batch.steps):
            s, a = int(batch.state_t[m, t]), int(batch.action_t[m, t])
            benefit = critic.action_value(s, a) - critic.value(s)
            power = problem.discount_leader ** int(batch.time_in_episode[m, t])
            third = third + power * benefit * np.mean(follower_sums[s, a], axis=0)
    return first, third / (problem.temperature * max(done, 1))


def practical_case(kind: str) -> tuple[Trajectories, Context]:
    problem: ConfigurableMDP
    if kind == "four rooms":
        problem, theta = four_rooms(temperature=0.005), initial_theta(named_stream(0, "theta"))
        streams, steps, limit = 2, 200, 60
    else:
        problem = random_mdp(seed=4, termination=0.15 if kind == "terminating" else 0.0)
        theta, streams, steps, limit = np.array([0.3, -0.2, 0.5]), 3, 25, 6
        if kind == "nothing finishes":
            limit = 26
    follower = solve_follower(problem, theta)
    noise = named_stream(1, "critic", kind).standard_normal(follower.policy.shape)
    critic = TableCritic(action_values=noise, policy=follower.policy)
    simulator = TabularSimulator(single_episode=False, step_limit=limit)
    batch = sample_trajectories(
        problem, theta, follower, streams=streams, steps=steps, rng=named_stream(2, kind), simulator=simulator
    )
    return batch, Context(problem=problem, theta=theta, follower=follower, critic=critic, simulator=simulator)


@pytest.mark.parametrize("kind", ["four rooms", "terminating", "going on", "nothing finishes"])
def test_practical_estimates_are_the_published_batch_tables(kind: str) -> None:
    batch, context = practical_case(kind)
    first, third = batch_tables(batch, context)
    regulariser = context.problem.regulariser_gradient(context.theta)
    estimator = BCHG(**PRACTICAL)
    assert (estimator.draw, estimator.claim) == (Draw.BATCH, Claim.MEASURED)
    ours = estimator.estimate(batch, context)
    # Sums over at most 400 steps of terms of the size of the largest.
    scale = np.abs(first).max() + np.abs(third).max()
    np.testing.assert_allclose(ours.parts["response"], third, rtol=0.0, atol=1e-12 * scale)
    np.testing.assert_allclose(ours.mean - ours.parts["response"], first + regulariser, rtol=0.0, atol=1e-12 * scale)
    naive = NaivePGD(critic="context", normalisation="episodes", leader_average="start_visits")
    np.testing.assert_allclose(naive.estimate(batch, context).mean, first + regulariser, rtol=0.0, atol=1e-12 * scale)
    assert estimator(batch, context).shape == (1, context.theta.size)
    np.testing.assert_allclose(estimator(batch, context)[0], ours.mean, rtol=0.0, atol=1e-12 * scale)
    assert (kind == "nothing finishes") == (not (batch.terminated | batch.truncated).any())
    # Averaging over visits is not what the plain suffix gives: the comparison can tell them apart.
    plain = BCHG(**{**PRACTICAL, "guiding_average": "trajectory"}).estimate(batch, context)
    assert np.abs(plain.parts["response"] - third).max() > 1e-6 * np.abs(third).max()


def test_division_by_finished_episodes_is_a_factor_per_batch() -> None:
    batch, context = practical_case("terminating")
    finished = batch.count_in_batch(batch.valid & (batch.terminated | batch.truncated))
    by_episodes = BCHG(critic="context", normalisation="episodes")
    assert finished != batch.streams
    assert by_episodes.scale(batch) == 1.0 / finished
    with pytest.raises(UnsupportedError, match="several episodes in one stream"):
        BCHG(critic="context").estimate(batch, context)


def test_a_batch_of_one_plain_episode_has_nothing_to_average() -> None:
    """One finished episode that visits no state twice: averages and ratios are the plain sums."""
    problem, theta = layered_mdp(seed=2), np.array([0.3, -0.2, 0.5])
    follower = solve_follower(problem, theta)
    exact = ExactCritic.solve(problem, theta, follower.policy)
    context = Context(problem=problem, theta=theta, follower=follower, critic=exact)
    batch = sample_trajectories(problem, theta, follower, streams=1, steps=3, rng=named_stream(0, "one"))
    np.testing.assert_allclose(
        BCHG(**PRACTICAL).estimate(batch, context).mean, BCHG().estimate(batch, context).mean, rtol=0.0, atol=1e-13
    )


# --- fresh suffixes given the path ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Objective(), Objective(horizon=3)])
def test_fresh_suffixes_given_the_path_have_the_mean_of_the_exact_critic(target: Objective) -> None:
    problem, theta = layered_mdp(seed=3), np.array([0.3, -0.2, 0.5])
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    batch = sample_trajectories(problem, theta, context.follower, streams=5, steps=3, rng=named_stream(0, "paths"))
    mean, covariance = BCHG(critic="independent", target=target).conditional_moments(batch, context)
    exact = BCHG(critic="exact" if target.horizon is None else "exact_truncated", target=target)(batch, context)
    np.testing.assert_allclose(mean, exact, rtol=0.0, atol=1e-12 * np.abs(exact).max())
    assert covariance.shape == (5, 3, 3)
    assert (np.linalg.eigvalsh(covariance) > -1e-12 * np.abs(covariance).max()).all()
    assert np.abs(covariance).max() > 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize("target", [Objective(), Objective(horizon=3)])
def test_fresh_suffixes_given_the_path_spread_as_computed(target: Objective) -> None:
    problem, theta = random_mdp(seed=3, discount_leader=0.6), np.array([0.3, -0.2, 0.5])
    follower = solve_follower(problem, theta)
    path = sample_trajectories(problem, theta, follower, streams=1, steps=3, rng=named_stream(0, "path"))
    replicates = 20_000
    context = Context(problem=problem, theta=theta, follower=follower, rng=named_stream(0, "fresh", str(target)))
    estimator = BCHG(critic="independent", target=target)
    mean, covariance = estimator.conditional_moments(path, context)
    rows = estimator(path.select(np.zeros(replicates, dtype=np.int64)), context)
    deviation = np.sqrt(np.diagonal(covariance[0]))
    # Six checks at 5.5 standard errors, kurtosis read from the sample: false alarm below 3e-7.
    assert (np.abs(rows.mean(axis=0) - mean[0]) < 5.5 * deviation / np.sqrt(replicates)).all()
    taken = estimator.estimate(path, context).cost["oracle_steps"]
    # Three visits: 1 / (1 - γ_L) steps each, or what is left of the horizon.
    assert taken in ((7, 8) if target.horizon is None else (3 + 2 + 1,))
    squares = (rows - mean[0]) ** 2
    error = squares.std(axis=0, ddof=1) / np.sqrt(replicates)
    assert (np.abs(squares.mean(axis=0) - deviation**2) < 5.5 * error).all()
    assert (5.5 * error < 0.15 * deviation**2).all()  # a variance off by 15 per cent is seen


# --- registration -----------------------------------------------------------------------------------------------------


def test_registered_configurations_say_what_they_are() -> None:
    for name in ("bc_hg", "bc_hg_td", "bc_hg_independent"):
        assert ESTIMATORS[name].make(Objective()).claim is Claim.UNBIASED
        assert ESTIMATORS[name].make(Objective(horizon=5)).claim is Claim.DECLARED
    for name in ("bc_hg_geometric", "bc_hg_geometric_single"):
        assert ESTIMATORS[name].make(Objective(horizon=5)).target == Objective()
        assert ESTIMATORS[name].make(Objective()).claim is Claim.UNBIASED
    for name in ("bc_hg_monte_carlo", "naive_pgd"):
        assert ESTIMATORS[name].make(Objective()).claim is Claim.DECLARED
    for name in ("bc_hg_practical", "naive_pgd_practical"):
        assert ESTIMATORS[name].level == "practical"
        assert ESTIMATORS[name].make(Objective()).claim is Claim.MEASURED
