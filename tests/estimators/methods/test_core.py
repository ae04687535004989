"""BC-HG and Naive-PGD: trace form against plain loops, expectations against brute force and against the truth."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators import (
    BCHG,
    Claim,
    Context,
    Draw,
    ExactCritic,
    NaivePGD,
    Objective,
    TableCritic,
    TabularSimulator,
    Trajectories,
    sample_trajectories,
)
from bilevelrl.reference import ConfigurableMDP, SparseTransition, Tables, hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, SupportError, UnsupportedError
from bilevelrl.reference.problem import Term
from bilevelrl.tasks import layered_mdp, random_mdp

pytestmark = pytest.mark.exact

THETA = np.array([0.3, -0.2, 0.5])


def context_of(problem: ConfigurableMDP, **options: Any) -> Context:
    follower = options.pop("follower", None) or solve_follower(problem, THETA)
    return Context(problem=problem, theta=THETA, follower=follower, **options)


# --- the formula as plain double sums over a path, from the Jacobian of the tables ------------------------------------


def loop_rows(batch: Trajectories, context: Context, estimator: BCHG, *, guiding: bool = True) -> dict[str, Any]:
    """Rows of every part by literal loops: no traces, no vector-Jacobian products."""
    problem, follower, target = context.problem, context.follower, estimator.target
    tables, jacobian = problem.tables_at(THETA), problem.jacobian(THETA)
    states, size = tables.states, THETA.size
    gamma_leader = problem.discount_leader if target.discounted else 1.0
    gamma_follower, beta = problem.discount_follower, problem.temperature
    critic = estimator.leader_critic(context)
    rows = {part: np.zeros((batch.streams, size)) for part in ("initial", "direct", "transition", "response")}

    def score(s: int, a: int, s2: int) -> Any:
        kernel, moved = tables.transition, jacobian["transition"]
        if s2 == states:
            return -moved[s, a].sum(axis=0) / (1.0 - kernel[s, a].sum())
        return moved[s, a, s2] / kernel[s, a, s2]

    for m in range(batch.streams):
        for first, last in episodes(batch, m):
            path = range(first, last + 1)

            def to_go(t: int, first: int = first) -> int | None:
                return None if target.horizon is None else max(target.horizon - (t - first), 0)

            def paid(t: int, first: int = first) -> bool:
                return target.horizon is None or t - first < target.horizon

            def returns(t: int, last: int = last, reward: Any = batch.reward_leader_t[m]) -> float:
                terms = [gamma_leader ** (j - t) * reward[j] for j in range(t, last + 1) if paid(j)]
                return float(sum(terms))

            same = estimator.critic == "monte_carlo"
            start = batch.state_t[m, first]
            value = returns(first) if same else critic.value(start, steps_to_go=to_go(first))
            rows["initial"][m] += value * jacobian["initial"][start] / tables.initial[start]
            for t in path:
                s, a, s2 = batch.state_t[m, t], batch.action_t[m, t], batch.state_tp1[m, t]
                if not paid(t):
                    continue
                pay = gamma_leader ** (t - first)
                action_value = critic.action_value(s, a, steps_to_go=to_go(t))
                rows["direct"][m] += pay * jacobian["reward_leader"][s, a]
                ahead = returns(t + 1) if same else critic.value(s2, steps_to_go=to_go(t + 1))
                ahead = gamma_leader * ahead
                if estimator.scores == "td_error":
                    ahead -= action_value - tables.reward_leader[s, a]
                rows["transition"][m] += pay * ahead * score(s, a, s2)
                benefit = (returns(t) if same else action_value) - critic.value(s, steps_to_go=to_go(t))
                if not guiding:
                    continue
                for k in range(t, last + 1):
                    sk, ak, sk2 = batch.state_t[m, k], batch.action_t[m, k], batch.state_tp1[m, k]
                    ahead = gamma_follower * (follower.value[sk2] if sk2 < states else 0.0)
                    if estimator.scores == "td_error":
                        ahead -= follower.action_value[sk, ak] - tables.reward_follower[sk, ak]
                    derivative = jacobian["reward_follower"][sk, ak] + ahead * score(sk, ak, sk2)
                    rows["response"][m] += pay * benefit * gamma_follower ** (k - t) * derivative / beta
    rows["regulariser"] = np.repeat(jacobian["regulariser"][None], batch.streams, axis=0)
    return rows


def episodes(batch: Trajectories, stream: int) -> list[tuple[int, int]]:
    """(first, last) steps of the episodes of a stream, read off one step at a time."""
    found = []
    for t in range(batch.steps):
        if not batch.valid[stream, t]:
            break
        if t == 0 or batch.time_in_episode[stream, t] == 0:
            found.append((t, t))
        found[-1] = (found[-1][0], t)
    return found


CONFIGURATIONS = [
    pytest.param(BCHG(), id="exact"),
    pytest.param(BCHG(scores="td_error"), id="td_error"),
    pytest.param(BCHG(critic="monte_carlo"), id="monte_carlo"),
    pytest.param(BCHG(critic="monte_carlo", scores="td_error"), id="monte_carlo, td_error"),
    pytest.param(BCHG(critic="context"), id="given table"),
    pytest.param(BCHG(target=Objective(horizon=4), critic="exact_truncated"), id="horizon 4"),
    pytest.param(BCHG(target=Objective(horizon=3), critic="exact_truncated"), id="horizon 3, longer streams"),
    pytest.param(BCHG(target=Objective(horizon=9), critic="exact_truncated"), id="horizon 9, shorter streams"),
    pytest.param(BCHG(target=Objective(horizon=4), critic="exact"), id="horizon 4, infinite critic"),
    pytest.param(BCHG(target=Objective(horizon=4, discounted=False), critic="exact_truncated"), id="undiscounted"),
    pytest.param(BCHG(target=Objective(horizon=3), critic="monte_carlo"), id="monte_carlo, horizon 3"),
    pytest.param(
        BCHG(target=Objective(horizon=3, discounted=False), critic="monte_carlo"), id="monte_carlo, undiscounted"
    ),
]


def wrong_table(problem: ConfigurableMDP, follower: Any) -> TableCritic:
    exact = ExactCritic.solve(problem, THETA, follower.policy)
    noise = named_stream(0, "wrong table").standard_normal(follower.policy.shape)
    return TableCritic(action_values=exact.action_values[0] + 0.3 * noise, policy=follower.policy)


@pytest.mark.parametrize("estimator", CONFIGURATIONS)
@pytest.mark.parametrize("single_episode", [True, False])
@pytest.mark.parametrize("termination", [0.0, 0.3])
def test_trace_form_equals_double_sum(estimator: BCHG, single_episode: bool, termination: float) -> None:
    problem = random_mdp(seed=3, termination=termination)
    follower = solve_follower(problem, THETA)
    context = context_of(problem, follower=follower, critic=wrong_table(problem, follower))
    simulator = TabularSimulator(single_episode=single_episode, step_limit=None if single_episode else 5)
    batch = sample_trajectories(
        problem, THETA, follower, streams=6, steps=12, rng=named_stream(1, "trace"), simulator=simulator
    )
    if not single_episode:  # a stream's sums count each of its episodes: no gradient of one of them
        with pytest.raises(UnsupportedError, match="several episodes in one stream"):
            estimator.parts_per_draw(batch, context)
        return
    ours = estimator.parts_per_draw(batch, context)
    for part, rows in loop_rows(batch, context, estimator).items():
        scale = np.abs(rows).max() + 1e-300
        # Sums of at most 12 * 12 products of order one: a few units in the last place.
        np.testing.assert_allclose(ours[part], rows, rtol=0.0, atol=1e-14 * max(scale, 10.0), err_msg=part)
    estimate = estimator.estimate(batch, context, per_draw=True)
    assert estimate.per_draw is not None
    np.testing.assert_allclose(estimate.mean, estimate.per_draw.mean(axis=0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(estimate.mean, sum(estimate.parts.values()), rtol=1e-12, atol=1e-13)


# --- expectations -----------------------------------------------------------------------------------------------------


def enumerate_paths(
    problem: ConfigurableMDP, policy: Any, horizon: int, *, kernel: Any = None, start: Any = None
) -> tuple[Trajectories, Any]:
    """Every path of positive probability by plain recursion, as one batch, with probabilities."""
    tables = problem.tables_at(THETA)
    kernel = tables.transition if kernel is None else kernel
    start = tables.initial if start is None else start
    end = tables.states
    listed: list[tuple[list[tuple[int, int, int]], float]] = []

    def grow(path: list[tuple[int, int, int]], state: int, probability: float) -> None:
        if state == end or len(path) == horizon:
            listed.append((path, probability))
            return
        for action in range(tables.actions):
            law = [*kernel[state, action], 1.0 - kernel[state, action].sum()]
            for after, chance in enumerate(law):
                if chance > 1e-12:
                    grow([*path, (state, action, after)], after, probability * policy[state, action] * chance)

    for state in range(end):
        if start[state] > 0.0:
            grow([], state, float(start[state]))
    shape = (len(listed), horizon)
    state_t, action_t = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    state_tp1, valid = np.full(shape, end), np.zeros(shape, dtype=np.bool_)
    for row, (path, _) in enumerate(listed):
        for t, (state, action, after) in enumerate(path):
            state_t[row, t], action_t[row, t], state_tp1[row, t], valid[row, t] = state, action, after, True
    truncated = np.zeros(shape, dtype=np.bool_)
    truncated[:, -1] = valid[:, -1] & (state_tp1[:, -1] != end)
    batch = Trajectories(
        state_t=state_t,
        action_t=action_t,
        state_tp1=state_tp1,
        reward_leader_t=np.where(valid, tables.reward_leader[state_t, action_t], 0.0),
        terminated=valid & (state_tp1 == end),
        truncated=truncated,
        time_in_episode=np.where(valid, np.arange(horizon), 0),
        valid=valid,
        behaviour_log_prob=np.where(valid, np.log(policy[state_t, action_t]), 0.0),
    )
    return batch, np.array([probability for _, probability in listed])


def assert_expected(estimator: Any, context: Context, batch: Trajectories, probability: Any, horizon: int) -> None:
    assert probability.sum() == pytest.approx(1.0, abs=1e-13)
    expected = estimator.expectation(context, horizon=horizon)
    rows = estimator.parts_per_draw(batch, context)
    assert set(expected) >= set(rows)
    for part, found in rows.items():
        # Rounding is relative to what is summed, not to what is left after cancellation.
        magnitude = max(float((probability @ np.abs(found)).max()), 1.0)
        np.testing.assert_allclose(probability @ found, expected[part], rtol=0.0, atol=1e-12 * magnitude, err_msg=part)


@pytest.mark.parametrize("estimator", [*CONFIGURATIONS, pytest.param(NaivePGD(), id="naive")])
@pytest.mark.parametrize("termination", [0.0, 0.25])
def test_expectation_equals_brute_force_where_the_problem_goes_on(estimator: BCHG, termination: float) -> None:
    problem = random_mdp(states=3, seed=5, termination=termination)
    follower = solve_follower(problem, THETA)
    context = context_of(problem, follower=follower, critic=wrong_table(problem, follower))
    batch, probability = enumerate_paths(problem, follower.policy, 4)
    assert_expected(estimator, context, batch, probability, 4)


@pytest.mark.parametrize("estimator", CONFIGURATIONS)
@pytest.mark.parametrize("cause", ["suboptimal follower", "other kernel", "other kernel that ends more"])
def test_expectation_equals_brute_force_under_each_mismatch(estimator: BCHG, cause: str) -> None:
    problem = random_mdp(states=3, seed=6, termination=0.2)
    simulator, kernel, follower = None, None, solve_follower(problem, THETA)
    if cause == "suboptimal follower":
        follower = solve_follower(problem, THETA, method="value_iteration", stop_after=2)
    else:
        other = random_mdp(states=3, seed=7, termination=0.2 if cause == "other kernel" else 0.5)
        simulator, kernel = TabularSimulator(dynamics=other), other.tables_at(THETA).transition
    context = context_of(problem, follower=follower, critic=wrong_table(problem, follower), simulator=simulator)
    batch, probability = enumerate_paths(problem, follower.policy, 3, kernel=kernel)
    assert_expected(estimator, context, batch, probability, 3)
    if cause != "suboptimal follower":  # and the mismatch is seen: without it the expectation is another
        plain = sum(estimator.expectation(dataclasses.replace(context, simulator=None), horizon=3).values())
        assert np.abs(plain - sum(estimator.expectation(context, horizon=3).values())).max() > 1e-2


def test_restarting_uniformly_changes_the_expectation_as_enumeration_says() -> None:
    problem = random_mdp(states=3, seed=6)
    context = context_of(problem, simulator=TabularSimulator(restart="uniform"))
    batch, probability = enumerate_paths(problem, context.follower.policy, 3, start=np.full(3, 1.0 / 3.0))
    assert_expected(BCHG(), context, batch, probability, 3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scores", ["value", "td_error"])
def test_unbiased_part_by_part_on_layered_problems(seed: int, scores: Any) -> None:
    problem = layered_mdp(seed=seed)
    context = context_of(problem)
    truth = hypergradient(problem, THETA)
    batch, probability = enumerate_paths(problem, context.follower.policy, 3)
    estimator = BCHG(scores=scores)
    assert estimator.claim is Claim.UNBIASED
    assert estimator.draw is Draw.TRAJECTORY
    rows = estimator.parts_per_draw(batch, context)
    expected = estimator.expectation(context, horizon=3)
    scale = np.abs(truth.value).max()
    for part, value in truth.parts.items():
        np.testing.assert_allclose(probability @ rows[part], value, rtol=0.0, atol=1e-12 * scale, err_msg=part)
        np.testing.assert_allclose(expected[part], value, rtol=0.0, atol=1e-12 * scale, err_msg=part)
    # What the 1e-12 is worth: samples used twice are off by many orders of magnitude more.
    twice = sum(BCHG(critic="monte_carlo").expectation(context, horizon=3).values())
    assert np.abs(twice - truth.value).max() > 1e-3 * scale


@pytest.mark.parametrize("seed", range(3))
def test_naive_is_the_truth_without_its_response(seed: int) -> None:
    problem = layered_mdp(seed=seed)
    context = context_of(problem)
    truth = hypergradient(problem, THETA)
    expected = NaivePGD().expectation(context, horizon=3)
    total = sum(expected.values())
    scale = np.abs(truth.value).max()
    assert "response" not in expected
    assert NaivePGD().claim is Claim.DECLARED
    np.testing.assert_allclose(total, truth.value - truth.parts["response"], rtol=0.0, atol=1e-12 * scale)
    assert np.abs(total - truth.value).max() > 1e-3 * scale


@pytest.mark.parametrize("horizon", [1, 3, 8])
def test_leader_terms_are_unbiased_for_episodes_of_the_target(horizon: int) -> None:
    problem = random_mdp(seed=2)
    target = Objective(horizon=horizon)
    truth = hypergradient(problem, THETA, horizon=horizon)
    for estimator in (
        BCHG(target=target, critic="exact_truncated"),
        BCHG(target=target, critic="monte_carlo"),
        BCHG(target=target, critic="independent"),
    ):
        assert estimator.claim is Claim.DECLARED
        expected = estimator.expectation(context_of(problem), horizon=horizon)
        for part in ("initial", "direct", "transition", "regulariser"):
            np.testing.assert_allclose(expected[part], truth.parts[part], rtol=0.0, atol=1e-12, err_msg=part)
        assert np.abs(expected["response"] - truth.parts["response"]).max() > 1e-3  # the suffix is cut


def test_longer_streams_remove_the_truncation_of_the_suffix() -> None:
    problem = random_mdp(seed=2)
    target = Objective(horizon=3)
    truth = hypergradient(problem, THETA, horizon=3).value
    context = context_of(problem)
    estimator = BCHG(target=target, critic="exact_truncated")
    bias = [np.abs(sum(estimator.expectation(context, horizon=n).values()) - truth).max() for n in (3, 8, 13, 60)]
    # Five steps more are worth at most γ_F^5: what all actions have in common beyond the cut has no weight, E[B] = 0.
    assert bias[0] > 1e-3
    assert bias[1] < problem.discount_follower**5 * bias[0]
    assert bias[2] < problem.discount_follower**5 * bias[1]
    assert bias[3] < 1e-13


def test_expectation_converges_to_the_infinite_horizon_truth() -> None:
    problem = random_mdp(seed=4)
    expected = sum(BCHG().expectation(context_of(problem), horizon=400).values())
    np.testing.assert_allclose(expected, hypergradient(problem, THETA).value, rtol=0.0, atol=1e-12)


def test_independent_suffixes_have_the_expectation_of_the_exact_critic() -> None:
    for estimator, exact in (
        (BCHG(critic="independent"), BCHG()),
        (
            BCHG(critic="independent", target=Objective(horizon=4)),
            BCHG(critic="exact_truncated", target=Objective(horizon=4)),
        ),
    ):
        context = context_of(random_mdp(seed=1))
        ours, theirs = (e.expectation(context, horizon=4) for e in (estimator, exact))
        for part, value in theirs.items():
            np.testing.assert_allclose(ours[part], value, rtol=0.0, atol=1e-13)


# --- planted errors ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted(BCHG):
    """BC-HG with a mistake."""

    mistake: str = ""

    def contributions(self, trajectories: Trajectories, context: Context) -> Any:
        if self.mistake == "no leader discount":
            paid = context.problem.discount_leader**trajectories.time_in_episode
            weight = self.leader_weight(trajectories, context) / paid
            return [
                dataclasses.replace(item, weights={"reward_leader": weight}) if item.part == "direct" else item
                for item in super().contributions(trajectories, context)
            ]
        if self.mistake == "terminal state read as the last":
            wrapped = np.where(trajectories.terminated, context.follower.policy.shape[0] - 1, trajectories.state_tp1)
            moved = copy.copy(trajectories)
            object.__setattr__(moved, "state_tp1", wrapped)  # the constructor refuses it
            items = super().contributions(moved, context)
            return [dataclasses.replace(item, batch=trajectories) for item in items]
        swapped = dataclasses.replace(
            context.problem,
            discount_leader=context.problem.discount_follower,
            discount_follower=context.problem.discount_leader,
        )
        return super().contributions(trajectories, dataclasses.replace(context, problem=swapped))


@pytest.mark.parametrize("mistake", ["no leader discount", "terminal state read as the last", "discounts swapped"])
def test_the_comparison_catches_planted_errors(mistake: str) -> None:
    problem = random_mdp(states=3, seed=5, termination=0.25)
    context = context_of(problem)
    batch, probability = enumerate_paths(problem, context.follower.policy, 3)
    with pytest.raises(AssertionError):
        assert_expected(Planted(mistake=mistake), context, batch, probability, 3)


# --- geometric stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", ["single", "sum"])
def test_stopping_averages_to_the_plain_sum_on_every_finished_path(stopping: Any) -> None:
    """Given a path that ends, E over (τ, κ) is BC-HG's own row: a finite sum, since times beyond the end are alike."""
    problem = layered_mdp(seed=1)
    context = context_of(problem)
    batch, _ = enumerate_paths(problem, context.follower.policy, 3)
    estimator, steps = BCHG(stopping=stopping), 3
    law = {}
    for name in ("leader", "follower"):
        discount = getattr(problem, f"discount_{name}")
        law[name] = [(1.0 - discount) * discount**t for t in range(steps)] + [discount**steps]
    total = np.zeros((batch.streams, THETA.size))
    for tau, chance_tau in enumerate(law["leader"]):
        for kappa, chance_kappa in enumerate(law["follower"]):
            times = np.tile([tau, kappa], (batch.streams, 1))
            total += chance_tau * chance_kappa * estimator(batch.with_stopping(times), context)
    plain = BCHG()(batch, context)
    np.testing.assert_allclose(total, plain, rtol=0.0, atol=1e-12 * np.abs(plain).max())


