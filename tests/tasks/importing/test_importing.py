"""Imported worlds mean what their sources say, by backward sweeps over the sources; the rest is refused by name."""

import pickle

import gymnasium
import numpy as np
import pytest
import scipy.sparse
from scipy.special import logsumexp

from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import (
    InvalidInputError,
    ShapeError,
    StochasticityError,
    StorageError,
    UnknownNameError,
    UnsupportedError,
)
from bilevelrl.tasks import from_arrays, from_explicit_files, from_gymnasium
from bilevelrl.tasks.importing import HOOKS

pytestmark = pytest.mark.exact

DISCOUNTS = {"discount_leader": 0.95, "discount_follower": 0.9, "temperature": 0.2}
ENVIRONMENTS = [
    ("FrozenLake-v1", {}),
    ("FrozenLake-v1", {"is_slippery": False, "map_name": "8x8"}),
    ("CliffWalking-v1", {}),
    ("CliffWalking-v1", {"is_slippery": True}),
    ("Taxi-v4", {}),
    ("Taxi-v4", {"is_rainy": True}),
]


def source_return(environment, *, sweeps=700):
    """J of the follower's own reward at γ_L, by sweeps over `P`: nothing follows an outcome that ends."""
    table = environment.unwrapped.P
    states, actions = len(table), len(table[0])

    def backup(value, discount):
        def pair(s, a):
            return sum(p * (r + (0.0 if over else discount * value[t])) for p, t, r, over in table[s][a])

        return np.array([[pair(s, a) for a in range(actions)] for s in range(states)])

    listed = [(s, a, *entry) for s in range(states) for a in range(actions) for entry in table[s][a]]
    s, a, p, t, r, over = (np.array(column) for column in zip(*listed, strict=True))

    def fast(value, discount):
        q = np.zeros((states, actions))
        np.add.at(q, (s, a), p * (r + np.where(over, 0.0, discount * value[t])))
        return q

    np.testing.assert_allclose(fast(np.arange(float(states)), 0.5), backup(np.arange(float(states)), 0.5), rtol=1e-12)
    value = np.zeros(states)
    for _ in range(sweeps):
        value = 0.2 * logsumexp(fast(value, 0.9) / 0.2, axis=1)
    q = fast(value, 0.9)
    policy = np.exp((q - value[:, None]) / 0.2)
    paid = np.zeros(states)
    for _ in range(sweeps):
        paid = (policy * fast(paid, 0.95)).sum(axis=1)
    return float(environment.unwrapped.initial_state_distrib @ paid)


@pytest.mark.parametrize(("name", "options"), ENVIRONMENTS)
def test_environment_means_what_its_table_says(name, options):
    environment = gymnasium.make(name, **options)
    problem = from_gymnasium(environment).problem("action toll", **DISCOUNTS)
    # .95^700 = 2.6e-16 of a return that is at most 20 times the largest reward, 100.
    objective = leader_objective(problem, np.zeros(problem.theta_shape))
    assert objective == pytest.approx(source_return(environment), abs=1e-10)


@pytest.mark.parametrize("hook", sorted(HOOKS))
@pytest.mark.parametrize("name", ["FrozenLake-v1", "CliffWalking-v1"])
def test_hooks_agree_on_all_routes(name, hook):
    world = from_gymnasium(gymnasium.make(name))
    earned = 0.0 if hook == "slip" else 0.5
    problem = world.problem(hook, earned=earned, **DISCOUNTS)
    theta = np.random.default_rng(1).normal(scale=0.1, size=problem.theta_shape)
    exact = hypergradient(problem, theta)
    for route in ("forward", "complex_step"):
        other = hypergradient(problem, theta, route=route)
        assert np.abs(exact.value - other.value).max() <= exact.error_bound + other.error_bound
    assert np.linalg.norm(exact.value) > 1e-3


