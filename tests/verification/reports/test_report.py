"""Studies, the HTML report and the runs with fresh seeds: what they say is what was found."""

import json
import math
import re
from dataclasses import fields, replace
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Claim, NaivePGD
from bilevelrl.estimators.registry import estimators_for
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.reference.storage import software_versions
from bilevelrl.tasks import scenario
from bilevelrl.verification import verify
from bilevelrl.verification.checks.deterministic import enumerate_scenario
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.commands.fresh_seeds import fresh_run, fresh_seeds
from bilevelrl.verification.commands.report import registered_report, write_report
from bilevelrl.verification.mutants.catalogue import MUTANTS
from bilevelrl.verification.mutants.composed import COMPOSED, composed_scenarios
from bilevelrl.verification.pipeline import study_tables
from bilevelrl.verification.pipeline.results import RouteRow
from bilevelrl.verification.pipeline.studies import run_study, study_estimator
from bilevelrl.verification.pipeline.study_tables import read_study, study_csv
from bilevelrl.verification.reports.html import html_report
from bilevelrl.verification.reports.html_tags import Html, tag
from bilevelrl.verification.testing import assertions
from bilevelrl.verification.testing.assertions import assert_matches_truth, assert_unbiased, default_scenarios
from bilevelrl.verification.testing.failures import CheckFailedError

AT = [scenario("toll"), scenario("layered")]


