"""The certified data in other hands: readers in R, JavaScript and C, `certify.py` on its own, and the archive."""

import hashlib
import importlib.util
import json
import math
import shutil
import subprocess
import tarfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.reference_problems.archive import archive_bytes
from bilevelrl.benchmarks.reference_problems.archive import main as archive
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import StorageError
from bilevelrl.tasks import reference_problem
from bilevelrl.tasks.scenarios import reference_problems
from bilevelrl.verification.commands.command_line import main

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[2]
READERS = ROOT / "docs" / "examples" / "readers"
FOLDER = Path(str(resources.files("bilevelrl.tasks") / "data"))

# Every link, quadratic tables, offsets, support, scales of each form, strings for numbers, θ in one table alone.
PROBLEMS = (
    "mdp_temperature_1", "mdp_layered", "mdp_sparse", "mdp_terminating", "mdp_terminating_slow", "mdp_corridor_8_4",
    "mdp_rewards_1e-06_temperature_1e-07", "mdp_near_periodic_7_temperature_1", "mdp_fork_0.01_0.99_1",
    "mdp_discount_0.9999", "mdp_theta_in_initial", "mdp_one_action", "four_rooms_0.001",
)  # fmt: skip


def command(reader, folder):
    """How a reader is run; skipped where its language is missing."""
    language = reader.suffix
    program = {".R": "Rscript", ".js": "node", ".c": "gcc", ".jl": "julia"}[language]
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    if language == ".R" and subprocess.run(["Rscript", "-e", "library(jsonlite)"], capture_output=True).returncode:
        pytest.skip("R without jsonlite")
    if language == ".jl" and subprocess.run(["julia", "-e", "using JSON"], capture_output=True).returncode:
        pytest.skip("Julia without JSON")
    if language == ".c":
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Werror", "-Wno-misleading-indentation", "-o", folder / "reader", reader, "-lm"],
            check=True,
        )
        return [folder / "reader"]
    return [program, reader]


def digits(run, name):
    done = subprocess.run([*run, FOLDER / f"{name}.json"], capture_output=True, text=True, check=True)
    return {quantity: float(number) for quantity, number in map(str.split, done.stdout.splitlines())}


def attainable(stored):
    """Digits that doubles leave to the formula of the readers.

    Rounding the file costs what is stored beside it. Rounding the follower's values, V, costs eps |V| / β in the logits
    of its policy, whatever the algorithm; the adjoint systems may enlarge that by their condition. A decimal and a
    half is for the operations between.
    """
    problem, theta = stored.problem(), stored.theta()
    follower = solve_follower(problem, theta)
    values = max(1.0, float(np.abs(follower.value).max()) / problem.temperature)
    floating = -math.log10(np.finfo(float).eps * values * max(1.0, stored.condition))
    return max(0.0, min(stored.digits_in_double, floating) - 1.5)


@pytest.fixture(scope="module", params=["recompute.R", "recompute.js", "recompute.c", "recompute.jl"])
def reader(request, tmp_path_factory):
    return READERS / request.param, command(READERS / request.param, tmp_path_factory.mktemp("reader"))


def test_readers_recompute_the_answer(reader):
    _, run = reader
    for name in PROBLEMS:
        found, least = digits(run, name), attainable(reference_problem(name))
        assert set(found) == {"objective", "gradient", "initial", "direct", "transition", "response", "regulariser"}
        assert min(found.values()) >= least, (name, found, least)
    assert min(digits(run, "mdp_layered").values()) >= 15.9 - 1.5


@pytest.mark.parametrize(
    "change",
    [
        {"c": ("(Q[p] - mean) / beta", "(mean - Q[p]) / beta"), "R": ("/ beta\ny <-", "/ -beta\ny <-"),
         "js": ("(QL[p] - mean[Math.floor(p / A)])) / beta", "(mean[Math.floor(p / A)] - QL[p])) / beta")},
        {"c": ("1 - z[i] * z[i]", "1 + z[i] * z[i]"), "R": ("1 - y^2", "1 + y^2"), "js": ("1 - v * v", "1 + v * v")},
    ],
    ids=["sign of the benefit", "slope of tanh"],
)  # fmt: skip
def test_a_planted_mistake_has_no_digits(reader, change, tmp_path):
    source, _ = reader
    if source.suffix[1:] not in change:
        pytest.skip("planted in the readers that are run")
    right, wrong = change[source.suffix[1:]]
    text = source.read_text(encoding="utf-8")
    assert text.count(right) == 1
    copy = tmp_path / source.name
    copy.write_text(text.replace(right, wrong), encoding="utf-8")
    found = digits(command(copy, tmp_path), "mdp_temperature_1")
    assert found["gradient"] < 2
    assert found["response"] < 2
    assert found["initial"] > 13


