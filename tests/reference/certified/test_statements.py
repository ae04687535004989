"""Certified statements: one stationary point in a box, signs at active bounds, the strict vertex of Four-Rooms."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("flint")

from flint import arb, ctx

from bilevelrl.benchmarks.reference_problems.certified_statements import main
from bilevelrl.benchmarks.reference_problems.reference_games import toy_game_form
from bilevelrl.benchmarks.reference_problems.reference_lqrs import BUILDING_OPTIMUM, building_form
from bilevelrl.reference import certified_hypergradient, leader_objective
from bilevelrl.reference.certified import ClosedForm, ClosedFormTable, FeatureBlock
from bilevelrl.reference.certified.stationary import (
    certify_bounded_maximum,
    certify_vertex,
    isolate_stationary_point,
    objective_series,
)
from bilevelrl.reference.errors import InvalidInputError, PrecisionError
from bilevelrl.tasks import building_thermal_control
from bilevelrl.tasks.generators.closed_form_problems import build_problem
from bilevelrl.tasks.scenarios.reference_data import reference_problem

pytestmark = pytest.mark.exact


@pytest.mark.parametrize(
    ("bonus", "start", "probability", "objective"), [(1, -1.6, 0.16646, 34.99264), (2, 0.0, 0.50264, 39.94021)]
)
def test_the_toy_game_has_one_stationary_point_in_a_box(bonus, start, probability, objective):
    form = toy_game_form("toy", bonus=bonus, logit=start)
    found = isolate_stationary_point(form, 1)
    assert found.maximum
    assert 1 / (1 + math.exp(-float(found.point))) == pytest.approx(probability, abs=5.1e-6)
    assert float(found.objective) == pytest.approx(objective, abs=5.1e-6)
    assert found.point.digits >= 30
    assert found.box.ball.contains(found.point.ball)
    assert found.box.radius > 1e-9  # a box, not a point
    # Across the point the slope changes sign, by the adjoint form that the proof does not use.
    middle, radius = float(found.point), found.box.radius
    for side in (-1, 1):
        slope = certified_hypergradient(replace(form, theta=(0.0, middle + side * radius, 0.0)), digits=10).value[1]
        assert slope.ball * side < 0


def test_a_coordinate_that_does_not_matter_has_no_proof():
    with pytest.raises(PrecisionError, match="coordinate 0"):
        isolate_stationary_point(toy_game_form("toy", bonus=1, logit=-1.6), 0)
    with pytest.raises(InvalidInputError, match="coordinate"):
        isolate_stationary_point(toy_game_form("toy", bonus=1, logit=-1.6), 3)


def test_curvature_over_the_box_contains_second_differences():
    form = toy_game_form("toy", bonus=1, logit=-1.6)
    found = isolate_stationary_point(form, 1)
    with ctx.workprec(300):
        step = arb("1e-20")
        point = found.point.ball.mid()
        theta = [[arb(0), point + side * step, arb(0)] for side in (-1, 0, 1)]
        low, middle, high = (objective_series(form, at, [arb(0)] * 3, 1)[0] for at in theta)
        difference = (high - 2 * middle + low) / (step * step)
        assert found.curvature.ball.overlaps(difference)
        assert difference < 0


def test_the_building_has_a_strict_maximum_at_its_bounds():
    form = building_form("building", theta=BUILDING_OPTIMUM, link="identity")
    found = certify_bounded_maximum(form, 5)
    assert found.strict
    assert found.lower == (1, 4)
    assert found.upper == (0, 2, 3, 6, 7)
    assert float(found.free.point) == pytest.approx(0.7784, abs=1e-4)
    assert float(found.free.objective) == pytest.approx(-162.5035, abs=1e-4)
    # The same objective from the task, whose parameters are logits.
    shares = np.clip([*BUILDING_OPTIMUM[:5], float(found.free.point), *BUILDING_OPTIMUM[6:]], 1e-9, 1 - 1e-9)
    task = leader_objective(building_thermal_control(), np.log(shares) - np.log1p(-shares))
    assert task == pytest.approx(float(found.free.objective), abs=1e-5)
    # A neighbour in the free coordinate is worse.
    other = leader_objective(build_problem(form), np.array([*BUILDING_OPTIMUM[:5], 0.7, *BUILDING_OPTIMUM[6:]]))
    assert other < float(found.free.objective)


def test_a_wrong_corner_is_not_a_maximum():
    corner = list(BUILDING_OPTIMUM)
    corner[4] = 1.0  # this wall should be shut
    found = certify_bounded_maximum(building_form("building", theta=tuple(corner), link="identity"), 5)
    assert not found.strict
    assert found.slopes[4].ball < 0
    corner[4] = 0.5
    with pytest.raises(InvalidInputError, match=r"theta\[4\]"):
        certify_bounded_maximum(building_form("building", theta=tuple(corner), link="identity"), 5)


def test_a_stationary_point_outside_the_box_is_no_maximum_over_it():
    # J = 3 θ_0 - θ_0² + θ_1 but for a constant: over [0, 2]² the maximum is at (1.5, 2), over [0, 1]² at the corner.
    pair, stay = ClosedFormTable(shape=(1, 2), base={0: 1}), ClosedFormTable(shape=(1, 2, 1), base={0: 1, 1: 1})
    paid = ClosedFormTable(shape=(), slope=((0, 0, 3), (0, 1, 1)), quadratic=((0, 0, 0, -1),))
    form = ClosedForm(
        kind="configurable_mdp", features=(FeatureBlock(link="identity", length=2),), theta=(0.75, 2),
        discount_leader=0.5, discount_follower=0.5, temperature=1,
        tables={"transition": stay, "reward_follower": pair, "reward_leader": pair, "regulariser": paid,
                "initial": ClosedFormTable(shape=(1,), base={0: 1})},
    )  # fmt: skip
    assert certify_bounded_maximum(form, 0, bounds=(0.0, 2.0)).strict
    for high in (1.0, 1.5):
        found = certify_bounded_maximum(replace(form, theta=(0.75, high)), 0, bounds=(0.0, high))
        assert float(found.free.point) == 1.5
        assert not found.inside
        assert not found.strict
    with pytest.raises(InvalidInputError, match="bounds"):
        certify_bounded_maximum(form, 0, bounds=(2.0, 1.0))


@pytest.mark.parametrize(("temperature", "slope"), [("0.001", -0.743), ("0.003", -0.720), ("0.005", -0.491)])
def test_no_penalty_is_a_strict_local_maximum_of_four_rooms(temperature, slope):
    stored = reference_problem(f"four_rooms_vertex_{temperature}")
    certified = certified_hypergradient(stored.closed_form, digits=20)
    found = certify_vertex(certified)
    assert len(certified.value) == 104
    assert found.strict
    assert float(found.slope) == pytest.approx(slope, abs=5.1e-4)
    assert all(entry.ball < 0 for entry in certified.value)
    # A leader that pays nothing for penalties has no such trap.
    form = stored.closed_form
    free = replace(form.tables["reward_leader"], slope=())
    assert not certify_vertex(
        certified_hypergradient(replace(form, tables={**form.tables, "reward_leader": free}), digits=20)
    ).strict


def test_the_command_proves_all_and_writes_them(tmp_path):
    lines = []
    assert main(["--output", str(tmp_path / "statements.json")], report=lines.append) == 0
    found = json.loads((tmp_path / "statements.json").read_text())
    assert set(found) == {
        "toy_game_1", "toy_game_2", "building", "four_rooms_0.001", "four_rooms_0.003", "four_rooms_0.005", "lqr_game",
    }  # fmt: skip
    assert found["building"]["strict"]
    assert all(Fraction(radius) < Fraction(1, 10**29) for radius in (found["lqr_game"]["norm"][1],))
