"""The paper's figures trained anew: configurations, curves, comparisons and the commands."""

import numpy as np
import pytest

from bilevelrl.benchmarks.paper.four_rooms import search as four_rooms_search
from bilevelrl.benchmarks.paper.four_rooms.figures import HEAD, compare
from bilevelrl.benchmarks.paper.four_rooms.search import best_of_stages, search_cell
from bilevelrl.benchmarks.paper.four_rooms.selection import (
    SELECTION_SEEDS,
    Setting,
    choose,
    chosen_settings,
    finalists,
    settings_of,
)
from bilevelrl.benchmarks.paper.four_rooms.training import VARIANTS, panel_cell, panel_sweep, panel_training
from bilevelrl.benchmarks.paper.paper_curves import paper_curve
from bilevelrl.benchmarks.sweeping.comparisons import comparison_table
from bilevelrl.benchmarks.sweeping.curves import curve_rows
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.benchmarks.trainings import make_training
from bilevelrl.estimators.training import Run, train
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import random_mdp
from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_KERNELS
from bilevelrl.verification.commands.command_line import main


@pytest.mark.exact
@pytest.mark.parametrize("temperature", [0.001, 0.003, 0.005])
def test_curves_start_where_the_papers_do_in_the_planners_kernel_only(temperature):
    start = paper_curve(temperature, 100, "BC-HG").mean[0]
    found = {}
    for variant in VARIANTS:
        training = panel_training(
            variant=variant, temperature=temperature, batch_steps=100, methods=["naive_pgd"], seeds=2, iterations=1
        )
        found[variant] = train(training).objective[0]
    # θ_0 is drawn with scale .01, gradients there have norm .01, entries of the mean of ten seeds vary by less.
    assert np.abs(found["published"] - start).max() < 1e-3
    assert np.array_equal(found["published"], found["planner"])
    assert np.abs(found["paper"] - start).min() > 0.05


@pytest.mark.exact
def test_panels_are_configured_as_published():
    training = panel_training(variant="published", temperature=0.003, batch_steps=1000, seeds=5)
    assert (training.streams, training.steps, training.largest_norm) == (5, 200, 1.0)
    assert (training.simulator.step_limit, training.simulator.single_episode) == (200, False)
    counts = {run.method: sum(other.method == run.method for other in training.runs) for run in training.runs}
    few = {"naive_pgd": 2, "sobirl": 2, "exact": 2}
    assert counts == {"bc_hg": 5, "hpgd_mc": 5, "hpgd_sa": 5, **few}
    theta = np.zeros(105)

    def intended(problem):
        return float(problem.tables_at(theta).transition[31].max())  # of the start cell, from which every move is free

    assert intended(training.problem) == pytest.approx(FOUR_ROOMS_KERNELS["planner"])
    assert intended(training.simulator.dynamics) == pytest.approx(FOUR_ROOMS_KERNELS["paper"])
    alone = panel_training(variant="paper", temperature=0.003, batch_steps=100, seeds=1)
    assert alone.simulator.dynamics is None
    assert intended(alone.problem) == pytest.approx(FOUR_ROOMS_KERNELS["paper"])
    with pytest.raises(UnknownNameError, match="did you mean 'planner'"):
        panel_training(variant="planer", temperature=0.003, batch_steps=100)
    with pytest.raises(InvalidInputError, match="batch_steps=300"):
        panel_training(variant="planner", temperature=0.003, batch_steps=300)
    with pytest.raises(InvalidInputError, match="no such curve"):
        paper_curve(0.002, 100, "BC-HG")


@pytest.mark.exact
def test_thinned_curves_average_what_lies_between_their_points():
    training = panel_training(
        variant="planner", temperature=0.005, batch_steps=100, methods=["exact"], seeds=1, iterations=61
    )
    history = train(training)
    rows = curve_rows(history, points=3)
    assert [row["iteration"] for row in rows] == [0, 20, 40, 60]
    assert rows[0]["objective"] == pytest.approx(history.objective[0, 0], abs=1e-6)
    assert rows[2]["objective"] == pytest.approx(history.objective[3:5, 0].mean(), abs=1e-6)
    assert rows[2]["final_objective"] == pytest.approx(history.objective[-1, 0], abs=1e-6)


