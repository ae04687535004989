"""The reference data: thirty digits everywhere, again from another formula, and what the command makes of it."""

import importlib.util
import json
import math
from fractions import Fraction
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.reference import hypergradient
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError
from bilevelrl.tasks.generators.closed_form_json import problem_from_json, problem_to_json, read_number
from bilevelrl.tasks.scenarios.reference_data import (
    StoredNumber,
    agreeing_digits,
    parse_reference_problem,
    reference_names,
    reference_problem,
    reference_problems,
)
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.commands.certify import certify_results, hold
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.commands.digits import digits_csv, digits_table, measure_digits

pytestmark = pytest.mark.exact

FOLDER = resources.files("bilevelrl.tasks") / "data"
DIGITS = 30


def record(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def stored_numbers(stored):
    yield "objective", [stored.objective]
    yield "gradient", stored.gradient
    yield from stored.parts.items()


def test_there_are_problems_of_every_kind_and_difficulty():
    found = reference_problems()
    assert len(found) >= 50
    kinds = {"configurable_mdp", "markov_game", "configurable_lqr", "lqr_game"}
    assert {stored.closed_form.kind for stored in found} == kinds
    assert {stored.level for stored in found} == {"easy", "moderate", "hard", "cruel"}
    assert min(stored.closed_form.temperature for stored in found) <= Fraction(1, 10**4)
    assert max(stored.closed_form.temperature for stored in found) >= 100
    assert max(stored.closed_form.discount_follower for stored in found) == Fraction(9999, 10000)
    assert sum(entry.stat().st_size for entry in Path(str(FOLDER)).iterdir()) < 2_000_000
    assert {stored.name for stored in reference_problems(level="cruel")} < set(reference_names())


@pytest.mark.parametrize("name", reference_names())
def test_all_numbers_have_thirty_digits_and_parts_sum_up(name):
    stored = reference_problem(name)
    unit = Fraction(1, 10**DIGITS)
    entries = [entry for _, column in stored_numbers(stored) for entry in column]
    largest = max(abs(entry.value) for entry in entries)
    for entry in entries:
        assert entry.radius <= unit * max(abs(entry.value), unit * largest)
    assert largest > 0
    for j, total in enumerate(stored.gradient):
        parts = [column[j] for column in stored.parts.values()]
        off = abs(sum(part.value for part in parts) - total.value)
        assert off <= total.radius + sum(part.radius for part in parts)


@pytest.mark.parametrize("name", reference_names())
def test_files_round_trip_and_keep_to_the_schema(name):
    raw, schema = record(name), json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    problem = problem_from_json(raw["problem"], name=name, kind=raw["kind"])
    assert problem_to_json(problem) == raw["problem"]
    assert raw["name"] == name
    assert set(raw) == set(schema["properties"]) == set(schema["required"])
    assert set(raw["problem"]) <= set(schema["properties"]["problem"]["properties"])
    allowed = set(schema["$defs"]["table"]["properties"])
    for table in raw["problem"]["tables"].values():
        assert set(table) <= allowed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(discounted="false"), r"problem\.discounted='false'"),
        (lambda raw: raw.update(follower_sees_leader_action=0), r"follower_sees_leader_action=0"),
        (lambda raw: raw.update(horizont=3), r"horizont.*horizon"),
        (lambda raw: raw["tables"]["initial"].update(sclae=2), r"sclae.*scale"),
        (lambda raw: raw["tables"]["initial"].update(base={"index": [0, 0], "value": [1, 2]}), r"base\.index=\[0, 0\]"),
        (lambda raw: raw["tables"]["initial"]["base"].update(values=[1]), r"values.*value"),
    ],
)
def test_what_a_file_says_twice_or_in_other_words_is_refused(change, said):
    raw = record("mdp_one_state")
    problem_from_json(raw["problem"], name="as it is", kind=raw["kind"])
    change(raw["problem"])
    with pytest.raises(InvalidInputError, match=said):
        problem_from_json(raw["problem"], name="changed", kind=raw["kind"])


