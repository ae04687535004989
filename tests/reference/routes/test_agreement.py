"""Every route to the hypergradient agrees with every other, and with high-precision truth, within its own bound."""

import autograd.numpy as anp
import numpy as np
import pytest
from agreement import ROUTES, by_every_route, disagreements
from high_precision import HighPrecision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bilevelrl.reference import ConfigurableMDP, Tables, hypergradient, leader_objective
from bilevelrl.reference.errors import IllPosedError
from bilevelrl.tasks import chain, four_rooms, garnet, layered_mdp, random_mdp
from bilevelrl.tasks.generators.mdps import absorbing_mdp, periodic_mdp
from bilevelrl.verification.testing.strategies import configurable_mdps

OBJECTIVES = [
    pytest.param({"horizon": None, "discounted": True}, id="infinite"),
    pytest.param({"horizon": 5, "discounted": True}, id="five steps"),
    pytest.param({"horizon": 5, "discounted": False}, id="five steps undiscounted"),
    pytest.param({"horizon": 1, "discounted": True}, id="one step"),
]

# Sweeping routes take as many sweeps as the discount asks for; the slow ones have tests of their own below.
QUICK_DISCOUNTS = (0.0, 0.5, 0.9)

FIXED = {
    "random": random_mdp(states=4, actions=2, parameters=3, seed=0),
    "random, terminating": random_mdp(states=4, actions=2, parameters=3, seed=1, termination=0.2),
    "garnet": garnet(states=6, actions=3, branching=2, parameters=4, seed=2),
    "layered": layered_mdp(layers=3, width=2, actions=2, parameters=3, seed=3),
    "periodic": periodic_mdp(seed=4),
    "absorbing": absorbing_mdp(seed=5),
}


def point(problem, seed=0):
    return 0.3 * np.random.default_rng(seed).standard_normal(problem.theta_shape)


@pytest.mark.property
@pytest.mark.parametrize("objective", OBJECTIVES[:3])
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=configurable_mdps(max_states=4, discounts=QUICK_DISCOUNTS))
def test_all_routes_agree_on_drawn_problems(drawn, objective):
    results = by_every_route(drawn.problem, drawn.theta, **objective)
    for name, result in results.items():
        assert np.isfinite(result.value).all(), name
        np.testing.assert_allclose(sum(result.parts.values()), result.value, rtol=1e-14, atol=1e-14)
    assert disagreements(results) == []


@pytest.mark.property
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=configurable_mdps(max_states=3, discounts=QUICK_DISCOUNTS),
    objective=st.sampled_from([p.values[0] for p in OBJECTIVES]),
)
def test_bounds_contain_the_truth_on_drawn_problems(drawn, objective):
    truth = HighPrecision(drawn.problem, drawn.theta, **objective).parts()
    for name, result in by_every_route(drawn.problem, drawn.theta, **objective).items():
        for part, exact in truth.items():
            # The truth itself is rounded once when it becomes a float.
            allowed = result.error_bound + 1e-15 * np.abs(exact)
            assert (np.abs(result.parts[part] - exact) <= allowed).all(), (name, part)
        assert (np.abs(result.value - sum(truth.values())) <= result.error_bound * (1 + 1e-9) + 1e-300).all(), name


@pytest.mark.exact
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", FIXED)
def test_bounds_are_sound_and_say_something(name, objective):
    problem = FIXED[name]
    theta = point(problem)
    truth = HighPrecision(problem, theta, **objective)
    parts, total = truth.parts(), 0.0
    total = sum(parts.values())
    for route, result in by_every_route(problem, theta, **objective).items():
        actual = max(float(np.abs(result.parts[part] - exact).max()) for part, exact in parts.items())
        actual = max(actual, float(np.abs(result.value - total).max()))
        assert actual <= result.error_bound, route
        assert result.error_bound <= 1e-6 * np.abs(total).max(), route
        # An objective of order one has an error of at least a few roundings: a bound far above that is no bound.
        assert result.error_bound <= 1e6 * max(actual, 2.0**-52), route
        assert abs(result.objective - float(truth.objective)) <= 1e-11, route


@pytest.mark.exact
def test_typical_slack_of_the_bounds():
    """The bounds are worst cases over signs; on ordinary problems they are two to five digits above the error."""
    slack = []
    for problem in FIXED.values():
        truth = HighPrecision(problem, point(problem)).parts()
        for route in ROUTES:
            result = hypergradient(problem, point(problem), route=route)
            actual = max(float(np.abs(result.parts[part] - exact).max()) for part, exact in truth.items())
            slack.append(np.log10(result.error_bound / max(actual, 2.0**-53)))
    assert min(slack) >= 0.0
    assert np.median(slack) <= 4.0


