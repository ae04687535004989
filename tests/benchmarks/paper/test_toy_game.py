"""The toy game's figures: the paper's numbers, gathering ends, tables, and the commands from start to pictures."""

import numpy as np
import pytest

from bilevelrl.benchmarks.paper.toy_game.tables import (
    constants,
    ends_table,
    grid_tables,
    paper_curve,
    paper_ends,
    setting_ends,
    variants_table,
)
from bilevelrl.benchmarks.paper.toy_game.training import (
    COUNTS,
    FIGURE_METHODS,
    SELECTED,
    VARIANTS,
    setting_training,
)
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators.training import PUBLISHED
from bilevelrl.reference import MarkovGame
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.verification.commands.command_line import main


def row_of(bonus=1, method="bc_hg", seed=0, end=27.0, variant="published", **more):
    return {
        "bonus": bonus,
        "method": method,
        "variant": variant,
        "seed": seed,
        "final_discounted_return": end,
        "final_undiscounted_return": 2.0 * end,
        "final_probability": 0.01 * end,
        "final_objective": end,
        **more,
    }


class TestPaper:
    def test_ends_of_all_settings_with_a_label(self):
        ends = paper_ends()
        assert {key[0] for key in ends} == {1, 2}
        assert {key[1] for key in ends} == set(FIGURE_METHODS)
        # Four counts for R = 1; five for R = 2, where Bi-AC has no setting with 20 actor updates that can be told.
        assert len(ends) == 5 * 16 + 3 * 25 + 2 * 20
        assert ends[2, "bc_hg", 1, 1] == (58.927, 0.852)
        assert ends[1, "bi_ac", 2, 10][1] is None

    @pytest.mark.parametrize("bonus", [1, 2])
    def test_curves_are_those_of_the_selected_settings(self, bonus):
        for method in FIGURE_METHODS:
            iteration, mean, error = paper_curve(bonus, method)
            assert np.array_equal(iteration, np.arange(10, 501, 10))
            end = paper_ends()[(bonus, method, *SELECTED[bonus][method])][0]
            assert mean[-3:].mean() == pytest.approx(end, abs=0.06 * abs(end) + 0.5)
            assert (error.max() > 0.0) == (method in ("bc_hg", "naive_pgd", "bi_ac_replay"))
        assert paper_curve(bonus, "exact") is None

    def test_constants_are_read_from_what_runs(self):
        rows = constants()
        assert len(rows) == 15
        assert all(row["ours"] == row["published"] for row in rows)


class TestTables:
    def test_ends_are_gathered_by_setting(self):
        rows = [row_of(seed=seed, end=26.0 + seed, iteration=k) for seed in range(3) for k in (0, 10)]
        (end,) = setting_ends(rows)
        assert end.setting == (1, "bc_hg", 10, 1)
        assert list(end.ends) == [26.0, 27.0, 28.0]
        assert list(end.probabilities) == pytest.approx([0.26, 0.27, 0.28])
        assert (end.paper_mean, end.paper_deviation) == (27.097, 0.3703)
        line = ends_table([end]).splitlines()[2]
        assert "27.00 ± 1.00" in line
        assert "27.10 ± 0.37 | -0.10" in line
        (undiscounted,) = setting_ends([row_of(bonus=2, actor_steps=20, critic_steps=2)])
        assert undiscounted.ends[0] == 54.0
        assert undiscounted.setting == (2, "bc_hg", 20, 2)

    def test_grids_say_how_they_agree(self):
        ends = paper_ends()
        rows = [
            row_of(end=ends[1, "bc_hg", actor, critic][0] + 1.0, actor_steps=actor, critic_steps=critic)
            for actor in COUNTS[:4]
            for critic in COUNTS[:4]
        ]
        shown = grid_tables(setting_ends(rows))
        assert "Over the 16 settings of both: mean difference +1.00, mean absolute difference 1.00" in shown
        assert "correlation 1.00" in shown
        assert "| 10 | 28.1 / 27.1 |" in shown

    def test_variants(self):
        shown = variants_table(setting_ends([row_of(variant=name) for name in ("published", "sound")]))
        assert "| nothing (as published) | 27.0 ± 0.0; p = 0.27 ± 0.00 |" in shown
        assert "| sound | 27.0" in shown

    def test_every_variant_undoes_something(self):
        assert all((options == PUBLISHED[MarkovGame]) == (name == "published") for name, options in VARIANTS.items())
        with pytest.raises(UnknownNameError, match="soundd"):
            setting_training(bonus=1, methods=["bc_hg"], actor_steps=1, critic_steps=1, variant="soundd")


class TestCommands:
    def test_returns_paths_and_errors(self, tmp_path, capsys):
        words = ["reproduce", "fig4", "--quick", "--seeds", "1", "--iterations", "3", "--output", str(tmp_path)]
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "Only 3 outer iterations" in shown
        assert "| 2 | Exact hypergradient | 1, 1 | 1 |" in shown
        rows = read_table(tmp_path / "curves.csv")
        assert {row["method"] for row in rows} == {"bc_hg", "naive_pgd", "bi_ac_replay", "exact_partial", "exact"}
        truth = [row for row in rows if row["method"] == "exact"]
        assert all(row["cosine"] == pytest.approx(1.0) for row in truth)
        assert all(row["expected_logit_direction"] == pytest.approx(row["logit_truth"], abs=2e-6) for row in truth)
        pytest.importorskip("matplotlib")
        for name in ("fig4", "fig4_paths", "fig4_errors"):
            assert (tmp_path / f"{name}.png").stat().st_size > 10_000

    def test_grid_and_switches(self, tmp_path, capsys):
        words = ["--quick", "--seeds", "1", "--iterations", "2", "--output"]
        assert main(["reproduce", "fig7", *words, str(tmp_path / "grid")]) == 0
        assert "| actor \\ critic | 1 | 10 |" in capsys.readouterr().out
        assert len(read_table(tmp_path / "grid" / "ends.csv")) == 2 * 3 * 4
        assert main(["reproduce", "toy_switches", *words, str(tmp_path / "switches")]) == 0
        assert "| sound |" in capsys.readouterr().out
        assert main(["reproduce", "table1", "--output", str(tmp_path / "constants")]) == 0
        assert "| minibatch | 64 | 64 |" in capsys.readouterr().out
