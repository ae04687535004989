"""New problems for the certified data: what is right passes, and each claim that is wrong is named."""

import json
import subprocess
import sys
from fractions import Fraction
from importlib import resources

import pytest

from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.commands.submission import check_problem

pytestmark = pytest.mark.exact
pytest.importorskip("flint")

FOLDER = resources.files("bilevelrl.tasks") / "data"


def record(name="mdp_one_state"):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name", ["mdp_one_state", "mdp_fork_0.001_0.9999_1000000", "toy_game_2_unseen", "lqr_random_1", "lqr_game_start"]
)
def test_what_is_stored_holds(name):
    assert check_problem(json.dumps(record(name))) == []


def moved(numbers, place, relative):
    value = Fraction(numbers[place]) * (1 + relative)
    numbers[place] = f"{value.numerator * 10**60 // value.denominator}e-60"


def planted(change):
    wrong = record()
    change(wrong)
    return wrong


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: moved(r["answer"]["gradient"]["value"], 0, Fraction(1, 10**28)), "gradient[0]: stored"),
        (lambda r: moved(r["answer"]["objective"], "value", Fraction(1, 10**20)), "objective[0]: stored"),
        (lambda r: r["answer"]["parts"]["response"]["radius"].__setitem__(1, "1e-20"), "response[1]: radius"),
        (lambda r: r["answer"]["parts"].pop("response"), "answer: parts"),
        (lambda r: r["difficulty"].update(level="hard"), "level 'hard'"),
        (lambda r: r["difficulty"].update(digits_in_double=12.6), "digits_in_double 12.6"),
        (lambda r: r["difficulty"].update(condition=3.0), "condition 3"),
        (lambda r: r.update(comment="x"), "key 'comment'"),
        (lambda r: r.update(name="mdp_sparse"), "another problem"),
        (lambda r: r["problem"].update(discount_leader="0.50"), "shortest form"),
        (lambda r: r["problem"]["theta"].__setitem__(0, 0.125), "do not meet"),
    ],
)  # fmt: skip
def test_each_wrong_claim_is_named(change, match):
    found = check_problem(json.dumps(planted(change)))
    assert any(match in line for line in found), found


def test_malformed_files_are_refused_by_name():
    for change, match in (
        (lambda r: r.update(version=9), "upgrade"),
        (lambda r: r["problem"].update(horizon=0), "horizon"),
        (lambda r: r["provenance"].update(entropy=-1), "entropy"),
        (lambda r: r["problem"].update(gamma=1), "key='gamma' is not known"),
        (lambda r: r["problem"]["tables"]["initial"].update(note=1), "tables.initial: key='note' is not known"),
    ):
        with pytest.raises((InvalidInputError, UnknownNameError), match=match):
            check_problem(json.dumps(planted(change)))


def test_without_flint_all_else_is_there_and_the_check_says_what_is_missing(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(record()))
    code = """
import sys
sys.modules["flint"] = None
from bilevelrl.verification.commands.command_line import main
assert main(["certify", "--data"]) == 0
raise SystemExit(main(["certify", "--check-problem", sys.argv[1]]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "bilevelrl[certified]" in done.stderr


def test_a_new_problem_is_completed_and_passes(tmp_path, capsys):
    from bilevelrl.benchmarks.reference_problems.generate_reference_data import main as generate

    new = {key: record()[key] for key in ("kind", "summary", "problem")} | {"name": "mdp_of_mine"}
    new["problem"]["theta"] = [0.25, -0.5]
    path = tmp_path / "mdp_of_mine.json"
    path.write_text(json.dumps(new))
    assert generate(["--complete", str(path)], report=lambda line: None) == 0
    assert main(["certify", "--check-problem", str(path)]) == 0
    assert "all holds" in capsys.readouterr().out
    wrong = json.loads(path.read_text())
    wrong["answer"]["objective"]["value"] = "0.5"
    path.write_text(json.dumps(wrong))
    assert main(["certify", "--check-problem", str(path)]) == 1
    assert "objective[0]" in capsys.readouterr().out
    path.write_text("{}")
    assert main(["certify", "--check-problem", str(path)]) == 2
    with pytest.raises(InvalidInputError, match="summary"):
        generate(["--complete", str(path)])
