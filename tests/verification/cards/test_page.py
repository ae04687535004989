"""docs/cards.md says what the cards say."""

from pathlib import Path

import pytest

from bilevelrl.tasks import scenario
from bilevelrl.verification.cards import make_card
from bilevelrl.verification.cards.collection import collection_markdown, read_collection
from bilevelrl.verification.cards.picture import card_picture

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[3]


def test_its_picture_is_what_the_estimator_does():
    names = ("toll", "gamble", "starting place", "layered", "layered, θ in transition only", "layered, cold")
    names += ("layered, hot", "envelope", "revisits", "random")
    made = card_picture(make_card("sobirl", on=[scenario(name) for name in names], mistakes=False).places)
    assert (ROOT / "docs/images/card_sobirl.svg").read_text(encoding="utf-8") == f"{made}\n"


def test_its_table_is_that_of_the_stored_numbers():
    rows = read_collection((ROOT / "benchmarks/results/cards.csv").read_text(encoding="utf-8"))
    page = (ROOT / "docs/cards.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- table: bilevelrl card --all -->\n")[2].partition("<!-- end -->")[0]
    assert shown.strip() == collection_markdown(rows).strip()
    assert len(rows) > 30
    assert not any(int(row["failed"]) for row in rows)
    # Those that claim to be unbiased for all targets are, wherever their mean is known.
    assert not [row["estimator"] for row in rows if row["claim"] == "unbiased" and row["biased"] != "0"]
