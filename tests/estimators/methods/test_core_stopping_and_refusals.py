"""BC-HG and Naive-PGD on configurable MDPs: geometric stopping, sparse kernels, and what is refused."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from core_cases import CONFIGURATIONS, THETA, context_of, enumerate_paths, wrong_table

from bilevelrl.estimators import (
    BCHG,
    Claim,
    Context,
    NaivePGD,
    Objective,
    TabularSimulator,
    sample_trajectories,
)
from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables, hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, SupportError
from bilevelrl.reference.problem import Term
from bilevelrl.tasks import layered_mdp, random_mdp

pytestmark = pytest.mark.exact


# --- geometric stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", ["single", "sum"])
def test_stopping_averages_to_the_plain_sum_on_every_finished_path(stopping: Any) -> None:
    """Given a path that ends, E over (τ, κ) is BC-HG's own row: a finite sum, since times beyond the end are alike."""
    problem = layered_mdp(seed=1)
    context = context_of(problem)
    batch, _ = enumerate_paths(problem, context.follower.policy, 3)
    estimator, steps = BCHG(stopping=stopping), 3
    law = {}
    for name in ("leader", "follower"):
        discount = getattr(problem, f"discount_{name}")
        law[name] = [(1.0 - discount) * discount**t for t in range(steps)] + [discount**steps]
    total = np.zeros((batch.streams, THETA.size))
    for tau, chance_tau in enumerate(law["leader"]):
        for kappa, chance_kappa in enumerate(law["follower"]):
            times = np.tile([tau, kappa], (batch.streams, 1))
            total += chance_tau * chance_kappa * estimator(batch.with_stopping(times), context)
    plain = BCHG()(batch, context)
    np.testing.assert_allclose(total, plain, rtol=0.0, atol=1e-12 * np.abs(plain).max())


@pytest.mark.parametrize("stopping", ["single", "sum"])
@pytest.mark.parametrize("kind", ["random", "terminating", "sparse"])
def test_stopping_is_declared_unbiased_over_an_infinite_horizon(stopping: Any, kind: str) -> None:
    problem = random_mdp(seed=8, termination=0.2 if kind == "terminating" else 0.0)
    if kind == "sparse":
        problem = sparse_twin(problem)
    estimator = BCHG(stopping=stopping)
    assert estimator.claim is Claim.UNBIASED
    expected = estimator.expectation(context_of(problem), horizon=1)
    truth = hypergradient(problem, THETA)
    for part, value in truth.parts.items():
        np.testing.assert_allclose(expected[part], value, rtol=0.0, atol=1e-12 * np.abs(truth.value).max())


@pytest.mark.statistical
@pytest.mark.parametrize("stopping", ["single", "sum"])
def test_stopped_samples_agree_with_the_infinite_horizon_truth(stopping: Any) -> None:
    problem = random_mdp(seed=8, discount_leader=0.6, discount_follower=0.7)
    context = context_of(problem)
    estimator = BCHG(stopping=stopping)
    batch = estimator.sample(
        problem, THETA, context.follower, streams=60_000, steps=1, rng=named_stream(11, "stopping", stopping)
    )
    rows = estimator(batch, context)
    error = rows.std(axis=0, ddof=1) / np.sqrt(rows.shape[0])
    truth = hypergradient(problem, THETA).value
    # Three coordinates at 5 standard errors: false alarm below 2e-6.
    assert (np.abs(rows.mean(axis=0) - truth) < 5.0 * error).all()
    # Power: the truncation bias of streams of the same mean length is seen.
    assert (5.0 * error < 0.25 * np.abs(truth).max()).all()


def test_stopping_needs_streams_that_reach_their_times() -> None:
    problem = random_mdp(seed=8)
    context = context_of(problem)
    batch = sample_trajectories(problem, THETA, context.follower, streams=4, steps=3, rng=named_stream(0, "short"))
    with pytest.raises(EstimatorError, match="without stopping times"):
        BCHG(stopping="sum")(batch, context)
    stopped = batch.with_stopping(np.array([[0, 0], [3, 3], [0, 1], [2, 0]]))
    with pytest.raises(EstimatorError, match=r"stream 1 was observed for 3 steps.*need 7"):
        BCHG(stopping="sum")(stopped, context)


# --- sparse kernels ---------------------------------------------------------------------------------------------------


def sparse_twin(problem: ConfigurableMDP) -> ConfigurableMDP:
    """The same problem with its kernel listed successor by successor."""

    def tables(theta: Any) -> Tables:
        dense = problem.tables(theta)
        states = dense.transition.shape[0]
        successor = np.broadcast_to(np.arange(states), dense.transition.shape)
        kernel = SparseTransition(successor=np.array(successor), probability=dense.transition)
        return dataclasses.replace(dense, transition=kernel)

    return dataclasses.replace(problem, tables=tables, tables_jacobian=None, tables_pullback=None)


