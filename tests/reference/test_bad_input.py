"""Every bad input is refused by an error of the package's own that names the argument, its value and the remedy."""

import numpy as np
import pytest
from numpy.random import default_rng

from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    hypergradient,
    leader_objective,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.best_response import SuboptimalFollower
from bilevelrl.reference.errors import (
    BilevelRLError,
    IllPosedError,
    InvalidInputError,
    NotConvergedError,
    ShapeError,
    StochasticityError,
    SupportError,
    TooLargeError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.reference.tabular import solve_followers
from bilevelrl.tasks import random_lqr, random_mdp
from bilevelrl.verification.testing.strategies import sparse_twin

GOOD = random_mdp(states=3, actions=2, parameters=3, seed=0)
ZERO = np.zeros(3)


def spoilt(table, index, value):
    """A problem with one wrong number in one table."""

    def tables(theta):
        good = GOOD.tables(theta)
        wrong = np.array(getattr(good, table), dtype=float)
        wrong[index] = value
        return good.replace({table: wrong})

    return ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0, theta_shape=(3,))


EVERYWHERE = [
    pytest.param(solve_follower, id="solve_follower"),
    pytest.param(leader_objective, id="leader_objective"),
    pytest.param(hypergradient, id="hypergradient"),
    pytest.param(lambda problem, theta: hypergradient(problem, theta, route="unrolled"), id="unrolled"),
    pytest.param(lambda problem, theta: solve_followers(problem, theta[None]), id="solve_followers"),
]


@pytest.mark.parametrize("function", EVERYWHERE)
class TestWrongNumbersInTables:
    def test_rows_that_sum_to_more_than_one(self, function):
        with pytest.raises(StochasticityError, match=r"sum of transition\[1, 0\]=.*at most 1.*normalise"):
            function(spoilt("transition", (1, 0, 2), 1.5), ZERO)

    def test_negative_probability(self, function):
        with pytest.raises(StochasticityError, match=r"transition\[0, 1, 2\]=-0\.1: expected probabilities >= 0"):
            function(spoilt("transition", (0, 1, 2), -0.1), ZERO)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_probability_that_is_no_number(self, function, value):
        with pytest.raises(StochasticityError, match=r"transition\[0, 1\]=.*finite probabilities"):
            function(spoilt("transition", (0, 1, 2), value), ZERO)

    @pytest.mark.parametrize("table", ["reward_leader", "reward_follower"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_rewards_that_are_not_finite(self, function, table, value):
        with pytest.raises(InvalidInputError, match=rf"{table}\[2, 1\]={value}.*finite"):
            function(spoilt(table, (2, 1), value), ZERO)

    def test_initial_law_that_is_none(self, function):
        with pytest.raises(InvalidInputError, match=r"sum of initial"):
            function(spoilt("initial", 0, 0.0), ZERO)
        with pytest.raises(StochasticityError, match=r"initial\[0\]=-0.5"):
            function(spoilt("initial", 0, -0.5), ZERO)

    def test_regulariser_that_is_not_finite(self, function):
        with pytest.raises(InvalidInputError, match="regulariser"):
            function(spoilt("regulariser", (), np.nan), ZERO)


@pytest.mark.parametrize("function", EVERYWHERE)
@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        (np.zeros(4), ShapeError, r"theta.shape=\(4,\): expected \(3,\)"),
        (np.zeros((3, 1)), ShapeError, r"theta.shape"),
        (np.zeros(3, dtype=np.float32), ShapeError, r"theta.dtype='float32': expected float64"),
        (np.zeros(3, dtype=int), ShapeError, r"theta.dtype='int64'"),
        (np.array(["a", "b", "c"]), ShapeError, r"theta.dtype"),
        (np.array([0.0, np.nan, 0.0]), InvalidInputError, r"theta\[1\]=nan: expected a finite number"),
        (np.array([0.0, np.inf, 0.0]), InvalidInputError, r"theta\[1\]=inf"),
    ],
)
def test_theta(function, theta, error, message):
    with pytest.raises(error, match=message):
        function(GOOD, theta)


@pytest.mark.parametrize("name", ["discount_leader", "discount_follower"])
@pytest.mark.parametrize("value", [1.0, 1.5, -0.1, np.nan, np.inf, "0.9", None])
def test_discounts_outside_the_unit_interval(name, value):
    constants = {"discount_leader": 0.5, "discount_follower": 0.5, "temperature": 1.0, name: value}
    with pytest.raises(InvalidInputError, match=rf"{name}=.*\[0, 1\)"):
        ConfigurableMDP(tables=GOOD.tables, **constants)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, "warm", None])
