"""Tails of distributions against `scipy.stats`, and that this need not be imported."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from bilevelrl.verification.statistics import tails


@pytest.mark.exact
def test_tails_are_those_of_scipy_to_the_last_bit():
    rng = np.random.default_rng(0)
    probability = np.concatenate([[0.0, 0.5, 1.0], 10.0 ** rng.uniform(-300, 0, 500)])
    degrees = np.concatenate([[1.0, 2.0, 3.0], rng.integers(1, 10**6, 500)])
    for found, expected in (
        (tails.normal_isf(probability), stats.norm.isf(probability)),
        (tails.student_isf(probability, degrees), stats.t.isf(probability, degrees)),
        (tails.chi2_isf(probability, degrees), stats.chi2.isf(probability, degrees)),
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.exact
def test_the_package_starts_without_what_is_slow_to_import():
    command = (
        "import sys, bilevelrl.verification; print([m for m in ('scipy.stats', 'numba', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
