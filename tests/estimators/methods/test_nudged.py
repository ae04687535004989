"""Estimators that pay followers: exact moments, order of the bias, draws, cost, and what is refused."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from paid_cases import DRAWS, ENDING, FIVE, LAYERED, THETA, VARIANTS, context_of

from bilevelrl.estimators import Context, Objective, TabularSimulator, sample_trajectories
from bilevelrl.estimators.methods import NudgedFollowers
from bilevelrl.estimators.terms.batched import SeedBatch
from bilevelrl.reference import SparseTransition, hypergradient, solve_follower
from bilevelrl.reference.errors import (
    EstimatorError,
    InvalidInputError,
    TooLargeError,
    UnsupportedError,
)
from bilevelrl.reference.nudged import PaidFollower
from bilevelrl.tasks import four_rooms, lqr_game, random_lqr, random_mdp
from bilevelrl.verification import enumerate_moments

UNPAID = pytest.mark.parametrize("unpaid", [True, False], ids=["three populations", "two populations"])

"""Standard errors: false alarms of 6e-7 for each number looked at."""


@pytest.mark.exact
@UNPAID
@pytest.mark.parametrize(("sides", "numbers"), VARIANTS)
@pytest.mark.parametrize("problem", [LAYERED, ENDING], ids=["layered", "goes on"])
def test_enumeration_finds_the_declared_expectation(problem, sides, numbers, unpaid):
    """A stream that is cut loses what comes after, and that is declared too."""
    estimator = NudgedFollowers(pay=0.3, sides=sides, numbers=numbers, unpaid=unpaid)
    declared = sum(estimator.expectation(context_of(problem), horizon=3).values())
    moments = enumerate_moments(estimator, problem, THETA, horizon=3)
    assert np.abs(moments.mean - declared).max() <= 1e-12


IN_REWARDS = random_mdp(
    states=2, actions=2, parameters=3, seed=4, theta_in=("reward_follower", "reward_leader"), termination=0.2,
    discount_leader=0.9, discount_follower=0.9,
)  # fmt: skip

OTHER = replace(
    IN_REWARDS, tables=lambda theta: IN_REWARDS.tables(theta).replace({"transition": np.full((2, 2, 2), 0.4)})
)


@pytest.mark.exact
@UNPAID
@pytest.mark.parametrize(
    "simulator",
    [TabularSimulator(restart="uniform"), TabularSimulator(dynamics=OTHER)],
    ids=["another start", "another kernel"],
)
def test_moments_are_those_of_the_simulator_that_plays(simulator, unpaid):
    """Mean by enumeration against the declared expectation, and neither is that of the problem's own law."""
    estimator = NudgedFollowers(pay=0.3, unpaid=unpaid)
    context = replace(context_of(IN_REWARDS), simulator=simulator)
    declared = sum(estimator.expectation(context, horizon=3).values())
    moments = enumerate_moments(estimator, IN_REWARDS, THETA, horizon=3, simulator=simulator)
    assert np.abs(moments.mean - declared).max() <= 1e-12
    plain = enumerate_moments(estimator, IN_REWARDS, THETA, horizon=3)
    assert np.abs(moments.mean - plain.mean).max() > 1e-4
    assert np.abs(moments.covariance - plain.covariance).max() > 1e-2 * np.abs(plain.covariance).max()