@pytest.mark.parametrize("stopping", ["single", "sum"])
@pytest.mark.parametrize("kind", ["random", "terminating", "sparse"])
def test_stopping_is_declared_unbiased_over_an_infinite_horizon(stopping: Any, kind: str) -> None:
    problem = random_mdp(seed=8, termination=0.2 if kind == "terminating" else 0.0)
    if kind == "sparse":
        problem = sparse_twin(problem)
    estimator = BCHG(stopping=stopping)
    assert estimator.claim is Claim.UNBIASED
    expected = estimator.expectation(context_of(problem), horizon=1)
    truth = hypergradient(problem, THETA)
    for part, value in truth.parts.items():
        np.testing.assert_allclose(expected[part], value, rtol=0.0, atol=1e-12 * np.abs(truth.value).max())


@pytest.mark.statistical
@pytest.mark.parametrize("stopping", ["single", "sum"])
def test_stopped_samples_agree_with_the_infinite_horizon_truth(stopping: Any) -> None:
    problem = random_mdp(seed=8, discount_leader=0.6, discount_follower=0.7)
    context = context_of(problem)
    estimator = BCHG(stopping=stopping)
    batch = estimator.sample(
        problem, THETA, context.follower, streams=60_000, steps=1, rng=named_stream(11, "stopping", stopping)
    )
    rows = estimator(batch, context)
    error = rows.std(axis=0, ddof=1) / np.sqrt(rows.shape[0])
    truth = hypergradient(problem, THETA).value
    # Three coordinates at 5 standard errors: false alarm below 2e-6.
    assert (np.abs(rows.mean(axis=0) - truth) < 5.0 * error).all()
    # Power: the truncation bias of streams of the same mean length is seen.
    assert (5.0 * error < 0.25 * np.abs(truth).max()).all()


