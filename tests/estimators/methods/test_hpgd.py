"""HPGD: the oracle's exact moments, its samples against plain loops, and what its bias is made of."""

import dataclasses

import numpy as np
import pytest
from remembering import remembering

from bilevelrl.estimators import BCHG, HPGD, Claim, Context, Objective, Trajectories, sample_trajectories
from bilevelrl.estimators.sampling.stopping import sample_stopped_trajectories
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.terms import fresh_suffixes as fresh
from bilevelrl.estimators.terms.suffix_moments import expected_suffix_steps, gradient_sum_moments, return_moments
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.errors import BilevelRLError, EstimatorError, InvalidInputError, UnknownNameError
from bilevelrl.tasks import layered_mdp, random_mdp
from bilevelrl.verification import enumerate_moments

THETA = 0.5 * np.random.default_rng(0).standard_normal(3)
LAYERED = remembering(layered_mdp(seed=1), THETA)
ENDING = remembering(random_mdp(states=3, seed=2, termination=0.2), THETA)
GOING_ON = remembering(random_mdp(states=2, seed=3), THETA)
HORIZON = 3


def context_of(problem, **more):
    return Context(problem=problem, theta=THETA, follower=solve_follower(problem, THETA), **more)


def configurations():
    targets = (
        Objective(),
        Objective(horizon=HORIZON),
        Objective(horizon=2),
        Objective(horizon=HORIZON, discounted=False),
    )
    for target in targets:
        for critic in ("exact", "exact_truncated", "independent", "monte_carlo"):
            for suffix in ("geometric", "steps"):
                try:
                    yield HPGD(target=target, critic=critic, suffix=suffix)
                except InvalidInputError:
                    continue  # combinations that contradict each other


def label(estimator):
    target = estimator.target
    kind = "" if target.discounted else " undiscounted"
    return f"{target.horizon}{kind}, {estimator.critic}, {estimator.suffix}"


@pytest.mark.parametrize("scores", ["value", "td_error"])
@pytest.mark.parametrize("estimator", list(configurations()), ids=label)
@pytest.mark.parametrize("problem", [LAYERED, ENDING, GOING_ON], ids=["layered", "ending", "going on"])
def test_the_oracles_exact_mean_is_what_it_declares(problem, estimator, scores):
    estimator = dataclasses.replace(estimator, scores=scores)
    context = context_of(problem)
    moments = enumerate_moments(estimator, problem, context.theta, horizon=HORIZON)
    declared = sum(estimator.expectation(context, horizon=HORIZON).values())
    scale = moments.magnitude.max()
    assert np.abs(moments.mean - declared).max() <= 1e-12 * scale
    target = estimator.target
    truth = hypergradient(problem, context.theta, horizon=target.horizon, discounted=target.discounted)
    bias = np.abs(moments.mean - truth.value).max()
    if estimator.claim is Claim.UNBIASED or (problem is LAYERED and target.horizon in (None, HORIZON)):
        assert bias <= 1e-12 * scale
    elif problem is GOING_ON and (target.horizon is None or estimator.critic == "exact"):
        assert bias > 1e-3 * scale  # the check can tell


def test_its_expectation_is_that_of_bc_hg_where_nothing_is_truncated():
    context = context_of(LAYERED)
    ours, other = HPGD(), BCHG()
    left, right = ours.expectation(context, horizon=HORIZON), other.expectation(context, horizon=HORIZON)
    for part in right:
        np.testing.assert_allclose(left[part], right[part], rtol=0, atol=1e-13)
    variance = [
        np.trace(enumerate_moments(e, LAYERED, context.theta, horizon=HORIZON).covariance) for e in (ours, other)
    ]
    assert abs(variance[0] / variance[1] - 1.0) > 0.05  # the same mean, another spread


PLANTED = ("discounts of the players swapped", "γ_L^t missing", "1/β missing")


def planted(name):
    """Wrong versions of the oracle, each by one mistake."""

    class Wrong(HPGD):
        def conditional_moments(self, trajectories, context):
            if name == "discounts of the players swapped":
                problem = dataclasses.replace(context.problem, discount_follower=context.problem.discount_leader)
                context = dataclasses.replace(context, problem=problem)
            mean, covariance = super().conditional_moments(trajectories, context)
            return mean, covariance

        def leader_weight(self, trajectories, context):
            weight = super().leader_weight(trajectories, context)
            return np.where(weight > 0.0, 1.0, 0.0) if name == "γ_L^t missing" else weight

        def benefit_moments(self, trajectories, context):
            reading, mean, variance = super().benefit_moments(trajectories, context)
            return reading, mean * (context.problem.temperature if name == "1/β missing" else 1.0), variance

    return Wrong(target=Objective(horizon=HORIZON), critic="exact_truncated")


