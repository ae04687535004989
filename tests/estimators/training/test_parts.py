"""What the training loop is made of: batched truth, followers, optimisers, checkpoints, estimates of many runs."""

import errno
import os
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators import Context
from bilevelrl.estimators.followers import (
    ExactFollower,
    SharedDynamics,
    SoftQLearning,
    SweepingFollower,
    batch_hypergradients,
    batch_objectives,
    solving,
)
from bilevelrl.estimators.sampling.draws import kernel_draws
from bilevelrl.estimators.sums import clip_to_norm
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.estimators.training import (
    METHODS,
    SCHEDULES,
    SGD,
    Adam,
    make_optimiser,
    published_simulator,
)
from bilevelrl.estimators.training.checkpoints import load_checkpoint, save_checkpoint
from bilevelrl.reference import ConfigurableMDP, Tables, hypergradient, leader_objective, named_stream, solve_follower
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, StorageError, UnknownNameError
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks import four_rooms, random_mdp

REWARDS = ("reward_follower", "reward_leader", "regulariser")


def problems():
    small = random_mdp(states=6, actions=3, parameters=4, seed=3, theta_in=REWARDS)
    apart = replace(small, discount_leader=0.7, discount_follower=0.9)
    return {"four rooms": four_rooms(temperature=0.003), "random": small, "two discounts": apart}


def thetas_of(problem, runs=3, scale=0.3):
    return scale * named_stream(1, "training parts", problem.name).standard_normal((runs, *problem.theta_shape))


def answered(problem, thetas, **options):
    dynamics = SharedDynamics(problem, thetas[0])
    played, carried = ExactFollower(**options).respond(dynamics, dynamics.rewards(thetas), {})
    return dynamics, played, carried


@pytest.mark.exact
@pytest.mark.parametrize("name", ["four rooms", "random", "two discounts"])
def test_objectives_and_hypergradients_of_a_batch_are_the_exact_ones(name):
    problem = problems()[name]
    thetas = thetas_of(problem)
    dynamics, played, _ = answered(problem, thetas, tolerance=1e-13)
    found, objectives = batch_hypergradients(dynamics, played), batch_objectives(dynamics, played)
    wrong = batch_hypergradients(dynamics, replace(played, policy=np.roll(played.policy, 1, axis=0)))
    for run, theta in enumerate(thetas):
        exact = hypergradient(problem, theta)
        # Both are solved to rounding; the bound knows what that leaves of the hypergradient.
        allowed = 10.0 * exact.error_bound
        assert allowed < 1e-4 * np.abs(exact.value).max()
        assert np.abs(found[run] - exact.value).max() <= allowed
        assert objectives[run] == pytest.approx(leader_objective(problem, theta), rel=1e-11)
        assert np.abs(wrong[run] - exact.value).max() > allowed


@pytest.mark.exact
@pytest.mark.parametrize("tolerance", [1e-6, 1e-9, 1e-12])
def test_exact_followers_keep_their_tolerance_from_an_old_inverse(tolerance):
    problem = four_rooms(temperature=0.003)
    thetas = thetas_of(problem)
    dynamics, _, carried = answered(problem, thetas, tolerance=tolerance)
    inverses = {carried["inverse"].tobytes()}
    for step in range(1, 4):
        moved = thetas + 0.3 * step
        moved[0] -= 2.0 * thetas[0]
        rewards = dynamics.rewards(moved)
        played, carried = ExactFollower(tolerance=tolerance).respond(dynamics, rewards, carried)
        inverses.add(carried["inverse"].tobytes())
        for run, theta in enumerate(moved):
            single = solve_follower(problem, theta)
            allowed = tolerance * np.maximum(problem.temperature, np.abs(single.value)) + single.error_bound
            assert (np.abs(played.value[run] - single.value) <= allowed).all()
    assert len(inverses) < 4  # an old inverse was used at least once
    with pytest.raises(NotConvergedError, match="run 0"):
        answered(problem, thetas, max_iterations=1)
    with pytest.raises(InvalidInputError, match="tolerance"):
        ExactFollower(tolerance=0.0)