def test_stopping_needs_streams_that_reach_their_times() -> None:
    problem = random_mdp(seed=8)
    context = context_of(problem)
    batch = sample_trajectories(problem, THETA, context.follower, streams=4, steps=3, rng=named_stream(0, "short"))
    with pytest.raises(EstimatorError, match="without stopping times"):
        BCHG(stopping="sum")(batch, context)
    stopped = batch.with_stopping(np.array([[0, 0], [3, 3], [0, 1], [2, 0]]))
    with pytest.raises(EstimatorError, match=r"stream 1 was observed for 3 steps.*need 7"):
        BCHG(stopping="sum")(stopped, context)


# --- sparse kernels ---------------------------------------------------------------------------------------------------


def sparse_twin(problem: ConfigurableMDP) -> ConfigurableMDP:
    """The same problem with its kernel listed successor by successor."""

    def tables(theta: Any) -> Tables:
        dense = problem.tables(theta)
        states = dense.transition.shape[0]
        successor = np.broadcast_to(np.arange(states), dense.transition.shape)
        kernel = SparseTransition(successor=np.array(successor), probability=dense.transition)
        return dataclasses.replace(dense, transition=kernel)

    return dataclasses.replace(problem, tables=tables, tables_jacobian=None, tables_pullback=None)


@pytest.mark.parametrize("estimator", CONFIGURATIONS)
def test_sparse_kernels_have_the_same_expectation(estimator: BCHG) -> None:
    dense = random_mdp(states=3, seed=5, termination=0.2)
    follower = solve_follower(dense, THETA)
    critic = wrong_table(dense, follower)
    other = random_mdp(states=3, seed=9, termination=0.2)
    for simulators in ((None, None), (TabularSimulator(dynamics=other), TabularSimulator(dynamics=sparse_twin(other)))):
        values = [
            estimator.expectation(context_of(problem, critic=critic, simulator=simulator), horizon=4)
            for problem, simulator in zip((dense, sparse_twin(dense)), simulators, strict=True)
        ]
        for part, value in values[0].items():
            np.testing.assert_allclose(values[1][part], value, rtol=0.0, atol=1e-12, err_msg=part)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": "exakt"}, "critic='exakt'"),
        ({"critic": "exact_truncated"}, "expected a target with a horizon"),
        ({"target": Objective(horizon=3, discounted=False)}, "critic='exact'"),
        ({"stopping": "sum", "critic": "monte_carlo"}, "stopping='sum'"),
        ({"stopping": "sum", "target": Objective(horizon=3)}, "stopping='sum'"),
        ({"stopping": "sum", "normalisation": "episodes"}, "stopping='sum'"),
        ({"stopping": "sum", "guiding_average": "pairs"}, "guiding_average='pairs'"),
        ({"guiding_average": "steps"}, "guiding_average='steps'"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        BCHG(**options)


def test_targets_without_steps_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="horizon=0"):
        Objective(horizon=0)


