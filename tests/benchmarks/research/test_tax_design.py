"""Tax design as released: its update's exact mean by enumeration of paths, its heads by their own definition."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from bilevelrl.benchmarks.research.tax_design.published import EXPLORATION, World, independent_heads, published_update
from bilevelrl.benchmarks.research.tax_design.study import LEADERS, ascent_rows
from bilevelrl.reference import hypergradient
from bilevelrl.reference.errors import NotConvergedError
from bilevelrl.tasks.paper.tax_design import TAX_ACTIONS, household, tax_theta

pytestmark = pytest.mark.exact

ROOT = Path(__file__).resolve().parents[3]
THETA = tax_theta()
PROBLEM = household(temperature=0.3, cells=5)
WORLD = World.of(PROBLEM, THETA)


def test_the_mean_product_of_returns_is_that_of_all_paths():
    rng = np.random.default_rng(5)
    shape, gamma, length = (2, 2), 0.2, 7
    follower, leader, law = rng.normal(size=shape), rng.normal(size=shape), rng.dirichlet([1.0, 1.0], size=shape)
    policy = rng.dirichlet([1.0, 1.0], size=2)
    world = World(
        transition=law,
        transition_moved=0.0 * law,
        law=np.arange(2),
        follower=follower,
        leader=leader,
        follower_moved=follower[None],
        leader_moved=leader[None],
        initial=np.array([1.0, 0.0]),
        temperature=1.0,
        discount=gamma,
    )
    expected = 0.0
    for path in itertools.product(range(4), repeat=length):  # (action, next state) of each step
        state, chance, own, others = 0, 1.0, 0.0, 0.0
        for time, step in enumerate(path):
            action, following = divmod(step, 2)
            chance *= policy[state, action] * law[state, action, following]
            own += gamma**time * follower[state, action]
            others += gamma**time * leader[state, action]
            state = following
        expected += chance * own * others
    # What paths of seven steps leave out: γ^7 times a few.
    assert world.product(policy, follower[None])[0, 0] == pytest.approx(expected, abs=10.0 * gamma**length)
    apart = world.values(policy, follower)[0] * world.values(policy, leader)[0]
    assert abs(expected - apart) > 1e-2  # the covariance that one path's returns have


def test_without_shared_paths_and_limits_the_update_is_the_hypergradient_of_the_goods():
    exact = hypergradient(PROBLEM, THETA)
    policy = exact.follower.policy
    moved = WORLD.follower_moved[:3]
    quality = moved + WORLD.discount * WORLD.ahead(WORLD.values(policy, moved))
    advantage = quality - (policy * quality).sum(axis=-1, keepdims=True)
    paid = WORLD.leader + WORLD.discount * WORLD.ahead(WORLD.values(policy, WORLD.leader))
    response = (policy * advantage * paid).sum(axis=-1) @ WORLD.visits(policy) / WORLD.temperature
    np.testing.assert_allclose(response, exact.parts["response"][:3], rtol=1e-9)
    direct = (policy * WORLD.leader_moved).sum(axis=-1) @ WORLD.visits(policy)
    published = published_update(WORLD, policy, missing=0.0)
    # Beyond the response the published mean has what one path's two returns vary together, at each step.
    returned = WORLD.values(policy, moved)
    product = moved * WORLD.leader + WORLD.discount * (
        moved * WORLD.ahead(WORLD.values(policy, WORLD.leader)) + WORLD.leader * WORLD.ahead(returned)
    )
    product = product + WORLD.discount**2 * WORLD.ahead(WORLD.product(policy, moved))
    together = (policy * (product - quality * paid)).sum(axis=-1) @ WORLD.visits(policy) / WORLD.temperature
    size = np.abs(published).max()
    np.testing.assert_allclose(published[:3] - direct[:3], response + together, rtol=0.0, atol=1e-11 * size)
    assert np.abs(together).min() > 0.1
    # The income tax is left without its response, and with nothing else beyond the limit of scores.
    without_limit = published_update(WORLD, policy, limit=np.inf)[3]
    assert without_limit == pytest.approx(direct[3] + exact.parts["transition"][3], rel=1e-10)
    assert published[3] != without_limit


def test_heads_are_at_rest_where_they_end_and_there_are_several_ends():
    ends = []
    for step in (1.0, 0.5):
        policy, heads = independent_heads(WORLD, step=step)
        laws = [np.exp(head / 0.3 - (head / 0.3).max(axis=1, keepdims=True)) for head in heads]
        laws = [law / law.sum(axis=1, keepdims=True) for law in laws]
        joint = np.einsum("si,sj,sk,sl->sijkl", *laws)
        np.testing.assert_allclose(policy, joint.reshape(5, -1), atol=1e-12)
        for place in range(4):
            head = heads[place]
            value = head.max(axis=1) + 0.3 * np.log(np.exp((head - head.max(axis=1, keepdims=True)) / 0.3).sum(axis=1))
            target = (WORLD.follower + 0.9 * WORLD.ahead(value)).reshape(joint.shape)
            for choice in range(TAX_ACTIONS[place]):
                chosen = [slice(None)] * 5
                chosen[place + 1] = choice
                weights = 0.9 * joint[tuple(chosen)] + EXPLORATION / 1250.0
                mean = (weights * target[tuple(chosen)]).reshape(5, -1).sum(axis=1) / weights.reshape(5, -1).sum(axis=1)
                np.testing.assert_allclose(head[:, choice], mean, atol=1e-8)
        ends.append(float(WORLD.initial @ WORLD.values(policy, WORLD.leader)))
    assert np.isfinite(ends).all()
    with pytest.raises(NotConvergedError, match="heads still move"):
        independent_heads(WORLD, sweeps=3)


def test_a_leader_climbs_the_direction_that_it_is_named_after():
    for leader in LEADERS:
        first, last = ascent_rows(leader, temperature=0.3, cells=5, iterations=1, every=1)
        direction = np.array([first[f"{leader}_{place}"] for place in range(4)])
        moved = np.log([last[tax] / (2.0 - last[tax]) for tax in ("τ_1", "τ_2", "τ_3", "y")]) - THETA
        clipped = np.append(
            direction[:3] / max(1.0, np.linalg.norm(direction[:3])), direction[3] / max(1.0, abs(direction[3]))
        )
        np.testing.assert_allclose(moved, 0.01 * clipped, atol=1e-12)


def test_the_page_says_what_is_kept():
    page = (ROOT / "docs/tax_design.md").read_text(encoding="utf-8")
    kept = (ROOT / "benchmarks/results/tax_design.md").read_text(encoding="utf-8").splitlines()
    ends = [line.removeprefix("| 0.1 |").strip() for line in kept if line.startswith("| 0.1 |")]
    assert len(ends) == 4
    assert all(end in page for end in ends)
    with (ROOT / "benchmarks/results/tax_design.csv").open(encoding="utf-8") as lines:
        start = next(row for row in csv.DictReader(line for line in lines if not line.startswith("#")))
    assert f"{float(start['published_3']) / float(start['exact_3']) - 1.0:.0%}".replace("%", " %") in page
