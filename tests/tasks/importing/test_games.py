"""Games of two agents become tables that play as the games do, by playing the games; the rest is refused by name."""

import random
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest

from bilevelrl.reference import hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import InvalidInputError, TooLargeError, UnsupportedError
from bilevelrl.tasks import from_pettingzoo

pytestmark = pytest.mark.exact

DISCOUNTS = {"discount_leader": 0.9, "discount_follower": 0.8, "temperature": 0.3}


class Discrete:
    def __init__(self, n, start=0):
        self.n, self.start = n, start


class Guard:
    """In parallel: a guard (leader) and a thief on three cells; the thief is caught where they meet, out at cell 2."""

    metadata = MappingProxyType({"name": "guard"})
    possible_agents = ("guard", "thief")

    def __init__(self, **changed):
        self.changed = changed
        self.rng = np.random.default_rng(0)

    def action_space(self, agent):
        return self.changed.get("space", Discrete(2 if agent == "guard" else 3))

    def reset(self, seed=None, options=None):
        self.cells, self.moves, self.history = [2, 0], 0, []
        if self.changed.get("start"):
            self.cells = [2, seed % 2]
        return self._seen(), {agent: {} for agent in self.possible_agents}

    def _seen(self):
        cells = self.cells[:1] if self.changed.get("blind") else self.cells
        return {agent: np.array(cells) for agent in self.possible_agents}

    def _infos(self):
        if not self.changed.get("masked"):
            return {agent: {} for agent in self.possible_agents}
        return {
            self.changed["masked"]: {
                "action_mask": np.array([1, 1, 0][: 2 if self.changed["masked"] == "guard" else 3])
            }
        }

    def step(self, actions):
        if self.changed.get("chance") == "own":
            self.rng.random()
        if self.changed.get("chance") == "global":
            random.random()
        guard, thief = self.cells
        guard = (guard + actions["guard"]) % 3
        thief = min(max(thief + actions["thief"] - 1, 0), 2)
        self.cells, self.moves = [guard, thief], self.moves + 1
        caught, out = guard == thief, thief == 2 and guard != thief
        paid = {"guard": 1.0 * caught - 2.0 * out - 0.1 * actions["guard"], "thief": 3.0 * out - 1.0 * caught}
        if self.changed.get("wears"):
            paid["guard"] -= 0.01 * self.moves
        ended = {"guard": out, "thief": out and not self.changed.get("lonely")}
        cut = self.moves >= self.changed.get("limit", 10**6)
        return self._seen(), paid, ended, dict.fromkeys(self.possible_agents, cut), self._infos()


class GuardInTurns(Guard):
    """The same game in turns: the guard moves, then the thief; a guard who moves onto the thief ends it at once."""

    def agent_iter(self):
        raise NotImplementedError

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.agent_selection = self.changed.get("first", "guard")
        self.rewards, self.infos = dict.fromkeys(self.possible_agents, 0.0), {}
        self.terminations = dict.fromkeys(self.possible_agents, False)
        self.truncations = dict.fromkeys(self.possible_agents, False)

    def observe(self, agent):
        return self._seen()[agent]

    def step(self, action):
        agent = self.agent_selection
        if agent == "guard":
            self.cells[0] = (self.cells[0] + action) % 3
            met = self.cells[0] == self.cells[1]
            self.rewards = {"guard": 1.0 * met - 0.1 * action, "thief": -1.0 * met}
            self.terminations = dict.fromkeys(self.possible_agents, met)
        else:
            self.cells[1] = min(max(self.cells[1] + action - 1, 0), 2)
            out = self.cells[1] == 2 != self.cells[0]
            self.rewards = {"guard": -2.0 * out, "thief": 3.0 * out}
            self.terminations = dict.fromkeys(self.possible_agents, out)
        self.agent_selection = "thief" if agent == "guard" else "guard"


class MaskedGuard(Guard):
    """The leader may only stay where it is, after the first move."""

    def _infos(self):
        return {"guard": {"action_mask": np.array([1, 0])}}


def played(make, game, problem, theta, steps):
    """E Σ_{t < steps} γ_L^t r_L by playing every sequence of actions from the start in the environment itself."""
    f = np.asarray(problem.policy(theta))
    g = np.asarray(solve_follower(problem, theta).policy)
    number = {key: s for s, key in enumerate(game.keys)}
    L, A = game.reward_leader.shape[1:]

    def replay(pairs):
        environment = make()
        environment.reset(seed=0)
        total, over = 0.0, False
        for leader_action, action in pairs:
            if hasattr(environment, "agent_iter"):
                environment.step(leader_action)
                total, over = environment.rewards["guard"], environment.terminations["guard"]
                if not over:
                    environment.step(action)
                    total += environment.rewards["guard"]
                    over = environment.terminations["guard"]
            else:
                _, paid, ended, _, _ = environment.step({"guard": leader_action, "thief": action})
                total, over = paid["guard"], ended["guard"]
        return total, over, tuple(environment.cells)

    def value(pairs, cells, left):
        s, mean = number[cells], 0.0
        for leader_action in range(L):
            row = g[s, leader_action]
            for action in range(A):
                paid, over, then = replay([*pairs, (leader_action, action)])
                later = 0.0 if over or left == 1 else value([*pairs, (leader_action, action)], then, left - 1)
                mean += f[s, leader_action] * row[action] * (paid + 0.9 * later)
        return mean

    environment = make()
    environment.reset(seed=0)
    return value([], tuple(environment.cells), steps)


def cells(environment):
    return tuple(environment.cells)


