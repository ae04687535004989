"""Grids of rooms: the sparse problem is the dense one, and its cost grows with the number of states, not its square."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from bilevelrl.reference import SparseTransition, check_derivatives, hypergradient
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import grid_rooms
from bilevelrl.tasks.generators.grid_rooms import PENALTY_KINDS
from bilevelrl.tasks.paper.penalties import LinearPenalties, SigmoidPenalties, SoftmaxPenalties
from bilevelrl.tasks.paper.room_grid import RoomGrid

pytestmark = pytest.mark.exact


@pytest.mark.parametrize("penalties", PENALTY_KINDS)
@pytest.mark.parametrize("rooms_per_side", [1, 2, 3])
def test_sparse_and_dense_twins_agree(penalties, rooms_per_side):
    options = {"rooms_per_side": rooms_per_side, "room_size": 4, "penalties": penalties}
    sparse, dense = grid_rooms(**options), grid_rooms(**options, dense=True)
    theta = np.random.default_rng(rooms_per_side).standard_normal(sparse.theta_shape)
    ours, twin = hypergradient(sparse, theta), hypergradient(dense, theta)
    assert isinstance(sparse.tables(theta).transition, SparseTransition)
    np.testing.assert_array_equal(sparse.tables(theta).transition.to_dense(), dense.tables(theta).transition)
    assert ours.objective == pytest.approx(twin.objective, rel=1e-13)
    tolerance = ours.error_bound + twin.error_bound
    for part in ("direct", "response"):
        assert np.max(np.abs(ours.parts[part] - twin.parts[part])) <= tolerance
        assert np.max(np.abs(twin.parts[part])) > 1e3 * tolerance, "the comparison must be able to fail"


def test_a_twin_with_another_kernel_would_be_seen():
    sparse, wrong = grid_rooms(room_size=4), grid_rooms(room_size=4, intended=0.67 - 1e-6, dense=True)
    theta = np.zeros(sparse.theta_shape)
    ours, twin = hypergradient(sparse, theta), hypergradient(wrong, theta)
    assert np.max(np.abs(ours.value - twin.value)) > 10 * (ours.error_bound + twin.error_bound)


@pytest.mark.parametrize("penalties", PENALTY_KINDS)
def test_another_route_agrees(penalties):
    problem = grid_rooms(room_size=3, penalties=penalties, temperature=0.01)
    theta = np.random.default_rng(0).standard_normal(problem.theta_shape)
    adjoint, forward = hypergradient(problem, theta), hypergradient(problem, theta, route="theorem1")
    tolerance = adjoint.error_bound + forward.error_bound
    assert np.max(np.abs(adjoint.value - forward.value)) <= tolerance < 1e-5 * np.max(np.abs(adjoint.value))


@pytest.mark.parametrize("penalties", PENALTY_KINDS)
def test_closed_forms_agree_with_autograd(penalties):
    problem = grid_rooms(room_size=3, penalties=penalties)
    errors = check_derivatives(problem, np.random.default_rng(0).standard_normal(problem.theta_shape))
    assert len(errors) == 4
    assert max(errors.values()) < 100 * np.finfo(float).eps


@pytest.mark.parametrize(("rooms_per_side", "room_size"), [(1, 1), (1, 4), (2, 5), (3, 2), (5, 1)])
def test_layout(rooms_per_side, room_size):
    grid = RoomGrid.of_rooms(rooms_per_side, room_size)
    doors = 2 * rooms_per_side * (rooms_per_side - 1)
    assert grid.states == (rooms_per_side * room_size) ** 2 + doors
    for border in (grid.free[0], grid.free[-1], grid.free[:, 0], grid.free[:, -1]):
        assert not border.any()
    rows = np.arange(grid.states).repeat(4)
    graph = csr_array((np.ones(rows.size), (rows, grid.successor.ravel())), shape=(grid.states, grid.states))
    assert connected_components(graph, directed=False)[0] == 1
    if rooms_per_side > 1:
        # Without its doors the map falls into its rooms.
        pitch = room_size + 1
        closed = grid.free.copy()
        closed[::pitch] = closed[:, ::pitch] = False
        rooms = RoomGrid(free=closed)
        rows = np.arange(rooms.states).repeat(4)
        graph = csr_array((np.ones(rows.size), (rows, rooms.successor.ravel())), shape=(rooms.states, rooms.states))
        assert connected_components(graph, directed=False)[0] == rooms_per_side**2


def test_gradient_has_the_symmetry_of_the_map():
    grid = RoomGrid.of_rooms(3, 4)
    exact = hypergradient(grid_rooms(rooms_per_side=3, room_size=4), np.zeros(grid.states))
    picture = np.zeros(grid.free.shape)
    picture[grid.free] = exact.value
    assert np.max(np.abs(picture - picture.T)) <= 2 * exact.error_bound
    assert np.max(np.abs(picture - picture[::-1])) > 1e-4  # not just constant


def peak_bytes_per_state(problem):
    """Peak of NumPy's memory while one hypergradient is computed, its error bound (which needs ∇tables) left out."""
    theta = np.zeros(problem.theta_shape)
    problem.varying(theta)
    tracemalloc.start()
    hypergradient(problem, theta, bound=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / theta.size


MOST_BYTES_PER_STATE = 1_000
"""Eight arrays of shape (S, 4, 4). One (S, 4, S) kernel or one (S, 4, N) Jacobian takes more from 32 states on."""


@pytest.mark.parametrize("penalties", PENALTY_KINDS)
def test_memory_grows_with_the_states_only(penalties):
    small, large = (peak_bytes_per_state(grid_rooms(rooms_per_side=rooms, penalties=penalties)) for rooms in (10, 20))
    assert max(small, large) < MOST_BYTES_PER_STATE
    assert large < 1.2 * small


def test_memory_of_a_jacobian_would_be_seen():
    problem = grid_rooms(rooms_per_side=6)

    def through_the_jacobian(theta, cotangents):
        jacobian = problem.tables_jacobian(theta)
        return sum(np.tensordot(cotangent, jacobian[name], axes=2) for name, cotangent in cotangents.items())

    wasteful = dataclasses.replace(problem, tables_pullback=through_the_jacobian)
    theta = np.zeros(problem.theta_shape)
    np.testing.assert_allclose(
        hypergradient(wasteful, theta, bound=False).value, hypergradient(problem, theta, bound=False).value, atol=1e-15
    )
    assert peak_bytes_per_state(wasteful) > 4 * MOST_BYTES_PER_STATE


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rooms_per_side": 0}, InvalidInputError, "rooms_per_side=0"),
        ({"room_size": 0}, InvalidInputError, "room_size=0"),
        ({"penalties": "softmx"}, UnknownNameError, "did you mean 'softmax'"),
        ({"mean_penalty": -1.0}, InvalidInputError, "mean_penalty=-1.0"),
        ({"intended": 1.5}, InvalidInputError, "intended=1.5"),
        ({"coefficient": np.inf}, InvalidInputError, "coefficient=inf"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        grid_rooms(**options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftmaxPenalties(cells=0, budget=1.0),
        lambda: SoftmaxPenalties(cells=1, budget=0.0),
        lambda: SigmoidPenalties(cells=1, largest=-1.0),
        lambda: LinearPenalties(cells=1, scale=np.nan),
    ],
)
def test_bad_penalties(make):
    with pytest.raises(InvalidInputError, match="expected"):
        make()
