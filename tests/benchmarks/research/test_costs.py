"""The study of costs: its page says what its kept rows say, and its rows are of today's code."""

from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.research.approximations.costs import COSTS, TASKS, _model_rows, root_mean_square
from bilevelrl.benchmarks.research.approximations.decisions import Costs, decisions
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.reference.approximations import APPROXIMATIONS

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "benchmarks" / "results" / "costs.csv"


def test_every_approximation_has_its_cost():
    assert set(COSTS) - {"implicit", "mixed_derivative"} == set(APPROXIMATIONS) - {"smoothing"}


def test_the_page_is_made_of_the_kept_rows():
    page = (ROOT / "docs" / "which_estimator.md").read_text(encoding="utf-8")
    assert page == decisions(read_table(KEPT), list(TASKS.values())) + "\n"
    assert "{{" not in page
    assert list(Costs(read_table(KEPT)).tasks) == list(TASKS)


def test_kept_errors_are_those_of_a_fresh_run():
    fresh = _model_rows("mdp_discount_0.99")
    kept = [row for row in read_table(KEPT) if row["task"] == "mdp_discount_0.99" and row["family"] == "model"]
    assert len(fresh) == len(kept)
    for old, new in zip(kept, fresh, strict=True):
        assert (old["method"], float(old["knob"])) == (new["method"], float(new["knob"]))
        assert (old["error"] in (None, "")) == (new["error"] is None)
        if new["error"] is not None:  # below 1e-8 is rounding of ill-conditioned differences
            assert abs(float(old["error"]) - new["error"]) <= 0.02 * new["error"] + 1e-8


def test_numbers_of_the_page_are_read_where_they_stand():
    rows = [
        {"task": "one", "method": "a", "knob": 0.5, "error": 0.25, "deviation": None, "steps": None},
        {"task": "one", "method": "s", "knob": None, "error": 0.6, "deviation": 8.0, "steps": 10.0},
        {"task": "two", "method": "s", "knob": None, "error": 1.5, "deviation": 8.0, "steps": 10.0},
    ]
    costs = Costs(rows)
    assert costs.across("a", "0.5") == "0.25 / –"
    assert costs.across("a", "0.1") == "–"
    assert costs.steps("s") == "1.0e+03 / never"  # 64 · 10 / (1 - .36)
    found = root_mean_square(rows[1], 1e3)
    assert found == pytest.approx(1.0)
    assert np.isclose(root_mean_square(rows[1], 1e12), 0.6)