def test_what_has_no_closed_form_is_refused() -> None:
    context = context_of(random_mdp(seed=0))
    with pytest.raises(EstimatorError, match="ratios"):
        BCHG(normalisation="episodes").expectation(context, horizon=3)
    several = dataclasses.replace(context, simulator=TabularSimulator(single_episode=False))
    with pytest.raises(EstimatorError, match="one episode per stream"):
        BCHG().expectation(several, horizon=3)
    with pytest.raises(InvalidInputError, match="horizon=0"):
        BCHG().expectation(context, horizon=0)
    with pytest.raises(EstimatorError, match=r"context\.critic=None"):
        BCHG(critic="context").expectation(context, horizon=3)
    batch = sample_trajectories(context.problem, THETA, context.follower, streams=2, steps=2, rng=named_stream(0, "x"))
    with pytest.raises(InvalidInputError, match=r"context\.rng=None"):
        BCHG(critic="independent")(batch, context)


def test_scores_outside_the_models_support_are_refused() -> None:
    problem, other = random_mdp(states=3, seed=5), random_mdp(states=3, seed=5, termination=0.2)
    with pytest.raises(SupportError, match="dynamics"):
        BCHG().expectation(context_of(problem, simulator=TabularSimulator(dynamics=other)), horizon=3)


