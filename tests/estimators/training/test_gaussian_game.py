"""Leaders of the LQR game in the one training loop: methods, critics, stored episodes, and the published switches."""

import numpy as np
import pytest

from bilevelrl.estimators.critics.gaussian_networks import ExactGameCritics, GameNetworks
from bilevelrl.estimators.sampling.gaussian_game import StackedFollowers, sample_games
from bilevelrl.estimators.sampling.replay_memory import Draws
from bilevelrl.estimators.training import METHODS, PUBLISHED, GameOptions, LQRGameTraining, lqr_game_training, train
from bilevelrl.reference import LQRGame, hypergradient, leader_objective, named_stream
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError
from bilevelrl.tasks import lqr_game, random_lqr_game

pytestmark = pytest.mark.exact
FAST = {"published": True, "averages": "quadrature", "exploring_iterations": 2, "ascent_steps": 3}


def training(method, **options):
    options = {"seeds": range(3), "iterations": 6, "evaluate_every": 2, **options}
    return lqr_game_training(lqr_game(), method, **options)


def test_the_pathwise_leader_gets_there():
    # A few seeds that are neither tuned on nor reported; 300 of the 500 outer iterations of the experiment.
    history = train(training("pathwise", seeds=[1000, 1001], iterations=300, evaluate_every=50))
    found = [leader_objective(lqr_game(), theta, horizon=100, discounted=False) for theta in history.thetas]
    assert min(found) > 17.0
    assert np.median(history.values["cosine"]) > 0.99
    without = train(training("pathwise_partial", seeds=[1000, 1001], iterations=300, evaluate_every=50))
    assert without.values["objective_undiscounted"].max() < 1.0


@pytest.mark.parametrize("method", sorted(METHODS[LQRGame]))
def test_runs_do_not_depend_on_those_beside_them(method):
    whole = train(training(method, **FAST))
    alone = train(training(method, **FAST, seeds=[1]))
    np.testing.assert_array_equal(whole.thetas[1], alone.thetas[0])
    for name, values in whole.values.items():
        np.testing.assert_array_equal(values[:, 1], alone.values[name][:, 0], err_msg=name)


def test_methods_do_not_depend_on_those_beside_them():
    one = training("bc_hg", **FAST, seeds=[0])
    both = LQRGameTraining(
        problem=one.problem,
        runs=[*training("pathwise", **FAST, seeds=[0]).runs, *one.runs],
        iterations=6,
        options=one.options,
        schedule=one.schedule,
        ascent_steps=3,
        evaluate_every=2,
    )
    np.testing.assert_array_equal(train(both).thetas[1], train(one).thetas[0])


@pytest.mark.parametrize("method", ["bc_hg", "naive_pgd_off", "pathwise"])
def test_interrupted_trainings_continue(method, tmp_path):
    whole = train(training(method, **FAST))
    path = tmp_path / "checkpoint.npz"

    def stop(evaluation):
        return evaluation.iteration < 2

    train(training(method, **FAST), checkpoint=path, checkpoint_every=1, callbacks=[stop])
    continued = train(training(method, **FAST), checkpoint=path)
    np.testing.assert_array_equal(whole.thetas, continued.thetas)
    np.testing.assert_array_equal(whole.values["relative_error"], continued.values["relative_error"])


def test_exact_methods_are_the_exact_hypergradient_and_its_policy_part():
    for method, expected in (("exact", 1.0), ("exact_partial", None)):
        history = train(training(method, iterations=2, evaluate_every=1))
        if expected is not None:
            np.testing.assert_allclose(history.values["cosine"], expected, rtol=1e-12)
            np.testing.assert_array_equal(history.values["relative_error"], 0.0)
            continue
        theta = training(method).start()[0]
        truth = hypergradient(lqr_game(), theta, horizon=100)
        error = np.linalg.norm(truth.parts["response"]) / np.linalg.norm(truth.value)
        np.testing.assert_allclose(history.values["relative_error"][0, 0], error, rtol=1e-9)


def test_scores_with_exact_critics_point_the_right_way_and_the_published_form_does_not():
    theta, runs = np.array([-7.0, -2.0]), 8
    truth = hypergradient(lqr_game(), theta, horizon=100).value
    cosines = {}
    for name, centred in (("sound", True), ("published", False)):
        options = {"critic": "exact", "influence_baseline": centred, "streams": 10}
        one = lqr_game_training(lqr_game(), "bc_hg", seeds=range(runs), iterations=1, **options)
        world = one.world(one.generators())
        thetas = np.tile(theta, (runs, 1))
        world.prepare(thetas, 0)
        found = world.direction(thetas, 0)
        cosines[name] = found @ truth / (np.linalg.norm(found, axis=1) * np.linalg.norm(truth))
    assert np.median(cosines["sound"]) > 0.99
    assert (cosines["published"] < 0.0).any()  # its follower's values are noise: any direction comes out
    assert (cosines["published"] > 0.0).any()


