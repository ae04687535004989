"""Kernels that are learnt: consistent, of the declared bias, and exact where followers' values determine them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.benchmarks.research.model_based import (
    RandomStarts,
    TransitionCounts,
    continuations,
    kernel_from_values,
    learnt_kernel,
    model_hypergradients,
    with_kernel,
)
from bilevelrl.estimators import TabularSimulator
from bilevelrl.estimators.followers import ExactFollower, SharedDynamics, batch_hypergradients
from bilevelrl.reference import hypergradient, named_stream
from bilevelrl.reference.errors import InvalidInputError, ShapeError
from bilevelrl.tasks import four_rooms


def answers(problem, thetas):
    dynamics = SharedDynamics(problem, thetas[0])
    rewards = dynamics.rewards(thetas)
    return dynamics, rewards, ExactFollower().respond(dynamics, rewards, {})[0]


def with_end(kernel):
    return np.concatenate([kernel, 1.0 - kernel.sum(axis=2, keepdims=True)], axis=2)


def test_with_all_transitions_seen_in_their_true_shares_the_hypergradient_is_exact():
    problem = four_rooms(temperature=0.003)
    thetas = named_stream(0, "replay", "exact").standard_normal((2, 105))
    truth, _, played = answers(problem, thetas)
    exact = np.stack([hypergradient(problem, theta).value for theta in thetas])
    kernel = learnt_kernel(1e15 * with_end(truth.kernel), pooling=2.0)
    found = model_hypergradients(SharedDynamics(with_kernel(problem, kernel), thetas[0]), played)
    assert np.abs(found - exact).max() < 1e-10 * np.abs(exact).max()
    planted = kernel.copy()
    planted[40, 1] = kernel[40, 2]  # one row of 416
    wrong = model_hypergradients(SharedDynamics(with_kernel(problem, planted), thetas[0]), played)
    assert np.abs(wrong - exact).max() > 1e-6 * np.abs(exact).max()


def small_problem():
    """Three cells in a row, of which the last is the goal; two actions."""
    from bilevelrl.tasks.paper.penalties import SoftmaxPenalties, penalised_grid

    right, left = [[0.3, 0.7, 0.0], [0.0, 0.3, 0.7]], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    transition = np.zeros((3, 2, 3))
    transition[:2, 0], transition[:2, 1] = right, left
    return penalised_grid(
        transition=transition,
        penalties=SoftmaxPenalties(cells=3, budget=0.5),
        initial=np.array([1.0, 0.0, 0.0]),
        goals=np.array([0.0, 0.0, 1.0]),
        targets=np.array([0.0, 1.0, 0.0]),
        cost=1.0,
        temperature=0.2,
        discount_leader=0.9,
        discount_follower=0.8,
        name="three cells",
    )


def enumerated_bias(visits):
    """Return the exact bias of the counted model's hypergradient after so many visits of each random pair."""
    problem, theta = small_problem(), np.array([[0.3, -0.2, 0.1, 0.0]])
    truth, _, played = answers(problem, theta)
    exact = batch_hypergradients(truth, played)[0]
    pairs = [(0, 0, 1), (1, 0, 2)]  # the others are deterministic
    from scipy.stats import binom

    mean = np.zeros(4)
    for hits in itertools.product(range(visits + 1), repeat=len(pairs)):
        kernel, weight = truth.kernel.copy(), 1.0
        for (state, action, moved), hit in zip(pairs, hits, strict=True):
            weight *= binom.pmf(hit, visits, truth.kernel[state, action, moved])
            kernel[state, action] = 0.0
            kernel[state, action, [moved, state]] = [hit / visits, 1.0 - hit / visits]
        mean += weight * model_hypergradients(SharedDynamics(with_kernel(problem, kernel), theta[0]), played)[0]
    return mean - exact


def test_the_bias_falls_with_the_number_of_visits_as_declared():
    few, more = enumerated_bias(12), enumerated_bias(24)
    ratio = np.linalg.norm(few) / np.linalg.norm(more)
    assert np.linalg.norm(more) > 1e-4  # there is a bias
    assert 1.8 < ratio < 2.6  # of order 1/n: doubling n halves it, up to the next order, 1/n²


