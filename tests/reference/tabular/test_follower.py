"""The follower's solvers: within their bounds at every temperature, quadratic where they claim it, and one answer."""

import numpy as np
import pytest
from high_precision import HighPrecision
from hypothesis import given, settings

from bilevelrl.reference import ConfigurableMDP, Tables, solve_follower
from bilevelrl.reference.best_response import SuboptimalFollower
from bilevelrl.reference.problem import Status
from bilevelrl.reference.tabular import solve_followers
from bilevelrl.tasks import four_rooms, garnet, random_mdp
from bilevelrl.verification.testing.strategies import configurable_mdps

METHODS = ("newton", "value_iteration", "modified_policy_iteration")


def distance(one, other):
    return float(np.abs(one - other).max())


@pytest.mark.property
@settings(max_examples=60)
@given(drawn=configurable_mdps(max_states=4))
def test_newton_is_within_its_bound_of_the_truth(drawn):
    """Temperatures from 1e-4 to 1e2, rewards of a million: values and policy against eighty digits."""
    solution = solve_follower(drawn.problem, drawn.theta)
    truth = HighPrecision(drawn.problem, drawn.theta)
    assert solution.status.succeeded
    for array in (solution.value, solution.action_value, solution.policy):
        assert np.isfinite(array).all()
    assert distance(solution.value, truth.value) <= solution.error_bound
    assert distance(solution.centred_value + solution.centre, truth.value) <= solution.error_bound
    np.testing.assert_allclose(solution.policy.sum(axis=1), 1.0, rtol=1e-14)
    # Probabilities below the smallest float are zero, and right.
    off = np.abs(solution.policy - truth.policy.astype(float))
    assert (off <= solution.policy_error_bound * truth.policy.astype(float) + 1e-300).all()


@pytest.mark.property
@settings(max_examples=40)
@given(drawn=configurable_mdps(max_states=4))
def test_bound_is_at_the_level_of_rounding(drawn):
    """Not vacuous: a few dozen roundings of the largest value, over 1 - γ."""
    problem = drawn.problem
    solution = solve_follower(problem, drawn.theta)
    largest = max(1.0, float(np.abs(solution.action_value).max()))
    assert solution.error_bound <= (2e-12 + 32 * 2.0**-52 / (1 - problem.discount_follower)) * largest


@pytest.mark.property
@pytest.mark.parametrize("method", METHODS[1:])
@settings(max_examples=30)
@given(drawn=configurable_mdps(max_states=4, discounts=(0.0, 0.5, 0.9)))
def test_sweeping_methods_find_newtons_answer(drawn, method):
    newton = solve_follower(drawn.problem, drawn.theta)
    swept = solve_follower(drawn.problem, drawn.theta, method=method)
    assert swept.status.succeeded
    assert distance(newton.value, swept.value) <= newton.error_bound + swept.error_bound
    # Two policies that are each within a relative bound of the same one.
    bound = newton.policy_error_bound + swept.policy_error_bound
    if bound < 0.1:
        assert (np.abs(newton.policy - swept.policy) <= 1.2 * bound * newton.policy + 1e-300).all()


@pytest.mark.property
@settings(max_examples=40)
@given(drawn=configurable_mdps(max_states=4))
def test_a_batch_is_its_members(drawn):
    thetas = np.stack([drawn.theta, 0.5 * drawn.theta, -drawn.theta])
    value, action_value, policy = solve_followers(drawn.problem, thetas)
    for k, theta in enumerate(thetas):
        alone = solve_follower(drawn.problem, theta)
        assert distance(value[k], alone.value) <= 2 * alone.error_bound
        assert distance(action_value[k], alone.action_value) <= 2 * alone.error_bound
        assert distance(policy[k], alone.policy) <= 2 * min(alone.policy_error_bound, 1.0)


