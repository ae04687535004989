import itertools
import math

import autograd.numpy as anp
import numpy as np
import pytest
from plain_estimators import MISTAKES, plain_bc_hg

from bilevelrl.estimators import BCHG, Claim, Context, Draw, TabularSimulator, sample_trajectories
from bilevelrl.estimators.critics.tables import ExactCritic
from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    hypergradient,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, TooLargeError, UnsupportedError
from bilevelrl.tasks import Scenario, garnet, layered_mdp, random_mdp
from bilevelrl.tasks.scenarios.main_job import small_scenarios
from bilevelrl.verification import Outcome, enumerate_moments, mean_test
from bilevelrl.verification.enumeration.contract import OwnRandomnessError, forbidden_generator
from bilevelrl.verification.enumeration.exact_sums import compensated_sum
from bilevelrl.verification.enumeration.paths import PathLaw, multiset_count
from bilevelrl.verification.pipeline.scenario_rows import enumerated_row, rows_on_scenarios

LAYERED, EXITS = small_scenarios()[:2]
# Episodes end early, so trajectories carry padding.
ENDING = Scenario(
    name="ending",
    problem=random_mdp(states=2, actions=2, parameters=3, seed=4, termination=0.5),
    theta=0.5 * named_stream(20260314, "ending").standard_normal(3),
    horizon=3,
)


def check_by_enumeration(estimator, on):
    return enumerated_row(estimator, on)[0]


def leader_return(trajectories, context):
    """Discounted return and its square, as two parameters."""
    weight = context.problem.discount_leader**trajectories.time_in_episode * trajectories.valid
    total = (weight * trajectories.reward_leader_t).sum(axis=1)
    return np.stack([total, total**2], axis=1)


def plain_paths(problem, theta, horizon, *, single_episode=True, kernel=None):
    """Every stream by recursion, as a list of (probability, list of (s, a, s', time))."""
    tables = problem.tables_at(theta)
    policy = solve_follower(problem, theta).policy
    kernel = tables.transition if kernel is None else kernel
    found = []

    def walk(state, time, probability, path):
        if len(path) == horizon or state == tables.states:
            found.append((probability, path))
            return
        for action in range(tables.actions):
            row = kernel[state, action]
            for successor in range(tables.states):
                if row[successor] > 0.0:
                    step = (state, action, successor, time)
                    walk(successor, time + 1, probability * policy[state, action] * row[successor], [*path, step])
            missing = 1.0 - row.sum()
            if missing > 1e-9:
                step = (state, action, tables.states, time)
                ended = probability * policy[state, action] * missing
                if single_episode:
                    walk(tables.states, 0, ended, [*path, step])
                else:
                    for first in np.flatnonzero(tables.initial):
                        walk(int(first), 0, ended * tables.initial[first], [*path, step])

    for first in np.flatnonzero(tables.initial):
        walk(int(first), 0, float(tables.initial[first]), [])
    return found


def plain_moments(problem, theta, horizon, **options):
    """Mean and covariance of `leader_return` by recursion and exactly rounded sums."""
    reward = problem.tables_at(theta).reward_leader
    values = []
    for probability, path in plain_paths(problem, theta, horizon, **options):
        total = sum(problem.discount_leader**time * reward[s, a] for s, a, _, time in path)
        values.append((probability, np.array([total, total**2])))
    mean = np.array([math.fsum(p * x[i] for p, x in values) for i in range(2)])
    covariance = np.array(
        [[math.fsum(p * (x[i] - mean[i]) * (x[j] - mean[j]) for p, x in values) for j in range(2)] for i in range(2)]
    )
    return mean, covariance, len(values)


def sparse_twin(problem):
    """The same problem with its kernel as a list of successors."""

    def tables(theta):
        dense = problem.tables(theta)
        states, actions, _ = dense.transition.shape
        successor = np.broadcast_to(np.arange(states), (states, actions, states)).copy()
        return Tables(
            transition=SparseTransition(successor=successor, probability=dense.transition),
            reward_follower=dense.reward_follower,
            reward_leader=dense.reward_leader,
            initial=dense.initial,
            regulariser=dense.regulariser,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=problem.discount_leader,
        discount_follower=problem.discount_follower,
        temperature=problem.temperature,
    )