@pytest.mark.exact
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_slow_chain(objective):
    """Mixing over a thousand steps at a discount of 0.99: the sweeping routes need their thousands of sweeps."""
    problem = chain(states=4, discount_follower=0.99, discount_leader=0.97)
    results = by_every_route(problem, point(problem), **objective)
    assert disagreements(results) == []
    assert results["forward"].counters["sweeps"] > 1000
    truth = sum(HighPrecision(problem, point(problem), **objective).parts().values())
    for route, result in results.items():
        assert np.abs(result.value - truth).max() <= result.error_bound <= 1e-6 * np.abs(truth).max(), route


@pytest.mark.exact
def test_cold_follower_with_huge_rewards():
    """At rewards of a million and β = 1e-4 rounding moves π; the bound knows, and nothing overflows."""
    warm = random_mdp(states=3, actions=2, parameters=2, seed=7)

    def tables(theta):
        drawn = warm.tables(theta)
        return drawn.replace(
            {"reward_follower": 1e6 * drawn.reward_follower + 1e6, "reward_leader": 1e6 * drawn.reward_leader}
        )

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1e-4, theta_shape=(2,)
    )
    theta = point(problem)
    truth = sum(HighPrecision(problem, theta).parts().values())
    for route, result in by_every_route(problem, theta).items():
        assert np.isfinite(result.value).all(), route
        assert np.abs(result.value - truth).max() <= result.error_bound, route


@pytest.mark.exact
def test_near_tie_of_a_cold_follower():
    """Finite differences at steps far wider than the bend at θ must not believe what they see."""

    def tables(theta):
        reward = np.array([[0.0, 1.0]]) * theta[0] * 1e3
        return Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=reward,
            reward_leader=np.array([[0.0, 1.0]]),
            initial=np.ones(1),
        )

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1e-3, theta_shape=(1,)
    )
    # J = 2 / (1 + exp(-1e6 θ)), so that the slope at 0 is 2 · 1e6 / 4.
    for route, result in by_every_route(problem, np.zeros(1)).items():
        assert abs(result.value[0] - 0.5e6) <= result.error_bound, route
        assert result.error_bound <= 1e-6 * 0.5e6, route


@pytest.mark.exact
def test_termination_that_begins_at_theta():
    """Rows sum to one at θ = 0 but not beside it, and a constant reward of a million then moves the gradient."""

    def tables(theta):
        going_on = 1.0 - theta[0] * np.array([1.0, 0.5])
        return Tables(
            transition=going_on[None, :, None] if isinstance(going_on, np.ndarray) else going_on.reshape((1, 2, 1)),
            reward_follower=np.full((1, 2), 1e6),
            reward_leader=np.full((1, 2), 1e6),
            initial=np.ones(1),
        )

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1e6, theta_shape=(1,)
    )
    theta = np.zeros(1)
    truth = sum(HighPrecision(problem, theta).parts().values())
    assert abs(truth[0]) > 1e5
    for route in ROUTES:
        if route == "finite_difference":  # would have to leave the set of probabilities
            continue
        result = hypergradient(problem, theta, route=route)
        assert np.abs(result.value - truth).max() <= result.error_bound <= 1e-6 * np.abs(truth).max(), route


@pytest.mark.exact
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("horizon", [None, 4])
def test_objective_is_the_leaders_objective(route, horizon):
    problem = FIXED["random, terminating"]
    theta = point(problem)
    found = hypergradient(problem, theta, route=route, horizon=horizon).objective
    assert found == pytest.approx(leader_objective(problem, theta, horizon=horizon), rel=1e-12)


@pytest.mark.exact
@pytest.mark.parametrize("route", ROUTES)
def test_long_episodes_become_infinite(route):
    problem = FIXED["random"]
    theta = point(problem)
    infinite = hypergradient(problem, theta, route=route).value
    size = np.abs(infinite).max()
    gaps = [np.abs(hypergradient(problem, theta, route=route, horizon=T).value - infinite).max() for T in (20, 40, 160)]
    assert gaps[0] > 1e-4 * size
    assert gaps[1] <= 0.8**19 * gaps[0]
    assert gaps[2] <= 1e-9 * size


