"""Diagrams and maps: what they draw is what the problems say."""

from itertools import pairwise

import numpy as np
import pytest

from bilevelrl.benchmarks.paper.gallery import SNAPSHOTS, snapshots
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import four_rooms, initial_theta, random_markov_game, toy_markov_game
from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS
from bilevelrl.tasks.pictures.diagram import draw_game, game_moves
from bilevelrl.tasks.pictures.paths import intended_path, most_likely_path
from bilevelrl.verification.commands.command_line import main


@pytest.mark.exact
@pytest.mark.parametrize("bonus", [1.0, 2.0])
def test_moves_of_the_toy_game_give_back_its_tables(bonus):
    game = toy_markov_game(bonus)
    transition = np.zeros_like(game.transition)
    follower, leader = np.full_like(game.reward_follower, np.nan), np.full_like(game.reward_leader, np.nan)
    for move in game_moves(game):
        for pair in move.pairs:
            transition[(move.state_t, *pair, move.state_tp1)] += 1.0
            follower[(move.state_t, *pair)] = move.reward_follower
            leader[(move.state_t, *pair)] = move.reward_leader
    np.testing.assert_array_equal(transition, game.transition)
    np.testing.assert_array_equal(follower, game.reward_follower)
    np.testing.assert_array_equal(leader, game.reward_leader)


@pytest.mark.exact
def test_labels_of_the_toy_game_and_refusals():
    pytest.importorskip("matplotlib")
    axes = draw_game(toy_markov_game(2.0), state_names="SAB", action_names="sab")
    texts = {line for text in axes.texts for line in text.get_text().split("\n")}
    assert {"*|a: +1 (+1)", "1|*: -1", "0|s: 0", "0|b: +2", "*|a,b: 0"} <= texts
    with pytest.raises(InvalidInputError, match="3 names"):
        draw_game(toy_markov_game(), state_names="SA", action_names="sab")
    with pytest.raises(InvalidInputError, match="probability 0 or 1"):
        game_moves(random_markov_game(seed=0))


@pytest.mark.exact
def test_the_intended_path_follows_the_policy_and_never_circles():
    problem = four_rooms(temperature=0.001)
    follower = solve_follower(problem, np.zeros(105))
    kernel = problem.tables_at(np.zeros(105)).transition
    start, goal = (FOUR_ROOMS_GRID.index_of(FOUR_ROOMS_MARKS[name], name) for name in ("start", "goal"))
    path = intended_path(kernel, follower.policy, start, goal)
    assert (path[0], path[-1], len(path)) == (start, goal, 12)
    for state_t, state_tp1 in pairwise(path):
        assert kernel[state_t, follower.policy[state_t].argmax()].argmax() == state_tp1
    away = np.zeros_like(follower.policy)
    away[:, 0] = 1.0  # always up: the first wall ends it
    stuck = intended_path(kernel, away, start, goal)
    assert stuck[-1] != goal
    assert len(stuck) == len(set(stuck)) == 4
    assert most_likely_path(kernel, follower.policy, start, goal)[-1] == goal


@pytest.mark.exact
def test_snapshots_are_of_the_wanted_iterations(tmp_path):
    rows = snapshots({"method": "naive_pgd"}, {"iterations": 100, "seed": 1}, tmp_path / "unused.npz")
    assert sorted({row["iteration"] for row in rows}) == [0, 10, 30, 100]
    assert len(rows) == 4 * 105
    other = snapshots({"method": "naive_pgd"}, {"iterations": 100, "seed": 2}, tmp_path / "unused.npz")
    assert [row["theta"] for row in rows[:105]] != [row["theta"] for row in other[:105]]
    assert np.std([row["theta"] for row in rows[:105]]) == pytest.approx(
        initial_theta(np.random.default_rng(0)).std(), rel=0.4
    )
    assert SNAPSHOTS[0] == 0


@pytest.mark.exact
def test_the_commands_draw(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["reproduce", "fig1", "--output", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "fig1.png").stat().st_size > 10_000
    assert len(read_table(tmp_path / "one" / "curves.csv")) == 18
    words = ["reproduce", "maps", "--iterations", "20", "--output", str(tmp_path / "two")]
    assert main(words) == 0
    assert "| Naive-PGD | 20 |" in capsys.readouterr().out
    assert (tmp_path / "two" / "maps_bc_hg.png").stat().st_size > 10_000