def test_readers_refuse_other_kinds_and_stay_short(reader):
    source, run = reader
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 100
    for name in ("toy_game_1_even", "mdp_horizon_5_discounted"):
        done = subprocess.run([*run, FOLDER / f"{name}.json"], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "without horizon" in done.stderr


# --- certify.py -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone():
    specification = importlib.util.spec_from_file_location("certify_alone", READERS / "certify.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_certify_alone_imports_the_standard_library_only():
    text = (READERS / "certify.py").read_text(encoding="utf-8")
    assert "bilevelrl." not in text.replace('"bilevelrl-', "")
    assert "numpy" not in text


def doubles(stored, *, off=0.0):
    parts = {part: [float(entry) for entry in column] for part, column in stored.parts.items()}
    parts["response"][0] += off
    return {"objective": float(stored.objective), "gradient": [float(x) for x in stored.gradient], "parts": parts}


def written(path, results):
    path.write_text(json.dumps({"format": "bilevelrl-results", "version": 1, "results": results}))
    return path


@pytest.mark.parametrize("options", [[], ["--json"], ["--digits", "12"], ["--digits", "17", "--json"]])
def test_certify_alone_says_what_the_command_says(alone, options, tmp_path, capsys):
    every = {stored.name: doubles(stored, off=1e-7 * (i % 3)) for i, stored in enumerate(reference_problems())}
    every["mdp_one_state"] = {"gradient": [str(x.value) for x in reference_problem("mdp_one_state").gradient]}
    every["mdp_layered"] = {"objective": "-0.538304597912259", "parts": {"initial": [0, "1e-2", 0.5]}}
    path = written(tmp_path / "results.json", every)
    status, said = main(["certify", str(path), *options]), capsys.readouterr().out
    assert (alone.main([str(path), str(FOLDER), *options]), capsys.readouterr().out) == (status, said)
    for name in ("mdp_one_state", "mdp_fork_0.001_0.9999_1000000", "toy_game_1_even"):
        path = written(tmp_path / "one.json", {name: every[name]})
        status, said = main(["certify", str(path), *options]), capsys.readouterr().out
        assert (alone.main([str(path), str(FOLDER), *options]), capsys.readouterr().out) == (status, said)


@pytest.mark.parametrize(
    "results",
    [
        {"nobody": {"objective": 1}}, {"mdp_one_state": {}}, {"mdp_one_state": {"parts": {"respons": [1, 2]}}}, {},
        {"mdp_one_state": {"gradient": [1]}}, {"mdp_one_state": {"objective": float("nan")}}, [1],
        {"mdp_one_state": {"objective": "1/0"}}, {"mdp_one_state": {"objective": "1e99999"}},
        {"mdp_one_state": {"objective": True}}, {"mdp_one_state": {"slope": 1}}, {"mdp_one_state": {"parts": {}}},
    ],
)  # fmt: skip
def test_certify_alone_refuses_what_the_command_refuses(alone, results, tmp_path, capsys):
    path = written(tmp_path / "results.json", results)
    assert main(["certify", str(path)]) == 2
    capsys.readouterr()
    assert alone.main([str(path), str(FOLDER)]) == 2
    assert capsys.readouterr().err.startswith("certify: ")
    path.write_text("{")
    assert alone.main([str(path), str(FOLDER)]) == 2
    assert alone.main([str(tmp_path / "none.json"), str(FOLDER)]) == 2


# --- the archive ------------------------------------------------------------------------------------------------


def test_the_archive_has_the_same_bytes_again_and_sums_that_hold(tmp_path):
    assert archive(["--output", str(tmp_path)], report=lambda line: None) == 0
    (packed,) = tmp_path.glob("*.tar")
    first = packed.read_bytes()
    assert archive_bytes(ROOT, packed.stem) == first
    checksum, name = (tmp_path / f"{packed.name}.sha256").read_text().split()
    assert (checksum, name) == (hashlib.sha256(first).hexdigest(), packed.name)
    with tarfile.open(packed) as opened:
        opened.extractall(tmp_path, filter="data")
    top = tmp_path / packed.stem
    sums = dict(line.split()[::-1] for line in (top / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    assert set(files) == {*sums, "SHA256SUMS"}
    assert {name: hashlib.sha256(files[name]).hexdigest() for name in sums} == sums
    assert {"mdp_one_state.json", "schema.json", "README.md", "LICENSE", "readers/certify.py"} <= set(sums)
    with pytest.raises(StorageError, match="checkout"):
        archive_bytes(tmp_path / "nothing", "x")
