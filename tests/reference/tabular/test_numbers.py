"""One meaning of a problem's numbers: which rows are laws, and routes, bounds and balls that answer one problem."""

import dataclasses
from fractions import Fraction

import autograd.numpy as anp
import numpy as np
import pytest
from high_precision import HighPrecision, HighPrecisionGame
from number_runs import hard_game, hard_mdp, line, runs

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    ConfigurableMDP,
    MarkovGame,
    SparseTransition,
    Tables,
    certified_hypergradient,
    hypergradient,
    leader_objective,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError, StochasticityError
from bilevelrl.reference.game import reduce_game
from bilevelrl.reference.tabular import value_errors
from bilevelrl.tasks import random_mdp

pytestmark = pytest.mark.exact


def holds(enclosure, exact):
    """Whether a fraction is inside; as a ball of its own it must be far thinner than the enclosure."""
    from flint import ctx

    with ctx.workprec(600):
        return enclosure.contains(Fraction(exact))


def one_state(sums_to, *, reward=1.0, discount=0.5):
    """A state that is paid `reward` a step, with a kernel whose one row has the given sum: J and ∇J by hand."""
    row = np.array([[[sums_to]]])

    def tables(theta):
        return Tables(
            transition=row,
            reward_follower=np.zeros((1, 1)),
            reward_leader=np.full((1, 1), reward) + theta[0],
            initial=np.ones(1),
        )

    return ConfigurableMDP(tables=tables, discount_leader=discount, discount_follower=0.5, temperature=1.0)


# In the last four, differences at a policy that is off by its rounding are, too.
@pytest.mark.parametrize("seed", [*range(24), 59, 65, 133, 213])
def test_bounds_hold_on_rows_as_rounding_left_them(seed):
    pytest.importorskip("flint")
    problem, theta = (hard_mdp if seed % 2 else hard_game)(np.random.default_rng(seed))
    found = list(runs(problem, theta))
    assert len(found) >= 10
    assert [outcome for outcome in found if outcome.outside] == []


@pytest.mark.parametrize("seed", [6, 7, 82, 223])
def test_a_policy_badly_known_only_where_it_hardly_acts_leaves_a_bound(seed, monkeypatch):
    """Relative errors of up to 1e-1 at probabilities of 1e-10, over ten thousand steps: the bound was inf."""
    # What is common to all actions counts: without it these policies are known better.
    monkeypatch.setattr(value_errors, "_apart", lambda operator, policy, *rest: np.full_like(policy, np.inf))
    problem, theta = (hard_mdp if seed % 2 else hard_game)(np.random.default_rng(seed))
    follower = solve_follower(problem, theta)
    off, steps = follower.errors_on_demand().policy, 1.0 / (1.0 - problem.discount_follower)
    assert off.max() * steps > 0.1
    found = list(runs(problem, theta))
    assert [outcome for outcome in found if outcome.outside or not outcome.bound < 1e-3 * max(outcome.size, 1.0)] == []


@pytest.mark.parametrize("seed", [14, 163])
def test_a_policy_whose_error_is_common_to_all_actions_leaves_a_bound(seed):
    """Values of 1e5 at γ = .9999, known to 1e-3: policies were not known for ten thousand steps, and the bound inf."""
    problem, theta = (hard_mdp if seed % 2 else hard_game)(np.random.default_rng(seed))
    assert [outcome for outcome in runs(problem, theta) if outcome.outside or not np.isfinite(outcome.bound)] == []


def test_the_runs_would_notice_another_meaning(monkeypatch):
    """Read as the doubles that they are, rows off one by 4e-13 earn otherwise by far more than the bounds."""
    import high_precision

    monkeypatch.setattr(high_precision, "meant", lambda rows, slopes=None, *, may_end: (rows, slopes))
    outside = 0
    for seed in range(40):
        problem, theta = (hard_mdp if seed % 2 else hard_game)(np.random.default_rng(seed))
        outside += any(outcome.outside for outcome in runs(problem, theta) if outcome.route == "certified")
    assert outside >= 5


def test_a_constant_of_a_million_is_one_problem_for_floats_and_balls():
    """Its answers differed by 6.6e-10 with bounds of 3.1e-11: floats split the constant off, balls took the doubles."""
    pytest.importorskip("flint")
    base, theta = random_mdp(seed=0), np.full(3, 0.3)

    def tables(x):
        drawn = base.tables(x)
        return drawn.replace({"reward_leader": drawn.reward_leader + 1e6})

    problem = dataclasses.replace(base, tables=tables, tables_jacobian=None, tables_pullback=None)
    truth = certified_hypergradient(problem, theta)
    for route in ("implicit", "theorem1", "hpgd_form", "m_sobirl", "mixed_derivative", "unrolled"):
        found = hypergradient(problem, theta, route=route)
        off = max(entry.distance(float(x)) for entry, x in zip(truth.value, found.value, strict=True))
        assert off <= found.error_bound, route


