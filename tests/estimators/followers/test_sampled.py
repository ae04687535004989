"""Followers that learn by natural policy gradient: the known linear rate, the plain loop, and errors that fall."""

import importlib.util

import numpy as np
import pytest

from bilevelrl.estimators.followers import ExactFollower, NaturalPolicyGradient, SharedDynamics, SoftQLearning
from bilevelrl.estimators.sampling import compiled as compiled_module
from bilevelrl.estimators.sampling.draws import kernel_draws
from bilevelrl.estimators.training import Run, Training, train
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import four_rooms, random_mdp


def situation(runs=2, **options):
    problem = random_mdp(**{"states": 5, "actions": 3, "termination": 0.05, "seed": 1, **options})
    theta = np.random.default_rng(0).standard_normal((runs, *problem.theta_shape))
    dynamics = SharedDynamics(problem, theta[0], shared=False)
    return dynamics, dynamics.rewards(theta)


def generators(runs=2):
    return [np.random.default_rng(run) for run in range(runs)]


def distance(played, best):
    """Largest |log π - log π*| of each run."""
    return np.abs(np.log(played.policy) - np.log(best.policy)).max(axis=(1, 2))


@pytest.mark.exact
@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0])
def test_exact_updates_converge_at_the_known_rate(step_size, monkeypatch):
    dynamics, rewards = situation()
    beta, discount = dynamics.problem.temperature, dynamics.problem.discount_follower
    best, _ = ExactFollower(tolerance=1e-13).respond(dynamics, rewards, {})
    uniform = np.full(best.policy.shape, 1.0 / 3.0)
    # Q of the uniform policy, where the table starts.
    first, _ = NaturalPolicyGradient(updates=1, step_size=1e-12, samples=None).respond(dynamics, rewards, {}, [])
    np.testing.assert_allclose(first.policy, uniform, atol=1e-9)
    start = np.abs(first.action_value - best.action_value).max(axis=(1, 2))
    start += 2.0 * beta * (1.0 - step_size) * np.abs(np.log(uniform) - np.log(best.policy)).max(axis=(1, 2))
    rate = 1.0 - step_size * (1.0 - discount)

    def bound(updates):
        return 2.0 * start / beta * rate ** (updates - 1)

    apart = []
    for updates in (1, 2, 5, 20, 80, 320):
        played, _ = NaturalPolicyGradient(updates=updates, step_size=step_size, samples=None).respond(
            dynamics, rewards, {}, []
        )
        apart.append(distance(played, best))
        assert (apart[-1] <= bound(updates) + 1e-9).all()
    assert (apart[0] > 0.05).all()
    assert (apart[-1] < 1e-6 * apart[0]).all()
    # A bound that nothing misses would say nothing: a policy that never forgets where it started misses it.
    assert (apart[0] > bound(320)).all()


@pytest.mark.exact
def test_a_full_step_is_soft_policy_iteration():
    dynamics, rewards = situation()
    beta = dynamics.problem.temperature
    table = np.zeros(rewards.follower.shape)
    for updates in (1, 2, 3):
        weights = np.exp((table - table.max(axis=2, keepdims=True)) / beta)
        policy = weights / weights.sum(axis=2, keepdims=True)
        value = np.stack(
            [
                np.linalg.solve(
                    np.eye(5) - dynamics.problem.discount_follower * np.einsum("sa,sat->st", own, dynamics.kernel),
                    (own * (reward - beta * np.log(own))).sum(axis=1),
                )
                for own, reward in zip(policy, rewards.follower, strict=True)
            ]
        )
        table = rewards.follower + dynamics.problem.discount_follower * np.einsum("sat,rt->rsa", dynamics.kernel, value)
        rule = NaturalPolicyGradient(updates=updates, step_size=1.0, samples=None)
        played, _ = rule.respond(dynamics, rewards, {}, [])
        np.testing.assert_allclose(played.action_value, table, rtol=1e-12)


