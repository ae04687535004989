"""Training in Markov games: directions against the registered estimators, and runs that never mix."""

from dataclasses import replace

import numpy as np
import pytest
from game_runs import EXACT, GAME, THETAS, policies_of, training_of

from bilevelrl.benchmarks.paper.published_follower import log_sum_exp_of_the_mean
from bilevelrl.estimators import BCHG, BiAC, Context, NaivePGD
from bilevelrl.estimators.critics.joint_tables import GameCritic
from bilevelrl.estimators.methods import TotalDerivative
from bilevelrl.estimators.training import METHODS, PUBLISHED, SGD, GameOptions, train
from bilevelrl.estimators.training.declarations.actors import NetworkActor, softmax_rows
from bilevelrl.estimators.training.worlds.logits import PlayedResponse, all_logits
from bilevelrl.estimators.training.worlds.samples import trajectories_of
from bilevelrl.reference import MarkovGame, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.tasks import toy_markov_game


def context_of(world, row):
    theta = THETAS[row]
    return Context(problem=world.logit_game, theta=theta, follower=solve_follower(GAME, theta))


AS_PUBLISHED = PUBLISHED[MarkovGame]
ESTIMATORS = {
    "bc_hg": lambda options: BCHG(baseline=options.baseline, same_step=options.same_step),
    "naive_pgd": lambda options: NaivePGD(baseline=options.baseline),
    "bi_ac": lambda options: BiAC(baseline=options.baseline),
    "total_derivative": lambda options: TotalDerivative(baseline=options.baseline),
}


class TestDirections:
    @pytest.mark.parametrize("method", ESTIMATORS)
    @pytest.mark.parametrize(("baseline", "same_step"), [("state_value", False), ("action_dependent", True)])
    def test_the_whole_batch_gives_what_the_registered_estimator_gives(self, method, baseline, same_step):
        training = training_of(
            method, seeds=3, base=EXACT, actor="tabular", minibatch=None, baseline=baseline, same_step=same_step
        )
        world = training.world(training.generators())
        world.prepare(THETAS, 0)
        found = world.direction(THETAS, 0)
        gamma = GAME.discount_leader
        seen = gamma ** np.arange(training.steps)
        for row in range(3):
            context = context_of(world, row)
            batch = trajectories_of(GAME, world.codes[row], context.follower.policy)
            wanted = ESTIMATORS[method](training.options).estimate(batch, context).mean
            assert found[row] * (1.0 - gamma) * seen.sum() == pytest.approx(wanted, rel=1e-9, abs=1e-11)

    @pytest.mark.parametrize("options", [AS_PUBLISHED, GameOptions(), GameOptions(influence_steps=3)])
    def test_a_minibatch_is_the_mean_of_its_transitions(self, options):
        training = training_of(
            "bc_hg", "naive_pgd_replay", seeds=1, base=options, actor="tabular", minibatch=7, ascent_steps=2
        )
        world = training.world(training.generators())
        thetas = THETAS[:2]
        for iteration in range(2):
            world.prepare(thetas, iteration)
            world.finish(thetas)
        found = world.direction(thetas, 1)
        wanted = np.zeros((2, *GAME.reward_leader.shape[:2]))
        policies = policies_of(thetas=thetas)
        for row in range(2):
            codes, draws = world.memories[row == 1]["codes"][0], world.draws[row == 1][1]
            assert len(codes) == (2 if row == 0 else 4)
            f, g, table, value = policies[row], world.played.policy[row], world.tables[row], world.played.value[row]
            for episode, t in zip(draws.episode[0], draws.time[0], strict=True):
                path = [np.unravel_index(code, GAME.transition.shape) for code in codes[episode, t:]]
                state, leader_action, action, _ = path[0]
                baseline = f[state] @ table[state, :, action]
                if options.baseline == "state_value":
                    baseline = f[state] @ (g[state] * table[state]).sum(axis=1)
                score = np.eye(f.shape[1])[leader_action] - f[state]
                wanted[row, state] += score * (table[state, leader_action, action] - baseline) / 7
                if row == 1:
                    continue
                benefit = table[state, leader_action, action] - g[state, leader_action] @ table[state, leader_action]
                for k, (s, later, _, _) in enumerate(path):
                    if (k == 0 and not options.same_step) or k >= (options.influence_steps or len(path)):
                        continue
                    worth = value[s, later] - f[s] @ value[s]
                    weight = GAME.discount_follower**k * benefit * worth / GAME.temperature
                    wanted[row, s] += weight * (np.eye(f.shape[1])[later] - f[s]) / 7
        wanted /= 1.0 - GAME.discount_leader
        assert found == pytest.approx(wanted[:, :, 1:].reshape(2, -1), rel=1e-9, abs=1e-10)

    @pytest.mark.parametrize("actor", ["network", "tabular"])
    def test_the_exact_gradient_in_the_actors_own_parameters(self, actor):
        training = training_of("exact", "exact_partial", seeds=1, actor=actor, ascent_steps=2)
        world, thetas = training.world(training.generators()), training.start()
        world.prepare(thetas, 0)
        for step in (0, 1):
            direction = world.direction(thetas, step)
        rng = np.random.default_rng(1)
        along = rng.normal(size=thetas.shape[1])
        h = 1e-6

        def objective(theta):
            logits, _ = training.actor.logits(theta[None])
            return leader_objective(training.logit_game, (logits[0, :, 1:] - logits[0, :, :1]).ravel())

        slope = (objective(thetas[0] + h * along) - objective(thetas[0] - h * along)) / (2 * h)
        assert direction[0] @ along == pytest.approx(slope, rel=1e-6, abs=1e-7)
        logits, tape = training.actor.logits(thetas[1:])
        truth = hypergradient(training.logit_game, (logits[0, :, 1:] - logits[0, :, :1]).ravel())
        assert direction[1] == pytest.approx(
            training.actor.pull(tape, all_logits(truth.parts["policy"], GAME.states)[None])[0]
        )

    def test_the_stackelberg_learner_imitates_its_stage_game(self):
        training = training_of(
            "bi_level_q", seeds=1, critic="tabular", actor="tabular", minibatch=9, game=toy_markov_game()
        )
        world, thetas = training.world(training.generators()), training.start()
        world.prepare(thetas, 0)
        direction = world.direction(thetas, 0)[0]
        likely = world.played.policy[0].argmax(axis=2)[..., None]
        stage = np.take_along_axis(world.tables[0], likely, axis=2)[..., 0]
        gap = softmax_rows(stage / training.problem.temperature)[:, 1] - world.policies[0, :, 1]
        draws = world.draws[True][0]
        state = np.unravel_index(draws.taken(world.memories[True]["codes"]), training.problem.transition.shape)[0]
        visited = np.bincount(state[0], weights=draws.weight[0], minlength=3)
        assert direction == pytest.approx(100.0 * visited * gap)


