"""Certified LQR games over an infinite horizon: the tail, its proof, and what is refused."""

import itertools
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest

pytest.importorskip("flint")

from flint import arb, arb_mat, ctx

from bilevelrl.benchmarks.reference_problems.reference_lqrs import lqr_game_form
from bilevelrl.reference import LQRGame, certified_hypergradient, hypergradient
from bilevelrl.reference.certified.lqr import gaussian_return
from bilevelrl.reference.certified.lqr.enclosure import lqr_objective_series
from bilevelrl.reference.certified.lqr.gaussian_return import power_bound
from bilevelrl.reference.errors import IllPosedError, TooLargeError, UnsupportedError
from bilevelrl.reference.lqr_game.model import LeaderGaussian
from bilevelrl.tasks import lqr_game

pytestmark = pytest.mark.exact

GAINS = [(0.0, 0.0), (-7.0, 0.0), (-9.9615, -10.0)]
HALF_WAY = GAINS[1]


def entries(certified):
    return [certified.objective, *certified.value, *(entry for part in certified.parts.values() for entry in part)]


def endless(gain, **changes):
    return replace(lqr_game_form("endless", gain=gain, horizon=None), **changes)


@pytest.mark.parametrize("gain", GAINS)
def test_floating_point_routes_agree(gain):
    problem, theta = lqr_game(), np.array(gain)
    certified = certified_hypergradient(problem, theta, digits=12)
    found = hypergradient(problem, theta)
    size = max(abs(float(entry)) for entry in entries(certified))
    # 4000 rounded terms at a condition below 100; the routes cut the tail at 1e-17 of the largest return, 100.
    allowed = 100 * np.finfo(float).eps * 100 * size + 1e-15
    assert allowed < 1e-11 * size + 2e-15
    assert certified.objective.distance(found.objective) <= allowed
    for part, column in certified.parts.items():
        for truth, number in zip(column, found.parts[part], strict=True):
            assert truth.distance(float(number)) <= allowed, part
    differences = hypergradient(problem, theta, route="finite_difference")
    for truth, number in zip(certified.value, differences.value, strict=True):
        assert truth.distance(float(number)) <= differences.error_bound


def test_the_route_is_rounded_with_a_proven_bound():
    found = hypergradient(lqr_game(), np.array(HALF_WAY), route="certified")
    assert found.error_bound <= np.spacing(np.abs(found.parts["policy"]).max())
    assert set(found.parts) == {"policy", "response", "regulariser"}


@pytest.mark.parametrize("steps", [50, 400])
def test_long_episodes_approach_it_within_the_tail(steps):
    """Rewards lie in (0, 1], so what is left after T steps lies in (0, γ_L^T / (1 - γ_L)]."""
    whole = certified_hypergradient(endless(HALF_WAY), digits=20)
    cut = certified_hypergradient(lqr_game_form("cut", gain=HALF_WAY, horizon=steps), digits=20)
    left = whole.objective.ball - cut.objective.ball
    assert left > 0
    assert left < arb("0.99") ** arb(steps) * 100


def test_a_deterministic_game_by_hand():
    """No control and no noise: x_t = k^t, J = Σ γ^t exp(-½ (k^t - x*)² / D)."""

    def number(value):
        return np.array([[float(value)]])

    game = LQRGame(
        dynamics_state=number(0), dynamics_action=number(0), dynamics_leader=number(1), cost_state=number(1),
        cost_action=number(1), target=np.array([0.25]), width=number(0.5), initial_mean=np.ones(1),
        initial_covariance=number(0), leader_covariance=number(0), discount_leader=0.75, discount_follower=0.5,
        temperature=1.0,
    )  # fmt: skip
    certified = certified_hypergradient(game, np.array([-0.875]), digits=40)
    with mpmath.workdps(60):
        gamma, k = mpmath.mpf("0.75"), mpmath.mpf("-0.875")
        J = slope = mpmath.mpf(0)
        for t in range(600):
            off = k**t - mpmath.mpf("0.25")
            term = gamma**t * mpmath.exp(-(off**2))
            J += term
            slope += -2 * off * term * t * k ** (t - 1)
        for enclosure, truth in ((certified.objective, J), (certified.value[0], slope)):
            assert enclosure.digits >= 40
            with ctx.workprec(400):
                near = arb(mpmath.nstr(truth, 58))
                assert abs(enclosure.ball - near) < arb(10) ** -39
                assert not abs(enclosure.ball - near * (1 + arb(10) ** -38)) < arb(10) ** -39


