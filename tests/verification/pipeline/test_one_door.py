"""One call for any estimator on any problem: truth and truncation are computed, and bad behaviour is a row."""

import json
import sys
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Claim, Context, Draw, NaivePGD
from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.reference import (
    ConfigurableLQR,
    ConfigurableMDP,
    MarkovGame,
    Tables,
    hypergradient,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError, ShapeError
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.tasks import (
    Scenario,
    layered_mdp,
    random_lqr,
    random_lqr_game,
    random_markov_game,
    random_mdp,
    scenarios,
    toy_game_theta,
    toy_markov_game,
)
from bilevelrl.verification import Outcome, assert_matches_truth, assert_unbiased, estimator_checks, judge, verify
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.testing.assertions import UntestedWarning
from bilevelrl.verification.testing.failures import CheckFailedError

PLACES = {
    "an MDP that ends": (layered_mdp(), np.full(3, 0.3), None),
    "an MDP that goes on": (random_mdp(), None, None),
    "a seeing game": (toy_markov_game(), toy_game_theta(0.4), 4),
    "a blind game": (random_markov_game(states=2, actions=2, seed=2, follower_sees_leader_action=False), None, 4),
    "an LQR": (random_lqr(states=1, actions=1, seed=0), np.array([0.2, -0.1, 0.3]), None),
    "an LQR game": (random_lqr_game(states=1, seed=2, discount_follower=0.5), np.array([0.1, 0.2, 0.1]), None),
}


def right(trajectories, context):
    return BCHG()(trajectories, context)


def forgetful(trajectories, context):
    return NaivePGD()(trajectories, context)


@pytest.mark.exact
@pytest.mark.parametrize("where", PLACES)
def test_any_kind_of_problem_exactly_with_truncation_told_and_the_cause_named(where):
    problem, theta, horizon = PLACES[where]
    good = verify(right, problem=problem, theta=theta, horizon=horizon)
    assert good.passed, good.estimators[0].verdict.reason
    assert good.explanation is None
    bad = verify(forgetful, problem=problem, theta=theta, horizon=horizon)
    assert not bad.passed
    assert bad.explanation.cause == "the response part is missing"
    assert bad.explanation.exact
    cut = "ends" not in where
    for report in (good, bad):
        assert report.estimators[0].verdict.reason.startswith("truncation at") is cut
        assert report.estimators[0].method == "enumeration"
    assert good.estimators[0].verdict.detectable < 0.01


@pytest.mark.exact
@pytest.mark.parametrize("estimator", [right, forgetful, BCHG()])
def test_streams_that_end_before_the_response_shows_have_no_power(estimator):
    problem, theta, horizon = toy_markov_game(), toy_game_theta(0.3), 1
    assert np.linalg.norm(hypergradient(problem, theta).parts["response"]) > 1.0
    report = verify(estimator, problem=problem, theta=theta, horizon=horizon)
    assert [row.verdict.outcome for row in report.estimators] == [Outcome.NO_POWER]
    assert "nothing shows the response part" in report.estimators[0].verdict.reason
    assert report.headline.startswith("NOT VERIFIED")
    with pytest.raises(CheckFailedError, match="nothing shows the response part"):
        assert_unbiased(estimator, problem=problem, theta=theta, horizon=horizon)
    for check in estimator_checks(problem=problem, theta=theta, horizon=horizon, names=["bias"]):
        with pytest.raises(CheckFailedError, match="could not tell"):
            check(estimator)


@pytest.mark.exact
@pytest.mark.parametrize("slip", [lambda t, c: np.zeros((t.streams, 3)), lambda t, c: -right(t, c), right])
def test_what_cut_streams_leave_has_to_be_seen_above_rounding(slip):
    """Two steps leave 1e-5 of the truth at γ_L = .99999, and the truth is known to 1e-3."""
    problem = random_mdp(states=3, theta_in="transition", discount_leader=0.99999)
    report = verify(slip, problem=problem, theta=np.full(problem.theta_shape, 0.3), horizon=2)
    assert [row.verdict.outcome for row in report.estimators] == [Outcome.NO_POWER]


def shifted(where, states, spread, shift):
    """A law that is a peaked softmax of θ, and a leader whose reward carries a constant."""
    rng = np.random.default_rng(0)
    kernel = rng.dirichlet(np.ones(states), (states, 2))
    follower, leader, toll = rng.normal(size=(3, states, 2))
    logits = spread * rng.normal(size=states if where == "initial" else (states, 2, states))
    slopes = rng.normal(size=logits.shape)

    def tables(theta):
        weights = anp.exp(logits - logits.max(axis=-1, keepdims=True) + theta[0] * slopes)
        law = weights / anp.sum(weights, axis=-1, keepdims=True)
        return Tables(
            transition=kernel if where == "initial" else law,
            initial=law if where == "initial" else np.eye(states)[0],
            reward_follower=follower + theta[1] * toll,
            reward_leader=leader + shift,
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=0.5, theta_shape=(2,))


@pytest.mark.exact
@pytest.mark.parametrize("where", [("initial", 1, 0.0), ("initial", 3, 15.0), ("kernel", 2, 15.0)])
def test_values_with_a_constant_round_beside_scores_and_fail_nobody_who_is_right(where):
    problem, theta = shifted(*where, 1e6), np.array([0.3, -0.2])
    report = verify(right, problem=problem, theta=theta, horizon=2)
    assert report.passed, report.estimators[0].verdict.reason
    off = verify(lambda t, c: right(t, c) * (1.0 + 1e-5), problem=problem, theta=theta, horizon=2)
    assert off.failures


@pytest.mark.exact
def test_differences_of_values_divided_by_a_small_pay_round_as_much_more():
    rng = np.random.default_rng(12)
    logits, slopes = 15.0 * rng.normal(size=(3, 2, 3)), rng.normal(size=(3, 2, 3))
    rewards, paid, toll = rng.normal(size=(3, 2)), 1e-3 * rng.normal(size=(3, 2)), 1e-3 * rng.normal(size=(3, 2))

    def tables(theta):
        weights = anp.exp(logits - logits.max(axis=-1, keepdims=True) + theta[0] * slopes)
        return Tables(
            transition=weights / anp.sum(weights, axis=-1, keepdims=True),
            reward_follower=rewards,
            reward_leader=paid + theta[0] * toll,
            initial=np.full(3, 1 / 3),
        )

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=0.04, theta_shape=(1,)
    )
    report = verify(NudgedFollowers(pay=0.1), problem=problem, theta=np.array([0.3]), horizon=3)
    assert report.passed, report.estimators[0].verdict.reason


