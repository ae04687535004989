"""Kinks, wrong closed forms of tables and what functions raise are told by name, right ones pass in any units."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from derivative_cases import DIFFERENTIATING, TABULAR, THETA, WRONG, by_hand, one_state, plain

from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    check_derivatives,
    hypergradient,
)
from bilevelrl.reference.errors import DerivativeError, IllPosedError, InvalidInputError, ShapeError
from bilevelrl.tasks import random_markov_game

pytestmark = pytest.mark.exact

KINKS = {
    "norm": (lambda x: -anp.linalg.norm(x), np.zeros(2)),
    "clip": (lambda x: anp.sum(anp.clip(x, 0.0, 1.0)), np.array([1.0, 0.5])),
    "maximum": (lambda x: anp.sum(anp.maximum(x, 0.0)), np.array([0.0, 0.5])),
    "max of two": (anp.max, np.array([0.5, 0.5])),
    "if": (lambda x: x[0] if x[0] > 0.0 else 0.0, np.array([0.0, 1.0])),
    "abs": (lambda x: anp.abs(x[0]) * 1e-9, np.array([0.0, 1.0])),
    "far from zero": (lambda x: anp.abs(x[0] - 1e4) + 1e3, np.array([1e4, 1.0])),
    "infinite slope": (lambda x: anp.sum(anp.where(x > 0.0, anp.sqrt(x), 0.0)), np.array([0.0, 3.0])),
    "jump": (
        lambda x: anp.sum(x) + float(np.real(x[0] if isinstance(x, np.ndarray) else x._value[0]) > 0.0),
        THETA * [0, 1],
    ),
}


@pytest.mark.parametrize("route", TABULAR)
@pytest.mark.parametrize("name", KINKS)
def test_a_kink_is_called_a_kink(name, route):
    function, theta = KINKS[name]
    with pytest.raises(DerivativeError, match=r"regulariser.*kink"):
        hypergradient(one_state(regulariser=function), theta, route=route)


@pytest.mark.parametrize("route", TABULAR)
def test_the_edge_of_where_a_function_is_defined(route):
    problem = one_state(regulariser=lambda x: anp.sum(anp.sqrt(x)))
    with pytest.raises((DerivativeError, IllPosedError), match="edge"):
        hypergradient(problem, np.array([0.0, 1.0]), route=route)


SMOOTH = {
    "beside a kink": (lambda x: anp.sum(anp.abs(x - 1e-6)), np.array([0.0, 1.0]), [-1.0, 1.0]),
    "a slope of zero": (lambda x: anp.sum(x**2) + anp.cos(x[0]), np.zeros(2), [0.0, 0.0]),
    "three halves": (lambda x: anp.sum(anp.where(x > 0.0, x, 0.0) ** 2), np.zeros(2), [0.0, 0.0]),
    "steep": (lambda x: anp.sin(1e6 * x[0]), np.array([0.1, 0.0]), [1e6 * np.cos(1e5), 0.0]),
    "small": (lambda x: 1e-12 * anp.sin(x[0]), np.array([0.1, 0.0]), [1e-12 * np.cos(0.1), 0.0]),
    "beside a large constant": (lambda x: 1e9 + 1e-6 * x[1], np.array([0.1, 0.0]), [0.0, 1e-6]),
    "far away": (lambda x: 1e-8 * x[0] ** 2, np.array([1e8, 0.0]), [2.0, 0.0]),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_passes(name):
    function, theta, slope = SMOOTH[name]
    problem = one_state(lambda x: np.zeros((1, 2)), function)
    np.testing.assert_allclose(hypergradient(problem, theta).value, slope, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_closed_forms_of_tables_are_caught_in_any_units(wrong, scale):
    factor = WRONG[wrong]
    right = one_state(lambda x: scale * plain(x))
    slopes = {"reward_follower": scale * np.eye(2).reshape(1, 2, 2)}
    hypergradient(replace(right, tables_jacobian=lambda _: slopes), THETA)
    hypergradient(replace(right, tables_pullback=lambda _, c: scale * c["reward_follower"].ravel()), THETA)
    for given in (
        {"tables_jacobian": lambda _: {"reward_follower": factor * slopes["reward_follower"]}},
        {"tables_pullback": lambda _, c: factor * scale * c["reward_follower"].ravel()},
    ):
        problem = replace(right, **given)
        with pytest.raises(DerivativeError, match=r"reward_follower.*closed form"):
            hypergradient(problem, THETA)
        assert max(check_derivatives(problem, THETA).values()) >= 0.5 * abs(factor - 1.0)


def test_what_a_closed_form_leaves_out_is_caught():
    problem = one_state(lambda x: plain(x), lambda x: float(np.sum(np.asarray(x).real)))
    slopes = {"reward_follower": np.eye(2).reshape(1, 2, 2)}
    with pytest.raises(DerivativeError, match=r"regulariser.*does not depend"):
        hypergradient(replace(problem, tables_jacobian=lambda _: slopes), THETA)
    with pytest.raises(ShapeError, match=r"tables_jacobian\(theta\)\['reward_follower'\]\.shape"):
        hypergradient(replace(problem, tables_jacobian=lambda _: {"reward_follower": np.eye(2)}), THETA)
    with pytest.raises(InvalidInputError, match="rewards"):
        hypergradient(replace(problem, tables_jacobian=lambda _: {"rewards": np.eye(2)}), THETA)


@pytest.mark.parametrize("route", [name for name in TABULAR if name != "unrolled"])
@pytest.mark.parametrize("given", ["jacobian", "pullback", "both"])
def test_closed_forms_beside_plain_numpy_serve_every_route(given, route):
    forms = {
        "tables_jacobian": lambda _: {"reward_follower": np.eye(2).reshape(1, 2, 2)},
        "tables_pullback": lambda _, cotangents: cotangents["reward_follower"].ravel(),
    }
    problem = one_state(plain, **{name: form for name, form in forms.items() if given in name or given == "both"})
    found = hypergradient(problem, THETA, route=route)
    np.testing.assert_allclose(found.value, by_hand(THETA), atol=found.error_bound)
    assert max(check_derivatives(problem, THETA).values()) < 1e-12


@pytest.mark.parametrize("route", TABULAR)
def test_lists_are_tables(route):
    problem = ConfigurableMDP(
        tables=lambda x: Tables(
            transition=[[[1], [1]]], reward_follower=[[x[0], x[1]]], reward_leader=[[0, 1]], initial=[1.0]
        ),
        discount_leader=0.9,
        discount_follower=0.9,
        temperature=1.0,
    )
    found = hypergradient(problem, THETA, route=route)
    np.testing.assert_allclose(found.value, by_hand(THETA), atol=found.error_bound)


class Foreign:
    """An array of another library."""

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return np.asarray(self.array, dtype=dtype)


def test_arrays_of_other_libraries():
    kernel = Foreign(np.ones((1, 2, 1)))
    tables = Tables(
        transition=kernel, reward_follower=np.zeros((1, 2)), reward_leader=np.zeros((1, 2)), initial=Foreign(np.ones(1))
    )
    assert tables.transition.dtype == np.float64
    with pytest.raises(ShapeError, match=r"transition\.dtype='float32 of Foreign'"):
        replace(tables, transition=Foreign(np.ones((1, 2, 1), dtype=np.float32)))
    refuses = Foreign(None, RuntimeError("can't call numpy() on a tensor that requires grad"))
    with pytest.raises(ShapeError, match=r"reward_leader=Foreign.*requires grad.*tables_pullback"):
        replace(tables, reward_leader=refuses)
    with pytest.raises(ShapeError, match=r"successor.dtype='float64'"):
        SparseTransition(successor=np.zeros((1, 2, 1)), probability=np.ones((1, 2, 1)))
    assert SparseTransition(successor=[[[0], [0]]], probability=[[[1], [1]]]).shape == (1, 2, 1)


@pytest.mark.parametrize("route", TABULAR)
def test_what_a_function_raises_is_told_with_theta(route):
    def raises(_):
        raise KeyError("price")

    with pytest.raises(
        InvalidInputError, match=r"tables\(theta\) raised KeyError: 'price'.*theta=\[ 0.3 -0.7\]"
    ) as told:
        hypergradient(one_state(raises), THETA, route=route)
    assert isinstance(told.value.__cause__, KeyError)


def test_a_function_that_keeps_traced_values():
    kept = {}

    def keeps(x):
        return anp.reshape(x if isinstance(x, np.ndarray) else kept.setdefault("x", x), (1, 2))

    hypergradient(one_state(keeps), THETA, bound=False)
    for route in ("implicit", "unrolled"):
        with pytest.raises(DerivativeError, match="earlier call"):
            hypergradient(one_state(keeps), THETA, route=route)
        kept.clear()


SLOPES = np.array([[1e12, 0.0], [3.0, 1e-3], [0.0, 0.7]])  # of three rewards in two parameters


def steep(factor=1.0, entry=(0, 0), given="pullback"):
    """One state whose three rewards have slopes of very different sizes, and a closed form off in one of them."""
    claimed = SLOPES.copy()
    claimed[entry] *= factor
    closed = {
        "pullback": {"tables_pullback": lambda theta, cotangents: np.ravel(cotangents["reward_follower"]) @ claimed},
        "jacobian": {"tables_jacobian": lambda theta: {"reward_follower": claimed[None]}},
    }[given]

    def tables(theta):
        return Tables(
            transition=np.ones((1, 3, 1)),
            reward_follower=anp.reshape(anp.dot(SLOPES, theta), (1, 3)),
            reward_leader=np.array([[0.0, 1.0, 2.0]]),
            initial=np.ones(1),
        )

    return ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0, **closed)


@pytest.mark.parametrize("given", ["pullback", "jacobian"])
@pytest.mark.parametrize("entry", [(0, 0), (1, 0), (1, 1), (2, 1)])
def test_small_slopes_beside_large_ones_are_checked_on_their_own(entry, given):
    theta = np.array([1e-12, -0.4])
    right = hypergradient(steep(), theta)
    np.testing.assert_allclose(right.value, hypergradient(steep(given="jacobian"), theta).value, rtol=1e-12)
    for factor in (0.5, 0.0):
        with pytest.raises(DerivativeError, match="reward_follower"):
            hypergradient(steep(factor, entry, given), theta)


def two_tables(pullback):
    """A kernel and rewards of one state that depend on θ, with a pullback of one's own."""

    def tables(theta):
        chance = 0.5 + 0.1 * theta[1]
        return Tables(
            transition=anp.array([[[chance, 1.0 - chance], [0.3, 0.7]], [[0.5, 0.5], [0.2, 0.8]]]),
            reward_follower=anp.array([[0.0, theta[0]], [0.5, 0.0]]),
            reward_leader=np.array([[1.0, 0.0], [0.0, 2.0]]),
            initial=np.array([1.0, 0.0]),
        )

    return ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.4, tables_pullback=pullback
    )