def test_every_valid_step_is_counted_once_and_for_its_own_run():
    problem = four_rooms(temperature=0.005)
    thetas = np.zeros((2, 105))
    dynamics, _, played = answers(problem, thetas)
    rng = [named_stream(0, "replay", run) for run in range(2)]
    simulator = TabularSimulator(step_limit=40, single_episode=False)
    trajectories = played.sample(streams=3, steps=50, rng=rng, simulator=simulator)
    counts = TransitionCounts(runs=2, states=104, actions=4)
    counts.add(trajectories, np.repeat([0, 1], 3))
    wanted = np.zeros_like(counts.table)
    for stream, step in itertools.product(range(6), range(50)):
        if trajectories.valid[stream, step]:
            place = (trajectories.state_t, trajectories.action_t, trajectories.state_tp1)
            wanted[(stream // 3, *(int(each[stream, step]) for each in place))] += 1.0
    np.testing.assert_array_equal(counts.table, wanted)
    assert counts.table.sum() == 300.0
    possible = with_end(dynamics.kernel) > 0.0
    assert (counts.table[:, ~possible] == 0.0).all()
    with pytest.raises(ShapeError, match=r"run\.shape"):
        counts.add(trajectories, np.zeros(2, dtype=np.int64))


def test_pairs_that_were_never_tried_move_like_their_state_and_unseen_states_end():
    counts = np.zeros((2, 2, 3))
    counts[0, 0] = [2.0, 6.0, 0.0]
    kernel = learnt_kernel(counts, pooling=2.0)
    np.testing.assert_allclose(kernel[0], [[0.25, 0.75], [0.25, 0.75]], rtol=0, atol=1e-15)
    assert (kernel[1] == 0.0).all()
    for bad, pooling in ((counts, 0.0), (counts, np.nan), (-counts, 1.0), (counts * np.nan, 1.0)):
        with pytest.raises(InvalidInputError):
            learnt_kernel(bad, pooling=pooling)
    with pytest.raises(ShapeError):
        learnt_kernel(np.zeros((2, 2, 2)), pooling=1.0)


@pytest.mark.parametrize("temperature", [0.001, 0.005])
def test_the_followers_values_determine_the_kernel_without_a_sample(temperature):
    problem = four_rooms(temperature=temperature)
    thetas = RandomStarts().draw(named_stream(0, "replay", "values"), 160, 105)
    truth, rewards, played = answers(problem, thetas)
    expected = continuations(played.value, played.policy, rewards.follower, temperature=temperature, discount=0.99)
    guess = np.full_like(truth.kernel, 1.0 / 104)
    # Values are exact to 1e-9 · .01 · 2 at worst, and singular values of 160 random plays range over five decades.
    assert np.abs(kernel_from_values(played.value, expected, guess) - truth.kernel).max() < 1e-6
    assert np.abs(kernel_from_values(played.value[:60], expected[:60], guess) - truth.kernel).max() > 0.1  # too few
    planted = expected.copy()
    planted[7, 50, 2] += 1e-3
    assert np.abs(kernel_from_values(played.value, planted, guess) - truth.kernel).max() > 1e-6


def test_answers_that_underflow_are_left_out():
    problem = four_rooms(temperature=0.005)
    thetas = RandomStarts().draw(named_stream(0, "replay", "values"), 160, 105)
    truth, rewards, played = answers(problem, thetas)
    policy = played.policy.copy()
    policy[3, 10, 1] = 0.0
    expected = continuations(played.value, policy, rewards.follower, temperature=0.005, discount=0.99)
    assert np.isnan(expected).sum() == 1
    found = kernel_from_values(played.value, expected, np.zeros_like(truth.kernel))
    assert np.abs(found - truth.kernel).max() < 1e-6
    with pytest.raises(ShapeError):
        kernel_from_values(played.value, expected[:-1], truth.kernel)
    with pytest.raises(InvalidInputError):
        kernel_from_values(played.value, expected, truth.kernel, cutoff=0.0)


def test_the_kernel_is_all_that_changes():
    problem = four_rooms(temperature=0.003)
    other = with_kernel(problem, four_rooms(kernel="paper").tables_at(np.zeros(105)).transition)
    theta = named_stream(0, "replay", "other").standard_normal(105)
    wanted = hypergradient(four_rooms(temperature=0.003, kernel="paper"), theta)
    found = hypergradient(other, theta)
    assert found.objective == wanted.objective
    np.testing.assert_array_equal(found.value, wanted.value)
    assert replace(other, tables=problem.tables, name=problem.name) == problem


@pytest.mark.exact
def test_what_is_not_finite_or_no_discount_is_refused():
    value, policy, reward = np.zeros(2), np.full((2, 2), 0.5), np.zeros((2, 2))
    for changes in ({"value": np.array([0.0, np.nan])}, {"policy": np.full((2, 2), np.nan)}, {"discount": 1.0}):
        given = {"value": value, "policy": policy, "reward": reward, "temperature": 1.0, "discount": 0.5, **changes}
        with pytest.raises(InvalidInputError, match=next(iter(changes))):
            continuations(given.pop("value"), given.pop("policy"), given.pop("reward"), **given)
    kernel = np.full((2, 1, 2), 0.5)
    with pytest.raises(InvalidInputError, match="values"):
        kernel_from_values(np.full((2, 2), np.nan), np.zeros((2, 2, 1)), kernel)