@pytest.mark.exact
def test_parts_that_the_truth_lacks_are_said_not_to_be_tested():
    problem = random_mdp(actions=1, states=2, seed=1)  # a follower with nothing to choose
    theta = np.zeros(problem.theta_shape)
    truth = hypergradient(problem, theta)
    assert not truth.parts["response"].any()
    for estimator in (right, forgetful):
        report = verify(estimator, problem=problem, horizon=4)
        assert "response" in report.untested
        assert report.headline.startswith("VERIFIED on 1 of 1 (1 passed), but for parts that are 0 there: ")
        assert "response" in report.headline
        assert report.headline in report.to_json()
        with pytest.warns(UntestedWarning, match="response is 0"):
            assert_unbiased(estimator, problem=problem, theta=theta, horizon=4)
    with pytest.warns(UntestedWarning, match="response is 0"):
        assert_matches_truth(truth.value, problem=problem, theta=theta)
    rows = truth.value + 0.1 * np.random.default_rng(0).standard_normal((20_000, theta.size))
    judged = judge(rows, problem=problem, theta=theta)
    assert judged.passed
    assert "response" in judged.untested
    assert "not tested, for the truth has nothing of them here: " in str(judged)
    assert "response" in json.loads(judged.to_json())["untested"]
    (large,) = verify(right, problem=random_mdp(actions=1, states=12, seed=1), horizon=40, quick=True).estimators
    assert (large.method, large.tested["response"]) == ("sampling", 0.0)


@pytest.mark.exact
def test_the_default_scenarios_of_mdps_test_every_part():
    report = verify(right)
    assert report.untested == ()
    assert report.headline.endswith(")")


@pytest.mark.statistical
def test_problems_whose_paths_cannot_be_listed_are_sampled():
    """Seed 0; declared rate of false alarms 1e-6, and a bias of a tenth of the truth would be seen."""
    problem = random_markov_game()
    good, bad = (verify(estimator, problem=problem) for estimator in (right, forgetful))
    assert good.estimators[0].method == bad.estimators[0].method == "sampling"
    assert good.estimators[0].verdict.outcome is Outcome.PASSED
    assert bad.estimators[0].verdict.outcome is Outcome.FAILED
    assert "response" in str(bad.explanation)


