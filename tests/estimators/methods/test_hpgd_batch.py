"""HPGD as experiments run it: vectorised averages against loops over tables, and exact bias over small batches."""

import dataclasses
import itertools

import numpy as np
import pytest
from remembering import remembering

from bilevelrl.estimators import HPGD, Context, ExactCritic, SarsaCritic, sample_trajectories
from bilevelrl.estimators.methods import hpgd
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.terms import batch_tables
from bilevelrl.estimators.terms.batch_tables import averaged_guiding_term, monte_carlo_benefit
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.tasks import four_rooms, layered_mdp, random_mdp
from bilevelrl.verification import enumerate_moments

THETA = 0.5 * np.random.default_rng(0).standard_normal(3)


PROBLEM = remembering(random_mdp(states=2, actions=2, parameters=3, seed=2, termination=0.15), THETA)
LAYERED = remembering(layered_mdp(layers=2, seed=0), THETA)
PUBLISHED = {"normalisation": "episodes", "leader_average": "start_visits"}


def context_of(problem, **more):
    return Context(problem=problem, theta=THETA, follower=solve_follower(problem, THETA), **more)


class Visits:
    """A batch as lists of steps, with sums to the end of each episode, one step at a time."""

    def __init__(self, batch, context):
        problem, theta = context.problem, context.theta
        tables, jacobian = problem.tables_at(theta), problem.jacobian(theta)
        zeros = np.zeros(theta.size)
        self.steps = []
        self.finished = 0
        for m in range(batch.streams):
            later, episode = None, []
            for t in reversed(range(batch.steps)):
                if not batch.valid[m, t]:
                    continue
                s, a, successor = int(batch.state_t[m, t]), int(batch.action_t[m, t]), int(batch.state_tp1[m, t])
                ended = bool(batch.terminated[m, t] or batch.truncated[m, t])
                self.finished += ended
                if later is None or later["time"] == 0:
                    later = {"return": 0.0, "follower": zeros, "leader": zeros}
                score = zeros
                if "transition" in jacobian:
                    if successor < tables.states:
                        score = jacobian["transition"][s, a, successor] / tables.transition[s, a, successor]
                    else:
                        ends = 1.0 - tables.transition[s, a].sum()
                        score = -jacobian["transition"][s, a].sum(axis=0) / ends
                value = context.follower.value[successor] if successor < tables.states else 0.0
                reward_gradient = jacobian.get("reward_follower", np.zeros((*tables.reward_follower.shape, zeros.size)))
                step = {
                    "state": s,
                    "action": a,
                    "successor": successor,
                    "time": int(batch.time_in_episode[m, t]),
                    "score": score,
                    "return": float(batch.reward_leader_t[m, t]) + problem.discount_leader * later["return"],
                    "return ahead": later["return"],
                    "follower": reward_gradient[s, a]
                    + problem.discount_follower * value * score
                    + problem.discount_follower * later["follower"],
                }
                episode.append(step)
                later = {**step, "leader": zeros}
            self.steps.extend(reversed(episode))

    def table(self, quantity, key):
        """Plain averages over all visits of a pair or a state."""
        found = {}
        for step in self.steps:
            found.setdefault(key(step), []).append(step[quantity])
        return {index: sum(values) / len(values) for index, values in found.items()}


def pair_of(step):
    return step["state"], step["action"]


def state_of(step):
    return step["state"]


