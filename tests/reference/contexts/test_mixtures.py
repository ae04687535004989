"""Mixtures of contexts: every route is the weighted sum, to the bit for one context, and a single MDP says the same."""

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    ConfigurableMDP,
    Problem,
    certified_hypergradient,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.approximations import APPROXIMATIONS, approximate_hypergradient
from bilevelrl.reference.contexts import Mixture, reduce_contexts
from bilevelrl.reference.errors import (
    BilevelRLError,
    InvalidInputError,
    ShapeError,
    StochasticityError,
    UnsupportedError,
)
from bilevelrl.reference.game import reduce_game
from bilevelrl.reference.problem import Follower
from bilevelrl.reference.registry import objective_error_bound
from bilevelrl.tasks import layered_mdp, random_lqr, random_mdp
from bilevelrl.tasks.generators import layered_markov_game

pytestmark = pytest.mark.exact

EPS = float(np.finfo(np.float64).eps)
ROUTES = sorted(name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableMDP in route.kinds)
OBJECTIVES = ({}, {"horizon": 4}, {"horizon": 4, "discounted": False})
THETA = np.array([0.3, -0.5, 0.2])
MEMBERS = [
    random_mdp(
        states=3, actions=2, parameters=3, seed=seed, temperature=beta, discount_leader=0.4, discount_follower=0.5
    )
    for seed, beta in ((0, 0.5), (1, 0.05), (2, 5.0))
]
WEIGHTS = np.array([0.2, 0.5, 0.3])
MIXTURE = Mixture(contexts=MEMBERS, weights=WEIGHTS)


def by_hand(problems, weights, theta, **objective):
    return sum(p * leader_objective(problem, theta, **objective) for p, problem in zip(weights, problems, strict=True))


def differences(value, theta, step=1e-6):
    steps = step * np.eye(theta.size)
    return np.array([(value(theta + e) - value(theta - e)) / (2.0 * step) for e in steps])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_the_weighted_sum_of_its_contexts(route, objective):
    found = hypergradient(MIXTURE, THETA, route=route, **objective)
    each = [hypergradient(problem, THETA, route=route, **objective) for problem in MEMBERS]
    for kept, own in zip(found.contexts, each, strict=True):
        np.testing.assert_array_equal(kept.value, own.value)
    expected = np.tensordot(WEIGHTS, np.array([own.value for own in each]), axes=1)
    size = sum(np.abs(part).max() for own in each for part in own.parts.values())
    np.testing.assert_allclose(found.value, expected, rtol=0.0, atol=16 * EPS * size)
    np.testing.assert_allclose(sum(found.parts.values()), found.value, rtol=0.0, atol=16 * EPS * size)
    bound = sum(p * own.error_bound for p, own in zip(WEIGHTS, each, strict=True))
    assert bound <= found.error_bound <= bound + 64 * EPS * size
    assert abs(found.objective - by_hand(MEMBERS, WEIGHTS, THETA, **objective)) <= found.objective_error_bound


@pytest.mark.parametrize("route", ROUTES)
def test_one_context_is_its_member_to_the_bit(route):
    found, own = (
        hypergradient(problem, THETA, route=route)
        for problem in (Mixture(contexts=MEMBERS[:1], weights=[1.0]), MEMBERS[0])
    )
    for attribute in ("value", "objective", "error_bound", "objective_error_bound", "residual", "condition", "status"):
        np.testing.assert_array_equal(getattr(found, attribute), getattr(own, attribute))
    for name, part in own.parts.items():
        np.testing.assert_array_equal(np.signbit(found.parts[name]), np.signbit(part))
        np.testing.assert_array_equal(found.parts[name], part)


@st.composite
def mixtures(draw, equal=False):
    """One to three random MDPs of several sizes; unless equal, with discounts and temperatures of their own."""
    count = draw(st.integers(1, 3))
    constants = st.tuples(st.sampled_from([0.0, 0.4, 0.7]), st.sampled_from([0.3, 0.6]), st.floats(-2.0, 2.0))
    common = draw(constants)
    contexts = []
    for _ in range(count):
        leader, follower, decade = common if equal else draw(constants)
        contexts.append(
            random_mdp(
                states=draw(st.integers(1, 4)),
                actions=draw(st.integers(1, 3)),
                parameters=3,
                seed=draw(st.integers(0, 2**16)),
                discount_leader=leader,
                discount_follower=follower,
                temperature=10.0**decade,
            )
        )
    raw = np.array(draw(st.lists(st.floats(0.0, 1.0), min_size=count, max_size=count)))
    raw[draw(st.integers(0, count - 1))] += 0.5
    return Mixture(contexts=contexts, weights=raw / raw.sum())


QUICK = [name for name in ROUTES if name not in ("finite_difference", "certified", "unrolled")]


