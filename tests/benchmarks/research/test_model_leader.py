"""Leaders that learn the kernel: alone as together, interrupted as uninterrupted, refused where they make no sense."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.benchmarks.research.model_based import ModelTraining, Planner, RandomStarts
from bilevelrl.estimators.training import SGD, Adam, Run, train
from bilevelrl.estimators.training import loop as loop_module
from bilevelrl.reference import leader_objective, named_stream
from bilevelrl.reference.errors import CallableError, InvalidInputError, UnknownNameError
from bilevelrl.tasks import four_rooms

SMALL = Planner(screened=12, kept=2, steps=4)
JUMPS = {"largest_norm": np.inf, "plans": (3, 5), "decision": 7, "planner": SMALL, "remembered": 4}


def leaders(methods=("model_leader", "values_leader"), **options):
    settings = {"iterations": 9, "streams": 2, "steps": 50, "evaluate_every": 2, "entropy": 3, **JUMPS, **options}
    runs = [Run(method=method, seed=seed, learning_rate=1.0) for method in methods for seed in (0, 1)]
    return ModelTraining(**{"problem": four_rooms(temperature=0.005), "runs": runs, **settings})


def assert_same(one, other, rows=slice(None)):
    np.testing.assert_array_equal(one.thetas, other.thetas[rows])
    for name, values in one.values.items():
        np.testing.assert_array_equal(values, other.values[name][:, rows], err_msg=name)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_every_run_is_the_run_alone(noise):
    together = leaders(("model_leader", "values_leader", "model_ascent"), value_noise=noise)
    history = train(together)
    for row in (1, 2, 4):
        assert_same(train(replace(together, runs=[together.runs[row]])), history, [row])


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 6])
def test_a_killed_training_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch, stop):
    training = leaders(("model_leader", "values_leader", "model_ascent"), value_noise=1e-3)
    advance = loop_module._Loop.advance

    def dies(loop):
        if loop.iteration == stop:
            raise StoppedError
        return advance(loop)

    monkeypatch.setattr(loop_module._Loop, "advance", dies)
    with pytest.raises(CallableError) as stopped:
        train(training, checkpoint=tmp_path / "half.npz", checkpoint_every=1)
    assert isinstance(stopped.value.__cause__, StoppedError)
    monkeypatch.undo()
    assert_same(train(training, checkpoint=tmp_path / "half.npz"), train(training))


def test_the_search_on_a_model_from_values_promises_what_it_gets():
    # 130 plays determine the kernel of 104 states; fewer do not.
    planner = Planner(screened=40, kept=2, steps=10)
    history = train(
        leaders(
            ("values_leader",), iterations=132, plans=(129,), decision=None, remembered=130, planner=planner, steps=2
        )
    )
    promised, got = history.values["model_objective"][-1], history.values["objective"][-1]
    np.testing.assert_allclose(promised, got, rtol=0, atol=1e-5)
    assert (history.values["cosine"][-1] > 1.0 - 1e-8).all()
    early = train(
        leaders(("values_leader",), iterations=62, plans=(59,), decision=None, remembered=60, planner=planner)
    )
    assert (np.abs(early.values["model_objective"][-1] - early.values["objective"][-1]) > 1e-3).all()


def test_ascent_on_the_counted_model_points_where_the_exact_hypergradient_does_once_it_has_seen_enough():
    runs = [Run(method="model_ascent", seed=seed, learning_rate=0.1) for seed in (0, 1)]
    history = train(leaders(runs=runs, iterations=101, streams=5, steps=200, evaluate_every=100, decision=None))
    first, last = history.values["cosine"]
    assert (last > 0.98).all()
    assert (last > first).all()


def test_leaders_decide_for_the_best_plan_that_they_saw_played():
    history, rows = train(leaders(iterations=12, evaluate_every=1)), range(4)
    objective = dict(zip(history.iterations.tolist(), history.objective, strict=True))
    for row in rows:
        played = [objective[4][row], objective[6][row]]
        # Followers that come from elsewhere are the same to their tolerance of 1e-9.
        assert min(abs(objective[8][row] - each) for each in played) < 1e-8
        assert abs(objective[8][row] - objective[11][row]) < 1e-8


def test_planning_finds_the_best_of_what_it_looks_at():
    problem = four_rooms(temperature=0.003)
    planner = Planner(screened=30, kept=3, steps=5)
    incumbent = RandomStarts().draw(named_stream(1, "plan"), 1, 105)
    plan = planner.plan(problem, named_stream(0, "plan"), incumbent)
    assert plan.ends.shape == (4, 105)
    assert plan.objective == plan.objectives[0] == plan.objectives.max()
    for theta, objective in zip(plan.ends, plan.objectives, strict=True):
        assert abs(leader_objective(problem, theta) - objective) < 1e-6
    screened = RandomStarts().draw(named_stream(0, "plan"), 30, 105)
    best = max(leader_objective(problem, theta) for theta in [*screened, incumbent[0]])
    assert plan.objective >= best - 1e-6


def test_values_are_read_with_the_declared_error_by_those_who_read_values_alone():
    training = leaders(remembered=6, value_noise=1e-3)
    worlds = [replace(training, value_noise=noise).world(training.generators()) for noise in (0.0, 1e-3)]
    for iteration, theta in enumerate(named_stream(0, "values", "test").standard_normal((6, 105))):
        for each in worlds:
            each.prepare(np.stack([theta] * 4), iteration)
    exact, read = (each.values for each in worlds)
    errors = (read / exact - 1.0).ravel()  # 2,496 independent draws
    assert abs(errors.mean()) < 5e-3 / np.sqrt(errors.size)
    assert abs(errors.std() - 1e-3) < 5e-3 / np.sqrt(2.0 * errors.size)
    assert len(set(np.round(errors, 12))) == errors.size // 2  # runs of one seed read the same
    problem = training.problem
    # What is expected of the next state takes the error along: V_F(s) enters it as it was read.
    np.testing.assert_allclose(
        worlds[1].expected - worlds[0].expected,
        np.broadcast_to((read - exact)[..., None] / problem.discount_follower, worlds[0].expected.shape),
        rtol=0,
        atol=1e-12,
    )
    rows = [training.runs.index(run) for run in training.runs if run.method == "model_leader"]
    with_noise, without = train(leaders(value_noise=1e-3)), train(leaders())
    np.testing.assert_array_equal(with_noise.thetas[rows], without.thetas[rows])
    assert np.abs(with_noise.thetas - without.thetas).max() > 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plans": ()}, "plans"),
        ({"plans": (5, 5)}, "plans"),
        ({"plans": (-1, 5)}, "plans"),
        ({"decision": 5}, "decision"),
        ({"pooling": 0.0}, "pooling"),
        ({"remembered": 0}, "remembered"),
        ({"largest_norm": 1.0}, "jump"),
        ({"optimiser": Adam()}, "jump"),
        ({"optimiser": SGD(momentum=0.5)}, "jump"),
        ({"schedule": "linear"}, "jump"),
        ({"ascent_steps": 2}, "ascent_steps"),
        ({"start_scale": -1.0}, "start_scale"),
        ({"value_noise": -1e-3}, "value_noise"),
        ({"value_noise": 0.5}, "value_noise"),
        ({"runs": [Run(method="model_leader", seed=0, learning_rate=0.5)]}, "jump"),
        ({"problem": replace(four_rooms(), theta_shape=None)}, "theta_shape"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        leaders(**options)


def test_unknown_methods_are_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="model_leader"):
        leaders(runs=[Run(method="model_leder", seed=0, learning_rate=1.0)])


@pytest.mark.exact
def test_plans_must_be_made_before_the_end():
    with pytest.raises(InvalidInputError, match="iterations=20: expected more than 600"):
        ModelTraining(
            problem=four_rooms(),
            runs=[Run(method="model_leader", seed=0, learning_rate=1.0)],
            iterations=20,
            largest_norm=np.inf,
        )
