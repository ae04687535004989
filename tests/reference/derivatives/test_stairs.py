"""Tables that move in steps (a cache keyed by a rounded θ, a lookup in a grid) are refused; what is no stair passes."""

import functools

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import getval

from bilevelrl.reference import (
    HYPERGRADIENT_ROUTES,
    ConfigurableLQR,
    ConfigurableMDP,
    LQRMatrices,
    MarkovGame,
    Tables,
    hypergradient,
)
from bilevelrl.reference.derivatives.probes import Probe
from bilevelrl.reference.derivatives.stairs import stairs
from bilevelrl.reference.errors import DerivativeError

pytestmark = pytest.mark.exact

THETA = np.array([0.31234567, -0.7123456])
TABULAR = sorted(name for name, route in HYPERGRADIENT_ROUTES.items() if ConfigurableMDP in route.kinds)


def numbers(theta):
    while theta is not getval(theta):
        theta = getval(theta)
    return np.real(np.asarray(theta)).astype(float)


def cached(decimals):
    """What people write: the expensive table is kept under a rounded key, and the key is what it is computed from."""

    @functools.lru_cache
    def computed(*key):
        return np.tanh(np.array([key]))

    return lambda theta: computed(*np.round(numbers(theta), decimals).tolist())


SPELLINGS = {
    "all of it": lambda kept: kept,
    "one entry": lambda kept: lambda x: anp.reshape(anp.concatenate([anp.tanh(x[:1]), kept(x)[0, 1:]]), (1, 2)),
    "a part beside a smooth one": lambda kept: lambda x: anp.reshape(anp.tanh(x), (1, 2)) + 0.5 * kept(x),
}


def one_state(reward):
    def tables(theta):
        return Tables(
            transition=np.ones((1, 2, 1)), reward_follower=reward(theta), reward_leader=np.array([[0.0, 1.0]]),
            initial=np.ones(1),
        )  # fmt: skip

    return ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)


@pytest.mark.parametrize("decimals", [2, 3, 4, 6])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("route", TABULAR)
def test_tables_cached_under_a_rounded_theta_are_refused(route, spelling, decimals):
    if route == "certified":
        pytest.importorskip("flint")
    with pytest.raises(DerivativeError, match="reward_follower"):
        hypergradient(one_state(SPELLINGS[spelling](cached(decimals))), THETA, route=route)


def test_the_message_says_what_it_is():
    with pytest.raises(
        DerivativeError, match=r"reward_follower\[0, \d\].*is 0 at every θ nearby.*moves in steps.*rounded"
    ):
        hypergradient(one_state(cached(3)), THETA)


def test_matrices_and_policies_in_steps():
    one, kept = np.ones((1, 1)), cached(3)
    problem = ConfigurableLQR(
        matrices=lambda theta: LQRMatrices(
            dynamics_state=kept(theta)[:, :1], dynamics_action=one, noise_covariance=0.1 * one,
            cost_state_follower=one, cost_action_follower=one, cost_state_leader=one, cost_action_leader=0.5 * one,
            initial_mean=np.ones(1), initial_covariance=0.0 * one,
        ),
        discount_leader=0.5, discount_follower=0.9, temperature=0.1,
    )  # fmt: skip
    with pytest.raises(DerivativeError, match="dynamics_state"):
        hypergradient(problem, THETA)

    def policy(theta):
        weights = np.exp(kept(theta))
        return weights / weights.sum()

    game = MarkovGame(
        transition=np.ones((1, 2, 2, 1)), reward_follower=np.eye(2)[None], reward_leader=np.eye(2)[None],
        initial=np.ones(1), policy=policy, follower_sees_leader_action=True, discount_leader=0.5,
        discount_follower=0.5, temperature=1.0,
    )  # fmt: skip
    with pytest.raises(DerivativeError, match="policy"):
        hypergradient(game, THETA)


NO_STAIRS = {
    "a constant": lambda x: np.ones(2),
    "one that begins to move further on": lambda x: np.maximum(x - numbers(THETA) - 0.01, 0.0),
    "one jump further on": lambda x: np.where(x > numbers(THETA) + 0.01, 1.0, 0.0),
    "curved": lambda x: np.exp(20.0 * x),
    "oscillating": lambda x: np.sin(1e4 * x),
    "probabilities next to one": lambda x: 1.0 / (1.0 + np.exp(-36.0 - x)),
    "beside a large constant": lambda x: 1e9 + 1e-6 * x,
}