def test_support_is_checked_at_every_new_theta() -> None:
    """A good answer at one θ must not be taken for another θ, where mass appears out of nothing."""

    def tables(theta: Any) -> Tables:
        mass = 0.1 * (theta[0] - 1.0) * theta[1]  # 0 on the line θ_0 = 1, with a slope unless θ_1 = 0
        rows = [anp.ravel(1.0 - mass), anp.ravel(mass), np.array([0.0, 1.0])]
        return Tables(
            transition=anp.reshape(anp.concatenate(rows), (2, 1, 2)),
            reward_follower=np.zeros((2, 1)),
            reward_leader=np.eye(2)[:, :1],
            initial=np.array([1.0, 0.0]),
        )

    problem = ConfigurableMDP(tables=tables, discount_leader=0.5, discount_follower=0.5, temperature=1.0)
    good, bad = np.array([2.0, 1.0]), np.array([1.0, 1.0])
    batch = sample_trajectories(problem, bad, np.ones((2, 1)), streams=4, steps=2, rng=named_stream(0, "support"))
    weights: dict[Term, Any] = {"log_transition": np.ones((4, 2))}
    for _ in range(2):
        assert np.isfinite(problem.pullback(good, batch, weights)).all()
        with pytest.raises(SupportError, match=r"transition\[0, 0, 1\]"):
            problem.pullback(bad, batch, weights)