@pytest.mark.exact
@pytest.mark.parametrize(("sides", "order"), [(2, 2.0), (1, 1.0)])
def test_its_bias_is_that_of_the_paid_followers_and_falls_with_its_order(sides, order):
    truth = hypergradient(LAYERED, THETA)
    errors = []
    for pay in (0.02, 0.01):
        estimator = NudgedFollowers(pay=pay, sides=sides)
        declared = estimator.expectation(context_of(LAYERED), horizon=3)
        at = LAYERED.at(THETA)
        w = pay * LAYERED.temperature
        exact = PaidFollower(at, Objective(), solve_follower(LAYERED, THETA)).difference(w, -w if sides == 2 else 0.0)
        for part in ("initial", "response", "transition", "regulariser"):
            assert np.abs(declared[part] - exact[part]).max() <= 1e-10, part  # layers end: nothing is cut
        assert np.abs(declared["direct"] - truth.parts["direct"]).max() <= 1e-12  # from unpaid streams
        errors.append(np.abs(sum(declared.values()) - truth.value).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


@pytest.mark.exact
@pytest.mark.parametrize(("sides", "order"), [(2, 2.0), (1, 1.0)])
def test_without_an_unpaid_population_it_is_the_paid_followers_whole_quotient(sides, order):
    errors = []
    for pay in (0.02, 0.01):
        w = pay * LAYERED.temperature
        exact = PaidFollower(LAYERED.at(THETA), Objective(), solve_follower(LAYERED, THETA)).difference(
            w, -w if sides == 2 else 0.0
        )
        declared = NudgedFollowers(pay=pay, sides=sides, unpaid=False).expectation(context_of(LAYERED), horizon=3)
        for part, value in declared.items():
            assert np.abs(value - exact[part]).max() <= 1e-10, part
        errors.append(np.abs(declared["direct"] - hypergradient(LAYERED, THETA).parts["direct"]).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


@pytest.mark.statistical
@UNPAID
@pytest.mark.parametrize(("sides", "numbers"), VARIANTS)
def test_draws_have_the_declared_mean_and_covariance(sides, numbers, unpaid):
    estimator = NudgedFollowers(pay=0.3, sides=sides, numbers=numbers, unpaid=unpaid)
    context = context_of(ENDING, seed=3)
    moments = enumerate_moments(estimator, ENDING, THETA, horizon=3)
    batch = sample_trajectories(ENDING, THETA, context.follower, streams=DRAWS, steps=3, rng=np.random.default_rng(4))
    off = estimator(batch, context) - moments.mean
    error = off.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(off.mean(axis=0)) < FIVE * error).all()
    squares = off[:, :, None] * off[:, None, :]
    spread = squares.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(squares.mean(axis=0) - moments.covariance) < FIVE * spread).all()


@pytest.mark.exact
def test_shared_random_numbers_called_independent_would_be_seen():
    common, independent = (
        enumerate_moments(NudgedFollowers(pay=0.1, numbers=numbers), ENDING, THETA, horizon=3)
        for numbers in ("common", "independent")
    )
    assert np.abs(common.mean - independent.mean).max() <= 1e-12
    assert (3.0 * common.standard_deviation < independent.standard_deviation).all()


@pytest.mark.statistical
@pytest.mark.parametrize(("numbers", "seen"), [("common", True), ("independent", False)])
def test_populations_that_share_numbers_and_say_that_they_do_not_are_seen_by_their_spread(numbers, seen):
    """The planted one draws with common numbers and declares the covariance of independent ones."""
    declared = enumerate_moments(NudgedFollowers(pay=0.3, unpaid=False), ENDING, THETA, horizon=3)
    context = context_of(ENDING, seed=6)
    batch = sample_trajectories(ENDING, THETA, context.follower, streams=DRAWS, steps=3, rng=np.random.default_rng(7))
    off = NudgedFollowers(pay=0.3, numbers=numbers, unpaid=False)(batch, context) - declared.mean
    assert (np.abs(off.mean(axis=0)) < FIVE * off.std(axis=0) / np.sqrt(DRAWS)).all()  # no bias gives it away
    squares = off**2
    error = squares.std(axis=0) / np.sqrt(DRAWS)
    apart = np.abs(squares.mean(axis=0) - np.diag(declared.covariance)) > FIVE * error
    assert apart.all() if seen else not apart.any()


@pytest.mark.exact
@pytest.mark.parametrize(("numbers", "power"), [("independent", 2.0), ("common", 1.0)])
def test_how_variance_grows_as_the_pay_falls(numbers, power):
    variances = [
        np.trace(enumerate_moments(NudgedFollowers(pay=pay, numbers=numbers), ENDING, THETA, horizon=3).covariance)
        for pay in (0.02, 0.01)
    ]
    assert np.log2(variances[1] / variances[0]) == pytest.approx(power, abs=0.1)