@pytest.mark.exact
def test_comparisons_take_one_end_per_seed_and_the_papers_own():
    row = {"variant": "published", "temperature": 0.001, "batch_steps": 100, "method": "bc_hg", "objective": 0.0}
    row |= {"learning_rate": 0.1, "critic_step_size": 0.7}
    ends = (0.5, 0.6, 0.7)
    rows = [
        {**row, "seed": seed, "iteration": iteration, "final_objective": end}
        for seed, end in enumerate(ends)
        for iteration in (0, 5000)
    ]
    (found,) = compare(rows)
    theirs = paper_curve(0.001, 100, "BC-HG")
    assert (found.runs, found.mean) == (3, pytest.approx(0.6))
    assert (found.paper_mean, found.paper_error) == (0.6674, 0.01) == (theirs.final_mean, theirs.final_standard_error)
    assert found.distance == pytest.approx((0.6 - 0.6674) / np.hypot(0.1 / np.sqrt(3.0), 0.01))
    (early,) = compare(rows, whole=False)
    assert early.paper_mean == theirs.mean[list(theirs.iteration).index(5000)]
    (unshown,) = compare([{**rows[0], "method": "exact"}])
    assert unshown.paper_mean is None
    assert unshown.difference is None
    table = comparison_table(HEAD, [found])
    assert "| BC-HG | 0.1 / 0.7 |" in table
    assert "0.667 ± 0.010 | -0.067" in table