@pytest.mark.property
@pytest.mark.parametrize("objective", OBJECTIVES[:2])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mixture=mixtures())
def test_all_routes_agree_on_drawn_mixtures(mixture, objective):
    found = {route: hypergradient(mixture, THETA, route=route, **objective) for route in QUICK}
    reference = found.pop("implicit")
    for route, other in found.items():
        allowed = reference.error_bound + other.error_bound
        assert np.abs(reference.value - other.value).max() <= allowed, route
        for name, part in reference.parts.items():
            assert np.abs(part - other.parts[name]).max() <= allowed, (route, name)


@pytest.mark.property
@settings(max_examples=8, deadline=None)
@given(mixture=mixtures(equal=True))
def test_one_mdp_of_contexts_and_states_says_the_same(mixture):
    one = reduce_contexts(mixture)
    assert one.states_at(THETA) == sum(context.states_at(THETA) for context in mixture.contexts)
    for objective in OBJECTIVES[:2]:
        both = [hypergradient(problem, THETA, **objective) for problem in (mixture, one)]
        size = sum(np.abs(part).max() for own in both[0].contexts for part in own.parts.values())
        # The products with the weights are rounded in the initial law, and in the sum.
        allowed = both[0].error_bound + both[1].error_bound + 16 * EPS * size
        assert np.abs(both[0].value - both[1].value).max() <= allowed
        for name, part in both[0].parts.items():
            assert np.abs(part - both[1].parts[name]).max() <= allowed, name


def test_games_and_lqrs_are_contexts_too():
    theta = np.full(4, 0.1)
    games = [layered_markov_game(seed=seed) for seed in (0, 1)]
    mixed = Mixture(contexts=[games[0], random_mdp(states=3, actions=2, parameters=4, seed=0)], weights=[0.6, 0.4])
    for routes, mixture, at in (
        (("implicit", "theorem2", "reduction"), Mixture(contexts=games, weights=[0.6, 0.4]), theta),
        (("implicit", "unrolled"), mixed, theta),
        (
            ("implicit", "unrolled"),
            Mixture(contexts=[random_lqr(seed=0), random_lqr(seed=1)], weights=[0.6, 0.4]),
            np.full(3, 0.1),
        ),
    ):
        found = [hypergradient(mixture, at, route=route, horizon=3) for route in routes]
        for other in found[1:]:
            assert np.abs(found[0].value - other.value).max() <= found[0].error_bound + other.error_bound
    assert set(hypergradient(mixed, theta).parts) == {
        "policy", "response", "regulariser", "initial", "direct", "transition"
    }  # fmt: skip
    one = reduce_contexts(Mixture(contexts=games, weights=[0.6, 0.4]))
    reduced = [reduce_game(game) for game in games]
    assert leader_objective(one, theta) == pytest.approx(by_hand(reduced, [0.6, 0.4], theta), rel=1e-13)


def test_a_mixture_of_mixtures_is_one_of_the_products():
    inner = Mixture(contexts=MEMBERS[:2], weights=[0.25, 0.75])
    outer = Mixture(contexts=[inner, MEMBERS[2]], weights=[0.4, 0.6])
    flat = Mixture(contexts=MEMBERS, weights=[0.1, 0.3, 0.6])
    assert leader_objective(outer, THETA) == pytest.approx(leader_objective(flat, THETA), rel=1e-14)
    np.testing.assert_allclose(hypergradient(outer, THETA).value, hypergradient(flat, THETA).value, rtol=1e-12)


def test_balls_hold_every_route():
    certified = certified_hypergradient(MIXTURE, THETA, digits=20)
    assert min(entry.digits for entry in certified.value) >= 20
    for route in QUICK:
        found = hypergradient(MIXTURE, THETA, route=route)
        for number, ball in zip(found.value, certified.value, strict=True):
            assert ball.distance(float(number)) <= found.error_bound, route
        assert certified.objective.distance(found.objective) <= found.objective_error_bound
    wrong = certified_hypergradient(Mixture(contexts=MEMBERS, weights=[0.2, 0.3, 0.5]), THETA, digits=20)
    found = hypergradient(MIXTURE, THETA)
    assert any(b.distance(float(x)) > 1e3 * found.error_bound for x, b in zip(found.value, wrong.value, strict=True))
    with pytest.raises(UnsupportedError, match="ConfigurableLQR"):
        certified_hypergradient(Mixture(contexts=[random_lqr()], weights=[1.0]), np.zeros(3))