@pytest.mark.parametrize("scores", ["value", "td_error"])
def test_a_chance_to_end_that_starts_at_zero_is_refused(scores: Any) -> None:
    """Where ∇Σ P ≠ 0 but no episode ends, a baseline of the scores (here the TD error's) loses the whole gradient."""

    def tables(theta: Any, least: float) -> Tables:
        rows = (1.0 - least - theta[0]) * np.array([[0.0, 0.5, 0.5], [0.0, 0.3, 0.7]])
        ending = np.zeros((2, 3))
        return Tables(
            transition=anp.stack([rows, ending, ending]),
            reward_follower=np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]]),
            reward_leader=np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 1.0]]),
            initial=np.array([1.0, 0.0, 0.0]),
        )

    theta = np.zeros(1)
    for least in (0.0, 1e-6):
        problem = ConfigurableMDP(
            tables=partial(tables, least=least), discount_leader=0.9, discount_follower=0.8, temperature=0.5
        )
        context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
        batch = sample_trajectories(problem, theta, context.follower, streams=4, steps=3, rng=named_stream(0, "end"))
        if least == 0.0:
            with pytest.raises(SupportError, match=r"sum of transition\[0, 0\]=1"):
                BCHG(scores=scores).estimate(batch, context)
        else:
            assert np.isfinite(BCHG(scores=scores).estimate(batch, context).mean).all()


