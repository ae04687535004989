"""The paper's figures trained anew: configurations, curves, comparisons and the commands."""

import numpy as np
import pytest

from bilevelrl.benchmarks import four_rooms_training
from bilevelrl.benchmarks.comparisons import comparison_table
from bilevelrl.benchmarks.curves import curve_rows
from bilevelrl.benchmarks.four_rooms_figures import compare
from bilevelrl.benchmarks.four_rooms_selection import SELECTION_SEEDS, Setting, choose, settings_of
from bilevelrl.benchmarks.four_rooms_training import VARIANTS, panel_cell, panel_training
from bilevelrl.benchmarks.paper_curves import paper_curve
from bilevelrl.benchmarks.sweep_store import read_table
from bilevelrl.estimators.training import train
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import FOUR_ROOMS_KERNELS
from bilevelrl.verification.command_line import main


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
    few = {"hpgd_oracle": 3, "naive_pgd": 3, "sobirl": 3, "exact": 3}
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
    assert "0.667 ± 0.010 | -0.067" in comparison_table(("kernels", "β", "steps", "method"), [found])


@pytest.mark.exact
def test_the_command_trains_draws_and_continues(tmp_path, capsys):
    words = ["reproduce", "fig2", "--iterations", "30", "--seeds", "1", "--search", "0", "--temperature", "0.005"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Only 30 outer iterations" in shown
    for title in ("BC-HG", "HPGD (MC)", "HPGD (SA)", "Naive-PGD", "SoBiRL", "exact ascent"):
        assert f"| {title} |" in shown
    pytest.importorskip("matplotlib")
    assert (tmp_path / "fig2-published.png").stat().st_size > 10_000
    rows = read_table(tmp_path / "curves.csv")
    assert {row["seed"] for row in rows} == {0}
    assert {"version_numpy", "learning_rate", "entropy", "variant"} <= set(rows[0])
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.json")}
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert capsys.readouterr().out == shown
    assert main([*words[:-1], "0.003", "--seeds", "2", "--output", str(tmp_path)]) == 2
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.exact
def test_a_panel_trains_the_settings_that_its_search_chose(tmp_path):
    cell = {"variant": "published", "temperature": 0.005, "batch_steps": 200}
    common = {"methods": ["hpgd_mc", "exact"], "seeds": 2, "iterations": 4, "entropy": 0, "points": 2}
    rows = panel_cell(cell, {**common, "search_iterations": 3}, tmp_path / "one.npz")
    searched, reported = ([row for row in rows if row["stage"] == stage] for stage in ("selection", "reported"))
    # Exact ascent samples nothing, so it runs with the smallest batches only.
    assert {row["method"] for row in rows} == {"hpgd_mc"}
    assert {row["seed"] for row in searched} == set(SELECTION_SEEDS)
    assert {row["seed"] for row in reported} == {0, 1}
    assert len(searched) == 3 * len(settings_of("hpgd_mc"))
    best = choose(searched)["hpgd_mc"]
    assert {row["learning_rate"] for row in reported} == {best.learning_rate}
    assert {row["critic_step_size"] for row in rows} == {None}
    means = {}
    for row in searched:
        means.setdefault(row["learning_rate"], []).append(row["score"])
    assert best.learning_rate == max(means, key=lambda rate: np.mean(means[rate]))
    assert len({round(float(np.mean(each)), 5) for each in means.values()}) > 1
    untuned = panel_cell(cell, {**common, "search_iterations": 0}, tmp_path / "two.npz")
    assert {row["learning_rate"] for row in untuned} == {0.1}
    assert not list(tmp_path.glob("*selection*"))


@pytest.mark.exact
def test_an_interrupted_search_ends_in_the_same_rows(tmp_path, monkeypatch):
    cell = {"variant": "published", "temperature": 0.005, "batch_steps": 100}
    common = {"methods": ["hpgd_mc"], "seeds": 1, "iterations": 12, "entropy": 0, "points": 2, "search_iterations": 11}
    whole = panel_cell(cell, common, tmp_path / "whole.npz")

    def train_and_stop(training, **options):
        history = train(training, **options, callbacks=[lambda found: found.iteration < 10])
        if not history.finished:
            raise KeyboardInterrupt
        return history

    interrupted = tmp_path / "interrupted.npz"
    with monkeypatch.context() as patch:
        patch.setattr(four_rooms_training, "train", train_and_stop)
        with pytest.raises(KeyboardInterrupt):
            panel_cell(cell, common, interrupted)
    assert interrupted.with_name("interrupted-selection.npz").exists()
    again = panel_cell(cell, common, interrupted)
    untimed = [
        [{k: v for k, v in row.items() if k != "cpu_ms_per_iteration"} for row in rows] for rows in (whole, again)
    ]
    assert untimed[0] == untimed[1]


@pytest.mark.exact
def test_choices_are_refused_where_settings_cannot_be_compared():
    row = {"method": "bc_hg", "learning_rate": 0.1, "critic_step_size": 0.5, "seed": 100, "score": 0.1}
    other = {**row, "learning_rate": 0.5, "score": 0.2}
    assert choose([row, other])["bc_hg"] == Setting(learning_rate=0.5)
    assert choose([row, {**other, "score": 0.1}])["bc_hg"] == Setting(learning_rate=0.1)
    with pytest.raises(InvalidInputError, match="every setting on the same seeds"):
        choose([row, {**row, "seed": 101}, other])
    with pytest.raises(InvalidInputError, match="expected a finite number"):
        choose([{**row, "score": float("nan")}])
    assert len(settings_of("hpgd_sa")) == 24
    assert len(settings_of("sobirl")) == 4


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
    assert main(["train", "--task", "toy_markov_game"]) == 2
    assert "expected a configurable MDP" in capsys.readouterr().err