def masked_world(hook="slip", layout="dense"):
    """A ring of two states, or of twelve with a sparse kernel, of which one has one action less."""
    size = 2 if layout == "dense" else 12
    either = [(0.5, 0, 0.0, True)]
    table = {
        s: {0: [(1.0, (s + 1) % size, 0.0, s == size - 1)], 1: [(0.5, s, 1.0, False), *either]} for s in range(size)
    }
    del table[1][1]

    class World:
        P = table

    return from_gymnasium(World(), initial=np.eye(size)[0]).problem(hook, **DISCOUNTS)


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_problems_of_imported_worlds_pickle(hook):
    problem = masked_world(hook)
    again = pickle.loads(pickle.dumps(problem))
    theta = np.full(problem.theta_shape, 0.1)
    np.testing.assert_array_equal(hypergradient(again, theta).value, hypergradient(problem, theta).value)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_slip_mixes_only_what_can_be_played(layout):
    problem = masked_world(layout=layout)
    tables = problem.tables_at(np.zeros(1))  # σ = 1/2
    kernel = tables.transition if layout == "dense" else tables.transition.to_dense()
    np.testing.assert_allclose(kernel[0, 0, :2], [0.125, 0.75])
    np.testing.assert_allclose(kernel[0, 0, 2:].sum(), 0.0)
    leads = 0.0 if layout == "dense" else 1.0  # state 1 has one action: it ends, or goes on to state 2, for certain
    np.testing.assert_allclose(kernel[1, 0].sum(), leads)
    assert tables.reward_leader[0, 0] == 0.5 * 0.0 + 0.5 * 0.25
    assert solve_follower(problem, np.zeros(1)).policy[1, 1] == 0.0
    exact, moved = hypergradient(problem, np.zeros(1)), hypergradient(problem, np.zeros(1), route="finite_difference")
    assert np.abs(exact.value - moved.value).max() <= exact.error_bound + moved.error_bound


def test_action_numbers_may_have_gaps():
    class World:
        P = {0: {0: [(1.0, 0, 1.0, True)], 2: [(1.0, 0, 2.0, True)]}}  # noqa: RUF012

    world = from_gymnasium(World(), initial=[1.0])
    np.testing.assert_array_equal(world.action_mask, [[True, False, True]])
    np.testing.assert_array_equal(world.reward, [[1.0, 0.0, 2.0]])


class TestEnvironmentsThatAreRefused:
    def test_without_a_table(self):
        with pytest.raises(UnsupportedError, match=r"CartPole-v1.*from_arrays"):
            from_gymnasium(gymnasium.make("CartPole-v1"))

    def test_wrapper_that_changes_rewards(self):
        wrapped = gymnasium.wrappers.TransformReward(gymnasium.make("FrozenLake-v1"), lambda reward: -reward)
        with pytest.raises(UnsupportedError, match="FrozenLake-v1 in TransformReward"):
            from_gymnasium(wrapped)

    def test_what_is_drawn_outside_the_table(self):
        with pytest.raises(UnsupportedError, match="fickle_passenger=True"):
            from_gymnasium(gymnasium.make("Taxi-v4", fickle_passenger=True))

    def test_step_that_leaves_the_table(self):
        class Liar:
            P = {0: {0: [(1.0, 0, 0.0, False)]}, 1: {0: [(1.0, 1, 1.0, True)]}}  # noqa: RUF012

            def reset(self, seed):
                self.s = seed

            def step(self, action):
                return 1, 1.0, action == 0, False, {}

        Liar.s = 0
        with pytest.raises(UnsupportedError, match=r"step\(0\) in state 0"):
            from_gymnasium(Liar(), initial=[1.0, 0.0], absorbing="keep")
        assert from_gymnasium(Liar(), initial=[1.0, 0.0], absorbing="keep", check_steps=False).states == 2

    @pytest.mark.parametrize(
        ("table", "named"),
        [
            ({0: {0: [(0.5, 0, 0.0, False)]}}, r"sum of P\[0\]\[0\]=0.5"),
            ({0: {0: [(1.0, 3, 0.0, False)]}}, r"P\[0\]\[0\]=3: expected a next state in \[0, 1\)"),
            ({0: {0: [(-1.0, 0, 0.0, False)]}}, "a probability in"),
            ({0: {0: [(1.0, 0, np.nan, False)]}}, "a finite number"),
            ({0: {0: [(1.0, 0, 0.0)]}}, "list four entries"),
            ({1: {0: [(1.0, 0, 0.0, False)]}}, "states numbered 0 to 0"),
            ({0: {"left": [(1.0, 0, 0.0, False)]}}, "an integer >= 0"),
            ({0: {}}, "at least one action"),
            (7, "a dictionary or list"),
        ],
    )
    def test_malformed_tables(self, table, named):
        class World:
            P = table

        with pytest.raises(InvalidInputError, match=named):
            from_gymnasium(World(), initial=[1.0])

    def test_no_first_state(self):
        class World:
            P = {0: {0: [(1.0, 0, 1.0, False)]}}  # noqa: RUF012

        with pytest.raises(InvalidInputError, match="initial=None"):
            from_gymnasium(World())


