"""The page of errata lists every item, and what an item names to run is there."""

import importlib.util
import re
from pathlib import Path

import pytest

from bilevelrl.benchmarks.sweeping.figures import all_figures
from bilevelrl.verification.mutants.attribution import CAUSES
from bilevelrl.verification.mutants.catalogue import MUTANTS

pytestmark = pytest.mark.exact

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errata.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([MG]\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
KNOWN = {
    r"bilevelrl mutants \"(.+)\"": lambda name: name in MUTANTS,
    r"bilevelrl reproduce ([\w-]+)(?: --part causes)?": lambda name: name in all_figures(),
    r"bilevelrl attribute(?: --cause \"?([\w ]+)\"?)?": lambda name: name is None or name in CAUSES,
    r"python -m (bilevelrl\.[\w.]+)": lambda name: importlib.util.find_spec(name) is not None,
}


def missing(cell):
    """What a cell names and is not there; the cell itself where it names nothing and is not marked open."""
    commands = re.findall(r"`([^`]+)`", cell)
    found = [(known, re.fullmatch(form, command)) for command in commands for form, known in KNOWN.items()]
    held = [match[0] for known, match in found if match and known(match[1])]
    lost = [command for command in commands if command not in held]
    stands = held or "](" in cell or "*open*" in cell or "the same table" in cell
    return lost if stands else [*lost, cell]


def test_every_item_is_listed_once_with_what_runs():
    rows = ROW.findall(PAGE)
    assert [item for item, _, _ in rows] == [f"M{k}" for k in range(1, 27)] + [f"G{k}" for k in range(1, 20)]
    assert {item: missing(cell) for item, _, cell in rows if missing(cell)} == {}


def test_what_is_not_there_is_noticed():
    for cell in ('`bilevelrl mutants "no such slip"`', "`bilevelrl reproduce fig0`", "`python -m bilevelrl.nothing`"):
        assert missing(cell)
    assert missing('`bilevelrl attribute --cause "no cause"`')
    assert missing("as everybody knows")
    assert not missing("*open*: nothing to run")
