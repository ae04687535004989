"""Drawn scenarios: what they promise, what holds on all of them, and that shrinking ends in something readable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings

from bilevelrl.estimators import BCHG
from bilevelrl.estimators.critics.tables import ExactCritic
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.tasks import scenarios
from bilevelrl.verification import enumerate_moments
from bilevelrl.verification.checks.changed_problems import shaped
from bilevelrl.verification.mutants.exact import ExactFormula
from bilevelrl.verification.mutants.sample import SampleFormula
from bilevelrl.verification.testing.scenario_strategies import drawn_scenarios, envelope_mdps, garnet_mdps, layered_mdps
from bilevelrl.verification.testing.strategies import DrawnProblem, configurable_mdps

pytestmark = pytest.mark.property

FEW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SEARCH = settings(database=None, derandomize=True, max_examples=500)


def exact_bias(estimator: object, drawn: DrawnProblem) -> tuple[np.ndarray, np.ndarray]:
    """Bias of an estimator on a problem that ends, and what rounding allows."""
    problem, theta = drawn.problem, drawn.theta
    follower = solve_follower(problem, theta)
    truth = hypergradient(problem, theta)
    moments = enumerate_moments(
        estimator,
        problem,
        theta,
        horizon=int(drawn.features.split()[0]),
        follower=follower,
        critic=ExactCritic.solve(problem, theta, follower.policy),
    )
    eps = float(np.finfo(np.float64).eps)
    return moments.mean - truth.value, 3 * truth.error_bound + moments.rounding + 48 * eps * moments.magnitude


@FEW
@given(layered_mdps())
def test_unbiased_estimators_are_exact_on_every_problem_that_ends(drawn: DrawnProblem) -> None:
    for estimator in (BCHG(), SampleFormula()):
        bias, allowed = exact_bias(estimator, drawn)
        assert (np.abs(bias) <= allowed).all()


@FEW
@given(garnet_mdps())
def test_the_one_page_formula_is_exact_on_sparse_problems(drawn: DrawnProblem) -> None:
    exact = hypergradient(drawn.problem, drawn.theta)
    found = sum(ExactFormula()(drawn.problem, drawn.theta).values())
    assert np.abs(found - exact.value).max() <= 3 * exact.error_bound


@FEW
@given(envelope_mdps())
def test_the_response_vanishes_on_an_envelope(drawn: DrawnProblem) -> None:
    exact = hypergradient(drawn.problem, drawn.theta)
    assert np.abs(exact.parts["response"]).max() <= exact.error_bound
    # Shaping is no way round: it changes r_F alone, and the response is still what it was.
    moved = shaped(drawn.problem, np.linspace(-1.0, 1.0, drawn.problem.states_at(drawn.theta)))
    again = hypergradient(moved, drawn.theta)
    assert np.abs(again.value - exact.value).max() <= exact.error_bound + again.error_bound


def test_without_the_entropy_term_the_response_does_not_vanish() -> None:
    """The property above can fail: r_L = r_F is no envelope."""

    def responds(drawn: DrawnProblem) -> bool:
        return bool(np.abs(hypergradient(drawn.problem, drawn.theta).parts["response"]).max() > 1e-3)

    simplest = find(envelope_mdps(with_entropy=False), responds, settings=SEARCH)
    tables = simplest.problem.tables_at(simplest.theta)
    assert tables.actions == 2
    assert tables.states <= 2
    assert simplest.theta.size == 1


def test_a_planted_error_shrinks_to_a_readable_example() -> None:
    """A missing γ_F in the suffix: shrunk to a decision followed by a single step."""
    mutant = SampleFormula(suffix_discount="none")

    def biased(drawn: DrawnProblem) -> bool:
        bias, allowed = exact_bias(mutant, drawn)
        return bool((np.abs(bias) > np.maximum(allowed, 1e-6)).any())

    simplest = find(layered_mdps(), biased, settings=SEARCH)
    tables = simplest.problem.tables_at(simplest.theta)
    assert simplest.features.startswith("2 layers")
    assert tables.actions == 2
    assert simplest.theta.size == 1
    assert len(repr(simplest)) < 250


def test_a_problem_with_a_response_shrinks_to_one_state() -> None:
    def responds(drawn: DrawnProblem) -> bool:
        return bool(np.abs(hypergradient(drawn.problem, drawn.theta, bound=False).parts["response"]).max() > 1e-3)

    simplest = find(configurable_mdps(reward_scales=(1.0,), reward_shifts=(0.0,)), responds, settings=SEARCH)
    tables = simplest.problem.tables_at(simplest.theta)
    assert (tables.states, tables.actions, simplest.theta.size) == (1, 2, 1)
    assert "generic chain" in simplest.features


def test_the_registry_can_be_drawn_from() -> None:
    first = find(drawn_scenarios(tags=["envelope"]), lambda entry: True, settings=SEARCH)
    assert first is scenarios(tags=["envelope"])[0]