def lake():
    """FrozenLake as planners' arrays, (A, S, S) and (S, A), whose holes and goal are states like others."""
    table = gymnasium.make("FrozenLake-v1").unwrapped.P
    kernel, reward = np.zeros((4, 16, 16)), np.zeros((16, 4))
    for s, choices in table.items():
        for a, listed in choices.items():
            for p, t, r, _ in listed:
                kernel[a, s, t] += p
                reward[s, a] += p * r
    return kernel, reward, np.eye(16)[0]


class TestArrays:
    def test_lake_with_holes_that_end_is_the_environment(self):
        kernel, reward, initial = lake()
        world = from_arrays(kernel, reward, initial=initial, axes="ass", absorbing="end")
        truth = from_gymnasium(gymnasium.make("FrozenLake-v1"))
        values = [leader_objective(each.problem("action toll", **DISCOUNTS), np.zeros(4)) for each in (world, truth)]
        assert values[0] == pytest.approx(values[1], abs=1e-14)

    def test_holes_that_are_kept_earn_entropy(self):
        kernel, reward, initial = lake()
        kept = from_arrays(kernel, reward, initial=initial, axes="ass", absorbing="keep")
        problem = kept.problem("action toll", **DISCOUNTS)
        assert solve_follower(problem, np.zeros(4)).value[5] == pytest.approx(0.2 * np.log(4) / 0.1)
        assert any("absorbing states, 5" in note for note in kept.notes)

    def test_nothing_is_guessed_of_absorbing_states(self):
        kernel, reward, initial = lake()
        with pytest.raises(InvalidInputError, match=r"absorbing=None.*state 5, 7, 11, 12, 15"):
            from_arrays(kernel, reward, initial=initial, axes="ass")

    def test_forms_are_one_world(self):
        kernel, reward, initial = lake()
        by_pair = kernel.transpose(1, 0, 2)
        forms = [
            (kernel, {"axes": "ass"}),
            (by_pair, {"axes": "sas"}),
            ([scipy.sparse.csr_array(matrix) for matrix in kernel], {}),
            ([scipy.sparse.coo_matrix(matrix) for matrix in kernel], {}),
            (list(kernel), {}),
            ({a: kernel[a] for a in range(4)}, {}),
        ]
        worlds = [from_arrays(p, reward, initial=initial, absorbing="end", **axes) for p, axes in forms]
        for world in worlds:
            assert world.transition.shape == (16, 4, 16)
            np.testing.assert_array_equal(world.transition.to_dense(), worlds[0].transition.to_dense())

    @pytest.mark.parametrize("form", [dict, list, tuple])
    @pytest.mark.parametrize("which", ["none", "first", "all"])
    def test_matrices_by_action_are_their_own_order_however_they_are_written(self, form, which):
        kernels = np.random.default_rng(0).dirichlet(np.ones(3), size=(3, 3))  # as many actions as states
        paid = np.random.default_rng(1).normal(size=(3, 3, 3))

        def written(matrices):
            plain = [
                m.tolist() if which == "all" or (which == "first" and k == 0) else m for k, m in enumerate(matrices)
            ]
            return dict(enumerate(plain)) if form is dict else form(plain)

        # A table that is all lists has no order of its own.
        axes = "ass" if which == "all" else "sas"
        world = from_arrays(written(kernels), written(paid), initial=np.eye(3)[0], axes=axes)
        np.testing.assert_array_equal(world.transition, kernels.transpose(1, 0, 2))
        np.testing.assert_allclose(world.reward, np.einsum("ast,ast->sa", kernels, paid), atol=1e-15)

    def test_a_dictionary_of_many_actions(self):
        world = from_arrays({a: np.eye(2) for a in range(12)}, np.ones(2), initial=[1.0, 0.0])
        assert world.actions == 12

    def test_rewards_of_states_and_of_outcomes(self):
        kernel, reward, initial = lake()
        by_state = np.arange(16.0)
        of_state = from_arrays(kernel, by_state, initial=initial, axes="ass", absorbing="keep")
        np.testing.assert_array_equal(of_state.reward, np.repeat(by_state[:, None], 4, axis=1))
        arrived = np.broadcast_to(by_state, kernel.shape)
        of_outcome = from_arrays(kernel, arrived, initial=initial, axes="ass", absorbing="keep")
        np.testing.assert_allclose(of_outcome.reward, np.einsum("ast,t->sa", kernel, by_state))
        sparse = [scipy.sparse.csr_array(matrix) for matrix in arrived]
        listed = from_arrays(list(kernel), sparse, initial=initial, absorbing="keep")
        np.testing.assert_array_equal(listed.reward, of_outcome.reward)
        assert from_arrays(kernel, reward, initial=initial, axes="ass", terminal=[5, 7, 11, 12, 15]).reward[14, 2] > 0.3

    @pytest.mark.parametrize(
        ("changes", "error", "named"),
        [
            ({"axes": "sas"}, ShapeError, "axes='ass'"),
            ({"reward": np.zeros(3)}, ShapeError, r"reward.shape=\(3,\)"),
            ({"reward": np.zeros((4, 16))}, ShapeError, "reward.shape"),
            ({"initial": np.ones(4) / 4}, ShapeError, "initial.shape"),
            ({"initial": np.ones(16)}, StochasticityError, "initial"),
            ({"terminal": [16]}, InvalidInputError, r"terminal=\[16\]"),
            ({"terminal": [0]}, InvalidInputError, "no episode starts"),
            ({"transition": {0: np.eye(2), 2: np.eye(2)}}, InvalidInputError, "actions 0 to A - 1"),
            ({"transition": np.full((4, 16, 16), 0.5)}, StochasticityError, r"sum of transition\[0, 0\]"),
            ({"transition": -np.ones((4, 16, 16))}, StochasticityError, r"transition\[0, 0, 0\]"),
        ],
    )
    def test_what_does_not_fit(self, changes, error, named):
        kernel, reward, initial = lake()
        given = {"transition": kernel, "reward": reward, "initial": initial, "axes": "ass", "absorbing": "end"}
        with pytest.raises(error, match=named):
            from_arrays(**given | changes)

    def test_problem_arguments(self):
        world = from_arrays(np.eye(2)[:, None, :], np.zeros(2), initial=[1.0, 0.0], absorbing="keep")
        with pytest.raises(UnknownNameError, match="state toll"):
            world.problem("state tol", **DISCOUNTS)
        with pytest.raises(InvalidInputError, match=r"earned=1\.0"):
            world.problem("slip", earned=1.0, **DISCOUNTS)
        with pytest.raises(ShapeError, match="reward_leader"):
            world.problem("slip", reward_leader=np.zeros(3), **DISCOUNTS)
        paid = world.problem("pair toll", reward_leader=[1.0, 2.0], earned=0.25, **DISCOUNTS)
        tables = paid.tables_at(np.array([[0.5], [1.0]]))
        np.testing.assert_array_equal(tables.reward_follower[:, 0], [-0.5, -1.0])
        np.testing.assert_array_equal(tables.reward_leader[:, 0], [1.125, 2.25])