@pytest.mark.parametrize("estimator", CONFIGURATIONS)
def test_sparse_kernels_have_the_same_expectation(estimator: BCHG) -> None:
    dense = random_mdp(states=3, seed=5, termination=0.2)
    follower = solve_follower(dense, THETA)
    critic = wrong_table(dense, follower)
    other = random_mdp(states=3, seed=9, termination=0.2)
    for simulators in ((None, None), (TabularSimulator(dynamics=other), TabularSimulator(dynamics=sparse_twin(other)))):
        values = [
            estimator.expectation(context_of(problem, critic=critic, simulator=simulator), horizon=4)
            for problem, simulator in zip((dense, sparse_twin(dense)), simulators, strict=True)
        ]
        for part, value in values[0].items():
            np.testing.assert_allclose(values[1][part], value, rtol=0.0, atol=1e-12, err_msg=part)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": "exakt"}, "critic='exakt'"),
        ({"critic": "exact_truncated"}, "expected a target with a horizon"),
        ({"target": Objective(horizon=3, discounted=False)}, "critic='exact'"),
        ({"stopping": "sum", "critic": "monte_carlo"}, "stopping='sum'"),
        ({"stopping": "sum", "target": Objective(horizon=3)}, "stopping='sum'"),
        ({"stopping": "sum", "normalisation": "episodes"}, "stopping='sum'"),
        ({"stopping": "sum", "guiding_average": "pairs"}, "guiding_average='pairs'"),
        ({"guiding_average": "steps"}, "guiding_average='steps'"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        BCHG(**options)


def test_targets_without_steps_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="horizon=0"):
        Objective(horizon=0)


def test_what_has_no_closed_form_is_refused() -> None:
    context = context_of(random_mdp(seed=0))
    with pytest.raises(EstimatorError, match="ratios"):
        BCHG(normalisation="episodes").expectation(context, horizon=3)
    several = dataclasses.replace(context, simulator=TabularSimulator(single_episode=False))
    with pytest.raises(EstimatorError, match="one episode per stream"):
        BCHG().expectation(several, horizon=3)
    with pytest.raises(InvalidInputError, match="horizon=0"):
        BCHG().expectation(context, horizon=0)
    with pytest.raises(EstimatorError, match=r"context\.critic=None"):
        BCHG(critic="context").expectation(context, horizon=3)
    batch = sample_trajectories(context.problem, THETA, context.follower, streams=2, steps=2, rng=named_stream(0, "x"))
    with pytest.raises(InvalidInputError, match=r"context\.rng=None"):
        BCHG(critic="independent")(batch, context)


def test_scores_outside_the_models_support_are_refused() -> None:
    problem, other = random_mdp(states=3, seed=5), random_mdp(states=3, seed=5, termination=0.2)
    with pytest.raises(SupportError, match="dynamics"):
        BCHG().expectation(context_of(problem, simulator=TabularSimulator(dynamics=other)), horizon=3)


def test_support_is_checked_at_every_new_theta() -> None:
    """A good answer at one θ must not be taken for another θ, where mass appears out of nothing."""

    def tables(theta: Any) -> Tables:
        mass = 0.1 * (theta[0] - 1.0) * theta[1]  # 0 on the line θ_0 = 1, with a slope unless θ_1 = 0
        rows = [anp.ravel(1.0 - mass), anp.ravel(mass), np.array([0.0, 1.0])]
        return Tables(
            transition=anp.reshape(anp.concatenate(rows), (2, 1, 2)),
            reward_follower=np.zeros((2, 1)),
            reward_leader=np.eye(2)[:, :1],
            initial=np.array([1.0, 0.0]),
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    good, bad = np.array([2.0, 1.0]), np.array([1.0, 1.0])
    batch = sample_trajectories(problem, bad, np.ones((2, 1)), streams=4, steps=2, rng=named_stream(0, "support"))
    weights: dict[Term, Any] = {"log_transition": np.ones((4, 2))}
    for _ in range(2):
        assert np.isfinite(problem.pullback(good, batch, weights)).all()
        with pytest.raises(SupportError, match=r"transition\[0, 0, 1\]"):
            problem.pullback(bad, batch, weights)


@pytest.mark.parametrize("scores", ["value", "td_error"])
def test_a_chance_to_end_that_starts_at_zero_is_refused(scores: Any) -> None:
    """Where ∇Σ P ≠ 0 but no episode ends, a baseline of the scores (here the TD error's) loses the whole gradient."""

    def tables(theta: Any, least: float) -> Tables:
        rows = (1.0 - least - theta[0]) * np.array([[0.0, 0.5, 0.5], [0.0, 0.3, 0.7]])
        ending = np.zeros((2, 3))
        return Tables(
            transition=anp.stack([rows, ending, ending]),
            reward_follower=np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]]),
            reward_leader=np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 1.0]]),
            initial=np.array([1.0, 0.0, 0.0]),
        )

    theta = np.zeros(1)
    for least in (0.0, 1e-6):
        problem = ConfigurableMDP(
            tables=partial(tables, least=least), discount_leader=0.9, discount_follower=0.8, temperature=0.5
        )
        context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
        batch = sample_trajectories(problem, theta, context.follower, streams=4, steps=3, rng=named_stream(0, "end"))
        if least == 0.0:
            with pytest.raises(SupportError, match=r"sum of transition\[0, 0\]=1"):
                BCHG(scores=scores).estimate(batch, context)
        else:
            assert np.isfinite(BCHG(scores=scores).estimate(batch, context).mean).all()


