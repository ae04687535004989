"""SoBiRL: rows against loops, declared expectations against enumeration, and what its weights do to the bias."""

import dataclasses
import itertools

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import getval
from remembering import remembering

from bilevelrl.estimators import Claim, Context, NaivePGD, Objective, SoBiRL, sample_trajectories
from bilevelrl.estimators.methods import sobirl as module
from bilevelrl.estimators.sampling.stopping import sample_stopped_trajectories
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.reference import ConfigurableMDP, Tables, hypergradient, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.reference.routes.theorem1 import follower_source, pair_gradients
from bilevelrl.reference.tabular.leader import leader_action_values
from bilevelrl.tasks import four_rooms, layered_mdp, random_mdp
from bilevelrl.verification import enumerate_moments

THETA = 0.5 * np.random.default_rng(0).standard_normal(3)
LAYERED = remembering(layered_mdp(seed=1), THETA)
ENDING = remembering(random_mdp(states=3, seed=2, termination=0.2), THETA)
REWARDS = remembering(random_mdp(states=3, seed=4, theta_in=("reward_follower", "reward_leader")), THETA)
HORIZON = 3
TARGETS = (Objective(), Objective(horizon=HORIZON), Objective(horizon=2), Objective(horizon=HORIZON, discounted=False))


def context_of(problem, **more):
    return Context(problem=problem, theta=THETA, follower=solve_follower(problem, THETA), **more)


def configurations(target):
    weights, steps = ("benefit", "q_each_step", "q", "return"), ("all", "one")
    critics, gradients = ("exact", "exact_truncated", "monte_carlo"), ("one_step", "exact")
    for weight, step, critic, gradient in itertools.product(weights, steps, critics, gradients):
        try:
            yield SoBiRL(target=target, weight=weight, steps=step, critic=critic, gradient=gradient)
        except InvalidInputError:
            continue  # critics that contradict the target


def brackets(context, gradient):
    """g - E_π g or ∇Q_F - ∇V_F, from the linear system over pairs."""
    problem, theta, policy = context.problem, context.theta, context.follower.policy
    tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)
    if gradient == "one_step":
        values = jacobian.get("reward_follower", np.zeros((*policy.shape, theta.size)))
    else:
        discount = problem.discount_follower
        source = follower_source(tables, jacobian, context.follower.value, discount, theta.size)
        values = pair_gradients(tables.transition, policy, source, discount)
    return values - np.einsum("sa,san->sn", policy, values)[:, None]


def plain_guiding_row(batch, m, estimator, context):
    """One stream, one episode after another, one step at a time."""
    problem, policy, horizon = context.problem, context.follower.policy, estimator.target.horizon
    discount = problem.discount_leader if estimator.target.discounted else 1.0
    critic, bracket = estimator.leader_critic(context), brackets(context, estimator.gradient)
    steps = [t for t in range(batch.steps) if batch.valid[m, t]]

    def paid(t):
        return horizon is None or batch.time_in_episode[m, t] < horizon

    def observed_return(t):
        total, k = 0.0, 0
        while t + k < batch.steps and batch.valid[m, t + k] and (k == 0 or batch.time_in_episode[m, t + k] > 0):
            total += discount**k * batch.reward_leader_t[m, t + k] * paid(t + k)
            k += 1
        return total

    def action_value(t):
        if estimator.critic == "monte_carlo":
            return observed_return(t)
        to_go = None if horizon is None else max(0, horizon - batch.time_in_episode[m, t])
        return critic.action_value(batch.state_t[m, t], batch.action_t[m, t], steps_to_go=to_go)

    def benefit(t):
        to_go = None if horizon is None else max(0, horizon - batch.time_in_episode[m, t])
        return action_value(t) - critic.value(batch.state_t[m, t], steps_to_go=to_go)

    total = np.zeros(context.theta.size)
    for t in steps:
        time = int(batch.time_in_episode[m, t])
        if not paid(t) or (estimator.steps == "one" and time > 0):
            continue
        factor = {
            "benefit": lambda t=t, time=time: discount**time * benefit(t),
            "q_each_step": lambda t=t, time=time: discount**time * action_value(t),
            "q": lambda t=t, time=time: action_value(t - time),
            "return": lambda t=t, time=time: observed_return(t - time),
        }[estimator.weight]()
        total += factor * bracket[batch.state_t[m, t], batch.action_t[m, t]] / problem.temperature
    assert policy.shape[1] > 1
    return total


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("episodes", ["one", "several"])
def test_rows_are_the_plain_sums(target, episodes):
    simulator = TabularSimulator(step_limit=3, single_episode=False) if episodes == "several" else None
    context = context_of(ENDING)
    batch = sample_trajectories(
        ENDING, context.theta, context.follower, streams=4, steps=6, rng=np.random.default_rng(1), simulator=simulator
    )
    for estimator in configurations(target):
        if episodes == "several":  # a stream's sums count each of its episodes: no gradient of one of them
            with pytest.raises(UnsupportedError, match="several episodes in one stream"):
                estimator.parts_per_draw(batch, context)
            continue
        found = estimator.parts_per_draw(batch, context)["response"]
        expected = np.array([plain_guiding_row(batch, m, estimator, context) for m in range(4)])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max(), err_msg=str(estimator))
        mean = estimator.estimate(batch, context).parts["response"]
        np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("problem", [LAYERED, ENDING, REWARDS], ids=["layered", "ending", "θ in rewards"])