class TestTraining:
    def test_no_run_depends_on_another(self):
        methods = tuple(METHODS[MarkovGame])
        together = train(training_of(*methods, seeds=2, minibatch=5, critic_rate=1e-3))
        for position, method in enumerate(methods):
            alone = train(training_of(method, seeds=1, minibatch=5, critic_rate=1e-3))
            assert np.array_equal(alone.thetas[0], together.thetas[2 * position]), method
            for name, values in alone.values.items():
                assert np.array_equal(values[:, 0], together.values[name][:, 2 * position]), (method, name)

    @pytest.mark.parametrize("options", [AS_PUBLISHED, GameOptions(critic="tabular")])
    def test_interrupted_training_continues_as_if_nothing_had_happened(self, options, tmp_path):
        asked = training_of("bc_hg", "naive_pgd_replay", base=options, minibatch=5, iterations=6, evaluate_every=1)
        whole = train(asked)
        file = tmp_path / "half.npz"
        train(asked, checkpoint=file, checkpoint_every=1, callbacks=[lambda evaluation: evaluation.iteration < 3])
        resumed = train(asked, checkpoint=file)
        assert np.array_equal(whole.thetas, resumed.thetas)
        for name, values in whole.values.items():
            assert np.array_equal(values, resumed.values[name])

    def test_what_is_written_down(self):
        game = toy_markov_game(2.0)
        training = training_of(
            "bc_hg",
            game=game,
            seeds=2,
            base=AS_PUBLISHED,
            steps=30,
            iterations=1,
            probe=(1, 1),
            minibatch=None,
        )
        values = train(training).values
        for row, theta in enumerate(training.start()):
            logits, _ = training.actor.logits(theta[None])
            free = logits[0, :, 1] - logits[0, :, 0]
            truth = hypergradient(game, free)
            assert values["objective"][0, row] == pytest.approx(leader_objective(game, free), rel=1e-12)
            assert values["logit_truth"][0, row] == pytest.approx(truth.value[1], rel=1e-10)
            assert values["probability"][0, row] == pytest.approx(1.0 / (1.0 + np.exp(-free[1])))
            wrong = log_sum_exp_of_the_mean(game, free)
            for name, discounted in (("discounted_return", True), ("undiscounted_return", False)):
                wanted = leader_objective(game, free, horizon=30, discounted=discounted, follower=wrong)
                assert values[name][0, row] == pytest.approx(wanted, rel=1e-9)

    @pytest.mark.parametrize("method", ["bc_hg", "naive_pgd"])
    def test_expected_directions_are_what_batches_average_to(self, method):
        """A batch of many long episodes comes as near to it as its own spread over episodes allows."""
        training = training_of(
            method, seeds=1, base=EXACT, actor="tabular", minibatch=None, streams=400, steps=400, probe=(0, 1)
        )
        world, thetas = training.world(training.generators()), training.start()
        world.prepare(thetas, 0)
        values = world.evaluate(thetas, world.direction(thetas, 0))
        context = Context(problem=world.logit_game, theta=thetas[0], follower=solve_follower(GAME, thetas[0]))
        batch = trajectories_of(GAME, world.codes[0], context.follower.policy)
        drawn = ESTIMATORS[method](training.options).estimate(batch, context, per_draw=True).per_draw
        spread = drawn[:, 0].std() / np.sqrt(training.streams)  # θ[0] is the logit of action 1 in state 0
        found, wanted = values["logit_direction"][0], values["expected_logit_direction"][0]
        assert abs(found - wanted) < 5.0 * spread
        assert spread < 0.5 * abs(wanted)
        if method == "bc_hg":
            assert values["expected_cosine"][0] == pytest.approx(1.0, abs=1e-9)

    def test_unprepared_first_batches_hold_no_guiding_term(self):
        training = training_of("bc_hg", "naive_pgd", seeds=1, base=AS_PUBLISHED, actor="tabular", minibatch=None)
        world = training.world(training.generators())
        thetas = training.start()
        world.prepare(thetas, 0)
        assert not world.played.value.any()
        assert np.ptp(world.played.policy) < 1e-15
        nothing = PlayedResponse(value=world.played.value[0], policy=world.played.policy[0])
        critic = GameCritic(
            action_values=world.tables[:1], policy=world.policies[0], response=nothing.policy, sees_leader_action=True
        )
        context = Context(problem=world.logit_game, theta=thetas[0], follower=nothing, critic=critic)
        batch = trajectories_of(GAME, world.codes[0])
        own = NaivePGD(critic="context", baseline=training.options.baseline).estimate(batch, context).mean
        seen = GAME.discount_leader ** np.arange(training.steps)
        assert world.direction(thetas, 0)[0] == pytest.approx(own / (1.0 - GAME.discount_leader) / seen.sum(), rel=1e-9)
        world.prepare(thetas, 1)
        assert world.played.value.any()

    def test_exact_ascent_reaches_the_optimum(self):
        game = toy_markov_game()
        training = training_of(
            "exact", game=game, seeds=1, actor="tabular", iterations=120, rate=0.05, probe=(1, 1), evaluate_every=20
        )
        assert train(training).values["probability"][-1, 0] == pytest.approx(0.16646, abs=2e-3)

    def test_networks_start_alike_for_all_methods_of_a_seed(self):
        training = training_of("bc_hg", "naive_pgd", seeds=3)
        start = training.start()
        assert np.array_equal(start[:3], start[3:])
        world = training.world(training.generators())
        assert np.array_equal(world.critic.weights[:3], world.critic.weights[3:])
        assert not np.array_equal(world.critic.weights[0], world.critic.weights[1])
        assert isinstance(training.actor, NetworkActor)


