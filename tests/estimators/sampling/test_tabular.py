"""The sampler: laws, streams, episodes, stopping, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.stats

from bilevelrl.estimators import TabularSimulator, Trajectories, sample_trajectories
from bilevelrl.estimators.sampling.draws import Draws, kernel_draws, policy_draws
from bilevelrl.estimators.sampling.sample import sample_suffixes
from bilevelrl.estimators.sampling.stopping import sample_stopped_trajectories
from bilevelrl.reference import SparseTransition, named_stream, solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, StochasticityError, UnknownNameError
from bilevelrl.tasks import four_rooms, layered_mdp, random_mdp

THETA = np.zeros(3)
BELOW_ONE = np.nextafter(1.0, 0.0)


def batch_of(problem: Any = None, **options: Any) -> Trajectories:
    problem = random_mdp(seed=0, termination=0.2) if problem is None else problem
    policy = options.pop("policy", None)
    if policy is None:
        policy = solve_follower(problem, THETA).policy
    options = {"streams": 200, "steps": 7, "rng": named_stream(3, "sampling"), **options}
    return sample_trajectories(problem, THETA, policy, **options)


# --- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize("outcomes", [1, 2, 3, 4, 5, 8, 9, 33])
def test_inversion_maps_each_interval_to_its_outcome(outcomes: int) -> None:
    probability = named_stream(0, "draws", outcomes).dirichlet(np.ones(outcomes), size=3)
    labels = np.arange(outcomes)[::-1] + 10
    draws = Draws.build(probability, np.broadcast_to(labels, probability.shape))
    edges = np.cumsum(probability, axis=1)
    for row in range(3):
        for place in range(outcomes):
            low = edges[row, place - 1] if place else 0.0
            middle = 0.5 * (low + edges[row, place])
            found = draws.draw(np.array([row, row]), np.array([low, middle]))
            assert found.tolist() == [labels[place]] * 2
        assert draws.draw(np.array([row]), np.array([BELOW_ONE])).tolist() == [labels[-1]]


@pytest.mark.exact
def test_impossible_outcomes_are_never_drawn() -> None:
    # A total a little below one, and zeros in front, in the middle and at the end.
    rows = np.array([[0.0, 0.3, 0.0, 0.7 - 1e-12, 0.0]])
    draws = Draws.build(rows, np.arange(5)[None, :])
    uniform = np.array([0.0, np.nextafter(0.3, 0.0), 0.3, 0.5, BELOW_ONE])
    assert draws.draw(np.zeros(5, dtype=np.int64), uniform).tolist() == [1, 1, 3, 3, 3]


@pytest.mark.exact
def test_dense_and_sparse_kernels_compile_to_the_same_laws() -> None:
    kernel = np.array([[[0.5, 0.0, 0.25]], [[0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    successor = np.array([[[2, 0, 0, 1]], [[0, 1, 2, 0]], [[1, 1, 2, 0]]])
    probability = np.array([[[0.25, 0.2, 0.3, 0.0]], [[0.0, 0.0, 0.0, 0.0]], [[0.4, 0.6, 0.0, 0.0]]])
    sparse = SparseTransition(successor=successor, probability=probability)
    np.testing.assert_allclose(sparse.to_dense(), kernel)
    uniform = (np.arange(4000) + 0.5) / 4000
    for compiled in (kernel_draws(kernel), kernel_draws(sparse)):
        for state in range(4):  # 3 is the end, and absorbs
            found = compiled.draw(np.full(4000, state), uniform)
            frequency = np.bincount(found, minlength=4) / 4000
            law = [*kernel[state, 0], 1.0 - kernel[state, 0].sum()] if state < 3 else [0.0, 0.0, 0.0, 1.0]
            np.testing.assert_allclose(frequency, law, atol=1e-12)
    assert policy_draws(np.full((2, 2), 0.5)).draw(np.array([2]), np.array([0.9])).tolist() == [0]


@pytest.mark.statistical
def test_visits_follow_the_law_of_the_chain() -> None:
    problem = random_mdp(seed=0, termination=0.2)
    follower = solve_follower(problem, THETA)
    tables = problem.tables_at(THETA)
    streams, steps = 40_000, 3
    batch = batch_of(problem, streams=streams, steps=steps)
    law = np.asarray(tables.initial)
    for t in range(steps):
        joint = (
            law[:, None, None]
            * follower.policy[:, :, None]
            * np.dstack([tables.transition, 1.0 - tables.transition.sum(axis=2)])
        )
        alive = batch.valid[:, t]
        visited = np.ravel_multi_index(
            (batch.state_t[alive, t], batch.action_t[alive, t], batch.state_tp1[alive, t]), joint.shape
        )
        counts = np.append(np.bincount(visited, minlength=joint.size), streams - alive.sum())
        expected = np.append(joint.ravel(), 1.0 - law.sum()) * streams
        seen = expected > 0.0
        statistic = ((counts - expected)[seen] ** 2 / expected[seen]).sum()
        # Three tests at 1e-7 each: a false alarm in 3e6 seeds.
        critical = scipy.stats.chi2.isf(1e-7, int(seen.sum()) - 1)
        assert statistic < critical
        assert counts[~seen].sum() == 0
        # Power, from the noncentral law: a policy that plays uniformly once in ten steps would be seen.
        mixed = 0.9 + 0.1 * 0.5 / follower.policy
        off = np.append((joint * (mixed - 1.0)[:, :, None]).ravel(), 0.0)[seen] * streams
        shift = float((off**2 / expected[seen]).sum())
        assert scipy.stats.ncx2.sf(critical, int(seen.sum()) - 1, shift) > 0.99
        law = joint[:, :, :-1].sum(axis=(0, 1))


# --- episodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.exact
def test_one_episode_per_stream_is_padded_after_its_end() -> None:
    batch = batch_of()
    ended = np.cumsum(batch.terminated, axis=1)
    np.testing.assert_array_equal(batch.valid, ended - batch.terminated == 0)
    assert (batch.terminated.sum(axis=1) + batch.truncated.sum(axis=1) == 1).all()
    assert not batch.truncated[:, :-1].any()
    assert (batch.state_tp1[batch.terminated] == 4).all()
    assert (batch.state_tp1[batch.valid & ~batch.terminated] < 4).all()
    going_on = batch.valid[:, 1:]
    np.testing.assert_array_equal(batch.state_t[:, 1:][going_on], batch.state_tp1[:, :-1][going_on])
    assert (batch.time_in_episode == np.arange(7)).all()
    assert (batch.reward_leader_t[~batch.valid] == 0.0).all()
    batch.check_states(4, 2)
    assert 0 < ended[:, -1].sum() < 200  # both kinds occur


@pytest.mark.exact
def test_several_episodes_follow_each_other_and_the_tail_has_no_flag() -> None:
    batch = batch_of(steps=40, simulator=TabularSimulator(single_episode=False, step_limit=4))
    assert batch.valid.all()
    over = batch.terminated | batch.truncated
    np.testing.assert_array_equal(batch.truncated, ~batch.terminated & (batch.time_in_episode == 3))
    np.testing.assert_array_equal(batch.time_in_episode[:, 1:] == 0, over[:, :-1])
    assert not over[:, -1].all()
    inside = ~over[:, :-1]
    np.testing.assert_array_equal(batch.state_t[:, 1:][inside], batch.state_tp1[:, :-1][inside])
    assert (batch.time_in_episode[:, 1:][inside] == batch.time_in_episode[:, :-1][inside] + 1).all()
    without = batch_of(steps=40, simulator=TabularSimulator(single_episode=False))
    assert not without.truncated.any()


@pytest.mark.exact
def test_rewards_and_log_probabilities_belong_to_the_visited_pairs() -> None:
    problem = random_mdp(seed=0, termination=0.2)
    policy = solve_follower(problem, THETA).policy
    batch = batch_of(problem)
    s, a, seen = batch.state_t, batch.action_t, batch.valid
    np.testing.assert_array_equal(batch.reward_leader_t[seen], problem.tables_at(THETA).reward_leader[s, a][seen])
    np.testing.assert_array_equal(batch.behaviour_log_prob[seen], np.log(policy)[s, a][seen])


@pytest.mark.exact
def test_the_same_generator_gives_the_same_batch() -> None:
    for name in ("state_t", "action_t", "state_tp1"):
        np.testing.assert_array_equal(getattr(batch_of(), name), getattr(batch_of(), name))


@pytest.mark.exact
@pytest.mark.parametrize("single_episode", [True, False])
def test_policies_per_stream(single_episode: bool) -> None:
    problem = random_mdp(seed=0, actions=3, termination=0.2)
    choice = named_stream(1, "choice").integers(0, 3, size=(50, 4))
    batch = batch_of(
        problem,
        policy=np.eye(3)[choice],
        streams=50,
        steps=30,
        simulator=TabularSimulator(single_episode=single_episode),
    )
    picked = choice[np.arange(50)[:, None], batch.state_t]
    assert (batch.action_t == picked)[batch.valid].all()
    # A shared policy drawn by the same numbers visits the same states.
    shared = solve_follower(problem, THETA).policy
    alike = [
        batch_of(problem, policy=policy, streams=50, simulator=TabularSimulator(single_episode=single_episode))
        for policy in (shared, np.repeat(shared[None], 50, axis=0))
    ]
    np.testing.assert_array_equal(alike[0].state_t, alike[1].state_t)


@pytest.mark.exact
@pytest.mark.parametrize("single_episode", [True, False])
def test_policies_by_time(single_episode: bool) -> None:
    """Each step of an episode has its own; the same one at every step draws what one policy draws."""
    problem = random_mdp(seed=0, actions=3, termination=0.2)
    choice = named_stream(1, "choice").integers(0, 3, size=(30, 4))
    simulator = TabularSimulator(single_episode=single_episode)

    def sampled(policy: Any, **how: bool) -> Trajectories:
        rng = np.random.default_rng(0)
        return simulator.sample(problem, THETA, policy, streams=50, steps=30, rng=rng, **how)

    batch = sampled(np.eye(3)[choice], policy_by_time=True)
    picked = choice[np.where(batch.valid, batch.time_in_episode, 0), batch.state_t]
    assert (batch.action_t == picked)[batch.valid].all()
    assert (batch.behaviour_log_prob[batch.valid] == 0.0).all()
    own = solve_follower(problem, THETA).policy
    alike = sampled(own), sampled(np.repeat(own[None], 30, axis=0), policy_by_time=True)
    for name in ("state_t", "action_t", "state_tp1", "behaviour_log_prob"):
        np.testing.assert_array_equal(*(getattr(each, name) for each in alike))
    with pytest.raises(ShapeError, match="a policy for each step"):
        sampled(own, policy_by_time=True)
    with pytest.raises(ShapeError, match="a policy for each step"):
        sampled(np.repeat(own[None], 29, axis=0), policy_by_time=True)


@pytest.mark.exact
def test_resets_start_where_they_are_told() -> None:
    problem = random_mdp(seed=0, termination=0.2)
    policy = solve_follower(problem, THETA).policy
    state, action = np.array([3, 1, 1, 0]), np.array([0, 1, 0, 1])
    common: dict[str, Any] = {"steps": 5, "rng": named_stream(0, "resets")}
    batch = sample_suffixes(problem, THETA, policy, state=state, action=action, **common)
    np.testing.assert_array_equal(batch.state_t[:, 0], state)
    np.testing.assert_array_equal(batch.action_t[:, 0], action)
    assert (batch.behaviour_log_prob[:, 0] == 0.0).all()
    lengths = np.array([2, 5, 1, 3])
    cut = sample_suffixes(problem, THETA, policy, state=state, lengths=lengths, **common)
    seen = cut.valid.sum(axis=1)
    assert (seen <= lengths).all()
    # A stream either terminates or is truncated at its own length, never at somebody else's.
    last = seen - 1
    rows = np.arange(4)
    assert (cut.terminated[rows, last] | (cut.truncated[rows, last] & (seen == lengths))).all()
    several = dataclasses.replace(TabularSimulator(), single_episode=False)
    assert sample_suffixes(problem, THETA, policy, state=state, simulator=several, **common).streams == 4


@pytest.mark.exact
def test_the_limit_of_episodes_cuts_no_fresh_suffix() -> None:
    """Their length is the estimator's own; cut at two steps, fresh returns are not what they are declared to be."""
    problem = random_mdp(seed=0, termination=0.1)
    policy = solve_follower(problem, THETA).policy

    def drawn(**options: Any) -> Trajectories:
        rng, simulator = named_stream(0, "resets"), TabularSimulator(**options)
        state = np.arange(4).repeat(10)
        return sample_suffixes(problem, THETA, policy, state=state, steps=7, rng=rng, simulator=simulator)

    plain, limited = drawn(), drawn(step_limit=2)
    assert (plain.valid.sum(axis=1) > 2).any()
    np.testing.assert_array_equal(limited.state_t, plain.state_t)
    np.testing.assert_array_equal(limited.valid, plain.valid)