@pytest.mark.parametrize("gain", GAINS[:2])
def test_shrinking_radii_nest(gain):
    found = [certified_hypergradient(endless(gain), digits=digits) for digits in (10, 30, 60)]
    for coarse, fine in itertools.pairwise(found):
        for outer, inner in zip(entries(coarse), entries(fine), strict=True):
            assert outer.ball.contains(inner.ball)
            assert inner.radius <= outer.radius


@pytest.mark.parametrize("table", ["dynamics_action", "covariance", "width", "target"])
def test_one_part_in_1e25_is_seen(table):
    form = endless(HALF_WAY)
    truth = certified_hypergradient(form, digits=35)
    entry = form.tables[table]
    place = next(iter(entry.base))
    base = {**entry.base, place: Fraction(entry.base[place]) * (1 + Fraction(1, 10**25))}
    wrong = certified_hypergradient(replace(form, tables={**form.tables, table: replace(entry, base=base)}), digits=35)
    assert not truth.objective.ball.overlaps(wrong.objective.ball)
    assert not any(a.ball.overlaps(b.ball) for a, b in zip(truth.value, wrong.value, strict=True))
    again = certified_hypergradient(form, digits=40)
    assert all(a.ball.overlaps(b.ball) for a, b in zip(entries(truth), entries(again), strict=True))


def along(gain, bits, part=None):
    with ctx.workprec(bits):
        theta = [arb(x) for x in gain]
        return lqr_objective_series(endless(gain), theta, [arb(1), arb(1)], 3, part)


@pytest.mark.parametrize("gain", [HALF_WAY, (-9.5, -9.0)])
@pytest.mark.parametrize("spare", [150, 185, 190])
def test_the_tail_holds_the_truth_however_early_the_sum_stops(monkeypatch, gain, spare):
    truth = along(gain, 300)
    monkeypatch.setattr(gaussian_return, "_SPARE_BITS", spare)
    early = along(gain, 200)
    for k in range(3):  # objective, slope, half the curvature
        assert early[k].contains(truth[k])
        assert truth[k].rad() < 1e-30
    assert early[0].rad() > arb(2) ** (spare - 260)  # it did stop early
    assert early[0].rad() < 1


def test_a_tail_that_is_forgotten_or_too_narrow_is_found(monkeypatch):
    truth = along(HALF_WAY, 300)
    monkeypatch.setattr(gaussian_return, "_SPARE_BITS", 190)
    original = gaussian_return._cushion
    monkeypatch.setattr(gaussian_return, "_cushion", lambda like, size, weight: original(like, arb(0), weight))
    narrow = along(HALF_WAY, 200)
    assert not all(narrow[k].contains(truth[k]) for k in range(3))


def rotation(scale, angle=0.7):
    c, s = arb(angle).cos(), arb(angle).sin()
    return arb_mat([[c, -3 * s], [s / 3, c]]) * arb(scale)


@pytest.mark.parametrize("scale", ["0.3", "0.9", "0.995"])
def test_bounds_on_powers_hold(scale):
    with ctx.workprec(200):
        loop = [rotation(scale), arb_mat([[1, 2], [-1, 1]])]
        bound = power_bound(loop)
        power, total, squares = gaussian_return._one(loop), arb(0), arb(0)
        for _ in range(2000):
            size = gaussian_return._norm(power, bound.weight)
            assert size <= bound.any_power
            total, squares = total + size, squares + size * size
            power = gaussian_return._times(loop, [entry.mid() for entry in power])
        assert total < bound.total < 100 * total
        assert squares < bound.total_squares < 1000 * squares


