"""Sweeps: declared grids, interruptions of every kind, and nothing lost or run twice."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sweep_cells

from bilevelrl.benchmarks.sweeping.summary import interquartile_mean, summarise
from bilevelrl.benchmarks.sweeping.sweep_grid import Grid, cell_name
from bilevelrl.benchmarks.sweeping.sweep_store import read_table, write_table
from bilevelrl.benchmarks.sweeping.sweeps import Sweep, SweepError, run_sweep
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, StorageError, UnknownNameError
from bilevelrl.reference.storage import locked

HELPERS = Path(__file__).resolve().parents[2] / "helpers"


def sweep_of(function, tmp_path, values=(1, 2, 3), **configuration):
    given = {"log": str(tmp_path / "log"), "mended": str(tmp_path / "mended"), **configuration}
    return Sweep(function=function, grid=Grid(axes={"x": values}), folder=tmp_path / "sweep", configuration=given)


def calls(path):
    return sorted(Path(path).read_text().splitlines())


def results(report):
    return [{name: value for name, value in row.items() if not name.startswith("version_")} for row in report.rows]


@pytest.mark.exact
def test_grids_have_every_combination_once_and_refuse_mistakes():
    grid = Grid(axes=[("a", [1, 2]), ("b", ["x", None, 0.5])])
    cells = list(grid)
    assert len(cells) == len(grid) == 6
    assert len({cell_name(cell) for cell in cells}) == 6
    assert cells[0] == {"a": 1, "b": "x"}
    for axes, message in (
        ([], "at least one axis"),
        ([("a", [])], "'a' has no value"),
        ([("a", [1]), ("a", [2])], "'a' is there twice"),
        ([("a", [1, 1])], "'a' has 1 twice"),
        ([("a", [float("nan")])], "text, numbers or None"),
        ([("a", [[1]])], "text, numbers or None"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Grid(axes=axes)
    with pytest.raises(UnknownNameError, match="did you mean 'learning_rate'"):
        Grid(axes={"learningrate": [0.1]}, known=["learning_rate", "seed"])
    assert list(Grid.parse(["a=1,2.5", "b=x"])) == [{"a": 1, "b": "x"}, {"a": 2.5, "b": "x"}]
    for words, message in (
        (["a"], "name=value"),
        (["a=1", "a=2"], "twice"),
        (["a="], "no value"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            Grid.parse(words)


@pytest.mark.exact
def test_what_finished_is_never_run_again(tmp_path, capsys):
    seen = []
    sweep = sweep_of(sweep_cells.doubled, tmp_path)
    report = run_sweep(sweep, progress=lambda done, total: seen.append((done, total)))
    assert [row["double"] for row in report.rows] == [2, 4, 6]
    assert (report.found, report.run) == (0, 3)
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    again = run_sweep(sweep)
    assert (again.found, again.run) == (3, 0)
    assert again.rows == report.rows
    assert {"version_numpy", "version_bilevelrl"} <= set(again.rows[0])
    wider = run_sweep(sweep_of(sweep_cells.doubled, tmp_path, values=(1, 2, 3, 4)))
    assert (wider.found, wider.run) == (3, 1)
    assert len(calls(tmp_path / "log")) == 4
    assert capsys.readouterr() == ("", "")  # silent where nobody watches


@pytest.mark.exact
def test_a_sweep_killed_while_it_trains_ends_with_the_same_results(tmp_path):
    whole = run_sweep(sweep_cells.training_sweep(tmp_path / "whole"))
    killed = sweep_cells.training_sweep(tmp_path / "killed")
    code = f"import sys; sys.path.insert(0, {str(HELPERS)!r}); import sweep_cells; "
    process = subprocess.Popen([sys.executable, "-c", code + f"sweep_cells.main({str(killed.folder)!r})"])
    cells = list(killed.grid)
    store = killed.store
    deadline = time.monotonic() + 120.0
    # One cell has finished, and the next one is under way.
    while not (store.result_path(cells[0]).exists() and store.checkpoint_path(cells[1]).exists()):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = [cell for cell in cells if store.result_path(cell).exists()]
    assert 1 <= len(finished) < len(cells)
    began = calls(tmp_path / "killed.log")
    report = run_sweep(killed)
    assert (report.found, report.run) == (len(finished), len(cells) - len(finished))
    assert results(report) == results(whole)
    # Only the cell that was under way began twice.
    assert len(calls(tmp_path / "killed.log")) - len(began) == len(cells) - len(finished)
    assert not list(killed.folder.glob("*.npz"))


@pytest.mark.exact
def test_processes_give_the_rows_of_one_process(tmp_path):
    pytest.importorskip("joblib")
    serial = run_sweep(sweep_of(sweep_cells.doubled, tmp_path))
    apart = Sweep(**{**_fields(sweep_of(sweep_cells.doubled, tmp_path)), "folder": tmp_path / "joblib"})
    assert run_sweep(apart, backend="joblib", workers=2).rows == serial.rows


@pytest.mark.exact
def test_a_cluster_gives_the_rows_of_one_process(tmp_path):
    distributed = pytest.importorskip("distributed")
    serial = run_sweep(sweep_cells.training_sweep(tmp_path / "serial", iterations=4))
    apart = sweep_cells.training_sweep(tmp_path / "dask", iterations=4)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=tmp_path / "own"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(sys.path.insert, 0, str(HELPERS))
        report = run_sweep(apart, backend="dask", client=client)
    assert report.run == 4
    assert report.rows == serial.rows


def _fields(sweep):
    return {name: getattr(sweep, name) for name in ("function", "grid", "folder", "configuration")}


@pytest.mark.exact
def test_a_worker_that_dies_is_reported_and_the_rest_continues(tmp_path):
    pytest.importorskip("joblib")
    sweep = sweep_of(sweep_cells.deadly, tmp_path, values=(1, 2, 3))
    with pytest.raises(SweepError, match=r"worker process died.*start again to continue"):
        run_sweep(sweep, backend="joblib", workers=2)
    (tmp_path / "mended").touch()
    report = run_sweep(sweep, backend="joblib", workers=2)
    assert [row["double"] for row in report.rows] == [2, 4, 6]
    assert report.found + report.run == 3


@pytest.mark.exact
def test_a_cell_that_fails_does_not_take_the_others_with_it(tmp_path):
    sweep = sweep_of(sweep_cells.failing, tmp_path)
    with pytest.raises(SweepError, match=r"1 of 3 cells failed.*ValueError: this cell is broken"):
        run_sweep(sweep)
    (tmp_path / "mended").touch()
    report = run_sweep(sweep)
    assert (report.found, report.run) == (2, 1)
    assert [row["double"] for row in report.rows] == [2, 4, 6]


@pytest.mark.exact
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    sweep, real, count = sweep_of(sweep_cells.doubled, tmp_path), os.fsync, [0]

    def fills_up(descriptor):
        count[0] += 1
        if count[0] > 2:  # the manifest and the first cell still fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(SweepError, match=r"2 of 3 cells failed.*No space left"):
        run_sweep(sweep)
    monkeypatch.undo()
    assert sorted(path.suffix for path in (tmp_path / "sweep").iterdir() if not path.name.startswith(".")) == [
        ".json",
        ".json",
    ]
    report = run_sweep(sweep)
    assert (report.found, report.run) == (1, 2)


@pytest.mark.exact
def test_folders_of_others_damaged_files_and_second_processes_are_named(tmp_path):
    sweep = sweep_of(sweep_cells.doubled, tmp_path)
    run_sweep(sweep)
    with pytest.raises(InvalidInputError, match=r"another configuration \(they differ in extra\)"):
        run_sweep(sweep_of(sweep_cells.doubled, tmp_path, extra=1))
    with pytest.raises(InvalidInputError, match="they differ in function"):
        run_sweep(sweep_of(sweep_cells.failing, tmp_path))
    store = sweep.store
    with locked(store.path), pytest.raises(StorageError, match=r"process \d+ is at work there"):
        run_sweep(sweep)
    path = store.result_path({"x": 2})
    whole = path.read_bytes()
    for damaged in (whole[:30], whole.replace(b'"double": 4', b'"double": 5'), b""):
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"not a whole result; remove it to run \{'x': 2\} again"):
            run_sweep(sweep)
    path.unlink()
    (store.path / ".x.json.1.part").write_text("half")
    assert run_sweep(sweep).run == 1
    assert not list(store.path.glob(".*.part"))
    (store.path / "sweep.json").write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        run_sweep(sweep)
    with pytest.raises(UnknownNameError, match="did you mean 'joblib'"):
        run_sweep(sweep, backend="joblob")
    with pytest.raises(InvalidInputError, match="workers=0"):
        run_sweep(sweep, workers=0)
    with pytest.raises(InvalidInputError, match="client=None"):
        run_sweep(sweep, backend="dask")


@pytest.mark.exact
def test_tables_are_read_as_they_were_written(tmp_path, monkeypatch):
    rows = [{"a": 1, "b": 0.1 + 0.2, "c": "x,y"}, {"a": 2, "b": -1e-300, "c": "z"}]
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == rows
    with pytest.raises(InvalidInputError, match="at least one row"):
        write_table(tmp_path / "t.csv", [])
    with pytest.raises(InvalidInputError, match=r"ending in \.csv or \.parquet"):
        write_table(tmp_path / "t.xlsx", rows)
    with pytest.raises(StorageError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"bilevelrl\[parquet\]"):
        write_table(tmp_path / "t.parquet", rows)


@pytest.mark.exact
def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]
    write_table(tmp_path / "t.parquet", rows)
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == rows


@pytest.mark.exact
def test_summaries_resample_each_stratum_by_itself():
    assert interquartile_mean([5.0, 1.0, 2.0, 3.0, -100.0, 4.0, 100.0, 0.0]) == pytest.approx(2.5)
    rng = np.random.default_rng(0)
    # Within a stratum nothing varies: an interval that mixed the strata would not be a point.
    constant = summarise([[1.0] * 4, [3.0] * 4], rng=rng)
    assert constant.low == constant.high == constant.interquartile_mean == 2.0
    mixed = summarise([[1.0] * 4 + [3.0] * 4], rng=rng)
    assert mixed.low < 2.0 < mixed.high
    # A single run adds nothing to the spread, and stays in every resample.
    beside = summarise([[1.0] * 3, [9.0]], rng=rng)
    assert beside.low == beside.high == beside.interquartile_mean == 1.0
    assert summarise([[2.0], [4.0]], rng=rng).low == summarise([[2.0], [4.0]], rng=rng).high == 3.0
    scores = np.random.default_rng(1).standard_normal(200)
    found = summarise([scores], rng=rng, resamples=4000)
    # The interquartile mean of n normal scores has standard error 1.09/sqrt(n) or so (asymptotic variance 1.195/n).
    expected = 1.96 * np.sqrt(1.195 / 200.0)
    assert 0.5 * (found.high - found.low) == pytest.approx(expected, rel=0.15)
    narrow = summarise([scores], rng=rng, confidence=0.5)
    assert narrow.high - narrow.low < 0.5 * (found.high - found.low)
    for strata in ([], [[]], [[np.nan]]):
        with pytest.raises(InvalidInputError, match="strata"):
            summarise(strata, rng=rng)
    with pytest.raises(InvalidInputError, match="confidence"):
        summarise([scores], rng=rng, confidence=1.0)
