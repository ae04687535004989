"""One outer iteration of BC-HG on the toy game as published: 450 steps, 10 actor and 1 critic updates, 64-64 nets."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.benchmarks.paper.toy_game.training import outer_iteration, setting_training


@pytest.mark.benchmark(group="outer iteration, toy game")
@pytest.mark.parametrize("seeds", [1, 10, 50])
def test_bc_hg(benchmark: Any, seeds: int) -> None:
    """Followers, samples, critics, directions and Adam's steps of all seeds together, without evaluations."""
    training = setting_training(bonus=1, methods=["bc_hg"], actor_steps=10, critic_steps=1, seeds=seeds)
    thetas = benchmark(outer_iteration(training))
    assert np.isfinite(thetas).all()
    benchmark.extra_info.update(seeds=seeds, actor_steps=10, critic_steps=1)
    if benchmark.stats is not None:
        benchmark.extra_info["milliseconds_per_seed"] = 1e3 * benchmark.stats.stats.median / seeds
