"""Training where θ enters the dynamics, or the kernel is sparse: each run by itself, with the numbers of the others."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators.followers import (
    ExpectedSoftQLearning,
    Imitation,
    SoftQLearning,
    SweepingFollower,
    WatchedFollower,
)
from bilevelrl.estimators.training import METHODS, Adam, Run, Training, train
from bilevelrl.estimators.training.worlds.separate import SeparateWorld
from bilevelrl.reference import ConfigurableMDP, hypergradient, leader_objective
from bilevelrl.tasks import four_rooms, grid_rooms, random_mdp

RUNS = [Run(method=name, seed=seed, learning_rate=0.1) for name in METHODS[ConfigurableMDP] for seed in range(2)]


def assert_same(one, other):
    np.testing.assert_array_equal(one.thetas, other.thetas)
    for name, values in one.values.items():
        np.testing.assert_array_equal(values, other.values[name], err_msg=name)


def moving(**options):
    settings = {"runs": RUNS, "iterations": 3, "streams": 3, "steps": 20, "evaluate_every": 1, "start_scale": 0.5}
    return Training(**{"problem": random_mdp(seed=4), **settings, **options})


@pytest.mark.exact
@pytest.mark.parametrize(
    "follower",
    [
        None,
        SweepingFollower(iterations=1, noise=0.0),
        SoftQLearning(steps=40),
        ExpectedSoftQLearning(updates=40),
        Imitation(observed=40),
        WatchedFollower(observed=40),
    ],
)
def test_runs_one_by_one_give_the_numbers_of_runs_together(follower):
    together = Training(
        problem=four_rooms(temperature=0.005),
        runs=RUNS,
        iterations=2,
        streams=2,
        steps=40,
        evaluate_every=1,
        **({} if follower is None else {"follower": follower}),
    )
    generators = together.generators()
    alone, shared = SeparateWorld(together, generators), together.world(together.generators())
    assert not isinstance(shared, SeparateWorld)
    thetas = together.start()
    for k in range(2):
        for world in (alone, shared):
            world.prepare(thetas, k)
        found, expected = alone.direction(thetas, 0), shared.direction(thetas, 0)
        # Both followers are solved to 1e-9 of values of size 1, at β = .005; the rest is rounding.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())
        values, others = alone.evaluate(thetas, found), shared.evaluate(thetas, expected)
        assert set(values) == set(others)
        for name, each in values.items():
            np.testing.assert_allclose(each, others[name], rtol=1e-5, atol=1e-6, err_msg=name)
        thetas = thetas + 0.1 * expected


@pytest.mark.exact
def test_ascent_with_theta_in_the_dynamics_is_exact_and_climbs():
    training = moving(runs=[Run(method="exact", seed=0, learning_rate=0.05)], iterations=30, largest_norm=np.inf)
    problem, theta = training.problem, training.start()[0]
    assert {"transition"} <= problem.varying(theta)
    history = train(training)
    assert history.objective[0, 0] == pytest.approx(leader_objective(problem, theta), rel=1e-13)
    first = train(replace(training, iterations=1)).thetas[0]
    np.testing.assert_allclose(first, theta + 0.05 * hypergradient(problem, theta).value, rtol=1e-12)
    assert (np.diff(history.objective[:, 0]) > 0.0).all()
    assert (history.values["relative_error"] == 0.0).all()


@pytest.mark.exact
def test_every_method_trains_and_an_interruption_leaves_no_trace(tmp_path):
    # The one-step form of SoBiRL is of rewards that θ enters.
    runs = [run for run in RUNS if run.method != "sobirl"]
    training = moving(
        problem=random_mdp(seed=4, discount_leader=0.9, discount_follower=0.9),
        runs=runs,
        optimiser=Adam(),
        follower=SweepingFollower(iterations=1, noise=0.1, carry=True),
    )
    whole = train(training)
    assert np.isfinite(whole.thetas).all()
    assert (whole.values["follower_error"] > 0.0).all()
    assert (whole.values["hypergradient_error"] > 0.0).all()
    path = tmp_path / "state.npz"
    train(training, checkpoint=path, checkpoint_every=1, callbacks=[lambda found: found.iteration < 1])
    assert_same(train(training, checkpoint=path), whole)
    for row in (0, 5):
        one = train(replace(training, runs=[runs[row]]))
        np.testing.assert_array_equal(one.thetas[0], whole.thetas[row])


@pytest.mark.exact
def test_a_sparse_kernel_trains():
    problem = grid_rooms(rooms_per_side=2, room_size=3)
    run = Run(method="exact", seed=0, learning_rate=0.5)
    history = train(Training(problem=problem, runs=[run], iterations=3, evaluate_every=1))
    assert np.isfinite(history.objective).all()
    assert (history.values["relative_error"] == 0.0).all()