@pytest.mark.property
@settings(max_examples=30)
@given(drawn=configurable_mdps(max_states=4))
def test_a_warm_start_changes_the_cost_not_the_answer(drawn):
    cold = solve_follower(drawn.problem, drawn.theta)
    near = solve_follower(drawn.problem, drawn.theta + 1e-6)
    for start in (cold, near, near.value, np.full(cold.value.shape, 1e3)):
        warm = solve_follower(drawn.problem, drawn.theta, warm_start=start)
        assert distance(cold.value, warm.value) <= cold.error_bound + warm.error_bound
    assert solve_follower(drawn.problem, drawn.theta, warm_start=cold).iterations <= 3


def newton_factor(problem):
    """γ²·γ / (2 β (1 - γ)): T is convex with second derivative at most γ² Var_π/β, and a backup follows the step."""
    gamma = problem.discount_follower
    return gamma**3 / (2 * problem.temperature * (1 - gamma))


@pytest.mark.exact
@pytest.mark.parametrize("problem", [random_mdp(seed=1), garnet(seed=2)], ids=["random", "garnet"])
def test_newton_is_quadratic_and_value_iteration_is_not(problem):
    theta = np.zeros(problem.theta_shape)
    best = solve_follower(problem, theta)
    direction = np.random.default_rng(0).uniform(-1.0, 1.0, best.value.shape)
    exceeded = []
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        start = best.value + size * direction
        error = distance(start, best.value)

        def after_one(method, start=start):
            step = solve_follower(problem, theta, method=method, warm_start=start, stop_after=1)
            return distance(step.value, best.value)

        allowed = newton_factor(problem) * error**2 + 2 * best.error_bound
        assert after_one("newton") <= allowed
        exceeded.append(after_one("value_iteration") > allowed)
    assert any(exceeded)


@pytest.mark.exact
def test_newton_climbs_monotonically_from_anywhere():
    """Each iterate after the first is the value of a policy: none exceeds the optimum, none falls back."""
    problem = random_mdp(seed=3, temperature=0.01)
    theta = np.zeros(3)
    best = solve_follower(problem, theta)
    previous = None
    for k in range(1, 9):
        value = solve_follower(problem, theta, warm_start=np.full(4, 50.0), stop_after=k).value
        slack = 4 * best.error_bound
        assert (value <= best.value + slack).all()
        if previous is not None:
            assert (value >= previous - slack).all()
        previous = value


@pytest.mark.exact
def test_three_newton_steps_from_a_warm_start_on_four_rooms():
    problem = four_rooms(temperature=0.003)
    theta = 0.01 * np.random.default_rng(0).standard_normal(105)
    before = solve_follower(problem, theta)
    after = solve_follower(problem, theta + 1e-3, warm_start=before)
    assert after.linear_solves <= 3
    assert after.error_bound <= 1e-11


@pytest.mark.property
@settings(max_examples=30)
@given(drawn=configurable_mdps(max_states=4, discounts=(0.0, 0.5, 0.9), reward_shifts=(0.0,)))
def test_suboptimal_follower_contracts(drawn):
    """k sweeps leave at most γ^k of the initial error, and the error bound says at least what is left."""
    problem, theta = drawn.problem, drawn.theta
    best = solve_follower(problem, theta)
    start = distance(np.zeros(best.value.shape), best.value)
    for k in (0, 1, 3):
        stopped = solve_follower(problem, theta, method="value_iteration", stop_after=k)
        assert stopped.status is Status.STOPPED_EARLY
        assert not stopped.status.succeeded
        # `value` is one backup after the k sweeps, whose policy is what the follower plays.
        allowed = problem.discount_follower ** (k + 1) * start + 2 * best.error_bound
        assert distance(stopped.value, best.value) <= allowed
        assert distance(stopped.value, best.value) <= stopped.error_bound + best.error_bound