def with_something_large(worth, unit):
    """Two states and two actions; a third state that nobody reaches."""

    def tables(theta):
        reward = 0.1 * anp.reshape(theta, (2, 2)) + np.array([[0.3, 0.1], [0.2, 0.4]])
        kernel = np.zeros((3, 2, 3))
        kernel[:2, :, :2] = [[[0.8, 0.2], [0.3, 0.7]], [[0.6, 0.4], [0.1, 0.9]]]
        kernel[2, :, :] = [0.2, 0.2, 0.6]
        return Tables(
            transition=kernel, reward_follower=unit * anp.concatenate([reward, np.full((1, 2), worth)]),
            reward_leader=np.eye(3, 2), initial=np.array([0.5, 0.5, 0.0]),
        )  # fmt: skip

    return ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.99, temperature=0.05 * unit, theta_shape=(4,)
    )


@pytest.mark.exact
@pytest.mark.parametrize(("worth", "unit"), [(1e10, 1.0), (0.0, 1e-11)])
def test_exact_followers_are_not_content_because_something_else_is_large(worth, unit, monkeypatch):
    """The residual was held against the largest value of all states, or 1: here everything is small beside that."""
    thetas = np.array([[0.1, -0.2, 0.3, 0.4], [2.0, -1.0, -2.0, 1.0], [-3.0, 3.0, 1.0, 0.0]])
    problem = with_something_large(worth, unit)

    def furthest():
        dynamics, _, carried = answered(problem, np.zeros((3, 4)))
        played, _ = ExactFollower().respond(dynamics, dynamics.rewards(thetas), carried)
        truths = [solve_follower(problem, theta) for theta in thetas]
        off = [np.abs(played.policy[k, :2, :2] / truth.policy[:2, :2] - 1.0).max() for k, truth in enumerate(truths)]
        # A relative error of 1e-9 of V_F moves log π by twice 1e-9 V_F/β.
        return max(each / np.abs(truth.value[:2]).max() for each, truth in zip(off, truths, strict=True)) * 0.05 * unit

    assert furthest() <= 2e-9

    def largest(backed_up, temperature):
        return np.maximum(1.0, np.abs(backed_up).max(axis=1, keepdims=True))

    monkeypatch.setattr(solving, "state_scale", largest)
    assert furthest() > 1e-6


@pytest.mark.exact
def test_an_early_follower_is_the_published_solver():
    problem = four_rooms(temperature=0.005)
    thetas = thetas_of(problem, runs=2)
    dynamics = SharedDynamics(problem, thetas[0])
    rewards = dynamics.rewards(thetas)
    rule = SweepingFollower(iterations=3, sweeps=2, carry=True, noise=1.0)
    generators = [np.random.default_rng(run) for run in range(2)]
    played, carried = rule.respond(dynamics, rewards, {}, generators)
    again, _ = rule.respond(dynamics, rewards, carried, generators)
    kernel = problem.tables_at(thetas[0]).transition

    def softmax(table):
        weights = np.exp((table - table.max(axis=1, keepdims=True)) / 0.005)
        return weights / weights.sum(axis=1, keepdims=True)

    for run in range(2):
        table = np.random.default_rng(run).standard_normal((104, 4))
        for found in (played, again):
            for _ in range(3):
                policy = softmax(table)
                entropy = -(policy * np.log(policy + 1e-300)).sum(axis=1, keepdims=True)
                for _ in range(2):
                    ahead = kernel @ (policy * table).sum(axis=1)
                    table = rewards.follower[run] + 0.005 * entropy + 0.99 * ahead
            np.testing.assert_allclose(found.policy[run], softmax(table), rtol=1e-9)
    solved, _ = SweepingFollower().respond(dynamics, rewards, {}, [])  # the published 100 times 5 sweeps from zeros
    exact, _ = ExactFollower(tolerance=1e-12).respond(dynamics, rewards, {})
    np.testing.assert_allclose(solved.policy, exact.policy, rtol=1e-8)
    np.testing.assert_allclose(solved.value, exact.value, rtol=0, atol=1e-10)
    np.testing.assert_allclose(solved.action_value, exact.action_value, rtol=0, atol=1e-10)
    assert np.abs(played.policy - exact.policy).max() > 0.1


