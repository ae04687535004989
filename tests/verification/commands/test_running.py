"""How commands end: by signals without a process left, by refusals before the work, and with results that are whole."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_report import a_report

from bilevelrl.benchmarks.sweeping import sweep_store
from bilevelrl.benchmarks.sweeping.sweep_grid import Grid
from bilevelrl.benchmarks.sweeping.sweeps import MixedSoftwareWarning, Sweep, SweepError, run_sweep, squares
from bilevelrl.estimators.training import checkpoints
from bilevelrl.reference.errors import InvalidInputError, StorageError
from bilevelrl.reference.storage import locked, software_versions, writable_file, writable_folder, write_atomically
from bilevelrl.tasks.scenarios.reference_data import reference_names, reference_problem
from bilevelrl.verification import Outcome, Report
from bilevelrl.verification.commands import verify as verify_command
from bilevelrl.verification.commands.certify import RESULTS_FORMAT, RESULTS_VERSION
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.processes.ending import OWN_MISTAKE, ended
from bilevelrl.verification.processes.jobs import Job, WorkerError, run_jobs
from bilevelrl.verification.reports.html import html_report

HERE = str(Path(__file__).resolve().parents[2] / "helpers")
# Shells start what they put in the background with Ctrl-C ignored, and a command that is started so lets it be.
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND = "import sys; from bilevelrl.verification.commands.command_line import main; sys.exit(main())"
PROGRAMS = {
    "verify": [COMMAND, "verify", "--quick", "--workers", "2"],
    "sweep": [f"import sys; sys.path.insert(0, {HERE!r}); import sweep_cells; sys.exit(sweep_cells.main_apart())"],
}


def descendants(root):
    """Process ids of all that a process started, by their parents as the kernel has them."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if words[0] != "Z":
                parents[int(entry.name)] = int(words[1])
    found = {root}
    while len(found) < len(found | (more := {child for child, parent in parents.items() if parent in found})):
        found |= more
    return found - {root}


def busy(process):
    """Descendants that have used a second of CPU time, interpreter and imports included."""
    used = set()
    for child in descendants(process):
        try:
            words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[11]) + int(words[12]) > os.sysconf("SC_CLK_TCK"):
            used.add(child)
    return used


def wait_until(condition, message, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.02)


@pytest.mark.exact
@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("number", "whole_group", "status"),
    [
        (signal.SIGINT, True, 130),  # Ctrl-C on a terminal
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 143),
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
)
def test_signals_end_a_command_and_all_its_processes(program, number, whole_group, status, tmp_path):
    if program == "sweep":
        pytest.importorskip("joblib")
    code, *words = PROGRAMS[program]
    with subprocess.Popen(
        [sys.executable, "-c", HEARING + code, *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: len(busy(process.pid)) >= 2 or process.poll() is not None, "no two workers at work")
            assert process.poll() is None, process.stderr.read().decode()
            started = descendants(process.pid)
            (os.killpg if whole_group else os.kill)(process.pid, number)
            # Sixty times as long as it takes, and a twentieth of what is left of the work.
            assert process.wait(timeout=20.0) == status
            alive = {child for child in started if Path(f"/proc/{child}").exists()}
            wait_until(
                lambda: not {child for child in alive if Path(f"/proc/{child}").exists()},
                "processes left",
                seconds=20.0,
            )
        finally:
            if process.poll() is None:
                process.kill()
        # A worker that was still importing may say so when the terminal interrupts it too.
        assert whole_group or b"Traceback" not in process.stderr.read()


@pytest.mark.exact
def test_a_worker_that_dies_is_an_error_of_our_own():
    with pytest.raises(WorkerError, match="a worker process died"):
        run_jobs([Job(function=os.abort, arguments=(), label="")] * 2, workers=2)
    for workers in (0, -1, True, 1.5):
        with pytest.raises(InvalidInputError, match="workers="):
            run_jobs([], workers=workers)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (InvalidInputError("x=1: expected\n 2"), 2, "bilevelrl: x=1: expected 2\n"),
        (OSError(28, "No space left on device", "results.csv"), 2, "No space left on device: 'results.csv'"),
        (MemoryError("7 TiB"), 2, "not enough memory (7 TiB)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("planted"), OWN_MISTAKE, "ZeroDivisionError: planted\nbilevelrl: this is a mistake in bile"),
    ],
)
def test_only_a_failed_check_ends_with_one(raised, status, said, capsys):
    def command():
        raise raised

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert ended(command) == status != 1
    printed = capsys.readouterr().err
    assert said in printed
    assert ("Traceback" in printed) == (status == OWN_MISTAKE)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.exact