@pytest.mark.parametrize("name", ["mdp_one_state", "mdp_layered", "mdp_discount_0.9999", "toy_game_2_unseen"])
def test_the_data_is_what_the_generator_certifies(name):
    pytest.importorskip("flint")
    from bilevelrl.benchmarks.reference_problems.reference_cases import reference_cases
    from bilevelrl.reference.certified import Enclosure, certified_hypergradient

    (case,) = [case for case in reference_cases() if case.problem.name == name]
    stored = reference_problem(name)
    assert problem_to_json(case.problem) == problem_to_json(stored.closed_form)
    fresh = certified_hypergradient(case.problem, digits=45)
    for part, column in stored.parts.items():
        for ours, theirs in zip(fresh.parts[part], column, strict=True):
            outer = Enclosure.parse(*map(decimal, (theirs.value, theirs.radius)))
            assert outer.ball.contains(ours.ball)


def decimal(number):
    """An exact decimal string of a rational whose denominator is a power of ten."""
    power = 0
    while number.denominator != 1:
        number, power = number * 10, power - 1
    return f"{number.numerator}e{power}"


# --- mpmath, another formula, from the files alone ------------------------------------------------------------


@pytest.fixture(scope="module")
def recomputed():
    pytest.importorskip("mpmath")
    path = Path(__file__).resolve().parents[3] / "docs" / "examples" / "recompute_with_mpmath.py"
    specification = importlib.util.spec_from_file_location("recompute_with_mpmath", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    ["mdp_one_state", "mdp_fork_0.0001_0.99_1", "toy_game_2_unseen", "lqr_random_1", "lqr_game_infinite_half_way"],
)
def test_mpmath_agrees(recomputed, name):
    assert recomputed.worst_disagreement(record(name)) < 1e-40


@pytest.mark.parametrize("place", ["objective", "gradient", "response"])
def test_mpmath_finds_one_part_in_1e25(recomputed, place):
    planted = record("mdp_one_state")
    answer = planted["answer"] if place != "response" else planted["answer"]["parts"]
    entry = answer[place]
    values = [entry["value"]] if place == "objective" else entry["value"]
    largest = max(range(len(values)), key=lambda j: abs(Fraction(values[j])))
    values[largest] = decimal(Fraction(values[largest]) * (1 + Fraction(1, 10**25)))
    entry["value"] = values[0] if place == "objective" else values
    assert recomputed.worst_disagreement(planted) == pytest.approx(1e-25, rel=1e-3)


# --- comparing ----------------------------------------------------------------------------------------------------


def doubles(stored):
    return {
        "objective": float(stored.objective),
        "gradient": [float(entry) for entry in stored.gradient],
        "parts": {part: [float(entry) for entry in column] for part, column in stored.parts.items()},
    }


def results(**entries):
    return json.dumps({"format": "bilevelrl-results", "version": 1, "results": entries})


def test_doubles_agree_to_their_last_digit():
    found = hold(reference_problem("mdp_temperature_1"), doubles(reference_problem("mdp_temperature_1")))
    assert found.outcome is Outcome.PASSED
    assert min(found.digits.values()) > 15
    assert set(found.digits) == {"objective", "gradient", "initial", "direct", "transition", "response", "regulariser"}


@pytest.mark.parametrize(("error", "digits"), [(1e-2, 2.0), (1e-5, 5.0), (1e-8, 8.0)])
def test_digits_count_the_planted_error(error, digits):
    stored = reference_problem("mdp_temperature_1")
    given = doubles(stored)
    largest = max(range(4), key=lambda j: abs(given["gradient"][j]))
    given["gradient"][largest] *= 1 + error
    found = hold(stored, given)
    assert found.digits["gradient"] == pytest.approx(digits, abs=0.01)
    assert found.outcome is (Outcome.PASSED if digits >= 6 else Outcome.FAILED)
    if found.outcome is Outcome.FAILED:
        assert found.worst[0] == "gradient"


