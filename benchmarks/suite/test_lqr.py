"""Exact hypergradients of the linear-quadratic tasks, and one outer iteration of BC-HG with least squares."""

from typing import Any

import numpy as np
import pytest

from bilevelrl.estimators import BCHG, Context, sample_trajectories
from bilevelrl.estimators.critics import fit_lstd_critic
from bilevelrl.estimators.sampling import LQRSimulator
from bilevelrl.reference import hypergradient, solve_follower
from bilevelrl.tasks import building_thermal_control, lqr_game

ROUTES = ("implicit", "closed_form", "unrolled")


@pytest.mark.benchmark(group="building hypergradient")
@pytest.mark.parametrize("route", ROUTES)
def test_building(benchmark: Any, route: str) -> None:
    problem, theta = building_thermal_control(), np.zeros(8)
    found = benchmark(lambda: hypergradient(problem, theta, route=route))
    exact = hypergradient(problem, theta).value
    benchmark.extra_info.update(distance_to_implicit=float(np.abs(found.value - exact).max()))


@pytest.mark.benchmark(group="LQR game hypergradient, 100 steps")
@pytest.mark.parametrize("route", ROUTES)
def test_game(benchmark: Any, route: str) -> None:
    problem, theta = lqr_game(), np.array([-9.0, -9.5])
    found = benchmark(lambda: hypergradient(problem, theta, route=route, horizon=100))
    exact = hypergradient(problem, theta, horizon=100).value
    benchmark.extra_info.update(distance_to_implicit=float(np.abs(found.value - exact).max()))


@pytest.mark.benchmark(group="building outer iteration")
def test_outer_iteration(benchmark: Any) -> None:
    """Solve the follower, sample 10,000 transitions, fit the critic by least squares, estimate."""
    problem, theta = building_thermal_control(), np.zeros(8)
    simulator, rng = LQRSimulator(), np.random.default_rng(0)
    estimator = BCHG(critic="context", scores="td_error")

    def iteration() -> Any:
        follower = solve_follower(problem, theta)
        batch = sample_trajectories(problem, theta, follower, streams=100, steps=100, rng=rng, simulator=simulator)
        context = Context(problem=problem, theta=theta, follower=follower)
        critic = fit_lstd_critic(batch, context)
        return estimator.estimate(batch, Context(problem=problem, theta=theta, follower=follower, critic=critic))

    found = benchmark(iteration)
    benchmark.extra_info.update(transitions=10_000, estimate=np.round(found.mean, 3).tolist())