@pytest.mark.exact
@pytest.mark.parametrize("critic_step_size", [None, 0.3])
def test_sampled_updates_are_a_plain_loop(critic_step_size):
    dynamics, rewards = situation()
    beta, discount = dynamics.problem.temperature, dynamics.problem.discount_follower
    rule = NaturalPolicyGradient(updates=3, step_size=0.4, samples=50, critic_step_size=critic_step_size)
    played, carried = rule.respond(dynamics, rewards, {}, generators())
    again, _ = rule.respond(dynamics, rewards, carried, generators())
    moves = kernel_draws(dynamics.kernel)
    for run in range(2):
        policy, table, visits = np.full((5, 3), 1.0 / 3.0), np.zeros((6, 3)), np.zeros(15)
        for found in (played, again):
            rng = np.random.default_rng(run)
            visits[:] = 0.0
            for _ in range(3):
                numbers = rng.random((2, 50))
                entropy = np.append(-(policy * np.log(policy)).sum(axis=1), 0.0)
                for k in range(50):
                    pair = int(numbers[0, k] * 15)
                    then = int(moves.draw(np.array([pair]), numbers[1, k : k + 1])[0])
                    ahead = beta * entropy[then] + (policy[then] @ table[then] if then < 5 else 0.0)
                    rate = critic_step_size or 1.0 / (1.0 + (1.0 - discount) * visits[pair])
                    visits[pair] += 1.0
                    error = rewards.follower[run].flat[pair] + discount * ahead - table.flat[pair]
                    table.flat[pair] += rate * error
                policy = policy**0.6 * np.exp(0.4 * table[:5] / beta)
                policy /= policy.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(found.policy[run], policy, rtol=1e-10)
            np.testing.assert_allclose(found.action_value[run], table[:5], rtol=1e-10)
    assert np.abs(again.policy - played.policy).max() > 0.01
    anew = NaturalPolicyGradient(updates=3, step_size=0.4, samples=50, critic_step_size=critic_step_size, carry=False)
    reset, nothing = anew.respond(dynamics, rewards, carried, generators())
    np.testing.assert_array_equal(reset.policy, played.policy)
    assert nothing == {}


@pytest.mark.exact
@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
@pytest.mark.parametrize("actions", [3, 9])  # NumPy sums nine numbers in another order than one after the other
def test_compiled_or_not_are_the_same_bits(monkeypatch, actions):
    dynamics, rewards = situation(actions=actions)
    rule = NaturalPolicyGradient(updates=3, step_size=0.4, samples=200)
    compiled, _ = rule.respond(dynamics, rewards, {}, generators())
    for way in (lambda loop: None, lambda loop: loop):
        monkeypatch.setattr(compiled_module, "_compile", way)
        other, _ = rule.respond(dynamics, rewards, {}, generators())
        np.testing.assert_array_equal(compiled.policy, other.policy)
        np.testing.assert_array_equal(compiled.action_value, other.action_value)


@pytest.mark.exact
def test_the_error_falls_with_samples_to_that_of_exact_values():
    # Fixed seeds: no chance is left. Twenty runs of one problem, errors of the learnt policy in the mean.
    problem = random_mdp(states=5, actions=3, seed=1)
    dynamics = SharedDynamics(problem, np.zeros(problem.theta_shape), shared=False)
    rewards = dynamics.rewards(np.zeros((20, *problem.theta_shape)))
    best, _ = ExactFollower().respond(dynamics, rewards, {})
    exact, _ = NaturalPolicyGradient(updates=30, samples=None).respond(dynamics, rewards, {}, [])
    floor = distance(exact, best)[0]
    errors = []
    for samples in (100, 1600, 25_600):
        rule = NaturalPolicyGradient(updates=30, samples=samples)
        played, _ = rule.respond(dynamics, rewards, {}, generators(20))
        errors.append(float(distance(played, best).mean()))
    # Independent errors fall as the inverse root: by 4 each time; the first ones are not in that regime yet.
    assert errors[1] < errors[0] / 2.0
    assert errors[2] < errors[1] / 2.5
    assert floor < 0.1 * errors[2]


@pytest.mark.exact
@pytest.mark.parametrize("carry", [True, False])
def test_training_against_it_reports_what_its_error_does(carry, tmp_path):
    settings = {
        "problem": four_rooms(temperature=0.005, start=(2, 8)),
        "runs": [Run(method=name, seed=0, learning_rate=0.1) for name in ("bc_hg", "exact")],
        "iterations": 4,
        "steps": 40,
        "evaluate_every": 1,
    }
    errors = {}
    for samples in (500, 50_000):
        rule = NaturalPolicyGradient(updates=5, step_size=1.0, samples=samples, carry=carry)
        whole = Training(**settings, follower=rule)
        history = train(whole)
        assert (history.values["follower_error"] > 0.0).all()
        errors[samples] = history.values["follower_error"][0].mean(), history.values["hypergradient_error"][0].mean()
    assert errors[50_000][0] < 0.5 * errors[500][0]
    assert errors[500][1] > 0.0
    path = tmp_path / "state.npz"
    train(whole, checkpoint=path, callbacks=[lambda found: found.iteration < 2])
    np.testing.assert_array_equal(train(whole, checkpoint=path).thetas, history.thetas)
    alone = train(Training(**{**settings, "runs": settings["runs"][:1]}, follower=rule))
    np.testing.assert_array_equal(alone.thetas[0], history.thetas[0])


@pytest.mark.exact
def test_bad_rules_are_refused():
    for options, message in (
        ({"updates": 0}, "updates=0"),
        ({"samples": 0}, "samples=0"),
        ({"step_size": 0.0}, "step_size=0.0"),
        ({"step_size": 1.5}, "step_size=1.5"),
        ({"critic_step_size": float("nan")}, "critic_step_size=nan"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            NaturalPolicyGradient(**options)
    with pytest.raises(InvalidInputError, match="step_size=2"):
        SoftQLearning(step_size=2.0)