@pytest.mark.exact
def test_soft_q_learning_is_a_plain_loop_and_comes_closer():
    problem = random_mdp(states=5, actions=2, parameters=3, seed=2, theta_in=REWARDS, termination=0.1)
    thetas = thetas_of(problem, runs=2)
    dynamics = SharedDynamics(problem, thetas[0])
    rewards = dynamics.rewards(thetas)
    rule = SoftQLearning(steps=40, step_size=0.3)
    played, carried = rule.respond(dynamics, rewards, {}, [np.random.default_rng(run) for run in range(2)])
    moves, beta = kernel_draws(dynamics.kernel), problem.temperature
    for run in range(2):
        uniform = np.random.default_rng(run).random((2, 40))
        table = np.zeros((6, 2))
        for k in range(40):
            pair = int(uniform[0, k] * 10)
            successor = int(moves.draw(np.array([pair]), uniform[1, k : k + 1])[0])
            ahead = beta * np.log(np.exp(table[successor] / beta).sum()) if successor < 5 else 0.0
            state, action = divmod(pair, 2)
            target = rewards.follower[run, state, action] + problem.discount_follower * ahead
            table[state, action] += 0.3 * (target - table[state, action])
        np.testing.assert_allclose(carried["table"][run], table[:5], rtol=1e-12, atol=1e-14)
    exact, _ = ExactFollower().respond(dynamics, rewards, {})
    long, _ = SoftQLearning(steps=4000, step_size=0.05).respond(
        dynamics, rewards, {}, [np.random.default_rng(run) for run in range(2)]
    )
    apart = [np.abs(found.policy - exact.policy).max() for found in (played, long)]
    assert apart[1] < 0.5 * apart[0]


@pytest.mark.exact
@pytest.mark.parametrize(
    "method", [name for name, method in METHODS[ConfigurableMDP].items() if method.make is not None]
)
def test_estimates_of_many_runs_are_those_of_each_run_alone(method):
    problem = four_rooms(temperature=0.005, start=(2, 8))
    thetas = thetas_of(problem, runs=3, scale=0.05)
    batch = SeedBatch.solve(problem, thetas)
    rng = named_stream(0, "training parts", method)
    tables = rng.standard_normal((3, 104, 4))
    trajectories = batch.sample(
        streams=2, steps=80, rng=rng.spawn(3), simulator=replace(published_simulator(), step_limit=40)
    )
    estimator = METHODS[ConfigurableMDP][method].make(None)
    simulator = published_simulator(four_rooms(kernel="paper"))

    def own_numbers(run):
        return named_stream(1, "training parts", method, run)  # of an extra batch, where there is one

    rng = [own_numbers(run) for run in range(3)]
    critic = batch.table_critic(tables)
    together = batch.estimate(estimator, trajectories, critic, simulator=simulator, rng=rng).mean
    # Where streams count as one batch, averages and counts are others.
    mixed = replace(trajectories, batch_index=None)
    assert mixed.streams_per_batch == 3 * trajectories.streams_per_batch
    for run, theta in enumerate(thetas):
        own = replace(trajectories.select(slice(2 * run, 2 * run + 2)), batch_index=None)
        follower = replace(
            solve_follower(problem, theta),
            value=batch.value[run],
            action_value=batch.action_value[run],
            policy=batch.policy[run],
        )
        critic = batch.select([run]).table_critic(tables[run : run + 1])
        context = Context(
            problem=problem, theta=theta, follower=follower, critic=critic, simulator=simulator, rng=own_numbers(run)
        )
        alone = estimator.estimate(own, context).mean
        assert np.abs(together[run] - alone).max() <= 1e-13 * np.abs(alone).max()
        assert np.abs(together[run] - together[run - 1]).max() > 1e-3 * np.abs(alone).max()