def steep(seed):
    """Return normal laws of means that move with θ, much narrower than their places are apart; and a θ."""
    rng = np.random.default_rng(seed)
    places = np.linspace(-1.0, 1.0, rng.integers(3, 12))
    deviation = 10.0 ** rng.uniform(-3.0, -1.0) * (places[1] - places[0])
    pace = rng.normal(size=(5, 2))

    def law(x):
        weights = np.exp(-0.5 * ((places - (pace @ x)[:, None]) / deviation) ** 2) + 1e-300
        return {"y": weights / weights.sum(axis=1, keepdims=True)}

    return law, rng.normal(size=2)


def test_laws_that_underflow_but_for_one_place_are_no_stairs_and_the_nearest_place_is():
    for seed in range(60):  # of which ten have jumps over four spans and slopes of nothing on twelve places more
        law, theta = steep(seed)
        probe = Probe(law, theta, "tables")
        assert stairs(probe, "y", probe.small_slope("y")) is None
    nearest = Probe(lambda x: {"y": np.round(20.0 * x)}, THETA, "tables")
    assert stairs(nearest, "y", np.zeros(2)) is not None


@pytest.mark.parametrize("name", NO_STAIRS)
def test_what_is_no_stair_passes(name):
    function = NO_STAIRS[name]
    probe = Probe(lambda x: {"y": function(x)}, THETA, "tables")
    assert stairs(probe, "y", probe.small_slope("y")) is None


def test_waves_of_any_length_are_no_stairs():
    """Where places evenly apart meet a wave at one phase, slopes on it look alike: one drawn table in nine then."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        pace = rng.normal(size=(12, 2)) * 10.0 ** rng.uniform(-1.0, 3.0)
        phase, theta = rng.uniform(0.0, 2.0 * np.pi, 12), rng.normal(size=2)
        probe = Probe(lambda x, pace=pace, phase=phase: {"y": np.sin(pace @ x + phase)}, theta, "tables")
        claimed = np.cos(pace @ theta + phase) * (pace @ probe.direction)
        assert stairs(probe, "y", claimed) is None


def test_a_bend_is_settled_by_two_more_values():
    asked = []

    def curved(x):
        asked.append(x)
        return {"y": np.exp(np.arange(1.0, 7.0) * x[0])}

    probe = Probe(curved, np.array([0.3]), "tables")
    claimed = np.arange(1.0, 7.0) * np.exp(0.3 * np.arange(1.0, 7.0)) * probe.direction[0]
    assert probe.far is not None
    assert probe.sides[0] is not None
    before = len(asked)
    assert stairs(probe, "y", claimed) is None
    assert len(asked) <= before + 2 + 1  # and the complex step


@pytest.mark.parametrize("decimals", range(2, 9))
def test_stairs_are_seen_where_slopes_on_them_are_claimed(decimals):
    probe = Probe(lambda x: {"y": np.round(x, decimals)}, THETA, "tables")
    for claimed in (None, np.zeros(2)):
        found = stairs(probe, "y", claimed)
        assert found is not None
        assert found.kind == "stairs"
    assert stairs(probe, "y", probe.direction.ravel()) is None  # the slope across is claimed: rounding, not a loss


@pytest.mark.parametrize(("share", "most"), [(1e-4, 0), (1e-5, 1)])
def test_small_parts_of_curved_tables_that_trace_and_complex_step_lose(share, most):
    """Of 50 drawn tables; without the part each passes. Of 250 with 1e-5 one does, 38 where only sums are told."""
    accepted = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        seen, lost, theta = rng.normal(size=(2, 1, 6)), rng.normal(size=(2, 1, 6)), rng.normal(size=2)

        def reward(x, part, seen=seen, lost=lost):
            return anp.tanh(anp.tensordot(x, seen, 1)) + part * np.tanh(np.tensordot(numbers(x), lost, 1))

        def problem(part, reward=reward):
            return ConfigurableMDP(
                tables=lambda x: Tables(
                    transition=np.ones((1, 6, 1)), reward_follower=reward(x, part),
                    reward_leader=np.arange(6.0)[None], initial=np.ones(1),
                ),
                discount_leader=0.9, discount_follower=0.8, temperature=0.4,
            )  # fmt: skip

        problem(0.0).pullback_at(theta)
        try:
            problem(share).pullback_at(theta)
        except DerivativeError:
            continue
        accepted += 1
    assert accepted <= most