def of_reward(cotangents):
    return np.array([cotangents["reward_follower"][0, 1], 0.0])


def of_kernel(cotangents):
    return np.array([0.0, 0.1 * (cotangents["transition"][0, 0, 0] - cotangents["transition"][0, 0, 1])])


def added(theta, cotangents):
    found = np.zeros(2)
    if "reward_follower" in cotangents:
        found += of_reward(cotangents)
    if "transition" in cotangents:
        found += of_kernel(cotangents)
    return found


def one_or_the_other(theta, cotangents):
    return of_reward(cotangents) if "reward_follower" in cotangents else of_kernel(cotangents)


def the_last(theta, cotangents):
    found = np.zeros(2)
    if "reward_follower" in cotangents:
        found = of_reward(cotangents)
    if "transition" in cotangents:
        found = of_kernel(cotangents)
    return found


class Filled:
    """A pullback that fills one array of its own again and again."""

    def __init__(self):
        self.kept = np.zeros(2)

    def __call__(self, theta, cotangents):
        self.kept[...] = added(theta, cotangents)
        return self.kept


@pytest.mark.parametrize("route", DIFFERENTIATING)
def test_pullbacks_of_several_tables_at_once(route):
    traced = hypergradient(two_tables(None), THETA, route=route)
    for right in (added, Filled()):
        found = hypergradient(two_tables(right), THETA, route=route)
        for part, value in found.parts.items():
            np.testing.assert_allclose(value, traced.parts[part], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("wrong", [one_or_the_other, the_last])
def test_pullbacks_that_do_not_add_up_are_refused(wrong):
    with pytest.raises(DerivativeError, match="reward_follower, transition together"):
        hypergradient(two_tables(wrong), THETA)


def test_errors_that_cancel_in_one_weighted_sum():
    """Where trace and complex step lose a part of 1e-4, only sums of differences tell, and one sum in 28 does not."""
    accepted = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        seen, lost, theta = rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 2)), rng.normal(size=2)

        def rewards(x, seen=seen, lost=lost):
            plain = x
            while hasattr(plain, "_value"):
                plain = plain._value
            hidden = np.real(np.asarray(plain))
            return anp.tensordot(x, seen, axes=1) + 1e-4 * anp.tensordot(hidden, lost, axes=1)

        problem = ConfigurableMDP(
            tables=lambda x, rewards=rewards: Tables(
                transition=np.full((3, 2, 3), 1 / 3),
                reward_follower=rewards(x),
                reward_leader=np.eye(3, 2),
                initial=np.eye(3)[0],
            ),
            discount_leader=0.9,
            discount_follower=0.8,
            temperature=0.4,
        )
        try:
            problem.pullback_at(theta)
        except DerivativeError:
            continue
        accepted += 1
    assert accepted == 0


