"""Dependence between draws: exact laws by brute force, copies and correlated neighbours seen, right draws let pass."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from bilevelrl.reference import named_stream
from bilevelrl.verification.statistics.independence import Independence, mixed_pairs_tails
from bilevelrl.verification.statistics.stream import SampleMoments


def refusal(rows, error_rate=1e-6, block=None):
    found = Independence(SampleMoments.of(rows[:, :1]), error_rate=error_rate)
    for piece in np.split(rows, range(block, len(rows), block)) if block else [rows]:
        found.add(piece[:, 0], piece)
    return found.refusal()


@pytest.mark.exact
@pytest.mark.parametrize(("pairs", "high"), [(1, 1), (3, 2), (3, 3), (4, 1), (4, 4), (4, 7), (5, 5), (2, 0), (2, 4)])
def test_law_of_mixed_pairs_by_listing_every_order(pairs, high):
    counts = Counter()
    for above in itertools.combinations(range(2 * pairs), high):
        marks = np.isin(np.arange(2 * pairs), above)
        counts[int((marks[::2] != marks[1::2]).sum())] += 1
    for mixed in counts:
        low = sum(n for j, n in counts.items() if j <= mixed) / counts.total()
        top = sum(n for j, n in counts.items() if j >= mixed) / counts.total()
        # Logarithms of factorials of ten at most, each with a few roundings.
        assert mixed_pairs_tails(mixed, pairs, high) == pytest.approx((low, top), rel=1e-13)


LAWS = {
    "gaussian": lambda rng, n: rng.standard_normal((n, 3)),
    "coin": lambda rng, n: (rng.random((n, 1)) < 0.5).astype(float),
    "rare": lambda rng, n: (rng.random((n, 1)) < 0.02).astype(float),
    "atom and rest": lambda rng, n: np.where(rng.random((n, 1)) < 0.6, 0.0, rng.standard_normal((n, 1))),
    "heavy": lambda rng, n: np.exp(3.0 * rng.standard_normal((n, 2))),
}


@pytest.mark.statistical
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("draws", [4, 11, 200])
def test_right_draws_pass_at_a_rate_that_can_be_seen(law, draws):
    """1000 samples at α = 0.05: no more refusals than a binomial bound at 1e-6 allows."""
    rng, runs = named_stream(1, law, draws), 1000
    refused = sum(refusal(LAWS[law](rng, draws), error_rate=0.05) is not None for _ in range(runs))
    assert refused <= stats.binom.isf(1e-6, runs, 0.05)


@pytest.mark.parametrize(
    ("dependent", "said"),
    [
        pytest.param(
            lambda rows: np.tile(rows[:12], (8, 1)), "draws 12 to 95 are copies of draws 0 to 83", id="12 × 8"
        ),
        pytest.param(lambda rows: np.tile(rows, (8, 1)), "are copies of draws 0 to", id="one seed for eight workers"),
        pytest.param(
            lambda rows: np.concatenate([rows[:300], rows[500:], rows[100:200]]),
            "draws 800 to 899 are copies of draws 100 to 199",
            id="one block twice",
        ),
        pytest.param(lambda rows: np.repeat(rows, 2, axis=0), "(0 of 1,000 pairs", id="each twice"),
        pytest.param(lambda rows: np.repeat(rows, 10, axis=0) + 1e-3 * rows[0], "correlated", id="each ten times"),
        pytest.param(lambda rows: np.cumsum(rows, axis=0), "correlated", id="a random walk"),
        pytest.param(lambda rows: np.stack([rows, -rows], axis=1).reshape(-1, 3), "1,000 of 1,000", id="antithetic"),
    ],
)
def test_dependence_is_seen(dependent, said):
    rows = dependent(named_stream(2, "rows").standard_normal((1000, 3)))
    assert said in refusal(rows)
    assert refusal(rows, block=37) == refusal(rows)


def test_copies_of_few_values_are_no_copies():
    """Draws that take two values repeat stretches of each other by chance, but not of this length."""
    coin = LAWS["coin"](named_stream(3, "coin"), 500)
    assert refusal(coin) is None
    assert "copies" in refusal(np.tile(coin, (2, 1)))
    assert refusal(np.ones((100, 1))) is None
