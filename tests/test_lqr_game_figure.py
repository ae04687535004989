"""Figure 5 made anew: arms, rows, tables and pictures, and the results that are kept."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.experiments.lqr_game_figures import GOAL, paper_curve, paper_end
from bilevelrl.benchmarks.experiments.lqr_game_training import ARMS, SWITCHES, game_sweep
from bilevelrl.benchmarks.sweeping.figures import FigureOptions, get_figure
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.benchmarks.sweeping.sweeps import run_sweep
from bilevelrl.estimators.training.lqr_game import PUBLISHED, SOUND, changed
from bilevelrl.reference import leader_objective
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.tasks import lqr_game

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
pytestmark = pytest.mark.exact


def test_switches_lead_from_one_set_up_to_the_other():
    setup = PUBLISHED
    for switch in SWITCHES.values():
        assert changed(PUBLISHED, switch.published) == PUBLISHED
        assert changed(SOUND, switch.sound) == SOUND
        assert changed(setup, switch.sound) != setup
        setup = changed(setup, switch.sound)
    # What remains is not a fault: how averages are formed, and clipping, which BC-HG has in both.
    assert changed(setup, {"form.averages": "quadrature", "clipping": "all"}) == SOUND


def test_every_cause_changes_one_thing():
    bases = {name.split("/")[0] for name, arm in ARMS.items() if arm.part == "causes"}
    assert bases == {"from_published", "from_sound", "from_exact_critic", "from_naive"}
    for base in ("from_published", "from_sound"):
        none = ARMS[f"{base}/none"].setup
        for name in SWITCHES:
            assert ARMS[f"{base}/{name}"].setup != none


def test_rows_tables_and_pictures(tmp_path):
    rows = run_sweep(
        game_sweep(
            tmp_path / "cells",
            seeds=2,
            iterations=6,
            points=3,
            arms=["published/naive_pgd_off", "leaders/pathwise", "from_sound/modes", "steps/naive_pgd_on/2"],
        )
    ).rows
    runs = [row for row in rows if row["kind"] == "run"]
    assert [row["seed"] for row in runs] == [0, 1] * 4
    game = lqr_game()
    for row in rows:
        if row["kind"] == "curve" and row["iteration"] == 0:
            gain = np.array([row["theta_0"], row["theta_1"]])
            exact = leader_objective(game, gain, horizon=100, discounted=False)
            assert row["objective_undiscounted"] == pytest.approx(exact, abs=1e-5)
    figure, options = get_figure("fig5"), FigureOptions(seeds=2, iterations=6)
    table = figure.table(rows, options)
    for word in ("Naive-PGD (off-policy)", "pathwise BC-HG", "with: critic's targets at modes", "ascent steps"):
        assert word in table
    written = figure.draw(tmp_path, rows, options)
    assert [path.name for path in written] == ["fig5.png", "fig5_paths.png", "fig5_errors.png"]
    assert all(path.stat().st_size > 1000 for path in written)


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
    game = lqr_game()
    for row in arms["leaders/pathwise"][:3]:
        gain = np.array([row["last_theta_0"], row["last_theta_1"]])
        assert leader_objective(game, gain, horizon=100, discounted=False) == pytest.approx(row["end"], abs=5e-3)