@pytest.mark.parametrize("scale", [60.0, 200.0])
def test_the_slope_of_a_probability_next_to_one_is_known_to_rounding_only(scale):
    """24 (1 - p) at p = 1 - 1e-9, from numbers of the size 24."""
    problem = random_markov_game(seed=1, states=2, leader_actions=2, actions=2, follower_sees_leader_action=False)
    for seed in range(30):
        theta = scale * np.random.default_rng(seed).normal(size=problem.theta_shape)
        problem.jacobian(theta)
        problem.pullback_at(theta)


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_closed_forms_of_probabilities_next_to_one(factor):
    def tables(theta):
        chance = 1.0 / (1.0 + anp.exp(-theta[0]))
        return Tables(
            transition=np.full((2, 2, 2), 0.5),
            reward_follower=np.eye(2),
            reward_leader=np.eye(2),
            initial=anp.stack([chance, 1.0 - chance]),
        )

    def jacobian(theta):
        chance = 1.0 / (1.0 + np.exp(-theta[0]))
        slope = factor * chance * (1.0 - chance)
        return {"initial": np.array([[slope], [-slope]])}

    problem = ConfigurableMDP(
        tables=tables, discount_leader=0.9, discount_follower=0.9, temperature=1.0, tables_jacobian=jacobian
    )
    for logit in (14.0, 19.0, 23.0):
        if factor == 1.0:
            problem.jacobian(np.array([logit]))
        else:
            with pytest.raises(DerivativeError, match="initial"):
                problem.jacobian(np.array([logit]))