@pytest.mark.parametrize("off", [2.0**-52, -(2.0**-53), 5e-13, -9e-13])
def test_a_row_within_rounding_of_one_never_ends(off):
    pytest.importorskip("flint")
    problem = one_state(1.0 + off, discount=0.9999)
    certified = certified_hypergradient(problem, np.zeros(1))
    assert holds(certified.objective, 1 / (1 - Fraction(0.9999)))
    assert leader_objective(problem, np.zeros(1)) == pytest.approx(1e4, rel=2e-8 if abs(off) > 1e-15 else 1e-11)


@pytest.mark.parametrize("off", [1e-10, 1e-11, 0.3])
def test_a_row_further_below_one_ends_as_its_doubles_say(off):
    pytest.importorskip("flint")
    row = 1.0 - off
    certified = certified_hypergradient(one_state(row), np.zeros(1))
    assert holds(certified.objective, 1 / (1 - Fraction(row) / 2))
    assert not holds(certified.objective, 2)


@pytest.mark.parametrize("off", [2e-12, 1e-10, 1e-3])
def test_a_row_further_above_one_is_refused(off):
    with pytest.raises(StochasticityError, match=r"sum of transition\[0, 0\]=1\.0.*at most 1.*normalise"):
        leader_objective(one_state(1.0 + off), np.zeros(1))
    with pytest.raises((StochasticityError, InvalidInputError), match="sum of initial"):
        MarkovGame(
            transition=np.ones((1, 1, 1, 1)), reward_follower=np.zeros((1, 1, 1)), reward_leader=np.zeros((1, 1, 1)),
            initial=np.array([1.0 - off]), policy=lambda x: np.ones((1, 1)), follower_sees_leader_action=True,
            discount_leader=0.5, discount_follower=0.5, temperature=1.0,
        )  # fmt: skip


