"""Training on the building: the loop's promises, networks, critics' rules, the published set-up, causes."""

from dataclasses import replace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.benchmarks.paper.building.figures import paper_curve, paper_end, with_parts
from bilevelrl.benchmarks.paper.building.training import SELECTED, building_training
from bilevelrl.benchmarks.research.building.causes import ARMS, Arm, first_directions, gains
from bilevelrl.benchmarks.research.building.verdicts import sampled_verdict, verdict_in_one_dimension
from bilevelrl.estimators import Context
from bilevelrl.estimators.critics.network_values import ActionValueNetwork, TDOptions, fit_network
from bilevelrl.estimators.critics.networks import DenseNetwork
from bilevelrl.estimators.expectations.linear_quadratic import policy_covariance
from bilevelrl.estimators.methods import policy_covariance as lqr_covariance
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.training import (
    METHODS,
    ExactCritics,
    LeastSquaresCritics,
    LQRTraining,
    NetworkCritics,
    Run,
    train,
)
from bilevelrl.estimators.training.declarations.critic_rules import Wanted
from bilevelrl.reference import ConfigurableLQR, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError
from bilevelrl.tasks import building_thermal_control
from bilevelrl.verification.checks.verdicts import Outcome

SMALL_NETWORK = NetworkCritics(steps=3, warm_start=True, hidden=4, actions=2)


def small(methods, **changes):
    options = {
        "problem": building_thermal_control(),
        "runs": [Run(method=method, seed=0, learning_rate=0.1) for method in methods],
        "iterations": 3,
        "streams": 8,
        "steps": 30,
        "clip_blocks": (4, 4),
        "evaluate_every": 1,
    }
    return LQRTraining(**(options | changes))


SAMPLED = [name for name, method in METHODS[ConfigurableLQR].items() if method.make is not None]


# --- the loop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "critics", [LeastSquaresCritics(), SMALL_NETWORK, ExactCritics()], ids=lambda rule: type(rule).__name__
)
def test_a_run_does_not_depend_on_its_neighbours(critics):
    quadratic = ("bc_hg_pathwise", "policy_covariance")
    methods = ["bc_hg", "hpgd_mc", "hpgd_td", "exact"] if isinstance(critics, NetworkCritics) else [*quadratic, "bc_hg"]
    together = train(small(methods, critics=critics))
    for column, method in enumerate(methods):
        alone = train(small([method], critics=critics))
        np.testing.assert_array_equal(alone.thetas[0], together.thetas[column])
        np.testing.assert_array_equal(alone.values["cosine"][:, 0], together.values["cosine"][:, column])


@pytest.mark.parametrize("critics", [LeastSquaresCritics(), SMALL_NETWORK], ids=lambda rule: type(rule).__name__)
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path, critics):
    training = small(["bc_hg", "hpgd_td"], critics=critics)
    whole = train(training)
    path = tmp_path / "checkpoint.npz"
    train(training, checkpoint=path, checkpoint_every=1, callbacks=[lambda evaluation: evaluation.iteration < 1])
    resumed = train(training, checkpoint=path)
    np.testing.assert_array_equal(resumed.thetas, whole.thetas)
    for name, values in whole.values.items():
        np.testing.assert_array_equal(resumed.values[name], values)


def test_evaluations_are_exact():
    history = train(small(["exact", "exact_partial", "naive_pgd"]))
    problem = history.training.problem
    for point in range(len(history.iterations)):
        for column in range(3):
            theta = np.array([history.values[f"theta_{i}"][point, column] for i in range(8)])
            value = {name: values[point, column] for name, values in history.values.items()}
            assert value["objective"] == pytest.approx(leader_objective(problem, theta), rel=1e-12)
            costs = value["state_cost"] + value["action_cost"] + value["constant_cost"]
            assert value["objective"] == pytest.approx(-costs, rel=1e-12)
            parts = with_parts(value)
            weighed = parts["stability"] - 0.5 * parts["energy"] - 0.1 * (parts["insulation"] + parts["airflow"])
            assert weighed == pytest.approx(value["objective"], abs=2e-3)  # parts are rounded to three digits
    np.testing.assert_allclose(history.values["relative_error"][:, 0], 0.0, atol=1e-12)
    truth = hypergradient(problem, history.training.start()[0])
    share = np.linalg.norm(truth.parts["response"]) / np.linalg.norm(truth.value)
    assert history.values["relative_error"][0, 1] == pytest.approx(share, rel=1e-10)