def plain_hpgd(batch, context, *, source=None, critic=None):
    """The published estimate, from averages in tables: leader's terms, and guiding term over finished episodes."""
    problem, theta = context.problem, context.theta
    visits = Visits(batch, context)
    tables = Visits(batch if source is None else source, context)
    gradient_pair, gradient_state = tables.table("follower", pair_of), tables.table("follower", state_of)
    return_pair, return_state = tables.table("return", pair_of), tables.table("return", state_of)
    zeros = np.zeros(theta.size)
    guiding = zeros
    for step in visits.steps:
        pair, state = pair_of(step), state_of(step)
        if critic is None:
            benefit = return_pair.get(pair, 0.0) - return_state.get(state, 0.0)
        else:
            benefit = critic.table[pair] - context.follower.policy[state] @ critic.table[state]
        difference = gradient_pair.get(pair, zeros) - gradient_state.get(state, zeros)
        guiding = guiding + problem.discount_leader ** step["time"] * benefit * difference
    guiding = guiding / (problem.temperature * max(1, visits.finished))
    # The leader's terms: sums to the end of the episode, averaged over visits of start states, then over starts.
    jacobian, later = problem.jacobian(theta), None
    direct_gradient = jacobian.get("reward_leader", np.zeros((*context.follower.policy.shape, theta.size)))
    value = None
    if critic is not None:
        value = np.append((context.follower.policy * critic.table).sum(axis=1), 0.0)
    for step in reversed(visits.steps):
        ahead = step["return ahead"] if value is None else value[step["successor"]]
        own = direct_gradient[pair_of(step)] + problem.discount_leader * ahead * step["score"]
        continued = zeros if later is None or later["time"] == 0 else later["leader"]
        step["leader"] = own + problem.discount_leader * continued
        later = step
    averages = visits.table("leader", state_of)
    starts = [step for step in visits.steps if step["time"] == 0]
    leader = sum((averages[state_of(step)] for step in starts), zeros) / len(starts)
    initial = zeros
    if "initial" in jacobian:
        law = problem.tables_at(theta).initial
        for step in starts:
            s = state_of(step)
            start_value = step["return"] if value is None else value[s]
            initial = initial + start_value * jacobian["initial"][s] / law[s] / len(starts)
    return leader + initial + guiding + problem.regulariser_gradient(theta)


SITUATIONS = {
    "one episode per stream": (PROBLEM, None, 5, 6),
    "several, with a step limit": (PROBLEM, TabularSimulator(step_limit=4, single_episode=False), 3, 15),
    "layered": (LAYERED, TabularSimulator(single_episode=False), 4, 7),
}