@pytest.mark.exact
@pytest.mark.parametrize("kind", [MarkovGame, ConfigurableLQR])
def test_default_scenarios_of_other_kinds(kind):
    assert verify(right, kind=kind).passed
    bad = verify(forgetful, kind=kind)
    assert bad.explanation.cause == "the response part is missing"
    assert len(bad.failures) >= bad.judged - 1  # where each state is met once and nothing is seen, no response
    with pytest.raises(InvalidInputError, match="kind"):
        verify(right, kind=kind, scenarios=["toll"])


def first_visits(trajectories, context):
    """BC-HG of which only the first visit of each state counts: right where no state is met again."""
    rows = right(trajectories, context).copy()
    again = (trajectories.valid[:, 1:] & (trajectories.state_t[:, 1:] == trajectories.state_t[:, :1])).any(axis=1)
    rows[again] = right(trajectories.select(again), context) * 0.5 if again.any() else rows[again]
    return rows


@pytest.mark.exact
def test_games_that_come_back_to_states_see_what_layers_do_not():
    wrong = {row.problem for row in verify(first_visits, kind=MarkovGame).failures}
    assert wrong == {entry.name for entry in scenarios(kind=MarkovGame, tags="revisits")}


@pytest.mark.exact
def test_own_scenarios_compute_what_is_not_given():
    on = Scenario.of(layered_mdp())
    assert (on.ends, on.horizon, on.target.horizon) == (True, 3, None)
    assert np.array_equal(on.truth.value, hypergradient(on.problem, np.zeros(3)).value)
    assert on.truth is on.truth_of(on.target)
    theta = np.ones(3)
    kept = Scenario.of(layered_mdp(), theta)
    theta[0] = 7.0
    assert kept.theta[0] == 1.0
    with pytest.raises(ShapeError, match="theta"):
        Scenario.of(layered_mdp(), np.zeros(2))
    unshaped = replace(random_markov_game(), theta_shape=None)
    with pytest.raises(InvalidInputError, match="theta=None"):
        verify(right, problem=unshaped)
    with pytest.raises(ShapeError, match="theta"):
        verify(right, problem=unshaped, theta=np.zeros(1), horizon=2)


@pytest.mark.exact
def test_draws_assertions_and_checks_take_the_same_arguments(tmp_path):
    game, theta = toy_markov_game(), toy_game_theta(0.3)
    truth = hypergradient(game, theta)
    rows = truth.value + 0.1 * np.random.default_rng(0).standard_normal((20_000, 3))
    assert judge(rows, problem=game, theta=theta).passed
    wrong = judge(rows - truth.parts["response"], problem=game, theta=theta)
    assert wrong.verdict.failed
    assert wrong.explanation.cause == "the response part is missing"
    assert_matches_truth(truth.parts, problem=game, theta=theta)
    with pytest.raises(CheckFailedError, match="response part is missing"):
        assert_matches_truth(truth.value - truth.parts["response"], problem=game, theta=theta)
    assert_unbiased(right, problem=game, theta=theta, horizon=4)
    with pytest.raises(CheckFailedError, match="response part is missing"):
        assert_unbiased(forgetful, problem=game, theta=theta, horizon=4)
    for check in estimator_checks(problem=game, theta=theta, horizon=4):
        check(right)


def loud(trajectories, context):
    print("in the middle of somebody's JSON")
    return right(trajectories, context)


def raising(trajectories, context):
    raise RuntimeError("no")


def ending(trajectories, context):
    raise SystemExit(3)


def hanging(trajectories, context):
    while True:
        pass


def mutating(trajectories, context):
    trajectories.state_t[:] = 0


BEHAVIOURS = {
    raising: "raised RuntimeError",
    ending: "ended the program",
    mutating: "change its input",
}


@pytest.mark.exact
@pytest.mark.parametrize("estimator", BEHAVIOURS, ids=lambda estimator: estimator.__name__)
def test_whatever_an_estimator_does_is_a_row_and_the_rest_goes_on(estimator):
    report = verify(estimator, scenarios=["toll", "bandit"], time_limit=0.3)
    assert [row.verdict.outcome for row in report.estimators] == [Outcome.FAILED] * 2
    assert all(BEHAVIOURS[estimator] in row.verdict.reason for row in report.estimators)