@pytest.mark.exact
def test_where_theta_enters_rewards_alone_neither_values_nor_probabilities_are_read():
    """Followers known by their actions only: every weight but those on ∇r is beside the point."""
    still = ENDING.tables_at(THETA)
    rewards = replace(
        ENDING,
        tables=lambda theta: replace(
            still,
            reward_follower=still.reward_follower + anp.dot(np.arange(18.0).reshape(3, 2, 3) / 9.0, theta),
            reward_leader=still.reward_leader * (1.0 + theta[0]),
        ),
    )
    context = context_of(rewards)
    batch = sample_trajectories(rewards, THETA, context.follower, streams=50, steps=4, rng=np.random.default_rng(1))
    items = NudgedFollowers().contributions(batch, context)
    total = sum(item.total(context) for item in items)
    kept = [replace(item, weights={k: v for k, v in item.weights.items() if "reward" in k}) for item in items]
    np.testing.assert_array_equal(sum(item.total(context) for item in kept), total)
    # And the weights on rewards are signed discounts over 2w, whatever the follower thinks.
    w = rewards.temperature
    weights = next(item.weights["reward_follower"] for item in items if item.part == "response")
    alive = weights != 0.0
    np.testing.assert_allclose(weights[alive], (0.9 ** np.arange(4) / (2 * w) * alive)[alive])


@pytest.mark.exact
def test_sparse_kernels_give_the_same_moments():
    def listed(theta):
        tables = ENDING.tables(theta)
        successor = np.broadcast_to(np.arange(3), (3, 2, 3)).copy()
        return replace(tables, transition=SparseTransition(successor=successor, probability=tables.transition))

    sparse = replace(ENDING, tables=listed)
    one, other = (enumerate_moments(NudgedFollowers(), problem, THETA, horizon=2) for problem in (ENDING, sparse))
    assert np.abs(one.mean - other.mean).max() <= 1e-13
    assert np.abs(one.covariance - other.covariance).max() <= 1e-11


@pytest.mark.exact
@pytest.mark.parametrize("numbers", ["independent", "common"])
def test_an_action_that_cannot_be_taken_is_as_good_as_none(numbers):
    playable = np.array([[True, True, False]] * 3)

    def with_third(theta, masked):
        tables = ENDING.tables(theta)
        add = [anp.concatenate([table, table[:, :1]], axis=1) for table in (tables.transition, tables.reward_leader)]
        wanted = anp.concatenate([tables.reward_follower, tables.reward_follower[:, :1] + 5.0], axis=1)
        mask = playable if masked else None
        return replace(tables, transition=add[0], reward_leader=add[1], reward_follower=wanted, action_mask=mask)

    masked, free = (replace(ENDING, tables=lambda theta, m=m: with_third(theta, m)) for m in (True, False))
    absent, found, other = (
        enumerate_moments(NudgedFollowers(numbers=numbers), problem, THETA, horizon=2)
        for problem in (ENDING, masked, free)
    )
    assert np.abs(found.mean - absent.mean).max() <= 1e-12
    assert np.abs(found.covariance - absent.covariance).max() <= 1e-11 * np.abs(absent.covariance).max()
    assert np.abs(other.mean - absent.mean).max() > 1e-3


@pytest.mark.statistical
def test_in_a_simulator_of_many_episodes_the_first_one_counts():
    """Paid streams of episodes that follow each other say what streams of one episode say, of the problem's own law."""
    many = TabularSimulator(single_episode=False, step_limit=2)
    estimator = NudgedFollowers(pay=0.3, unpaid=False)
    context = replace(context_of(ENDING, seed=5), simulator=many)
    moments = enumerate_moments(estimator, ENDING, THETA, horizon=2)
    batch = many.sample(ENDING, THETA, context.follower, streams=DRAWS, steps=5, rng=np.random.default_rng(4))
    off = estimator(batch, context) - moments.mean
    assert (np.abs(off.mean(axis=0)) < FIVE * off.std(axis=0) / np.sqrt(DRAWS)).all()
    assert np.abs(moments.mean - enumerate_moments(estimator, ENDING, THETA, horizon=5).mean).max() > 0.1
    with pytest.raises(UnsupportedError, match="several episodes in one stream"):
        NudgedFollowers(pay=0.3)(batch, context)
    np.testing.assert_allclose(sum(estimator.expectation(context, horizon=5).values()), moments.mean, rtol=1e-12)
    with pytest.raises(UnsupportedError, match="another law"):
        estimator.expectation(replace(context, simulator=replace(many, dynamics=ENDING)), horizon=2)


