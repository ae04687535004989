"""Studies on own problems: every kind and every way to give an estimator, right numbers, kept cells, tidy tables."""

import csv
import math
import sys
import textwrap

import numpy as np
import pytest

from bilevelrl.benchmarks.sweeping.own_studies import plot_study, study
from bilevelrl.benchmarks.sweeping.sweeps import SweepError
from bilevelrl.estimators import BCHG
from bilevelrl.reference import hypergradient
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import building_thermal_control, lqr_game, random_mdp, toy_game_theta, toy_markov_game
from bilevelrl.verification.commands.command_line import main
from bilevelrl.verification.pipeline.studies import study_estimator

THETA = np.array([0.1, -0.2, 0.3])
QUICK = {"steps": 3, "samples": (1, 16), "replicates": 12}


def without_response(trajectories, context):
    return sum(part for name, part in BCHG().parts_per_draw(trajectories, context).items() if name != "response")


def bc_hg(trajectories, context):
    return sum(BCHG().parts_per_draw(trajectories, context).values())


@pytest.mark.exact
def test_moments_of_an_own_function_are_those_of_the_exact_law():
    problem = random_mdp()
    table = study({"right": bc_hg, "wrong": without_response, "named": "bc_hg"}, problem, THETA, **QUICK)
    assert len(table) == 6
    by = {(row["estimator"], row["samples"]): row for row in table}
    truth = hypergradient(problem, THETA, horizon=3)
    missing = np.linalg.norm(truth.parts["response"]) / np.linalg.norm(truth.value)
    # Cut streams see the response of cut streams only: the bias is what they miss, and nothing for the right one.
    assert by["wrong", 1]["bias"] > 0.02 * missing
    assert by["wrong", 1]["bias"] == by["wrong", 16]["bias"]
    for name in ("right", "wrong"):
        assert by[name, 1]["moments"] == "exact"
        assert by[name, 1]["standard_deviation"] == pytest.approx(4.0 * by[name, 16]["standard_deviation"])
    assert by["right", 1]["bias"] == pytest.approx(by["named", 1]["bias"], rel=1e-9, abs=1e-12)
    assert by["right", 1]["cost"] == 3
    again = study("naive_pgd", problem, THETA, **QUICK)
    assert set(again.column("estimator")) == {"naive_pgd"}
    assert [row["theta"] for row in again] == [0, 0]


@pytest.mark.exact
def test_old_studies_are_as_before():
    rows = study_estimator("naive_pgd", "layered", samples=(1, 16), replicates=20)
    assert rows[0].bias == rows[1].bias
    assert rows[0].level == "formula"


@pytest.mark.parametrize(
    ("problem", "theta", "estimator"),
    [
        (toy_markov_game(), toy_game_theta(0.4), "bc_hg_game"),
        (building_thermal_control(), np.full(8, 0.5), None),
        (lqr_game(), np.array([-9.7, -10.3]), None),
    ],
    ids=["game", "lqr", "lqr game"],
)
def test_every_kind_is_studied(problem, theta, estimator):
    from bilevelrl.estimators import estimators_for

    names = estimators_for(type(problem))
    chosen = estimator if estimator in names else next(iter(names))
    table = study(chosen, problem, theta, steps=2, samples=(4,), replicates=3)
    assert len(table) == 1
    assert all(math.isfinite(row["root_mean_square"]) for row in table)