def test_contexts_that_do_not_fit_are_refused_by_name() -> None:
    problem, other = random_mdp(states=2, actions=2, seed=0), random_mdp(states=3, actions=3, seed=0)
    theta = np.zeros(3)
    follower = solve_follower(problem, theta)
    batch = sample_trajectories(problem, theta, follower, streams=2, steps=3, rng=named_stream(0, "context"))
    plain: Any = [0.0, 0.0, 0.0]
    truth = BCHG().estimate(batch, Context(problem=problem, theta=theta, follower=follower)).mean
    found = BCHG().estimate(batch, Context(problem=problem, theta=plain, follower=follower)).mean
    np.testing.assert_array_equal(found, truth)
    nothing: Any = [1]
    for wrong, context, match in (
        (nothing, Context(problem=problem, theta=theta, follower=follower), r"trajectories=\[1\]"),
        (batch, Context(problem=problem, theta=theta, follower=None), r"context\.follower=None"),
        (batch, Context(problem=problem, theta=np.zeros(4), follower=follower), r"theta\.shape=\(4,\)"),
        (
            batch,
            Context(problem=problem, theta=theta, follower=solve_follower(other, theta)),
            r"policy\.shape=\(3, 3\)",
        ),
    ):
        with pytest.raises(InvalidInputError, match=match):
            BCHG().estimate(wrong, context)


