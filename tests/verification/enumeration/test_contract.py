"""Every way to break an estimator's contract is named; nothing else is touched."""

import sys
import threading

import numpy as np
import pytest

from bilevelrl.estimators import Draw, NaivePGD
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import EstimatorError, SupportError
from bilevelrl.tasks import Scenario, layered_mdp, random_mdp
from bilevelrl.verification import enumerate_moments
from bilevelrl.verification.enumeration import contract
from bilevelrl.verification.pipeline.scenario_rows import enumerated_row

PROBLEM = layered_mdp(layers=2, width=2, parameters=3, seed=6)
THETA = np.zeros(3)


def right(trajectories, context):
    return np.repeat(trajectories.reward_leader_t.sum(axis=1)[:, None], 3, axis=1)


def with_nan(trajectories, context):
    rows = right(trajectories, context)
    rows[3, 1] = np.nan
    return rows


def in_place(trajectories, context):
    trajectories.reward_leader_t[:] *= context.problem.discount_leader
    return right(trajectories, context)


def forced_in_place(trajectories, context):
    trajectories.reward_leader_t.flags.writeable = True
    trajectories.reward_leader_t[:] += 1.0
    return right(trajectories, context)


def changes_theta(trajectories, context):
    context.theta[0] = 1.0
    return right(trajectories, context)


def changes_the_follower(trajectories, context):
    context.follower.policy[0, 0] += 0.25
    return right(trajectories, context)


def hidden_randomness(trajectories, context):
    return right(trajectories, context) + np.random.default_rng().standard_normal((trajectories.streams, 1))


def global_randomness(trajectories, context):
    return right(trajectories, context) + np.random.standard_normal((trajectories.streams, 1))  # noqa: NPY002


def in_batch_average(trajectories, context):
    rows = right(trajectories, context)
    return rows - rows.mean(axis=0)


def crashes(trajectories, context):
    return trajectories.no_such_array


VIOLATIONS = {
    "a mean": (lambda t, c: right(t, c).mean(axis=0), r"a mean of shape \(3,\).*one row per trajectory"),
    "a scalar": (lambda t, c: 1.0, r"shape \(\); expected \(16, 3\)"),
    "transposed": (lambda t, c: right(t, c).T, r"shape \(3, 16\); expected \(16, 3\)"),
    "too few parameters": (lambda t, c: right(t, c)[:, :2], r"shape \(16, 2\)"),
    "ragged": (lambda t, c: [[1.0], [1.0, 2.0]], "ragged"),
    "complex": (lambda t, c: right(t, c) + 0j, "dtype complex128; expected real"),
    "nothing": (lambda t, c: None, "dtype object|shape"),
    "text": (lambda t, c: np.full((t.streams, 3), "a"), "dtype <U1; expected real"),
    "no parts": (lambda t, c: {}, "no parts"),
    "a part of a wrong shape": (lambda t, c: {"direct": np.zeros(3)}, "part 'direct'"),
    "not a number": (with_nan, "nan at draw 3, parameter 1; expected finite"),
    "infinite": (lambda t, c: right(t, c) / 0.0, "inf at draw 0"),
    "an exception": (crashes, "raised AttributeError.*no_such_array"),
    "writes": (in_place, "tried to change its input.*work on a copy"),
    "writes by force": (forced_in_place, r"trajectories\.reward_leader_t; work on a copy"),
    "writes to θ": (changes_theta, "tried to change its input"),
    "writes to the follower": (changes_the_follower, r"context\.follower\.policy; work on a copy"),
    "hidden randomness": (hidden_randomness, "two calls on the same trajectories differ"),
    "global randomness": (global_randomness, "hidden global state"),
    "in-batch average": (in_batch_average, "depends on the other trajectories.*Draw.BATCH"),
}


@pytest.mark.exact
@pytest.mark.parametrize("many", [8, contract.MANY])  # of 16 streams: held on some of them, on all
@pytest.mark.parametrize("violation", VIOLATIONS)
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_violations_are_named(violation, many, monkeypatch):
    monkeypatch.setattr(contract, "MANY", many)
    call, message = VIOLATIONS[violation]
    # A follower of its own: one of the violations writes to it.
    follower = solve_follower(PROBLEM, THETA)
    with pytest.raises(EstimatorError, match=message) as caught:
        enumerate_moments(call, PROBLEM, THETA, horizon=2, follower=follower)
    assert getattr(call, "__name__", "") in str(caught.value)


