"""Cards: right estimators keep their claims, planted mistakes show where they are, and all writings say the same."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.estimators import BCHG
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import scenario, scenarios
from bilevelrl.verification.cards import collection, compare_cards, make_card, measure, read_card, save_card, subjects
from bilevelrl.verification.cards.collection import collect, collection_csv, collection_markdown, collection_rows
from bilevelrl.verification.cards.content import card_markdown
from bilevelrl.verification.cards.measure import card_of, draws_for
from bilevelrl.verification.cards.page import card_page
from bilevelrl.verification.cards.storage import card_json, parse_card
from bilevelrl.verification.cards.subjects import find_subject
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.mutants.catalogue import MUTANTS

pytestmark = pytest.mark.exact

FEW = ("toll", "layered", "layered, θ in transition only", "random")
HERE = "tests_of_cards_strangers"
STRANGERS = '''
"""Estimators as strangers write them."""
from bilevelrl.estimators import BCHG, NaivePGD

def right(trajectories, context):
    """BC-HG by another name."""
    return BCHG()(trajectories, context)

def half_direct(trajectories, context):
    parts = BCHG().parts_per_draw(trajectories, context)
    return {**parts, "direct": 0.5 * parts["direct"]}

def forgetful(trajectories, context):
    return NaivePGD()(trajectories, context)

def raises(trajectories, context):
    raise RuntimeError("boom")

number = 3
'''


@pytest.fixture(autouse=True)
def strangers(tmp_path, monkeypatch):
    (tmp_path / f"{HERE}.py").write_text(STRANGERS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


def some(*names):
    return [scenario(name) for name in names or FEW]


class TestWhatItSays:
    def test_a_right_function_keeps_its_claim_also_where_streams_are_cut(self):
        card = make_card(f"{HERE}:right", on=some(), mistakes=False)
        assert card.passed
        assert card.headline == "keeps its claim on 4 of 4 scenarios (4 passed)"
        assert not any(place.biased for place in card.places)
        (cut,) = [place for place in card.places if place.scenario == "random"]
        assert cut.cut > 0.01
        assert cut.bias < cut.would_see < 1e-9

    def test_a_planted_bias_is_shown_with_its_size_where_it_is_and_nowhere_else(self):
        card = make_card(f"{HERE}:half_direct", on=some(), mistakes=False)
        assert not card.passed
        for place, on in zip(card.places, some(), strict=True):
            expected = 0.5 * np.linalg.norm(on.truth.parts["direct"]) / np.linalg.norm(on.truth.value)
            assert place.outcome == ("failed" if expected > 0.0 else "passed")
            if on.ends:
                assert place.parts["direct"] == pytest.approx(expected, rel=1e-9)
                assert place.bias == pytest.approx(expected, rel=1e-9)
            assert all(size <= place.would_see for part, size in place.parts.items() if part != "direct")
        told = card_markdown(card)
        assert "BREAKS its claim, and keeps it on 1 of 4" in told
        assert re.search(r"\| toll \| unbiased \| failed \|[^|]*\| direct 9\.", told)

    def test_a_part_that_is_left_out_is_a_bias_of_that_part(self):
        place = make_card("naive_pgd", on=some("layered"), mistakes=False).places[0]
        truth = scenario("layered").truth
        missing = np.linalg.norm(truth.parts["response"]) / np.linalg.norm(truth.value)
        assert place.outcome == "passed"  # it declares as much
        assert place.parts["response"] == pytest.approx(missing, rel=1e-9)
        assert place.draws_for_tenth is None

    def test_a_spread_by_hand(self):
        """One coin: a row of truth ± c has variance c² · 4 p (1 - p)."""
        on = scenario("bandit")
        share = on.solved(on.target).follower.policy[0, 0]

        def coin(trajectories, context):
            sign = np.where(trajectories.action_t[:, :1] == 0, 1.0 - share, -share)
            return on.truth.value + 3.0 * sign

        card = card_of(replace(find_subject(f"{HERE}:right"), make=lambda target: coin), on=[on], mistakes=False)
        spread = 3.0 * math.sqrt(share * (1.0 - share)) / abs(on.truth.value[0])
        assert card.places[0].standard_deviation == pytest.approx(spread, rel=1e-9)
        assert card.places[0].draws_for_tenth == pytest.approx((spread / 0.1) ** 2, rel=1e-9)

    def test_draws_for_an_error_solve_its_equation(self):
        for bias, variance in ((0.0, 2.0), (0.05, 3.0), (0.099, 1.0)):
            draws = draws_for(bias, variance, 1.0)
            assert math.hypot(bias, math.sqrt(variance / draws)) == pytest.approx(0.1)
        assert draws_for(0.2, 1.0, 1.0) is None
        assert draws_for(0.0, 1.0, 0.0) is None
        assert draws_for(0.0, 0.0, 1.0) == 1.0

    def test_declared_steps_and_oracle_steps(self):
        one, fresh = (
            make_card(name, on=some("layered"), mistakes=False).places[0] for name in ("bc_hg", "hpgd_oracle")
        )
        assert one.steps == {"environment_steps": 3.0, "oracle_steps": 0.0}
        assert fresh.steps["oracle_steps"] > 3.0
        assert one.cpu > 0.0

    def test_what_raises_is_a_row_with_its_check(self):
        card = make_card(f"{HERE}:raises", on=some("toll"), mistakes=False)
        assert (card.places[0].check, card.places[0].outcome) == ("contract", "failed")
        assert "boom" in card.places[0].reason

    def test_a_refusal_of_this_package_inside_an_estimator_is_its_failure(self):
        def wrong_width(trajectories, context):
            return context.problem.pullback(context.theta[:1], trajectories, {}, per_stream=True)

        subject = replace(find_subject(f"{HERE}:right"), make=lambda target: wrong_width)
        assert card_of(subject, on=some("layered"), mistakes=False).places[0].outcome == "failed"

    def test_what_is_too_large_is_not_judged_and_says_why(self):
        card = make_card("hpgd_mc", on=some("toll", "layered"), mistakes=False)
        assert [place.outcome for place in card.places] == ["measured", "not applicable"]
        assert "claims nothing: measured on 1 of 2" in card.headline
        assert "multisets" in card_markdown(card)

    def test_the_same_again_but_for_time(self):
        one, other = (make_card("hpgd_oracle", on=some("toll"), mistakes=False, seed=3) for _ in range(2))
        timeless = [replace(place, cpu=None) for place in (*one.places, *other.places)]
        assert timeless[0] == timeless[1]
        assert not compare_cards(one, other)


class TestKnownMistakes:
    def test_a_right_estimator_is_told_apart_from_all_that_have_an_effect(self):
        card = make_card("bc_hg", on=some("toll", "gamble", "layered"))
        assert not card.mistaken("same")
        assert len(card.mistaken("told apart")) > 90
        assert all(mistake.distance > 1.0 for mistake in card.mistaken("told apart"))

    @pytest.mark.parametrize("name", ["1/β missing", "∇r_L dropped", "suffix one step late"])
    def test_a_mistake_is_found_to_be_itself(self, name):
        subject = find_subject(f"{HERE}:right")
        card = card_of(replace(subject, make=lambda target: MUTANTS[name].make()), on=some("gamble", "layered"))
        assert any(name in mistake.name for mistake in card.mistaken("same"))
        assert card.failures

    def test_where_streams_are_cut_the_response_is_missed_too(self):
        card = make_card("naive_pgd", on=some("layered", "random"), kinds=["mdp"])
        assert "the response part is missing" in {mistake.name for mistake in card.mistaken("same")}


class TestWritings:
    @pytest.fixture(scope="class")
    @staticmethod
    def card():
        return make_card("naive_pgd", on=some("toll", "layered", "random"), mistakes=True)

    def test_json_is_read_back(self, card, tmp_path):
        assert read_card(save_card(card, tmp_path / "a.json")) == card

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda r: r.update(headline="keeps its claim on 9 of 9"), "headline"),
            (lambda r: r.update(passed=False), "passed"),
            (lambda r: r.update(version=99), "upgrade"),
            (lambda r: r.update(version=True), "version"),
            (lambda r: r.update(format="other"), "format"),
            (lambda r: r.update(seed="0"), "seed"),
            (lambda r: r.pop("claim"), "claim"),
            (lambda r: r["places"][0].update(bias="none"), r"places\[0\]: bias"),
            (lambda r: r["places"][0].update(outcome="splendid"), "splendid"),
            (lambda r: r["places"][1]["parts"].update(response=True), r"places\[1\]: parts"),
            (lambda r: r["places"].append(3), r"places\[3\]"),
            (lambda r: r["mistakes"][0].update(more=1), r"mistakes\[0\]"),
            (lambda r: r.update(places={}), "places"),
            (lambda r: r.update(kinds=[1]), "kinds"),
        ],
    )
    def test_what_is_no_card_is_refused_by_name(self, card, change, words):
        record = json.loads(card_json(card))
        change(record)
        with pytest.raises(InvalidInputError, match=words):
            parse_card(json.dumps(record))

    @pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"format": NaN}', "[" * 100_000])
    def test_other_texts_are_refused(self, text):
        with pytest.raises(InvalidInputError, match="card"):
            parse_card(text)

    def test_the_page_is_whole_and_fetches_nothing(self, card):
        page = card_page(card)
        opened = []

        class Balanced(HTMLParser):
            def handle_starttag(self, tag, attrs):
                assert not {"src", "href"} & {name for name, _ in attrs}
                if tag not in ("meta", "br"):
                    opened.append(tag)

            def handle_endtag(self, tag):
                assert opened.pop() == tag

        Balanced().feed(page)
        assert not opened
        assert page.count("<svg") == 1
        assert "40.3 %" in page  # of the response, on layered

    def test_names_do_not_become_markup(self, card):
        nasty = replace(card, estimator="<script>|`x`", summary="a | b <i>")
        assert "<script>" not in card_page(nasty)
        assert "<script>" not in card_markdown(nasty)
        rows = [line for line in card_markdown(nasty).splitlines() if "what it is" in line]
        assert rows == [r"| what it is | a \| b \<i\> |"]


class TestComparison:
    @pytest.fixture(scope="class")
    @staticmethod
    def card():
        return make_card("bc_hg", on=some("toll", "layered"), mistakes=False)

    def changed(self, card, **changes):
        return replace(card, places=(replace(card.places[0], **changes), *card.places[1:]))

    def test_a_claim_that_breaks(self, card):
        worse = self.changed(card, outcome="failed", reason="off by 1", bias=1.0)
        assert [change.broke for change in compare_cards(card, worse)] == [True, False]
        assert not any(change.broke for change in compare_cards(worse, card))
        lost = self.changed(card, outcome="not applicable", reason="too many")
        assert any(change.broke for change in compare_cards(card, lost))
        gone = replace(card, places=card.places[1:])
        assert any(change.broke for change in compare_cards(card, gone))
        assert not any(change.broke for change in compare_cards(gone, card))
        weaker = self.changed(card, claim="declared")
        assert any(change.broke for change in compare_cards(card, weaker))
        assert not any(change.broke for change in compare_cards(weaker, card))

    def test_numbers_to_rounding(self, card):
        spread = card.places[0].standard_deviation
        assert not compare_cards(card, self.changed(card, standard_deviation=spread * (1 + 1e-9)))
        assert compare_cards(card, self.changed(card, standard_deviation=spread * (1 + 1e-5)))[0].number
        assert not compare_cards(card, self.changed(card, bias=0.5 * card.places[0].would_see))
        assert compare_cards(card, self.changed(card, bias=1e-6))[0].number
        assert not compare_cards(card, self.changed(card, cpu=7.0))

    def test_other_estimators_are_not_compared(self, card):
        with pytest.raises(InvalidInputError, match="naive_pgd"):
            compare_cards(replace(card, source="naive_pgd"), card)


OWN = ["--problem", "bilevelrl.tasks:layered_mdp", "--quick"]


class TestCommand:
    def test_three_writings_and_the_exit_status(self, tmp_path, capsys):
        assert main(["card", f"{HERE}:right", *OWN, "--output", "out"]) == 0
        assert sorted(path.suffix for path in Path("out").iterdir()) == [".html", ".json", ".md"]
        assert "keeps its claim on 1 of 1" in capsys.readouterr().out
        assert main(["card", f"{HERE}:forgetful", *OWN]) == 1
        assert "the response part is missing" in capsys.readouterr().out
        assert main(["card", f"{HERE}:right", *OWN, "--json"]) == 0
        assert parse_card(capsys.readouterr().out).problem == "bilevelrl.tasks:layered_mdp"
        assert main(["card", f"{HERE}:forgetful", *OWN, "--claim", "measured"]) == 0

    def test_compare_says_what_changed(self, capsys):
        main(["card", f"{HERE}:right", *OWN, "--output", "out"])
        old = Path("out") / f"{HERE}.right.json"
        capsys.readouterr()
        assert main(["card", f"{HERE}:right", *OWN, "--compare", str(old)]) == 0
        assert "0 changes, 0 broken claims" in capsys.readouterr().out
        # The function is broken afterwards.
        broken = read_card(old)
        Path("old.json").write_text(card_json(replace(broken, source=f"{HERE}:forgetful")), encoding="utf-8")
        assert main(["card", f"{HERE}:forgetful", *OWN, "--compare", "old.json"]) == 1
        assert "✗ layered_mdp(3x2x2, seed=0): passed → failed" in capsys.readouterr().out

    def test_check_makes_a_strangers_card_again(self, capsys):
        main(["card", f"{HERE}:right", *OWN, "--output", "out"])
        path = Path("out") / f"{HERE}.right.json"
        assert main(["card", "--check", str(path)]) == 0
        card = read_card(path)
        praised = replace(card.places[0], standard_deviation=0.5 * card.places[0].standard_deviation)
        Path("praised.json").write_text(card_json(replace(card, places=(praised,))), encoding="utf-8")
        capsys.readouterr()
        assert main(["card", "--check", str(path), "praised.json"]) == 1
        assert "standard deviation" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["bc_hgg"], "did you mean 'bc_hg'"),
            (["no_such_module:f"], "no_such_module"),
            ([f"{HERE}:nothing"], "nothing"),
            ([f"{HERE}:number"], "function"),
            ([], "ESTIMATOR"),
            (["bc_hg", "--claim", "measured"], "claim"),
            (["bc_hg", "--compare", "none.json"], "none.json"),
            (["bc_hg", "hpgd_mc", "--compare", "none.json"], "one estimator"),
            (["--check", f"{HERE}.py"], "card"),
            (["--all"], "--output"),
            (["--all", "bc_hg", "--output", "o"], "ESTIMATOR"),
            (["--all", "--output", "o", "--quick"], "--quick"),
            (["bc_hg", "--horizon", "3"], "--horizon"),
            (["bc_hg", "--kind", "mdp", "--task", "four_rooms"], "--kind"),
            (["bc_hg", "--time-limit", "nan"], "--time-limit"),
            (["bc_hg", "--sarif", "/proc/none/s.sarif"], "--sarif"),
        ],
    )
    def test_bad_input_is_named_before_any_work(self, words, said, capsys):
        assert main(["card", *words]) == 2
        assert said in capsys.readouterr().err


class TestAll:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(measure, "scenarios", lambda kind: [e for e in scenarios(kind=kind) if e.name in FEW[:2]])

    def test_an_interrupted_run_goes_on_where_it_was(self, tmp_path):
        wanted = [find_subject(name) for name in ("bc_hg", "hpgd_mc", "naive_pgd")]

        def interrupt(done, total, label):
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            collect(wanted, tmp_path, progress=interrupt)
        left = sorted(tmp_path.glob("*.json"))
        assert [path.stem for path in left] == ["bc_hg", "hpgd_mc"]
        assert not list(tmp_path.glob(".*"))
        before = [path.stat().st_mtime_ns for path in left]
        told = []
        cards = collect(wanted, tmp_path, progress=lambda *said: told.append(said[2]))
        assert told == ["naive_pgd"]
        assert [path.stat().st_mtime_ns for path in left] == before
        assert [card.source for card in cards] == ["bc_hg", "hpgd_mc", "naive_pgd"]

    def test_a_card_that_rests_on_other_sources_is_made_again(self, tmp_path, monkeypatch):
        wanted = [find_subject("hpgd_mc")]
        collect(wanted, tmp_path)
        monkeypatch.setattr(subjects, "package_digest", lambda: "other")
        told = []
        collect(wanted, tmp_path, progress=lambda *said: told.append(said[2]))
        assert told == ["hpgd_mc"]
        (tmp_path / "hpgd_mc.json").write_text("{", encoding="utf-8")
        collect(wanted, tmp_path, progress=lambda *said: told.append(said[2]))
        assert len(told) == 2

    def test_the_table_is_made_again_from_its_numbers(self):
        rows = collection_rows([make_card(name, mistakes=False) for name in ("bc_hg", "naive_pgd", "hpgd_mc")])
        read = collection.read_collection(collection_csv(rows))
        assert collection_markdown(read) == collection_markdown(rows)
        assert "| naive\\_pgd | declared | 2 of 2 | 2 of 2 | 19.1 × (toll) | response |" in collection_markdown(rows)

    def test_estimators_of_other_packages_by_entry_point(self, monkeypatch, capsys):
        class Entry:
            def __init__(self, name, value):
                self.name, self.value = name, value

            def load(self):
                return subjects.named_object("estimator", self.value)

        offered = [Entry("mine", f"{HERE}:right"), Entry("broken", "no_such_module:f")]
        monkeypatch.setattr(subjects.metadata, "entry_points", lambda group: offered)
        assert make_card("mine", mistakes=False).passed
        names = [subject.source for subject in subjects.all_subjects()]
        assert names[-1] == "mine"
        assert "no_such_module" in capsys.readouterr().err
        with pytest.raises(UnknownNameError, match="mine"):
            find_subject("mina")


def test_an_estimator_with_its_own_target_is_held_against_it():
    target = scenario("random").target
    subject = replace(find_subject(f"{HERE}:right"), make=lambda _: BCHG(target=target))
    card = card_of(subject, on=some("random"), mistakes=False)
    assert card.passed
    assert card.places[0].cut is None
