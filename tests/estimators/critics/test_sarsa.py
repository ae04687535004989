"""The SARSA critic against a plain loop, with its switches, and against the values it is meant to learn."""

import numpy as np
import pytest

from bilevelrl.estimators import Trajectories
from bilevelrl.estimators.critics.sarsa import SarsaCritic, sarsa_pass
from bilevelrl.estimators.sampling.sample import sample_trajectories
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError
from bilevelrl.reference.tabular.leader import leader_action_values
from bilevelrl.tasks import layered_mdp, random_mdp


def plain_pass(table, trajectories, policy, discount, step_size, truncation, order):
    """One transition at a time, one case at a time."""
    table = {(s, a): table[s, a] for s in range(table.shape[0]) for a in range(table.shape[1])}
    actions = policy.shape[1]
    for k in order:
        e, t = divmod(int(k), trajectories.steps)
        if not trajectories.valid[e, t]:
            continue
        s, a = int(trajectories.state_t[e, t]), int(trajectories.action_t[e, t])
        successor = int(trajectories.state_tp1[e, t])
        last = t == trajectories.steps - 1 or not trajectories.valid[e, t + 1]
        if trajectories.terminated[e, t]:
            ahead = 0.0
        elif trajectories.truncated[e, t] or last:
            ahead = 0.0
            if truncation == "bootstrap":
                ahead = sum(policy[successor, b] * table[successor, b] for b in range(actions))
        else:
            ahead = table[successor, int(trajectories.action_t[e, t + 1])]
        error = trajectories.reward_leader_t[e, t] + discount * ahead - table[s, a]
        table[s, a] += step_size * error
    return np.array([[table[s, a] for a in range(actions)] for s in range(policy.shape[0])])


def sampled(problem, *, streams=6, steps=9, simulator=None, seed=0):
    theta = np.zeros(problem.theta_shape)
    follower = solve_follower(problem, theta)
    rng = np.random.default_rng(seed)
    batch = sample_trajectories(problem, theta, follower, streams=streams, steps=steps, rng=rng, simulator=simulator)
    return batch, follower


SITUATIONS = {
    "padding after termination": (random_mdp(termination=0.3), None),
    "truncated at the end": (random_mdp(), None),
    "several episodes": (random_mdp(termination=0.2), TabularSimulator(step_limit=4, single_episode=False)),
    "layered": (layered_mdp(), TabularSimulator(single_episode=False)),
}