@pytest.mark.parametrize("name", PLANTED)
def test_enumeration_catches_planted_errors(name):
    context = context_of(ENDING)
    moments = enumerate_moments(planted(name), ENDING, context.theta, horizon=HORIZON)
    truth = hypergradient(ENDING, context.theta, horizon=HORIZON)
    assert np.abs(moments.mean - truth.value).max() > 1e-3 * moments.magnitude.max()


# --- the samples -----------------------------------------------------------------------------------------------------


def plain_gradient_sum(context, suffix, stream, discount):
    """∇r_F + γ_F V_F(s') ∇P/P along one suffix, one step at a time."""
    problem, theta = context.problem, context.theta
    tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)
    total = np.zeros(theta.size)
    for k in range(suffix.steps):
        if not suffix.valid[stream, k]:
            break
        s, a, successor = (int(x[stream, k]) for x in (suffix.state_t, suffix.action_t, suffix.state_tp1))
        total += discount**k * jacobian["reward_follower"][s, a]
        if successor < tables.states:
            score = jacobian["transition"][s, a, successor] / tables.transition[s, a, successor]
            total += discount**k * problem.discount_follower * context.follower.value[successor] * score
    return total


def walk_without_chance(problem, theta, follower, *, state, steps, action, **_):
    """Stands in for sampling: from each start one walk, the same each time: formulas can be followed by hand."""
    size = np.size(state)
    states = np.zeros((size, steps + 1), dtype=np.int64)
    actions = np.zeros((size, steps), dtype=np.int64)
    states[:, 0] = state
    for k in range(steps):
        actions[:, k] = action if k == 0 and action is not None else states[:, k] % 2
        states[:, k + 1] = (states[:, k] + actions[:, k] + 1) % 3
    zeros = np.zeros((size, steps))
    return Trajectories(
        state_t=states[:, :-1],
        action_t=actions,
        state_tp1=states[:, 1:],
        reward_leader_t=zeros,
        terminated=zeros > 0,
        truncated=zeros > 0,
        time_in_episode=np.tile(np.arange(steps), (size, 1)),
        valid=zeros == 0,
        behaviour_log_prob=zeros,
    )


def test_each_row_sums_its_own_visits(monkeypatch):
    monkeypatch.setattr(fresh, "sample_suffixes", walk_without_chance)
    monkeypatch.setattr(fresh, "ENTRIES_AT_ONCE", 10)  # several rectangles
    context = context_of(ENDING, rng=np.random.default_rng(0))
    batch = sample_trajectories(
        ENDING, context.theta, context.follower, streams=6, steps=5, rng=np.random.default_rng(1)
    )
    assert not batch.valid.all()
    estimator = HPGD(target=Objective(horizon=4), critic="exact_truncated", suffix="steps", suffix_steps=3)
    found = estimator.parts_per_draw(batch, context)["response"]
    benefit = estimator.read(batch, context).benefit_t
    wanted = np.zeros_like(found)
    for m in range(batch.streams):
        for t in range(min(4, batch.steps)):
            if not batch.valid[m, t]:
                continue
            s, a = batch.state_t[m, [t]], batch.action_t[m, [t]]
            sums = [
                plain_gradient_sum(
                    context,
                    walk_without_chance(None, None, None, state=s, steps=3, action=first),
                    0,
                    ENDING.discount_follower,
                )
                for first in (a, None)
            ]
            factor = ENDING.discount_leader**t * benefit[m, t] / ENDING.temperature
            wanted[m] += factor * (sums[0] - sums[1])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
    mean = estimator.estimate(batch, context).parts["response"]
    np.testing.assert_allclose(mean, wanted.mean(axis=0), rtol=0, atol=1e-13 * np.abs(wanted).max())