@pytest.mark.exact
@pytest.mark.parametrize("kind", ["random", "terminating", "garnet", "layered", "sparse"])
@pytest.mark.parametrize("single_episode", [True, False])
def test_moments_agree_with_a_plain_recursion(kind, single_episode):
    problem = {
        "random": lambda: random_mdp(states=2, actions=2, parameters=2, seed=3),
        "terminating": lambda: random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3),
        "garnet": lambda: garnet(states=4, actions=2, branching=2, parameters=2, seed=5, termination=0.2),
        "layered": lambda: layered_mdp(layers=2, width=2, parameters=2, seed=6),
        "sparse": lambda: sparse_twin(random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3)),
    }[kind]()
    theta = np.array([0.3, -0.4])
    dense = problem if kind != "sparse" else random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3)
    mean, covariance, count = plain_moments(dense, theta, 3, single_episode=single_episode)
    simulator = TabularSimulator(single_episode=single_episode)
    moments = enumerate_moments(leader_return, problem, theta, horizon=3, simulator=simulator)
    assert moments.paths == moments.draws == count
    assert abs(moments.probability - 1.0) <= 20 * np.finfo(float).eps
    # Products of seven probabilities and sums over a few hundred terms.
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-14, atol=1e-14 * np.abs(moments.magnitude).max())
    np.testing.assert_allclose(moments.covariance, covariance, rtol=1e-12, atol=1e-13)


@pytest.mark.exact
def test_a_simulator_with_other_dynamics_makes_the_trajectories():
    problem = random_mdp(states=2, actions=2, parameters=2, seed=3)
    other = random_mdp(states=2, actions=2, parameters=2, seed=9)
    theta = np.array([0.3, -0.4])
    mean, _, _ = plain_moments(problem, theta, 3, kernel=other.tables_at(theta).transition)
    moments = enumerate_moments(leader_return, problem, theta, horizon=3, simulator=TabularSimulator(dynamics=other))
    own = enumerate_moments(leader_return, problem, theta, horizon=3)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-13)
    assert np.abs(own.mean - mean).max() > 1e-3


@pytest.mark.exact
@pytest.mark.parametrize("largest", [1, 5, 64, 10_000])
def test_batches_are_bounded_and_hold_every_path_once(largest):
    problem = random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3)
    theta = np.zeros(2)
    law = PathLaw.of(problem.tables_at(theta), solve_follower(problem, theta).policy)
    widest = 2 * 3  # branches of a single prefix: two actions times two successors and the end
    seen, total = set(), []
    for trajectories, probability in law.batches(3, largest=largest):
        assert trajectories.streams <= max(largest, widest)
        total.extend(probability)
        for m in range(trajectories.streams):
            columns = (trajectories.state_t[m], trajectories.action_t[m], trajectories.state_tp1[m])
            seen.add(tuple(np.concatenate([column[trajectories.valid[m]] for column in columns])))
    assert len(seen) == len(total) == law.count(3)
    assert math.fsum(total) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.exact
def test_terminations_truncations_and_times_are_told_apart():
    problem = random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3)
    law = PathLaw.of(problem.tables_at(np.zeros(2)), solve_follower(problem, np.zeros(2)).policy)
    for trajectories, _ in law.batches(3, largest=100):
        length = trajectories.valid.sum(axis=1)
        ended = trajectories.terminated.any(axis=1)
        assert (trajectories.truncated.any(axis=1) == ~ended).all()
        assert (length[~ended] == 3).all()
        assert (trajectories.state_tp1[trajectories.terminated] == 2).all()
        assert (trajectories.time_in_episode[:, 1:] == np.arange(1, 3))[trajectories.valid[:, 1:]].all()
        trajectories.check_states(2, 2)


@pytest.mark.exact
def test_compensated_sums_have_twice_the_working_precision():
    rng = named_stream(1, "compensated")
    terms = rng.standard_normal((4097, 3)) * 10.0 ** rng.integers(-12, 12, (4097, 3))
    terms = np.concatenate([terms, -terms[1:]])  # all but three numbers cancel
    high, low = compensated_sum(terms)
    exact = np.array([math.fsum(column) for column in terms.T])
    # Pairwise over 14 levels: what is lost in the sum of the losses is second order in the rounding unit.
    unit = np.finfo(float).eps
    bound = unit * np.abs(exact) + (14 * unit) ** 2 * np.abs(terms).sum(axis=0)
    assert (np.abs(high + low - exact) <= bound).all()
    assert (np.abs(terms.sum(axis=0) - exact) > bound).all()  # plain summation is not good enough here


# Estimators: right ones have no bias, planted mistakes are caught.


@pytest.mark.exact
@pytest.mark.parametrize("small", [LAYERED, EXITS], ids=lambda small: small.name)
def test_plain_bc_hg_is_unbiased_where_every_path_ends(small):
    row = check_by_enumeration(plain_bc_hg(), small)
    assert row.verdict.outcome.value == "passed"
    assert row.bias < 1e-13
    assert row.verdict.detectable < 1e-9


