"""The main job as a whole: what is registered is picked up, what is wrong fails it, and what it writes can be read."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, ESTIMATORS, Claim, Estimator
from bilevelrl.estimators.estimator import EstimatorEntry
from bilevelrl.reference import HYPERGRADIENT_ROUTES, ConfigurableMDP, hypergradient
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnsupportedError
from bilevelrl.reference.registry import Route
from bilevelrl.tasks.scenarios.main_job import paper_scenarios, small_scenarios
from bilevelrl.verification import Outcome, Report, verify
from bilevelrl.verification.checks.verdicts import Verdict
from bilevelrl.verification.pipeline.plain_text import TextTable, plain_report, summary_line
from bilevelrl.verification.pipeline.results import EstimatorRow
from bilevelrl.verification.pipeline.route_check import check_route
from bilevelrl.verification.pipeline.sampled import check_by_sampling
from bilevelrl.verification.pipeline.sampling import SamplingPlan
from bilevelrl.verification.processes.jobs import Job, run_jobs
from bilevelrl.verification.reports.html import html_report
from bilevelrl.verification.reports.overview import draw_report, save_figure

ROOMS, *OTHERS = paper_scenarios((0.003,))
COOLER = paper_scenarios((0.005,))[0]
PLAN = SamplingPlan(seed=0, step_budget=600_000, batches=30, batch_budget=30_000, checks=6)


class Forgetful(Estimator):
    """BC-HG without the response, which claims to be unbiased all the same."""

    name = "forgetful"
    claim = Claim.UNBIASED

    def __init__(self, target):
        self._right = BCHG(target=target, critic="exact" if target.horizon is None else "exact_truncated")
        self.target, self.draw = target, self._right.draw

    def contributions(self, trajectories, context):
        return [item for item in self._right.contributions(trajectories, context) if item.part != "response"]


class Broken(Forgetful):
    name = "broken"

    def contributions(self, trajectories, context):
        raise EstimatorError("broken: no estimate today")


class Refusing(Forgetful):
    name = "refusing"

    def contributions(self, trajectories, context):
        raise UnsupportedError("refusing: not for such problems")


def entry(name, make, level="formula"):
    return EstimatorEntry(name=name, summary="for a test", level=level, make=make)


@pytest.fixture
def registry():
    """Only these are registered while a test runs."""
    kept = {
        id(ESTIMATORS): {
            name: entry
            for name, entry in ESTIMATORS.items()
            if name in ("bc_hg", "naive_pgd") or ConfigurableMDP not in entry.kinds
        },
        id(HYPERGRADIENT_ROUTES): {name: HYPERGRADIENT_ROUTES[name] for name in ("implicit", "theorem1")},
    }
    before = [(table, dict(table)) for table in (ESTIMATORS, HYPERGRADIENT_ROUTES)]
    for table, _ in before:
        table.clear()
        table.update(kept[id(table)])
    yield ESTIMATORS
    for table, entries in before:
        table.clear()
        table.update(entries)


def run(**options):
    return verify(quick=True, scenarios=[ROOMS, *small_scenarios()[:2]], **options)


@pytest.mark.statistical
def test_everything_registered_is_checked_and_passes(registry):
    seen = []
    report = run(progress=lambda done, total, label: seen.append((done, total, label)))
    assert report.passed
    assert {(row.estimator, row.method) for row in report.estimators} == {
        (name, method) for name in ("bc_hg", "naive_pgd") for method in ("enumeration", "sampling")
    }
    assert [row.route for row in report.routes] == ["implicit", "theorem1"]
    assert seen[-1][0] == seen[-1][1] == len(report.estimators) + len(report.routes)
    for row in report.estimators:
        assert row.verdict.outcome in (Outcome.PASSED, Outcome.NO_POWER)
        assert row.standard_deviation > 0.0
        assert row.seconds > 0.0
    assert {row.verdict.outcome for row in report.estimators if row.method == "enumeration"} == {Outcome.PASSED}


@pytest.mark.statistical
def test_a_wrong_estimator_fails_the_job_by_both_methods(registry):
    registry["forgetful"] = entry("forgetful", Forgetful)
    report = run()
    assert not report.passed
    assert {(row.estimator, row.method) for row in report.failures} == {
        ("forgetful", "enumeration"),
        ("forgetful", "sampling"),
    }
    exact = next(row for row in report.failures if row.method == "enumeration")
    assert "rounding allows" in exact.verdict.reason
    text = str(report)
    assert "NOT VERIFIED" in text
    assert text.count("FAILED  forgetful") == len(report.failures)


@pytest.mark.exact
def test_broken_and_refusing_estimators_are_rows_too(registry):
    registry.clear()
    registry["broken"] = entry("broken", Broken)
    registry["refusing"] = entry("refusing", Refusing)
    report = run()
    outcomes = {(row.estimator, row.verdict.outcome) for row in report.estimators}
    assert outcomes == {("broken", Outcome.FAILED), ("refusing", Outcome.NOT_APPLICABLE)}
    assert "no estimate today" in str(report)
    assert re.search("[23] not applicable", summary_line(report))


@pytest.mark.exact
def test_a_job_without_any_pass_is_not_verified(registry):
    registry.clear()
    registry["refusing"] = entry("refusing", Refusing)
    silent = run().estimators
    assert silent
    assert not Report(estimators=silent).passed
    assert not Report(estimators=()).passed


@pytest.mark.exact
def test_a_wrong_route_fails_the_job(registry):
    right = HYPERGRADIENT_ROUTES["theorem1"]

    def perturbed(function):
        def route(at, **options):
            found = function(at, **options)
            return replace(found, value=found.value * (1 + 1e-5))

        return route

    HYPERGRADIENT_ROUTES["wrong"] = Route(
        name="wrong",
        summary="off by a hundred-thousandth",
        family="for a test",
        accuracy="none",
        kinds={kind: perturbed(function) for kind, function in right.kinds.items()},
    )
    assert check_route("theorem1", ROOMS).verdict.outcome is Outcome.PASSED
    row = check_route("wrong", ROOMS)
    assert row.verdict.outcome is Outcome.FAILED
    assert row.verdict.detectable < 1e-4


@pytest.mark.exact
@pytest.mark.parametrize("on", OTHERS, ids=lambda on: on.name)
def test_routes_of_every_kind_agree_within_bounds_that_say_something(on):
    kind = type(on.problem)
    slow = ("unrolled", "closed_form" if on.name == "lqr_game" else "")  # thousands of steps on a tape
    names = [name for name, entry in HYPERGRADIENT_ROUTES.items() if kind in entry.kinds and name not in slow]
    assert len(names) >= 3
    for name in names:
        row = check_route(name, on)
        assert row.verdict.outcome in (Outcome.PASSED, Outcome.NOT_APPLICABLE), name
        if row.verdict.outcome is Outcome.PASSED:
            assert row.error_bound <= 1e-6 * row.norm, name


@pytest.mark.statistical
def test_sampling_repeats_itself_and_depends_on_the_seed():
    one, two = (check_by_sampling("naive_pgd", COOLER, PLAN) for _ in range(2))
    at = paper_scenarios((0.005,), seed=1)[0]
    other = check_by_sampling("naive_pgd", at, SamplingPlan(seed=1, step_budget=600_000, checks=6))
    assert (one.bias_along, one.standard_deviation, one.draws) == (two.bias_along, two.standard_deviation, two.draws)
    assert one.bias_along != other.bias_along
    # θ is drawn from the seed too, so the truth differs a little.
    assert one.bias_along == pytest.approx(other.bias_along, abs=0.05)
    assert one.bias_low < one.bias_along < one.bias_high


@pytest.mark.statistical
def test_practical_estimators_are_measured_over_whole_batches():
    row = check_by_sampling("naive_pgd_practical", COOLER, PLAN)
    assert row.verdict.outcome is Outcome.MEASURED
    assert row.draws == 30
    assert row.steps_per_draw == 100
    assert "1 × 100" in row.draw
    assert math.isnan(row.deviation)


@pytest.mark.exact
def test_jobs_give_the_same_in_any_number_of_processes():
    jobs = [Job(function=divmod, arguments=(n, 7), label=str(n), effort=float(n % 3)) for n in range(9)]
    done = []
    assert run_jobs(jobs) == [divmod(n, 7) for n in range(9)]
    assert run_jobs(jobs, workers=2, progress=lambda *told: done.append(told)) == [divmod(n, 7) for n in range(9)]
    assert sorted(told[0] for told in done) == list(range(1, 10))


@pytest.mark.exact
def test_jobs_share_what_their_arguments_remember():
    memory = {}
    jobs = [Job(function=dict.setdefault, arguments=(memory, "first", n), label=str(n)) for n in range(9)]
    assert len(set(run_jobs(jobs, workers=2))) <= 2  # once in each process


@pytest.mark.exact
@pytest.mark.parametrize(("options", "message"), [({"workers": 0}, "workers=0"), ({"estimator": 3}, "estimator=3")])
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        verify(**options)


# What is written.


def row(**changes):
    values = {
        "problem": "layered",
        "temperature": 0.4,
        "estimator": "mine",
        "level": "formula",
        "claim": "unbiased",
        "draw": "trajectory",
        "target": "infinite horizon",
        "method": "enumeration",
        "draws": 64,
        "truth_norm": 2.0,
        "bias": 0.25,
        "bias_along": -0.2,
        "bias_low": -0.2,
        "bias_high": -0.2,
        "deviation": 0.25,
        "standard_deviation": 1.5,
        "seconds": 0.1,
        "parts": {"response": 0.25},
        "verdict": Verdict(outcome=Outcome.FAILED, detectable=1e-12, reason='off, "quoted", and more'),
    }
    return EstimatorRow(**{**values, **changes})


def a_report():
    passed = Verdict(outcome=Outcome.PASSED, detectable=0.05, reason="agrees")
    return Report(
        estimators=(
            row(),
            row(estimator="yours", bias=1e-16, deviation=1e-16, verdict=passed),
            row(
                problem="Four-Rooms",
                method="sampling",
                estimator="yours",
                temperature=0.003,
                bias_low=-0.3,
                bias_high=-0.1,
                cosine=0.5,
                cosine_low=0.4,
                cosine_high=0.6,
                steps_per_draw=31.0,
                verdict=passed,
            ),
        ),
        routes=(check_route("implicit", ROOMS),),
        configuration={"seed": 5},
        seconds=1.0,
    )


@pytest.mark.exact
def test_csv_and_json_hold_every_row(tmp_path):
    report = a_report()
    paths = report.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["verify.csv", "verify.json"]
    table = list(csv.DictReader(io.StringIO(paths[0].read_text(encoding="utf-8"))))
    assert [record["kind"] for record in table] == ["estimator"] * 3 + ["route"]
    assert table[0]["reason"] == 'off, "quoted", and more'
    assert float(table[0]["bias_response"]) == 0.25
    assert table[3]["bias"] == ""
    record = json.loads(paths[1].read_text(encoding="utf-8"))
    assert record["passed"] is False
    assert record["configuration"]["seed"] == 5
    assert {"numpy", "python", "bilevelrl"} <= set(record["versions"])
    assert record["estimators"][0]["cosine"] is None
    assert record["routes"][0]["verdict"] == "passed"


@pytest.mark.exact
def test_the_text_names_every_row_and_the_end():
    report = a_report()
    text = str(report)
    assert text == plain_report(report)
    for word in (
        "mine",
        "yours",
        "implicit",
        "25.0 %",
        "1e-16",
        "+0.50 ± 0.10",
        "FAILED  mine on layered",
        "NOT VERIFIED",
    ):
        assert word in text
    assert all(line == line.rstrip() for line in text.splitlines())


def unvarying(trajectories, context):
    """The truth, whatever was seen."""
    return np.tile(hypergradient(context.problem, context.theta).value, (trajectories.streams, 1))


@pytest.mark.exact
def test_rows_that_do_not_depend_on_the_trajectories_are_remarked_upon_in_every_form():
    report = verify(unvarying, scenarios=["toll", "layered", "cut"])
    assert report.passed
    assert all(0.0 <= row.standard_deviation <= 1e-12 for row in report.estimators)  # no NaN without variance
    (remark,) = report.remarks
    assert remark.startswith("unvarying: its rows do not depend on the trajectories on 3 of 3 problems")
    assert remark in str(report)
    assert json.loads(report.to_json())["remarks"] == [remark]
    assert "its rows do not depend on the trajectories" in html_report(report)
    assert verify(BCHG(), scenarios=["toll", "layered"]).remarks == ()


@pytest.mark.exact
def test_what_was_not_judged_stands_before_the_tables_with_reasons():
    blind = Verdict(outcome=Outcome.NO_POWER, detectable=0.4, reason="agrees; would have seen 0.4")
    text = str(Report(estimators=(row(verdict=blind), row(estimator="yours", verdict=blind)), seconds=1.0))
    assert text.startswith("NOT VERIFIED: right on 0 of 2; only 0 could be judged (2 no power)")
    before = text.partition("Exact moments")[0]
    assert "no power 2  mine, yours on layered (β = 0.4): biases from 40.0 % of the truth on could be seen" in before
    several = verify(BCHG(), scenarios=["several episodes", "toll", "layered"])
    assert several.headline == "VERIFIED on 2 of 3 (2 passed, 1 not applicable)"
    assert "several episodes in one stream" in str(several).partition("Exact moments")[0]


@pytest.mark.exact
def test_a_table_is_aligned():
    table = TextTable(title="t", columns=("name", "number"), rows=(("a", "1"), ("bb", "22")), text_columns=1)
    assert table.plain().splitlines()[1:] == ["name  number", "────  ──────", "a     1", "bb    22"]


@pytest.mark.exact
def test_the_figure_shows_every_estimator_with_its_interval(tmp_path):
    figure = draw_report(a_report())
    exact, biased, spread = figure.axes
    labels = [label.get_text() for label in exact.get_yticklabels()]
    assert labels == ["mine  (FAILED)", "yours  (unbiased)"]
    assert exact.get_xscale() == spread.get_xscale() == "log"
    assert biased.get_xscale() == "symlog"
    drawn = {tuple(np.round(line.get_xdata(), 3)) for line in exact.get_lines()}
    assert any(0.25 in xs for xs in drawn)
    path = save_figure(a_report(), tmp_path / "deep" / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.exact
def test_an_empty_report_can_be_drawn_and_printed():
    assert "nothing was checked" in plain_report(Report(estimators=(), seconds=0.0))
    assert draw_report(Report(estimators=())).axes
