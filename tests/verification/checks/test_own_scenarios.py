"""Scenarios of the user's own: right ones pass, stale ones are told before the work, and names are no keys."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, NaivePGD, Objective
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import scenario, scenarios
from bilevelrl.tasks.scenarios.scenario import Truth
from bilevelrl.verification import assert_unbiased, judge_draws, verify
from bilevelrl.verification.checks.own_scenarios import hold_to_its_problem
from bilevelrl.verification.mutants.catalogue import MUTANTS
from bilevelrl.verification.mutants.causes import _planted_effect

TOLL, ENDLESS = scenario("toll"), scenario("random")


def scaled(truth, factor):
    parts = {part: factor * value for part, value in truth.parts.items()}
    return Truth.of(objective=truth.objective, parts=parts, error_bound=truth.error_bound)


@pytest.mark.exact
def test_every_scenario_of_the_package_would_pass_as_a_foreign_one():
    for entry in scenarios():
        assert hold_to_its_problem(replace(entry, summary="mine")).truths == entry.truths
    assert verify(BCHG(), scenarios=[replace(TOLL, name="mine")]).passed


STALE = {
    "another θ": (replace(TOLL, theta=TOLL.theta + 0.1), r"toll: truth.parts\['\w+'\]: expected that of the problem"),
    "another problem": (replace(TOLL, problem=replace(TOLL.problem, temperature=0.7)), "toll: truth.parts"),
    "a billionth off": (replace(TOLL, truths={Objective(): scaled(TOLL.truth, 1.0 + 1e-9)}), "toll: truth.parts"),
    "the truth of cut paths": (
        replace(ENDLESS, truths={Objective(horizon=5): scaled(ENDLESS.truncated, 1.01)}),
        "random: truncated.parts",
    ),
    "paths that go on": (
        replace(ENDLESS, tags=(ENDLESS.tags - {"goes_on"}) | {"ends"}),
        "random: tags='ends': expected that no path goes on after",
    ),
}


@pytest.mark.exact
@pytest.mark.parametrize("what", STALE)
def test_stale_truths_and_false_tags_are_named_before_the_work(what):
    stale, message = STALE[what]
    for work in (
        lambda: verify(BCHG(), scenarios=[stale]),
        lambda: assert_unbiased(BCHG(), stale),
        lambda: judge_draws(np.random.default_rng(0).standard_normal((50, stale.theta.size)), stale),
    ):
        with pytest.raises(InvalidInputError, match=message):
            work()


@pytest.mark.exact
def test_a_planted_effect_belongs_to_a_scenario_not_to_its_name():
    mutant = next(mutant for mutant in MUTANTS.values() if mutant.kind == "estimator" and "β" in mutant.changes)
    effect = _planted_effect(mutant.kind, mutant.make())
    namesake = replace(scenario("layered"), name="toll")
    one, other = (effect(entry, entry.target_truth) for entry in (TOLL, namesake))
    assert one.shape == TOLL.theta.shape
    assert other.shape == namesake.theta.shape
    assert verify(NaivePGD(), scenarios=[namesake]).passed
