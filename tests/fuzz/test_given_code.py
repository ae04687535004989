"""What a caller's own code raises leaves as `CallableError`: the function, its argument, θ and the cause are told."""

import dataclasses
import pickle
import types

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context, TabularSimulator, sample_trajectories
from bilevelrl.estimators.training import Run, Training, train
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import BilevelRLError, CallableError, InvalidInputError
from bilevelrl.tasks import layered_mdp, random_markov_game, scenario
from bilevelrl.verification import (
    assert_matches_truth,
    assert_unbiased,
    assert_variance_below,
    check_estimator,
    enumerate_moments,
    judge_draws,
    run_study,
)
from bilevelrl.verification.mutants.attribution import attribute

THETA = np.array([0.25, -0.5, 0.125])


class PlantedError(Exception):
    """What a caller's function raises."""


def failing(*args, **kwargs):
    raise PlantedError("on purpose")


class Failing(BCHG):
    def contributions(self, trajectories, context):
        return failing()


def problem_and_batch():
    problem = layered_mdp(seed=0)
    follower = solve_follower(problem, THETA)
    context = Context(problem=problem, theta=THETA, follower=follower)
    batch = sample_trajectories(problem, THETA, follower, streams=4, steps=3, rng=np.random.default_rng(0))
    return problem, batch, context


def _enumerated(estimator):
    enumerate_moments(estimator, layered_mdp(seed=0), THETA, horizon=2)


def _estimated():
    _, batch, context = problem_and_batch()
    Failing().estimate(batch, context)


def _trained(**changes):
    runs = [Run(method="bc_hg", seed=0, learning_rate=0.5)]
    training = Training(problem=layered_mdp(seed=0), runs=runs, iterations=2, streams=2, steps=3)
    train(training, **changes)


def _trained_with_a_failing_method(monkeypatch):
    monkeypatch.setattr(BCHG, "contributions", Failing.contributions)
    _trained()


THETA_SAID = r"at theta=\[ ?0\.25"

CALLS = {
    "estimator": (lambda: _enumerated(failing), r"estimator: failing: raised PlantedError: on purpose; " + THETA_SAID),
    "estimator, its method": (_estimated, r"Failing\.contributions: raised PlantedError: on purpose; " + THETA_SAID),
    "estimator, unbiased": (
        lambda: assert_variance_below(failing, 1.0, "bandit"),
        r"estimator: failing: .*theta=\[0.3\]",
    ),
    "progress": (
        lambda: judge_draws(np.random.default_rng(0).standard_normal((50, 1)), "bandit", progress=failing),
        r"progress: failing: raised PlantedError",
    ),
    "progress of a study": (
        lambda: run_study(on=[scenario("bandit")], estimators=["bc_hg"], samples=[1], replicates=2, progress=failing),
        r"progress: failing: raised PlantedError",
    ),
    "measure": (lambda: attribute(failing, np.zeros(2), causes=["a"]), r"measure: failing: raised PlantedError"),
    "callback": (lambda: _trained(callbacks=[failing]), r"failing: raised PlantedError: on purpose; at theta=\[\["),
    "iterator": (
        lambda: judge_draws((failing() for _ in range(2)), "bandit"),
        r"<genexpr>: raised PlantedError",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_function_its_argument_theta_and_the_cause_are_told(name):
    call, message = CALLS[name]
    with pytest.raises(CallableError, match=message) as refused:
        call()
    assert isinstance(refused.value.__cause__, PlantedError)
    assert "on purpose" in str(pickle.loads(pickle.dumps(refused.value)))


def test_a_training_says_which_method_failed_and_where(monkeypatch):
    with pytest.raises(CallableError, match=r"^Failing\.contributions: raised PlantedError: on purpose; at theta=\["):
        _trained_with_a_failing_method(monkeypatch)


def test_tables_and_policies_say_at_which_theta():
    problem = dataclasses.replace(layered_mdp(seed=0), tables=failing)
    game = dataclasses.replace(random_markov_game(seed=0), policy=failing, theta_shape=(4,))
    moved = TabularSimulator(dynamics=problem)
    right, _, context = problem_and_batch()
    calls = (
        lambda: hypergradient(problem, THETA),
        lambda: hypergradient(game, np.array([0.25, 0.0, 0.0, 0.0])),
        lambda: sample_trajectories(
            right, THETA, context.follower, streams=1, steps=1, rng=np.random.default_rng(0), simulator=moved
        ),
    )
    for call in calls:
        with pytest.raises(InvalidInputError, match=r"raised PlantedError: on purpose; at theta=\[ ?0\.25") as refused:
            call()
        assert isinstance(refused.value.__cause__, PlantedError)


def test_checks_report_what_raised_as_a_broken_contract():
    (result,) = check_estimator(failing, [scenario("bandit")])
    assert result.check == "contract"
    assert "failing: raised PlantedError: on purpose; at theta=[0.3]" in result.verdict.reason
    for call in (lambda: assert_unbiased(failing, "bandit"), lambda: assert_matches_truth(failing, "bandit")):
        with pytest.raises(AssertionError, match="failing: raised PlantedError: on purpose"):
            call()


def test_what_is_written_in_c_is_named_too():
    with pytest.raises(CallableError, match=r"estimator: dict: raised TypeError"):
        assert_variance_below(dict, 1.0, "bandit")


def test_a_fault_of_the_package_is_left_as_it_is():
    def ours(count: int, function: object = None) -> int:
        return count // (count - count)

    planted = types.FunctionType(ours.__code__, {"__name__": "bilevelrl.planted", "__builtins__": __builtins__})
    with pytest.raises(ZeroDivisionError):
        checked(planted)(1, failing)


def test_a_refusal_of_the_package_inside_a_caller_s_function_passes():
    def calls_back(trajectories, context):
        solve_follower(context.problem, "nonsense")

    with pytest.raises(BilevelRLError, match=r"^theta") as refused:
        _enumerated(calls_back)
    assert not isinstance(refused.value, CallableError)


def test_readers_that_have_seen_enough_are_heard():
    def closed(*args):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        judge_draws(np.random.default_rng(0).standard_normal((50, 1)), "bandit", progress=closed)


def test_what_a_record_carries_is_named_by_its_field():
    class Critic:
        def action_value(self, state, action, *, steps_to_go=None):
            raise PlantedError("no values")

        value = action_value

    _, batch, context = problem_and_batch()
    message = r"context\.critic: Critic\.action_value: raised PlantedError: no values; " + THETA_SAID
    with pytest.raises(CallableError, match=message):
        BCHG(critic="context").estimate(batch, dataclasses.replace(context, critic=Critic()))