@pytest.mark.statistical
def test_geometric_times_have_their_law_and_start_at_zero() -> None:
    problem = random_mdp(seed=0, discount_leader=0.6, discount_follower=0.9)
    streams = 20_000
    batch = sample_stopped_trajectories(
        problem, THETA, solve_follower(problem, THETA), streams=streams, rng=named_stream(5, "stopping")
    )
    assert batch.stopping is not None
    np.testing.assert_array_equal(batch.valid.sum(axis=1), batch.stopping.sum(axis=1) + 1)
    for column, discount in enumerate((0.6, 0.9)):
        for t in (0, 1, 5):
            chance = discount**t
            error = np.sqrt(max(chance * (1.0 - chance), 1e-30) / streams)
            found = (batch.stopping[:, column] >= t).mean()
            assert abs(found - chance) <= 5.5 * error  # six checks at 4e-8
            if t:  # counting from one instead of zero would be seen
                assert abs(discount ** (t - 1) - chance) > 11.0 * error


@pytest.mark.exact
def test_other_dynamics_move_the_samples() -> None:
    layered = layered_mdp(seed=0)
    kernel = np.zeros((6, 2, 6))  # nothing moves on: every episode has one step
    stuck = dataclasses.replace(
        layered, tables=lambda theta: layered.tables(theta).replace({"transition": kernel}), tables_jacobian=None
    )
    batch = batch_of(layered, simulator=TabularSimulator(dynamics=stuck))
    assert (batch.valid.sum(axis=1) == 1).all()
    assert (batch_of(layered).valid.sum(axis=1) == 3).all()