def test_cells_are_kept_and_a_folder_belongs_to_one_study(tmp_path):
    problem, folder = random_mdp(), tmp_path / "kept"
    first = study("bc_hg", problem, [THETA, 2 * THETA], seeds=(0, 1), folder=folder, **QUICK)
    assert len(first) == 8
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    again = study("bc_hg", problem, [THETA, 2 * THETA], seeds=(0, 1, 2), folder=folder, **QUICK)
    assert [row for row in again if row["seed"] < 2] == first.rows
    assert all((folder / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    assert again.rows[-1]["cosine"] != first.rows[-1]["cosine"]
    for other in ({"problem": random_mdp(seed=1)}, {"estimators": "naive_pgd"}, {"replicates": 5}, {"thetas": [THETA]}):
        given = {"estimators": "bc_hg", "problem": problem, "thetas": [THETA, 2 * THETA], **QUICK} | other
        with pytest.raises(InvalidInputError, match="another configuration"):
            study(given.pop("estimators"), given.pop("problem"), given.pop("thetas"), folder=folder, **given)


def test_in_several_processes_the_rows_are_the_same():
    pytest.importorskip("joblib")
    options = {"seeds": (0, 1), **QUICK}
    here = study([without_response, "bc_hg"], random_mdp(), THETA, **options)
    there = study([without_response, "bc_hg"], random_mdp(), THETA, backend="joblib", workers=2, **options)
    assert here.rows == there.rows


def test_tables_and_figures(tmp_path):
    table = study(["bc_hg", "naive_pgd"], random_mdp(), [THETA, -THETA], steps=(2, 3), samples=(1, 4), replicates=4)
    assert len(table) == 2 * 2 * 2 * 2
    with table.to_csv(tmp_path / "t.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["bias"]) for row in read] == table.column("bias")
    pyarrow = pytest.importorskip("pyarrow") if "pyarrow" in sys.modules else None
    if pyarrow is not None:
        assert table.to_parquet(tmp_path / "t.parquet").exists()
    with pytest.raises(InvalidInputError, match=r"\.csv"):
        table.to_csv(tmp_path / "t.txt")
    pytest.importorskip("matplotlib")
    figure = plot_study(table, tmp_path / "t.png")
    assert len(figure.axes) == 4
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    for y in ("cosine", "bias", "standard_deviation"):
        plot_study(table, y=y)
    with pytest.raises(InvalidInputError, match="one of"):
        plot_study(table, y="colour")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"steps": 0}, InvalidInputError, "steps"),
        ({"seeds": (-1,)}, InvalidInputError, "seeds"),
        ({"seeds": (0, 0)}, InvalidInputError, "twice"),
        ({"samples": ()}, InvalidInputError, "samples"),
        ({"replicates": 1}, InvalidInputError, "replicates"),
        ({"estimators": [3]}, InvalidInputError, "a name, an Estimator or a function"),
        ({"estimators": ["bc_hg", "bc_hg"]}, InvalidInputError, "different names"),
        ({"estimators": []}, InvalidInputError, "at least one"),
        ({"estimators": "bc_hgg"}, SweepError, "bc_hg"),
        ({"estimators": lambda visited, context: np.zeros((1, 7))}, SweepError, "cells failed"),
    ],
)
def test_what_cannot_be_studied_is_named(change, error, match):
    given = {"estimators": "bc_hg", "problem": random_mdp(), "thetas": THETA, **QUICK} | change
    with pytest.raises(error, match=match):
        study(given.pop("estimators"), given.pop("problem"), given.pop("thetas"), **given)


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_to_study.py").write_text(
        textwrap.dedent("""
            from bilevelrl.estimators import BCHG
            from bilevelrl.tasks import random_mdp as make

            def half(trajectories, context):
                return 0.5 * sum(BCHG().parts_per_draw(trajectories, context).values())
        """)
    )
    monkeypatch.chdir(tmp_path)
    words = ["study", "--problem", "mine_to_study:make", "--estimator", "bc_hg", "mine_to_study:half", "--steps", "2"]
    words += ["--samples", "1", "4", "--replicates", "4", "--folder", "kept", "--plot", "study.svg"]
    assert main(words) == 0
    assert "wrote study.csv: 4 rows" in capsys.readouterr().out
    assert (tmp_path / "study.svg").exists()
    assert main(["study", "--estimator", "bc_hg", "--steps", "2"]) == 2
    assert "--problem" in capsys.readouterr().err
