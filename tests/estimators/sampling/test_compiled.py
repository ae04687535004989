"""Compiled loops: the same bits as NumPy, with numba, without it, and as plain Python."""

import importlib.util
import sys
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from bilevelrl.estimators import Trajectories
from bilevelrl.estimators.critics.sarsa import sarsa_pass
from bilevelrl.estimators.followers import SharedDynamics, SweepingFollower
from bilevelrl.estimators.sampling import compiled as compiled_module
from bilevelrl.estimators.sampling import walk as walk_module
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sums.traces import backward_sum, forward_trace
from bilevelrl.estimators.training import METHODS, Run, Training, published_simulator, train
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.errors import ShapeError
from bilevelrl.tasks import four_rooms, random_mdp

WAYS = [
    "plain",
    pytest.param(
        "compiled",
        marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed"),
    ),
]


def switch(monkeypatch, way):
    """Let loops run in NumPy's own form, as plain Python, or compiled."""
    if way != "compiled":
        monkeypatch.setattr(compiled_module, "_compile", lambda loop: loop if way == "plain" else None)


def both(monkeypatch, way, computed):
    """Return what `computed` gives in that way and in NumPy's."""
    with monkeypatch.context() as patch:
        switch(patch, way)
        one = computed()
    with monkeypatch.context() as patch:
        switch(patch, "numpy")
        return one, computed()


def sampled(problem, *, groups=3, per_group=2, steps=40, limit=7, first=None, restart="initial", policies=3):
    theta = np.zeros(problem.theta_shape)
    states, actions = problem.tables_at(theta).reward_follower.shape
    policy = np.random.default_rng(5).dirichlet(np.full(actions, 0.4), size=(policies, states))
    policy[:, 0] = np.eye(actions)[-1]  # only the last action is possible, whatever rounding leaves
    streams = groups * per_group
    return TabularSimulator(step_limit=limit, single_episode=False, restart=restart).sample(
        problem,
        theta,
        policy if policies > 1 else policy[0],
        streams=streams,
        steps=steps,
        rng=[np.random.default_rng(seed) for seed in range(groups)],
        first_state=None if first is None else np.full(streams, first),
        first_action=None if first is None else np.full(streams, 1),
    )


WALKS = {
    "one policy": {"policies": 1},
    "a policy for each group": {},
    "a policy for each stream": {"policies": 6},
    "given starts": {"first": 2},
    "uniform restarts, many episodes": {"restart": "uniform", "limit": 3},
    "no limit within the batch": {"limit": None},
}


EPISODES = {
    "from the start, all ending": {"termination": 0.4},
    "from the start, cut": {"termination": 0.01},
    "suffixes of given pairs and lengths": {"termination": 0.1, "first": 2, "lengths": True},
    "a policy for each stream": {"termination": 0.1, "policies": 30},
}


@pytest.mark.exact
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ahead", [64, 2**18])
@pytest.mark.parametrize("episodes", EPISODES)
def test_single_episodes_are_the_same_bits_and_take_the_same_numbers(monkeypatch, way, ahead, episodes):
    options = {"first": None, "lengths": False, "policies": 1, **EPISODES[episodes]}
    problem, streams, steps = random_mdp(states=6, actions=3, termination=options["termination"], seed=1), 30, 40
    policy = np.random.default_rng(5).dirichlet(np.ones(3), size=(options["policies"], 6))
    given = {}
    if options["first"] is not None:
        given = {"first_state": np.full(streams, options["first"]), "first_action": np.arange(streams) % 3}
    if options["lengths"]:
        given["lengths"] = 1 + np.arange(streams) % steps
    monkeypatch.setattr(walk_module, "NUMBERS_AHEAD", ahead)
    monkeypatch.setattr(walk_module, "WORTH_COMPILING", 1)

    def drawn():
        rng = np.random.default_rng(3)
        batch = TabularSimulator().sample(
            problem,
            np.zeros(3),
            policy if len(policy) > 1 else policy[0],
            streams=streams,
            steps=steps,
            rng=rng,
            **given,
        )
        return batch, rng.random()

    (one, follows), (other, expected) = both(monkeypatch, way, drawn)
    assert follows == expected  # what is drawn afterwards does not know either
    for entry in fields(Trajectories):
        np.testing.assert_array_equal(getattr(one, entry.name), getattr(other, entry.name), strict=True)


@pytest.mark.exact
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("walk", WALKS)
def test_walks_are_the_same_bits(monkeypatch, way, walk):
    for problem in (random_mdp(states=6, actions=3, termination=0.1, seed=1), four_rooms()):
        one, other = both(monkeypatch, way, lambda problem=problem: sampled(problem, **WALKS[walk]))
        for entry in fields(Trajectories):
            np.testing.assert_array_equal(getattr(one, entry.name), getattr(other, entry.name), err_msg=entry.name)
        # Episodes end in both ways, where they can.
        assert one.truncated.any() == (WALKS[walk].get("limit", 7) is not None)
    assert one.valid.all()
    assert len(np.unique(one.state_t)) > 5


