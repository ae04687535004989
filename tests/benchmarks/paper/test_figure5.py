"""Figure 5 made anew: arms, rows, tables and pictures, and the results that are kept."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.paper.bilevel_lqr.figures import GOAL, paper_curve, paper_end
from bilevelrl.benchmarks.paper.bilevel_lqr.training import ARMS, SWITCHES, game_sweep
from bilevelrl.benchmarks.reproduce import make_figure
from bilevelrl.benchmarks.research.bilevel_lqr.spreads import BatchDirections
from bilevelrl.benchmarks.sweeping.figures import FigureOptions, get_figure
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.benchmarks.sweeping.sweeps import run_sweep
from bilevelrl.estimators.training import lqr_game_training
from bilevelrl.reference import leader_objective
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.tasks import lqr_game

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
LONGER = ("policy/0.001", "critic/0.1")
pytestmark = pytest.mark.exact


def settings_of(**changes):
    training = lqr_game_training(lqr_game(), "bc_hg", seeds=[0], **changes)
    return {name: value for name, value in training.describe().items() if name != "problem"}


def test_switches_lead_from_one_set_up_to_the_other():
    published, sound = settings_of(published=True), settings_of()
    changes = {"averages": "quadrature"}  # no fault: how averages are formed
    for switch in SWITCHES.values():
        assert settings_of(published=True, **switch.towards("published")) == published
        assert settings_of(**switch.towards("sound")) == sound
        before = settings_of(published=True, **changes)
        changes |= switch.towards("sound")
        assert settings_of(published=True, **changes) != before
    assert settings_of(published=True, **changes) == sound


def test_every_cause_changes_one_thing():
    bases = {name.split("/")[0] for name, arm in ARMS.items() if arm.part == "causes"}
    assert bases == {"from_published", "from_sound", "from_exact_critic", "from_naive"}
    for base in ("from_published", "from_sound"):
        none = ARMS[f"{base}/none"]
        for name, switch in SWITCHES.items():
            arm = ARMS[f"{base}/{name}"]
            assert arm.published == none.published
            assert set(arm.changes) - set(none.changes) == {switch.field}


def test_rows_tables_and_pictures(tmp_path):
    rows = run_sweep(
        game_sweep(
            tmp_path / "cells",
            seeds=2,
            iterations=6,
            points=3,
            arms=[
                "published/naive_pgd_off",
                "leaders/pathwise",
                "from_sound/modes",
                "steps/naive_pgd_on/2",
                "noise/sampled/critic/0.1",
            ],
        )
    ).rows
    runs = [row for row in rows if row["kind"] == "run"]
    assert [row["seed"] for row in runs] == [0, 1] * 5
    game = lqr_game()
    for row in rows:
        if row["kind"] == "curve" and row["iteration"] == 0:
            gain = np.array([row["theta_0"], row["theta_1"]])
            exact = leader_objective(game, gain, horizon=100, discounted=False)
            assert row["objective_undiscounted"] == pytest.approx(exact, abs=1e-5)
    figure, options = get_figure("fig5"), FigureOptions(seeds=2, iterations=6)
    table = figure.table(rows, options)
    for word in (
        "Naive-PGD (off-policy)",
        "pathwise BC-HG",
        "with: critic's targets at modes",
        "ascent steps",
        "0.1 in the critic's data",
    ):
        assert word in table
    written = figure.draw(tmp_path, rows, options)
    assert [path.name for path in written] == ["fig5.png", "fig5_paths.png", "fig5_errors.png"]
    assert all(path.stat().st_size > 1000 for path in written)


def test_the_command_writes_what_is_kept(tmp_path):
    arms = ["leaders/pathwise", "steps/naive_pgd_on/1"]

    def rows(folder, options, run):
        return run(game_sweep(folder / "cells", seeds=options.seeds, iterations=30, points=6, arms=arms))

    figure = replace(get_figure("fig5"), rows=rows, draw=lambda folder, rows, options: [])
    make_figure(figure, tmp_path, FigureOptions(seeds=2, iterations=30))
    runs, curves = (read_table(tmp_path / name) for name in ("fig5_runs.csv", "fig5_curves.csv"))
    assert [(row["arm"], row["seed"]) for row in runs] == [(arm, seed) for arm in arms for seed in (0, 1)]
    assert list(runs[0]) == list(read_table(RESULTS / "fig5_runs.csv")[0])
    # Every second point and the last one, of arms that are drawn.
    assert {row["arm"] for row in curves} == {"leaders/pathwise"}
    assert [row["iteration"] for row in curves if row["seed"] == 0] == [0, 10, 20, 29]
    assert list(curves[0]) == list(read_table(RESULTS / "fig5_curves.csv")[0])
    whole = read_table(tmp_path / "curves.csv")
    last = [row for row in whole if row["kind"] == "curve" and row["arm"] == arms[0] and row["iteration"] == 29]
    assert [row["theta_0"] for row in curves if row["iteration"] == 29] == [round(row["theta_0"], 3) for row in last]


def test_what_is_kept_is_complete():
    runs, curves = (read_table(RESULTS / name) for name in ("fig5_runs.csv", "fig5_curves.csv"))
    assert {row["arm"] for row in runs} == set(ARMS)
    assert {row["arm"] for row in curves} == {
        name for name, arm in ARMS.items() if arm.part in ("published", "leaders")
    }
    for name, arm in ARMS.items():
        assert [row["seed"] for row in runs if row["arm"] == name] == list(range(min(20, arm.most_seeds)))


def test_what_clipping_leaves():
    estimates, truth = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]), np.array([0.0, 2.0])
    left = BatchDirections(estimates=estimates, truth=truth).clipped()
    assert left.share == pytest.approx(1 / 3)
    np.testing.assert_allclose(left.mean, [0.3, 0.4])
    np.testing.assert_allclose(left.standard_error, np.std([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], axis=0) / np.sqrt(2))
    np.testing.assert_allclose(left.truth, [0.0, 1.0])
    # On the scale of the estimates: over Σ γ^t for scores, and as it is along paths.
    scores, paths = (BatchDirections.draw((-9.9, -9.5), form, batches=1) for form in ("scores", "pathwise"))
    np.testing.assert_allclose(paths.truth, scores.truth * np.sum(0.99 ** np.arange(100)), rtol=1e-12)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean 'leaders'"):
        game_sweep(Path("none"), parts=["leader"])
    with pytest.raises(UnknownNameError, match="arm"):
        game_sweep(Path("none"), arms=["published/bc_h"])


def test_the_papers_curves():
    for method in ("bc_hg", "naive_pgd_on", "naive_pgd_off"):
        x, mean, spread = paper_curve(method)
        end, error = paper_end(method)
        late = x >= 480
        assert mean[late].mean() == pytest.approx(end, rel=0.1)
        assert spread[late].mean() == pytest.approx(error, rel=0.15)
    assert paper_curve("pathwise") is None


def kept() -> Mapping[str, list[dict]]:
    rows = read_table(RESULTS / "fig5_runs.csv")
    return {arm: [row for row in rows if row["arm"] == arm] for arm in dict.fromkeys(row["arm"] for row in rows)}


def test_kept_results_say_what_the_documents_say():
    arms = kept()
    for arm in ("leaders/pathwise", "leaders/pathwise_raw", "leaders/exact"):
        assert [row["seed"] for row in arms[arm]] == list(range(20))
        assert min(row["end"] for row in arms[arm]) > GOAL
    assert max(row["best"] for row in arms["leaders/pathwise_partial"]) < 1.0
    assert max(row["end"] for row in arms["published/bc_hg"]) < 1.0
    assert min(row["end"] for row in arms["from_exact_critic/fitted"]) > GOAL
    assert sum(row["end"] > GOAL for row in arms["from_exact_critic/none"]) == 2
    wider = {name: np.median([row["median_cosine"] for row in arms[f"noise/longer/{name}"]]) for name in LONGER}
    assert wider["policy/0.001"] < 0.1 < 0.8 < wider["critic/0.1"]
    game = lqr_game()
    for row in arms["leaders/pathwise"][:3]:
        gain = np.array([row["last_theta_0"], row["last_theta_1"]])
        assert leader_objective(game, gain, horizon=100, discounted=False) == pytest.approx(row["end"], abs=5e-3)