def test_decimal_strings_show_one_part_in_1e25():
    stored = reference_problem("mdp_temperature_1")
    exact = [str(entry.value) for entry in stored.gradient]
    assert hold(stored, {"gradient": exact}, digits=29).outcome is Outcome.PASSED
    largest = max(range(4), key=lambda j: abs(stored.gradient[j].value))
    exact[largest] = str(stored.gradient[largest].value * (1 + Fraction(1, 10**25)))
    found = hold(stored, {"gradient": exact}, digits=29)
    assert found.outcome is Outcome.FAILED
    assert found.digits["gradient"] == pytest.approx(25.0, abs=0.01)


def test_no_power_where_doubles_cannot_tell():
    stored = reference_problem("mdp_fork_0.001_0.9999_1000000")
    assert hold(stored, doubles(stored)).outcome is Outcome.NO_POWER
    assert (
        hold(stored, {"gradient": [str(entry.value) for entry in stored.gradient]}, digits=20).outcome is Outcome.PASSED
    )


def test_agreement_where_the_truth_is_zero():
    zero, one = StoredNumber(Fraction(0), Fraction(0)), Fraction(1)
    assert math.isinf(agreeing_digits([0.0], [zero]))
    assert agreeing_digits([1e-3], [zero]) == 0.0
    assert agreeing_digits([1e-3], [zero], one) == pytest.approx(3.0)
    with pytest.raises(ShapeError, match="given"):
        agreeing_digits([0.0, 1.0], [zero])


def test_the_command_passes_and_fails(tmp_path, capsys):
    path = tmp_path / "results.json"
    names = ("mdp_one_state", "toy_game_1_even", "building_start", "lqr_game_start")
    given = {name: doubles(reference_problem(name)) for name in names}
    path.write_text(results(**given))
    assert main(["certify", str(path)]) == 0
    assert "4 passed, 0 failed" in capsys.readouterr().out
    given["building_start"]["parts"]["response"][3] += 0.05
    path.write_text(results(**given))
    assert main(["certify", str(path)]) == 1
    out = capsys.readouterr().out
    assert "3 passed, 1 failed" in out
    assert "response" in out
    assert main(["certify", str(path), "--digits", "40"]) == 1
    assert main(["certify", str(path), "--json"]) == 1
    capsys.readouterr()
    assert main(["certify", "--data"]) == 0
    assert Path(capsys.readouterr().out.strip()).joinpath("schema.json").exists()


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("{", InvalidInputError, "is not JSON"),
        ("[1]", InvalidInputError, "format"),
        ('{"format": "other"}', InvalidInputError, "format"),
        ('{"format": "bilevelrl-results", "version": 2, "results": {}}', InvalidInputError, "upgrade"),
        ('{"format": "bilevelrl-results", "version": "1", "results": {}}', InvalidInputError, "version"),
        (results(), InvalidInputError, "results"),
        (results(mdp_one_stat={"objective": 1}), UnknownNameError, "mdp_one_state"),
        (results(mdp_one_state={"grad": [1]}), UnknownNameError, "gradient"),
        (results(mdp_one_state={"parts": {"respons": [1, 2]}}), UnknownNameError, "response"),
        (results(mdp_one_state={"gradient": [1.0]}), ShapeError, "length"),
        (results(mdp_one_state={"gradient": [1.0, None]}), InvalidInputError, r"gradient\[1\]"),
        (results(mdp_one_state={"objective": float("nan")}), InvalidInputError, "objective"),
        (results(mdp_one_state={"objective": "one"}), InvalidInputError, "objective"),
        (results(mdp_one_state={"gradient": 1.0}), InvalidInputError, "list"),
        (results(mdp_one_state={}), InvalidInputError, "at least one"),
        (results(mdp_one_state=[1.0]), InvalidInputError, "object"),
        (results(mdp_one_state={"objective": "1e1000000000"}), InvalidInputError, "powers of ten"),
        (results(mdp_one_state={"objective": "1e-1000000000"}), InvalidInputError, "powers of ten"),
        (results(mdp_one_state={"objective": "1e" + 5000 * "9"}), InvalidInputError, "powers of ten"),
        (results(mdp_one_state={"objective": 5000 * "9"}), InvalidInputError, "4000 digits"),
        (results(mdp_one_state={"objective": "1_000"}), InvalidInputError, "objective"),
        (results(mdp_one_state={"objective": "1/0"}), InvalidInputError, "objective"),
        (results(mdp_one_state={"objective": 1}).replace("1}", "1e999}"), InvalidInputError, "objective=inf"),
        (results(mdp_one_state={"objective": 1}).replace("1}", 5000 * "9" + "}"), InvalidInputError, "is not JSON"),
        (results(mdp_one_state={"objective": 1}).replace("1}", '1, "objective": 2}'), InvalidInputError, "twice"),
        (results(mdp_one_state={"objective": 1}).replace("1}", 10**5 * "[" + "}"), InvalidInputError, "few levels"),
        (results(mdp_one_state=json.loads(300 * "[" + 300 * "]")), InvalidInputError, "object"),
    ],
)
def test_bad_results_are_refused_by_name(text, error, match, tmp_path, capsys):
    with pytest.raises(error, match=match):
        certify_results(text)
    path = tmp_path / "results.json"
    path.write_text(text)
    assert main(["certify", str(path)]) == 2
    assert "bilevelrl:" in capsys.readouterr().err


