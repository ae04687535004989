"""Draws judged block by block: the same numbers as from all at once, from every source, in little memory."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from bilevelrl.reference import named_stream
from bilevelrl.reference.errors import InvalidInputError, ShapeError, TooLargeError
from bilevelrl.tasks import scenario
from bilevelrl.verification.checks.verdicts import Outcome
from bilevelrl.verification.reading import csv_numbers
from bilevelrl.verification.reading import draws as reading
from bilevelrl.verification.statistics.means import StudentDesign, mean_test
from bilevelrl.verification.statistics.stream import BlockMeans, RunningMoments, SampleMoments
from bilevelrl.verification.testing.judge import judge_draws


def noisy(count, kind="gaussian", name="layered"):
    at, rng = scenario(name), named_stream(1, kind)
    noise = {
        "gaussian": lambda: rng.standard_normal((count, at.theta.size)),
        "skewed": lambda: rng.lognormal(sigma=2.0, size=(count, at.theta.size)) - np.exp(2.0),
        "repeated": lambda: np.repeat(rng.standard_normal((-(-count // 3), at.theta.size)), 3, axis=0)[:count],
        "without the response": lambda: rng.standard_normal((count, at.theta.size)) - at.truth.parts["response"],
    }[kind]()
    return at.truth.value + noise


def numbers(judged):
    test = judged.test
    intervals = [judged.cosine.low, judged.cosine.mean, judged.cosine.high]
    vectors = [test.bias, test.half_width, test.detectable, judged.mean, judged.standard_deviation, intervals]
    return np.concatenate(vectors)


@pytest.mark.parametrize("kind", ["gaussian", "skewed", "repeated", "without the response"])
@pytest.mark.parametrize("claim", ["unbiased", "ascent"])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_of_any_size_say_the_same(kind, claim, block, monkeypatch):
    rows = noisy(2501, kind)
    whole = judge_draws(rows, "layered", claim=claim)
    monkeypatch.setattr(reading, "BLOCK_ENTRIES", 3 * block)
    streamed = judge_draws(rows, "layered", claim=claim)
    assert streamed.verdict.outcome is whole.verdict.outcome
    assert streamed.draws_needed == whole.draws_needed
    assert str(streamed.explanation) == str(whole.explanation)
    # 2501 additions of numbers of size 10³ at most, each rounded once.
    assert numbers(streamed) == pytest.approx(numbers(whole), rel=2501 * 2.0**-52, abs=2501 * 2.0**-52 * 1e3)
    assert (kind == "repeated") == (whole.verdict.outcome is Outcome.NOT_APPLICABLE)


@pytest.mark.parametrize("source", ["list", "iterator", "npy", "npy by columns", "single", "npz", "csv"])
def test_every_source_says_the_same(source, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_ENTRIES", 300)
    monkeypatch.setattr(csv_numbers, "_CHUNK", 1000)
    rows = noisy(2000).astype(np.float32).astype(np.float64)
    path = tmp_path / f"draws.{source.split()[0]}"
    given = path
    if source == "list":
        given = rows.tolist()
    elif source == "iterator":
        given = iter([rows[:1], rows[1:3], rows[3:3], rows[3:1999], rows[1999:].tolist()])
    elif source == "npz":
        np.savez_compressed(path, draws=rows)
    elif source == "csv":
        np.savetxt(path, rows, delimiter=",", fmt="%.17g")
    else:
        given = tmp_path / "draws.npy"
        stored = np.asfortranarray(rows) if "columns" in source else rows
        np.save(given, stored.astype(np.float32) if source == "single" else stored)
    # Products with another order of memory are rounded in another order.
    slack = 2000 * 2.0**-52
    expected = numbers(judge_draws(rows, "layered", accuracy=0.0))
    assert numbers(judge_draws(given, "layered", accuracy=0.0)) == pytest.approx(expected, rel=slack, abs=slack)


def test_an_iterator_is_checked_block_by_block():
    good = np.ones((3, 3))
    with pytest.raises(ShapeError, match=r"block 1: shape=\(3, 2\)"):
        judge_draws(iter([good, np.ones((3, 2))]), "layered")
    with pytest.raises(InvalidInputError, match=r"block 1.*complex"):
        judge_draws(iter([good, good + 0j]), "layered")
    with pytest.raises(ShapeError, match="draws=3"):
        judge_draws(iter([good]), "layered")
    with pytest.raises(InvalidInputError, match=r"draws\[4, 2\]=nan"):
        judge_draws(iter([good, np.array([[0, 0, 0], [0, 0, np.nan]])]), "layered")


def test_progress_counts_both_passes(monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_ENTRIES", 30)
    told = []
    judge_draws(noisy(25), "layered", progress=lambda *said: told.append(said[:2]))
    assert told == 2 * [(10, 25), (20, 25), (25, 25)]


class TestMoments:
    def test_against_textbook_formulas(self):
        rows = named_stream(2, "rows").gamma(2.0, size=(500, 3)) + 1e4
        found = SampleMoments.of(rows)
        assert found.mean == pytest.approx(rows.mean(axis=0), rel=1e-14)
        assert found.standard_deviation == pytest.approx(rows.std(axis=0, ddof=1), rel=1e-11)
        assert found.skewness == pytest.approx(stats.skew(rows), rel=1e-9)
        assert found.carrying == pytest.approx(500 / stats.kurtosis(rows, fisher=False), rel=1e-9)

    @pytest.mark.parametrize("piece", [1, 3, 250])
    def test_nothing_is_lost_where_the_mean_is_large(self, piece):
        """Spread 1 on a mean of 1e9: sums of squares would keep no digit of the variance."""
        rows = np.array([[1e9 - 1.0], [1e9], [1e9 + 1.0]] * 200)
        running = RunningMoments.start(1)
        for start in range(0, 600, piece):
            running = running.updated(rows[start : start + piece])
        found = running.sample()
        # 600 means, each rounded by half a unit in the last place of 1e9; the third moment moves by thrice that.
        slack = 600 * 2.0**-53 * 1e9
        assert abs(found.mean[0] - 1e9) <= slack
        assert found.standard_deviation[0] == pytest.approx(np.sqrt(400 / 599), rel=slack)
        assert abs(found.skewness[0]) <= 3 * slack

    @pytest.mark.parametrize("unit", [2.0**-400, 2.0**400])
    @pytest.mark.parametrize("piece", [2, 100])
    def test_moments_have_no_units(self, unit, piece):
        """Fourth powers of 1e±120 are no doubles; a power of two as unit changes nothing."""
        rows = named_stream(3, "rows").exponential(size=(100, 2)) * np.linspace(0.1, 10.0, 100)[:, None]
        found, scaled = RunningMoments.start(2), RunningMoments.start(2)
        for start in range(0, 100, piece):
            found, scaled = (
                found.updated(rows[start : start + piece]),
                scaled.updated(unit * rows[start : start + piece]),
            )
        assert np.array_equal(scaled.sample().standard_deviation, unit * found.sample().standard_deviation)
        assert np.array_equal(scaled.sample().skewness, found.sample().skewness)
        assert np.array_equal(scaled.sample().carrying, found.sample().carrying)

    @pytest.mark.parametrize("value", [0.1, -1e-200, 0.0, 12345.678])
    def test_what_never_varies_has_its_own_mean(self, value):
        found = SampleMoments.of(np.full((20_011, 1), value))
        assert (found.mean[0], found.standard_deviation[0]) == (value, 0.0)

    def test_medians_of_means_use_whole_blocks(self):
        rows = named_stream(4, "rows").standard_normal((1000, 2))
        blocks = StudentDesign(error_rate=1e-3).blocks(1)
        size = 1000 // blocks
        expected = np.median(rows[: size * blocks].reshape(blocks, size, 2).mean(axis=1), axis=0)

        def median(given):
            means = BlockMeans(blocks=blocks, draws=len(given), columns=2)
            means.add(given)
            return means.median()

        assert median(rows) == pytest.approx(expected, rel=1e-13)
        assert median(rows[: blocks - 1]) is None


class TestSizes:
    @pytest.mark.parametrize("spread", [1e5, 1e8, 1e30, 1e149])
    def test_any_spread_is_answered(self, spread):
        """A spread of 1e8 needs more than 1e18 draws, which nobody could make."""
        judged = judge_draws(spread * named_stream(5, "rows").uniform(-1, 1, (50, 3)), "layered")
        assert judged.verdict.outcome is Outcome.NO_POWER
        assert np.isfinite(judged.standard_deviation).all()
        if spread > 1e6:
            assert judged.draws_needed is None
            assert "more than 1e+18 draws" in str(judged)
            assert '"draws_needed": null' in judged.to_json()
        else:
            assert judged.draws_needed > 10**10

    def test_draws_that_cannot_be_squared_are_refused(self):
        with pytest.raises(InvalidInputError, match=r"draws\[3, 0\]=1e\+200: expected numbers of at most 1e\+150"):
            judge_draws(np.diag([0, 0, 0, 1e200])[:, ::-1][:, :3], "layered")

    def test_draws_needed(self):
        draws_needed = StudentDesign().draws_needed
        assert draws_needed(1.0, 0.0) == 2
        with pytest.raises(TooLargeError, match="2\\^60"):
            draws_needed(1e-30, 1.0)
        for spread in (np.nan, np.inf, -1.0):
            with pytest.raises(InvalidInputError, match="standard_deviation"):
                draws_needed(1.0, spread)

    def test_tests_of_means_have_no_units(self):
        rows = named_stream(6, "rows").exponential(size=(2000, 1)) - 1.0
        one, small = mean_test(rows, np.zeros(1)), mean_test(2.0**-300 * rows, np.zeros(1))
        assert np.array_equal(small.half_width, 2.0**-300 * one.half_width)


def test_a_million_draws_take_little_memory(tmp_path):
    """96 MB of draws, judged where they lie: the peak grows by far less than they are."""
    path = tmp_path / "draws.npy"
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(1_000_000, 12))
    stored[:] = named_stream(7, "rows").standard_normal((1_000_000, 12))
    stored.flush()
    del stored
    lines = (
        "import resource, sys; from bilevelrl.verification.testing.judge import judge_draws",
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss",
        "before = peak(); found = judge_draws(sys.argv[1], 'a parameter per pair')",
        "print(found.draws, peak() - before)",
    )
    command = [sys.executable, "-c", "\n".join(lines), str(path)]
    draws, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert draws == "1000000"
    assert int(grown) < 48_000 * (1024 if sys.platform == "darwin" else 1)  # kilobytes, on Linux
