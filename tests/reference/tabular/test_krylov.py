"""Large sparse systems: iterated on, exact to rounding, and factorised where the iteration stagnates."""

import numpy as np
import pytest

from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    hypergradient,
    leader_objective,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.arrays import memory
from bilevelrl.reference.errors import TooLargeError
from bilevelrl.reference.tabular.error_bounds import BOUND_SIZE_LIMIT
from bilevelrl.reference.tabular.linear_systems import krylov
from bilevelrl.reference.tabular.linear_systems.krylov import KRYLOV_FROM, KrylovSystem, Pattern
from bilevelrl.reference.tabular.transitions import DiscountedSystem, policy_transition
from bilevelrl.tasks import grid_rooms

pytestmark = pytest.mark.exact
EPS = float(np.finfo(np.float64).eps)


def random_kernel():
    """Any graph: two components, loops, ends, successors listed twice, others for each action."""
    rng = named_stream(0, "krylov")
    successor = rng.integers(0, 40, (60, 3, 4))
    successor[40:] = rng.integers(40, 60, (20, 3, 4))
    successor[:, :, 1] = successor[:, :, 3]
    successor[5, 1] = 5
    probability = rng.dirichlet(np.ones(4), (60, 3))
    probability[7] = 0.0
    return SparseTransition(successor=successor, probability=probability), rng.dirichlet(np.ones(3), 60)


def room_kernel():
    kernel = grid_rooms(rooms_per_side=2, room_size=5).tables_at(np.zeros(104)).transition
    return kernel, named_stream(1, "krylov").dirichlet(np.ones(4), 104)


@pytest.mark.parametrize("drawn", [random_kernel, room_kernel])
@pytest.mark.parametrize("discount", [0.0, 0.9, 0.99])
def test_solves_are_those_of_a_factorisation(drawn, discount):
    kernel, policy = drawn()
    system = KrylovSystem(Pattern(kernel), policy, discount)
    direct = DiscountedSystem.factorise(policy_transition(kernel, policy), discount)
    right = named_stream(2, "krylov").standard_normal(len(policy))
    # Residuals of (W + 8) ε (|b| + |x|) in the 2-norm, times the norm of the inverse, at most √S/(1-γ).
    unit = 2 * (system.pattern.columns.shape[1] + 8) * EPS * len(policy) ** 0.5 / (1.0 - discount)
    for name in ("solve", "solve_transposed"):
        found, right_one = getattr(system, name)(right), getattr(direct, name)(right)
        allowed = unit * (np.linalg.norm(right) + np.linalg.norm(right_one))
        assert np.linalg.norm(found - right_one) <= allowed
        assert discount == 0.0 or np.linalg.norm(found - direct.solve(right + 1e-6)) > allowed  # it would show
    assert system.factorisations == 0
    assert system.condition() == pytest.approx(direct.condition(), rel=unit)
    pushed = np.zeros(len(policy))
    np.add.at(pushed, kernel.successor, policy[:, :, None] * kernel.probability)
    np.testing.assert_allclose(system.pattern.pushed(policy), pushed, rtol=1e-13)


def test_eliminated_states_have_no_edges_among_themselves():
    for drawn, least in ((random_kernel, 0.0), (room_kernel, 0.45)):
        pattern = Pattern(drawn()[0])
        out = np.zeros(pattern.columns.shape[0], dtype=bool)
        out[pattern.eliminated] = True
        linked = out[pattern.columns] & out[:, None]
        assert not (linked & (pattern.columns != np.arange(out.size)[:, None])).any()
        assert out.mean() >= least  # half of a map


@pytest.mark.parametrize("horizon", [None, 30])
@pytest.mark.parametrize("discount_leader", [0.99, 0.95])
def test_hypergradients_are_those_of_factorisations(monkeypatch, horizon, discount_leader):
    problem = grid_rooms(rooms_per_side=3, room_size=5, discount_leader=discount_leader)
    theta = named_stream(3, "krylov").standard_normal(problem.theta_shape)
    direct = hypergradient(problem, theta, horizon=horizon)
    assert "Krylov" not in direct.status
    assert direct.counters["factorisations"] > 0
    monkeypatch.setattr(krylov, "KRYLOV_FROM", 10)
    found = hypergradient(problem, theta, horizon=horizon, bound=False)
    assert found.status == direct.status + krylov.KRYLOV
    assert found.counters["factorisations"] == 0 < found.counters["krylov_iterations"]
    size = np.abs(direct.value).max()
    # Five solves after one another, each exact to its residual of (W + 8) ε over 1 - γ.
    allowed = direct.error_bound + 5 * 12 * EPS / 0.01 * size
    assert np.abs(found.value - direct.value).max() <= allowed < 1e-9 * size
    assert found.condition == pytest.approx(direct.condition, rel=1e-10)
    assert found.objective == pytest.approx(direct.objective, rel=1e-11)
    assert leader_objective(problem, theta, horizon=horizon) == pytest.approx(direct.objective, rel=1e-11)