@pytest.mark.exact
@pytest.mark.parametrize("mistake", [m for m in MISTAKES if m not in ("padding is counted", "terminal state is -1")])
def test_planted_mistakes_are_caught(mistake):
    row = check_by_enumeration(plain_bc_hg(mistake), EXITS)
    assert row.verdict.outcome.value == "failed"
    assert row.bias > 1e-3
    if mistake == "no response":
        assert "response part is missing" in str(rows_on_scenarios(plain_bc_hg(mistake), [EXITS])[1])


@pytest.mark.exact
def test_states_before_the_first_are_refused_by_name():
    with pytest.raises(InvalidInputError, match=r"state=-2: expected integers in \[0, 7\)"):
        check_by_enumeration(plain_bc_hg("terminal state is -1"), EXITS)


@pytest.mark.exact
def test_counting_padding_is_caught():
    row = check_by_enumeration(plain_bc_hg("padding is counted"), ENDING)
    assert row.verdict.outcome.value == "failed"
    assert "padding" in row.verdict.reason


@pytest.mark.exact
def test_a_declared_expectation_is_held_against_enumeration():
    problem, theta = ENDING.problem, ENDING.theta
    estimator = BCHG(target=ENDING.target, critic="exact_truncated")
    row = check_by_enumeration(estimator, ENDING)
    assert row.claim == "declared"
    assert row.verdict.outcome.value == "passed"

    class Wrong(BCHG):
        def expectation(self, context, *, horizon):
            return {**super().expectation(context, horizon=horizon), "response": np.full(3, 0.1)}

    wrong = check_by_enumeration(Wrong(target=ENDING.target, critic="exact_truncated"), ENDING)
    assert wrong.verdict.outcome.value == "failed"
    assert set(row.parts) == {"initial", "direct", "transition", "response", "regulariser"}
    assert problem.check_theta(theta) is not None


@pytest.mark.exact
def test_parts_are_the_parts_of_the_truth():
    problem, theta = LAYERED.problem, LAYERED.theta
    moments = enumerate_moments(BCHG(), problem, theta, horizon=3)
    truth = hypergradient(problem, theta)
    for part, value in truth.parts.items():
        np.testing.assert_allclose(moments.parts[part], value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(sum(moments.parts.values()), moments.mean, rtol=1e-13)


@pytest.mark.exact
@pytest.mark.parametrize("stopping", ["single", "sum"])
def test_geometric_stopping_is_enumerated_and_unbiased(stopping):
    row = check_by_enumeration(BCHG(stopping=stopping), LAYERED)
    assert row.verdict.outcome.value == "passed"
    assert row.bias < 1e-13
    assert row.draws == 64 * 4 * 4
    assert check_by_enumeration(BCHG(stopping=stopping), ENDING).verdict.outcome is Outcome.NOT_APPLICABLE


# Batches, and estimators with randomness of their own.


def state_average(trajectories, context):
    """A ratio: the mean reward over the visits of state 0 in the batch, 0 where it was not visited."""
    visits = trajectories.valid & (trajectories.state_t == 0)
    total = (visits * trajectories.reward_leader_t).sum()
    return np.array([[total / max(visits.sum(), 1), 1.0]])


@pytest.mark.exact
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_agree_with_all_ordered_tuples(batch):
    problem, theta = layered_mdp(layers=2, width=2, parameters=2, seed=6), np.zeros(2)
    reward = problem.tables_at(theta).reward_leader
    paths = plain_paths(problem, theta, 2)
    mean, second = 0.0, 0.0
    for chosen in itertools.product(paths, repeat=batch):
        probability = math.prod(p for p, _ in chosen)
        earned = [reward[s, a] for _, path in chosen for s, a, _, _ in path if s == 0]
        value = sum(earned) / max(len(earned), 1)
        mean, second = mean + probability * value, second + probability * value**2
    moments = enumerate_moments(state_average, problem, theta, horizon=2, batch=batch)
    assert moments.draws == multiset_count(len(paths), batch)
    assert moments.draw is Draw.BATCH
    assert abs(moments.probability - 1.0) < 1e-14
    assert moments.mean[0] == pytest.approx(mean, rel=1e-12)
    assert moments.covariance[0, 0] == pytest.approx(second - mean**2, rel=1e-9)


@pytest.mark.exact
def test_a_mean_over_a_batch_has_the_mean_and_half_the_covariance():
    problem, theta = layered_mdp(layers=2, width=2, parameters=2, seed=6), np.zeros(2)
    one = enumerate_moments(leader_return, problem, theta, horizon=2)
    two = enumerate_moments(
        lambda trajectories, context: leader_return(trajectories, context).mean(axis=0),
        problem,
        theta,
        horizon=2,
        batch=2,
    )
    np.testing.assert_allclose(two.mean, one.mean, rtol=1e-13)
    np.testing.assert_allclose(two.covariance, one.covariance / 2, rtol=1e-11)


class NoisyReturn:
    """The return plus a standard normal number times the path's length."""

    name = "noisy return"
    draw = Draw.TRAJECTORY
    claim = Claim.MEASURED

    def __call__(self, trajectories, context):
        noise = context.rng.standard_normal(trajectories.streams) * trajectories.valid.sum(axis=1)
        return leader_return(trajectories, context) + np.stack([noise, 0.0 * noise], axis=1)


class HonestNoisyReturn(NoisyReturn):
    def conditional_moments(self, trajectories, context):
        covariance = np.zeros((trajectories.streams, 2, 2))
        covariance[:, 0, 0] = trajectories.valid.sum(axis=1) ** 2
        return leader_return(trajectories, context), covariance


@pytest.mark.exact
def test_own_randomness_is_integrated_by_the_laws_of_total_expectation_and_covariance():
    problem, theta = random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3), np.zeros(2)
    plain = enumerate_moments(leader_return, problem, theta, horizon=3)
    noisy = enumerate_moments(HonestNoisyReturn(), problem, theta, horizon=3)
    squares = math.fsum(p * len(path) ** 2 for p, path in plain_paths(problem, theta, 3))
    np.testing.assert_allclose(noisy.mean, plain.mean, rtol=1e-14)
    np.testing.assert_allclose(noisy.covariance - plain.covariance, [[squares, 0], [0, 0]], atol=1e-12)


