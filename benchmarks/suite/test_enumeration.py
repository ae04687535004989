"""Exact moments over about a million trajectories."""

from typing import Any

import pytest

from bilevelrl.estimators import BCHG
from bilevelrl.reference import named_stream
from bilevelrl.tasks import random_mdp
from bilevelrl.verification import enumerate_moments

# 4 states, 2 actions: 4 · (2 · 4)^T = 1,048,576 trajectories of T = 6 steps.
HORIZON = 6


@pytest.mark.benchmark(group="enumeration")
def test_a_million_trajectories(benchmark: Any) -> None:
    problem = random_mdp(states=4, actions=2, parameters=3, seed=0)
    theta = 0.1 * named_stream(0, "enumeration").standard_normal(3)
    found = benchmark.pedantic(
        enumerate_moments, (BCHG(), problem, theta), {"horizon": HORIZON}, rounds=1, warmup_rounds=0
    )
    benchmark.extra_info.update(states=4, actions=2, parameters=3, horizon=HORIZON, trajectories=found.paths)
