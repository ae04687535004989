"""HPGD's contextual table: the rivals are what they say, and the table stands beside the published one."""

import numpy as np
import pytest

from bilevelrl.benchmarks.research.contextual.rivals import PAY, AlternatingTables, RivalTraining
from bilevelrl.benchmarks.research.contextual.table import FIGURES, METHODS_SHOWN, PUBLISHED, contextual_training
from bilevelrl.benchmarks.sweeping.figures import FigureOptions
from bilevelrl.estimators.training import Run, train
from bilevelrl.reference import hypergradient
from bilevelrl.reference.approximations import approximate_hypergradient
from bilevelrl.reference.contexts import Mixture
from bilevelrl.tasks import random_mdp

pytestmark = pytest.mark.exact

MEMBERS = [
    random_mdp(states=3, actions=2, parameters=3, seed=seed, theta_in=("reward_follower", "reward_leader"))
    for seed in (0, 1)
]
MIXTURE = Mixture(contexts=MEMBERS, weights=[0.3, 0.7])
THETA = np.array([0.3, -0.5, 0.2])


def test_tables_that_are_swept_long_enough_are_exact_and_few_sweeps_are_not():
    tables, exact = AlternatingTables(MEMBERS[0], THETA), hypergradient(MEMBERS[0], THETA).value
    tables.sweep(THETA, sweeps=5)
    assert np.abs(tables.gradient() - exact).max() > 1e-2
    tables.sweep(THETA, sweeps=400)  # .9 to this power is 5e-19
    np.testing.assert_allclose(tables.gradient(), exact, rtol=1e-9, atol=1e-11)


def world_of(method, **options):
    training = RivalTraining(
        problem=MIXTURE, runs=[Run(method=method, seed=0, learning_rate=0.1)], iterations=100, **options
    )
    return training, training.world(training.generators())


def test_zero_order_is_the_slope_along_its_noise_in_the_context_drawn():
    training, world = world_of("zero_order", smoothing=1e-6)
    rng = training.generators()[0]
    seen = set()
    for iteration in range(12):
        place, noise = int(rng.random() >= 0.3), rng.standard_normal(3)
        seen.add(place)
        world.prepare(THETA[None], 0)
        slope = hypergradient(MEMBERS[place], THETA).value @ noise
        # h J'' / 2 and the rounding of values over h, both below 1e-5 here.
        np.testing.assert_allclose(world.direction(THETA[None], 0)[0], slope * noise, rtol=0.0, atol=1e-4)
        assert iteration < 100
    assert seen == {0, 1}


def test_the_penalty_is_its_exact_expectation():
    _, world = world_of("penalty")
    expected = approximate_hypergradient(MIXTURE, THETA, "value_penalty_one_sided", PAY)
    np.testing.assert_array_equal(world.direction(THETA[None], 0)[0], expected)
    assert np.abs(expected - hypergradient(MIXTURE, THETA).value).max() > 1e-4


def test_rivals_resume(tmp_path):
    runs = [Run(method=method, seed=0, learning_rate=0.1) for method in ("amd", "zero_order", "penalty")]
    training = RivalTraining(problem=MIXTURE, runs=runs, iterations=4, evaluate_every=1)
    whole = train(training)
    path = tmp_path / "half.npz"
    train(training, checkpoint=path, checkpoint_every=1, callbacks=[lambda entry: entry.iteration < 1])
    np.testing.assert_array_equal(train(training, checkpoint=path).thetas, whole.thetas)
    other = RivalTraining(problem=MIXTURE, runs=runs, iterations=4, evaluate_every=1, smoothing=0.1)
    assert other.fingerprint() != training.fingerprint()


def test_every_cell_is_published_and_every_method_is_in_the_table():
    rows = [
        {"temperature": b, "coefficient": c, "method": method, "seed": seed, "final_objective": 0.1 * seed}
        for b, c in PUBLISHED
        for method in METHODS_SHOWN
        for seed in (1, 3)
    ]
    (figure,) = FIGURES
    table = figure.table(rows, FigureOptions(seeds=2, iterations=10))
    lines = table.splitlines()
    assert len(lines) == 4 + 9
    assert "0.200 ± 0.100 (2)" in lines[4]
    assert lines[4].startswith("| 0.001 | 1 | .91 ± .088 | .58 | .59 ± .059 |")
    for method in METHODS_SHOWN:
        training = contextual_training(temperature=0.003, coefficient=1.0, method=method, seeds=2, iterations=10)
        assert {run.method for run in training.runs} == {method}