def test_warm_starts_are_one_per_context_and_change_the_cost_alone():
    cold = hypergradient(MIXTURE, THETA)
    near = THETA + 1e-3
    warm, again = hypergradient(MIXTURE, near, warm_start=cold), hypergradient(MIXTURE, near)
    assert warm.counters["sweeps"] < again.counters["sweeps"]
    assert np.abs(warm.value - again.value).max() <= warm.error_bound + again.error_bound
    follower = solve_follower(MIXTURE, near, warm_start=[own.follower for own in cold.contexts])
    assert isinstance(follower, Follower)
    assert follower.status.succeeded
    assert follower.error_bound == max(own.error_bound for own in follower.contexts)
    with pytest.raises(InvalidInputError, match="one per context"):
        hypergradient(MIXTURE, near, warm_start=cold.contexts[0].follower)
    stopped = solve_follower(MIXTURE, near, method="value_iteration", stop_after=2)
    assert not stopped.status.succeeded
    played = leader_objective(MIXTURE, near, follower=stopped)
    each = zip(WEIGHTS, MEMBERS, stopped.contexts, strict=True)
    expected = sum(p * leader_objective(problem, near, follower=own) for p, problem, own in each)
    assert played == pytest.approx(expected, rel=1e-15)
    assert abs(played - leader_objective(MIXTURE, near)) > objective_error_bound(MIXTURE, near)


@pytest.mark.parametrize("method", ["alternating_tables", "value_penalty_two_sided", "differentiated_sweeps"])
def test_approximations_are_weighted_sums_too(method):
    knob = APPROXIMATIONS[method].knobs[-1]
    found = approximate_hypergradient(MIXTURE, THETA, method, knob)
    each = np.array([approximate_hypergradient(problem, THETA, method, knob) for problem in MEMBERS])
    np.testing.assert_allclose(found, WEIGHTS @ each, rtol=1e-13, atol=1e-13 * np.abs(each).max())


# What is planted here differs from differences of Σ p J, which ask the contexts for nothing but values.


def meets_differences(gradient, problems=MEMBERS, weights=WEIGHTS):
    truth = differences(lambda theta: by_hand(problems, weights, theta), THETA)
    return np.abs(gradient - truth).max() <= 1e-6 * (1.0 + np.abs(truth).max())  # h² of the third derivative


def test_the_right_gradient_meets_differences_and_that_of_other_weights_does_not():
    assert meets_differences(hypergradient(MIXTURE, THETA).value)
    uniform = Mixture(contexts=MEMBERS, weights=np.full(3, 1.0 / 3.0))
    assert not meets_differences(hypergradient(uniform, THETA).value)


def two_goals():
    """Two contexts of one process: only the followers' and leaders' rewards differ."""

    def tables(theta, seed):
        entries = layered_mdp(seed=0).evaluate(theta)
        rng = np.random.default_rng(seed)
        moved = anp.sin(anp.outer(anp.arange(1.0, 1.0 + entries.states), theta[:1]))
        return entries.replace(
            {
                "reward_follower": entries.reward_follower + 2.0 * rng.standard_normal((entries.states, 1)) * moved,
                "reward_leader": rng.standard_normal((entries.states, entries.actions)),
            }
        )

    base = layered_mdp(seed=0)
    constants = {name: getattr(base, name) for name in ("discount_leader", "discount_follower", "temperature")}
    return [
        ConfigurableMDP(tables=lambda theta, seed=seed: tables(theta, seed), theta_shape=(3,), **constants)
        for seed in (1, 2)
    ]


def test_the_mean_reward_is_not_the_mean_of_the_gradients():
    problems, weights = two_goals(), np.array([0.5, 0.5])
    assert meets_differences(hypergradient(Mixture(contexts=problems, weights=weights), THETA).value, problems, weights)

    def averaged(theta):
        each = [problem.evaluate(theta) for problem in problems]
        names = ("reward_follower", "reward_leader")
        return each[0].replace({name: 0.5 * getattr(each[0], name) + 0.5 * getattr(each[1], name) for name in names})

    base = problems[0]
    blended = ConfigurableMDP(
        tables=averaged, theta_shape=(3,), discount_leader=base.discount_leader,
        discount_follower=base.discount_follower, temperature=base.temperature,
    )  # fmt: skip
    assert not meets_differences(hypergradient(blended, THETA).value, problems, weights)


def test_one_follower_for_all_contexts_is_another_objective():
    problems = two_goals()
    mixture = Mixture(contexts=problems, weights=[0.5, 0.5])
    first = solve_follower(problems[0], THETA)
    right = leader_objective(mixture, THETA)
    assert abs(right - by_hand(problems, [0.5, 0.5], THETA)) <= objective_error_bound(mixture, THETA)
    assert abs(leader_objective(mixture, THETA, follower=[first, first]) - right) > 1e-3