@pytest.mark.parametrize("sparse", [False, True])
def test_scores_of_impossible_visits_are_refused(sparse: bool) -> None:
    """1 - Σ P of a row that sums to 1 is rounding: a score divided by it would be a number like 1e16."""
    problem, other = random_mdp(states=3, seed=5), random_mdp(states=3, seed=5, termination=0.2)
    if sparse:
        problem = sparse_twin(problem)
    theta = np.zeros(3)
    follower = solve_follower(problem, theta)
    simulator = TabularSimulator(dynamics=other)
    batch = sample_trajectories(
        problem, theta, follower, streams=30, steps=6, rng=named_stream(0, "ends"), simulator=simulator
    )
    assert batch.terminated.any()
    weights: dict[Term, Any] = {"log_transition": 1.0 * batch.valid}
    for per_stream in (False, True):
        with pytest.raises(SupportError, match="probability zero under the problem's own tables"):
            problem.pullback(theta, batch, weights, per_stream=per_stream)
    # A terminal value is 0, so scores weighted by values never ask for that.
    context = Context(problem=problem, theta=theta, follower=follower, simulator=simulator)
    assert np.isfinite(BCHG().estimate(batch, context).mean).all()
    with pytest.raises(SupportError):
        BCHG(scores="td_error").estimate(batch, context)


def test_states_are_integers() -> None:
    problem, theta = random_mdp(states=2, actions=2, seed=0), np.zeros(3)
    follower = solve_follower(problem, theta)
    batch = sample_trajectories(problem, theta, follower, streams=2, steps=3, rng=named_stream(0, "floats"))
    floats = dataclasses.replace(batch, state_t=batch.state_t + 0.5)
    with pytest.raises(InvalidInputError, match=r"state_t\.dtype='float64'"):
        BCHG().estimate(floats, Context(problem=problem, theta=theta, follower=follower))


@pytest.mark.exact
@pytest.mark.parametrize("estimator", [BCHG(largest_score=0.05), NaivePGD(largest_score=0.05)])
def test_shortened_scores_have_no_expectation_on_any_kind(estimator):
    problem, theta = random_mdp(seed=0), np.zeros(3)
    context = Context(problem=problem, theta=theta, follower=solve_follower(problem, theta))
    with pytest.raises(EstimatorError, match="shortened scores"):
        estimator.expectation(context, horizon=2)
