"""Means of forms with one wrong entry are what lists of all paths say, and right forms have the truth as their mean."""

import numpy as np
import pytest

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.reference.problem import INFINITE_HORIZON
from bilevelrl.tasks import Scenario, layered_mdp, random_markov_game, scenario, toy_game_theta, toy_markov_game
from bilevelrl.verification.causes.forms.configurable import Form, expected
from bilevelrl.verification.causes.forms.games import GameForm, GameModel, game_expected
from bilevelrl.verification.causes.forms.model import Model
from bilevelrl.verification.causes.known import Setting, form_effect, known_mistakes
from bilevelrl.verification.causes.planted import _difference, form_of
from bilevelrl.verification.checks.own_scenarios import default_scenarios
from bilevelrl.verification.checks.truncation import truncated_truths
from bilevelrl.verification.mutants.catalogue import MUTANTS

pytestmark = pytest.mark.exact

SAID = {
    name: mutant
    for name, mutant in MUTANTS.items()
    if mutant.kind == "estimator" and mutant.meant_for != "contract" and form_of(mutant.make()) is not None
}
CRITIC = "with a critic for the rest of the return"


@pytest.mark.parametrize("where", ["layered", "layered, three actions", "gamble", "random"])
def test_mutants_that_a_form_says_have_the_effect_that_their_paths_have(where):
    """On "random" streams are cut, so that what replaces the rest is in the comparison too. Rounding: 1e-12."""
    on = scenario(where)
    at = Setting.of(on, on.target_truth)
    for name, mutant in SAID.items():
        listed = _difference(mutant.kind, mutant.make(), on)
        assert listed is not None, name
        assert np.allclose(form_effect(form_of(mutant.make()), at), listed, rtol=1e-9, atol=1e-12), name


def test_most_mutants_are_said_by_forms():
    plain = [name for name, mutant in MUTANTS.items() if mutant.meant_for in ("bias", "bias, truncated")]
    assert len(SAID) >= 41
    assert {"unvisited = 0", "last visits only"} <= set(plain) - set(SAID)  # these depend on whole paths


@pytest.mark.parametrize("style", ["critic", "steps"])
def test_right_forms_of_configurable_mdps(style):
    for on in (entry for entry in default_scenarios(ConfigurableMDP) if entry.ends):
        parts = expected(Form(), Model(on=on, style=style, steps=on.horizon))
        size = 1.0 + np.abs(on.truth.value).max()
        assert np.abs(sum(parts.values()) - on.truth.value).max() <= 1e-12 * size, on.name


CUT = {
    "MDP": Scenario.of(layered_mdp(), horizon=2),
    "seeing": Scenario.of(toy_markov_game(), toy_game_theta(0.4), horizon=4),
    "blind": Scenario.of(random_markov_game(states=2, actions=2, seed=2, follower_sees_leader_action=False), horizon=3),
}


@pytest.mark.parametrize("where", CUT)
def test_right_forms_on_streams_that_are_cut(where):
    on = CUT[where]
    cuts = truncated_truths(on, INFINITE_HORIZON)
    for said, style in ((CRITIC, "critic"), (f"for the objective of {on.horizon} steps", "steps")):
        if where == "MDP":
            parts = expected(Form(), Model(on=on, style=style, steps=on.horizon))
        else:
            parts = game_expected(GameForm(), GameModel(on=on, style=style, steps=on.horizon))
        assert np.allclose(sum(parts.values()), cuts[said].value, rtol=1e-9, atol=1e-12), (where, said)
        assert Setting.of(on, cuts[said]).style == style


def test_the_truth_says_which_form_is_right():
    on = CUT["MDP"]
    endless = Setting.of(on, on.truth)
    assert (endless.style, endless.steps > 50, endless.tail < 1e-9) == ("critic", True, True)
    other = Setting.of(on, truncated_truths(on, INFINITE_HORIZON)["with the return that is observed"])
    assert other.style is None
    assert form_effect(Form(benefit="V_L"), other) is None


@pytest.mark.parametrize("kind", [ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame])
def test_known_mistakes_have_names_of_their_own_and_effects(kind):
    known = known_mistakes(kind)
    assert len({one.name for one in known}) == len(known) > 200
    on = default_scenarios(kind)[-1]
    at = Setting.of(on, on.truth if on.ends else truncated_truths(on, INFINITE_HORIZON)[CRITIC])
    for one in known:
        effect = one.effect(at)
        assert effect is None or (effect.shape == on.theta.shape and np.isfinite(effect).all()), one.name
        assert effect is not None or one.factor, one.name