def test_numbers_are_exact_up_to_thousands_of_digits():
    digits = "1." + 3000 * "3"
    assert read_number(digits) == Fraction(int("1" + 3000 * "3"), 10**3000)
    assert read_number("-2.5e-4000") == Fraction(-25, 10**4001)
    assert [read_number(text) for text in (".5", "2.", "+1/4", " 3 ", "1E2")] == [
        Fraction(1, 2),
        2,
        Fraction(1, 4),
        3,
        100,
    ]
    for text in ("", ".", "e5", "1/", "/2", "1/2e3", "1.5/2", "0x10", "nan", "٣", "1e", "1e+"):
        with pytest.raises(InvalidInputError, match="number="):
            read_number(text)


def test_the_command_reads_a_byte_order_mark(tmp_path, capsys):
    stored = reference_problem("mdp_one_state")
    path = tmp_path / "results.json"
    path.write_text(results(mdp_one_state=doubles(stored)), encoding="utf-8-sig")
    assert main(["certify", str(path)]) == 0
    path.write_text(results(mdp_one_state=doubles(stored)), encoding="utf-16")
    assert main(["certify", str(path)]) == 2
    assert "UTF-8" in capsys.readouterr().err


def test_the_command_refuses_files_it_cannot_read(tmp_path, capsys):
    assert main(["certify"]) == 2
    assert main(["certify", str(tmp_path / "none.json")]) == 2
    assert main(["certify", str(tmp_path / "none.json"), "--digits", "-1"]) == 2
    assert "digits" in capsys.readouterr().err


