"""Pictures: what is drawn is what was computed."""

import itertools
import sys

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import IllPosedError, InvalidInputError, MissingExtraError, ShapeError
from bilevelrl.reference.tabular.transitions import policy_transition
from bilevelrl.tasks import four_rooms, grid_rooms, random_mdp
from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID, FOUR_ROOMS_MARKS
from bilevelrl.tasks.pictures.paths import most_likely_path
from bilevelrl.tasks.pictures.rendering import draw_follower, draw_map, draw_penalties, draw_values

pytestmark = pytest.mark.exact
GRID = FOUR_ROOMS_GRID


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("seed", range(4))
def test_most_likely_path_against_all_simple_paths(seed):
    problem = random_mdp(states=5, actions=2, seed=seed, temperature=0.1)
    tables, policy = problem.tables_at(np.zeros(3)), solve_follower(problem, np.zeros(3)).policy
    matrix = policy_transition(tables.transition, policy) ** 3  # sharper, so that detours pay

    def likelihood(path):
        return np.prod([matrix[a, b] for a, b in itertools.pairwise(path)])

    paths = [(0, *inner, 4) for length in range(4) for inner in itertools.permutations((1, 2, 3), length)]
    best = max(paths, key=likelihood)
    assert tuple(most_likely_path(matrix[:, None, :], np.ones((5, 1)), 0, 4)) == best


def test_a_path_may_be_certain_and_may_not_exist():
    kernel = np.zeros((3, 1, 3))
    kernel[0, 0, 1] = kernel[1, 0, 2] = 1.0
    assert most_likely_path(kernel, np.ones((3, 1)), 0, 2) == [0, 1, 2]
    assert most_likely_path(kernel, np.ones((3, 1)), 1, 1) == [1]
    with pytest.raises(IllPosedError, match="start=2, stop=0: no path"):
        most_likely_path(kernel, np.ones((3, 1)), 2, 0)


def test_most_likely_path_of_a_sparse_kernel():
    sparse, dense = grid_rooms(room_size=3), grid_rooms(room_size=3, dense=True)
    theta = np.zeros(sparse.theta_shape)
    policy = solve_follower(dense, theta).policy
    found = [most_likely_path(p.tables_at(theta).transition, policy, 0, 30) for p in (sparse, dense)]
    assert found[0] == found[1]


def test_map_shows_walls_and_marks():
    axes = draw_map(GRID, marks=FOUR_ROOMS_MARKS, title="Four-Rooms")
    np.testing.assert_array_equal(axes.images[0].get_array(), GRID.free)
    assert {text.get_text(): text.xy[::-1] for text in axes.texts} == dict(FOUR_ROOMS_MARKS)
    assert axes.get_title(loc="left") == "Four-Rooms"


def test_heat_map_shows_the_penalties_where_they_are():
    theta = np.random.default_rng(0).standard_normal(105)
    axes = draw_penalties(GRID, four_rooms(), theta, marks=FOUR_ROOMS_MARKS)
    picture = axes.images[1].get_array()
    share = np.exp(theta) / np.exp(theta).sum()
    expected = 0.2 * share[:104]
    expected[GRID.index_of(FOUR_ROOMS_MARKS["goal"])] = 0.0
    np.testing.assert_allclose(picture[GRID.free].filled(), expected, rtol=1e-13)
    assert picture.mask[~GRID.free].all()
    assert axes.child_axes[0].get_ylabel() == "penalty per step"


def test_follower_goes_the_shortest_way_when_cold():
    axes = draw_follower(GRID, four_rooms(temperature=1e-3), np.zeros(105), marks=FOUR_ROOMS_MARKS)
    columns, rows = axes.lines[0].get_data()
    assert len(rows) == 12
    assert (rows[0], columns[0]) == FOUR_ROOMS_MARKS["start"]
    assert (rows[-1], columns[-1]) == FOUR_ROOMS_MARKS["goal"]
    assert (3, 6) in set(zip(rows, columns, strict=True))


def test_axes_given_are_used():
    _, axes = plt.subplots()
    assert draw_map(GRID, axes=axes) is axes


def test_scale_can_be_shared():
    small, large = (draw_values(GRID, np.full(104, v), label="v", largest=2.0).images[1] for v in (1.0, 2.0))
    assert small.norm.vmax == large.norm.vmax == 2.0
    assert draw_values(GRID, np.full(104, 0.5), label="v").images[1].norm.vmax == 0.5


def test_zero_values_are_drawn():
    axes = draw_values(GRID, np.zeros(104), label="nothing")
    axes.figure.canvas.draw()


def test_bad_arguments():
    with pytest.raises(ShapeError, match=r"values\.shape"):
        draw_values(GRID, np.zeros(3), label="short")
    with pytest.raises(InvalidInputError, match=r"values\[0\]=nan"):
        draw_values(GRID, np.full(104, np.nan), label="nan")
    with pytest.raises(InvalidInputError, match=">= 0"):
        draw_values(GRID, np.full(104, -1.0), label="negative")
    with pytest.raises(InvalidInputError, match="goal="):
        draw_map(GRID, marks={"goal": (0, 0)})
    with pytest.raises(InvalidInputError, match="named 'goal'"):
        draw_follower(GRID, four_rooms(), np.zeros(105), marks={"start": (1, 1)})


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bilevelrl\[cli\]'"):
        draw_map(GRID)