def two_states(row, slopes, reward=(1e6, 0.0)):
    """From state 0 on to one of two that stay; θ moves the first row along `slopes`."""
    stay = np.array([[[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    kernel = np.concatenate([np.array([[[0.0, *row]]]), stay])
    moved = np.zeros((3, 1, 3, 1))
    moved[0, 0, 1:, 0] = slopes

    def tables(theta):
        return Tables(
            transition=line(kernel, moved)(theta),
            reward_follower=np.zeros((3, 1)),
            reward_leader=np.array([[0.0], [reward[0]], [reward[1]]]),
            initial=np.array([1.0, 0.0, 0.0]),
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)


def test_derivatives_are_those_of_the_quotient_where_the_sum_stands_still():
    """d(p/s) = dp/s - p ds/s², by hand in fractions: J = γ/(1-γ) Σ p_i/s r_i with r = (1e6, 0)."""
    pytest.importorskip("flint")
    row, slopes = (0.3, 0.7 + 2.0**-50), (0.3, -0.3 + 2.0**-54)
    p, q, dp, dq = (Fraction(x) for x in (*row, *slopes))
    s, ds = p + q, dp + dq
    assert s != 1
    assert ds != 0
    problem = two_states(row, slopes)
    certified = certified_hypergradient(problem, np.zeros(1), digits=25)
    assert holds(certified.value[0], 10**6 * (dp / s - p * ds / s**2))
    assert not holds(certified.value[0], 10**6 * dp)
    assert HighPrecision(problem, np.zeros(1)).parts()["transition"][0] == float(10**6 * (dp / s - p * ds / s**2))
    found = hypergradient(problem, np.zeros(1))
    assert certified.value[0].distance(found.value[0]) <= found.error_bound


def test_a_row_whose_sum_moves_keeps_its_own_derivative():
    """The sum is one at θ and not beside it: the row begins to end, and nothing is taken off its slope."""
    pytest.importorskip("flint")
    problem = two_states((0.3, 0.7), (-0.5, 0.0), reward=(1e6, 1e6))
    certified = certified_hypergradient(problem, np.zeros(1))
    assert Fraction(0.3) + Fraction(0.7) != 1
    assert holds(certified.value[0], Fraction(-(10**6), 2))
    for route in ("implicit", "theorem1", "m_sobirl", "mixed_derivative"):
        found = hypergradient(problem, np.zeros(1), route=route)
        assert certified.value[0].distance(found.value[0]) <= found.error_bound, route


def test_two_layouts_of_a_row_mean_the_same():
    pytest.importorskip("flint")
    row = np.array([0.1, 0.2, 0.7])
    successor = np.tile(np.arange(3), (3, 1, 1))
    reward = np.array([[1e6], [1e6 + 1.0], [1e6]])

    def problem(transition):
        def tables(theta):
            return Tables(transition=transition, reward_follower=reward, reward_leader=reward + theta[0], initial=row)

        return ConfigurableMDP(tables=tables, discount_leader=0.99, discount_follower=0.5, temperature=1.0)

    dense = problem(np.tile(row, (3, 1, 1)))
    sparse = problem(SparseTransition(successor=successor, probability=np.tile(row, (3, 1, 1))))
    one, two = (certified_hypergradient(each, np.zeros(1)).objective for each in (dense, sparse))
    p = [Fraction(x) for x in row.tolist()]
    exact = sum(x * Fraction(r) for x, r in zip(p, reward[:, 0].tolist(), strict=True)) / sum(p) / (1 - Fraction(0.99))
    assert holds(one, exact)
    assert holds(two, exact)


@pytest.mark.parametrize("sees", [True, False])
def test_a_game_and_its_reduction_are_one_problem(sees):
    pytest.importorskip("flint")
    rng = np.random.default_rng(5)
    rows = rng.random((2, 2, 2, 2))
    rows = rows / rows.sum(axis=3, keepdims=True) * (1.0 + rng.uniform(-5e-13, 5e-13, (2, 2, 2, 1)))
    rows[0, 0] *= 0.9
    policy = np.array([[0.3, 0.7 + 4e-13], [0.6, 0.4 - 4e-13]])
    game = MarkovGame(
        transition=rows, reward_follower=rng.random((2, 2, 2)), reward_leader=rng.random((2, 2, 2)) + 1e6,
        initial=np.array([0.5, 0.5 + 3e-13]), policy=line(policy, np.array([[[1.0], [-1.0]], [[0.5], [-0.5]]])),
        follower_sees_leader_action=sees, discount_leader=0.99, discount_follower=0.9, temperature=0.5,
    )  # fmt: skip
    theta = np.zeros(1)
    ours, theirs = certified_hypergradient(game, theta), certified_hypergradient(reduce_game(game), theta)
    truth = HighPrecisionGame(game, theta)
    assert ours.objective.distance(float(truth.objective)) <= 1e-15 * float(truth.objective)
    assert ours.value[0].distance(float(sum(truth.parts().values())[0])) <= 1e-15 * abs(float(ours.value[0]))
    # The reduction's tables are rounded once more: a few ulp, over a hundred steps, of values of 1e8.
    assert ours.value[0].distance(float(theirs.value[0])) <= 100 * 2.0**-52 * 100 * 1e8
    for route in ("implicit", "theorem2", "reduction", "total_derivative", "mixed_derivative"):
        found = hypergradient(game, theta, route=route)
        assert ours.value[0].distance(float(found.value[0])) <= found.error_bound, route


LEADERS = {
    "softmax": lambda x: anp.exp(x) / anp.sum(anp.exp(x), axis=1, keepdims=True),
    "logits": lambda x: anp.exp(x - anp.log(anp.sum(anp.exp(x), axis=1, keepdims=True))),
}


@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("written", LEADERS)
@pytest.mark.parametrize("leads", [1, 2])
def test_a_leader_with_one_action_moves_nothing(leads, written, sees):
    """By the rounding of its softmax routes made 3e-11 to .3 of it, by rewards of 1e6 and γ = .9999."""
    pytest.importorskip("flint")
    rng = np.random.default_rng(46)
    rows = rng.random((3, leads, 2, 3))
    game = MarkovGame(
        transition=rows / rows.sum(axis=3, keepdims=True), reward_follower=rng.standard_normal((3, leads, 2)) + 1e6,
        reward_leader=rng.standard_normal((3, leads, 2)) - 1e6, initial=np.array([0.2, 0.3, 0.5]),
        policy=lambda theta: LEADERS[written](anp.reshape(theta, (3, leads))),
        regulariser=lambda theta: anp.sum(theta**2), theta_shape=(3 * leads,), follower_sees_leader_action=sees,
        discount_leader=0.9, discount_follower=0.8, temperature=0.1,
    )  # fmt: skip
    theta = np.array([1.7, -2.3, 0.1, 0.4, 3.0, -0.6])[: 3 * leads]
    routes = [name for name, route in HYPERGRADIENT_ROUTES.items() if MarkovGame in route.kinds]
    assert {"unrolled", "complex_step", "finite_difference", "certified"} < set(routes)
    for route in routes:
        parts = hypergradient(game, theta, route=route).parts
        assert parts["regulariser"] == pytest.approx(2.0 * theta, rel=1e-8), route
        for part in ("policy", "response"):
            assert bool(np.any(parts[part])) == (leads > 1), (route, part)


@pytest.mark.parametrize("off", [1e-9, -1e-3])
def test_the_one_probability_of_a_leader_is_checked_as_it_is_written(off):
    game = MarkovGame(
        transition=np.ones((1, 1, 1, 1)), reward_follower=np.zeros((1, 1, 1)), reward_leader=np.zeros((1, 1, 1)),
        initial=np.ones(1), policy=lambda theta: np.full((1, 1), 1.0 + off), follower_sees_leader_action=True,
        discount_leader=0.5, discount_follower=0.5, temperature=1.0,
    )  # fmt: skip
    with pytest.raises(StochasticityError, match=r"policy\(theta\)"):
        game.policy_at(np.zeros(1))


@pytest.mark.parametrize(("kind", "name"), [(np.float16, "half"), (np.float32, "single")])
def test_rows_of_lower_precision_are_summed_in_double(kind, name):
    """A float16 kernel whose rows sum to 1 + 7e-5 was accepted: J was 4 % off at γ = .9999."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.random((3, 2, 3))
        narrow = (rows / rows.sum(axis=2, keepdims=True)).astype(kind)
        for table in (narrow, narrow.astype(np.float64)):
            read = Tables(
                transition=table, reward_follower=np.zeros((3, 2), kind), reward_leader=np.ones((3, 2)),
                initial=np.array([1.0, 0.0, 0.0]),
            )  # fmt: skip
            assert read.transition.dtype == read.reward_follower.dtype == np.float64
            assert (read.transition == narrow).all()
            problem = ConfigurableMDP(
                tables=lambda theta, read=read: read, discount_leader=0.9999, discount_follower=0.5, temperature=1.0
            )
            if (np.abs(narrow.astype(np.float64).sum(axis=2) - 1.0) <= 1e-12).all():
                continue
            with pytest.raises(StochasticityError, match=rf"sum of transition.*{name} precision.*float64 first"):
                solve_follower(problem, np.zeros(1))


def test_exact_rows_of_lower_precision_and_rows_that_end_are_accepted():
    for row in (np.array([0.5, 0.25, 0.25], np.float16), np.array([0.5, 0.25, 0.0]), np.array([1, 0, 0])):
        read = Tables(
            transition=np.tile(row, (3, 1, 1)), reward_follower=np.zeros((3, 1)), reward_leader=np.ones((3, 1)),
            initial=np.array([1, 0, 0]),
        )  # fmt: skip
        problem = ConfigurableMDP(
            tables=lambda theta, read=read: read, discount_leader=0.5, discount_follower=0.5, temperature=1.0
        )
        assert leader_objective(problem, np.zeros(1)) == pytest.approx(1 / (1 - 0.5 * float(row.sum())), rel=1e-14)


@pytest.mark.parametrize("ends", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("leads", [1, 3])
def test_no_game_has_a_bound_below_its_error(leads, sees, ends):
    """With one leader action the truth is zero, and with constants that cannot be split off sums round to 1e-8."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rows = rng.random((2, leads, 2, 2))
        slopes = rng.standard_normal((2, leads, 2))
        game = MarkovGame(
            transition=ends * rows / rows.sum(axis=3, keepdims=True),
            reward_follower=rng.standard_normal((2, leads, 2)) + 1e6,
            reward_leader=1e-3 * rng.standard_normal((2, leads, 2)) + 1e6, initial=np.array([0.25, 0.75]),
            policy=line(np.full((2, leads), 1.0 / leads), slopes - slopes.mean(axis=1, keepdims=True)),
            follower_sees_leader_action=sees, discount_leader=0.99, discount_follower=0.9, temperature=0.1,
        )  # fmt: skip
        truth = HighPrecisionGame(game, np.zeros(2)).parts()
        for route in ("implicit", "theorem2", "reduction", "total_derivative", "mixed_derivative"):
            found = hypergradient(game, np.zeros(2), route=route)
            for part, exact in truth.items():
                assert np.abs(found.parts[part] - exact).max() <= found.error_bound + 2e-16 * np.abs(exact).max(), route