def test_weights_that_depend_on_theta_are_refused_and_are_an_initial_law():
    def weights(theta):
        share = 1.0 / (1.0 + anp.exp(-theta[0]))
        return anp.array([share, 1.0 - share])

    with pytest.raises(UnsupportedError, match=r"weights.*initial law.*reduce_contexts"):
        Mixture(contexts=MEMBERS[:2], weights=weights)
    problems = two_goals()
    one = reduce_contexts(Mixture(contexts=problems, weights=[0.5, 0.5]))
    states = problems[0].states_at(THETA)

    def tables(theta):
        entries = one.evaluate(theta)
        share = weights(theta)
        factor = anp.concatenate([2.0 * share[:1] * np.ones(states), 2.0 * share[1:] * np.ones(states)])
        return entries.replace({"initial": entries.initial * factor})

    drawn = ConfigurableMDP(
        tables=tables, theta_shape=(3,), discount_leader=one.discount_leader,
        discount_follower=one.discount_follower, temperature=one.temperature,
    )  # fmt: skip
    found = hypergradient(drawn, THETA)
    truth = differences(lambda theta: by_hand(problems, weights(theta), theta), THETA)
    assert np.abs(found.value - truth).max() < 1e-6
    # The score of the context's draw is the initial part: without it the gradient is wrong.
    forgotten = hypergradient(Mixture(contexts=problems, weights=weights(THETA)), THETA)
    assert np.abs(forgotten.value - truth).max() > 1e-2
    score = found.parts["initial"] - forgotten.parts["initial"]
    np.testing.assert_allclose(forgotten.value, found.value - score, rtol=1e-10, atol=1e-12)


def test_a_context_of_weight_zero_adds_nothing_and_is_computed():
    with_it = Mixture(contexts=MEMBERS, weights=[0.4, 0.0, 0.6])
    without = Mixture(contexts=[MEMBERS[0], MEMBERS[2]], weights=[0.4, 0.6])
    found, other = hypergradient(with_it, THETA), hypergradient(without, THETA)
    np.testing.assert_array_equal(found.value, other.value)
    assert found.error_bound == other.error_bound
    np.testing.assert_array_equal(found.contexts[1].value, hypergradient(MEMBERS[1], THETA).value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"contexts": [], "weights": []}, InvalidInputError, r"contexts=\[\]: expected at least one"),
        ({"contexts": MEMBERS, "weights": [0.5, 0.5]}, ShapeError, r"weights.shape=\(2,\): expected \(3,\)"),
        ({"contexts": MEMBERS, "weights": [0.5, 0.5, 1e-11]}, StochasticityError, "sum of weights"),
        ({"contexts": MEMBERS, "weights": [0.5, 0.7, -0.2]}, StochasticityError, r"weights\[2\]=-0.2"),
        ({"contexts": MEMBERS, "weights": [0.5, 0.5, np.nan]}, InvalidInputError, "weights"),
        ({"contexts": MEMBERS, "weights": [[0.2, 0.5, 0.3]]}, ShapeError, r"weights.shape=\(1, 3\)"),
        ({"contexts": [MEMBERS[0], 3], "weights": [0.5, 0.5]}, InvalidInputError, r"contexts\[1\]=3"),
        (
            {"contexts": [*MEMBERS, random_mdp(parameters=2)], "weights": [0.25] * 4},
            ShapeError,
            r"contexts\[3\].theta_shape=\(2,\): expected \(3,\) as contexts\[0\] has",
        ),
    ],
)
def test_bad_mixtures_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        Mixture(**arguments)


def test_weights_within_rounding_are_divided_by_their_sum():
    rounded = Mixture(contexts=MEMBERS, weights=[0.2, 0.5, 0.3 + 5e-13])
    assert rounded.weights.sum() == pytest.approx(1.0, abs=4 * EPS)
    assert not rounded.weights.flags.writeable


def test_what_a_mixture_cannot_answer_is_refused_by_name():
    assert isinstance(Mixture(contexts=MEMBERS[:1], weights=[1.0]), Problem)
    follower = solve_follower(MIXTURE, THETA)
    for ask in (
        lambda: MIXTURE.temperature,
        lambda: MIXTURE.pullback_at(THETA),
        lambda: MIXTURE.pullback(THETA, None, {}),
        lambda: follower.value_at(0),
        lambda: reduce_contexts(MIXTURE),
        lambda: reduce_contexts(Mixture(contexts=[random_lqr()], weights=[1.0])),
    ):
        with pytest.raises(UnsupportedError, match=r"context"):
            ask()
    with pytest.raises(UnsupportedError, match="theorem2") as refused:
        hypergradient(MIXTURE, THETA, route="theorem2")
    assert refused.value.__notes__ == ["in contexts[0]"]
    with pytest.raises(BilevelRLError) as wrong:
        Mixture(contexts=[MEMBERS[0], ConfigurableMDP(
            tables=lambda theta: None, discount_leader=0.5, discount_follower=0.5, temperature=1.0, theta_shape=(3,)
        )], weights=[0.5, 0.5]).at(THETA)  # fmt: skip
    assert wrong.value.__notes__ == ["in contexts[1]"]