def test_temperature_that_is_not_positive(value):
    with pytest.raises(InvalidInputError, match=r"temperature=.*> 0"):
        ConfigurableMDP(tables=GOOD.tables, discount_leader=0.5, discount_follower=0.5, temperature=value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"transition": np.full((3, 2, 2), 0.5)},
        {"transition": np.full((3, 2), 0.5)},
        {"reward_follower": np.zeros((3, 1))},
        {"reward_leader": np.zeros(3)},
        {"initial": np.full(2, 0.5)},
        {"regulariser": np.zeros(1)},
    ],
)
def test_tables_that_do_not_fit_together(wrong):
    fitting = {
        "transition": np.full((3, 2, 3), 1 / 3),
        "reward_follower": np.zeros((3, 2)),
        "reward_leader": np.zeros((3, 2)),
        "initial": np.full(3, 1 / 3),
    }
    with pytest.raises(ShapeError, match=next(iter(wrong))):
        Tables(**{**fitting, **wrong})


def test_tables_that_are_no_tables():
    problem = ConfigurableMDP(tables=lambda theta: {}, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    with pytest.raises(InvalidInputError, match="expected a Tables"):
        solve_follower(problem, ZERO)
    with pytest.raises(InvalidInputError, match="a function"):
        ConfigurableMDP(tables=GOOD.tables(ZERO), discount_leader=0.5, discount_follower=0.5, temperature=1.0)


def test_complex_tables_at_a_real_theta():
    def tables(theta):
        good = GOOD.tables(theta)
        return good.replace({"reward_leader": good.reward_leader + 0j})

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    with pytest.raises(InvalidInputError, match="real float64 arrays"):
        solve_follower(problem, ZERO)


def test_sparse_kernels():
    probability = np.full((2, 1, 2), 0.5)
    with pytest.raises(ShapeError, match="same number of successors"):
        SparseTransition(successor=np.zeros((2, 1, 3), dtype=int), probability=probability)
    for wrong in (-1, 2):
        kernel = SparseTransition(successor=np.array([[[0, 1]], [[1, wrong]]]), probability=probability)
        problem = ConfigurableMDP(
            tables=lambda theta, kernel=kernel: Tables(
                transition=kernel,
                reward_follower=np.zeros((2, 1)),
                reward_leader=np.zeros((2, 1)),
                initial=np.array([1.0, 0.0]),
            ),
            discount_leader=0.5,
            discount_follower=0.5,
            temperature=1.0,
        )
        with pytest.raises(InvalidInputError, match=r"indices in \[0, 2\)"):
            solve_follower(problem, ZERO)
    with pytest.raises(InvalidInputError, match="dense kernel"):
        solve_followers(sparse_twin(GOOD), ZERO[None])


def test_returns_that_diverge():
    for function in (leader_objective, hypergradient):
        with pytest.raises(IllPosedError, match=r"undiscounted return over an infinite horizon diverges.*pass horizon"):
            function(GOOD, ZERO, discounted=False)


@pytest.mark.parametrize("horizon", [0, -3, 2.5, "ten", True])
def test_horizons_that_are_none(horizon):
    for function in (leader_objective, hypergradient):
        with pytest.raises(InvalidInputError, match=r"horizon=.*integer >= 1"):
            function(GOOD, ZERO, horizon=horizon)


@pytest.mark.parametrize("method", ["newton", "value_iteration", "modified_policy_iteration"])
def test_followers_that_do_not_converge(method):
    with pytest.raises(NotConvergedError, match=r"residual .* after 1 iterations, expected at most .*raise max_iter"):
        solve_follower(GOOD, ZERO, method=method, max_iterations=1, warm_start=np.array([1e3, -1e3, 0.0]))
    stopped = solve_follower(
        GOOD, ZERO, method=method, max_iterations=1, warm_start=np.array([1e3, -1e3, 0.0]), throw=False
    )
    assert not stopped.status.succeeded
    assert "max_iterations" in stopped.status.value


def test_batches_of_followers():
    with pytest.raises(NotConvergedError, match="member 0"):
        solve_followers(GOOD, ZERO[None], max_iterations=0, warm_start=np.full((1, 3), 1e3))
    with pytest.raises(ShapeError, match="at least one"):
        solve_followers(GOOD, np.zeros((0, 3)))


@pytest.mark.parametrize(
    "argument",
    [
        {"tolerance": 0.0},
        {"tolerance": -1.0},
        {"tolerance": np.nan},
        {"max_iterations": -1},
        {"max_iterations": 1.5},
        {"stop_after": -1},
        {"stop_after": 0.5},
        {"warm_start": np.zeros(4)},
        {"warm_start": np.full(3, np.nan)},
        {"method": "magic"},
    ],
)
def test_arguments_of_the_solver(argument):
    with pytest.raises(InvalidInputError, match=next(iter(argument))):
        solve_follower(GOOD, ZERO, **argument)


def test_names_that_are_close():
    with pytest.raises(UnknownNameError, match="did you mean 'implicit'"):
        hypergradient(GOOD, ZERO, route="implict")
    with pytest.raises(UnknownNameError, match="did you mean 'newton'"):
        solve_follower(GOOD, ZERO, method="newtn")


def test_problems_of_another_kind():
    class Other:
        """Not a problem of this package."""

    for function in (leader_objective, hypergradient):
        with pytest.raises(UnsupportedError, match="Other"):
            function(Other(), ZERO)


def test_another_problems_follower():
    larger = solve_follower(random_mdp(states=5, actions=2, parameters=3, seed=0), ZERO)
    with pytest.raises(ShapeError, match=r"follower.policy.shape"):
        leader_objective(GOOD, ZERO, follower=larger)


class Batch:
    """One visited transition."""

    state_t, action_t, state_tp1, leader_action_t = np.array([[0]]), np.array([[0]]), np.array([[1]]), None


def test_scores_where_the_support_changes():
    """P(0|0,0) = θ² vanishes at θ = 0 without a slope, P = θ with one: only the second loses mass."""

    def problem(power):
        def tables(theta):
            moved = theta[0] ** power
            return Tables(
                transition=np.array([[[0.0, 1.0]], [[0.0, 1.0]]]) + moved * np.array([[[1.0, -1.0]], [[0.0, 0.0]]]),
                reward_follower=np.zeros((2, 1)),
                reward_leader=np.zeros((2, 1)),
                initial=np.array([1.0, 0.0]),
            )

        return ConfigurableMDP(
            tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0, theta_shape=(1,)
        )

    weights = {"log_transition": np.ones((1, 1))}
    with pytest.raises(SupportError, match=r"transition\[0, 0, 0\]=0\.0 but its derivative.*exact route"):
        problem(1).pullback(np.zeros(1), Batch(), weights)
    np.testing.assert_allclose(problem(2).pullback(np.zeros(1), Batch(), weights), [0.0], atol=1e-15)


def test_terms_that_a_configurable_mdp_has_not():
    with pytest.raises(UnsupportedError, match="no leader policy"):
        GOOD.pullback(ZERO, Batch(), {"log_policy_leader": np.ones((1, 1))})


def test_tables_that_are_not_analytic():
    def tables(theta):
        good = GOOD.tables(theta)
        return good.replace({"reward_leader": good.reward_leader * float(theta[0])})

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0, theta_shape=(3,)
    )
    with pytest.raises(InvalidInputError, match="analytic"):
        hypergradient(problem, ZERO, route="complex_step", bound=False)


