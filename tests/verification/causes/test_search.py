"""What is said of a difference: certain only where nothing else can be meant, and what was not looked at is told."""

import time

import numpy as np
import pytest
from slips import HalfResponse

from bilevelrl.estimators import NaivePGD
from bilevelrl.reference import ConfigurableMDP, named_stream
from bilevelrl.tasks import Scenario, random_mdp, scenario
from bilevelrl.verification import judge, verify
from bilevelrl.verification.causes.explain import explain
from bilevelrl.verification.causes.explanation import Evidence
from bilevelrl.verification.causes.forms.configurable import Form
from bilevelrl.verification.causes.known import Setting, form_effect, known_mistakes
from bilevelrl.verification.checks.own_scenarios import default_scenarios
from bilevelrl.verification.mutants.catalogue import MUTANTS

PLACES = [on for on in default_scenarios(ConfigurableMDP) if on.name.startswith(("layered", "revisits"))]
LONG = 120.0


def evidence(effect, *, at=PLACES, noise=0.0, known_to=1e-12):
    """A difference that a mistake makes, and with numbers that are off by up to `noise` of it."""
    seen = []
    for on in at:
        rng = named_stream(3, on.name)
        off = np.asarray(effect(Setting.of(on, on.truth)))
        off = off + noise * np.abs(off).max() * rng.uniform(-1.0, 1.0, off.size)
        slack = np.full(off.size, max(known_to, noise * float(np.abs(off).max())))
        seen.append(Evidence(scenario=on, truth=on.truth, difference=off, uncertainty=slack))
    return seen


def wrong(**entries):
    return lambda at: form_effect(Form(**entries), at)


@pytest.mark.exact
def test_what_is_near_is_refuted_by_name():
    found = explain(evidence(wrong(guiding="γ_F^t"), noise=0.0), seconds=LONG)
    assert (found.exact, found.certain) == (True, True)
    assert found.cause == "γ_F^t instead of γ_L^t as weight of the guiding term"
    near = explain(
        [
            Evidence(scenario=e.scenario, truth=e.truth, difference=1.001 * e.difference**1, uncertainty=e.uncertainty)
            for e in evidence(wrong(guiding="γ_F^t"))
        ],
        seconds=LONG,
    )
    assert near.cause is None
    assert not near.exact
    assert near.nearest == "γ_F^t instead of γ_L^t as weight of the guiding term"
    assert "nearest, but not it" in str(near)
    assert "(explains 100 %)" in str(near)


@pytest.mark.exact
@pytest.mark.parametrize(("power", "symbol"), [(1, "the number of episodes"), (-1, "1 over the number of episodes")])
def test_the_number_of_episodes_is_a_factor_with_a_name(power, symbol):
    places = default_scenarios(ConfigurableMDP)
    assert any(on.episodes > 1 for on in places)
    for part in ("response", "direct"):

        def effect(at, part=part):
            return (float(at.on.episodes) ** power - 1.0) * at.truth.parts.get(part, np.zeros(at.on.theta.size))

        assert explain(evidence(effect, at=places), seconds=LONG).cause == f"the {part} part is multiplied by {symbol}"


@pytest.mark.exact
def test_two_at_once_and_three_factors():
    both = explain(evidence(lambda at: wrong(guiding="γ_F^t")(at) + wrong(start="V_F(s_0)")(at)), seconds=LONG)
    assert both.exact
    assert "γ_F^t instead of γ_L^t as weight of the guiding term" in both.cause
    assert "V_F(s_0) instead of V_L(s_0) in the initial term" in both.cause

    def factors(at):
        parts, own = at.truth.parts, at.on.problem.discount_leader
        return -0.63 * parts["response"] + (own - 1.0) * parts["direct"] - 2.0 * parts["regulariser"]

    three = explain(evidence(factors, at=[on for on in PLACES if on.problem.discount_leader == 0.7]), seconds=LONG)
    assert three.exact
    assert "the response part is multiplied by 0.37" in three.cause
    assert "the regulariser part has the wrong sign" in three.cause


@pytest.mark.exact
def test_one_number_does_not_prove_a_factor():
    """With one parameter a factor of the response always fits."""
    on = scenario("bandit")
    odd = [Evidence(scenario=on, truth=on.truth, difference=0.123 * on.truth.value, uncertainty=np.full(1, 1e-13))]
    found = explain(odd, seconds=LONG)
    assert not found.certain
    assert found.cause is None or "likely cause" in str(found)


@pytest.mark.exact
def test_what_is_not_told_apart_is_listed_and_other_words_are_not():
    on = scenario("envelope")  # equal discounts: γ_L and γ_F are the same here, and 1/β is a number
    found = explain(evidence(lambda at: (0.8 - 1.0) * at.truth.parts["direct"], at=[on]), seconds=LONG)
    assert found.exact
    told = {found.cause, *found.alternatives}
    assert {"the direct part is multiplied by γ_L", "the direct part is multiplied by γ_F"} <= told
    assert "not told apart" in str(found)
    everywhere = explain(evidence(lambda at: (at.on.problem.discount_leader - 1.0) * at.truth.parts["direct"]))
    assert everywhere.alternatives == ()
    assert "γ_L^(t+1) instead of γ_L^t as weight of the direct term" in everywhere.synonyms