def test_stored_episodes():
    one = training("naive_pgd_off", **FAST, iterations=4)
    world = one.world(one.generators())
    thetas = one.start()
    for iteration in range(3):
        world.prepare(thetas, iteration)
        world.finish(thetas)
    learner = world.learners["naive_pgd_off"]
    assert learner.memory.filled == 12
    assert learner.memory.kept["state_t"].shape == (3, 16, 101, 2)
    on = training("naive_pgd_on", **FAST, iterations=4)
    world = on.world(on.generators())
    world.prepare(on.start(), 0)
    world.prepare(on.start(), 1)
    assert world.learners["naive_pgd_on"].memory["state_t"].shape == (3, 4, 101, 2)


def test_draws_follow_the_discount():
    uniforms = named_stream(0, "draws").random((1, 200_000, 2))
    draws = Draws.discounted(0.9, 4, 20, uniforms)
    wanted = 0.9 ** np.arange(20) / np.sum(0.9 ** np.arange(20))
    counts = np.bincount(draws.time[0], minlength=20) / 200_000
    assert np.abs(counts - wanted).max() < 5.0 * np.sqrt(wanted.max() / 200_000)
    assert np.abs(np.bincount(draws.episode[0]) / 200_000 - 0.25).max() < 5.0 * np.sqrt(0.25 / 200_000)
    every = Draws.every(0.9, 2, 4, 20)
    np.testing.assert_allclose(every.weight.sum(axis=1), 1.0)
    assert every.weight[0, every.time[0] == 3].sum() == pytest.approx(wanted[3])


def critics_on(modes=True, rate=0.01):
    game = lqr_game()
    thetas = np.array([[-3.0, -1.0], [0.5, 0.5]])
    followers = StackedFollowers.solve(game, thetas)
    rng = [named_stream(0, "critic", row) for row in range(2)]
    batch = sample_games(game, followers, streams=4, steps=20, rng=rng)
    return game, thetas, followers, batch, GameNetworks(game, thetas[:, None], np.full(2, rate), modes=modes, rng=rng)


def test_network_critics_learn_their_targets():
    game, thetas, followers, batch, critics = critics_on()
    episode, time = (np.array([grid.ravel()] * 2) for grid in np.meshgrid(np.arange(4), np.arange(20), indexing="ij"))
    at = (np.arange(2)[:, None], episode, time)
    state, leader, action = batch.state_t[at], batch.leader_action_t[at], batch.action_t[at]
    ahead = batch.state_t[np.arange(2)[:, None], episode, time + 1]
    planned = ahead @ thetas[:, :, None]
    reply = np.stack([one.mean(x, lead) for one, x, lead in zip(followers.solutions, ahead, planned, strict=True)])
    wanted = game.reward_leader(state) + 0.99 * critics.action_value(ahead, planned, reply)  # the target is frozen
    losses = []
    for _ in range(150):
        losses.append(np.mean((critics.action_value(state, leader, action) - wanted) ** 2, axis=1))
        critics.learn(followers, batch, episode, time)
    assert (losses[-1] < 0.05 * losses[0]).all()
    critics.follow_leader(1.0, thetas[:, None])
    np.testing.assert_allclose(critics.lagged, critics.weights, atol=1e-6)  # float32


def test_draws_in_place_of_modes_change_the_targets():
    moved = []
    for modes in (True, False):
        *_, followers, batch, critics = critics_on(modes=modes)
        critics.learn(followers, batch, np.zeros((2, 8), dtype=int), np.tile(np.arange(8), (2, 1)))
        moved.append(critics.weights)
    assert not np.array_equal(moved[0], moved[1])
    np.testing.assert_allclose(moved[0], moved[1], atol=0.1)  # Adam's first step is at most its rate


def test_dead_units_are_counted():
    *_, critics = critics_on()
    assert (critics.dead_share() < 0.2).all()
    critics.weights[1, 4 * 64 + 64 + 64 * 64 : 4 * 64 + 64 + 64 * 64 + 16] = -1e6  # biases of the second layer
    assert critics.dead_share()[1] >= 0.25