def spinning(scale):
    """A game that turns and shears its state; |M| has a spectral radius above 1 though M has not."""
    angle = 0.7
    turn = scale * np.array([[np.cos(angle), -3 * np.sin(angle)], [np.sin(angle) / 3, np.cos(angle)]])

    def leader_policy(theta):
        gain = theta[:2].reshape(1, 2) * np.ones((1, 2))
        return LeaderGaussian(
            gain=gain, covariance=(0.1 + theta[2] ** 2) * np.ones((1, 1)), regulariser=-0.5 * theta[0] * theta[2]
        )

    return LQRGame(
        dynamics_state=turn,
        dynamics_action=np.array([[0.1], [0.05]]),
        dynamics_leader=np.array([[0.2], [0.1]]),
        cost_state=np.array([[0.01, 0.0], [0.0, 0.01]]),
        cost_action=np.eye(1),
        target=np.array([0.5, -0.25]),
        width=np.array([[0.5, 0.125], [0.125, 0.25]]),
        initial_mean=np.array([1.0, -1.0]),
        initial_covariance=np.array([[0.1, 0.02], [0.02, 0.1]]),
        discount_leader=0.98,
        discount_follower=0.9,
        temperature=0.2,
        leader_policy=leader_policy,
        theta_shape=(3,),
    )


@pytest.mark.parametrize(("horizon", "discounted"), [(None, True), (1, True), (1, False), (25, True), (25, False)])
def test_several_parameters_in_gain_noise_and_regulariser(horizon, discounted):
    problem, theta = spinning(0.97), np.array([0.05, -0.1, 0.3])
    found = hypergradient(problem, theta, route="certified", horizon=horizon, discounted=discounted)
    other = hypergradient(problem, theta, horizon=horizon, discounted=discounted)
    size = max(np.abs(part).max() for part in found.parts.values())
    assert found.objective == pytest.approx(other.objective, rel=1e-13)
    assert set(found.parts) == set(other.parts)
    for part, column in found.parts.items():
        assert np.abs(column - other.parts[part]).max() <= 1e-12 * size
    assert np.abs(found.parts["regulariser"]).max() > 0
    if horizon != 1:
        assert min(np.abs(found.parts["policy"])) > 1e-6
        assert np.abs(found.parts["response"]).max() > 1e-6


def test_rotations_do_not_wrap():
    problem, theta = spinning(0.99), np.array([0.0, 0.0, 0.3])
    assert np.abs(np.linalg.eigvals(np.abs(problem.dynamics_state))).max() > 1.3
    assert certified_hypergradient(problem, theta, digits=30).bits <= 400


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [(-10.0, -10.0), (-10.2, -10.0)])
def test_a_loop_that_is_not_stable_is_refused(gain):
    with pytest.raises(UnsupportedError, match=r"horizon=None.*closed loop.*not shown to be stable.*pass a horizon"):
        certified_hypergradient(lqr_game(), np.array(gain))
    assert certified_hypergradient(lqr_game(), np.array(gain), horizon=20).objective.digits >= 30


def test_a_tail_that_is_not_small_is_refused(monkeypatch):
    monkeypatch.setattr(gaussian_return, "LARGEST_STEPS", 40)
    with pytest.raises(TooLargeError, match="after 40 steps"):
        certified_hypergradient(lqr_game(), np.array(GAINS[2]))


def test_an_endless_game_needs_a_discount():
    with pytest.raises(IllPosedError, match="diverges"):
        certified_hypergradient(lqr_game(), np.zeros(2), discounted=False)
    form = endless(HALF_WAY, discounted=False)
    with pytest.raises(IllPosedError, match="discount below 1"):
        lqr_objective_series(form, [arb(0), arb(0)], [arb(1), arb(0)], 2)
