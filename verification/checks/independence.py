"""Whether what an estimator draws for itself spreads as it declares: populations that are said to share nothing do not.

Estimators with random numbers of their own declare their covariance given the path, so that enumeration has the exact
covariance C of one draw. Of M draws with mean m that enumeration knows too, each

    v_n = mean_i (x_in - m_n)²,    |v_n - C_nn| <= 5 std_i (x_in - m_n)² / √M                                   (1)

but for 6e-7 of the cases. It samples, with a fixed seed, and sees what no mean shows: random numbers that are shared
and said not to be, or the other way round. The smallest difference that it sees is some 5 √(κ/M) of C, κ the squares'
own relative variance: a tenth to a third. Those that rest on rare draws are not judged: their samples look certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bilevelrl.estimators import Context, Draw, Estimator
from bilevelrl.reference import ConfigurableMDP, named_stream, solve_follower
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.tasks import Scenario, scenario
from bilevelrl.verification.checks.once import exact_critic
from bilevelrl.verification.checks.results import CheckResult, result_of
from bilevelrl.verification.enumeration.contract import OwnRandomnessError, forbidden_generator
from bilevelrl.verification.enumeration.moments import enumerate_moments

__all__ = ["DRAWS", "SCENARIO", "check_independence"]

DRAWS = 20_000
"""M."""

SCENARIO = "layered"
"""Small, its paths end, and θ enters everything."""

_ERRORS = 5.0


def check_independence(subject: Any, on: Sequence[Scenario] | None = None) -> list[CheckResult]:
    """Return (1) on small scenarios; nothing for what draws no numbers of its own or rests on rare draws.

    Examples
    --------
    >>> from bilevelrl.estimators.methods import NudgedFollowers
    >>> bool(check_independence(NudgedFollowers(pay=0.3))[0].margin < 1.0)
    True
    """
    if not isinstance(subject, Estimator) or not hasattr(subject, "conditional_moments"):
        return []
    if subject.draw is not Draw.TRAJECTORY or subject.rests_on_rare_draws or ConfigurableMDP not in subject.kinds:
        return []
    return [result for each in ([scenario(SCENARIO)] if on is None else on) for result in _judged(subject, each)]


def _judged(subject: Estimator, on: Scenario) -> list[CheckResult]:
    theta, rng = on.theta, named_stream(0, "independence", on.name)
    follower = solve_follower(on.problem, theta)
    context = Context(
        problem=on.problem, theta=theta, follower=follower, critic=exact_critic(on, subject.target), rng=rng
    )
    batch = subject.sample(on.problem, theta, follower, streams=DRAWS, steps=on.horizon, rng=rng)
    try:
        subject(batch.select(np.arange(2)), replace(context, rng=forbidden_generator()))
    except OwnRandomnessError:
        pass
    except UnsupportedError:  # of another kind of problem, or of paths that end
        return []
    else:  # what draws nothing shares nothing
        return []
    moments = enumerate_moments(subject, on.problem, theta, horizon=on.horizon, critic=context.critic)
    squares = (subject(batch, context) - moments.mean) ** 2
    error = squares.std(axis=0) / np.sqrt(DRAWS)
    off = squares.mean(axis=0) - np.diag(moments.covariance)
    size = float(np.linalg.norm(np.diag(moments.covariance)))
    return [result_of("independence", on, off, _ERRORS * error + moments.epsilon * size, size=size)]  # (1)
