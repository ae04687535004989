"""Games in the main verification job: registered estimators pass on both information structures, wrong ones fail."""

import pytest

from bilevelrl.estimators import BCHG, NaivePGD
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import MarkovGame
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.pipeline.small_problems import check_by_enumeration, small_games
from bilevelrl.verification.pipeline.verify import check_registered

GAMES = {small.name: small for small in small_games()}
CASES = [
    (name, small.name)
    for small in GAMES.values()
    for name, entry in estimators_for(MarkovGame).items()
    if entry.make(small.target).draw in small.draws
]


@pytest.mark.parametrize(("name", "game"), CASES)
def test_registered_estimators_hold_their_claims(name, game):
    row = check_registered(name, GAMES[game])
    measured = {"total_derivative": Outcome.MEASURED}
    endless = GAMES[game].ends is False and name == "bc_hg_game_geometric"
    assert row.verdict.outcome is (Outcome.NOT_APPLICABLE if endless else measured.get(name, Outcome.PASSED)), (
        row.verdict.reason
    )


@pytest.mark.parametrize("game", ["game", "game, not seeing"])
def test_an_estimator_without_response_fails_and_is_told_why(game):
    """A plain function that forgets the follower, and one that is right."""
    row = check_by_enumeration(lambda trajectories, context: NaivePGD()(trajectories, context), GAMES[game])
    assert row.verdict.failed
    assert "response part" in row.verdict.reason
    right = check_by_enumeration(lambda trajectories, context: BCHG()(trajectories, context), GAMES[game])
    assert right.verdict.outcome is Outcome.PASSED