@pytest.mark.exact
def test_cost_is_the_expected_length_of_paid_episodes():
    """By the survival of both populations' chains, step by step; an unpaid population is counted as it came."""
    context = context_of(ENDING)
    batch = sample_trajectories(ENDING, THETA, context.follower, streams=10, steps=4, rng=np.random.default_rng(0))
    at, w, kernel = ENDING.at(THETA), 0.3 * ENDING.temperature, np.asarray(ENDING.tables_at(THETA).transition)
    paid = PaidFollower(at, Objective(), context.follower)
    length = 0.0
    for side in (w, -w):
        law, policy = np.asarray(at.tables.initial), paid.response(side)[1]
        for _ in range(4):
            length += law.sum()
            law = np.einsum("s,sa,sat->t", law, policy, kernel)
    costs = [NudgedFollowers(pay=0.3, unpaid=unpaid).cost(batch, context) for unpaid in (False, True)]
    assert costs[0]["environment_steps"] == round(10 * length)
    assert costs[1]["environment_steps"] == round(10 * length) + batch.valid.sum()


@pytest.mark.exact
def test_what_it_cannot_answer_for_is_refused_by_name():
    with pytest.raises(InvalidInputError, match="other than zero"):
        NudgedFollowers(pay=0.0)
    with pytest.raises(InvalidInputError, match="1 or 2"):
        NudgedFollowers(sides=3)
    with pytest.raises(InvalidInputError, match="independent"):
        NudgedFollowers(numbers="shared")
    for leader, growth in ((0.95, "1.9"), (0.99, "1.98")):
        explodes = replace(ENDING, discount_leader=leader, discount_follower=0.5)
        with pytest.raises(UnsupportedError, match=rf"grows by {growth} at each of .* steps, to (inf|.*e\+.*) times β"):
            NudgedFollowers().expectation(context_of(explodes), horizon=3)
    blind = replace(ENDING, discount_follower=0.0)
    with pytest.raises(UnsupportedError, match=r"without a future sees no pay"):
        NudgedFollowers().expectation(context_of(blind), horizon=3)
    with pytest.raises(InvalidInputError, match="rounding"):
        NudgedFollowers(pay=1e-16).expectation(context_of(ENDING), horizon=3)
    context = context_of(ENDING)
    batch = sample_trajectories(ENDING, THETA, context.follower, streams=2, steps=2, rng=np.random.default_rng(0))
    with pytest.raises(EstimatorError, match="Generator"):
        NudgedFollowers()(batch, replace(context, rng=None))
    for problem, why in ((random_lqr(), "nobody plays them"), (lqr_game(), "no quadratic")):
        theta = np.zeros(problem.theta_shape or 3)
        with pytest.raises(UnsupportedError, match=rf"{type(problem).__name__}: .*{why}.*; use BCHG"):
            NudgedFollowers().expectation(
                Context(problem=problem, theta=theta, follower=solve_follower(problem, theta)), horizon=3
            )
    rooms, theta = four_rooms(), np.zeros(105)
    large = Context(problem=rooms, theta=theta, follower=solve_follower(rooms, theta), rng=np.random.default_rng(0))
    streams = sample_trajectories(rooms, theta, large.follower, streams=1, steps=2, rng=np.random.default_rng(0))
    with pytest.raises(TooLargeError, match="pairs of states"):
        NudgedFollowers().conditional_moments(streams, large)
    assert NudgedFollowers().cost(streams, large)["environment_steps"] == 6


@pytest.mark.exact
def test_many_runs_together_have_no_pay_that_changes_in_time():
    rooms = replace(four_rooms(temperature=0.005), discount_leader=0.9)
    batch = SeedBatch.solve(rooms, np.zeros((2, 105)))
    streams = batch.sample(streams=1, steps=20, rng=np.random.default_rng(0))
    critic, rng = batch.exact_critic(), [np.random.default_rng(run) for run in range(2)]
    with pytest.raises(UnsupportedError, match=r"discount_leader=0.9, .*expected one discount"):
        batch.estimate(NudgedFollowers(pay=1.0, unpaid=False), streams, critic, rng=rng)


@pytest.mark.exact
def test_of_many_runs_too_a_pay_below_rounding_is_refused():
    rooms = four_rooms(temperature=0.005)
    batch = SeedBatch.solve(rooms, np.zeros((2, 105)))
    streams = batch.sample(streams=1, steps=20, rng=np.random.default_rng(0))
    critic, rng = batch.exact_critic(), [np.random.default_rng(run) for run in range(2)]
    with pytest.raises(InvalidInputError, match=r"at least .*; rounding is .* of it"):
        batch.estimate(NudgedFollowers(pay=1e-13, unpaid=False), streams, critic, rng=rng)
    found = batch.estimate(NudgedFollowers(pay=1.0, unpaid=False), streams, critic, rng=rng).mean
    assert np.isfinite(found).all()
