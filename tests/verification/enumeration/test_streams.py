"""Streams of several episodes: all combinations, packed, whose moments follow from those of single episodes."""

import numpy as np
import pytest

from bilevelrl.estimators import BCHG
from bilevelrl.reference import ConfigurableMDP, MarkovGame, solve_follower
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.tasks import random_lqr, random_mdp, scenario
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.enumeration.moments import enumerate_moments
from bilevelrl.verification.enumeration.paths import PathLaw
from bilevelrl.verification.enumeration.quadrature import quadrature_moments
from bilevelrl.verification.enumeration.streams import following
from bilevelrl.verification.mutants.along import TraceFormula
from bilevelrl.verification.pipeline.scenario_rows import enumerated_row

SHORT, THETA = random_mdp(states=2, actions=2, seed=3, termination=0.4), np.array([0.2, -0.1, 0.3])


def returns(trajectories, context):
    """Squared and plain discounted return of each stream, averaged over its episodes, and how many steps it has."""
    episodes = trajectories.episode_starts.cumsum(axis=1) - 1
    paid = trajectories.reward_leader_t * 0.7**trajectories.time_in_episode * trajectories.valid
    each = [(paid * (episodes == e)).sum(axis=1) for e in range(int(episodes.max()) + 1)]
    mean = sum(each) / len(each)
    return np.stack([mean, sum(r**2 for r in each) / len(each), trajectories.valid.sum(axis=1) / len(each)], axis=1)


@pytest.mark.exact
def test_every_combination_is_listed_once_without_holes():
    follower = solve_follower(SHORT, THETA)
    law = PathLaw.of(SHORT.tables_at(THETA), follower.policy)
    single = list(law.batches(2, largest=7))  # in several batches
    streams, probability = following(single, 2)
    assert streams.streams == law.count(2) ** 2
    assert probability.sum() == pytest.approx(1.0, abs=1e-12)
    assert (streams.episode_starts.sum(axis=1) == 2).all()
    assert not (streams.valid[:, 1:] & ~streams.valid[:, :-1]).any()
    cut, ended = streams.truncated.sum(axis=1), streams.terminated.sum(axis=1)
    assert (cut + ended == 2).all()
    assert set(cut) == {0, 1, 2}
    seen = np.concatenate([streams.state_t, streams.action_t, streams.valid, streams.state_tp1], axis=1)
    assert len(np.unique(seen, axis=0)) == streams.streams


@pytest.mark.exact
@pytest.mark.parametrize("episodes", [2, 3])
def test_means_over_episodes_keep_their_mean_and_lose_their_variance(episodes):
    one, several = (enumerate_moments(returns, SHORT, THETA, horizon=2, episodes=k) for k in (1, episodes))
    assert np.abs(several.mean - one.mean).max() < 1e-14
    assert np.abs(several.covariance - one.covariance / episodes).max() < 1e-14
    assert several.paths == one.paths**episodes
    with pytest.raises(TooLargeError, match="trajectories of 2 steps"):
        enumerate_moments(returns, SHORT, THETA, horizon=2, episodes=9)


@pytest.mark.exact
def test_linear_problems_follow_each_other_too():
    lqr, theta = random_lqr(states=1, actions=1, seed=0), np.zeros(3)
    one, two = (quadrature_moments(returns, lqr, theta, horizon=1, nodes=5, episodes=k) for k in (1, 2))
    assert np.abs(two.mean - one.mean).max() < 1e-12 * np.abs(one.mean).max()
    assert np.abs(two.covariance - one.covariance / 2).max() < 1e-12 * np.abs(one.covariance).max()
    with pytest.raises(TooLargeError, match="episodes=5"):
        quadrature_moments(returns, lqr, theta, horizon=1, nodes=5, episodes=5)


NAMES = [("several episodes", ConfigurableMDP), ("game, several episodes", MarkovGame)]


@pytest.mark.exact
@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_rows_may_be_means_or_sums_over_episodes_and_nothing_else(name, kind):
    on = scenario(name)

    def times(factor, **switches):
        def rows(trajectories, context):
            parts = TraceFormula(problem=kind, **switches)(trajectories, context)
            return {part: (1.0 if part == "regulariser" else factor) * value for part, value in parts.items()}

        return enumerated_row(rows, on)[0].verdict

    assert times(1.0).reason.startswith("agrees")
    assert times(3.0).outcome is Outcome.PASSED
    assert "rows are sums over the 3 episodes of a stream" in times(3.0).reason
    for wrong in (times(2.0), times(3.0, clock="stream"), times(1.0, clock="stream")):
        assert wrong.failed
        assert "sums" not in wrong.reason
    refused = enumerated_row(BCHG(), on)[0].verdict
    assert refused.outcome is Outcome.NOT_APPLICABLE
    assert "several episodes in one stream" in refused.reason
