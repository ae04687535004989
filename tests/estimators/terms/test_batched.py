"""A batch of seeds gives the numbers of seed after seed, for the same random numbers."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import Context, sample_trajectories
from bilevelrl.estimators.critics.tables import ExactCritic, TableCritic
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.reference import named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, ShapeError, UnsupportedError
from bilevelrl.reference.tabular.leader import leader_action_values
from bilevelrl.tasks import four_rooms, grid_rooms, random_mdp

SEEDS, STREAMS, STEPS = 4, 3, 30
REWARDS = ("reward_follower", "reward_leader", "regulariser")


def random_rewards():
    return random_mdp(states=6, actions=3, parameters=4, seed=3, theta_in=REWARDS)


def thetas_of(problem, parameters):
    return named_stream(0, "batched", problem.name).standard_normal((SEEDS, parameters))


class Recording(np.random.Generator):
    """Keeps every array of uniform numbers that it hands out."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))
        self.drawn = []

    def random(self, size=None):
        self.drawn.append(super().random(size))
        return self.drawn[-1]


class Replaying(np.random.Generator):
    """Hands out what one seed's streams got from a recording."""

    def __init__(self, drawn, seed):
        super().__init__(np.random.PCG64(0))
        self.drawn = iter([array[..., seed * STREAMS : (seed + 1) * STREAMS] for array in drawn])

    def random(self, size=None):
        found = next(self.drawn)
        assert found.shape == tuple(np.atleast_1d(size))
        return found


def seed_after_seed(problem, thetas, drawn, estimator):
    """The single-seed path, everything solved and drawn anew."""
    rows = []
    for seed, theta in enumerate(thetas):
        follower = solve_follower(problem, theta)
        batch = sample_trajectories(problem, theta, follower, streams=STREAMS, steps=STEPS, rng=Replaying(drawn, seed))
        rows.append(estimator.estimate(batch, Context(problem=problem, theta=theta, follower=follower)))
    return rows


def estimate_tolerance(problem, thetas, tolerance):
    """How far two estimates may be apart whose followers are known to `tolerance`.

    Every π(a|s) has relative error ε = 2 δ/β, so |δV_L| ≤ ε max|B|/(1-γ_L) and |δB| ≤ 2 |δV_L| + ε max|B|; the estimate
    sums B/β with weights γ_L^t γ_F^(k-t) on derivatives of the follower's reward.
    """
    worst = 0.0
    for theta in thetas:
        follower = solve_follower(problem, theta)
        benefit = np.abs(
            leader_action_values(problem.tables_at(theta), follower.policy, problem.discount_leader)[2]
        ).max()
        scale = max(1.0, np.abs(follower.action_value).max())
        known = tolerance * scale + follower.error_bound
        relative = 2.0 * known / problem.temperature
        off = (2.0 * relative / (1.0 - problem.discount_leader) + relative) * benefit
        slope = np.abs(problem.jacobian(theta)["reward_follower"]).max()
        weights = 1.0 / ((1.0 - problem.discount_leader) * (1.0 - problem.discount_follower))
        worst = max(worst, off / problem.temperature * weights * slope)
    return worst


@pytest.mark.exact
@pytest.mark.parametrize("tolerance", [1e-10, 1e-12])
def test_followers_are_those_of_single_seeds_within_the_tolerance(tolerance):
    problem = four_rooms(temperature=0.003)
    thetas = thetas_of(problem, 105)
    first = SeedBatch.solve(problem, thetas, tolerance=tolerance)
    moved = SeedBatch.solve(problem, thetas + 0.1, tolerance=tolerance, warm_start=SeedBatch.solve(problem, thetas))
    for batch, shift in ((first, 0.0), (moved, 0.1)):
        for seed, theta in enumerate(thetas + shift):
            single = solve_follower(problem, theta)
            scale = max(1.0, np.abs(single.action_value).max())
            allowed = tolerance * scale + single.error_bound
            assert np.abs(batch.value[seed] - single.value).max() <= allowed
            assert np.abs(batch.policy[seed] / single.policy - 1.0).max() <= np.expm1(2.0 * allowed / 0.003)
            assert np.abs(batch.value[seed] - batch.value[seed - 1]).max() > 100.0 * allowed


@pytest.mark.exact
def test_estimates_equal_seed_after_seed_for_the_same_random_numbers():
    problem = random_rewards()
    thetas = thetas_of(problem, 4)
    rng = Recording(1)
    batch = SeedBatch.solve(problem, thetas, tolerance=1e-13)
    trajectories = batch.sample(streams=STREAMS, steps=STEPS, rng=rng)
    together = batch.estimate(BCHG(critic="context"), trajectories, batch.exact_critic())
    alone = seed_after_seed(problem, thetas, rng.drawn, BCHG(critic="exact"))
    allowed = estimate_tolerance(problem, thetas, 1e-13)
    assert allowed < 1e-6 * np.abs(together.mean).min()
    for seed, single in enumerate(alone):
        assert np.abs(together.mean[seed] - single.mean).max() <= allowed
        for part, value in single.parts.items():
            assert np.abs(together.parts[part][seed] - value).max() <= allowed, part


