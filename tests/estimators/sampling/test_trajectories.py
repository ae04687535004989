"""Trajectories that contradict themselves are refused by name; lists become arrays."""

import dataclasses

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context, Trajectories, sample_trajectories
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
    wrong = changed(batch, "terminated", (stream, step), False)
    with pytest.raises(InvalidInputError, match=rf"state_tp1\[{stream}, {step}\]=6: .*terminated"):
        BCHG().estimate(wrong, context)
    BCHG().estimate(batch, context)  # as it was sampled it passes
    padding = changed(batch, "valid", (stream, slice(step, None)), False)
    BCHG().estimate(changed(padding, "terminated", (stream, step), False), context)  # padding may hold anything


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
