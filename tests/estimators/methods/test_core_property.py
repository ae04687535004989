"""BC-HG and Naive-PGD on problems drawn by hypothesis: expectations against the truth, no sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevelrl.estimators import BCHG, Context, NaivePGD, Objective
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.tasks import layered_mdp, random_mdp

pytestmark = pytest.mark.property

SIZES = {"width": st.integers(1, 3), "actions": st.integers(1, 3), "parameters": st.integers(1, 4)}
COMMON = {
    "seed": st.integers(0, 10_000),
    "temperature": st.floats(0.1, 10.0),
    "discount_leader": st.floats(0.0, 0.95),
    "discount_follower": st.floats(0.0, 0.95),
}


def tolerance(truth: Any) -> float:
    """What both sides may be off by: the truth's own bound, and 1e-12 of the largest part."""
    largest = max(float(np.abs(part).max()) for part in truth.parts.values())
    assert truth.error_bound < 1e-7 * max(largest, 1.0)  # or the comparison would be empty
    return float(truth.error_bound) + 1e-12 * max(largest, 1e-3)


@settings(max_examples=40, deadline=None)
@given(layers=st.integers(1, 4), scores=st.sampled_from(["value", "td_error"]), **SIZES, **COMMON)
def test_unbiased_on_every_layered_problem(layers: int, scores: Any, **drawn: Any) -> None:
    problem = layered_mdp(layers=layers, **drawn)
    theta = named_stream(drawn["seed"], "theta").standard_normal(drawn["parameters"])
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    truth = hypergradient(problem, theta)
    for estimator in (BCHG(scores=scores), BCHG(scores=scores, stopping="sum"), BCHG(critic="independent")):
        expected = estimator.expectation(context, horizon=layers)
        for part, value in truth.parts.items():
            assert np.abs(expected[part] - value).max() <= tolerance(truth), part
    naive = sum(NaivePGD(scores=scores).expectation(context, horizon=layers).values())
    assert np.abs(naive - (truth.value - truth.parts["response"])).max() <= 3.0 * tolerance(truth)


@settings(max_examples=25, deadline=None)
@given(
    states=st.integers(1, 5),
    actions=SIZES["actions"],
    parameters=SIZES["parameters"],
    termination=st.sampled_from([0.0, 0.2]),
    horizon=st.integers(1, 6),
    **COMMON,
)
def test_leaders_terms_are_exact_and_stopping_removes_truncation(
    states: int, termination: float, horizon: int, **drawn: Any
) -> None:
    problem = random_mdp(states=states, termination=termination, **drawn)
    theta = named_stream(drawn["seed"], "theta").standard_normal(drawn["parameters"])
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    truth = hypergradient(problem, theta, horizon=horizon)
    target = Objective(horizon=horizon)
    for estimator in (BCHG(target=target, critic="exact_truncated"), BCHG(target=target, critic="monte_carlo")):
        expected = estimator.expectation(context, horizon=horizon)
        for part in ("initial", "direct", "transition", "regulariser"):
            assert np.abs(expected[part] - truth.parts[part]).max() <= tolerance(truth), part
    infinite = hypergradient(problem, theta)
    stopped = BCHG(stopping="single").expectation(context, horizon=1)
    for part, value in infinite.parts.items():
        assert np.abs(stopped[part] - value).max() <= tolerance(infinite), part
