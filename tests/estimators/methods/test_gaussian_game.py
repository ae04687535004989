"""BC-HG and the policy gradient on linear-quadratic games, by quadrature over one step and over whole paths."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import Context, Objective, Trajectories, sample_trajectories
from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic
from bilevelrl.estimators.methods.bchg import BCHG
from bilevelrl.estimators.methods.bi_ac import BiAC
from bilevelrl.estimators.methods.naive_pgd import NaivePGD
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.terms.answers import follower_terms
from bilevelrl.reference import hypergradient, leader_objective, named_stream, solve_follower
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.tasks import lqr_game, random_lqr_game
from bilevelrl.verification.enumeration.quadrature import quadrature_moments
from bilevelrl.verification.enumeration.quadrature_truths import game_expected_parts

THETA = np.array([0.3, -0.2, 0.1])


def small(seed=0, **changes):
    return random_lqr_game(states=1, seed=seed, discount_leader=0.6, discount_follower=0.6, **changes)


def context_of(game, theta=THETA):
    return Context(problem=game, theta=theta, follower=solve_follower(game, theta))


def off(found, truth, name):
    return np.abs(found[name] - truth[name]).max() / np.abs(truth[name]).max()


@pytest.mark.parametrize(("seed", "horizon"), [(0, 3), (1, 3), (2, 3), (3, 3), (0, None)])
def test_long_streams_are_unbiased(seed, horizon):
    game = small(seed)
    truth = hypergradient(game, THETA, horizon=horizon).parts
    errors = []
    for nodes in (6, 18):
        found = game_expected_parts(game, THETA, target=Objective(horizon=horizon), steps=75, nodes=nodes)
        errors.append(max(off(found, truth, "policy"), off(found, truth, "response")))
    assert errors[1] <= 1e-9
    assert errors[0] > 10.0 * errors[1]  # nodes are what it converges in
    short = game_expected_parts(game, THETA, target=Objective(horizon=3), steps=3, nodes=24)
    assert off(short, hypergradient(game, THETA, horizon=3).parts, "response") > 1e-3  # suffixes cut at the horizon


def test_quadrature_over_paths_is_the_expectation_by_steps():
    game, target = small(), Objective(horizon=2)
    expected = game_expected_parts(game, THETA, target=target, steps=2, nodes=24)
    moments = quadrature_moments(BCHG(target=target, critic="exact_truncated"), game, THETA, horizon=2, nodes=10)
    for name, part in expected.items():
        np.testing.assert_allclose(moments.parts[name], part, rtol=1e-9, atol=1e-9 * np.abs(part).max())
    naive = quadrature_moments(
        NaivePGD(target=target, critic="exact_truncated", baseline="none"), game, THETA, horizon=2, nodes=10
    )
    np.testing.assert_allclose(naive.mean, expected["policy"] + expected["regulariser"], rtol=1e-8)
    # Neither the baseline of the influence nor its first term moves the mean.
    for options in ({"influence_baseline": False}, {"same_step": True}):
        other = quadrature_moments(
            BCHG(target=target, critic="exact_truncated", **options), game, THETA, horizon=2, nodes=10
        )
        np.testing.assert_allclose(other.mean, moments.mean, rtol=1e-7)
        assert not np.allclose(other.covariance, moments.covariance, rtol=1e-3)


def test_planted_mistakes_are_caught():
    game, target = small(), Objective(horizon=2)
    expected = game_expected_parts(game, THETA, target=target, steps=2, nodes=24)
    right = solve_follower(game, THETA)
    wrong = {
        "sign of the gain": replace(right, gain=-right.gain, gain_leader=-right.gain_leader),
        "half the covariance": replace(right, covariance=0.5 * right.covariance),
        "a follower that does not see": replace(right, gain_leader=0.0 * right.gain_leader),
        "value of an unseen action": replace(
            right, cost_to_go_seen=right.cost_to_go_seen * np.array([[1.0, 0.0], [0.0, 1.0]])
        ),
    }
    for name, follower in wrong.items():
        moments = quadrature_moments(
            BCHG(target=target, critic="exact_truncated"), game, THETA, horizon=2, nodes=10, follower=follower
        )
        worst = max(off(moments.parts, expected, part) for part in ("policy", "response"))
        assert worst > 1e-2, name


@pytest.mark.statistical
def test_samples_meet_the_truth():
    """Each coordinate's z-score below 5 (error rate 6e-7 each)."""
    game, target = small(1), Objective(horizon=3)
    estimator, context = BCHG(target=target, critic="exact_truncated"), context_of(game)
    batch = sample_trajectories(
        game, THETA, context.follower, streams=40_000, steps=30, rng=named_stream(3, "game against truth")
    )
    truth = hypergradient(game, THETA, horizon=3).parts
    parts = estimator.parts_per_draw(batch, context)
    for name in ("policy", "response"):
        error = parts[name].std(axis=0) / np.sqrt(len(parts[name]))
        assert (np.abs(parts[name].mean(axis=0) - truth[name]) <= 5.0 * error).all()
        assert error.max() < 0.2 * np.abs(truth[name]).max()
    rows = estimator(batch, context)
    np.testing.assert_allclose(estimator.estimate(batch, context).mean, rows.mean(axis=0), rtol=1e-9)