@pytest.mark.exact
@pytest.mark.parametrize("estimator", [BCHG(critic="context"), NaivePGD(critic="context")])
def test_given_follower_and_critic_nothing_differs(estimator):
    problem = four_rooms(temperature=0.003)
    thetas = thetas_of(problem, 105)
    tables = named_stream(0, "batched", "critic").standard_normal((SEEDS, 104, 4))
    batch = SeedBatch.solve(problem, thetas)
    rng = Recording(2)
    trajectories = batch.sample(streams=STREAMS, steps=STEPS, rng=rng)
    together = batch.estimate(estimator, trajectories, batch.table_critic(tables))
    alone = batch.estimate(estimator, trajectories, batch.table_critic(tables), parts=False)
    assert not alone.parts
    for seed, theta in enumerate(thetas):
        follower = replace(
            solve_follower(problem, theta),
            value=batch.value[seed],
            action_value=batch.action_value[seed],
            policy=batch.policy[seed],
        )
        own = sample_trajectories(
            problem, theta, follower, streams=STREAMS, steps=STEPS, rng=Replaying(rng.drawn, seed)
        )
        theirs = trajectories.select(slice(seed * STREAMS, (seed + 1) * STREAMS))
        for name in ("state_t", "action_t", "state_tp1", "reward_leader_t", "terminated", "truncated", "valid"):
            np.testing.assert_array_equal(getattr(own, name), getattr(theirs, name), err_msg=name)
        critic = TableCritic(action_values=tables[seed], policy=batch.policy[seed])
        single = estimator.estimate(own, Context(problem=problem, theta=theta, follower=follower, critic=critic))
        np.testing.assert_array_equal(together.mean[seed], single.mean)
        assert np.abs(alone.mean[seed] - single.mean).max() <= 1e-14 * np.abs(single.mean).max()


@pytest.mark.exact
@pytest.mark.parametrize("planted", ["policy", "value", "rewards_leader"])
def test_numbers_of_another_seed_are_noticed(planted):
    problem = random_rewards()
    thetas = thetas_of(problem, 4)
    batch = SeedBatch.solve(problem, thetas, tolerance=1e-13)
    wrong = replace(batch, **{planted: np.roll(getattr(batch, planted), 1, axis=0)})

    def mean(seeds):
        trajectories = seeds.sample(streams=STREAMS, steps=STEPS, rng=Recording(1))
        return seeds.estimate(BCHG(critic="context"), trajectories, seeds.exact_critic()).mean

    right = mean(batch)
    difference = np.abs(mean(wrong) - right).max()
    if planted == "value":
        # θ does not enter the dynamics, so the follower's values weigh no score: nothing may change.
        assert difference == 0.0
    else:
        assert difference > 1e3 * estimate_tolerance(problem, thetas, 1e-13)


@pytest.mark.exact
def test_what_a_batch_of_seeds_refuses():
    rng = named_stream(0, "batched", "refusals")
    problem = random_rewards()
    batch = SeedBatch.solve(problem, thetas_of(problem, 4))
    trajectories = batch.sample(streams=STREAMS, steps=STEPS, rng=rng)
    critic = batch.exact_critic()
    with pytest.raises(ShapeError, match="pass at least one"):
        SeedBatch.solve(problem, np.zeros((0, 4)))
    with pytest.raises(UnsupportedError, match="transition"):
        SeedBatch.solve(random_mdp(states=4, actions=2, parameters=3, seed=0), np.zeros((2, 3)))
    sparse = grid_rooms(rooms_per_side=1, room_size=3)
    with pytest.raises(UnsupportedError, match="dense kernel"):
        SeedBatch.solve(sparse, np.zeros((2, *sparse.theta_shape)))
    with pytest.raises(UnsupportedError, match="reads its critic from the context"):
        batch.estimate(BCHG(critic="exact"), trajectories, critic)
    with pytest.raises(ShapeError, match="a multiple of 4 seeds"):
        batch.estimate(BCHG(critic="context"), trajectories.select(slice(0, 5)), critic)
    broken = ExactCritic(action_values=critic.action_values * np.nan, values=critic.values)
    with pytest.raises(EstimatorError, match="seed 0 is not finite"):
        batch.estimate(BCHG(critic="context"), trajectories, broken)
