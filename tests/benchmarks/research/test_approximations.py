"""The study of approximations: rates are read from errors that say something, and its kept rows are of today's code."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.research.approximations.errors import error_cell, measured_rate
from bilevelrl.reference.approximations import APPROXIMATIONS

pytestmark = pytest.mark.exact

KEPT = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "approximations.csv"


def test_rates_are_read_between_the_last_two_errors_that_say_something():
    assert measured_rate([1, 3, 5], [3.0, 0.8, 0.2], geometric=True) == pytest.approx(0.5)
    assert measured_rate([1.0, 0.1, 0.01, 0.001], [2.0, 0.1, 1e-3, 1e-12], geometric=False) == pytest.approx(2.0)
    assert np.isnan(measured_rate([1, 2], [1e-14, 1e-15], geometric=True))
    assert np.isnan(measured_rate([1, 2], [np.nan, np.nan], geometric=True))
    # A plateau of rounding, and an error that grows, are no rates.
    assert measured_rate([10, 20, 50, 100], [1e-7, 3.4e-10, 3.3e-10, 3.2e-10], geometric=True) != pytest.approx(1.0)
    assert np.isnan(measured_rate([10, 50, 100], [3.4e-10, 3.3e-10, 3.2e-10], geometric=True))
    assert measured_rate([1, 2, 5, 10], [0.5, 1e-9, 1e-8, 7e-13], geometric=True) == pytest.approx(2e-9)


@pytest.mark.parametrize("problem", ["mdp_discount_0.9", "game_seen_0.5_0.9"])
def test_kept_errors_are_those_of_a_fresh_run(problem, tmp_path):
    fresh = error_cell({"problem": problem}, {}, tmp_path)
    with KEPT.open(encoding="utf-8") as lines:
        kept = [row for row in csv.DictReader(lines) if row["problem"] == problem]
    assert {row["method"] for row in kept} == set(APPROXIMATIONS)
    found = {(row["method"], row["knob"]): row for row in fresh}
    assert len(kept) == len(fresh) == len(found)
    for old in kept:
        new = found[old["method"], float(old["knob"])]
        was, now = float(old["error"]), float(new["error"])
        # Three digits are kept; what is below 1e-8 is rounding of ill-conditioned differences.
        assert np.isnan(was) == np.isnan(now)
        assert np.isnan(was) or abs(was - now) <= 2e-3 * was + 1e-8
        assert (old["rules"] == "") == (new["rules"] == "")
        assert old["rules"] == "" or float(old["rules"]) == pytest.approx(new["rules"], abs=1e-4)
