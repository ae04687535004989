"""Bad command lines end with an answer or a refusal in one line; some of them, up to where work begins."""

import argparse
import importlib

import fuzz_commands
import pytest
from fuzz_commands import command_lines, ended_well, leaves, run, sample, write_files

from bilevelrl.verification.commands import exact, false_alarms
from bilevelrl.verification.commands.command_line import build_parser

WORK = {
    "benchmarks.reproduce": ["run_sweep"],
    "benchmarks.sweeping.own_studies": ["study"],
    "benchmarks.train_command": ["train"],
    "verification.commands.attribute": ["kill_matrix"],
    "verification.commands.digits": ["measure_digits"],
    "verification.commands.false_alarms": ["false_alarms"],
    "verification.commands.fresh_seeds": ["fresh_seeds"],
    "verification.commands.report": ["run_study", "registered_report"],
    "verification.commands.verify": ["verify"],
}
"""Where the work begins, by module and name."""
PARTS = 6


class ReachedError(BaseException):
    """The arguments were accepted."""


def reached(*given, **named):
    raise ReachedError


@pytest.mark.exact
@pytest.mark.parametrize("part", range(PARTS))
def test_bad_command_lines_are_refused(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module, names in WORK.items():
        for name in names:
            monkeypatch.setattr(importlib.import_module(f"bilevelrl.{module}"), name, reached)
    lines = sample(command_lines(write_files(tmp_path)), 32)[part::PARTS]
    assert len(lines) > 10
    refused = 0
    for line in lines:
        try:
            status, text = run(line)
        except ReachedError:
            continue
        assert ended_well(status, text), f"{line} ended with {status}: {text}"
        refused += status == 2
        assert status != 2 or text.count("\n") < 3, f"{line} is refused in many lines: {text}"
    assert refused > 5


@pytest.mark.exact
@pytest.mark.parametrize("left", [b"[" * 100_000, b"[1]", b"{}", b"\xff", b""])
def test_what_another_file_says_is_no_run_to_continue(left, tmp_path):
    (tmp_path / "rates.json").write_bytes(left)
    assert false_alarms._interrupted(tmp_path / "rates.json", 0, 1) == []


@pytest.mark.exact
def test_every_argument_of_every_command_is_tried():
    lines = command_lines(["missing.csv"])
    for path, parser in leaves(build_parser()):
        tried = [line for line in lines if tuple(line[: len(path)]) == path]
        for action in parser._actions:
            if action.option_strings and not isinstance(action, argparse._HelpAction) and path[0] != "reproduce":
                assert any(line[-1].startswith(action.option_strings[0]) for line in tried)
        assert tried
    assert {line[1] for line in lines if line[0] == "reproduce"} >= {"fig1", "fig6", fuzz_commands.FIGURE}


@pytest.mark.exact
@pytest.mark.parametrize(
    ("planted", "well"),
    [
        (lambda parsed: int("x"), False),
        (lambda parsed: 1, False),
        (lambda parsed: print("1 failed") or 1, True),
        (lambda parsed: 70, False),
        (lambda parsed: 2, True),
    ],
)
def test_an_end_that_must_not_be_is_seen(planted, well, monkeypatch):
    monkeypatch.setattr(exact, "_routes", planted)
    assert ended_well(*run(["routes"])) is well