def test_contexts_that_do_not_fit_are_refused_by_name() -> None:
    problem, other = random_mdp(states=2, actions=2, seed=0), random_mdp(states=3, actions=3, seed=0)
    theta = np.zeros(3)
    follower = solve_follower(problem, theta)
    batch = sample_trajectories(problem, theta, follower, streams=2, steps=3, rng=named_stream(0, "context"))
    plain: Any = [0.0, 0.0, 0.0]
    truth = BCHG().estimate(batch, Context(problem=problem, theta=theta, follower=follower)).mean
    found = BCHG().estimate(batch, Context(problem=problem, theta=plain, follower=follower)).mean
    np.testing.assert_array_equal(found, truth)
    nothing: Any = [1]
    for wrong, context, match in (
        (nothing, Context(problem=problem, theta=theta, follower=follower), r"trajectories=\[1\]"),
        (batch, Context(problem=problem, theta=theta, follower=None), r"context\.follower=None"),
        (batch, Context(problem=problem, theta=np.zeros(4), follower=follower), r"theta\.shape=\(4,\)"),
        (
            batch,
            Context(problem=problem, theta=theta, follower=solve_follower(other, theta)),
            r"policy\.shape=\(3, 3\)",
        ),
    ):
        with pytest.raises(InvalidInputError, match=match):
            BCHG().estimate(wrong, context)


@pytest.mark.parametrize("sparse", [False, True])
def test_scores_of_impossible_visits_are_refused(sparse: bool) -> None:
    """1 - Σ P of a row that sums to 1 is rounding: a score divided by it would be a number like 1e16."""
    problem, other = random_mdp(states=3, seed=5), random_mdp(states=3, seed=5, termination=0.2)
    if sparse:
        problem = sparse_twin(problem)
    theta = np.zeros(3)
    follower = solve_follower(problem, theta)
    simulator = TabularSimulator(dynamics=other)
    batch = sample_trajectories(
        problem, theta, follower, streams=30, steps=6, rng=named_stream(0, "ends"), simulator=simulator
    )
    assert batch.terminated.any()
    weights: dict[Term, Any] = {"log_transition": 1.0 * batch.valid}
    for per_stream in (False, True):
        with pytest.raises(SupportError, match="probability zero under the problem's own tables"):
            problem.pullback(theta, batch, weights, per_stream=per_stream)
    # A terminal value is 0, so scores weighted by values never ask for that.
    context = Context(problem=problem, theta=theta, follower=follower, simulator=simulator)
    assert np.isfinite(BCHG().estimate(batch, context).mean).all()
    with pytest.raises(SupportError):
        BCHG(scores="td_error").estimate(batch, context)


def test_states_are_integers() -> None:
    problem, theta = random_mdp(states=2, actions=2, seed=0), np.zeros(3)
    follower = solve_follower(problem, theta)
    batch = sample_trajectories(problem, theta, follower, streams=2, steps=3, rng=named_stream(0, "floats"))
    floats = dataclasses.replace(batch, state_t=batch.state_t + 0.5)
    with pytest.raises(InvalidInputError, match=r"state_t\.dtype='float64'"):
        BCHG().estimate(floats, Context(problem=problem, theta=theta, follower=follower))


@pytest.mark.exact
@pytest.mark.parametrize("estimator", [BCHG(largest_score=0.05), NaivePGD(largest_score=0.05)])
def test_shortened_scores_have_no_expectation_on_any_kind(estimator):
    problem, theta = random_mdp(seed=0), np.zeros(3)
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    with pytest.raises(EstimatorError, match="shortened scores"):
        estimator.expectation(context, horizon=2)
