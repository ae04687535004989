"""The page that maps the paper to this package: what it names exists, and what exists is named."""

import pydoc
import re
from pathlib import Path

import pytest

from bilevelrl.benchmarks.sweeping.figures import all_figures
from bilevelrl.benchmarks.trainings import training_kinds
from bilevelrl.estimators import ESTIMATORS
from bilevelrl.reference import HYPERGRADIENT_ROUTES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
KINDS = {"configurable MDP": "ConfigurableMDP", "configurable LQR": "ConfigurableLQR", "Markov game": "MarkovGame"}
KINDS["LQR game"] = "LQRGame"


def code(text):
    """Everything between backticks, on one line each."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]


def rows(section, width):
    """Cells of the table in a section."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    found = [[*line, ""][:width] if len(line) < width else line for line in lines]
    assert all(len(line) == width for line in found), found
    return found


def missing_objects(text):
    return [name for name in code(text) if name.startswith("bilevelrl.") and pydoc.locate(name) is None]


def missing_routes(text):
    named = re.findall(r"route `(\w+)`", text)
    return [name for name in named if name not in HYPERGRADIENT_ROUTES]


def missing_figures(text):
    named = [found.split()[2] for found in code(text) if found.startswith("bilevelrl reproduce ")]
    return [name for name in named if name not in all_figures()]


@pytest.mark.exact
def test_objects_routes_and_commands_exist():
    assert missing_objects(PAGE) == []
    assert missing_routes(PAGE) == []
    assert missing_figures(PAGE) == []
    assert missing_objects("`bilevelrl.reference.hypergradients`")
    assert missing_routes("route `theorem3`")
    assert missing_figures("`bilevelrl reproduce fig0`")


@pytest.mark.exact
def test_every_numbered_item_has_a_row():
    statements = " ".join(row[0] for row in rows("Statements", 3))
    for item in ("Theorem 1", "Theorem 2", "(5)", "(6)", "(7)", "(8)", "(9)", "Proposition 1", "Proposition 2"):
        assert item in statements
    shown = " ".join(row[0] for row in rows("Figures and tables", 3))
    numbers = {int(number) for number in re.findall(r"\b\d+\b", shown.split("Table")[0])}
    assert numbers == set(range(1, 11))
    assert all(f"Table {number}" in shown for number in (1, 2, 3))
    for row in (*rows("Statements", 3), *rows("Figures and tables", 3)):
        assert code(row[2]), row


@pytest.mark.exact
def test_methods_and_estimators_of_the_table_exist_where_it_says():
    for algorithm, problem, methods, estimators in rows("Algorithms", 4):
        known = {name for kind in training_kinds() if kind.problem.__name__ == KINDS[problem] for name in kind.titles}
        assert code(methods), algorithm
        assert set(code(methods)) <= known, algorithm
        assert set(code(estimators)) <= set(ESTIMATORS), algorithm


@pytest.mark.exact
def test_nothing_of_this_package_is_left_out():
    named = set(code(PAGE))
    assert set(ESTIMATORS) <= named
    for kind in training_kinds():
        assert set(kind.titles) <= named
    assert {f"bilevelrl reproduce {name}" for name in all_figures()} <= named