def test_the_critic_is_the_return_from_a_state():
    game, theta = lqr_game(), np.array([-9.0, -9.0])
    context = context_of(game, theta)
    critic = LQRGameCritic.solve(context, Objective(horizon=20, discounted=False))
    for to_go in (1, 7, 20):
        elsewhere = replace(game, initial_mean=np.array([0.4, -0.1]))
        expected = leader_objective(elsewhere, theta, horizon=to_go, discounted=False)
        assert critic.value(np.array([0.4, -0.1]), steps_to_go=to_go) == pytest.approx(expected, rel=1e-12)
    assert critic.value(np.array([0.4, -0.1]), steps_to_go=0) == 0.0
    mixed = critic.value(np.array([[0.4, -0.1], [0.4, -0.1]]), steps_to_go=np.array([1, 7]))
    separate = [critic.value(np.array([0.4, -0.1]), steps_to_go=h) for h in (1, 7)]
    np.testing.assert_allclose(mixed, separate, rtol=1e-14)


def test_centred_quantities_have_mean_zero():
    """The benefit over the follower's actions, the influence over the leader's, by quadrature."""
    game = small(2)
    context = context_of(game)
    policy, follower = game.policy_at(THETA), context.follower
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    state = np.full((1, 40, 1), 0.6)
    leader_action = state @ policy.gain.T + np.sqrt(policy.covariance[0, 0]) * points[None, :, None]
    visits = visits_of(state, np.zeros_like(leader_action), leader_action)
    centred, plain = (
        follower_terms(context, visits, centred=each)[1]["log_policy_leader"][0] for each in (None, False)
    )
    assert abs(centred @ weights) <= 1e-12
    assert abs(plain @ weights) > 1e-2
    fixed = np.full((1, 40, 1), -0.2)
    action = follower.mean(state, fixed) + np.sqrt(follower.covariance[0, 0]) * points[None, :, None]
    critic = LQRGameCritic.solve(context, Objective(horizon=4))
    benefit = critic.benefit_t(visits_of(state, action, fixed), np.full((1, 40), 4))[0]
    assert abs(benefit @ weights) <= 1e-10 * np.abs(benefit).max()
    assert np.abs(benefit).max() > 1e-4


def visits_of(state, action, leader_action):
    shape = state.shape[:2]
    nowhere = np.zeros(shape, dtype=bool)
    everywhere = np.ones(shape, dtype=bool)  # each visit is an episode of one step
    return Trajectories(
        state_t=state,
        action_t=action,
        leader_action_t=leader_action,
        state_tp1=state,
        reward_leader_t=np.zeros(shape),
        terminated=nowhere,
        truncated=everywhere,
        time_in_episode=np.zeros(shape, dtype=np.int64),
        valid=everywhere,
        behaviour_log_prob=np.zeros(shape),
    )


def test_what_has_no_form_for_this_kind_is_refused():
    game = small()
    context = context_of(game)
    batch = LQRSimulator().sample(game, THETA, context.follower, streams=2, steps=3, rng=np.random.default_rng(0))
    with pytest.raises(UnsupportedError, match="MarkovGame"):
        BiAC().estimate(batch, context)
    with pytest.raises(UnsupportedError, match="action_dependent"):
        BCHG(baseline="action_dependent").estimate(batch, context)
    with pytest.raises(UnsupportedError, match="quadrature"):
        BCHG().expectation(context, horizon=3)
