"""Scenarios of the user's own: right ones pass, stale ones are told before the work, and names are no keys."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators import BCHG, NaivePGD, Objective
from bilevelrl.reference import ConfigurableMDP, MarkovGame, Tables, TabularSoftmaxPolicy
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import Scenario, layered_mdp, random_mdp, scenario, scenarios
from bilevelrl.tasks.scenarios import Structure
from bilevelrl.tasks.scenarios.scenario import Truth
from bilevelrl.verification import assert_unbiased, judge_draws, verify
from bilevelrl.verification.causes.known import Setting
from bilevelrl.verification.causes.planted import planted_effect
from bilevelrl.verification.checks.own_scenarios import hold_to_its_problem
from bilevelrl.verification.mutants.catalogue import MUTANTS

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
    effect = planted_effect(mutant)
    namesake = replace(scenario("layered"), name="toll")
    one, other = (effect(Setting.of(entry, entry.target_truth)) for entry in (TOLL, namesake))
    assert one.shape == TOLL.theta.shape
    assert other.shape == namesake.theta.shape
    assert verify(NaivePGD(), scenarios=[namesake]).passed


def stopping(mask=None):
    """One state, "go" and "stop": a follower who likes to go hardly ever stops, though half of all actions would."""
    return ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.array([[[1.0], [0.0]]]), initial=np.ones(1), action_mask=mask,
            reward_follower=anp.reshape(anp.stack([1.0 - theta[0], 0.0 * theta[0]]), (1, 2)),
            reward_leader=np.array([[0.3, 1.0]]) + anp.reshape(theta[0], (1, 1)),
        ),
        discount_leader=0.99, discount_follower=0.9, temperature=1.0, theta_shape=(1,),
    )  # fmt: skip


@pytest.mark.parametrize("mask", [None, np.array([[True, False]])])
def test_whether_paths_end_is_asked_of_the_worst_way_to_act(mask):
    on = Scenario.of(stopping(mask), np.array([0.2]))
    assert not on.ends
    assert "goes_on" in on.tags
    report = verify(lambda trajectories, context: BCHG()(trajectories, context), problem=on.problem, theta=on.theta)
    assert report.passed


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9])
def test_a_right_estimator_passes_where_paths_end_almost_surely(keep):
    problem = ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.full((1, 1, 1), keep), initial=np.ones(1), reward_follower=anp.reshape(theta, (1, 1)),
            reward_leader=anp.reshape(4.7 * anp.sin(theta), (1, 1)), regulariser=0.1 * anp.sum(theta**2),
        ),
        discount_leader=0.99, discount_follower=0.9, temperature=0.75, theta_shape=(1,),
    )  # fmt: skip
    report = verify(lambda trajectories, context: BCHG()(trajectories, context), problem=problem, theta=np.array([2.1]))
    assert report.passed


@pytest.mark.parametrize("sees", [True, False])
def test_actions_that_a_game_rules_out_lead_nowhere(sees):
    kernel = np.zeros((1, 2, 2, 1))
    kernel[:, :, 1] = 1.0  # the second action goes on for ever, and cannot be taken
    mask = np.array([[True, False]]) if not sees else np.array([[[True, False], [True, False]]])
    game = MarkovGame(
        transition=kernel, reward_follower=np.zeros((1, 2, 2)), reward_leader=np.ones((1, 2, 2)), initial=np.ones(1),
        policy=TabularSoftmaxPolicy(states=1, leader_actions=2), discount_leader=0.9, discount_follower=0.9,
        temperature=1.0, follower_sees_leader_action=sees, action_mask=mask,
    )  # fmt: skip
    structure = Structure.of(game, np.zeros(1))
    assert structure is not None
    assert structure.left(1) == 0.0
    assert structure.paths(1) == 2.0


@pytest.mark.exact
def test_horizons_beyond_any_count_are_answered_at_once():
    for problem, ends in ((random_mdp(), False), (layered_mdp(), True), (random_mdp(termination=1e-9), True)):
        structure = Structure.of(problem, np.zeros(problem.theta_shape))
        assert (structure.left(2**40) <= 1e-15) is ends
        assert structure.paths(2**40) == (64.0 if problem.name.startswith("layered") else np.inf)
    slow = Structure.of(random_mdp(termination=1e-4), np.zeros(3))
    assert slow.left(30_000) == pytest.approx((1.0 - 1e-4) ** 30_000, rel=1e-9)