@pytest.mark.exact
def test_own_randomness_without_its_law_is_named():
    problem = random_mdp(states=2, actions=2, parameters=2, seed=4)
    with pytest.raises(EstimatorError, match=r"noisy return: draws random numbers of its own .*conditional_moments"):
        enumerate_moments(NoisyReturn(), problem, np.zeros(2), horizon=2)
    with pytest.raises(OwnRandomnessError, match=r"context\.rng"):
        forbidden_generator().random()


@pytest.mark.exact
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"horizon": 40}, TooLargeError, "about 2e\\+24 trajectories"),
        ({"horizon": 4000}, TooLargeError, "about 3e\\+2408 trajectories"),
        ({"horizon": 4, "max_paths": 10}, TooLargeError, "max_paths=10"),
        ({"horizon": 0}, InvalidInputError, "horizon=0"),
        ({"horizon": None}, InvalidInputError, "horizon=None"),
        ({"horizon": 3, "batch": 4}, InvalidInputError, "batch=4"),
        ({"horizon": 4, "batch": 3}, TooLargeError, "multisets"),
        ({"horizon": 3, "simulator": TabularSimulator(step_limit=2)}, UnsupportedError, "step_limit=2"),
    ],
)
def test_what_cannot_be_listed_is_refused(options, error, message):
    problem = random_mdp(states=2, actions=2, parameters=2, seed=4)
    with pytest.raises(error, match=message):
        enumerate_moments(leader_return, problem, np.zeros(2), **options)


@pytest.mark.exact
def test_other_problems_are_refused():
    with pytest.raises(InvalidInputError, match="problem=<object"):
        enumerate_moments(leader_return, object(), np.zeros(2), horizon=2)


@pytest.mark.statistical
def test_the_sampler_draws_from_the_enumerated_law():
    problem, theta = random_mdp(states=2, actions=2, parameters=2, seed=4, termination=0.3), np.array([0.3, -0.4])
    follower = solve_follower(problem, theta)
    moments = enumerate_moments(leader_return, problem, theta, horizon=4)
    trajectories = sample_trajectories(
        problem, theta, follower, streams=200_000, steps=4, rng=named_stream(3, "sampler")
    )
    context = Context(problem=problem, theta=theta, follower=follower)
    test = mean_test(leader_return(trajectories, context), moments.mean)
    assert not test.rejected.any()
    # Not vacuous: a wrong law of a hundredth of the mean would have been seen.
    assert (test.detectable < 0.02 * moments.standard_deviation).all()
    assert mean_test(leader_return(trajectories, context), moments.mean + test.detectable).rejected.all()