@pytest.mark.exact
def test_optimisers_are_their_formulas_run_by_run():
    rng = np.random.default_rng(0)
    gradients, rates = rng.standard_normal((5, 3, 4)), np.array([0.1, 0.2, 0.3])
    for optimiser in (SGD(), SGD(momentum=0.9), Adam()):
        state = optimiser.start((3, 4))
        total = np.zeros((3, 4))
        for gradient in gradients:
            step, state = optimiser.step(gradient, rates, state)
            total += step
        for run in range(3):
            for entry in range(4):
                velocity = first = second = expected = 0.0
                for k, g in enumerate(gradients[:, run, entry], start=1):
                    if isinstance(optimiser, SGD):
                        velocity = optimiser.momentum * velocity + g
                        expected += rates[run] * velocity
                        continue
                    first = 0.9 * first + 0.1 * g
                    second = 0.999 * second + 0.001 * g * g
                    spread = np.sqrt(second / (1 - 0.999**k)) + 1e-8
                    expected += rates[run] * first / (1 - 0.9**k) / spread
                assert total[run, entry] == pytest.approx(expected, rel=1e-12)
    clipped = clip_to_norm(np.array([[3.0, 4.0], [0.0, 0.0], [0.1, 0.0]]), 0.5)
    np.testing.assert_allclose(clipped, [[0.3, 0.4], [0.0, 0.0], [0.1, 0.0]], rtol=1e-15)
    np.testing.assert_array_equal(clip_to_norm(gradients[0], np.inf), gradients[0])
    for schedule in SCHEDULES.values():
        factors = [schedule(share) for share in np.linspace(0.0, 0.99, 50)]
        assert factors[0] == 1.0
        assert (np.diff(factors) <= 0.0).all()
        assert min(factors) > 0.0
    with pytest.raises(UnknownNameError, match="did you mean 'adam'"):
        make_optimiser("adan")
    with pytest.raises(InvalidInputError, match="momentum"):
        SGD(momentum=1.0)
    with pytest.raises(InvalidInputError, match="second_decay"):
        Adam(second_decay=-0.1)


def stored(path):
    save_checkpoint(
        path,
        fingerprint="a" * 64,
        iteration=3,
        arrays={"thetas": np.arange(3.0)},
        generators={"0": np.random.default_rng(0)},
    )


@pytest.mark.exact
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    stored(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*earlier results are untouched"):
        stored(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.npz"]
    monkeypatch.undo()
    iteration, arrays, states = load_checkpoint(path, fingerprint="a" * 64)
    assert iteration == 3
    assert list(arrays["thetas"]) == [0.0, 1.0, 2.0]
    assert states["0"] == np.random.default_rng(0).bit_generator.state


@pytest.mark.exact
@pytest.mark.parametrize("kept", [0, 10, 300, -10])
def test_a_half_written_checkpoint_is_named(tmp_path, kept):
    path = tmp_path / "state.npz"
    stored(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StorageError, match="not a whole checkpoint"):
        load_checkpoint(path, fingerprint="a" * 64)


@pytest.mark.exact
def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "state.npz", b"")


@pytest.mark.exact
@pytest.mark.parametrize("problem", [four_rooms(), four_rooms(coordinates="shares"), random_mdp(states=5)])
def test_rewards_and_products_at_many_parameters_are_those_at_each(problem):
    rng = np.random.default_rng(0)
    thetas = 0.01 * np.abs(rng.standard_normal((4, *problem.theta_shape)))
    tables = [problem.tables_at(theta) for theta in thetas]
    follower, leader = problem.rewards(thetas)
    np.testing.assert_allclose(follower, [each.reward_follower for each in tables], rtol=1e-14)
    np.testing.assert_allclose(leader, [each.reward_leader for each in tables], rtol=1e-14)
    cotangents = {
        "reward_follower": rng.standard_normal(follower.shape),
        "reward_leader": rng.standard_normal(leader.shape),
    }
    found = problem.vector_jacobians(thetas, cotangents)
    for row, theta in enumerate(thetas):
        own = problem.vector_jacobian(theta, {name: each[row] for name, each in cotangents.items()})
        np.testing.assert_allclose(found[row], own, rtol=0, atol=1e-13 * np.abs(own).max())
    alone = problem.vector_jacobians(thetas[2:3], {name: each[2:3] for name, each in cotangents.items()})
    np.testing.assert_array_equal(alone[0], found[2])
    assert not problem.vector_jacobians(thetas, {}).any()