class Page(HTMLParser):
    """Counts tags, and whether what is opened is closed in order."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.counts, self.addresses = [], {}, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def study():
    names = ("bc_hg", "naive_pgd", "hpgd_mc")
    return run_study(on=AT, estimators=names, samples=(1, 16), replicates=12)


class TestStudies:
    def test_exact_columns_are_those_of_enumeration(self):
        at = scenario("layered")
        found = enumerate_scenario(NaivePGD(), at)
        norm = np.linalg.norm(at.truth.value)
        for row in study_estimator("naive_pgd", "layered", samples=(1, 9), replicates=5):
            assert row.bias == pytest.approx(np.linalg.norm(found.bias) / norm, rel=1e-12)
            spread = math.sqrt(np.trace(found.covariance) / row.samples) / norm
            assert row.standard_deviation == pytest.approx(spread, rel=1e-12)
            assert row.root_mean_square == pytest.approx(math.hypot(row.bias, spread), rel=1e-12)

    @pytest.mark.statistical
    def test_sampled_columns_tend_to_the_exact_ones(self, monkeypatch):
        """The same estimator with enumeration taken away: replicates tell nearly the same."""
        exact = study_estimator("naive_pgd", "layered", samples=(64,), replicates=5)[0]
        monkeypatch.setattr("bilevelrl.verification.pipeline.studies._exact_moments", lambda estimator, on: None)
        sampled = study_estimator("naive_pgd", "layered", samples=(64,), replicates=400)[0]
        assert sampled.moments == "sampled"
        # 400 replicates: standard errors of 1/√800 of the spread, and of spread/20 of the bias; six of them.
        assert abs(sampled.standard_deviation / exact.standard_deviation - 1.0) < 6 / math.sqrt(800)
        assert abs(sampled.bias - exact.bias) < 6 * exact.standard_deviation / 20

    def test_cost_and_accuracy_grow_with_samples(self, study):
        for at in AT:
            small, large = (row for row in study.rows if row.scenario == at.name and row.estimator == "bc_hg")
            assert large.steps == pytest.approx(16 * small.steps)
            assert large.cosine > small.cosine or at.theta.size == 1

    def test_a_seed_is_a_study(self):
        first, again = (study_estimator("bc_hg", "toll", samples=(2,), replicates=5) for _ in range(2))
        assert first == again
        assert study_estimator("bc_hg", "toll", samples=(2,), replicates=5, seed=1) != first

    def test_no_rows_where_nothing_can_be_said(self):
        """Every registered estimator answers everywhere, also where no benefit differs from zero."""
        for name in estimators_for(ConfigurableMDP):
            for row in study_estimator(name, "survival", samples=(1, 2), replicates=3):
                assert math.isfinite(row.root_mean_square)

    def test_csv_and_back(self, study, tmp_path):
        path = tmp_path / "study.csv"
        path.write_text(study_csv(study), encoding="utf-8")
        found = read_study(path)
        assert replace(found, rows=()) == replace(study, rows=())
        for row, again in zip(study.rows, found.rows, strict=True):
            assert (again.scenario, again.estimator, again.samples) == (row.scenario, row.estimator, row.samples)
            assert again.cosine == pytest.approx(row.cosine, rel=1e-5, abs=1e-12)
        assert study_csv(found) == study_csv(study)
        table = np.genfromtxt(path, delimiter=",", skip_header=1, names=True, dtype=None, encoding="utf-8")
        assert table["samples"].tolist() == [row.samples for row in study.rows]  # any reader of tables reads it

    def test_a_study_knows_what_it_was_made_from(self, study):
        assert study.scenarios == ("toll", "layered")
        assert (study.seed, study.samples, study.replicates) == (0, (1, 16), 12)
        assert study.versions == software_versions()

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda text: text[: len(text) // 2], r"sha256.*cut or changed"),
            (lambda text: text.rpartition("toll")[0], r"sha256.*cut or changed"),
            (lambda text: "".join(text.splitlines(True)[:-1]), r"sha256.*cut or changed"),
            (lambda text: text.replace('"seed": 0', '"seed": 5'), r"sha256.*cut or changed"),
            (lambda text: text.replace("bc_hg,", "hpgd_oracle,"), r"sha256.*cut or changed"),
            (lambda text: text.partition("\n")[2], "does not say what it was made from"),
            (lambda text: "", "does not say what it was made from"),
            (lambda text: "# seed 0\n" + text.partition("\n")[2], "is not JSON"),
            (lambda text: text.replace("bilevelrl-study", "other"), "format"),
            (lambda text: text.replace('"version": 1', '"version": 2'), "upgrade"),
        ],
    )
    def test_cut_changed_and_foreign_studies_are_refused(self, study, change, match, tmp_path, capsys):
        path = tmp_path / "study.csv"
        path.write_text(change(study_csv(study)), encoding="utf-8")
        with pytest.raises(InvalidInputError, match=match):
            read_study(path)
        assert main(["report", "--study", str(path), "--output", str(tmp_path / "report.html")]) == 2
        assert "study.csv" in capsys.readouterr().err
        assert not (tmp_path / "report.html").exists()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"scenario": "elsewhere"},
            {"estimator": "mine"},
            {"samples": 7},
            {"moments": "guessed"},
            {"bias": math.nan},
            {"steps": -1.0},
            {"cosine": 1.5},
            {"cosine_high": math.nan},
        ],
    )
    def test_made_up_rows_are_refused(self, study, wrong, tmp_path):
        """Also where the sum is right: a row must be one that the study can have made."""
        made_up = replace(study, rows=(study.rows[0], replace(study.rows[1], **wrong), *study.rows[2:]))
        path = tmp_path / "study.csv"
        path.write_text(study_csv(made_up), encoding="utf-8")
        with pytest.raises(InvalidInputError, match="line 4 cannot be true"):
            read_study(path)

    def test_other_columns_are_refused(self, study, tmp_path):
        path = tmp_path / "study.csv"
        for columns in ("bias,spread", "bias"):
            header, _, body = study_csv(study).partition("\n")
            body = body.replace("bias,standard_deviation", columns)
            record = json.loads(header[1:])
            del record["sha256"]
            path.write_text(f"# {json.dumps({**record, 'sha256': study_tables._digest(record, body)})}\n{body}")
            with pytest.raises(InvalidInputError, match="is no study"):
                read_study(path)


class TestPage:
    def test_well_formed_and_self_contained(self, study, tmp_path):
        report = registered_report(AT)
        text = write_report(tmp_path / "report.html", report, study=study).read_text(encoding="utf-8")
        page = Page(text)
        assert page.counts["svg"] == 3
        assert page.addresses == []
        assert "script" not in page.counts
        assert not re.search(r"url\((?!#)", text)
        assert text.index("Verdicts") < text.index("<svg") < text.index("Versions, seeds")

    def test_a_failure_comes_first_with_its_cause(self):
        report = verify(NaivePGD(), scenarios=AT, claim=Claim.UNBIASED)
        text = html_report(report)
        Page(text)
        assert "<b>NOT VERIFIED: right on 0 of 2 " in text
        assert text.index("the response part is missing") < text.index("<h2>")

    def test_every_verdict_has_its_cell(self):
        report = registered_report(AT)
        text = html_report(report)
        cells = re.findall(r'<td class="(\w+)" title=', text)
        assert len(cells) == len(report.estimators)
        assert cells.count("passed") == report.count(Outcome.PASSED)

    def test_foreign_names_are_escaped(self):
        report = verify(BCHG(name="<script>alert(1)</script>"), scenarios=AT)
        assert "<script>" not in html_report(report)

    def test_nothing_checked_is_not_verified(self):
        report = replace(verify(BCHG(), scenarios=AT), estimators=())
        assert "NOT VERIFIED" in html_report(report)

    def test_every_field_is_escaped(self, study, monkeypatch):
        """Whatever is text in a report or a study enters the page as text."""
        name = "<b>&\"'"
        report = verify(NaivePGD(), scenarios=AT, claim=Claim.UNBIASED)

        def foreign(row):
            texts = {entry.name: name for entry in fields(row) if isinstance(getattr(row, entry.name), str)}
            parts = {"parts": {name: 1.0}} if hasattr(row, "parts") else {}
            verdict = {"verdict": replace(row.verdict, reason=name)} if hasattr(row, "verdict") else {}
            return replace(row, **texts, **parts, **verdict)

        route = RouteRow(
            problem=name,
            route=name,
            family=name,
            temperature=1.0,
            norm=1.0,
            difference=0.0,
            error_bound=0.0,
            seconds=0.0,
            verdict=report.estimators[0].verdict,
        )
        rows = (*map(foreign, report.estimators), *report.estimators)
        wrong = replace(
            report,
            estimators=rows,
            routes=(route,),
            configuration={name: [name], "plain": name},
            explanation=replace(report.explanation, cause=name),
        )
        made_up = replace(study, rows=tuple(map(foreign, study.rows)), scenarios=(name,), versions={name: name})
        text = html_report(wrong, study=made_up, figures=[("<svg></svg>", name)], title=name)
        Page(text)
        assert name not in text
        assert "<b>&" not in text
        assert text.count("&lt;b&gt;&amp;&quot;&#x27;") > 20

    def test_tags(self):
        assert tag("p", "<", [Html("<i>"), None, 3]) == "<p>&lt;<i>3</p>"
        assert tag("meta", name='"') == '<meta name="&quot;">'

    def test_command(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("bilevelrl.verification.commands.report.FEATURED_SCENARIOS", ("toll",))
        csv, page = tmp_path / "study.csv", tmp_path / "report.html"
        words = ["report", "--quick", "--study", str(csv), "--output", str(page)]
        assert main([*words, "--seed", "3"]) == 0
        assert page.stat().st_size > 10_000
        assert "wrote" in capsys.readouterr().err
        assert read_study(csv).seed == 3
        page.unlink()
        # The file says what it was made from; nothing else can be said of it.
        assert main(words) == 0
        assert "<td>seed of the study</td><td>3</td>" in page.read_text(encoding="utf-8")
        page.unlink()
        assert main([*words, "--seed", "5"]) == 2
        assert "--seed=5: expected 3, as the study was made" in capsys.readouterr().err
        monkeypatch.setattr("bilevelrl.verification.commands.report.FEATURED_SCENARIOS", ("layered",))
        assert main(words) == 2
        assert "--quick='1 scenarios" in capsys.readouterr().err
        assert not page.exists()


class TestExpectedFailures:
    def test_expected_failures_are_not_failures(self):
        report = verify(
            NaivePGD(), scenarios=AT, claim=Claim.UNBIASED, expected_failures={"bias": "no response", "parts": "same"}
        )
        assert report.passed
        assert report.explanation is None
        assert report.count(Outcome.EXPECTED) == 2

    def test_one_that_does_not_happen_is(self):
        report = verify(BCHG(), scenarios=AT, expected_failures={"bias": "wrongly expected"})
        assert not report.passed
        assert "does not; remove it" in report.failures[0].verdict.reason


UNSEEN = {
    # Visible on paths that go on, or only as a broken contract or a mixed-up label: no bias on scenarios that end.
    "∇log μ at every visit",
    "truncation as termination",
    "infinite critic for a finite task",
    "divided by finished episodes",
    "parts exchanged",
    "parts of the truth exchanged",
    "remembers its last follower",
    "shared numbers called independent",  # its mean is right
}


@pytest.mark.parametrize("name", sorted(set(MUTANTS) - UNSEEN))
def test_planted_mistakes_are_named(name, monkeypatch):
    """A stranger's wrong estimator is told which mistake it makes: by that mistake's own name, or a plain one's."""
    unhurried = partial(assertions.explain_results, seconds=600.0)  # what is named, not how soon
    monkeypatch.setattr(assertions, "explain_results", unhurried)
    mutant = MUTANTS[name]
    check = assert_unbiased if mutant.kind == "estimator" else assert_matches_truth
    at = None if mutant.problem is None else default_scenarios(mutant.problem)
    if mutant.problem in COMPOSED.values():
        at = composed_scenarios(mutant.problem, sampled=mutant.kind == "estimator")
    with pytest.raises(CheckFailedError) as failed:
        check(mutant.make(), at)
    explanation = failed.value.explanation
    if any(result.check == "contract" and result.failed for result in failed.value.results):
        assert explanation is None  # the contract's own words say what is wrong
        return
    assert explanation.exact
    named = [explanation.cause, *explanation.alternatives]
    plain = not any("as mutant" in cause for cause in named)
    assert plain or any(f"as mutant {name!r}" in cause for cause in named)


