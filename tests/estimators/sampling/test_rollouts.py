"""Trajectories from plain lists: what a sampler would have recorded, and contradictions refused by name."""

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context, TabularSimulator, from_rollouts, sample_trajectories
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError
from bilevelrl.tasks import random_lqr, random_markov_game, random_mdp

pytestmark = pytest.mark.exact


def episodes(batch, m):
    """The lists that a stream of a batch was made of."""
    found = []
    steps = np.flatnonzero(batch.valid[m])
    starts = [i for i in steps if batch.time_in_episode[m, i] == 0]
    for first, after in zip(starts, [*starts[1:], steps[-1] + 1], strict=True):
        part = slice(first, after)
        one = {
            "states": [*batch.state_t[m, part].tolist(), batch.state_tp1[m, after - 1].tolist()],
            "actions": batch.action_t[m, part].tolist(),
            "rewards": batch.reward_leader_t[m, part].tolist(),
            "truncated": bool(batch.truncated[m, after - 1]),
        }
        if batch.leader_action_t is not None:
            one["leader_actions"] = batch.leader_action_t[m, part].tolist()
        found.append(one)
    return found


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("make", [random_mdp, random_markov_game], ids=lambda make: make.__name__)
def test_lists_give_the_rows_that_the_samplers_own_arrays_give(make, several):
    problem = make(states=3, actions=2, termination=0.4)
    theta = np.zeros(problem.theta_shape)
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    batch = sample_trajectories(
        problem,
        theta,
        context.follower,
        streams=6,
        steps=7,
        rng=np.random.default_rng(0),
        simulator=TabularSimulator(single_episode=not several),
    )
    again = from_rollouts([episodes(batch, m) for m in range(6)], states=3)
    seen = batch.valid[:, : again.steps]
    for name in ("terminated", "truncated", "valid", "state_t", "action_t", "state_tp1", "reward_leader_t"):
        found, expected = getattr(again, name), getattr(batch, name)[:, : again.steps]
        assert np.array_equal(found[seen], expected[seen]), name
    assert np.array_equal(again.valid, seen)
    if several:  # a stream's sums would count each of its episodes
        with pytest.raises(UnsupportedError, match="several episodes"):
            BCHG()(again, context)
    else:
        assert np.array_equal(BCHG()(again, context), BCHG()(batch, context))


def test_vectors_need_no_number_of_states():
    problem = random_lqr(states=2, actions=1, seed=0)
    theta = np.zeros(problem.theta_shape)
    follower = solve_follower(problem, theta)
    batch = sample_trajectories(problem, theta, follower, streams=3, steps=4, rng=np.random.default_rng(0))
    again = from_rollouts([episodes(batch, m) for m in range(3)])
    context = Context(problem=problem, theta=theta, follower=follower)
    assert np.array_equal(BCHG()(again, context), BCHG()(batch, context))


STEP = {"states": [0, 1], "actions": [1], "rewards": [0.5]}
WRONG = {
    "both flags": ([{**STEP, "terminated": True, "truncated": True}], "terminated and truncated"),
    "an end with a state": ([{**STEP, "terminated": True}], r"states\[-1\]=1"),
    "no end, but the number of states": ([{**STEP, "states": [0, 3], "terminated": False}], "which says that it ended"),
    "no end, but no state": ([{**STEP, "states": [0], "terminated": False}], "no state after the last step"),
    "an episode that nobody ended": ([[{**STEP, "truncated": False}, STEP]], "where another episode follows"),
    "a spelling": ([{**STEP, "reward": [1.0]}], "'reward'"),
    "nothing": ([], "at least one stream"),
    "an empty stream": ([[]], "leave empty streams out"),
    "no mapping": ([[3]], "a mapping"),
    "one stream in a game": ([{**STEP, "leader_actions": [0]}, STEP], "leader_actions in all"),
}


@pytest.mark.parametrize("what", WRONG)
def test_contradictions_are_refused_by_name(what):
    streams, message = WRONG[what]
    with pytest.raises(InvalidInputError, match=message):
        from_rollouts(streams, states=3)
    with pytest.raises(ShapeError, match="1 actions and 2 rewards"):
        from_rollouts([{**STEP, "rewards": [1.0, 2.0]}], states=3)


def test_the_episode_under_way_is_not_flagged_where_episodes_follow_each_other():
    ended = {**STEP, "states": [0, 3]}
    batch = from_rollouts([[ended, {**STEP, "truncated": False}], STEP], states=3)
    assert batch.truncated.tolist() == [[False, False], [True, False]]
    assert batch.time_in_episode[0].tolist() == [0, 0]


@pytest.mark.exact
@pytest.mark.parametrize("streams", [[None], np.array([1.0]), (3,), "ab"])
def test_streams_that_are_no_episodes_are_refused_by_name(streams):
    with pytest.raises(InvalidInputError, match=r"streams\[0\]"):
        from_rollouts(streams)