@pytest.mark.exact
def test_four_rooms_episodes_end_in_the_goal() -> None:
    problem = four_rooms(temperature=0.005)
    theta = np.zeros(105)
    batch = sample_trajectories(
        problem,
        theta,
        solve_follower(problem, theta),
        streams=20,
        steps=300,
        rng=named_stream(0, "four rooms"),
        simulator=TabularSimulator(single_episode=False, step_limit=200),
    )
    assert set(batch.state_t[batch.terminated].tolist()) == {7}
    assert set(batch.state_t[batch.episode_starts].tolist()) == {31}
    assert batch.terminated.sum() > 20


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"streams": 0}, InvalidInputError, "streams=0"),
        ({"steps": 0}, InvalidInputError, "steps=0"),
        ({"steps": 2.5}, InvalidInputError, "steps=2.5"),
        ({"streams": True}, InvalidInputError, "streams=True"),
        ({"rng": 3}, InvalidInputError, "rng=3"),
        ({"simulator": 3}, InvalidInputError, "simulator=3: expected None or TabularSimulator or LQRSimulator"),
        ({"policy": np.ones((4, 3)) / 3.0}, ShapeError, r"follower policy shape=\(4, 3\)"),
        ({"policy": np.ones((7, 4, 2)) / 2.0}, ShapeError, r"\(B, 4, 2\) with B dividing 200 streams"),
        ({"policy": np.full((4, 2), 0.4)}, StochasticityError, "sum to one"),
        ({"policy": np.array([[1.5, -0.5]] * 4)}, StochasticityError, ">= 0"),
        ({"policy": np.full((4, 2), np.nan)}, StochasticityError, "finite"),
        (
            {"simulator": TabularSimulator(dynamics=random_mdp(states=5))},
            ShapeError,
            r"dynamics transition shape=\(5, 2, 5\)",
        ),
    ],
)
def test_bad_requests_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        batch_of(**options)