def test_a_step_is_as_long_as_its_blocks_allow():
    training = small(["bc_hg"], iterations=1)
    moved = train(training).thetas - training.start()
    np.testing.assert_allclose(np.linalg.norm(moved.reshape(2, 4), axis=1), 0.1, rtol=1e-12)


@pytest.mark.parametrize("method", SAMPLED)
def test_every_method_trains(method):
    history = train(small([method], iterations=2))
    assert np.isfinite(history.objective).all()


def test_separate_batches_change_the_critic_and_not_the_sample():
    rngs = [np.random.default_rng(0) for _ in range(2)]
    found = []
    for rng, separate in zip(rngs, (False, True), strict=True):
        world = small(["bc_hg"], separate_critics=separate).world([rng])
        world.prepare(np.zeros((1, 8)), 0)
        found.append(world.samples[0])
    np.testing.assert_array_equal(found[0][0].state_t, found[1][0].state_t)
    assert np.abs(found[0][1].critic.matrices - found[1][1].critic.matrices).max() > 0.0


def test_wrong_trainings_are_refused():
    with pytest.raises(UnknownNameError, match="bc_hg"):
        small(["bchg"])
    with pytest.raises(InvalidInputError, match="streams"):
        small(["bc_hg"], streams=0)
    with pytest.raises(InvalidInputError, match="start_scale"):
        small(["bc_hg"], start_scale=-1.0)
    with pytest.raises(InvalidInputError, match="theta_shape"):
        small(["bc_hg"], problem=replace(building_thermal_control(), theta_shape=None))
    with pytest.raises(UnknownNameError, match="critics"):
        building_training(method="bc_hg", learning_rate=0.1, critics="network")
    with pytest.raises(InvalidInputError, match="steps"):
        NetworkCritics(steps=0)


# --- networks -----------------------------------------------------------------------------------------------------


def a_batch(streams=12, steps=7):
    problem, theta = building_thermal_control(), np.zeros(8)
    follower = solve_follower(problem, theta)
    batch = LQRSimulator(step_limit=steps, single_episode=False).sample(
        problem, theta, follower, streams=streams, steps=2 * steps, rng=np.random.default_rng(0)
    )
    return Context(problem=problem, theta=theta, follower=follower), batch


def test_one_step_is_adam_on_the_semi_gradient():
    """Against autograd on one flat loss; successors across episodes do not count, nor do last transitions."""
    _, batch = a_batch(streams=80)  # several blocks
    network = DenseNetwork(sizes=(4, 5, 5, 2))
    rng = np.random.default_rng(1)
    start = network.initialise(rng, "orthogonal") + 0.1 * rng.standard_normal(network.parameters)  # no ties at 0
    rewards = np.stack([batch.reward_leader_t, batch.state_t[..., 0]], axis=-1)
    options = TDOptions(steps=1, learning_rate=1e-3, largest_norm=1.0)
    fitted = fit_network(network, start, batch.state_t, rewards, batch, discount=0.9, options=options)
    follows = np.zeros(batch.valid.shape, dtype=bool)
    follows[:, :-1] = batch.time_in_episode[:, 1:] > 0

    def outputs(weights, inputs):
        begin, hidden = 0, inputs
        for layer, (before, after) in enumerate([(4, 5), (5, 5), (5, 2)]):
            matrix = weights[begin : begin + before * after].reshape(before, after)
            hidden = hidden @ matrix + weights[begin + before * after : begin + (before + 1) * after]
            begin += (before + 1) * after
            hidden = anp.maximum(hidden, 0.0) if layer < 2 else hidden
        return hidden

    target = rewards[follows] + 0.9 * outputs(start, batch.state_tp1[follows])
    gradient = autograd.grad(lambda w: anp.mean((outputs(w, batch.state_t[follows]) - target) ** 2))(start)
    gradient = gradient / max(1.0, np.linalg.norm(gradient))
    moved = 1e-3 * gradient / (np.abs(gradient) + 1e-8)  # Adam's first step
    np.testing.assert_allclose(fitted, start - moved, rtol=1e-6, atol=1e-12)


def test_networks_learn_the_values():
    """A larger step size on a short batch: the temporal-difference error falls by far."""
    context, batch = a_batch(streams=40, steps=15)
    rule = NetworkCritics(steps=400, learning_rate=3e-3, hidden=16, actions=64)
    wanted = Wanted(leader="state", normalised=True)
    carried = rule.start(wanted, 4, 2, 8, np.random.default_rng(0))
    critic = rule.learn(wanted, batch, context, carried, np.random.default_rng(1)).leader

    def error(values):
        inside = batch.time_in_episode < 14
        target = batch.reward_leader_t + 0.9 * values(batch.state_tp1)
        return np.mean((values(batch.state_t) - target)[inside] ** 2)

    assert error(critic.value) < 0.1 * error(lambda state: np.zeros(state.shape[:2]))
    np.testing.assert_array_equal(critic.action_value(batch.state_t, batch.action_t), critic.value(batch.state_t))


