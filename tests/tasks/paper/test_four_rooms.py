"""Four-Rooms: geometry, kernels, rewards, closed forms, and the known exact numbers."""

import dataclasses

import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path

from bilevelrl.reference import check_derivatives, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.derivatives.autodiff import softmax
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError
from bilevelrl.tasks import contextual_four_rooms, four_rooms, initial_theta
from bilevelrl.tasks.paper.four_rooms import FOUR_ROOMS_GRID, FOUR_ROOMS_KERNELS, GOAL, SECOND_GOAL, START, TARGET
from bilevelrl.tasks.paper.room_grid import RoomGrid

pytestmark = pytest.mark.exact
GRID = FOUR_ROOMS_GRID

# temperature, kernel: V_F(start), J, norms of the direct part, of the response part and of the hypergradient at θ = 0
KNOWN = {
    (0.001, "planner"): (0.704837, -0.740644, 0.007096, 0.000742, 0.007138),
    (0.001, "paper"): (0.781462, -0.805230, 0.007706, 0.000875, 0.007759),
    (0.003, "planner"): (0.720763, -0.725819, 0.006956, 0.001690, 0.007222),
    (0.003, "paper"): (0.794000, -0.797169, 0.007629, 0.001214, 0.007760),
    (0.005, "planner"): (0.759828, -0.667413, 0.006436, 0.006186, 0.009210),
    (0.005, "paper"): (0.819958, -0.763028, 0.007306, 0.003998, 0.008531),
}
HALF_A_DIGIT = 5.1e-7


@pytest.mark.parametrize(("temperature", "kernel"), KNOWN)
def test_known_numbers(temperature, kernel):
    problem, theta = four_rooms(temperature=temperature, kernel=kernel), np.zeros(105)
    exact, follower = hypergradient(problem, theta), solve_follower(problem, theta)
    found = (
        follower.value[GRID.index_of(START)],
        exact.objective,
        *(np.linalg.norm(vector) for vector in (exact.parts["direct"], exact.parts["response"], exact.value)),
    )
    np.testing.assert_allclose(found, KNOWN[temperature, kernel], rtol=0.0, atol=HALF_A_DIGIT)
    # The tolerance tells the kernels apart, and an error of one unit in the last digit.
    other = KNOWN[temperature, "paper" if kernel == "planner" else "planner"]
    assert np.all(np.abs(np.subtract(found, other)) > 10 * HALF_A_DIGIT)
    for part in ("initial", "transition", "regulariser"):
        assert not exact.parts[part].any()


@pytest.mark.parametrize(
    ("temperature", "policy"),
    [
        (0.001, (0.0110, 0.9880, 0.0000, 0.0010)),
        (0.003, (0.1607, 0.7125, 0.0370, 0.0898)),
        (0.005, (0.2383, 0.4310, 0.1389, 0.1918)),
    ],
)
def test_known_policy_at_the_start(temperature, policy):
    follower = solve_follower(four_rooms(temperature=temperature), np.zeros(105))
    np.testing.assert_allclose(follower.policy[GRID.index_of(START)], policy, rtol=0.0, atol=5.1e-5)


@pytest.mark.parametrize(
    ("temperature", "goal", "objectives"),
    [
        (0.001, GOAL, (-0.1475, -0.4441, -0.7406)),
        (0.001, SECOND_GOAL, (0.7238, 0.4706, 0.2174)),
        (0.003, GOAL, (-0.1443, -0.4350, -0.7258)),
        (0.003, SECOND_GOAL, (0.5443, 0.2993, 0.0543)),
        (0.005, GOAL, (-0.1293, -0.3984, -0.6674)),
        (0.005, SECOND_GOAL, (0.4928, 0.2835, 0.0742)),
    ],
)
def test_known_objectives_of_both_goals(temperature, goal, objectives):
    found = [
        leader_objective(four_rooms(temperature=temperature, goal=goal, coefficient=coefficient), np.zeros(105))
        for coefficient in (1.0, 3.0, 5.0)
    ]
    np.testing.assert_allclose(found, objectives, rtol=0.0, atol=5.1e-5)


