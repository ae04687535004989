"""What training in Markov games is made of: followers, samples and critics, against the reference or a plain loop."""

import numpy as np
import pytest
from game_runs import GAME, THETAS, policies_of, zeros

from bilevelrl.benchmarks.paper.published_follower import log_sum_exp_of_the_mean
from bilevelrl.estimators.critics.joint_networks import JointNetworks, JointTables, NextValue
from bilevelrl.estimators.critics.joint_tables import GameCritic
from bilevelrl.estimators.followers.joint import GameFollowerRule
from bilevelrl.estimators.sampling.replay_memory import Draws, EpisodeMemory
from bilevelrl.estimators.training.worlds.samples import drawn_trajectories, sample_codes
from bilevelrl.reference import solve_follower
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, UnknownNameError
from bilevelrl.tasks import toy_game_theta, toy_markov_game


class TestFollowers:
    def test_newton_finds_the_best_response(self):
        found = GameFollowerRule().respond(GAME, policies_of(), zeros(), [])
        for row, theta in enumerate(THETAS):
            truth = solve_follower(GAME, theta)
            bound = 2.0 * truth.error_bound + 1e-12
            assert found.value[row] == pytest.approx(truth.value, abs=bound)
            assert found.policy[row] == pytest.approx(truth.policy, abs=2.0 * bound / GAME.temperature)

    @pytest.mark.parametrize("p", [0.05, 0.34, 0.6, 0.9])
    def test_both_operators_in_the_toy_game(self, p):
        game, theta = toy_markov_game(), toy_game_theta(p)
        for operator, truth in (
            ("best_response", solve_follower(game, theta)),
            ("log_sum_exp_of_the_mean", log_sum_exp_of_the_mean(game, theta)),
        ):
            found = GameFollowerRule(operator=operator).respond(game, game.policy_at(theta)[None], zeros(game, 1), [])
            assert found.value[0] == pytest.approx(truth.value, abs=1e-10)
            assert found.policy[0] == pytest.approx(truth.policy, abs=1e-9)

    @pytest.mark.parametrize("operator", ["best_response", "log_sum_exp_of_the_mean"])
    def test_sweeps_reach_the_same_point_and_no_row_depends_on_another(self, operator):
        full = GameFollowerRule(operator=operator)
        solved = full.respond(GAME, policies_of(), zeros(), [])
        sweeps = int(np.ceil(np.log(1e-12) / np.log(GAME.discount_follower)))
        swept = GameFollowerRule(operator=operator, sweeps=sweeps).respond(GAME, policies_of(), zeros(), [])
        assert swept.table == pytest.approx(solved.table, abs=1e-9)
        alone = full.respond(GAME, policies_of()[1:2], zeros(runs=1), [])
        assert np.array_equal(alone.table[0], solved.table[1])

    def test_truncated_followers_go_on_or_begin_anew(self):
        carried, reset = GameFollowerRule(sweeps=2), GameFollowerRule(sweeps=0, beginning="reset")
        once = carried.respond(GAME, policies_of(), zeros(), [])
        twice = carried.respond(GAME, policies_of(), once.table, [])
        four = GameFollowerRule(sweeps=4).respond(GAME, policies_of(), zeros(), [])
        assert np.array_equal(twice.table, four.table)
        rng = [np.random.default_rng(row) for row in range(3)]
        noise = reset.respond(GAME, policies_of(), once.table, rng).table
        assert np.array_equal(noise[2], np.random.default_rng(2).standard_normal(noise[2].shape))

    def test_refusals(self):
        with pytest.raises(UnknownNameError):
            GameFollowerRule(operator="hard")
        with pytest.raises(UnknownNameError):
            GameFollowerRule(beginning="zero")
        with pytest.raises(InvalidInputError):
            GameFollowerRule(sweeps=-1)
        with pytest.raises(NotConvergedError), np.errstate(invalid="ignore"):
            GameFollowerRule().respond(GAME, policies_of(), np.full((3, *GAME.reward_leader.shape), np.nan), [])


