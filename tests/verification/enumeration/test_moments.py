"""Enumerated moments against a plain recursion; right estimators have no bias, planted mistakes are caught."""

import math

import numpy as np
import pytest
from moment_cases import ENDING, EXITS, LAYERED, check_by_enumeration, leader_return, plain_paths
from plain_estimators import MISTAKES, plain_bc_hg

from bilevelrl.estimators import BCHG, TabularSimulator
from bilevelrl.reference import (
    ConfigurableMDP,
    SparseTransition,
    Tables,
    hypergradient,
    named_stream,
    solve_follower,
)
from bilevelrl.reference.errors import InvalidInputError
from bilevelrl.tasks import garnet, layered_mdp, random_mdp
from bilevelrl.verification import Outcome, enumerate_moments
from bilevelrl.verification.enumeration.exact_sums import compensated_sum
from bilevelrl.verification.enumeration.paths import PathLaw
from bilevelrl.verification.pipeline.scenario_rows import rows_on_scenarios


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