@pytest.mark.exact
def test_bad_simulators_and_resets_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="step_limit=0"):
        TabularSimulator(step_limit=0)
    with pytest.raises(UnknownNameError, match=r"restart='unifrom'.*did you mean 'uniform'"):
        TabularSimulator(restart="unifrom")  # type: ignore[arg-type]
    problem = random_mdp(seed=0)
    policy = solve_follower(problem, THETA).policy
    common: dict[str, Any] = {"steps": 2, "rng": named_stream(0)}
    with pytest.raises(InvalidInputError, match=r"\bstate=4: expected integers in \[0, 4\)"):
        sample_suffixes(problem, THETA, policy, state=[0, 4], **common)
    with pytest.raises(InvalidInputError, match=r"\baction=-1"):
        sample_suffixes(problem, THETA, policy, state=[0, 1], action=[-1, 0], **common)
    with pytest.raises(ShapeError, match=r"\baction"):
        sample_suffixes(problem, THETA, policy, state=[0, 1], action=[0], **common)
    with pytest.raises(InvalidInputError, match=r"lengths\[0\]=0"):
        sample_suffixes(problem, THETA, policy, state=[0, 1], lengths=[0, 1], **common)
    with pytest.raises(InvalidInputError, match="streams=0"):
        sample_suffixes(problem, THETA, policy, state=np.zeros(0, dtype=np.int64), **common)
    with pytest.raises(InvalidInputError, match="geometric times end the streams"):
        sample_stopped_trajectories(
            problem, THETA, policy, streams=2, rng=named_stream(0), simulator=TabularSimulator(step_limit=3)
        )


@pytest.mark.exact
def test_stopped_batches_hold_no_column_of_padding() -> None:
    problem = layered_mdp(seed=0)  # episodes of three steps, geometric times of a dozen
    batch = sample_stopped_trajectories(
        problem, THETA, solve_follower(problem, THETA), streams=50, rng=named_stream(0, "trim")
    )
    assert batch.steps == 3
    assert batch.valid.any(axis=0).all()
    # One episode per stream with a fixed number of steps keeps them all: its shape is what was asked for.
    assert batch_of(problem, steps=9).steps == 9
