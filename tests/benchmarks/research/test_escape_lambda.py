"""λ-returns on Four-Rooms: what the experiment measures is what it says."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from bilevelrl.benchmarks.research.escape import lambda_returns as escape_lambda
from bilevelrl.benchmarks.research.escape.lambda_returns import ARMS, exact_rows, learnt_rows
from bilevelrl.benchmarks.research.escape.lambda_runs import RUNS, final_objective, main
from bilevelrl.reference import leader_objective, named_stream
from bilevelrl.tasks import four_rooms

PROBLEM = four_rooms(temperature=0.005)


@pytest.mark.exact
def test_exact_critics_leave_truncation_alone_and_baselines_take_spread_away():
    rows = exact_rows(PROBLEM, np.zeros(105), steps=15)
    plain, completed = rows[0], [row for row in rows if row["gradient_decay"] == 1.0]
    assert plain["gradient_decay"] == "plain"
    # What is left is the leader's own truncation: the same for every λ and baseline.
    assert len({row["bias_norm"] for row in rows[1:]}) == 1
    spread = {row["baseline"]: row["spread"] for row in completed}
    assert spread["estimate"] <= spread["step"] < spread["value"] < spread[""]


@pytest.mark.exact
def test_before_anything_is_learnt_all_arms_say_the_same(monkeypatch):
    """With a critic of zeros there is no benefit and no guiding term; after a batch there is one, and arms differ."""
    rows = learnt_rows(PROBLEM, np.zeros(105), chains=2, settle=0, draws=1)
    before = [row for row in rows if row["critics"] == "previous batch"]
    after = [row for row in rows if row["critics"] == "same batch"]
    assert len(before) == len(after) == len(ARMS)
    assert len({row["bias_norm"] for row in before}) == 1
    assert len({row["bias_norm"] for row in after}) > len(ARMS) // 2
    monkeypatch.setattr(escape_lambda, "named_stream", lambda *names: named_stream(1, *names[1:]))
    other = learnt_rows(PROBLEM, np.zeros(105), chains=2, settle=0, draws=1)
    assert other[-1]["bias_norm"] != rows[-1]["bias_norm"]  # samples are what differs between streams


@pytest.mark.exact
def test_runs_start_alike_and_move(tmp_path):
    ends = [final_objective(PROBLEM, run, seed=0, iterations=3) for run in RUNS]
    assert len({round(end, 12) for end in ends}) > 1
    start = 0.01 * named_stream(0, "escape_lambda_runs").standard_normal(105)
    assert all(end != leader_objective(PROBLEM, start) for end in ends)
    output = tmp_path / "runs.csv"
    assert main(["--output", str(output), "--temperature", "0.005", "--seeds", "1", "--iterations", "3"]) == 0
    with output.open(encoding="utf-8") as file:
        found = [float(row["final_objective"]) for row in csv.DictReader(file)]
    assert found == [round(end, 5) for end in ends]
    written = output.read_text(encoding="utf-8").replace(str(found[0]), "0.125")
    output.write_text(written, encoding="utf-8")
    assert main(["--output", str(output), "--temperature", "0.005", "--seeds", "1", "--iterations", "3"]) == 0
    assert output.read_text(encoding="utf-8") == written  # nothing is run twice


@pytest.mark.exact
def test_temperatures_fall_in_the_first_half_to_their_own():
    continued = RUNS[-1]
    assert continued.temperature(0.005, 0.0) == pytest.approx(0.02)
    assert continued.temperature(0.005, 0.25) == pytest.approx(0.01)
    assert continued.temperature(0.005, 0.5) == continued.temperature(0.005, 0.9) == 0.005
    assert RUNS[0].temperature(0.005, 0.0) == 0.005
