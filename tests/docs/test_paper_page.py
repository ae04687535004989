"""The page that maps the paper to this package: what it names exists, and what exists is named."""

import pydoc
import re
from pathlib import Path

import pytest

from bilevelrl.benchmarks.sweeping.figures import all_figures
from bilevelrl.benchmarks.trainings import training_kinds
from bilevelrl.estimators import ESTIMATORS
from bilevelrl.reference import HYPERGRADIENT_ROUTES
from bilevelrl.reference.approximations import APPROXIMATIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, RIVALS = ((DOCS / name).read_text(encoding="utf-8") for name in ("paper.md", "hpgd_paper.md"))
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
    for page in (PAGE, RIVALS):
        assert missing_objects(page) == []
        assert missing_routes(page) == []
        assert missing_figures(page) == []
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


def unanswered(text):
    """Rows that name nothing here and do not say that nothing is."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    body = [line for line in lines if line[0] != "item" and not line[0].startswith("---")]
    return [line[0] for line in body if len(line) != 3 or not re.search(r"`|\]\(|^not here|^none is made", line[2])]


@pytest.mark.exact
def test_rivals_are_listed_with_what_is_not_here():
    assert unanswered(RIVALS) == []
    assert unanswered("| item | what | here |\n| --- | --- | --- |\n| a | b | somewhere |") == ["a"]
    for page in re.findall(r"\]\((\w+\.md)\)", RIVALS):
        assert (DOCS / page).exists()
    named = {name for name in code(RIVALS) if name in {method for kind in training_kinds() for method in kind.titles}}
    assert {"hpgd_mc", "hpgd_sa", "hpgd_oracle", "sobirl"} <= named
    assert {"alternating_tables", "smoothing", "differentiated_sweeps"} <= set(APPROXIMATIONS) & set(code(RIVALS))