def test_published_networks_start_anew_and_warm_ones_go_on():
    context, batch = a_batch(streams=4)
    for warm in (False, True):
        rule = NetworkCritics(steps=2, hidden=4, warm_start=warm)
        wanted = Wanted(gradient="state")
        carried = rule.start(wanted, 4, 2, 8, np.random.default_rng(0))
        learnt = rule.learn(wanted, batch, context, carried, np.random.default_rng(1))
        same = [np.array_equal(learnt.carried[name], carried[name]) for name in ("leader", "gradient")]
        assert same == [not warm, not warm]
        assert learnt.gradient.value(batch.state_t).shape == (*batch.valid.shape, 8)


def test_the_average_over_fresh_actions_is_one():
    context, batch = a_batch()
    network = DenseNetwork(sizes=(6, 8, 8, 1))
    critic = ActionValueNetwork(
        network=network,
        weights=network.initialise(np.random.default_rng(0)),
        scale=np.array([2.0]),
        follower=context.follower,
        actions=4000,
        rng=np.random.default_rng(1),
    )
    state = batch.state_t[0, 0]
    actions = context.follower.sample(np.repeat(state[None], 200_000, axis=0), np.random.default_rng(2))
    many = critic.action_value(np.repeat(state[None], 200_000, axis=0), actions)
    spread = many.std() * np.sqrt(1 / 4000 + 1 / 200_000)
    assert spread > 0.0
    assert abs(critic.value(state) - many.mean()) < 5.0 * spread


# --- the published set-up -----------------------------------------------------------------------------------------


def test_the_papers_curves():
    assert paper_end("return", 0.1, "BC-HG") == (-196.18, 5.179)
    assert paper_end("return", 0.1, "SoBiRL") is None
    assert paper_curve("return", 0.1, "SoBiRL") is None
    for method, rate in SELECTED.items():
        curve = paper_curve("return", rate, METHODS[ConfigurableLQR][method].title)
        assert curve.shape == (3, 51)
        assert -280.0 < curve[1, 0] < -255.0  # all start near J(0) = -262


def test_arms_are_different_and_known():
    assert len({arm.name for arm in ARMS}) == len(ARMS)
    for arm in ARMS:
        assert arm.method in METHODS[ConfigurableLQR]


def test_gains_are_shares_of_exact_progress():
    truth = hypergradient(building_thermal_control(), np.zeros(8)).value
    exact = first_directions(Arm(method="exact"), batches=2)
    np.testing.assert_allclose(gains(exact, truth, (4, 4)), 1.0, rtol=1e-12)
    learnt = gains(first_directions(Arm(method="policy_covariance"), batches=4), truth, (4, 4))
    assert (learnt > 0.9).all()
    noise = gains(first_directions(Arm(method="bc_hg"), batches=20), truth, (4, 4))
    assert noise.std() > 0.2


# --- verdicts -----------------------------------------------------------------------------------------------------


def test_verdicts_have_three_values():
    """Few episodes: the covariance has no power yet, a planted bias of twice the truth is seen all the same."""
    verdict, rows = sampled_verdict("policy covariance", episodes=300)
    assert verdict.outcome is Outcome.NO_POWER
    assert rows.shape == (300, 8)
    assert sampled_verdict("BC-HG", episodes=300)[0].outcome is Outcome.NO_POWER
    assert sampled_verdict("HPGD, raw return", episodes=300)[0].outcome is Outcome.MEASURED
    for form in ("policy covariance", "HPGD, raw Q_L"):
        assert verdict_in_one_dimension(form, seed=0)[0].outcome is Outcome.PASSED


def test_a_wrong_covariance_fails_in_one_dimension(monkeypatch):
    """A factor two in the covariance's constant part is a mistake that only quadrature sees."""

    def wrong(follower, leader, gradient, moments, weights):
        return policy_covariance(follower, leader, gradient, moments, 2.0 * weights)

    monkeypatch.setattr(lqr_covariance, "policy_covariance", wrong)
    assert verdict_in_one_dimension("policy covariance", seed=0)[0].failed