@pytest.mark.parametrize("variant", ["monte_carlo", "sarsa", "sarsa, delayed", "oracle_batch"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_vectorised_averages_are_the_plain_ones(situation, variant):
    problem, simulator, streams, steps = SITUATIONS[situation]
    context = context_of(problem, simulator=simulator)
    rng = np.random.default_rng(1)
    critic = SarsaCritic.start(context.follower, problem.discount_leader, rng=rng, order="time", truncation="cut")
    if variant.startswith("sarsa"):
        context = dataclasses.replace(context, critic=critic)
    options = {"variant": variant.split(",")[0], "delayed": "delayed" in variant, "oracle_batch_steps": 3 * streams}
    estimator = HPGD(**options, **PUBLISHED)
    missed = False
    for seed in range(5):
        batch = sample_trajectories(
            problem, context.theta, context.follower, streams=streams, steps=steps, rng=rng, simulator=simulator
        )
        source = None
        if variant == "oracle_batch":  # so few steps that pairs are missed, which then count 0
            source = estimator._extra_batch(batch, dataclasses.replace(context, rng=np.random.default_rng(seed)))
            seen = {pair_of(step) for step in Visits(source, context).steps}
            missed |= not {pair_of(step) for step in Visits(batch, context).steps} <= seen
        learnt = None
        if variant.startswith("sarsa"):
            learnt = critic if "delayed" in variant else critic.updated(batch)
        expected = plain_hpgd(batch, context, source=source, critic=learnt)
        found = estimator.estimate(batch, dataclasses.replace(context, rng=np.random.default_rng(seed))).mean
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert missed == (variant == "oracle_batch")


@pytest.mark.parametrize("planted", ["players' discounts swapped", "∇V_F left out", "averages over valid and padding"])
def test_the_comparison_catches_a_planted_error(monkeypatch, planted):
    context = context_of(PROBLEM)
    rng = np.random.default_rng(1)
    batch = sample_trajectories(PROBLEM, THETA, context.follower, streams=5, steps=6, rng=rng)
    expected = plain_hpgd(batch, context)
    if planted == "players' discounts swapped":
        swapped = {"discount_leader": PROBLEM.discount_follower, "discount_follower": PROBLEM.discount_leader}
        context = dataclasses.replace(context, problem=dataclasses.replace(PROBLEM, **swapped))
    elif planted == "∇V_F left out":
        benefit = monte_carlo_benefit(batch, batch, context)
        monkeypatch.setattr(hpgd, "monte_carlo_benefit", lambda *_: benefit)
        monkeypatch.setattr(batch_tables, "KINDS", {"pair": 1.0})
    else:
        assert not batch.valid.all()
        inside = np.where(batch.valid, batch.state_tp1, 0)  # S there would be refused
        batch = dataclasses.replace(
            batch,
            valid=np.ones_like(batch.valid),
            state_tp1=inside,
            truncated=batch.truncated | ~batch.valid,
            time_in_episode=np.where(batch.valid, batch.time_in_episode, 0),
        )
    found = HPGD(variant="monte_carlo", **PUBLISHED).estimate(batch, context).mean
    assert np.abs(found - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("variant", ["monte_carlo", "sarsa", "sarsa, delayed"])
@pytest.mark.parametrize(("problem", "horizon"), [(PROBLEM, 1), (LAYERED, 2)], ids=["ending", "layered"])
def test_exact_means_over_all_small_batches_agree(problem, horizon, variant, batch):
    """Every multiset of up to three paths, with its probability: the bias of a ratio without sampling error."""
    context = context_of(problem)
    critic = None
    if variant.startswith("sarsa"):
        critic = SarsaCritic.start(
            context.follower, problem.discount_leader, rng=np.random.default_rng(2), order="time"
        )
    delayed = "delayed" in variant
    estimator = HPGD(variant=variant.split(",")[0], delayed=delayed, **PUBLISHED)

    def plain(trajectories, given):
        learnt = critic if critic is None or delayed else critic.updated(trajectories)
        return plain_hpgd(trajectories, given, critic=learnt)[None, :]

    ours, other = (
        enumerate_moments(e, problem, context.theta, horizon=horizon, batch=batch, critic=critic)
        for e in (estimator, plain)
    )
    assert abs(ours.probability - 1.0) < 1e-13
    assert np.abs(ours.mean - other.mean).max() <= 1e-12 * ours.magnitude.max()
    assert np.abs(ours.covariance - other.covariance).max() <= 1e-11 * np.abs(other.covariance).max()


def test_the_extra_batch_is_enumerated_too():
    """All pairs of an on-policy batch and an extra one on a tiny problem: the oracle batch's bias, exactly."""
    context = context_of(LAYERED)
    paths, probability = every_path(LAYERED, context)
    estimator = HPGD(variant="oracle_batch", **PUBLISHED)
    means = {"vectorised": 0.0, "plain": 0.0}
    for (i, p), (j, q) in itertools.product(enumerate(probability), repeat=2):
        batch, source = paths.select([i]), paths.select([j])
        benefit = monte_carlo_benefit(batch, source, context)
        factors = estimator.scale(batch) * estimator.leader_weight(batch, context) * benefit / LAYERED.temperature
        item = averaged_guiding_term(batch, factors, source, context)
        means["vectorised"] += p * q * LAYERED.pullback(context.theta, item.batch, item.weights)
        means["plain"] += p * q * plain_hpgd(batch, context, source=source)
    truth = hypergradient(LAYERED, context.theta)
    leader = truth.value - truth.parts["response"]
    bias = means["vectorised"] - truth.parts["response"]
    assert np.abs(bias).max() > 1e-2 * np.abs(truth.parts["response"]).max()
    np.testing.assert_allclose(means["plain"] - leader, means["vectorised"], rtol=0, atol=1e-12)


def every_path(problem, context):
    found = []

    def collect(trajectories, _):
        found.append(trajectories)
        return np.zeros((trajectories.streams, context.theta.size))

    enumerate_moments(collect, problem, context.theta, horizon=2)
    paths = max(found, key=lambda trajectories: trajectories.streams)
    tables, policy = problem.tables_at(context.theta), context.follower.policy
    kernel = np.concatenate([tables.transition, 1.0 - tables.transition.sum(axis=2, keepdims=True)], axis=2)
    steps = policy[paths.state_t, paths.action_t] * kernel[paths.state_t, paths.action_t, paths.state_tp1]
    return paths, tables.initial[paths.state_t[:, 0]] * np.where(paths.valid, steps, 1.0).prod(axis=1)


def test_the_bias_is_real_and_falls_with_the_batch():
    """At 1, 2 and 3 paths the exact bias of the in-batch product is large and shrinks: a ratio, and a double use."""
    context = context_of(LAYERED)
    truth = hypergradient(LAYERED, context.theta)
    biases = []
    for batch in (1, 2, 3):
        moments = enumerate_moments(
            HPGD(variant="monte_carlo", **PUBLISHED), LAYERED, context.theta, horizon=2, batch=batch
        )
        biases.append(np.linalg.norm(moments.mean - truth.value) / np.linalg.norm(truth.value))
    assert biases[0] > biases[2] > 0.05
    # One path per batch never visits a state twice: no difference of averages, and no guiding term at all.
    alone = enumerate_moments(HPGD(variant="monte_carlo", **PUBLISHED), LAYERED, context.theta, horizon=2, batch=1)
    np.testing.assert_allclose(alone.mean, truth.value - truth.parts["response"], rtol=0, atol=1e-13)


def test_another_critic_is_copied_into_a_table_for_the_pass():
    context = context_of(PROBLEM)
    exact = ExactCritic.solve(PROBLEM, THETA, context.follower.policy)
    table = SarsaCritic(
        table=exact.action_values[0],
        policy=context.follower.policy,
        discount_leader=PROBLEM.discount_leader,
        order="time",
    )
    rng = np.random.default_rng(1)
    batch = sample_trajectories(PROBLEM, THETA, context.follower, streams=3, steps=4, rng=rng)
    found, wanted, before = (
        HPGD(variant="sarsa", delayed=delayed, **PUBLISHED).estimate(batch, dataclasses.replace(context, critic=critic))
        for delayed, critic in ((False, exact), (False, table), (True, exact))
    )
    np.testing.assert_array_equal(found.mean, wanted.mean)
    assert np.abs(found.mean - before.mean).max() > 1e-3


def test_large_batches_are_consistent_on_visited_pairs():
    simulator = TabularSimulator(single_episode=False)  # long streams: few episodes are cut at their end
    context = context_of(LAYERED, rng=np.random.default_rng(0), simulator=simulator)
    truth = hypergradient(LAYERED, context.theta)
    response = truth.parts["response"]
    rng = np.random.default_rng(3)
    batch = sample_trajectories(
        LAYERED, context.theta, context.follower, streams=800, steps=500, rng=rng, simulator=simulator
    )
    for options in ({"variant": "monte_carlo"}, {"variant": "oracle_batch", "oracle_batch_steps": 400_000}):
        found = HPGD(**options, **PUBLISHED).estimate(batch, context)
        assert np.linalg.norm(found.parts["response"] - response) < 0.05 * np.linalg.norm(response)
        for part in ("direct", "transition"):
            assert np.linalg.norm(found.parts[part] - truth.parts[part]) < 0.05 * np.linalg.norm(truth.value), part


def test_an_extra_batch_of_short_streams_is_biased_by_its_cuts():
    """With two steps per stream every second episode of the extra batch is cut; no number of streams mends that."""
    context = context_of(LAYERED, rng=np.random.default_rng(0))
    response = hypergradient(LAYERED, context.theta).parts["response"]
    rng = np.random.default_rng(3)
    batch = sample_trajectories(LAYERED, context.theta, context.follower, streams=200_000, steps=2, rng=rng)
    found = HPGD(variant="oracle_batch", oracle_batch_steps=400_000, **PUBLISHED).estimate(batch, context)
    assert np.linalg.norm(found.parts["response"] - response) > 0.15 * np.linalg.norm(response)
    same = HPGD(variant="monte_carlo", **PUBLISHED).estimate(batch, context)
    assert np.linalg.norm(same.parts["response"] - response) < 0.05 * np.linalg.norm(response)


def test_four_rooms_as_published():
    """Streams of several episodes with the step limit, θ of 105 coordinates: finite, and equal to the plain tables."""
    problem = four_rooms(temperature=0.005)
    theta = 0.01 * np.random.default_rng(0).standard_normal(105)
    follower = solve_follower(problem, theta)
    simulator = TabularSimulator(step_limit=200, single_episode=False)
    rng = np.random.default_rng(1)
    batch = sample_trajectories(problem, theta, follower, streams=2, steps=200, rng=rng, simulator=simulator)
    context = Context(problem=problem, theta=theta, follower=follower, simulator=simulator, rng=rng)
    found = HPGD(variant="monte_carlo", **PUBLISHED).estimate(batch, context).mean
    expected = plain_hpgd(batch, context)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
