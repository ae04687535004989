"""BC-HG and Naive-PGD on MDPs: the formula as plain double sums, expectations by brute force, planted errors."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
from core_cases import CONFIGURATIONS, THETA, context_of, enumerate_paths, wrong_table

from bilevelrl.estimators import (
    BCHG,
    Claim,
    Context,
    Draw,
    NaivePGD,
    Objective,
    TabularSimulator,
    Trajectories,
    sample_trajectories,
)
from bilevelrl.reference import hypergradient, named_stream, solve_follower
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.tasks import layered_mdp, random_mdp

pytestmark = pytest.mark.exact


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
