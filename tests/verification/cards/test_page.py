"""docs/cards.md says what the cards say."""

from pathlib import Path

import pytest

from bilevelrl.tasks import scenario
from bilevelrl.verification.cards import make_card
from bilevelrl.verification.cards.picture import card_picture

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[3]


def test_its_picture_is_what_the_estimator_does():
    names = ("toll", "gamble", "starting place", "layered", "layered, θ in transition only", "layered, cold")
    names += ("layered, hot", "envelope", "revisits", "random")
    made = card_picture(make_card("sobirl", on=[scenario(name) for name in names], mistakes=False).places)
    assert (ROOT / "docs/images/card_sobirl.svg").read_text(encoding="utf-8") == f"{made}\n"