def test_map():
    assert GRID.states == 104
    assert [GRID.index_of(cell) for cell in ((1, 1), (1, 5), (1, 7), (2, 1))] == [0, 4, 5, 10]
    assert [GRID.index_of(cell) for cell in (START, GOAL, TARGET, SECOND_GOAL)] == [31, 7, 66, 103]
    assert [GRID.cell_of(GRID.index_of(cell)) for cell in (START, GOAL)] == [START, GOAL]
    doors = {(3, 6), (6, 2), (7, 9), (10, 6)}
    crossing = {
        (r, c) for r in range(13) for c in range(13) if GRID.free[r, c] and (c == 6 or (r == (6 if c < 6 else 7)))
    }
    assert crossing == doors
    graph = np.zeros((104, 104))
    graph[np.arange(104)[:, None], GRID.successor] = 1.0
    np.fill_diagonal(graph, 0.0)
    steps = shortest_path(graph, unweighted=True)
    start, goal, target = (GRID.index_of(cell) for cell in (START, GOAL, TARGET))
    assert (steps[start, goal], steps[start, target], steps[target, goal]) == (11, 7, 16)
    np.testing.assert_array_equal(steps, steps.T)


@pytest.mark.parametrize(("kernel", "intended", "other"), [("planner", 0.56, 0.44 / 3), ("paper", 0.67, 0.11)])
def test_kernel_cell_by_cell(kernel, intended, other):
    table = four_rooms(kernel=kernel).tables_at(np.zeros(105)).transition
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    free = {tuple(cell): state for state, cell in enumerate(GRID.cells.tolist())}
    expected = np.zeros((104, 4, 104))
    for (row, column), state in free.items():
        if (row, column) == GOAL:
            continue  # the step in the goal is the last
        for action in range(4):
            for direction, (down, right) in enumerate(moves):
                reached = free.get((row + down, column + right), state)
                expected[state, action, reached] += intended if direction == action else other
    np.testing.assert_allclose(table, expected, rtol=0.0, atol=4e-16)
    assert FOUR_ROOMS_KERNELS[kernel] == pytest.approx(intended, abs=1e-15)


def test_rewards_entry_by_entry():
    theta = initial_theta(np.random.default_rng(3), scale=1.0)
    share = np.exp(theta) / np.exp(theta).sum()
    tables = four_rooms(coefficient=4.0, budget=0.3).tables_at(theta)
    follower, leader = -0.3 * share[:104], np.zeros(104)
    follower[7], leader[66] = 1.0, 1.0
    leader[7] = -4.0 * 0.3 * (1.0 - share[104])
    for action in range(4):
        np.testing.assert_allclose(tables.reward_follower[:, action], follower, rtol=1e-14)
        np.testing.assert_allclose(tables.reward_leader[:, action], leader, rtol=1e-14)
    np.testing.assert_array_equal(np.flatnonzero(tables.initial), [31])


def test_goal_ends_the_episode():
    temperature = 0.005
    follower = solve_follower(four_rooms(temperature=temperature), np.zeros(105))
    assert follower.value[7] == pytest.approx(1.0 + temperature * np.log(4.0), rel=1e-14)
    np.testing.assert_allclose(follower.policy[7], 0.25, rtol=1e-14)


def test_kernel_is_one_read_only_array():
    problem = four_rooms()
    first = problem.tables(np.zeros(105)).transition
    assert problem.tables(np.ones(105)).transition is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 1.0


@pytest.mark.parametrize("coordinates", ["logits", "shares"])
def test_closed_forms_agree_with_autograd(coordinates):
    problem = four_rooms(coordinates=coordinates, goal=(2, 3), budget=0.5)
    theta = np.random.default_rng(0).uniform(0.0, 2.0, size=problem.theta_shape)
    errors = check_derivatives(problem, theta)
    assert len(errors) == 4
    # Pullbacks sum over a hundred terms of order one.
    assert max(errors.values()) < 104 * np.finfo(float).eps


def test_wrong_closed_forms_are_caught():
    problem, theta = four_rooms(), initial_theta(np.random.default_rng(1), scale=1.0)

    def charges_the_goal(theta):
        jacobian = problem.tables_jacobian(theta)
        jacobian["reward_follower"][7] = jacobian["reward_follower"][8]
        return jacobian

    def forgets_the_normalisation(theta, cotangents):
        return softmax(theta) * np.append(-0.2 * cotangents.get("reward_follower", np.zeros((104, 4))).sum(axis=1), 0.0)

    wrong = dataclasses.replace(problem, tables_jacobian=charges_the_goal)
    assert check_derivatives(wrong, theta)["jacobian of reward_follower"] > 1e-6
    wrong = dataclasses.replace(problem, tables_pullback=forgets_the_normalisation)
    assert check_derivatives(wrong, theta)["pullback of reward_follower"] > 1e-6