def test_one_visit_is_the_formula_on_its_two_fresh_suffixes(monkeypatch):
    """With one stream of one step there is exactly one suffix of each kind: no bookkeeping to get wrong."""
    draw = fresh.sample_suffixes
    for suffix, steps in (("geometric", None), ("steps", 4)):
        for seed in range(10):
            context = context_of(ENDING, rng=np.random.default_rng(seed))
            batch = sample_trajectories(
                ENDING, context.theta, context.follower, streams=1, steps=1, rng=np.random.default_rng(seed)
            )
            drawn = []
            with monkeypatch.context() as patched:

                def recorded(*arguments, drawn=drawn, **options):
                    drawn.append(draw(*arguments, **options))
                    return drawn[-1]

                patched.setattr(fresh, "sample_suffixes", recorded)
                estimator = HPGD(suffix=suffix, suffix_steps=steps)
                found = estimator.parts_per_draw(batch, context)["response"][0]
            reading = estimator.read(batch, context)
            discount = 1.0 if suffix == "geometric" else ENDING.discount_follower
            from_pair, from_state = (plain_gradient_sum(context, one, 0, discount) for one in drawn)
            assert drawn[0].action_t[0, 0] == batch.action_t[0, 0]
            expected = reading.benefit_t[0, 0] * (from_pair - from_state) / ENDING.temperature
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("stopping", [None, "single", "sum"])
@pytest.mark.parametrize(
    ("critic", "suffix"), [("exact", "geometric"), ("independent", "geometric"), ("exact", "steps")]
)
def test_samples_have_the_conditional_moments(critic, suffix, stopping):
    """Many draws on one and the same path: their mean and spread are those that were computed without sampling."""
    draws = 20_000
    context = context_of(ENDING, rng=np.random.default_rng(3))
    estimator = HPGD(critic=critic, suffix=suffix, stopping=stopping)
    rng = np.random.default_rng(4)
    if stopping is None:
        paths = sample_trajectories(ENDING, context.theta, context.follower, streams=50, steps=3, rng=rng)
    else:
        paths = sample_stopped_trajectories(ENDING, context.theta, context.follower, streams=50, rng=rng)
    weights = np.abs(estimator.leader_weight(paths, context)) > 0
    path = int(np.argmax(np.where(paths.valid.sum(axis=1) <= 6, (weights & paths.valid).sum(axis=1), -1)))
    assert weights[path].any()
    repeated = paths.select(np.full(draws, path))
    rows = estimator(repeated, context)
    mean, covariance = estimator.conditional_moments(repeated.select([0]), context)
    error = np.sqrt(np.diag(covariance[0]) / draws)
    assert (error > 0.0).all()
    assert np.abs((rows.mean(axis=0) - mean[0]) / error).max() < 4.5  # three coordinates: chance below 1e-4
    fourth = ((rows - rows.mean(axis=0)) ** 4).mean(axis=0)
    spread_error = np.sqrt((fourth - np.diag(covariance[0]) ** 2) / draws)
    assert np.abs((rows.var(axis=0) - np.diag(covariance[0])) / spread_error).max() < 4.5
    assert (spread_error < 0.25 * np.diag(covariance[0])).all()  # it could have seen a wrong spread


def test_moments_of_suffixes_agree_with_each_other():
    """A fixed number of steps tends to the stopped mean, and steps that are counted add up to their expectation."""
    context = context_of(ENDING)
    stopped = gradient_sum_moments(context, steps=None, scores="value")
    long = gradient_sum_moments(context, steps=200, scores="value")
    np.testing.assert_allclose(long.pair_mean, stopped.pair_mean, rtol=0, atol=1e-12)
    assert (np.diagonal(stopped.pair_covariance, axis1=-2, axis2=-1) > 0.0).all()
    discounted = return_moments(context, steps=200, discount=0.8)
    once = return_moments(context, steps=None, discount=0.8)
    np.testing.assert_allclose(discounted.pair_mean, once.pair_mean, rtol=1e-12)
    single = return_moments(context, steps=1, discount=0.8)
    np.testing.assert_allclose(single.pair_covariance, 0.0, atol=1e-14)  # one reward, given state and action: no spread
    pair, state = expected_suffix_steps(context, steps=1, discount=0.9)
    assert (pair == 1.0).all()
    np.testing.assert_allclose(state, 1.0, rtol=1e-15)
    assert (expected_suffix_steps(context, steps=None, discount=0.9)[0] < 1.0 / (1.0 - ENDING.discount_follower)).all()


def test_stopped_trajectories_give_the_infinite_horizon_gradient():
    context = context_of(GOING_ON)
    estimator = HPGD(stopping="sum")
    assert estimator.claim is Claim.UNBIASED
    declared = sum(estimator.expectation(context, horizon=1).values())
    truth = hypergradient(GOING_ON, context.theta).value
    np.testing.assert_allclose(declared, truth, rtol=0, atol=1e-11 * np.abs(truth).max())


