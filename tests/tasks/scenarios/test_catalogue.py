"""Stored truths of the scenarios, re-checked by routes that did not make them, and the registry itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bilevelrl.reference import Hypergradient, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError
from bilevelrl.reference.problem import PARTS
from bilevelrl.tasks import Scenario, scenario, scenarios
from bilevelrl.tasks.scenarios.catalogue import scenario_names
from bilevelrl.tasks.scenarios.main_job import paper_scenarios, small_scenarios
from bilevelrl.tasks.scenarios.problems import STORED
from bilevelrl.tasks.scenarios.scenario import SCENARIO_TAGS, Truth
from bilevelrl.tasks.scenarios.truths import ROUTES, generate

NAMES = scenario_names()


def worst_excess(found: Hypergradient, truth: Truth) -> float:
    """Largest error of a part relative to what both bounds allow."""
    allowed = found.error_bound + truth.error_bound
    return max(float(np.abs(found.parts[part] - truth.parts[part]).max()) / allowed for part in PARTS)


@pytest.mark.parametrize("name", NAMES)
def test_truth_agrees_with_a_route_that_did_not_make_it(name: str) -> None:
    """`forward` is in no stored truth; textbook truths are by hand. Bounds are proven, and tight enough to matter."""
    entry = scenario(name)
    for horizon, truth in ((None, entry.truth), (entry.horizon, entry.truncated)):
        found = hypergradient(entry.problem, entry.theta, route="forward", horizon=horizon)
        for part in PARTS:
            error = float(np.abs(found.parts[part] - truth.parts[part]).max())
            assert error <= found.error_bound + truth.error_bound, part
        size = max(float(np.abs(truth.parts[part]).max()) for part in PARTS)
        assert found.error_bound + truth.error_bound <= 1e-7 * size
        assert abs(leader_objective(entry.problem, entry.theta, horizon=horizon) - truth.objective) <= 1e-7 * max(
            1.0, abs(truth.objective)
        )


def test_the_route_of_the_check_did_not_make_the_truth() -> None:
    assert "forward" not in ROUTES


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_truth_is_caught(name: str) -> None:
    """A millionth of the largest part, planted in any part, exceeds what the bounds allow."""
    entry = scenario(name)
    found = hypergradient(entry.problem, entry.theta)
    assert worst_excess(found, entry.truth) <= 1.0
    size = max(float(np.abs(entry.truth.parts[part]).max()) for part in PARTS)
    for part in PARTS:
        parts: dict[Any, Any] = {**entry.truth.parts, part: entry.truth.parts[part] + 1e-6 * size}
        wrong = Truth.of(objective=entry.truth.objective, parts=parts, error_bound=entry.truth.error_bound)
        assert worst_excess(found, wrong) > 1.0, part


@pytest.mark.parametrize("name", NAMES)
def test_tags_tell_the_truth(name: str) -> None:
    entry = scenario(name)
    problem, theta = entry.problem, entry.theta
    tables = problem.tables_at(theta)
    policy = solve_follower(problem, theta).policy
    kernel = np.asarray(tables.transition)
    alive = np.einsum("sa,sap->sp", policy, kernel)
    left = float(tables.initial @ np.linalg.matrix_power(alive, entry.horizon).sum(axis=1))
    assert (left <= 2.0**-53) == entry.ends  # below the rounding of one
    assert ("goes_on" in entry.tags) != entry.ends
    if not entry.ends:
        assert entry.truncated is not entry.truth or entry.name == "waiting room"
    for part in PARTS:
        assert (np.abs(entry.truth.parts[part]).max() > 10 * entry.truth.error_bound) == (part in entry.tags) or (
            part == "transition" and problem.discount_leader == 0.0
        ), part
    assert (tables.states == 1) == ("one_state" in entry.tags)
    assert (tables.actions == 1) == ("one_action" in entry.tags)
    assert (theta.size == 1) == ("one_parameter" in entry.tags)
    if "isolating" in entry.tags:
        # A toll or a gamble enters one table; what counts is how many tables move.
        assert len(problem.varying(theta)) == 1
    if "equal_discounts" in entry.tags:
        assert problem.discount_leader == problem.discount_follower


def test_generated_truths_are_what_is_stored() -> None:
    """The command reproduces the file: within the bounds, with digits to spare."""
    made = generate()["scenarios"]
    assert set(made) == set(STORED)
    for name, record in made.items():
        entry = scenario(name)
        assert entry.provenance.digits > 12.0
        assert entry.provenance.routes == ROUTES
        for kind in ("truth", "truncated"):
            if kind in record:
                stored = getattr(entry, kind)
                again = Truth.of(**record[kind])
                assert np.abs(again.value - stored.value).max() <= again.error_bound + stored.error_bound


def test_every_tag_is_used_and_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 40
    used = {tag for on in (*scenarios(kind=object), *small_scenarios(), *paper_scenarios()) for tag in on.tags}
    assert used == set(SCENARIO_TAGS)
    assert {entry.name for entry in scenarios(tags="textbook")} | {
        entry.name for entry in scenarios(without="textbook")
    } == set(NAMES)


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="bandit"):
        scenario("bandid")
    with pytest.raises(UnknownNameError, match="absorbing"):
        scenarios(tags=["absorbin"])
    with pytest.raises(UnknownNameError, match="response"):
        Truth.of(objective=0.0, parts={"respons": [1.0]}, error_bound=0.0)  # type: ignore[dict-item]
    with pytest.raises(ShapeError):
        Truth.of(objective=0.0, parts={"direct": [1.0], "response": [1.0, 2.0]}, error_bound=0.0)
    with pytest.raises(InvalidInputError):
        Truth.of(objective=0.0, parts={"direct": [np.nan]}, error_bound=0.0)
    bandit = scenario("bandit")
    with pytest.raises(ShapeError):
        Scenario(
            name="wrong",
            summary="",
            problem=bandit.problem,
            theta=np.zeros(2),
            truths=bandit.truths,
            provenance=bandit.provenance,
            tags=frozenset(),
            horizon=1,
        )


def test_what_is_stored_cannot_be_changed() -> None:
    entry = scenario("layered")
    with pytest.raises(ValueError, match="read-only"):
        entry.theta[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        entry.truth.parts["direct"][0] = 1.0