def test_tables_at_a_complex_step():
    problem, theta = four_rooms(), initial_theta(np.random.default_rng(2), scale=1.0)
    direction = np.random.default_rng(3).standard_normal(105)
    stepped, jacobian = problem.tables(theta + 1e-30j * direction), problem.jacobian(theta)
    for name in ("reward_follower", "reward_leader"):
        slope = getattr(stepped, name).imag / 1e-30
        np.testing.assert_allclose(slope, jacobian[name] @ direction, rtol=1e-12, atol=1e-16)


def test_logits_follow_from_shares_by_the_chain_rule():
    theta = initial_theta(np.random.default_rng(4), scale=1.0)
    share = softmax(theta)
    in_logits = hypergradient(four_rooms(temperature=0.005), theta)
    in_shares = hypergradient(four_rooms(temperature=0.005, coordinates="shares"), share[:-1])
    assert in_logits.objective == pytest.approx(in_shares.objective, rel=1e-13)
    slope = np.append(in_shares.value, 0.0)
    expected = share * (slope - share @ slope)
    tolerance = in_logits.error_bound + in_shares.error_bound
    assert np.max(np.abs(in_logits.value - expected)) <= tolerance < 1e-5 * np.max(np.abs(expected))
    # A constant added to all logits changes nothing.
    assert abs(in_logits.value.sum()) < 105 * np.finfo(float).eps * np.abs(in_logits.value).sum()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel": "planer"}, UnknownNameError, "did you mean 'planner'"),
        ({"coordinates": "share"}, UnknownNameError, "did you mean 'shares'"),
        ({"goal": (0, 0)}, InvalidInputError, "goal="),
        ({"start": (6, 6)}, InvalidInputError, "start="),
        ({"target": (13, 1)}, InvalidInputError, "target="),
        ({"target": (-1, 1)}, InvalidInputError, "target="),
        ({"budget": 0.0}, InvalidInputError, "budget="),
        ({"coefficient": np.nan}, InvalidInputError, "coefficient="),
        ({"temperature": 0.0}, InvalidInputError, "temperature="),
        ({"discount_leader": 1.0}, InvalidInputError, "discount_leader="),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        four_rooms(**options)


def test_bad_theta_and_start():
    with pytest.raises(ShapeError, match=r"theta\.shape"):
        hypergradient(four_rooms(), np.zeros(104))
    with pytest.raises(InvalidInputError, match="scale="):
        initial_theta(np.random.default_rng(0), scale=-1.0)
    with pytest.raises(InvalidInputError, match="size="):
        initial_theta(np.random.default_rng(0), size=0)


@pytest.mark.parametrize(
    ("text", "message"), [("xx\nx", "same length"), ("x.x", "only 'x'"), ("xxx\nxxx", "at least one free cell")]
)
def test_bad_maps(text, message):
    with pytest.raises(InvalidInputError, match=message):
        RoomGrid.from_text(text)


def test_bad_grid_arguments():
    with pytest.raises(ShapeError, match=r"free\.shape"):
        RoomGrid(free=np.ones(3, dtype=bool))
    with pytest.raises(InvalidInputError, match="intended="):
        FOUR_ROOMS_GRID.kernel(1.1)
    with pytest.raises(InvalidInputError, match="terminal="):
        FOUR_ROOMS_GRID.kernel(0.5, terminal=((0, 0),))


@pytest.mark.parametrize(
    ("temperature", "first", "second"),
    [
        (0.001, (-0.1475, -0.4441, -0.7406), (0.7238, 0.4706, 0.2174)),
        (0.003, (-0.1443, -0.4350, -0.7258), (0.5443, 0.2993, 0.0543)),
        (0.005, (-0.1293, -0.3984, -0.6674), (0.4928, 0.2835, 0.0742)),
    ],
)
def test_both_goals_are_worth_what_somebody_else_computed(temperature, first, second):
    """At θ = 0, with coefficients 1, 3 and 5, in the kernel that followers plan in."""
    for coefficient, *worth in zip((1.0, 3.0, 5.0), first, second, strict=True):
        mixture = contextual_four_rooms(temperature=temperature, coefficient=coefficient)
        found = hypergradient(mixture, np.zeros(105), bound=False)
        assert [round(own.objective, 4) for own in found.contexts] == worth
        assert found.objective == pytest.approx(sum(worth) / 2.0, abs=1e-4)