def test_another_simulator_and_a_suboptimal_follower_are_in_the_expectation():
    theta = THETA
    follower = solve_follower(ENDING, theta, stop_after=2, method="value_iteration")
    other = random_mdp(states=3, seed=9, termination=0.2)
    estimator = HPGD(target=Objective(horizon=HORIZON), critic="exact_truncated")
    matched = Context(problem=ENDING, theta=theta, follower=follower)
    mismatched = dataclasses.replace(matched, simulator=TabularSimulator(dynamics=other))
    moments = enumerate_moments(estimator, ENDING, theta, horizon=HORIZON, follower=follower)
    declared = sum(estimator.expectation(matched, horizon=HORIZON).values())
    assert np.abs(moments.mean - declared).max() <= 1e-12 * moments.magnitude.max()
    paths = sample_trajectories(
        ENDING,
        theta,
        follower,
        streams=20_000,
        steps=HORIZON,
        rng=np.random.default_rng(5),
        simulator=mismatched.simulator,
    )
    mean, _ = estimator.conditional_moments(paths, mismatched)
    declared = sum(estimator.expectation(mismatched, horizon=HORIZON).values())
    error = mean.std(axis=0) / np.sqrt(mean.shape[0])
    assert np.abs((mean.mean(axis=0) - declared) / error).max() < 4.5
    assert np.abs((moments.mean - declared) / error).max() > 10.0  # the mismatch matters, and could be seen


def test_cost_counts_the_steps_after_resets():
    context = context_of(ENDING)
    batch = sample_trajectories(
        ENDING, context.theta, context.follower, streams=400, steps=3, rng=np.random.default_rng(6)
    )
    for estimator in (HPGD(suffix="steps", suffix_steps=4), HPGD()):
        taken = 0
        rng = np.random.default_rng(7)
        stream, step = np.nonzero(batch.valid)
        for action in (batch.action_t[stream, step], None):
            _, steps = fresh.fresh_gradient_sums(
                context,
                stream=stream,
                state=batch.state_t[stream, step],
                action=action,
                weight=np.ones(stream.size),
                steps=estimator._suffix_steps(3),
                rng=rng,
            )
            taken += steps
        cost = estimator.cost(batch, context)
        assert cost["environment_steps"] == int(batch.valid.sum())
        assert abs(cost["oracle_steps"] / taken - 1.0) < 0.1
        independent = dataclasses.replace(estimator, critic="independent", target=Objective(horizon=3))
        own = independent.cost(batch, context)["oracle_steps"] - cost["oracle_steps"]
        survivors = batch.valid.sum(axis=1)  # a return of 3 - t steps from each visit ends where such a path would
        assert survivors.sum() < own < (batch.valid * (3 - np.arange(3))).sum()
    assert HPGD(variant="oracle_batch", oracle_batch_steps=1000).cost(batch, context)["oracle_steps"] == 800


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"variant": "orcale"}, UnknownNameError),
        ({"suffix": "forever"}, UnknownNameError),
        ({"suffix": "steps", "suffix_steps": 0}, InvalidInputError),
        ({"suffix_steps": 3}, InvalidInputError),
        ({"oracle_batch_steps": 0}, InvalidInputError),
        ({"normalisation": "episodes"}, InvalidInputError),
        ({"variant": "monte_carlo", "critic": "independent"}, InvalidInputError),
        ({"variant": "monte_carlo", "stopping": "sum"}, InvalidInputError),
        ({"variant": "oracle_batch", "scores": "td_error"}, InvalidInputError),
    ],
)
def test_contradictory_options_are_refused(options, error):
    with pytest.raises(error):
        HPGD(**options)


def test_what_it_cannot_do_is_said():
    context = context_of(ENDING)
    batch = sample_trajectories(
        ENDING, context.theta, context.follower, streams=2, steps=2, rng=np.random.default_rng(0)
    )
    with pytest.raises(EstimatorError, match="rng"):
        HPGD()(batch, context)
    with pytest.raises(EstimatorError, match="critic"):
        HPGD(variant="sarsa")(batch, context)
    with pytest.raises(BilevelRLError, match="ratios"):
        HPGD(variant="monte_carlo").expectation(context, horizon=2)
    with pytest.raises(BilevelRLError, match="ratios"):
        HPGD(variant="monte_carlo").conditional_moments(batch, context)
