"""Games in the main verification job: registered estimators pass on both information structures, wrong ones fail."""

import pytest

from bilevelrl.estimators import BCHG, Draw, NaivePGD
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import MarkovGame
from bilevelrl.tasks.scenarios.main_job import small_scenarios
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.pipeline.scenario_rows import check_registered, rows_on_scenarios

GAMES = {on.name: on for on in small_scenarios() if isinstance(on.problem, MarkovGame)}
CASES = [
    (name, on.name)
    for on in GAMES.values()
    for name, entry in estimators_for(MarkovGame).items()
    if (entry.make(on.target).draw is Draw.BATCH) == ("pairs" in on.tags)
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
    rows, cause = rows_on_scenarios(lambda trajectories, context: NaivePGD()(trajectories, context), [GAMES[game]])
    assert rows[0].verdict.failed
    assert cause.cause == "the response part is missing"
    rows, cause = rows_on_scenarios(lambda trajectories, context: BCHG()(trajectories, context), [GAMES[game]])
    assert rows[0].verdict.outcome is Outcome.PASSED
    assert cause is None