@pytest.mark.exact
def test_a_group_of_streams_shares_a_policy_and_numbers_do_not_depend_on_the_other_groups():
    problem = random_mdp(states=6, actions=3, termination=0.1, seed=1)
    by_group, by_stream = sampled(problem), sampled(problem, policies=6)
    assert (by_group.action_t != by_stream.action_t).any()
    alone = sampled(problem, groups=1, policies=1)
    np.testing.assert_array_equal(by_group.state_tp1[:2], alone.state_tp1)
    with pytest.raises(ShapeError, match=r"\(B, 6, 3\) with B dividing 6 streams"):
        sampled(problem, policies=4)


@pytest.mark.exact
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("truncation", ["bootstrap", "cut"])
@pytest.mark.parametrize("runs", [3, 12])  # below and above the number from which NumPy updates tables together
def test_sarsa_is_the_same_bits(monkeypatch, way, truncation, runs):
    problem = random_mdp(states=6, actions=3, termination=0.1, seed=1)
    batch = sampled(problem, groups=runs, policies=1)
    rng = np.random.default_rng(0)
    tables = rng.standard_normal((runs, 6, 3))
    policies = rng.dirichlet(np.ones(3), size=(runs, 6))
    orders = rng.permuted(np.tile(np.arange(2 * batch.steps), (runs, 1)), axis=1)

    def computed():
        return sarsa_pass(
            tables,
            batch,
            policies,
            discount_leader=0.9,
            step_size=np.linspace(0.1, 1.0, runs),
            truncation=truncation,
            order=orders,
        )

    one, other = both(monkeypatch, way, computed)
    np.testing.assert_array_equal(one, other)
    assert (np.abs(one - tables).reshape(runs, -1).max(axis=1) > 0.1).all()


@pytest.mark.exact
@pytest.mark.parametrize("way", WAYS)
def test_sums_along_time_are_the_same_bits(monkeypatch, way):
    batch = sampled(random_mdp(states=6, actions=3, termination=0.1, seed=1))
    x = np.random.default_rng(0).standard_normal(batch.valid.shape)
    for summed in (forward_trace, backward_sum):
        one, other = both(monkeypatch, way, lambda summed=summed: summed(batch, x, 0.97))
        np.testing.assert_array_equal(one, other)
        assert np.abs(one - x).max() > 0.1


@pytest.mark.exact
@pytest.mark.parametrize("way", WAYS)
def test_soft_backups_are_the_same_bits(monkeypatch, way):
    dynamics = SharedDynamics(four_rooms(temperature=0.003), np.zeros(105))
    rng = np.random.default_rng(0)
    reward, value = rng.standard_normal((2, 104, 4)), rng.standard_normal((2, 104))
    for one, other in zip(*both(monkeypatch, way, lambda: dynamics.soft_backup(reward, value)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.exact
@pytest.mark.parametrize("way", WAYS)
def test_a_training_is_the_same_bits(monkeypatch, way):
    names = [
        name for name in METHODS[ConfigurableMDP] if name != "hpgd_oracle"
    ]  # whose long batches take plain Python long
    runs = [Run(method=name, seed=seed, learning_rate=0.1) for name in names for seed in range(2)]
    whole = Training(
        problem=four_rooms(temperature=0.003),
        simulator=published_simulator(four_rooms(temperature=0.003, kernel="paper")),
        runs=runs,
        iterations=4,
        steps=60,
        evaluate_every=2,
    )
    if way == "plain":
        whole = replace(whole, iterations=2, runs=runs[::2])
    for training in (whole, replace(whole, follower=SweepingFollower(iterations=2))):
        one, other = both(monkeypatch, way, lambda training=training: train(training))
        np.testing.assert_array_equal(one.thetas, other.thetas)
        np.testing.assert_array_equal(one.objective, other.objective)
    assert np.ptp(one.thetas, axis=0).max() > 0.01


@pytest.mark.exact
def test_loops_are_not_compiled_where_numba_is_missing_or_turned_off(monkeypatch):
    fresh = compiled_module._compile.__wrapped__
    monkeypatch.setitem(sys.modules, "numba", None)
    assert fresh(compiled_module.trace_loop) is None
    off = SimpleNamespace(config=SimpleNamespace(DISABLE_JIT=1))
    monkeypatch.setitem(sys.modules, "numba", off)
    assert fresh(compiled_module.trace_loop) is None

    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda loop: loop

    homeless = SimpleNamespace(config=SimpleNamespace(DISABLE_JIT=0), njit=njit)
    monkeypatch.setitem(sys.modules, "numba", homeless)
    assert fresh(compiled_module.trace_loop) is compiled_module.trace_loop
