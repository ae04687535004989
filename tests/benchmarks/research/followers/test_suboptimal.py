"""The 48 published configurations: they are the published ones, resume, and say how far off the followers are."""

from dataclasses import replace

import numpy as np
import pytest

from bilevelrl.benchmarks.research.followers.published import (
    BATCHES,
    ITERATIONS,
    STARTS,
    suboptimal_cell,
    suboptimal_training,
)
from bilevelrl.benchmarks.sweeping.sweep_grid import Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep, run_sweep
from bilevelrl.reference import SparseTransition, solve_follower

pytestmark = pytest.mark.exact


def training_of(**options):
    return suboptimal_training(
        **{"start": "reset", "k": 5, "batch_steps": 100, "methods": ["bc_hg"], "seeds": 1, "iterations": 2, **options}
    )


def test_there_are_48_and_they_are_the_published_ones():
    assert len(STARTS) * len(ITERATIONS) * len(BATCHES) == 48
    for batch in BATCHES:
        training = training_of(batch_steps=batch)
        assert (training.streams, training.steps) == (2, batch // 2)
    training = training_of(start="carry", k=50)
    assert training.problem.temperature == 0.003
    assert (training.follower.iterations, training.follower.sweeps, training.follower.noise) == (50, 5, 1.0)
    assert training.follower.carry
    assert not training_of().follower.carry
    assert training.simulator.step_limit == 200
    kernels = [
        problem.tables_at(np.zeros(105)).transition for problem in (training.problem, training.simulator.dynamics)
    ]
    assert not any(isinstance(kernel, SparseTransition) for kernel in kernels)
    assert np.abs(kernels[0] - kernels[1]).max() > 0.05  # planned in one, lived in the other


def divergences(training):
    """Mean KL(played ‖ best) over states at θ = 0, as the published code has it, of each run's draw of the noise."""
    world = training.world(training.generators())
    world.prepare(np.zeros((len(training.runs), 105)), 0)
    best, played = solve_follower(training.problem, np.zeros(105)).policy, world.played.policy
    return (played * (np.log(played + 1e-16) - np.log(best + 1e-16))).sum(axis=2).mean(axis=1)


def told_by(found, published):
    """Whether the published code's one draw is among ours, or within a factor of two of them: draws spread by 300."""
    return found.min() / 2.0 < published < found.max() * 2.0


@pytest.mark.parametrize(("k", "published"), [(1, 3.0), (2, 2.4), (5, 1.4), (10, 0.45), (20, 7e-4)])
def test_divergences_are_those_of_the_published_code(k, published):
    assert told_by(divergences(training_of(k=k, methods=["naive_pgd"], seeds=8)), published)


def test_sweeping_once_in_each_iteration_is_not_published():
    training = training_of(k=10, methods=["naive_pgd"], seeds=8)
    wrong = replace(training, follower=replace(training.follower, sweeps=1))
    assert not told_by(divergences(wrong), 0.45)


def test_cells_are_resumed_and_carrying_is_not_resetting(tmp_path):
    grid = Grid(axes=[("start", list(STARTS)), ("k", [1]), ("batch_steps", [100])])
    configuration = {"methods": ["naive_pgd"], "seeds": 1, "iterations": 12, "points": 4}
    sweep = Sweep(function=suboptimal_cell, grid=grid, folder=tmp_path, configuration=configuration)
    report = run_sweep(sweep)
    again = run_sweep(sweep)
    assert (report.run, again.run, again.found) == (2, 0, 2)
    assert report.rows == again.rows
    last = {row["start"]: row["follower_error"] for row in report.rows if row["iteration"] == 11}
    assert last["carry"] < 0.5 * last["reset"]