@pytest.mark.exact
def test_many_streams_are_answered_once_all_together(monkeypatch):
    def counted(trajectories, context):
        calls.append(trajectories.streams)
        return right(trajectories, context)

    calls = []
    whole = enumerate_moments(counted, PROBLEM, THETA, horizon=2)
    assert calls.count(16) > 1
    monkeypatch.setattr(contract, "MANY", 8)
    calls.clear()
    np.testing.assert_array_equal(enumerate_moments(counted, PROBLEM, THETA, horizon=2).mean, whole.mean)
    assert calls[0] == 16
    assert max(calls[1:]) == 4


@pytest.mark.exact
def test_the_cause_of_an_exception_is_kept():
    with pytest.raises(EstimatorError) as caught:
        enumerate_moments(crashes, PROBLEM, THETA, horizon=2)
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.exact
def test_our_own_refusals_pass_unchanged():
    def refuses(trajectories, context):
        raise SupportError("where the support changes there is no score")

    with pytest.raises(SupportError, match="where the support changes"):
        enumerate_moments(refuses, PROBLEM, THETA, horizon=2)


@pytest.mark.exact
def test_what_keeps_the_contract_passes():
    whole = enumerate_moments(right, PROBLEM, THETA, horizon=2)
    parts = enumerate_moments(
        lambda t, c: {"direct": right(t, c), "response": 0 * right(t, c)}, PROBLEM, THETA, horizon=2
    )
    integers = enumerate_moments(lambda t, c: np.ones((t.streams, 3), dtype=int), PROBLEM, THETA, horizon=2)
    np.testing.assert_array_equal(whole.mean, parts.mean)
    np.testing.assert_array_equal(parts.parts["direct"], parts.mean)
    np.testing.assert_allclose(integers.mean, 1.0, rtol=1e-15)
    assert whole.parts == {}
    # The batch average that is refused as rows is welcome as a batch.
    batched = enumerate_moments(lambda t, c: right(t, c).mean(axis=0), PROBLEM, THETA, horizon=2, batch=2)
    np.testing.assert_allclose(batched.mean, whole.mean, rtol=1e-13)


@pytest.mark.exact
def test_rows_that_are_not_the_sum_of_parts_are_named():
    class Inconsistent(NaivePGD):
        def __call__(self, trajectories, context):
            return 2.0 * super().__call__(trajectories, context)

    with pytest.raises(EstimatorError, match="not the sum of its parts"):
        enumerate_moments(Inconsistent(), PROBLEM, THETA, horizon=2)


@pytest.mark.exact
def test_a_batch_estimator_must_be_given_a_batch():
    class Batched(NaivePGD):
        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "draw", Draw.BATCH)

    with pytest.raises(EstimatorError, match="pass batch=m"):
        enumerate_moments(Batched(), PROBLEM, THETA, horizon=2)


@pytest.mark.exact
def test_a_broken_estimator_is_a_failed_row_not_a_crash():
    problem = layered_mdp(layers=2, parameters=3)
    row, _ = enumerated_row(with_nan, Scenario(problem=problem, theta=np.ones(3), horizon=2, tags=frozenset({"ends"})))
    assert row.verdict.outcome.value == "failed"
    assert "nan at draw" in row.verdict.reason


@pytest.mark.exact
def test_inputs_are_protected_not_copied_back():
    problem = random_mdp(states=2, actions=2, parameters=2, seed=4)
    theta = np.array([0.5, -0.5])
    kept = theta.copy()
    enumerate_moments(lambda t, c: np.repeat(c.theta[None], t.streams, axis=0), problem, theta, horizon=2)
    np.testing.assert_array_equal(theta, kept)
    assert theta.flags.writeable


def test_threads_leave_standard_output_where_it_was():
    """Two estimators at work at once: the first to begin ends before the other does."""
    began, ended, stream = [threading.Event(), threading.Event()], threading.Event(), sys.stdout

    def first(trajectories, context):
        began[0].set()
        assert began[1].wait(20)
        return right(trajectories, context)

    def second(trajectories, context):
        began[1].set()
        assert ended.wait(20)
        return right(trajectories, context)

    def work(estimator):
        enumerate_moments(estimator, PROBLEM, THETA, horizon=2)

    threads = [threading.Thread(target=work, args=(estimator,)) for estimator in (first, second)]
    threads[0].start()
    assert began[0].wait(20)
    threads[1].start()
    threads[0].join()
    ended.set()
    threads[1].join()
    assert sys.stdout is stream