def corridor(states, discount):
    """A corridor on which nothing is decided near its start: information travels as far as it is long."""
    at = np.arange(states)
    successor = np.broadcast_to(np.stack([np.maximum(at - 1, 0), np.minimum(at + 1, states - 1)], axis=1)[:, None],
                                (states, 2, 2))  # fmt: skip
    probability = np.broadcast_to(np.array([[0.9, 0.1], [0.1, 0.9]]), (states, 2, 2))
    last = (at == states - 1).astype(float)[:, None] * np.ones((1, 2))

    def tables(theta):
        return Tables(
            transition=SparseTransition(successor=successor, probability=probability),
            reward_follower=last + theta[0] * (at == 0)[:, None] * np.ones((1, 2)),
            reward_leader=last + theta[0] * np.ones((1, 2)),
            initial=(at == 0).astype(float),
        )

    return ConfigurableMDP(
        tables=tables, discount_leader=discount, discount_follower=discount, temperature=0.1, theta_shape=(1,)
    )


def test_a_slow_chain_is_solved_directly_and_says_so(monkeypatch):
    """γ = 0.99999: an iteration would have to walk the corridor, and gives up instead."""
    problem = corridor(3000, 0.99999)
    direct = hypergradient(problem, np.zeros(1))
    monkeypatch.setattr(krylov, "KRYLOV_FROM", 10)
    found = hypergradient(problem, np.zeros(1), bound=False)
    assert found.status.endswith(krylov.FELL_BACK)
    assert found.counters["factorisations"] > 0
    assert found.condition == pytest.approx(direct.condition, rel=1e-8)
    # Both are backward stable: ε times the condition number of 2e5, a few times over.
    assert np.abs(found.value - direct.value).max() <= 100 * EPS * 2e5 * np.abs(direct.value).max()
    assert found.objective == pytest.approx(direct.objective, rel=100 * EPS * 2e5)


def test_a_wrong_iteration_is_not_believed(monkeypatch):
    """What the iteration returns is held against the system itself: a wrong answer is factorised instead."""
    kernel, policy = room_kernel()
    system = KrylovSystem(Pattern(kernel), policy, 0.9)
    true = KrylovSystem.approximate
    monkeypatch.setattr(KrylovSystem, "approximate", lambda *a, **k: true(*a, **k) * 0.5)
    direct = DiscountedSystem.factorise(policy_transition(kernel, policy), 0.9)
    np.testing.assert_array_equal(system.solve(np.ones(104)), direct.solve(np.ones(104)))
    assert system.factorisations == 1


def test_beyond_eight_thousand_states_it_is_iterated_on():
    problem = grid_rooms(rooms_per_side=13, room_size=7)
    follower = solve_follower(problem, np.zeros(problem.theta_shape))
    assert problem.theta_shape[0] > KRYLOV_FROM
    assert follower.factorisations == 0 < follower.krylov_iterations
    assert follower.status.succeeded
    # No bound is lost: there is none for problems of this size, which would count what an iteration leaves.
    assert KRYLOV_FROM**2 >= BOUND_SIZE_LIMIT


def test_what_memory_does_not_hold_is_refused_before_the_work(monkeypatch):
    kernel, _ = room_kernel()
    monkeypatch.setattr(memory, "available_memory", lambda: 1e4)
    with pytest.raises(TooLargeError, match=r"transition: a dense kernel needs .* GiB"):
        kernel.to_dense()
    monkeypatch.setattr(krylov, "KRYLOV_FROM", 10)
    with pytest.raises(TooLargeError, match=r"transition: a hypergradient needs .* GiB .* solve fewer states"):
        Pattern.of(kernel, {})
    with pytest.raises(TooLargeError, match=r"rooms_per_side=2000, room_size=7: the kernel needs"):
        grid_rooms(rooms_per_side=2000, room_size=7)
    monkeypatch.setattr(memory, "available_memory", lambda: 1e9)
    assert Pattern.of(kernel, {}) is not None