@pytest.mark.exact
def test_taylor_remainder_falls_with_the_square_of_the_step():
    """The objective itself, which knows nothing of derivatives: J(θ + h e) - J(θ) - h g·e ~ h²."""
    problem = FIXED["garnet"]
    theta, direction = point(problem), point(problem, seed=9)
    gradient = hypergradient(problem, theta).value
    base = leader_objective(problem, theta)

    def remainders(slope):
        steps = 2.0 ** -np.arange(12, 17)
        return np.array([abs(leader_objective(problem, theta + h * direction) - base - h * slope) for h in steps])

    rates = np.log2(remainders(gradient @ direction)[:-1] / remainders(gradient @ direction)[1:])
    assert (rates > 1.8).all()
    wrong = np.log2(remainders(1.01 * gradient @ direction)[:-1] / remainders(1.01 * gradient @ direction)[1:])
    assert (wrong < 1.5).all()


@pytest.mark.exact
def test_four_rooms_by_the_routes_that_are_quick_there():
    problem = four_rooms(temperature=0.003)
    theta = 0.01 * np.random.default_rng(1).standard_normal(105)
    results = {
        route: hypergradient(problem, theta, route=route, horizon=30)
        for route in ("implicit", "theorem1", "hpgd_form", "m_sobirl", "mixed_derivative", "unrolled")
    }
    assert disagreements(results) == []
    assert all(result.error_bound <= 1e-6 * np.abs(result.value).max() for result in results.values())


@pytest.mark.exact
def test_status_residual_and_cost_are_told():
    problem = FIXED["random"]
    for route in ROUTES:
        result = hypergradient(problem, point(problem), route=route)
        assert result.route == route
        assert result.status
        assert 0.0 <= result.residual < 1e-10
        assert result.condition >= 1.0
        assert all(count > 0 for count in result.counters.values())
        assert hypergradient(problem, point(problem), route=route, bound=False).error_bound == np.inf


def ends_with_chance(theta):
    """The episode ends with probability θ_0 at every step, whatever the follower does."""
    return Tables(
        transition=(1.0 - theta[0]) * np.full((2, 2, 2), 0.5),
        reward_follower=np.array([[0.0, 1.0], [2.0, 0.0]]),
        reward_leader=np.array([[0.0, 1.0], [2.0, 3.0]]) + theta[1] ** 2,
        initial=np.array([1.0, 0.0]),
    )


@pytest.mark.exact
@pytest.mark.parametrize("chance", [0.2, 0.01, 1e-5])
def test_finite_differences_stay_among_probabilities(chance):
    """The first steps would make a chance to end negative; smaller ones must be found, for that coordinate alone."""
    problem = ConfigurableMDP(tables=ends_with_chance, discount_leader=0.9, discount_follower=0.8, temperature=0.5)
    theta = np.array([chance, 0.5])
    truth, found = (hypergradient(problem, theta, route=route) for route in ("theorem1", "finite_difference"))
    assert np.abs(found.value - truth.value).max() <= found.error_bound + truth.error_bound
    assert found.error_bound <= 1e-6 * np.abs(truth.value).max()


@pytest.mark.exact
@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda x: 1.0 + anp.exp(-(((x - 0.3003) / 1e-4) ** 2)), 6e4 * np.exp(-9.0)),
        (lambda x: 1.0 + 0.01 * anp.sin(2048.0 * np.pi * x), 20.48 * np.pi * np.cos(2048.0 * np.pi * 0.3)),
        (lambda x: x + anp.tanh((x - 0.3) / 1e-3), 1001.0),
    ],
    ids=["a bump between the steps", "as many periods as steps", "a narrow rise"],
)
def test_finite_differences_see_what_their_first_steps_pass_over(function, slope):
    def tables(theta):
        return Tables(
            transition=np.ones((1, 1, 1)), reward_follower=np.zeros((1, 1)),
            reward_leader=anp.reshape(function(theta[0]), (1, 1)), initial=np.ones(1),
        )  # fmt: skip

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    found = hypergradient(problem, np.array([0.3]), route="finite_difference")
    assert abs(found.value[0] - 2.0 * slope) <= found.error_bound < 1e-6 * slope


def test_finite_differences_refuse_the_edge_of_the_probabilities():
    problem = ConfigurableMDP(tables=ends_with_chance, discount_leader=0.9, discount_follower=0.8, temperature=0.5)
    with pytest.raises(IllPosedError, match=r"theta\[0\]: no step to both sides"):
        hypergradient(problem, np.array([1.0, 0.5]), route="finite_difference")