def test_work_beyond_the_stated_limits():
    slow = random_mdp(states=3, actions=2, parameters=1, seed=0, discount_follower=0.9999999)
    with pytest.raises(TooLargeError, match=r"sweeps=.*expected at most .*implicit"):
        hypergradient(slow, np.zeros(1), route="forward")


def test_noise_without_a_generator():
    with pytest.raises(InvalidInputError, match="rng=None"):
        SuboptimalFollower(iterations=1, carry=False, noise=1.0).respond(GOOD, ZERO)
    with pytest.raises(UnsupportedError, match=r"ConfigurableLQR.*noise=0"):
        SuboptimalFollower(iterations=1, carry=False, noise=1.0).respond(random_lqr(), ZERO, rng=default_rng(0))


def test_streams_are_told_apart_by_type_and_order():
    draws = {named_stream(1, *names).random() for names in (("a", "b"), ("b", "a"), ("ab",), ("a", 1), ("a", "1"))}
    assert len(draws) == 5


def test_one_base_class():
    with pytest.raises(BilevelRLError):
        solve_follower(GOOD, np.zeros(4))
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(NotConvergedError, RuntimeError)


@pytest.mark.parametrize(
    ("arguments", "match"), [({"iterations": -1}, "iterations=-1"), ({"iterations": 1.5}, "iterations=1.5")]
)
def test_suboptimal_followers_count_their_iterations(arguments, match):
    with pytest.raises(InvalidInputError, match=match):
        SuboptimalFollower(carry=False, **arguments)


@pytest.mark.parametrize("noise", [-1.0, np.inf, np.nan])
def test_noise_of_a_suboptimal_follower_is_a_standard_deviation(noise):
    with pytest.raises(InvalidInputError, match="noise="):
        SuboptimalFollower(iterations=1, carry=False, noise=noise)


def test_what_is_no_array_is_refused_by_name():
    with pytest.raises(InvalidInputError, match="warm_start='str'"):
        hypergradient(GOOD, ZERO, warm_start="zeros")
    with pytest.raises(InvalidInputError, match="route="):
        hypergradient(GOOD, ZERO, route=["implicit"])
    with pytest.raises(ShapeError, match="transition='str of dtype"):
        Tables(
            transition="sparse", reward_follower=np.zeros((1, 1)), reward_leader=np.zeros((1, 1)), initial=np.ones(1)
        )