@pytest.mark.parametrize("order", ["time", "random"])
@pytest.mark.parametrize("truncation", ["bootstrap", "cut"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_one_pass_is_the_plain_loop(situation, truncation, order):
    problem, simulator = SITUATIONS[situation]
    batch, follower = sampled(problem, simulator=simulator)
    start = np.random.default_rng(1).normal(size=follower.policy.shape)
    indices = np.arange(batch.streams * batch.steps)
    if order == "random":
        indices = np.random.default_rng(2).permutation(indices)
    found = sarsa_pass(
        start, batch, follower.policy, discount_leader=0.8, step_size=0.6, truncation=truncation, order=indices
    )
    expected = plain_pass(start, batch, follower.policy, 0.8, 0.6, truncation, indices)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * np.abs(expected).max())
    # The switches matter: every other treatment gives something else.
    other = plain_pass(
        start, batch, follower.policy, 0.8, 0.6, {"cut": "bootstrap", "bootstrap": "cut"}[truncation], indices
    )
    if situation in ("truncated at the end", "several episodes"):
        assert np.abs(found - other).max() > 1e-3
    assert np.abs(found - plain_pass(start, batch, follower.policy, 0.8, 0.6, truncation, indices[::-1])).max() > 1e-3


@pytest.mark.parametrize("runs", [2, 20])
def test_many_runs_at_once_are_the_runs_one_by_one(runs):
    problem = random_mdp(termination=0.1)
    batch, follower = sampled(problem, streams=2 * runs, steps=5)
    rng = np.random.default_rng(3)
    tables = rng.normal(size=(runs, *follower.policy.shape))
    policies = rng.dirichlet(np.ones(follower.policy.shape[1]), size=tables.shape[:2])
    orders = rng.permuted(np.tile(np.arange(10), (runs, 1)), axis=1)
    together = sarsa_pass(tables, batch, policies, discount_leader=0.9, step_size=0.3, order=orders)
    for b in range(runs):
        alone = plain_pass(
            tables[b], batch.select(slice(2 * b, 2 * b + 2)), policies[b], 0.9, 0.3, "bootstrap", orders[b]
        )
        np.testing.assert_allclose(together[b], alone, rtol=0, atol=1e-14 * np.abs(alone).max())


def test_the_arguments_are_not_changed():
    batch, follower = sampled(random_mdp())
    table = np.zeros(follower.policy.shape)
    critic = SarsaCritic(table=table, policy=follower.policy, discount_leader=0.8, order="time")
    after = critic.updated(batch)
    assert (table == 0.0).all()
    assert (critic.table == 0.0).all()
    assert (after.table != 0.0).any()


def test_the_exact_values_are_a_fixed_point_in_expectation():
    """Averaged over all transitions of a state and action, an update from the exact Q_L moves nothing."""
    problem = random_mdp(states=3, actions=2, termination=0.2, seed=5)
    theta = np.zeros(problem.theta_shape)
    tables, follower = problem.tables_at(theta), solve_follower(problem, theta)
    _, exact, _ = leader_action_values(tables, follower.policy, problem.discount_leader)
    for s in range(3):
        for a in range(2):
            mean = 0.0
            ends = 1.0 - tables.transition[s, a].sum()
            for successor, probability in [*enumerate(tables.transition[s, a]), (3, ends)]:
                step = Trajectories(
                    state_t=np.array([[s]]),
                    action_t=np.array([[a]]),
                    state_tp1=np.array([[successor]]),
                    reward_leader_t=np.array([[tables.reward_leader[s, a]]]),
                    terminated=np.array([[successor == 3]]),
                    truncated=np.array([[successor != 3]]),
                    time_in_episode=np.zeros((1, 1), dtype=int),
                    valid=np.ones((1, 1), dtype=bool),
                    behaviour_log_prob=np.zeros((1, 1)),
                )
                moved = sarsa_pass(exact, step, follower.policy, discount_leader=problem.discount_leader, step_size=1.0)
                mean += probability * moved[s, a]
            assert abs(mean - exact[s, a]) < 1e-13


def test_small_steps_bring_the_table_to_the_leaders_values():
    """With a constant step α the table hovers about Q_L at a distance of the order √α, so its average is closer."""
    problem = random_mdp(states=3, actions=2, parameters=2, temperature=2.0, seed=6)
    theta = np.zeros(problem.theta_shape)
    follower = solve_follower(problem, theta)
    _, exact, _ = leader_action_values(problem.tables_at(theta), follower.policy, problem.discount_leader)
    critic = SarsaCritic.start(follower, problem.discount_leader, step_size=0.02)
    rng = np.random.default_rng(0)
    late = []
    for iteration in range(60):
        batch = sample_trajectories(problem, theta, follower, streams=20, steps=50, rng=rng)
        critic = critic.updated(batch, rng=rng)
        if iteration >= 20:
            late.append(critic.table)
    spread = np.abs(exact).max() * np.sqrt(0.02)
    assert np.abs(np.mean(late, axis=0) - exact).max() < spread
    assert np.abs(exact).max() > 5.0 * spread  # an empty or shifted table would fail
    cut = SarsaCritic.start(follower, problem.discount_leader, step_size=0.02, truncation="cut")
    for _ in range(60):  # episodes of two steps, all cut: the values learnt are those of two steps
        batch = sample_trajectories(problem, theta, follower, streams=500, steps=2, rng=rng)
        cut = cut.updated(batch, rng=rng)
    assert np.abs(cut.table - exact).max() > spread


def test_values_average_over_the_policy_and_are_zero_at_the_end():
    batch, follower = sampled(random_mdp())
    critic = SarsaCritic.start(follower, 0.8, rng=np.random.default_rng(4))
    assert abs(critic.table.std() - 1.0) < 0.6
    np.testing.assert_allclose(critic.value(np.arange(4)), (follower.policy * critic.table).sum(axis=1))
    assert critic.value(4) == 0.0
    assert critic.action_value(4, 1) == 0.0
    np.testing.assert_array_equal(
        critic.action_value(batch.state_t, batch.action_t), critic.table[batch.state_t, batch.action_t]
    )
    uniform = np.full_like(follower.policy, 0.5)
    np.testing.assert_allclose(critic.with_policy(uniform).value(np.arange(4)), critic.table.mean(axis=1))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"step_size": 0.0}, InvalidInputError),
        ({"step_size": 1.5}, InvalidInputError),
        ({"step_size": float("nan")}, InvalidInputError),
        ({"discount_leader": 1.0}, InvalidInputError),
        ({"truncation": "bootstrapped"}, UnknownNameError),
        ({"order": "reversed"}, UnknownNameError),
        ({"table": np.zeros((4, 3))}, ShapeError),
        ({"table": np.full((4, 2), np.inf)}, InvalidInputError),
    ],
)
def test_bad_critics_are_refused(changes, error):
    arguments = {"table": np.zeros((4, 2)), "policy": np.full((4, 2), 0.5), "discount_leader": 0.8, **changes}
    with pytest.raises(error):
        SarsaCritic(**arguments)


def test_bad_passes_are_refused():
    batch, follower = sampled(random_mdp())
    critic = SarsaCritic.start(follower, 0.8)
    with pytest.raises(InvalidInputError, match="rng"):
        critic.updated(batch)
    with pytest.raises(InvalidInputError, match="permutation"):
        critic.updated(batch, order=np.zeros(batch.streams * batch.steps, dtype=int))
    with pytest.raises(ShapeError):
        critic.updated(batch, order=np.arange(3))
    with pytest.raises(ShapeError):
        sarsa_pass(np.zeros((4, 4, 2)), batch, follower.policy, discount_leader=0.8, step_size=0.5)