@pytest.mark.parametrize("sees", [True, False])
@pytest.mark.parametrize("make", [Guard, GuardInTurns])
def test_the_tables_play_as_the_game(make, sees):
    game = from_pettingzoo(make(), leader="guard", follower_sees_leader_action=sees, key=cells)
    problem = game.problem(**DISCOUNTS)
    theta = np.linspace(-1.0, 1.5, problem.theta_shape[0])
    exact = leader_objective(problem, theta, horizon=3)
    truth = played(make, game, problem, theta, 3)
    assert exact == pytest.approx(truth, rel=1e-12)
    assert game.summary().startswith("guard: ")
    hypergradient(problem, theta)


def test_either_agent_may_lead():
    one, other = (
        from_pettingzoo(Guard(), leader=leader, follower_sees_leader_action=False, key=cells)
        for leader in Guard.possible_agents
    )
    order = [other.keys.index(key) for key in one.keys]
    assert np.array_equal(other.reward_leader.transpose(0, 2, 1)[order], one.reward_follower)
    assert np.array_equal(other.transition.transpose(0, 2, 1, 3)[order][..., order], one.transition)


def test_default_keys_are_what_both_observe():
    by_cells = from_pettingzoo(Guard(), leader="guard", follower_sees_leader_action=False, key=cells)
    by_default = from_pettingzoo(Guard(), leader="guard", follower_sees_leader_action=False)
    assert np.array_equal(by_cells.transition, by_default.transition)


def test_starts_by_several_seeds_and_masks():
    game = from_pettingzoo(Guard(start=True), leader="guard", follower_sees_leader_action=False, seeds=(0, 1, 3, 5))
    assert sorted(game.initial[game.initial > 0]) == [0.25, 0.75]
    masked = from_pettingzoo(
        Guard(masked="thief"), leader="guard", follower_sees_leader_action=False, key=lambda e: (*e.cells, e.moves > 0)
    )
    assert masked.action_mask.shape == (len(masked.keys), 3)
    assert masked.action_mask.sum() == 3 * len(masked.keys) - (len(masked.keys) - 1)
    problem = masked.problem(**DISCOUNTS)
    assert np.isfinite(leader_objective(problem, np.zeros(problem.theta_shape)))


@pytest.mark.parametrize(
    ("make", "options", "error", "match"),
    [
        (lambda: Guard(chance="own"), {}, UnsupportedError, "drew random numbers"),
        (lambda: Guard(chance="global"), {}, UnsupportedError, "drew random numbers"),
        (lambda: Guard(blind=True), {}, UnsupportedError, "one outcome; pass key="),
        (lambda: Guard(wears=True), {}, UnsupportedError, "one outcome"),
        (lambda: Guard(limit=3), {}, UnsupportedError, "time limit"),
        (lambda: Guard(lonely=True), {}, UnsupportedError, "both or neither"),
        (lambda: MaskedGuard(), {"key": lambda e: (*e.cells, e.moves > 0)}, UnsupportedError, "leader's actions"),
        (lambda: Guard(start=True), {}, UnsupportedError, "depend on the seed"),
        (lambda: Guard(space=Discrete(2, 1)), {}, UnsupportedError, "from zero"),
        (lambda: Guard(space=SimpleNamespace(n=2)), {}, UnsupportedError, "Discrete"),
        (lambda: GuardInTurns(first="thief"), {}, UnsupportedError, "whose turn"),
        (lambda: SimpleNamespace(possible_agents=["a"]), {}, UnsupportedError, "two agents"),
        (Guard, {"leader": "nobody"}, InvalidInputError, "leader"),
        (Guard, {"seeds": ()}, InvalidInputError, "seeds"),
        (Guard, {"most_states": 2}, TooLargeError, "most_states"),
        (Guard, {"key": lambda e: (*e.cells, e.moves)}, TooLargeError, "counters"),
        (Guard, {"key": lambda e: list(e.cells)}, InvalidInputError, "hashable"),
        (Guard, {"key": lambda e: float("nan")}, InvalidInputError, "key=nan: expected a value that equals itself"),
    ],
)
def test_what_is_no_table_is_refused_by_name(make, options, error, match):
    if match is None:
        environment = make()
        environment._infos = lambda: {"guard": {"action_mask": np.array([1, 0])}}
        match, options = "leader's actions", {}
        make = lambda: environment  # noqa: E731
    with pytest.raises(error, match=match):
        from_pettingzoo(
            make(), **{"leader": "guard", "follower_sees_leader_action": False, "most_states": 60} | options
        )


def test_rock_paper_scissors_of_pettingzoo():
    pytest.importorskip("pettingzoo")
    pytest.importorskip("pygame")
    from pettingzoo.classic.rps.rps import env, parallel_env

    game = from_pettingzoo(env(), leader="player_0", follower_sees_leader_action=False)
    assert game.reward_leader[0].tolist() == [[0, -1, 1], [1, 0, -1], [-1, 1, 0]]
    assert np.array_equal(game.reward_follower, -game.reward_leader)
    problem = game.problem(**DISCOUNTS)
    even = hypergradient(problem, np.zeros(problem.theta_shape))
    assert abs(even.objective) < 1e-12
    assert np.abs(even.value).max() < 1e-12
    parallel = from_pettingzoo(parallel_env(), leader="player_0", follower_sees_leader_action=False)
    assert np.array_equal(parallel.transition, game.transition)
    assert np.array_equal(parallel.reward_leader, game.reward_leader)


def test_tic_tac_toe_of_pettingzoo_is_refused_by_name():
    pytest.importorskip("pettingzoo")
    pytest.importorskip("pygame")
    from pettingzoo.classic.tictactoe.tictactoe import env

    with pytest.raises(UnsupportedError, match="leader's actions"):
        from_pettingzoo(env(), leader="player_1", follower_sees_leader_action=True)