def test_declared_expectations_are_the_enumerated_ones(problem, target):
    context = context_of(problem)
    truth = hypergradient(problem, context.theta, horizon=target.horizon, discounted=target.discounted)
    biased = 0
    for estimator in configurations(target):
        moments = enumerate_moments(estimator, problem, context.theta, horizon=HORIZON)
        declared = sum(estimator.expectation(context, horizon=HORIZON).values())
        assert np.abs(moments.mean - declared).max() <= 1e-12 * moments.magnitude.max(), estimator
        bias = np.abs(moments.mean - truth.value).max()
        if estimator.claim is Claim.UNBIASED:
            assert bias <= 1e-12 * moments.magnitude.max(), estimator
        else:
            biased += bias > 1e-3 * moments.magnitude.max()
    assert biased > 5  # the agreement is not one of zeros


def test_the_expectation_is_the_truth_with_one_step_gradients():
    """Σ d π B (∇r_F - E_π ∇r_F)/β with occupancies by another way, on trajectories long enough to be infinite."""
    context = context_of(ENDING)
    tables, policy = ENDING.tables_at(context.theta), context.follower.policy
    chain = np.einsum("sa,sat->st", policy, tables.transition)
    occupancy = np.linalg.solve(np.eye(3) - ENDING.discount_leader * chain.T, tables.initial)
    _, _, benefit = leader_action_values(tables, policy, ENDING.discount_leader)
    expected = np.einsum("s,sa,sa,san->n", occupancy, policy, benefit, brackets(context, "one_step"))
    found = SoBiRL().expectation(context, horizon=400)
    np.testing.assert_allclose(found["response"], expected / ENDING.temperature, rtol=0, atol=1e-12)
    truth = hypergradient(ENDING, context.theta)
    for part in ("initial", "direct", "transition", "regulariser"):
        np.testing.assert_allclose(found[part], truth.parts[part], rtol=0, atol=1e-11)
    assert np.abs(found["response"] - truth.parts["response"]).max() > 0.05 * np.abs(truth.parts["response"]).max()


def test_the_past_drops_out_and_so_do_later_brackets_of_a_first_value():
    context = context_of(ENDING)
    target = Objective(horizon=HORIZON)
    responses = {
        weight: SoBiRL(target=target, critic="exact_truncated", weight=weight).expectation(context, horizon=HORIZON)
        for weight in ("benefit", "q_each_step", "return", "q")
    }
    for weight in ("q_each_step", "return"):
        np.testing.assert_allclose(responses[weight]["response"], responses["benefit"]["response"], rtol=0, atol=1e-13)
    first = SoBiRL(target=target, critic="exact_truncated", steps="one").expectation(context, horizon=HORIZON)
    np.testing.assert_allclose(responses["q"]["response"], first["response"], rtol=0, atol=1e-13)
    assert np.abs(first["response"] - responses["benefit"]["response"]).max() > 1e-3
    spread = [
        np.trace(
            enumerate_moments(
                SoBiRL(target=target, critic="exact_truncated", weight=weight), ENDING, context.theta, horizon=HORIZON
            ).covariance
        )
        for weight in ("benefit", "return")
    ]
    assert abs(spread[0] / spread[1] - 1.0) > 0.05  # equal means, unequal spreads


@pytest.mark.parametrize("weight", ["return", "benefit", "q_each_step"])
def test_exact_gradients_make_it_unbiased(weight):
    for problem, target in ((LAYERED, Objective()), (ENDING, Objective(horizon=HORIZON))):
        context = context_of(problem)
        critic = "exact" if target.horizon is None else "exact_truncated"
        estimator = SoBiRL(target=target, critic=critic, weight=weight, gradient="exact")
        truth = hypergradient(problem, context.theta, horizon=target.horizon).value
        declared = sum(estimator.expectation(context, horizon=HORIZON).values())
        np.testing.assert_allclose(declared, truth, rtol=0, atol=1e-12 * np.abs(truth).max())
        one_step = dataclasses.replace(estimator, gradient="one_step")
        assert one_step.claim is Claim.DECLARED
        assert np.abs(sum(one_step.expectation(context, horizon=HORIZON).values()) - truth).max() > 1e-3
    assert (
        SoBiRL(weight="return", gradient="exact", target=Objective(horizon=2), critic="monte_carlo").claim
        is Claim.UNBIASED
    )