def test_exact_critics_have_the_start_values():
    game, thetas, followers, *_ = critics_on()
    critics = ExactGameCritics.solve(game, thetas, followers, steps=100)
    # From the start the first two actions' averages of Q_L are J: by a fine grid over both.
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    start = np.array([1.0, 0.0])
    leader = (thetas @ start)[:, None] + 1e-3 * points
    nodes = len(points)
    total = np.zeros(2)
    for k, chance in enumerate(weights):
        state = np.broadcast_to(start, (2, nodes, 2))
        seen = np.repeat(leader[:, k : k + 1, None], nodes, axis=1)
        mean = np.stack([one.mean(start, lead[0]) for one, lead in zip(followers.solutions, seen, strict=True)])
        spread = np.sqrt(followers.covariance[:, 0, 0])
        action = mean[:, None] + (spread[:, None] * points)[..., None]
        total += chance * critics.action_value(state, seen, action) @ weights
    wanted = [leader_objective(game, theta, horizon=101) for theta in thetas]
    np.testing.assert_allclose(total, wanted, rtol=1e-6)


def test_options():
    published = PUBLISHED[LQRGame]
    assert published.exploring_iterations == 11
    assert (published.critic_rate, published.critic_steps, published.critic_minibatch) == (0.1, 5, 64)
    assert (published.targets, published.target_rate) == ("modes", 0.01)
    assert lqr_game_training(lqr_game(), "naive_pgd_on", seeds=[0], published=True).largest_norm == np.inf
    assert lqr_game_training(lqr_game(), "bc_hg", seeds=[0], published=True).largest_norm == 1.0
    assert lqr_game_training(lqr_game(), "bc_hg", seeds=[0], same_step=True).options.same_step
    with pytest.raises(UnsupportedError, match=r"critic='tabular': expected 'network' or 'exact' in a LQRGame"):
        training("bc_hg", critic="tabular")
    with pytest.raises(UnsupportedError, match="influence_steps=3"):
        training("bc_hg", influence_steps=3)
    with pytest.raises(InvalidInputError, match="target_rate"):
        training("bc_hg", target_rate=0.0)
    with pytest.raises(InvalidInputError, match="exploring_iterations"):
        training("bc_hg", exploring_iterations=-1)
    with pytest.raises(InvalidInputError, match="leader_policy"):
        raise_on(random_lqr_game())


def raise_on(game):
    try:
        lqr_game_training(game, "pathwise", seeds=[0])
    except UnsupportedError as error:
        raise InvalidInputError(str(error)) from None


def test_first_actions_are_random_only_while_exploring():
    one = training("bc_hg", **FAST)
    world = one.world(one.generators())
    deviations = []
    for iteration in range(3):
        world.prepare(one.start(), iteration)
        batch = world.batches["bc_hg"]
        mean = batch.state_t[:, :, :-1] @ one.start()[:, None, :, None]
        deviations.append(np.std(batch.leader_action_t - mean))
        world.finish(one.start())
    assert min(deviations[:2]) > 0.5
    assert deviations[2] < 2e-3


def test_critics_may_learn_from_wider_actions(monkeypatch):
    seen, original = [], GameNetworks.learn

    def learn(self, followers, batch, episode, time):
        residual = batch.leader_action_t - batch.state_t[:, :, :-1] @ followers.gains[:, None].swapaxes(2, 3)
        seen.append(residual)
        original(self, followers, batch, episode, time)

    monkeypatch.setattr(GameNetworks, "learn", learn)
    batches = []
    for deviation in (None, 0.1):
        one = training("bc_hg", data_deviation=deviation, critic_steps=1)
        world = one.world(one.generators())
        world.prepare(one.start(), 0)
        batches.append(world.batches["bc_hg"])
    np.testing.assert_array_equal(batches[0].action_t, batches[1].action_t)  # what directions are made of stays
    # A standard deviation from n = 1200 normal numbers has a relative error of 1 / sqrt(2 n) = 2 %.
    assert np.std(seen[0]) == pytest.approx(1e-3, rel=0.1)
    assert np.std(seen[1]) == pytest.approx(0.1, rel=0.1)


def test_wider_actions_are_refused_where_they_mean_nothing():
    with pytest.raises(InvalidInputError, match=r"data_deviation.*learns from no data"):
        GameOptions(critic="exact", data_deviation=0.1)
    with pytest.raises(InvalidInputError, match="data_deviation"):
        GameOptions(data_deviation=0.0)
    with pytest.raises(UnsupportedError, match="naive_pgd_off"):
        training("naive_pgd_off", data_deviation=0.1)