def test_a_full_output_and_one_without_greek_are_no_tracebacks(tmp_path):
    words = [sys.executable, "-c", COMMAND, "gradient", "--task", "chain"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bilevelrl: ")
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u03b2" in done.stdout


@pytest.mark.exact
def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = write_atomically(tmp_path / "made" / "a.txt", "first")

    def half(file):
        file.write(b"half")
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        write_atomically(path, half)
    assert path.read_text() == "first"
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    write_atomically(link, b"second")
    assert link.is_symlink()
    assert path.read_text() == "second"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]
    write_atomically("/dev/null", "gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(tmp_path, "a folder")


@pytest.mark.exact
def test_outputs_are_tried_before_the_work(tmp_path):
    file = tmp_path / "file.csv"
    file.write_text("kept")
    assert writable_file("--output", file).read_text() == "kept"
    assert writable_folder("--output", tmp_path / "new").is_dir()
    assert not list((tmp_path / "new").iterdir())
    for bad in (tmp_path, file / "below.csv", "", "/proc/none/x.csv", "x" * 300, "a\0b"):
        with pytest.raises(InvalidInputError, match=r"--output=.*expected a file that can be written"):
            writable_file("--output", bad)
    for bad in (file, file / "below", "/proc/none", "x" * 300):
        with pytest.raises(InvalidInputError, match=r"--output=.*expected a folder that can be written"):
            writable_folder("--output", bad)


@pytest.mark.exact
def test_a_folder_has_one_process_at_a_time_and_is_free_after_its_death(tmp_path):
    code = (
        "import sys, time; from bilevelrl.reference.storage import locked\n"
        "with locked(sys.argv[1]): print(1, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"1\n"
            with pytest.raises(StorageError, match=f"process {process.pid} is at work there"), locked(tmp_path):
                pass
        finally:
            process.kill()
    with locked(tmp_path), pytest.raises(StorageError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with pytest.raises(StorageError, match="cannot be written"), locked("/proc/none"):
        pass


@pytest.mark.exact
def test_verify_without_matplotlib_says_so_first_and_keeps_its_verdict(tmp_path, monkeypatch, capsys):
    def checked(**options):
        assert "there will be no verify.png" in capsys.readouterr().err
        return Report(estimators=())

    monkeypatch.setattr(verify_command, "verify", checked)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["verify", "--output", str(tmp_path)]) == 2  # nothing was judged
    assert {path.name for path in tmp_path.iterdir()} == {"verify.csv", "verify.json"}


@pytest.mark.exact
def test_a_refused_request_leaves_its_folder_to_the_next_one(tmp_path, capsys):
    words = ["reproduce", "fig2", "--untuned", "--temperature", "0.005", "--method", "naive_pgd", "--quick"]
    words += ["--iterations", "1", "--output", str(tmp_path / "made")]
    assert main([*words, "--seeds", "0"]) == 2
    assert "argument --seeds: '0': expected an integer from 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    # Nor does one that fails later, before anything was made.
    failed = Sweep(function=no_cell, grid=Grid(axes={"x": [1]}), folder=tmp_path / "cells", configuration={"seeds": 0})
    with pytest.raises(SweepError, match="1 of 1 cells failed"):
        run_sweep(failed)
    made = Sweep(function=squares, grid=Grid(axes={"x": [3]}), folder=tmp_path / "cells", configuration={"seeds": 1})
    assert run_sweep(made).rows[0]["square"] == 9
    with pytest.raises(InvalidInputError, match="another configuration"):
        run_sweep(failed)


def no_cell(cell, configuration, checkpoint):
    raise ValueError("planted")


TRAIN = ["train", "--task", "four_rooms", "--iterations", "3", "--seeds", "1", "--streams", "1", "--steps", "5"]


@pytest.mark.exact
@pytest.mark.parametrize(
    "words",
    [TRAIN, ["reproduce", "table1", "--quick"]],
    ids=["train", "reproduce"],
)
def test_a_second_command_in_a_folder_is_told_whose_it_is(words, tmp_path, capsys):
    with locked(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        assert main([*words, "--output", str(tmp_path)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
    assert f"{tmp_path}: process {os.getpid()} is at work there" in capsys.readouterr().err
    assert main([*words, "--output", str(tmp_path)]) == 0


@pytest.mark.exact
def test_no_training_goes_on_with_other_software(tmp_path, monkeypatch, capsys):
    assert main([*TRAIN, "--output", str(tmp_path)]) == 0
    theta = (tmp_path / "theta.npy").read_bytes()
    assert main([*TRAIN, "--output", str(tmp_path)]) == 0
    capsys.readouterr()
    monkeypatch.setattr(checkpoints, "software_versions", lambda: {**software_versions(), "numpy": "99.0"})
    assert main([*TRAIN, "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"numpy {software_versions()['numpy']} (now 99.0); remove it to start this training anew" in said
    # One of before versions were recorded is continued.
    path = tmp_path / "checkpoint.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(str(arrays["header"]))
    assert header.pop("versions") == software_versions()
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    assert main([*TRAIN, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "theta.npy").read_bytes() == theta


@pytest.mark.exact
def test_cells_know_their_sweep_and_their_software(tmp_path, monkeypatch):
    def sweep(xs, **configuration):
        return Sweep(function=squares, grid=Grid(axes={"x": xs}), folder=tmp_path / "a", configuration=configuration)

    first = run_sweep(sweep([1, 2])).rows
    path = sweep([1]).store.result_path({"x": 1})
    # A whole result, carried over from a folder of another configuration.
    other = Sweep(function=squares, grid=Grid(axes={"x": [1]}), folder=tmp_path / "b", configuration={"own": 1})
    run_sweep(other)
    right = path.read_bytes()
    path.write_bytes(other.store.result_path({"x": 1}).read_bytes())
    with pytest.raises(StorageError, match="a result of another configuration; remove it"):
        run_sweep(sweep([1, 2]))
    # One of before sweeps were recorded, as the committed ones are.
    record = json.loads(right.decode().splitlines()[1])
    assert record.pop("sweep") == sweep([1]).store.fingerprint()
    body = json.dumps(record)
    path.write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")
    assert run_sweep(sweep([1, 2])).rows == first
    monkeypatch.setattr(sweep_store, "software_versions", lambda: {**software_versions(), "numpy": "99.0"})
    with pytest.warns(MixedSoftwareWarning, match=r"numpy \d+[\d.]+ and 99.0.*remove the folder"):
        rows = run_sweep(sweep([1, 2, 3])).rows
    assert [row["version_numpy"] for row in rows] == [first[0]["version_numpy"]] * 2 + ["99.0"]


@pytest.mark.exact
def test_what_is_not_applicable_is_told_once_per_reason_after_the_summary():
    row = a_report(Outcome.NOT_APPLICABLE).estimators[0]
    rows = [replace(row, estimator=name, problem=place) for place in ("a", "b") for name in ("one", "two")]
    other = replace(row, verdict=replace(row.verdict, reason="another"))
    judged = a_report(Outcome.PASSED).estimators[0]
    report = Report(estimators=(*rows, other, judged))
    lines = str(report).splitlines()
    assert lines[0].startswith("NOT VERIFIED: right on 1 of 6; only 1 could be judged (1 passed, 5 not applicable)")
    assert lines[2:4] == ["not applicable 4  one, two on a; b: a reason", "not applicable 1  mine on layered: another"]
    assert report.headline in html_report(report)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("passed", "other", "headline"),
    [
        ((3, 2), Outcome.NOT_APPLICABLE, "VERIFIED on 3 of 5 (3 passed, 2 not applicable)"),
        ((2, 2), Outcome.NO_POWER, "NOT VERIFIED: right on 2 of 4; only 2 could be judged (2 passed, 2 no power)"),
        ((1, 9), Outcome.MEASURED, "VERIFIED on 1 of 1 (1 passed, 9 measured)"),
        ((9, 1), Outcome.FAILED, "NOT VERIFIED: right on 9 of 10 (9 passed, 1 failed)"),
        ((1, 1), Outcome.EXPECTED, "VERIFIED on 2 of 2 (1 passed, 1 expected failure)"),
        ((0, 0), Outcome.FAILED, "NOT VERIFIED: right on 0 of 0; only 0 could be judged (nothing was checked)"),
    ],
)
def test_headlines_say_of_how_many(passed, other, headline):
    right, others = passed
    rows = [a_report(Outcome.PASSED).estimators[0]] * right + [a_report(other).estimators[0]] * others
    report = Report(estimators=tuple(rows))
    assert report.headline == headline
    assert report.passed == headline.startswith("VERIFIED")
    assert json.loads(report.to_json())["headline"] == headline


@pytest.mark.exact
def test_numbers_that_nothing_can_be_said_of_are_no_failed_check(tmp_path, capsys):
    stored = min(map(reference_problem, reference_names()), key=lambda one: one.digits_in_double)
    given = {stored.name: {"objective": str(float(stored.objective))}}
    record = {"format": RESULTS_FORMAT, "version": RESULTS_VERSION, "results": given}
    path = write_atomically(tmp_path / "results.json", json.dumps(record))
    assert main(["certify", str(path)]) == 2
    assert "0 passed, 0 failed, 1 without power" in capsys.readouterr().out