@pytest.mark.parametrize("planted", ["bracket not centred", "weight of the wrong step", "1/β missing"])
def test_enumeration_catches_planted_errors(monkeypatch, planted):
    context = context_of(ENDING)
    estimator = SoBiRL(target=Objective(horizon=HORIZON), critic="exact_truncated", weight="q_each_step")
    declared = sum(estimator.expectation(context, horizon=HORIZON).values())
    expand = module._one_step_brackets
    if planted == "bracket not centred":
        monkeypatch.setattr(module, "_action_matters", lambda _: np.array([True, True, False]))
    elif planted == "weight of the wrong step":
        monkeypatch.setattr(
            module, "_one_step_brackets", lambda path, factors, given: expand(path, np.roll(factors, 1, axis=1), given)
        )
    else:
        monkeypatch.setattr(
            module,
            "_one_step_brackets",
            lambda path, factors, given: expand(path, factors * given.problem.temperature, given),
        )
    moments = enumerate_moments(estimator, ENDING, context.theta, horizon=HORIZON)
    assert np.abs(moments.mean - declared).max() > 1e-3 * moments.magnitude.max()


def test_on_four_rooms_the_guiding_term_is_exactly_zero():
    """The penalty does not depend on the action, so nothing is left of the bracket: SoBiRL is Naive-PGD."""
    problem = four_rooms(temperature=0.005)
    theta = 0.01 * np.random.default_rng(0).standard_normal(105)
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    batch = sample_trajectories(problem, theta, context.follower, streams=30, steps=60, rng=np.random.default_rng(1))
    naive = NaivePGD()(batch, context)
    for weight in ("benefit", "q_each_step", "q", "return"):
        estimator = SoBiRL(weight=weight)
        assert (estimator.parts_per_draw(batch, context)["response"] == 0.0).all()
        assert (estimator.estimate(batch, context).parts["response"] == 0.0).all()
        np.testing.assert_array_equal(estimator(batch, context), naive)
        assert (estimator.expectation(context, horizon=60)["response"] == 0.0).all()
    truth = hypergradient(problem, theta).parts["response"]
    assert np.linalg.norm(truth) > 1e-3  # and that is wrong
    assert np.abs(SoBiRL().parts_per_draw(*sampled(LAYERED))["response"]).max() > 1e-3  # not zero by construction


def test_without_a_forward_derivative_nothing_is_left_out(monkeypatch):
    batch, context = sampled(ENDING)
    expected = SoBiRL()(batch, context)

    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr(module.autograd, "make_jvp", refuse)
    assert module._action_matters(context).all()
    np.testing.assert_array_equal(SoBiRL()(batch, context), expected)


def sampled(problem, **options):
    context = context_of(problem, **options)
    return (
        sample_trajectories(problem, context.theta, context.follower, streams=5, steps=3, rng=np.random.default_rng(2)),
        context,
    )


def test_stopped_trajectories_give_the_infinite_horizon_expectation():
    context = context_of(ENDING)
    estimator = SoBiRL(stopping="sum", gradient="exact")
    assert estimator.claim is Claim.UNBIASED
    truth = hypergradient(ENDING, context.theta).value
    declared = sum(estimator.expectation(context, horizon=1).values())
    np.testing.assert_allclose(declared, truth, rtol=0, atol=1e-11 * np.abs(truth).max())
    paths = sample_stopped_trajectories(
        ENDING, context.theta, context.follower, streams=40_000, rng=np.random.default_rng(3)
    )
    rows = estimator(paths, context)
    assert np.abs((rows.mean(axis=0) - truth) / (rows.std(axis=0) / 200.0)).max() < 4.5


# --- as published ----------------------------------------------------------------------------------------------------