class TestRefusals:
    @pytest.mark.parametrize(
        "options",
        [{"minibatch": 0}, {"critic_steps": 0}, {"influence_steps": 0}, {"target_rate": 0.0}, {"target_rate": np.nan}],
    )
    def test_numbers(self, options):
        with pytest.raises(InvalidInputError):
            GameOptions(**options)

    @pytest.mark.parametrize("name", ["actor", "critic", "targets", "target_leader", "target_update", "baseline"])
    def test_names(self, name):
        with pytest.raises(UnknownNameError, match=name):
            GameOptions(**{name: "other"})

    def test_trainings(self):
        with pytest.raises(UnknownNameError, match="hpgd"):
            training_of("hpgd")
        with pytest.raises(InvalidInputError, match="probe"):
            training_of("bc_hg", probe=(9, 0))
        with pytest.raises(InvalidInputError, match="influence_steps"):
            training_of("bc_hg", influence_steps=12)
        with pytest.raises(InvalidInputError, match="past data"):
            training_of("bi_ac_replay", minibatch=None)
        with pytest.raises(UnsupportedError, match="sees"):
            training_of("bc_hg", game=toy_markov_game(follower_sees_leader_action=False))
        with pytest.raises(UnsupportedError, match="sum to one"):
            training_of("bc_hg", game=replace(GAME, transition=0.5 * GAME.transition))
        with pytest.raises(InvalidInputError, match="streams"):
            training_of("bc_hg", streams=0)
        assert isinstance(training_of("bc_hg", optimiser=SGD()).optimiser, SGD)