@pytest.mark.exact
def test_what_cannot_be_seen_is_said():
    toll = scenario("toll")
    found = explain(evidence(lambda at: -at.truth.parts["response"], at=[toll]), seconds=LONG)
    assert found.cause == "the response part is missing"
    assert "γ_F^t instead of γ_L^t throughout" in found.unseen  # one step
    assert f"{len(found.unseen)} would not show here" in str(found)
    assert found.compared >= len(known_mistakes(ConfigurableMDP)) - len(found.unseen) - 100


@pytest.mark.exact
def test_a_search_ends_in_time_and_says_what_it_left_out():
    """Three states, two actions, six steps: by lists of paths this took 194 s."""
    on = Scenario.of(random_mdp(states=3, actions=2, seed=5), np.full(3, 0.2), horizon=6)
    odd = named_stream(1, "odd").standard_normal(3)
    seen = [Evidence(scenario=on, truth=on.truncated, difference=odd, uncertainty=np.full(3, 1e-12))]
    heard = []
    began = time.monotonic()
    found = explain(seen, seconds=0.02, progress=lambda *said: heard.append(said))
    assert time.monotonic() - began < 5.0
    assert found.left_out > 100
    assert "cut off by the time limit" in str(found)
    assert heard[0][2] == "looking for the cause"
    whole = explain(seen, seconds=LONG)
    assert whole.left_out == 0
    assert whole.cause is None
    assert whole.uncomputed > 0
    assert f"{whole.uncomputed} more could not be computed" in str(whole)


STREAMS = ["layered", "gamble", "several episodes", "cut"]


@pytest.mark.exact
def test_several_episodes_and_cut_streams_are_held_too():
    """Rows may be means or sums of episodes; what counts steps through them shows nowhere else."""
    naive = verify(lambda trajectories, context: NaivePGD()(trajectories, context), scenarios=STREAMS).explanation
    assert (naive.cause, naive.certain, naive.beyond) == ("the response part is missing", True, ())
    halved = verify(HalfResponse(), scenarios=[*STREAMS, "layered, three actions"]).explanation
    assert (halved.cause, halved.certain, halved.beyond) == ("the response part is halved", True, ())
    once = "the initial part is multiplied by 1 over the number of episodes"  # counted at the start of the stream alone
    for name, said in (("global time, MDP", ""), ("start of the stream, MDP", once), ("mean over steps, MDP", "")):
        found = verify(MUTANTS[name].make(), scenarios=STREAMS, explain_seconds=LONG).explanation
        assert (said or name) in " ".join((found.cause, *found.alternatives)), (name, str(found))
        assert found.beyond == ()

    def shorter(trajectories, context):
        """Of cut streams the last step is dropped too."""
        halves = HalfResponse()(trajectories, context)
        return np.where(trajectories.truncated.any(axis=1)[:, None], 0.5 * halves, halves)

    partly = verify(shorter, scenarios=STREAMS, explain_seconds=LONG).explanation
    assert (partly.certain, partly.beyond) == (False, ("cut",))
    assert "but not on cut" in str(partly)


@pytest.mark.exact
@pytest.mark.parametrize(("digits", "said"), [(7, "single precision?"), (10, "a solver or a sum that stops early?")])
def test_small_differences_everywhere_look_like_rounding(digits, said):
    def rounded(at):
        size = max(np.abs(part).max() for part in at.truth.parts.values())
        return 10.0**-digits * size * named_stream(2, at.on.name).uniform(-1.0, 1.0, at.on.theta.size)

    found = explain(evidence(rounded, known_to=1e-14), seconds=LONG)
    assert found.cause == f"agrees to {digits} digits: {said}"
    assert (found.exact, found.certain) == (False, False)


@pytest.mark.statistical
@pytest.mark.parametrize("draws", [20_000, 2_000_000])
def test_draws_have_causes_too_as_far_as_they_tell(draws):
    """Seed 4; half-widths at an error rate of 1e-6 for all comparisons together."""
    on = scenario("layered")
    effect = form_effect(Form(guiding="γ_F^t", moving="γ_F^t", direct="γ_F^t"), Setting.of(on, on.truth))
    rows = on.truth.value + effect + 0.3 * named_stream(4, "draws").standard_normal((draws, 3))
    found = judge(rows, on, explain_seconds=LONG).explanation
    assert found.exact
    told = (found.cause, *found.alternatives, *found.synonyms)
    assert "γ_F^t instead of γ_L^t throughout" in told
    assert found.certain <= (not found.alternatives)
    assert str(found).startswith("likely cause" if not found.certain else "the cause")
