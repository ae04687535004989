"""What the package makes pickles and copies, and gives the same bits afterwards."""

import copy
import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import ESTIMATORS, Context, ExactCritic, Objective, sample_trajectories
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.contexts import Mixture
from bilevelrl.tasks import TASKS, make_task, random_markov_game, random_mdp, scenarios
from bilevelrl.tasks.generators.mdps import small_problems
from bilevelrl.tasks.generators.smooth_mdp import smooth_mdp
from bilevelrl.tasks.scenarios.main_job import paper_scenarios, small_scenarios

PROBLEMS = {
    **{name: make_task(name) for name in TASKS},
    **{f"small, {name}": made[0] if isinstance(made, tuple) else made for name, made in small_problems().items()},
    "regularised game": random_markov_game(regularised=True),
    **{f"listed, {on.name}": on.problem for on in small_scenarios()},
}


def theta_of(problem):
    shape = (3,) if problem.theta_shape is None else problem.theta_shape
    return 0.1 * np.random.default_rng(5).standard_normal(shape)


def same(problem, again, theta):
    found, repeated = (hypergradient(each, theta, horizon=30, bound=False) for each in (problem, again))
    return np.array_equal(found.value, repeated.value) and found.objective == repeated.objective


def with_discount(problem):
    if isinstance(problem, Mixture):
        return replace(problem, contexts=[with_discount(context) for context in problem.contexts])
    return replace(problem, discount_leader=0.5)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_and_what_is_computed_from_them(name):
    problem = PROBLEMS[name]
    theta = theta_of(problem)
    for again in (pickle.loads(pickle.dumps(problem)), copy.deepcopy(problem)):
        assert same(problem, again, theta)
        assert same(problem, pickle.loads(pickle.dumps(again)), theta)
    hastier = with_discount(problem)
    assert same(hastier, pickle.loads(pickle.dumps(hastier)), theta)
    assert not same(problem, pickle.loads(pickle.dumps(hastier)), theta)
    follower = solve_follower(problem, theta)
    assert pickle.loads(pickle.dumps(follower)).residual == follower.residual


@pytest.mark.parametrize("scenario", [*scenarios(kind=object), *paper_scenarios()], ids=lambda on: on.name)
def test_scenarios(scenario):
    again = pickle.loads(pickle.dumps(scenario))
    assert same(scenario.problem, again.problem, scenario.theta)
    assert np.array_equal(again.theta, scenario.theta)


@pytest.mark.parametrize(("name", "entry"), ESTIMATORS.items())
def test_estimators(name, entry):
    estimator = entry.make(Objective(horizon=3))
    for again in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        assert again == estimator
        assert type(again) is type(estimator)


def test_an_estimate_goes_on_from_pickled_pieces():
    problem, theta = random_mdp(states=3, actions=2, parameters=2, seed=1), np.array([0.2, -0.1])
    follower = solve_follower(problem, theta)
    batch = sample_trajectories(problem, theta, follower, streams=4, steps=3, rng=np.random.default_rng(0))
    context = Context(problem=problem, theta=theta, follower=follower)
    critic = ExactCritic.solve(problem, theta, follower.policy, horizon=3)
    estimator = ESTIMATORS["bc_hg"].make(Objective(horizon=3))
    pieces = pickle.loads(pickle.dumps((estimator, batch, context, critic)))
    assert np.array_equal(pieces[0].estimate(pieces[1], pieces[2]).mean, estimator.estimate(batch, context).mean)
    assert np.array_equal(pieces[3].value(np.arange(3), steps_to_go=2), critic.value(np.arange(3), steps_to_go=2))
    found = hypergradient(problem, theta)
    restored = pickle.loads(pickle.dumps(found))
    assert np.array_equal(restored.value, found.value)
    assert np.array_equal(restored.follower.policy, follower.policy)


def test_arguments_are_kept_as_they_were():
    support = np.ones((2, 1, 2), dtype=bool)
    problem = smooth_mdp(
        name="pair",
        seed=0,
        support=support,
        initial_support=np.ones(2, dtype=bool),
        parameters=2,
        temperature=1.0,
        discount_leader=0.5,
        discount_follower=0.9,
    )
    support[0, 0, 0] = False
    assert same(problem, pickle.loads(pickle.dumps(problem)), np.array([0.1, 0.2]))


def _gradient(problem, theta):
    return hypergradient(problem, theta, bound=False).value


@pytest.mark.slow
def test_a_new_process_computes_the_same():
    names = ["four_rooms", "random_mdp", "building_thermal_control", "random_lqr_game"]
    thetas = [theta_of(PROBLEMS[name]) for name in names]
    arguments = [(PROBLEMS[name], theta) for name, theta in zip(names[:3], thetas[:3], strict=True)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.starmap(_gradient, arguments)
    for (problem, theta), value in zip(arguments, found, strict=True):
        assert np.array_equal(value, _gradient(problem, theta))


def test_a_local_function_of_ones_own_still_does_not_pickle():
    problem = PROBLEMS["random_mdp"]
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"local|lambda"):
        pickle.dumps(replace(problem, tables=lambda theta: problem.tables(theta)))