PRISM = {
    "w.tra": "3 4 5\n0 0 1 0.5 go\n0 0 2 0.5 go\n0 1 0 1 wait\n1 0 0 1\n2 0 2 1\n",
    "w.lab": '0="init" 1="goal"\n0: 0\n2: 1\n',
    "w.srew": "# Reward structure\n3 1\n1 0.25\n",
    "w.trew": "3 4 1\n0 0 2 4\n",
}
STORM = {
    "w.tra": "mdp\n" + PRISM["w.tra"].partition("\n")[2],
    "w.lab": "#DECLARATION\ninit goal\n#END\n0 init\n2 goal\n",
    "w.srew": "1 0.25\n",
    "w.trew": "0 0 2 4\n",
}


def imported(folder, files, **options):
    for name, text in files.items():
        (folder / name).write_text(text)
    rewards = tuple(folder / name for name in ("w.srew", "w.trew"))
    return from_explicit_files(folder / "w.tra", folder / "w.lab", rewards, **{"end": ("goal",), **options})


class TestExplicitFiles:
    @pytest.mark.parametrize("files", [PRISM, STORM], ids=["prism", "storm"])
    def test_both_layouts(self, tmp_path, files):
        world = imported(tmp_path, files)
        np.testing.assert_array_equal(world.transition[0], [[0.0, 0.5, 0.0], [1.0, 0.0, 0.0]])
        np.testing.assert_array_equal(world.transition[2], np.zeros((2, 3)))
        np.testing.assert_array_equal(world.reward, [[2.0, 0.0], [0.25, 0.25], [0.0, 0.0]])
        np.testing.assert_array_equal(world.action_mask, [[True, True], [True, False], [True, False]])
        problem = world.problem("state toll", **DISCOUNTS)
        assert np.isfinite(hypergradient(problem, np.zeros(3)).value).all()

    @pytest.mark.parametrize(
        ("name", "old", "new", "error", "named"),
        [
            ("w.tra", "3 4 5", "3 5", InvalidInputError, "w.tra, line 1"),
            ("w.tra", "3 4 5", "3 4 6", InvalidInputError, "5 in w.tra"),
            ("w.tra", "3 4 5", "2 4 5", InvalidInputError, "numbers below 2"),
            ("w.tra", "0 0 2 0.5 go", "0 0 2 half", InvalidInputError, "w.tra, line 3"),
            ("w.tra", "0 0 2 0.5 go", "0 0 1 0.5", InvalidInputError, "line 3.*not listed already"),
            ("w.tra", "0 0 2 0.5 go", "0 0 2 0.25", StochasticityError, "state 0, choice 0=0.75"),
            ("w.tra", "1 0 0 1", "0 2 0 1", InvalidInputError, "state 1=.*no choice"),
            ("w.lab", "2: 1", "2: 7", InvalidInputError, "w.lab, line 3"),
            ("w.lab", "0: 0", "1: 0 1", InvalidInputError, "no episode starts"),
            ("w.lab", '0="init" ', "", InvalidInputError, "w.lab, line 2"),
            ("w.srew", "1 0.25", "9 0.25", InvalidInputError, "w.srew, line 3"),
            ("w.trew", "0 0 2 4", "0 0 0 4", InvalidInputError, "that the .tra file lists"),
            ("w.trew", "0 0 2 4", "0 0 2", InvalidInputError, "rewards="),
        ],
    )
    def test_malformed_lines_are_named(self, tmp_path, name, old, new, error, named):
        assert old in PRISM[name]
        with pytest.raises(error, match=named):
            imported(tmp_path, {**PRISM, name: PRISM[name].replace(old, new)})

    def test_a_reward_that_looks_like_a_count(self, tmp_path):
        assert imported(tmp_path, {**STORM, "w.srew": "0 2\n1 1\n2 1\n"}).reward[0, 1] == 2.0
        with pytest.raises(InvalidInputError, match=r"w\.srew, line 1"):
            imported(tmp_path, {**PRISM, "w.srew": "1 0.25\n"})
        with pytest.raises(InvalidInputError, match=r"w\.srew, line 1"):
            imported(tmp_path, {**PRISM, "w.srew": "3 2\n1 0.25\n"})

    def test_unknown_labels_and_missing_files(self, tmp_path):
        with pytest.raises(InvalidInputError, match="end='gaol'"):
            imported(tmp_path, PRISM, end=("gaol",))
        with pytest.raises(InvalidInputError, match="absorbing=None"):
            imported(tmp_path, PRISM, end=())
        with pytest.raises(StorageError, match=r"none\.tra"):
            from_explicit_files(tmp_path / "none.tra")