@pytest.mark.exact
def test_a_time_limit_judges_nobody():
    report = verify(hanging, scenarios=["toll", Scenario.of(random_mdp(), horizon=3)], time_limit=0.3)
    assert [row.verdict.outcome for row in report.estimators] == [Outcome.NOT_APPLICABLE] * 2
    assert all("not judged: " in row.verdict.reason for row in report.estimators)
    assert all("longer than 0.3 s" in row.verdict.reason for row in report.estimators)
    assert report.headline.startswith("NOT VERIFIED: right on 0 of 2; only 0 could be judged")
    assert verify(right, scenarios=["toll"], time_limit=1e300).passed


@pytest.mark.exact
def test_an_lqr_game_of_a_patient_leader_is_judged_in_time():
    """Sums of bumps over three thousand steps: after a few hundred the state is forgotten."""
    game = random_lqr_game(states=1, seed=2, discount_leader=0.99, discount_follower=0.99)
    theta = np.array([0.2, -0.1, 0.3])
    context = Context(problem=game, theta=theta, follower=solve_follower(game, theta))
    critic = LQRGameCritic.solve(context, INFINITE_HORIZON)
    states = np.random.default_rng(0).normal(scale=5.0, size=(8, 1))
    one_by_one = np.array([critic.value(state) for state in states])
    assert np.array_equal(critic.value(states), one_by_one)


@pytest.mark.exact
def test_what_an_estimator_prints_stays_out_of_the_output(capsys):
    assert verify(loud, scenarios=["toll"]).passed
    said = capsys.readouterr()
    assert said.out == ""
    assert "JSON" in said.err


IGNORED = {
    "theta": {"theta": np.zeros(2)},
    "horizon": {"horizon": 3},
    "scenarios and problem": {"problem": toy_markov_game(), "scenarios": ["toll"]},
    "workers": {"workers": 2},
    "seed": {"seed": 3},
    "quick": {"quick": True},
}


@pytest.mark.exact
@pytest.mark.parametrize("name", IGNORED)
def test_arguments_that_would_be_ignored_are_refused_by_name(name):
    with pytest.raises(InvalidInputError, match=name):
        verify(right, **IGNORED[name])
    for option in ({"claim": Claim.UNBIASED}, {"expected_failures": {}}, {"time_limit": 3.0}):
        with pytest.raises(InvalidInputError, match=next(iter(option))):
            verify(**option)


@pytest.mark.exact
def test_the_command_line_takes_problems_by_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "from bilevelrl.estimators import BCHG, NaivePGD\n"
        "from bilevelrl.tasks import toy_markov_game as make\n"
        "def right(trajectories, context):\n    return BCHG()(trajectories, context)\n"
        "def wrong(trajectories, context):\n    return NaivePGD()(trajectories, context)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    place = ["--problem", "mine:make", "--horizon", "3"]
    assert main(["verify", *place, "--estimator", "mine:right"]) == 0
    assert main(["verify", *place, "--estimator", "mine:wrong"]) == 1
    assert "the response part is missing" in capsys.readouterr().out
    assert main(["report", *place, "--estimator", "mine:wrong", "--output", "page.html"]) == 1
    assert "truncation at 3 steps" in (tmp_path / "page.html").read_text(encoding="utf-8")
    np.save("draws.npy", hypergradient(toy_markov_game(), np.zeros(3)).value + np.zeros((50, 1)))
    capsys.readouterr()
    assert main(["judge", "draws.npy", "--task", "toy_markov_game", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["outcome"] == "no power"
    for wrong in (["--problem", "mine"], ["--problem", "mine:absent"], ["--theta", "x.npy"]):
        assert main(["verify", *wrong, "--estimator", "mine:right"]) == 2


@pytest.mark.exact
def test_a_draw_that_is_a_batch_is_still_told_apart():
    class Batched(NaivePGD):
        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "draw", Draw.BATCH)

    rows = verify(Batched(), problem=random_lqr(states=1, actions=1, seed=0)).estimators
    assert "one row per trajectory" in rows[0].verdict.reason