class TestFreshSeeds:
    def test_nothing_correct_is_refused(self):
        tallies = fresh_seeds(4, seed=12)
        assert sum(tally.sampled_failed + tally.enumerated_failed for tally in tallies) == 0
        assert {tally.estimator for tally in tallies} >= {"bc_hg", "hpgd_oracle", "naive_pgd", "sobirl"}

    def test_a_wrong_estimator_would_be_counted(self, monkeypatch):
        """Estimators that claim the truth without the response fail in these very runs."""
        from bilevelrl.verification.commands import fresh_seeds as module

        right = module._expected

        def wrong(estimator, truth, context):
            found = right(estimator, truth, context)
            return None if found is None else found + 3.0 * np.linalg.norm(truth.value)

        monkeypatch.setattr(module, "_expected", wrong)
        tallies = fresh_seeds(2, seed=12)
        assert sum(tally.sampled_failed for tally in tallies) > 5

    def test_runs_are_functions_of_their_seed(self):
        assert fresh_run(1, 0) == fresh_run(1, 0)

    def test_command(self, tmp_path, capsys):
        path = tmp_path / "fresh.json"
        assert main(["fresh-seeds", "--runs", "1", "--seed", "3", "--output", str(path)]) == 0
        record = json.loads(path.read_text())
        assert record["correct_failed"] == 0
        assert record["seed"] == "3"
        assert "failed something correct" in capsys.readouterr().out