class TestSamples:
    def test_the_law_of_a_step(self):
        """Evenly spread uniforms hit every outcome as often as it is likely, to one in their number."""
        policies, responses = policies_of()[:1], GameFollowerRule().respond(GAME, policies_of(), zeros(), []).policy[:1]
        number = 20000
        grid = (np.arange(number) + 0.5) / number
        start = np.searchsorted(np.cumsum(GAME.initial), 0.5)
        uniforms = np.stack([np.full(number, 0.5), grid], axis=1)[None]
        codes = sample_codes(GAME, policies, responses, uniforms)[0, :, 0]
        law = (policies[0][:, :, None] * responses[0])[..., None] * GAME.transition
        expected = np.zeros(law.shape)
        expected[start] = law[start]
        counts = np.bincount(codes, minlength=law.size) / number
        assert counts == pytest.approx(expected.ravel(), abs=1.5 / number)

    def test_states_follow_each_other(self):
        codes = sample_codes(
            GAME, policies_of(), zeros() + 1 / zeros().shape[3], np.random.default_rng(0).random((3, 2, 9))
        )
        state, _, _, state_tp1 = np.unravel_index(codes, GAME.transition.shape)
        assert np.array_equal(state[:, :, 1:], state_tp1[:, :, :-1])

    def test_places(self):
        steps, episodes = 5, 3
        weights = 0.8 ** np.arange(steps)
        number = 30000
        grid = ((np.arange(number) + 0.5) / number)[None]
        found = Draws.of(np.cumsum(weights), episodes, grid)
        counts = np.bincount(found.episode[0] * steps + found.time[0], minlength=15).reshape(episodes, steps) / number
        law = np.tile(weights / weights.sum() / episodes, (episodes, 1))
        assert counts == pytest.approx(law, abs=1.5 / number)
        assert found.summed(found.weight, episodes, steps)[0] == pytest.approx(counts, rel=1e-9)

    def test_no_place_twice_without_replacement(self):
        rng = [np.random.default_rng(row) for row in range(2)]
        uniforms = np.random.default_rng(5).random((2, 6, 10))
        law = np.linspace(0.25, 1.0, 4)
        found = Draws.of(law, 3, uniforms, once=rng)
        assert all(len(set(batch)) == 10 for batch in (found.episode * 4 + found.time).reshape(-1, 10))
        assert any(len(set(batch)) < 10 for batch in (uniforms * 12).astype(int).reshape(-1, 10))
        everything = Draws.of(law, 3, np.zeros((1, 1, 12)), once=rng)
        assert sorted((everything.episode * 4 + everything.time)[0, 0]) == list(range(12))
        with pytest.raises(InvalidInputError, match="minibatch"):
            Draws.of(law, 3, np.zeros((1, 1, 13)), once=rng)

    def test_memories(self):
        last, all_of_them = EpisodeMemory(), EpisodeMemory(capacity=5)
        for number in range(2):
            for memory in (last, all_of_them):
                memory.add(codes=np.full((3, 2, 4), number, dtype=np.uint8))
        assert last["codes"].shape == (3, 2, 4)
        assert last["codes"].min() == 1
        assert all_of_them["codes"][0, :, 0].tolist() == [0, 0, 1, 1]
        with pytest.raises(InvalidInputError, match="capacity"):
            all_of_them.add(codes=np.zeros((3, 2, 4), dtype=np.uint8))
        again = EpisodeMemory(capacity=5)
        again.restore(all_of_them.arrays())
        assert np.array_equal(again["codes"], all_of_them["codes"])
        assert again["codes"].dtype == np.uint8
        assert not last.arrays()

    @pytest.mark.parametrize("length", [None, 1, 3, 12])
    def test_drawn_steps_weigh_what_they_were_drawn(self, length):
        """Each draw's weight stands at the step that it drew, and what follows it is its own episode."""
        codes = sample_codes(
            GAME, policies_of(), zeros() + 1 / zeros().shape[3], np.random.default_rng(0).random((3, 2, 8))
        )
        draws = Draws.of(np.cumsum(0.5 ** np.arange(7)), 2, np.random.default_rng(1).random((3, 9)))
        visits = drawn_trajectories(GAME, codes, draws, length=length)
        state = np.unravel_index(codes, GAME.transition.shape)[0] + GAME.states * np.arange(3)[:, None, None]
        if length is None:
            assert np.array_equal(visits.state_t, state.reshape(6, 7))
            wanted = np.zeros((3, 2, 7))
            np.add.at(wanted, (np.arange(3)[:, None], draws.episode, draws.time), 1.0 / 9.0)
            assert visits.weight_t == pytest.approx(wanted.reshape(6, 7), rel=1e-12)
            return
        for stream, (run, draw) in enumerate(np.ndindex(3, 9)):
            seen = state[run, draws.episode[run, draw], draws.time[run, draw] :][:length]
            assert visits.state_t[stream, : seen.size].tolist() == seen.tolist()
            assert visits.valid[stream].sum() == seen.size
            assert visits.weight_t[stream].tolist() == [1.0 / 9.0] + [0.0] * (length - 1)


