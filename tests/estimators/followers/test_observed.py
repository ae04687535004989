"""Imitators, and leaders who see actions alone: against counts, policies and formulas made by the exact layer."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators.followers import ExpectedSoftQLearning, Imitation, SharedDynamics, WatchedFollower
from bilevelrl.estimators.training import Run, Training, train
from bilevelrl.reference import TabularFollower, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.approximations import follower_policy, formula_under
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError
from bilevelrl.reference.observed import policy_from_counts
from bilevelrl.tasks import four_rooms, random_mdp

pytestmark = pytest.mark.exact


def counts_of(policy, observed, rng):
    """Draws in the order of the rule, one multinomial of each state."""
    law = np.round(policy, 9)
    return rng.multinomial(observed, law / law.sum(axis=1, keepdims=True))


def training_of(problem, follower, *, method="naive_pgd", **options):
    runs = [Run(method=method, seed=0, learning_rate=0.1)]
    settings = {"iterations": 1, "steps": 20, "evaluate_every": 1, "start_scale": 0.3, **options}
    return Training(problem=problem, runs=runs, follower=follower, **settings)


PROBLEMS = pytest.mark.parametrize(
    "problem", [four_rooms(temperature=0.005), random_mdp(seed=4)], ids=["together", "one by one"]
)


@PROBLEMS
@pytest.mark.parametrize("rule", [Imitation, WatchedFollower])
def test_facts_are_those_of_counted_policies(problem, rule):
    training = training_of(problem, rule(observed=60, prior=0.5))
    theta, rng = training.start()[0], training.generators()[0]
    best, truth = solve_follower(problem, theta), hypergradient(problem, theta)
    policy = policy_from_counts(counts_of(best.policy, 60, rng), prior=0.5)
    seen = TabularFollower.from_policy(problem, theta, policy)
    found = {name: float(values[0, 0]) for name, values in train(training).values.items()}
    off = np.linalg.norm(formula_under(problem, theta, seen).value - truth.value)
    assert off > 1e-4
    assert found["hypergradient_error"] == pytest.approx(off, rel=1e-5)
    imitates = rule is Imitation
    played = leader_objective(problem, theta, follower=seen if imitates else best)
    assert found["played_objective"] == pytest.approx(played, rel=1e-7)
    assert found["objective"] == pytest.approx(truth.objective, rel=1e-7)
    value_off = np.abs(seen.value - best.value).max() if imitates else 0.0
    assert found["follower_error"] == pytest.approx(value_off, rel=1e-6, abs=0.0)


@PROBLEMS
def test_a_leader_who_sees_actions_alone_estimates_with_them(problem):
    """Endless observations give what a leader has who is told; few do not, though what is played is the same."""

    def step(follower):
        training = training_of(problem, follower, method="bc_hg_exact_benefit", largest_norm=np.inf)
        return (train(training).thetas - training.start())[0]

    few, many, more = (step(WatchedFollower(observed=n)) for n in (20, 10**12, 10**13))
    size = np.abs(more).max()
    assert np.abs(few - more).max() > 1e-2 * size
    assert np.abs(many - more).max() < 1e-2 * size


def test_peeking_is_noticed(monkeypatch):
    """A leader that takes the best response itself, and says that it counted."""
    monkeypatch.setattr(WatchedFollower, "seen", lambda self, dynamics, rewards, played, generators: played)
    history = train(training_of(four_rooms(temperature=0.005), WatchedFollower(observed=60)))
    assert history.values["hypergradient_error"][0, 0] < 1e-12


def test_expected_updates_are_the_map():
    problem, theta = random_mdp(seed=0, termination=0.05), np.array([0.3, -0.5, 0.2])
    dynamics = SharedDynamics(problem, theta, shared=False)
    rewards, rule = dynamics.rewards(theta[None]), ExpectedSoftQLearning(updates=4, step_size=0.3)
    played, carried = rule.respond(dynamics, rewards, {}, [])
    own = follower_policy(problem, theta, "soft_q_learning", updates=4, step_size=0.3)
    np.testing.assert_allclose(played.policy[0], own, rtol=1e-12)
    again, _ = rule.respond(dynamics, rewards, carried, [])
    longer = follower_policy(problem, theta, "soft_q_learning", updates=8, step_size=0.3)
    np.testing.assert_allclose(again.policy[0], longer, rtol=1e-12)
    anew = ExpectedSoftQLearning(updates=4, step_size=0.3, carry=False)
    reset, nothing = anew.respond(dynamics, rewards, carried, [])
    np.testing.assert_allclose(reset.policy[0], own, rtol=1e-12)
    assert nothing == {}


def test_bad_rules_are_refused():
    for make, message in (
        (lambda: Imitation(observed=0), "observed=0"),
        (lambda: Imitation(prior=0.0), "prior=0.0"),
        (lambda: WatchedFollower(prior=-1.0), "prior=-1.0"),
        (lambda: ExpectedSoftQLearning(step_size=2.0), "step_size=2.0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            make()
    tables = {"action_mask": np.array([[True, False], *3 * [[True, True]]])}
    problem = random_mdp(seed=0)
    masked = replace(
        problem,
        tables=lambda theta: replace(problem.evaluate(theta), **tables),
        tables_jacobian=None,
        tables_pullback=None,
    )
    dynamics = SharedDynamics(masked, np.zeros(3), shared=False)
    for rule in (Imitation(), WatchedFollower(), ExpectedSoftQLearning()):
        with pytest.raises(UnsupportedError, match="action_mask"):
            rule.respond(dynamics, dynamics.rewards(np.zeros((1, 3))), {}, [])