def stacked(factor=1.0, slope=1.0):
    """Rewards and their pullback at many θ in closed forms, off by a factor or in a slope."""
    rng = np.random.default_rng(0)
    follower, leader, weights = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), rng.normal(size=(3, 2, 2))

    def pulled(thetas, cotangents):
        return factor * np.einsum("rsa,san->rn", cotangents["reward_follower"], weights)

    return ConfigurableMDP(
        tables=lambda theta: Tables(
            transition=np.full((3, 2, 3), 1 / 3),
            reward_follower=follower + anp.dot(weights, theta),
            reward_leader=leader,
            initial=np.eye(3)[0],
        ),
        discount_leader=0.9,
        discount_follower=0.8,
        temperature=0.4,
        theta_shape=(2,),
        stacked_rewards=lambda thetas: (
            follower + slope * np.einsum("san,rn->rsa", weights, thetas),
            np.broadcast_to(leader, (len(thetas), 3, 2)),
        ),
        stacked_pullback=pulled,
    )


def test_stacked_forms_are_held_to_the_tables():
    rng = np.random.default_rng(1)
    thetas, cotangents = rng.normal(size=(4, 2)), {"reward_follower": rng.normal(size=(4, 3, 2))}
    right = stacked()
    plain = replace(right, stacked_rewards=None, stacked_pullback=None)
    np.testing.assert_allclose(right.vector_jacobians(thetas, cotangents), plain.vector_jacobians(thetas, cotangents))
    with pytest.raises(DerivativeError, match="stacked_pullback"):
        stacked(factor=1.1).vector_jacobians(thetas, cotangents)
    with pytest.raises(DerivativeError, match="stacked_rewards of the follower"):
        stacked(slope=1.1).rewards(thetas)
    unchecked = replace(stacked(factor=1.1), verify_derivatives=False)
    assert unchecked.vector_jacobians(thetas, cotangents).shape == (4, 2)
