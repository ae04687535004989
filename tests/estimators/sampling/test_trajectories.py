"""Trajectories that contradict themselves are refused by name; lists become arrays."""

import dataclasses

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context, TabularSimulator, Trajectories, sample_trajectories
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError
from bilevelrl.tasks import layered_mdp, random_mdp

THETA = np.zeros(3)


@pytest.fixture(name="sampled")
def fixture_sampled():
    problem = layered_mdp(seed=0)
    follower = solve_follower(problem, THETA)
    context = Context(problem=problem, theta=THETA, follower=follower)
    batch = sample_trajectories(problem, THETA, follower, streams=5, steps=4, rng=np.random.default_rng(0))
    return batch, context


def changed(batch, name, index, value):
    array = np.array(getattr(batch, name))
    array[index] = value
    return dataclasses.replace(batch, **{name: array})


def test_an_end_without_termination_is_refused(sampled):
    batch, context = sampled
    stream, step = (int(i) for i in np.argwhere(batch.terminated)[0])
    with pytest.raises(InvalidInputError, match=rf"state_tp1\[{stream}, {step}\]=6: .*terminated"):
        changed(batch, "terminated", (stream, step), False)
    BCHG().estimate(batch, context)  # as it was sampled it passes
    flags = {name: np.array(getattr(batch, name)) for name in ("terminated", "truncated", "valid")}
    flags["valid"][stream, step:] = False
    flags["truncated"][stream, step - 1] = True
    flags["terminated"][stream, step] = False
    BCHG().estimate(dataclasses.replace(batch, **flags), context)  # padding may hold anything


def test_a_termination_that_leads_to_a_state_is_refused(sampled):
    batch, context = sampled
    stream, step = (int(i) for i in np.argwhere(batch.terminated)[0])
    with pytest.raises(InvalidInputError, match=r"state_tp1\[\d, \d\]=2: .* where `terminated` is True"):
        changed(batch, "state_tp1", (stream, step), 2)
    # Where every termination leads to the same state, only who knows S can tell.
    moved = changed(batch, "state_tp1", batch.state_tp1 == 6, 7)
    with pytest.raises(InvalidInputError, match=r"state_tp1\[\d, \d\]=7: .* where `terminated` is True"):
        BCHG().estimate(moved, context)


@pytest.mark.parametrize(
    ("time", "named"),
    [(lambda t: t + 1, r"time_in_episode\[0, 0\]=1"), (lambda t: 2 * t, r"time_in_episode\[\d, 1\]=2")],
    ids=["counted from one", "with gaps"],
)
def test_steps_are_counted_from_zero_by_one(sampled, time, named):
    batch, _ = sampled
    with pytest.raises(InvalidInputError, match=named):
        dataclasses.replace(batch, time_in_episode=time(batch.time_in_episode))


def test_states_follow_each_other(sampled):
    batch, _ = sampled
    stream, step = (int(i) for i in np.argwhere(batch.valid[:, 1:] & (batch.time_in_episode[:, 1:] > 0))[0])
    other = (int(batch.state_t[stream, step + 1]) + 1) % 6
    with pytest.raises(InvalidInputError, match=rf"state_t\[{stream}, {step + 1}\]={other}: expected state_tp1"):
        changed(batch, "state_t", (stream, step + 1), other)
    weighted = dataclasses.replace(batch, weight_t=np.ones(batch.valid.shape))
    changed(weighted, "state_t", (stream, step + 1), other)  # the steps of a minibatch do not follow each other


@pytest.mark.parametrize("episodes", [True, False])
@pytest.mark.parametrize("name", ["truncated", "time_in_episode", "valid"])
def test_episodes_that_contradict_their_flags_are_refused(name, episodes):
    problem = random_mdp(seed=0)
    follower, simulator = solve_follower(problem, THETA), TabularSimulator(step_limit=3, single_episode=not episodes)
    rng = np.random.default_rng(0)
    batch = sample_trajectories(problem, THETA, follower, streams=2, steps=6, rng=rng, simulator=simulator)
    if name == "truncated":  # ends within an episode
        with pytest.raises(InvalidInputError, match=r"truncated\[1, 0\]=True: .* the episode goes on"):
            changed(batch, name, (1, 0), True)
    elif name == "time_in_episode":  # another episode begins though none ended
        with pytest.raises(InvalidInputError, match=r"truncated\[1, 0\]=False: .* another episode"):
            changed(batch, name, (1, 1), 0)
    else:  # padding begins though the episode did not end
        with pytest.raises(InvalidInputError, match=r"truncated\[1, 1\]=False: .* padding follows"):
            changed(batch, name, (1, slice(2, None)), False)


def test_a_stream_of_one_episode_is_flagged_at_its_last_step_and_one_under_way_is_not():
    problem = random_mdp(seed=0)
    follower = solve_follower(problem, THETA)
    for single in (True, False):
        batch = sample_trajectories(
            problem,
            THETA,
            follower,
            streams=2,
            steps=4,
            rng=np.random.default_rng(0),
            simulator=TabularSimulator(single_episode=single),
        )
        assert batch.truncated[:, -1].tolist() == [single, single]


@pytest.mark.parametrize("name", ["state_t", "action_t", "state_tp1"])
@pytest.mark.parametrize("value", [None, "states", [[0, 1], [0]], np.full((5, 4), "a")])
def test_states_that_are_no_numbers_are_refused_by_name(sampled, name, value):
    with pytest.raises(ShapeError, match=name):
        dataclasses.replace(sampled[0], **{name: value})


@pytest.mark.parametrize("name", ["terminated", "truncated", "valid"])
def test_flags_are_booleans(sampled, name):
    with pytest.raises(ShapeError, match=name):
        dataclasses.replace(sampled[0], **{name: np.zeros((5, 4))})


def test_lists_are_arrays(sampled):
    batch, context = sampled
    listed = Trajectories(
        **{
            entry.name: None if getattr(batch, entry.name) is None else getattr(batch, entry.name).tolist()
            for entry in dataclasses.fields(batch)
        }
    )
    np.testing.assert_array_equal(BCHG()(listed, context), BCHG()(batch, context))


def test_streams_that_have_not_ended_are_truncated_at_their_last_step():
    problem = random_mdp(seed=0)
    follower = solve_follower(problem, THETA)
    batch = sample_trajectories(problem, THETA, follower, streams=3, steps=4, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(batch.truncated, np.tile([False, False, False, True], (3, 1)))