def plain_published(batch, context, weight):
    """Averages over visits in tables, mean over episode starts; the sum undiscounted, or discounted with each Q."""
    problem = context.problem
    bracket = brackets(context, "one_step")
    returns, found = {}, {}
    for m in range(batch.streams):
        ahead = 0.0
        for t in reversed(range(batch.steps)):
            if not batch.valid[m, t]:
                continue
            ahead = batch.reward_leader_t[m, t] + problem.discount_leader * ahead
            returns[m, t] = ahead
            pair = batch.state_t[m, t], batch.action_t[m, t]
            found.setdefault(pair, []).append(ahead)
            if batch.time_in_episode[m, t] == 0:
                ahead = 0.0
    average = {pair: np.mean(values) for pair, values in found.items()}
    total, starts = np.zeros(context.theta.size), 0
    for m in range(batch.streams):
        first = None
        for t in range(batch.steps):
            if not batch.valid[m, t]:
                continue
            pair = batch.state_t[m, t], batch.action_t[m, t]
            if batch.time_in_episode[m, t] == 0:
                first, starts = pair, starts + 1
            factor = average[first]
            if weight == "q_each_step":
                factor = problem.discount_leader ** batch.time_in_episode[m, t] * average[pair]
            total += factor * bracket[pair] / problem.temperature
    return total / starts


PUBLISHED = {"critic": "monte_carlo", "value_average": "pairs", "leader_average": "start_visits"}


@pytest.mark.parametrize("weight", ["q", "q_each_step"])
def test_published_averages_are_the_plain_ones(weight):
    for problem in (ENDING, LAYERED):
        context = context_of(problem)
        simulator = TabularSimulator(step_limit=3, single_episode=False)
        for seed in range(3):
            batch = sample_trajectories(
                problem,
                context.theta,
                context.follower,
                streams=4,
                steps=7,
                rng=np.random.default_rng(seed),
                simulator=simulator,
            )
            found = SoBiRL(weight=weight, **PUBLISHED).estimate(batch, context).parts["response"]
            expected = plain_published(batch, context, weight)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_exact_means_over_all_small_batches_agree(batch):
    problem = remembering(random_mdp(states=2, seed=5, termination=0.3, theta_in=("reward_follower",)), THETA)
    context = context_of(problem)

    def plain(trajectories, given):
        return plain_published(trajectories, given, "q")[None, :]

    estimator = SoBiRL(weight="q", **PUBLISHED)
    assert estimator.claim is Claim.MEASURED
    ours, other = (enumerate_moments(e, problem, context.theta, horizon=1, batch=batch) for e in (estimator, plain))
    assert np.abs(ours.mean - other.mean).max() <= 1e-12 * ours.magnitude.max()
    assert np.abs(ours.mean).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weight": "advantage"}, UnknownNameError),
        ({"steps": "two"}, UnknownNameError),
        ({"gradient": "two_step"}, UnknownNameError),
        ({"weight": "return", "stopping": "sum"}, InvalidInputError),
        ({"weight": "benefit", "value_average": "pairs"}, InvalidInputError),
        ({"weight": "q", "value_average": "pairs", "stopping": "sum"}, InvalidInputError),
    ],
)
def test_contradictory_options_are_refused(options, error):
    with pytest.raises(error):
        SoBiRL(**options)


def test_theta_in_the_dynamics_can_be_refused():
    strict = SoBiRL(theta_in_dynamics="refuse")
    batch, context = sampled(ENDING)
    with pytest.raises(UnsupportedError, match="transition"):
        strict(batch, context)
    with pytest.raises(UnsupportedError, match="transition"):
        strict.expectation(context, horizon=3)
    batch, context = sampled(REWARDS)
    np.testing.assert_array_equal(strict(batch, context), SoBiRL()(batch, context))
    with pytest.raises(EstimatorError, match="ratios"):
        SoBiRL(weight="q", **PUBLISHED).expectation(context, horizon=3)


def test_closed_forms_need_no_traceable_tables():
    rng = np.random.default_rng(0)
    kernel, weight = rng.dirichlet(np.ones(3), size=(3, 2)), rng.standard_normal((3, 2, 3))
    leader = rng.standard_normal((3, 2))

    def problem(reward, **closed):
        return ConfigurableMDP(
            tables=lambda x: Tables(
                transition=kernel, reward_follower=reward(x), reward_leader=leader, initial=np.full(3, 1 / 3)
            ),
            discount_leader=0.9, discount_follower=0.8, temperature=0.5, **closed,
        )  # fmt: skip

    def slopes(x):
        return {"reward_follower": np.cos(weight @ x)[..., None] * weight}

    ways = [
        problem(lambda x: anp.sin(anp.dot(weight, x))),
        problem(lambda x: np.array(np.sin(weight @ x).tolist()), tables_jacobian=slopes),
        problem(lambda x: np.sin(weight @ np.asarray(getval(x))), tables_jacobian=slopes),
    ]
    rows = []
    for way in ways:
        context = context_of(way)
        batch = sample_trajectories(way, THETA, context.follower, streams=20, steps=4, rng=np.random.default_rng(1))
        rows.append((SoBiRL().estimate(batch, context).mean, sum(SoBiRL().expectation(context, horizon=4).values())))
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-12)
    np.testing.assert_allclose(rows[2], rows[0], rtol=1e-12)