@pytest.mark.exact
def test_the_command_trains_draws_and_continues(tmp_path, capsys):
    words = ["reproduce", "fig2", "--iterations", "30", "--seeds", "1", "--untuned", "--temperature", "0.005"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Only 30 outer iterations" in shown
    for title in ("BC-HG", "HPGD (MC)", "HPGD (SA)", "Naive-PGD", "SoBiRL", "exact ascent"):
        assert f"| {title} |" in shown
    pytest.importorskip("matplotlib")
    assert (tmp_path / "fig2-published.png").stat().st_size > 5_000
    rows = read_table(tmp_path / "curves.csv")
    assert {row["seed"] for row in rows} == {0}
    assert {"version_numpy", "learning_rate", "entropy", "variant"} <= set(rows[0])
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert capsys.readouterr().out == shown
    assert main([*words[:-1], "0.003", "--seeds", "2", "--output", str(tmp_path)]) == 2
    assert "another configuration" in capsys.readouterr().err


SEARCH = {"short": 3, "long": 5, "entropy": 0}
PANEL = {"variant": "published", "temperature": 0.005, "batch_steps": 100}


def search(method, path, **lengths):
    rows = search_cell({**PANEL, "method": method}, {**SEARCH, **lengths}, path)
    return [{**PANEL, "method": method, **row} for row in rows]


@pytest.mark.exact
def test_a_search_has_two_stages_on_seeds_of_its_own(tmp_path):
    rows = search("hpgd_mc", tmp_path / "one.npz")
    short, long = ([row for row in rows if row["stage"] == stage] for stage in ("short", "long"))
    assert len(short) == 4 * len(SELECTION_SEEDS)
    assert {row["seed"] for row in rows} == set(SELECTION_SEEDS)
    assert {row["iterations"] for row in long} == {5}
    # Without a critic there is one setting per learning rate, and all are finalists.
    assert {row["learning_rate"] for row in long} == {0.5, 0.1, 0.05, 0.01}
    assert {row["critic_step_size"] for row in rows} == {None}
    history = train(panel_training(**PANEL, runs=[Run(method="hpgd_mc", seed=101, learning_rate=0.1)], iterations=5))
    (own,) = (row for row in long if row["learning_rate"] == 0.1 and row["seed"] == 101)
    assert own["score"] == pytest.approx(history.final(0.1)[0], abs=1e-5)
    assert not list(tmp_path.glob("*.npz"))
    best = best_of_stages(rows + search("naive_pgd", tmp_path / "two.npz"))
    assert set(best[100, 0.005, "hpgd_mc"]) == {"short", "long"}
    assert set(best[100, 0.005, "naive_pgd"]) == {"short"}  # hardly depends on the seed
    critics = search("bc_hg", tmp_path / "three.npz", short=1, long=2)
    tried = {(row["learning_rate"], row["critic_step_size"]) for row in critics if row["stage"] == "short"}
    assert len(tried) == 18  # of 24, without the rate that never leaves the plateau
    assert {row["learning_rate"] for row in critics} == {0.5, 0.1, 0.05}


@pytest.mark.exact
def test_an_interrupted_search_ends_in_the_same_rows(tmp_path, monkeypatch):
    whole = search("hpgd_mc", tmp_path / "whole.npz", long=12)

    def train_and_stop(training, **options):
        history = train(training, **options, callbacks=[lambda found: found.iteration < 10])
        if not history.finished:
            raise KeyboardInterrupt
        return history

    interrupted = tmp_path / "interrupted.npz"
    with monkeypatch.context() as patch:
        patch.setattr(four_rooms_search, "train", train_and_stop)
        with pytest.raises(KeyboardInterrupt):
            search("hpgd_mc", interrupted, long=12)
    assert interrupted.with_name("interrupted-long.npz").exists()
    assert search("hpgd_mc", interrupted, long=12) == whole


@pytest.mark.exact
def test_choices_are_refused_where_settings_cannot_be_compared():
    row = {"method": "bc_hg", "learning_rate": 0.1, "critic_step_size": 0.5, "seed": 100, "score": 0.1}
    other = {**row, "learning_rate": 0.5, "score": 0.2}
    assert choose([row, other])["bc_hg"] == Setting(learning_rate=0.5)
    assert choose([row, {**other, "score": 0.1}])["bc_hg"] == Setting(learning_rate=0.1)
    low = [{**row, "learning_rate": 0.01, "score": 0.9}, {**row, "critic_step_size": 0.7, "score": 0.0}]
    third = {**row, "critic_step_size": 0.9, "score": -0.1}
    # Two for each learning rate, but none of the lowest.
    assert finalists([row, other, *low, third])["bc_hg"] == [
        Setting(learning_rate=0.5),
        Setting(learning_rate=0.1),
        Setting(learning_rate=0.1, critic_step_size=0.7),
    ]
    with pytest.raises(InvalidInputError, match="every setting on the same seeds"):
        choose([row, {**row, "seed": 101}, other])
    with pytest.raises(InvalidInputError, match="expected a finite number"):
        choose([{**row, "score": float("nan")}])
    assert len(settings_of("hpgd_sa")) == 24
    assert len(settings_of("sobirl")) == 4


@pytest.mark.exact
def test_a_panel_trains_the_chosen_settings(tmp_path):
    sweep = panel_sweep(tmp_path, methods=["hpgd_sa", "exact"], seeds=2, iterations=3, points=1)
    assert len(sweep.grid) == 3
    configuration = {**sweep.configuration, "settings": {"100": {"0.005": {"hpgd_sa": [0.05, 0.9]}}}}
    rows = panel_cell(PANEL, configuration, tmp_path / "one.npz")
    settings = {row["method"]: (row["learning_rate"], row["critic_step_size"]) for row in rows}
    assert settings == {"hpgd_sa": (0.05, 0.9), "exact": (0.5, None)}
    elsewhere = panel_cell({**PANEL, "temperature": 0.003, "batch_steps": 200}, configuration, tmp_path / "two.npz")
    # Exact ascent has no samples, so one batch size says it all.
    assert {(row["method"], row["learning_rate"], row["critic_step_size"]) for row in elsewhere} == {
        ("hpgd_sa", 0.1, 0.5)
    }
    chosen = chosen_settings(0.003, 400)["bc_hg"]
    assert sweep.configuration["settings"]["400"]["0.003"]["bc_hg"] == [chosen.learning_rate, chosen.critic_step_size]
    untuned = panel_sweep(tmp_path, tuned=False)
    assert untuned.configuration["settings"] == {}


@pytest.mark.exact
def test_the_quick_search_runs_from_the_command_line(tmp_path, capsys):
    words = ["reproduce", "step_sizes", "--quick", "--iterations", "4", "--temperature", "0.003"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert "| 0.003 | 100 | HPGD (MC) | rate " in capsys.readouterr().out
    chosen = read_table(tmp_path / "four_rooms_settings.csv")
    assert [(row["temperature"], row["method"]) for row in chosen] == [(0.003, "hpgd_mc"), (0.003, "naive_pgd")]
    assert {row["learning_rate"] for row in chosen} <= {0.5, 0.1, 0.05, 0.01}


@pytest.mark.exact
def test_training_from_the_command_line(tmp_path, capsys):
    words = ["train", "--temperature", "0.005", "--method", "exact", "naive_pgd", "--seeds", "1", "--iterations", "12"]
    assert main([*words, "--optimiser", "adam", "--output", str(tmp_path)]) == 0
    assert "exact ascent" in capsys.readouterr().out
    rows = read_table(tmp_path / "history.csv")
    assert {row["iteration"] for row in rows} == {0, 10, 11}
    assert np.load(tmp_path / "theta.npy").shape == (2, 105)
    assert main([*words[:4], "exactt"]) == 2
    assert "did you mean 'exact'" in capsys.readouterr().err
    assert main(["train", "--task", "random_mdp", "--iterations", "2", "--steps", "10", "--seeds", "1"]) == 0
    assert "BC-HG" in capsys.readouterr().out  # θ enters the dynamics: run by run
    assert main(["train", "--method", "values_leader", "--iterations", "1", "--steps", "5", "--seeds", "1"]) == 0
    assert "search on a model" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "sweeping",
        "soft_q_learning",
        "expected_soft_q_learning",
        "natural_policy_gradient",
        "exact_natural_policy_gradient",
        "imitation",
    ],
)
def test_train_command_with_a_follower_that_has_not_converged(name, capsys):
    words = ["train", "--task", "random_mdp", "--method", "naive_pgd", "--iterations", "2", "--seeds", "1"]

    def off(*more):
        assert main([*words, *more]) == 0
        return float((capsys.readouterr().out.partition("|V_F - V_F*| ")[2] or "0").split()[0])

    assert off() == off("--follower", "exact") == 0.0
    few, many = (off("--follower", name, "--follower-effort", effort) for effort in ("1", "300"))
    assert few > 0.0
    assert many < few
    assert main([*words, "--follower-effort", "3"]) == 2
    assert "--follower-effort=3: expected a --follower of" in capsys.readouterr().err