@pytest.mark.exact
def test_suboptimal_follower_carried_over_or_anew():
    problem, theta = random_mdp(seed=4), np.zeros(3)
    best = solve_follower(problem, theta)
    carried, anew = SuboptimalFollower(iterations=5, carry=True), SuboptimalFollower(iterations=5, carry=False)
    first = carried.respond(problem, theta)
    second = carried.respond(problem, theta, previous=first)
    np.testing.assert_array_equal(
        anew.respond(problem, theta).value, anew.respond(problem, theta, previous=first).value
    )
    assert distance(second.value, best.value) <= 0.9**5 * distance(first.value, best.value) + best.error_bound
    noisy = SuboptimalFollower(iterations=1, carry=False, noise=1.0)
    one = noisy.respond(problem, theta, rng=np.random.default_rng(5))
    same = noisy.respond(problem, theta, rng=np.random.default_rng(5))
    other = noisy.respond(problem, theta, rng=np.random.default_rng(6))
    np.testing.assert_array_equal(one.value, same.value)
    assert distance(one.value, other.value) > 0.0


@pytest.mark.exact
def test_textbook_fixed_point_in_closed_form():
    """One state, two actions: V = (β log Σ exp(r/β)) / (1 - γ), π = softmax(r/β)."""
    reward = np.array([[1.0, 0.3]])
    for temperature in (1e-4, 1e-2, 1.0, 1e2):
        problem = ConfigurableMDP(
            tables=lambda theta: Tables(
                transition=np.ones((1, 2, 1)), reward_follower=reward, reward_leader=reward, initial=np.ones(1)
            ),
            discount_leader=0.0,
            discount_follower=0.75,
            temperature=temperature,
        )
        solution = solve_follower(problem, np.zeros(1))
        soft = 1.0 + temperature * np.log1p(np.exp(-0.7 / temperature))
        assert solution.value[0] == pytest.approx(4.0 * soft, rel=1e-15)
        assert solution.policy[0, 1] == pytest.approx(
            1.0 / (1.0 + np.exp(min(0.7 / temperature, 700.0))), rel=1e-12, abs=1e-300
        )


@pytest.mark.exact
def test_sampled_actions_and_log_probabilities_are_the_policys():
    problem = random_mdp(seed=6)
    solution = solve_follower(problem, np.zeros(3))

    class Thresholds(np.random.Generator):
        """The grid of midpoints k/1000 in place of random numbers, so that counts are exact to one in a thousand."""

        def random(self, shape):
            return np.broadcast_to((np.arange(1000) + 0.5) / 1000, shape)

    for state in range(4):
        drawn = solution.sample(np.full(1000, state), Thresholds(np.random.PCG64(0)))
        shares = np.bincount(drawn, minlength=2) / 1000
        np.testing.assert_allclose(shares, solution.policy[state], atol=1e-3)
    states, actions = np.array([[0, 1], [2, 3]]), np.array([[0, 1], [1, 0]])
    np.testing.assert_allclose(np.exp(solution.log_prob(states, actions)), solution.policy[states, actions], rtol=1e-14)


@pytest.mark.parametrize("sweeps", [3, 10, 30])
def test_bounds_hold_where_one_action_is_sure_of_its_value(sweeps):
    """Go or stop: stopping has no error, going has all of it, and what is common to both is no bound of either."""
    problem = ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.array([[[1.0], [0.0]]]), initial=np.ones(1), reward_follower=np.array([[1.0, 9.0]]),
            reward_leader=np.array([[1.0, 3.0]]),
        ),
        discount_leader=0.9, discount_follower=0.9, temperature=0.2, theta_shape=(1,),
    )  # fmt: skip
    value = 9.0
    for _ in range(3000):
        value = 0.2 * np.logaddexp((1.0 + 0.9 * value) / 0.2, 9.0 / 0.2)
    going = np.exp((1.0 + 0.9 * value - value) / 0.2)
    start = np.array([value * (1.0 + 1e-6)])
    stopped = solve_follower(problem, np.zeros(1), method="value_iteration", stop_after=sweeps, warm_start=start)
    off = np.abs(stopped.policy[0] / np.array([going, 1.0 - going]) - 1.0).max()
    assert 1e-9 < off <= stopped.policy_error_bound