def test_bad_data_files_are_refused():
    raw = record("mdp_one_state")
    for change, match in (
        ({"version": 2}, "upgrade"),
        ({"format": "x"}, "format"),
        ({"kind": "bandit"}, "kind"),
        ({"answer": {**raw["answer"], "gradient": {"value": ["1"], "radius": ["0"]}}}, "gradient"),
        ({"answer": {**raw["answer"], "objective": {"value": "x", "radius": "0"}}}, "objective"),
        ({"answer": {**raw["answer"], "objective": {"value": "1", "radius": "1e-1000000000"}}}, "powers of ten"),
        ({"problem": {**raw["problem"], "theta": [0]}}, "features"),
        ({"problem": {**raw["problem"], "theta": ["zero", 0]}}, "theta"),
        ({"problem": {**raw["problem"], "horizon": 0}}, "horizon"),
        ({"problem": {**raw["problem"], "tables": {}}}, "tables"),
    ):
        with pytest.raises((InvalidInputError, UnknownNameError), match=match):
            parse_reference_problem(json.dumps({**raw, **change}))
    without = {key: value for key, value in raw.items() if key != "answer"}
    with pytest.raises(InvalidInputError, match="answer"):
        parse_reference_problem(json.dumps(without))
    with pytest.raises(UnknownNameError, match="mdp_one_state"):
        reference_problem("mdp_one_stat")
    with pytest.raises(InvalidInputError, match="number"):
        read_number(True)


def test_the_implicit_route_passes_and_a_gradient_without_response_does_not():
    caught = powerful = 0
    for stored in reference_problems():
        form = stored.closed_form
        found = hypergradient(
            stored.problem(), stored.theta(), horizon=form.horizon, discounted=form.discounted, bound=False
        )
        parts = {part: column.tolist() for part, column in found.parts.items()}
        right = hold(stored, {"objective": found.objective, "gradient": found.value.tolist(), "parts": parts})
        assert right.outcome in (Outcome.PASSED, Outcome.NO_POWER), (stored.name, right.digits)
        share = max(abs(x) for x in parts["response"]) / max(abs(x) for x in found.value.tolist())
        if right.outcome is Outcome.PASSED and share > 10.0**-right.required:
            powerful += 1
            wrong = hold(stored, {"gradient": (found.value - found.parts["response"]).tolist()})
            caught += wrong.outcome is Outcome.FAILED
    assert caught == powerful
    assert powerful > 50  # the rest has no response that counts: one action, θ where the follower does not look


def test_reference_problems_are_scenarios():
    stored = reference_problem("mdp_temperature_1")
    scenario = stored.scenario(horizon=3)
    exact = hypergradient(scenario.problem, scenario.theta)
    assert abs(scenario.truth.value - exact.value).max() <= exact.error_bound + 5 * scenario.truth.error_bound
    assert scenario.truth.error_bound < 1e-15
    short = hypergradient(scenario.problem, scenario.theta, route="theorem1", horizon=3)
    assert abs(scenario.truncated.value - short.value).max() <= scenario.truncated.error_bound + short.error_bound
    for name in ("toy_game_1_even", "mdp_horizon_5_discounted", "building_start"):
        found, stored = reference_problem(name).scenario(), reference_problem(name)
        assert np.allclose(found.truth_of(*found.truths).value, stored.gradient_doubles(), rtol=1e-14, atol=0.0)
        assert found.target_truth.value.shape == found.theta.shape


# --- digits of the routes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mdp_discount_0.99", "mdp_terminating", "toy_game_1_even", "building_start"])
def test_routes_have_the_digits_that_conditioning_leaves(name):
    stored = reference_problem(name)
    rows = [measure_digits(stored, route) for route in ("implicit", "finite_difference", "certified")]
    for row in rows:
        assert row.honest
        # Each of the linear solves may lose the condition number once more.
        assert row.gradient >= 14.0 - 2.0 * math.log10(stored.condition) - 1.5
    assert stored.name in digits_table(rows).plain()
    assert digits_csv(rows).count("\n") == 4


def test_routes_that_do_not_serve_or_take_too_long_have_no_digits():
    row = measure_digits(reference_problem("mdp_discount_0.9999"), "unrolled")
    assert math.isnan(row.gradient)
    assert "sweeps" in row.note
    row = measure_digits(reference_problem("building_start"), "theorem1")
    assert math.isnan(row.gradient)
    assert "UnsupportedError" in row.note