@pytest.mark.exact
@pytest.mark.parametrize(
    ("task", "methods", "title"),
    [
        ("toy_markov_game", ["bc_hg", "exact"], "Exact hypergradient"),
        ("building_thermal_control", ["exact", "exact_partial", "--clip-blocks", "4", "4"], "exact"),
        ("lqr_game", ["bc_hg", "naive_pgd_on", "--published"], "BC-HG"),
    ],
)
def test_every_kind_of_task_trains_from_the_command_line(task, methods, title, tmp_path, capsys):
    words = ["train", "--task", task, "--iterations", "2", "--seeds", "1", "--output", str(tmp_path), "--method"]
    assert main([*words, *methods]) == 0
    assert title in capsys.readouterr().out
    assert {"objective", "cosine", "relative_error"} <= set(read_table(tmp_path / "history.csv")[0])
    assert main(["train", "--task", task, "--method", "bchg"]) == 2
    assert "did you mean 'bc_hg'" in capsys.readouterr().err


@pytest.mark.exact
def test_methods_of_two_kinds_and_settings_of_another_are_refused(capsys):
    assert main(["train", "--method", "bc_hg", "model_leader", "--iterations", "1"]) == 2
    assert "methods of one kind" in capsys.readouterr().err
    with pytest.raises(InvalidInputError, match="has no such setting"):
        make_training(random_mdp(seed=0), ["exact"], seeds=1, iterations=1, setup="x")
    with pytest.raises(UnsupportedError, match="problem of type int"):
        make_training(3, ["exact"], seeds=1, iterations=1)