class TestCritics:
    @pytest.mark.parametrize("operator", ["expected", "modes", "stackelberg"])
    def test_tables_settle_at_the_operators_fixed_point(self, operator):
        follower = solve_follower(GAME, THETAS[0])
        policies, responses = policies_of()[:1], follower.policy[None]
        ahead = NextValue(
            policies=policies,
            responses=responses,
            stackelberg=np.array([operator == "stackelberg"]),
            targets="modes" if operator == "modes" else "expected",
        )
        critic = JointTables(GAME, np.zeros((1, GAME.reward_leader.size)), np.ones(1))
        counts = GAME.transition[None]
        for _ in range(int(np.ceil(np.log(1e-11) / np.log(GAME.discount_leader)))):
            value = ahead(critic.tables())
            seen = counts.sum(axis=4)
            wanted = seen * GAME.reward_leader + GAME.discount_leader * np.vecdot(counts, value[:, None, None, None])
            critic.learn(seen, wanted)
        truth = GameCritic.solve(GAME, THETAS[0], follower, operator=operator).action_values[0]
        assert critic.tables()[0] == pytest.approx(truth, abs=1e-9)

    def test_a_network_steps_down_its_loss(self):
        """With a rate so small that a step is linear, Adam's first step is minus the sign of the loss's slope."""
        rng = np.random.default_rng(0)
        network = JointNetworks.architecture(GAME)
        weights = np.stack([network.initialise(rng) for _ in range(2)])
        counts = rng.integers(0, 3, (2, *GAME.reward_leader.shape)).astype(float)
        counts /= counts.sum(axis=(1, 2, 3), keepdims=True)
        aims = rng.normal(size=counts.shape)
        critic = JointNetworks(GAME, weights, np.full(2, 1e-6))

        def loss(at):
            critic.lagged = at
            return (counts * (critic.tables(lagged=True) - aims) ** 2).sum(axis=(1, 2, 3))

        slopes = {}
        for place in range(0, weights.shape[1], 41):
            h = 1e-6
            ends = [loss(weights + sign * h * np.eye(1, weights.shape[1], place)) for sign in (1, -1)]
            slopes[place] = (ends[0] - ends[1]) / (2 * h)
        critic.learn(counts, counts * aims)
        moved = critic.weights - weights
        checked = 0
        for place, slope in slopes.items():
            for row in np.flatnonzero(np.abs(slope) > 1e-5):
                assert moved[row, place] == pytest.approx(-1e-6 * np.sign(slope[row]), rel=1e-2)
                checked += 1
        assert checked > 50
        assert (loss(critic.weights) < loss(weights)).all()
