"""Cards of estimators that are right to so many digits only: allowed where it is asked for, and the card says it."""

import pytest

from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import scenario
from bilevelrl.verification.cards import make_card, read_card, save_card
from bilevelrl.verification.cards.content import card_markdown
from bilevelrl.verification.commands.command_line import main

pytestmark = pytest.mark.exact

STRANGER = """
from bilevelrl.estimators import BCHG

def nearly(trajectories, context):
    return 1.000001 * BCHG()(trajectories, context)
"""


@pytest.fixture(autouse=True)
def nearly(tmp_path, monkeypatch):
    (tmp_path / "stranger_of_accuracy.py").write_text(STRANGER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "stranger_of_accuracy:nearly"


@pytest.mark.parametrize(("accuracy", "outcome"), [(0.0, "failed"), (1e-8, "failed"), (1e-5, "passed")])
def test_an_error_of_a_millionth_is_what_was_allowed_or_not(nearly, tmp_path, accuracy, outcome):
    card = make_card(nearly, on=[scenario("layered")], accuracy=accuracy, mistakes=False)
    assert card.places[0].outcome == outcome
    assert read_card(save_card(card, tmp_path / "card.json")) == card
    assert ("error allowed" in card_markdown(card)) == (accuracy > 0.0)


def test_the_command_allows_it_and_holds_a_card_to_its_own(nearly, tmp_path, capsys):
    options = ["--kind", "mdp", "--quick", "--output", str(tmp_path / "cards"), "--accuracy", "1e-4"]
    assert main(["card", nearly, *options]) == 0
    (written,) = (tmp_path / "cards").glob("*.json")
    assert main(["card", "--check", str(written)]) == 0
    assert "says what is so" in capsys.readouterr().out
    for refused in ("1", "-1e-3", "nan"):
        assert main(["card", nearly, "--accuracy", refused]) == 2
    assert main(["card", "--check", str(written), "--accuracy", "1e-3"]) == 2


def test_bad_accuracies_are_named(nearly):
    with pytest.raises(InvalidInputError, match="accuracy"):
        make_card(nearly, on=[scenario("layered")], accuracy=-1.0)
