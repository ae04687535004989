"""Rivals from samples: what each declares, enumeration finds, and its limit is the method's own expectation."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from bilevelrl.estimators import Context, Objective, sample_trajectories
from bilevelrl.estimators.methods import BCHG, NudgedFollowers
from bilevelrl.estimators.rivals import AMD, KStep, LogDerivative, LogitSteps, ValuePenalty, ZeroOrder
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.reference.approximations import approximate_hypergradient
from bilevelrl.reference.errors import (
    EstimatorError,
    InvalidInputError,
    TooLargeError,
    UnsupportedError,
)
from bilevelrl.tasks import layered_mdp, lqr_game, random_lqr, random_markov_game, random_mdp
from bilevelrl.verification import enumerate_moments

THETA = np.array([0.3, -0.2, 0.1])
LAYERED = layered_mdp(seed=0, discount_leader=0.9)
ENDING = random_mdp(
    states=3, actions=2, parameters=3, seed=1, termination=0.2, discount_leader=0.9, discount_follower=0.8
)
EQUAL = replace(ENDING, discount_follower=0.9)
LONG = 300
DRAWS = 20_000
FIVE = 5.0
"""Standard errors: false alarms of 6e-7 for each number looked at."""


def game(*, sees):
    return random_markov_game(
        states=2, leader_actions=2, actions=2, seed=3, follower_sees_leader_action=sees, termination=0.2,
        regularised=True, discount_leader=0.9, discount_follower=0.8,
    )  # fmt: skip


def context_of(problem, seed=0):
    theta = THETA if problem.theta_shape is None else np.resize(THETA, problem.theta_shape)
    return Context(
        problem=problem, theta=theta, follower=solve_follower(problem, theta), rng=np.random.default_rng(seed)
    )


def declared(estimator, problem, horizon):
    context = context_of(problem)
    return sum(estimator.expectation(context, horizon=horizon).values())


def apart(estimator, problem, horizon=3):
    """Largest distance of the enumerated mean from what is declared."""
    found = enumerate_moments(estimator, problem, context_of(problem).theta, horizon=horizon)
    return np.abs(found.mean - declared(estimator, problem, horizon)).max()


IN_MDPS = [
    KStep(suffix_steps=1),
    KStep(suffix_steps=2),
    KStep(suffix_steps=2, scores="td_error"),
    KStep(suffix_steps=2, critic="independent"),
    KStep(suffix_steps=2, critic="exact_truncated", target=Objective(3, False)),
    AMD(sweeps=1),
    AMD(sweeps=2),
    AMD(sweeps=7),
    ZeroOrder(),
    ZeroOrder(sides=1),
    ZeroOrder(sides=1, directions="signs"),
    ZeroOrder(directions="signs", target=Objective(2)),
    LogitSteps(),
    LogitSteps(inverse="damped", knob=0.1, scores="td_error"),
    LogitSteps(inverse="columns", knob=2, critic="exact_truncated", target=Objective(3)),
]
IN_GAMES = [KStep(suffix_steps=1), KStep(suffix_steps=2), ZeroOrder(), ValuePenalty(pay=0.3)]
PENALTIES = [ValuePenalty(pay=0.3), ValuePenalty(pay=0.3, sides=2), ValuePenalty(iterations=3)]


@pytest.mark.exact
@pytest.mark.parametrize("estimator", IN_MDPS, ids=repr)
@pytest.mark.parametrize("problem", [LAYERED, ENDING], ids=["layered", "goes on"])
def test_enumeration_finds_the_declared_expectation(problem, estimator):
    assert apart(estimator, problem) <= 1e-12


@pytest.mark.exact
@pytest.mark.parametrize("estimator", PENALTIES, ids=repr)
def test_enumeration_finds_what_penalties_declare(estimator):
    assert apart(estimator, EQUAL) <= 1e-12


@pytest.mark.exact
@pytest.mark.parametrize("estimator", IN_GAMES, ids=repr)
@pytest.mark.parametrize("sees", [True, False])
def test_enumeration_finds_the_declared_expectation_in_games(sees, estimator):
    assert apart(estimator, game(sees=sees)) <= 1e-12


@pytest.mark.exact
@pytest.mark.parametrize(
    ("estimator", "method", "knob", "problem"),
    [
        *((KStep(suffix_steps=k), "differentiated_sweeps", k, ENDING) for k in (1, 3, 10)),
        *((KStep(suffix_steps=k), "differentiated_sweeps", k, game(sees=True)) for k in (1, 4)),
        *((KStep(suffix_steps=k), "differentiated_sweeps", k, game(sees=False)) for k in (1, 4)),
        (LogitSteps(knob=3), "policy_gradient_steps", 3, ENDING),
        (LogitSteps(inverse="damped", knob=0.01), "damped_inverse", 0.01, ENDING),
        (LogitSteps(inverse="columns", knob=3), "nystroem", 3, ENDING),
        (ValuePenalty(pay=0.1), "value_penalty_one_sided", 0.1, ENDING),
        (ValuePenalty(pay=0.1, sides=2), "value_penalty_two_sided", 0.1, game(sees=True)),
        (ValuePenalty(iterations=20), "attenuated_penalty", 20, EQUAL),
    ],
)  # fmt: skip
def test_long_streams_have_the_methods_own_expectation(estimator, method, knob, problem):
    exact = approximate_hypergradient(problem, context_of(problem).theta, method, knob)
    assert np.abs(declared(estimator, problem, LONG) - exact).max() <= 1e-11 * max(1.0, np.abs(exact).max())


HASTY = solve_follower(ENDING, THETA, method="value_iteration", stop_after=3)


@pytest.mark.exact
def test_the_log_derivative_form_sees_a_follower_that_has_not_arrived_and_nothing_of_one_that_has():
    estimator = LogDerivative()
    hasty = replace(context_of(ENDING), follower=HASTY)
    short = sum(estimator.expectation(hasty, horizon=3).values())
    found = enumerate_moments(estimator, ENDING, THETA, horizon=3, follower=HASTY)
    assert np.abs(found.mean - short).max() <= 1e-12
    exact = approximate_hypergradient(ENDING, THETA, "log_derivative", 4)  # it plays one backup of its three sweeps
    assert np.abs(sum(estimator.expectation(hasty, horizon=LONG).values()) - exact).max() <= 1e-11
    assert np.abs(estimator.expectation(hasty, horizon=LONG)["response"]).max() > 1e-3
    assert np.abs(estimator.expectation(context_of(ENDING), horizon=LONG)["response"]).max() <= 1e-12
    assert apart(estimator, ENDING) <= 1e-12


@pytest.mark.exact
@pytest.mark.parametrize("horizon", [1, 4, 50])
def test_amd_has_the_recursions_answer_whatever_the_length_of_its_streams(horizon):
    for sweeps in (1, 6):
        exact = approximate_hypergradient(ENDING, THETA, "alternating_tables", sweeps)
        assert np.abs(declared(AMD(sweeps=sweeps), ENDING, horizon) - exact).max() <= 1e-12


@pytest.mark.exact
@pytest.mark.parametrize("sides", [1, 2])
def test_gaussian_directions_have_the_smoothed_slope(sides):
    problem = random_mdp(
        states=3, actions=2, parameters=1, seed=1, termination=0.5, discount_leader=0.9, discount_follower=0.8,
        theta_in=("transition", "reward_follower", "reward_leader", "initial"),
    )  # fmt: skip
    theta = THETA[:1]
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    estimator = ZeroOrder(smoothing=0.2, sides=sides, directions="gaussian")
    exact = approximate_hypergradient(problem, theta, "smoothing", 0.2)
    found = sum(estimator.expectation(context, horizon=30).values())  # half of them end at each step
    assert np.abs(found - exact).max() <= 1e-6 * np.abs(exact).max()  # what two grids may differ by
    assert np.abs(exact - hypergradient(problem, theta).value).max() > 1e-4


@pytest.mark.statistical
@pytest.mark.parametrize(
    "estimator", [ZeroOrder(), ZeroOrder(sides=1), ZeroOrder(directions="signs")], ids=["axes", "one-sided", "signs"]
)
@pytest.mark.parametrize("problem", [ENDING, game(sees=False)], ids=["MDP", "game"])
def test_draws_have_the_declared_mean_and_covariance(problem, estimator):
    context = context_of(problem, seed=3)
    moments = enumerate_moments(estimator, problem, context.theta, horizon=3)
    rng = np.random.default_rng(4)
    batch = sample_trajectories(problem, context.theta, context.follower, streams=DRAWS, steps=3, rng=rng)
    off = estimator(batch, context) - moments.mean
    assert (np.abs(off.mean(axis=0)) < FIVE * off.std(axis=0) / np.sqrt(DRAWS) + 1e-12).all()
    squares = off[:, :, None] * off[:, None, :]
    spread = squares.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(squares.mean(axis=0) - moments.covariance) < FIVE * spread + 1e-12).all()


@dataclass(frozen=True, kw_only=True)
class _OneStepMore(KStep):
    def _trace(self, trajectories, context, impulses):
        return KStep._trace(replace(self, suffix_steps=self.suffix_steps + 1), trajectories, context, impulses)


@dataclass(frozen=True, kw_only=True)
class _UndiscountedCut(KStep):
    def _trace(self, trajectories, context, impulses):
        whole = BCHG._trace(self, trajectories, context, impulses)
        late = np.pad(whole, ((0, 0), (self.suffix_steps, 0)))[:, : whole.shape[1]]
        return np.where(trajectories.valid, whole - late, 0.0)


@dataclass(frozen=True, kw_only=True)
class _SweepTooMany(AMD):
    def contributions(self, trajectories, context):
        return AMD.contributions(replace(self, sweeps=self.sweeps + 1), trajectories, context)


@dataclass(frozen=True, kw_only=True)
class _ResponseNotCentred(AMD):
    def _tables(self, context):
        found = AMD._tables(self, context)
        return found._replace(response=found.response + found.value[:, :, None, None])


@dataclass(frozen=True, kw_only=True)
class _HalfTheQuotient(ZeroOrder):
    def conditional_moments(self, trajectories, context):
        mean, covariance = ZeroOrder.conditional_moments(self, trajectories, context)
        return 0.5 * mean, covariance


@dataclass(frozen=True, kw_only=True)
class _ShortAxes(ZeroOrder):
    def _law(self, count):
        points, chances = ZeroOrder._law(self, count)
        return points / np.sqrt(count), chances


@dataclass(frozen=True, kw_only=True)
class _PayForPayOverTemperature(ValuePenalty):
    def _play(self, context, steps):
        return ValuePenalty._play(replace(self, pay=self.pay / context.problem.temperature), context, steps)


@dataclass(frozen=True, kw_only=True)
class _FromUnpaidStreams(ValuePenalty):
    def _play(self, context, steps):
        play = ValuePenalty._play(self, context, steps)
        one, other = play.populations
        return replace(play, populations=(one._replace(share=0.0), other._replace(share=1.0)))


@dataclass(frozen=True, kw_only=True)
class _OneSideForTwo(ValuePenalty):
    def _play(self, context, steps):
        return ValuePenalty._play(replace(self, sides=1), context, steps)


@dataclass(frozen=True, kw_only=True)
class _LeaderDiscounted(LogitSteps):
    def _added_terms(self, trajectories, context, reading):
        """γ_L^t for γ_F^t before the scores."""
        (item,) = LogitSteps._added_terms(self, trajectories, context, reading)
        ratio = (context.problem.discount_leader / context.problem.discount_follower) ** trajectories.time_in_episode
        return [replace(item, weights={term: weight * ratio for term, weight in item.weights.items()})]


@dataclass(frozen=True, kw_only=True)
class _StepTooMany(LogitSteps):
    def _scores(self, context):
        return LogitSteps._scores(replace(self, knob=self.knob + 1), context)


@dataclass(frozen=True, kw_only=True)
class _ScoreOfTheStepItself(LogDerivative):
    def _added_terms(self, trajectories, context, reading):
        (item,) = LogDerivative._added_terms(self, trajectories, context, reading)
        same = np.pad(item.weights["log_transition"][:, :-1], ((0, 0), (1, 0)))
        return [replace(item, weights={**item.weights, "log_transition": same})]


@dataclass(frozen=True, kw_only=True)
class _NotCentred(LogDerivative):
    def _weighed(self, context):
        return LogDerivative._weighed(self, context) + 0.1


@pytest.mark.exact
@pytest.mark.parametrize("planted", [_ScoreOfTheStepItself(), _NotCentred()], ids=lambda value: type(value).__name__)
def test_planted_slips_of_the_log_derivative_form_are_seen(planted):
    wanted = sum(LogDerivative().expectation(replace(context_of(ENDING), follower=HASTY), horizon=3).values())
    found = enumerate_moments(planted, ENDING, THETA, horizon=3, follower=HASTY)
    assert np.abs(found.mean - wanted).max() > 1e-3 * np.abs(wanted).max()


COLD = replace(EQUAL, temperature=0.5)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("planted", "right", "problem"),
    [
        (_OneStepMore(suffix_steps=1), KStep(suffix_steps=1), ENDING),
        (_UndiscountedCut(suffix_steps=1), KStep(suffix_steps=1), ENDING),
        (_SweepTooMany(sweeps=2), AMD(sweeps=2), ENDING),
        (_ResponseNotCentred(sweeps=2), AMD(sweeps=2), ENDING),
        (_LeaderDiscounted(), LogitSteps(), ENDING),
        (_StepTooMany(), LogitSteps(), ENDING),
        (_HalfTheQuotient(), ZeroOrder(), ENDING),
        (_ShortAxes(), ZeroOrder(), ENDING),
        (_PayForPayOverTemperature(pay=0.3), ValuePenalty(pay=0.3), COLD),
        (_FromUnpaidStreams(pay=0.3), ValuePenalty(pay=0.3), COLD),
        (_OneSideForTwo(pay=0.3, sides=2), ValuePenalty(pay=0.3, sides=2), COLD),
    ],
    ids=lambda value: type(value).__name__,
)
def test_planted_slips_are_seen(planted, right, problem):
    theta = context_of(problem).theta
    wanted = declared(right, problem, 3)
    found = enumerate_moments(planted, problem, theta, horizon=3)
    assert np.abs(found.mean - wanted).max() > 1e-3 * np.abs(wanted).max()
    assert apart(right, problem) <= 1e-12


@pytest.mark.exact
@pytest.mark.parametrize(("right", "limit"), [(KStep(suffix_steps=LONG), BCHG()), (AMD(sweeps=LONG), None)])
def test_in_the_limit_of_their_knob_they_are_right(right, limit):
    wanted = hypergradient(ENDING, THETA).value if limit is None else declared(limit, ENDING, LONG)
    assert np.abs(declared(right, ENDING, LONG) - wanted).max() <= 1e-11


@pytest.mark.exact
def test_a_penalty_is_the_nudged_followers_quotient_without_a_third_population():
    for sides in (1, 2):
        other = NudgedFollowers(pay=0.3, sides=sides, unpaid=False)
        assert np.array_equal(declared(ValuePenalty(pay=0.3, sides=sides), EQUAL, 3), declared(other, EQUAL, 3))


@pytest.mark.exact
@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: KStep(suffix_steps=0), InvalidInputError, "suffix_steps=0"),
        (lambda: KStep(stopping="sum"), InvalidInputError, "stopping"),
        (lambda: KStep(critic="monte_carlo"), InvalidInputError, "monte_carlo"),
        (lambda: KStep(same_step=True), InvalidInputError, "same_step"),
        (lambda: LogitSteps(knob=0.5), InvalidInputError, "knob=0.5"),
        (lambda: LogitSteps(inverse="damped", knob=-1.0), InvalidInputError, "knob=-1.0"),
        (lambda: LogitSteps(stopping="sum"), InvalidInputError, "stopping"),
        (lambda: LogDerivative(stopping="sum"), InvalidInputError, "stopping"),
        (lambda: AMD(sweeps=0), InvalidInputError, "sweeps=0"),
        (lambda: ZeroOrder(smoothing=0.0), InvalidInputError, "smoothing=0.0"),
        (lambda: ZeroOrder(smoothing=np.nan), InvalidInputError, "smoothing=nan"),
        (lambda: ZeroOrder(sides=3), InvalidInputError, "sides=3"),
        (lambda: ValuePenalty(pay=0.0), InvalidInputError, "pay=0.0"),
        (lambda: ValuePenalty(iterations=3, sides=2), InvalidInputError, "iterations=3"),
        (lambda: declared(ValuePenalty(pay=1e-17), EQUAL, 3), InvalidInputError, "rounding is"),
        (lambda: declared(ValuePenalty(iterations=3), ENDING, 3), UnsupportedError, "one discount"),
        (lambda: declared(ValuePenalty(iterations=3), game(sees=True), 3), UnsupportedError, "iterations=3"),
        (lambda: declared(ZeroOrder(smoothing=1e-15), ENDING, 3), InvalidInputError, "rounding is"),
        (lambda: declared(ZeroOrder(smoothing=1e-17), ENDING, 3), InvalidInputError, "rounding θ is"),
        (lambda: declared(ZeroOrder(directions="gaussian"), ENDING, 3), TooLargeError, "3 entries"),
        (lambda: declared(AMD(), game(sees=True), 3), UnsupportedError, "MarkovGame"),
    ],
)
def test_bad_input_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.exact
@pytest.mark.parametrize(
    "estimator", [KStep(), AMD(), ZeroOrder(), ValuePenalty(), LogitSteps(), LogDerivative()], ids=lambda e: e.name
)
@pytest.mark.parametrize("problem", [random_lqr(seed=0), lqr_game()], ids=["LQR", "LQR game"])
def test_kinds_that_do_not_fit_are_refused_by_name(problem, estimator):
    with pytest.raises(UnsupportedError, match=type(problem).__name__):
        estimator.check_problem(context_of(problem))


@pytest.mark.exact
def test_no_generator_no_directions():
    context = context_of(ENDING)
    batch = sample_trajectories(ENDING, THETA, context.follower, streams=2, steps=2, rng=np.random.default_rng(0))
    with pytest.raises(EstimatorError, match="rng"):
        ZeroOrder()(batch, replace(context, rng=None))