@pytest.mark.exact
def test_exact_critic_of_the_target_is_what_an_estimator_is_given():
    problem, theta = LAYERED.problem, LAYERED.theta
    seen = []

    def look(trajectories, context):
        seen.append(context)
        return np.zeros((trajectories.streams, 3))

    check_by_enumeration(look, LAYERED)
    truth = ExactCritic.solve(problem, theta, solve_follower(problem, theta).policy)
    np.testing.assert_allclose(seen[0].critic.value(np.arange(7)), truth.value(np.arange(7)), rtol=1e-12)


def derivative_reader(trajectories, context):
    """Rows by the problem's own derivatives, asked for at θ and beside it."""
    weight = {"log_transition": trajectories.valid * 1.0, "reward_leader": trajectories.valid * 1.0}
    here = context.problem.pullback(context.theta, trajectories, weight, per_stream=True)
    beside = context.problem.pullback(context.theta + 0.5, trajectories, weight, per_stream=True)
    return here + beside + context.problem.regulariser_gradient(context.theta)


@pytest.mark.exact
def test_a_problem_is_traced_once_at_its_parameter():
    problem, theta = EXITS.problem, EXITS.theta
    seen = []

    def tables(at):
        seen.append(at)
        return problem.tables(at)

    plain = ConfigurableMDP(tables=tables, discount_leader=0.9, discount_follower=0.8, temperature=0.5)
    follower = solve_follower(plain, theta)
    before = derivative_reader(*_first_paths(plain, theta, follower))
    seen.clear()
    with plain.derivatives.cache.keeping(theta):
        assert np.array_equal(derivative_reader(*_first_paths(plain, theta, follower)), before)
        first = len(seen)
        for name, value in plain.jacobian(theta).items():
            value[:] = 7.0  # what was handed out is the caller's own
            getattr(plain.tables_at(theta), name)[...] = 0.5
        assert np.array_equal(derivative_reader(*_first_paths(plain, theta, follower)), before)
    assert len(seen) - first < first  # what was asked beside θ is not kept
    assert "kept" not in plain.derivatives.cache


def _first_paths(problem, theta, follower):
    batch = sample_trajectories(problem, theta, follower, streams=4, steps=3, rng=np.random.default_rng(0))
    return batch, Context(problem=problem, theta=theta, follower=follower)


@pytest.mark.exact
def test_what_is_kept_is_forgotten_when_the_tables_have_changed():
    scale, theta, kept = [1.0], np.array([0.3]), {}

    def tables(at):
        return Tables(
            transition=np.ones((1, 2, 1)),
            reward_follower=np.zeros((1, 2)),
            reward_leader=scale[0] * anp.reshape(anp.concatenate([at, -at]), (1, 2)),
            initial=np.ones(1),
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    for expected in (1.0, 3.0):
        scale[0] = expected
        with problem.derivatives.cache.keeping(theta, kept):
            assert problem.tables_at(theta).reward_leader[0, 0] == pytest.approx(0.3 * expected, rel=1e-15)
            assert problem.jacobian(theta)["reward_leader"].ravel() == pytest.approx([expected, -expected], rel=1e-15)


@pytest.mark.exact
@pytest.mark.parametrize("shared", [False, True])
def test_rows_in_a_buffer_that_is_used_again_are_right(shared):
    problem, theta = ENDING.problem, ENDING.theta
    buffer = {}

    def estimator(trajectories, context):
        rows = np.repeat(leader_return(trajectories, context)[:, :1], theta.size, axis=1)
        kept = buffer.setdefault(len(rows), np.empty_like(rows)) if shared else np.empty_like(rows)
        kept[:] = rows
        return kept

    def forgetful(trajectories, context):
        """Halves its answer at every call, in the same array."""
        rows = estimator(trajectories, context)
        forgetful.calls += 1
        rows /= 2.0**forgetful.calls
        return rows

    forgetful.calls = 0
    found = enumerate_moments(estimator, problem, theta, horizon=3)
    expected = enumerate_moments(leader_return_alone, problem, theta, horizon=3)
    assert np.array_equal(found.mean, expected.mean)
    with pytest.raises(EstimatorError, match="two calls"):
        enumerate_moments(forgetful, problem, theta, horizon=3)


def leader_return_alone(trajectories, context):
    return np.repeat(leader_return(trajectories, context)[:, :1], context.theta.size, axis=1)


@pytest.mark.exact
@pytest.mark.parametrize(("episodes", "error"), [(2**40, InvalidInputError), (30, TooLargeError)])
def test_more_episodes_than_can_be_listed_are_refused_by_name(episodes, error):
    problem = layered_mdp()
    with pytest.raises(error, match="episodes"):
        enumerate_moments(BCHG(), problem, np.zeros(3), horizon=3, episodes=episodes)
