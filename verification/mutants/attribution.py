"""Bias attribution: how much each cause of bias contributes, by switching causes on one at a time, exactly.

The start is an estimator without any bias: exact critic and follower, and where a trajectory is cut the exact rest.
Seven causes can be switched on separately:

1. truncation: trajectories stop at the horizon, and nothing stands for the rest;
2. double use: the leader's return of the same suffix multiplies the suffix that estimates ∇Q_F;
3. ratio averaging: ∇Q_F is averaged over the visits of a pair inside a batch;
4. critic error: the leader's critic is off;
5. follower error: the follower has not converged, when it acts and when its values are read;
6. model of ∇Q_F: one step of it, centred (SoBiRL's);
7. mismatch: the samples come from another kernel than the follower planned with.

Every mean is an exact sum over all trajectories (over all pairs of trajectories where a batch is averaged), so the
table has no sampling error. Contributions do not add up where causes interact: `remainder` is what is left of the bias
with all causes on, and `last_in` what each cause adds to all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.estimators import ExactCritic, TableCritic, TabularSimulator
from bilevelrl.reference import ConfigurableMDP, Tables, named_stream, solve_follower
from bilevelrl.reference.arrays import FloatArray, check_array, check_shape
from bilevelrl.reference.doors import Iterations, checked, checked_record
from bilevelrl.reference.errors import UnknownNameError
from bilevelrl.reference.tabular import to_dense
from bilevelrl.tasks import Scenario
from bilevelrl.tasks.scenarios import find_scenario
from bilevelrl.verification.enumeration.moments import enumerate_moments
from bilevelrl.verification.mutants.sample import SampleFormula

__all__ = ["CAUSES", "Attribution", "Measure", "attribute", "attribute_bias", "mixed_dynamics"]

Measure = Callable[[frozenset[str]], FloatArray]
"""Set of causes that are on → the estimator's exact mean, (N,)."""

CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "truncation": "trajectories stop at the horizon, and nothing stands for the rest",
        "double use": "one suffix gives both the return and ∇Q_F",
        "ratio averaging": "∇Q_F averaged over visits inside a batch of two",
        "critic error": "the leader's critic is off",
        "follower error": "the follower has not converged",
        "model of ∇Q_F": "one step of ∇Q_F, centred",
        "mismatch": "samples from another kernel than the planner's",
    }
)
"""Every cause, in the order of the table."""


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The table.

    Attributes
    ----------
    name : str
        Scenario or estimator.
    truth : (N,)
        The exact hypergradient.
    base : (N,)
        Bias with every cause off: rounding, or something that is not among the causes.
    alone : {cause: (N,)}
        What each cause adds when it alone is on.
    last_in : {cause: (N,)}
        What each cause adds when all others are on already.
    total : (N,)
        Bias with all causes on.
    expected : {cause: (N,)}
        What was declared for single causes, to be compared with `alone`.
    """

    name: str
    truth: FloatArray
    base: FloatArray
    alone: Mapping[str, FloatArray]
    last_in: Mapping[str, FloatArray]
    total: FloatArray
    expected: Mapping[str, FloatArray]

    @property
    def remainder(self) -> FloatArray:
        """(N,): the total without the base and without every cause's own contribution; interactions."""
        result: FloatArray = self.total - self.base - sum(self.alone.values(), np.zeros(self.total.size))
        return result

    @property
    def deviations(self) -> dict[str, float]:
        """{cause: largest difference between what it adds alone and what was declared for it}."""
        return {cause: float(np.abs(self.alone[cause] - value).max()) for cause, value in self.expected.items()}

    def __str__(self) -> str:
        scale = float(np.linalg.norm(self.truth)) or 1.0
        along = self.truth / scale
        rows: list[tuple[str, FloatArray, FloatArray | None]] = [("nothing (base)", self.base, None)]
        rows += [(cause, value, self.last_in.get(cause)) for cause, value in self.alone.items()]
        rows += [("interactions", self.remainder, None), ("all together", self.total, None)]
        width = max(len(name) for name, _, _ in rows)
        lines = [
            f"bias on {self.name}, in units of the norm of the truth, {scale:.4g}",
            f"{'cause':<{width}}  {'size':>9}  {'along':>9}  {'last in':>9}  declared",
        ]
        for name, value, last in rows:
            size, part = float(np.linalg.norm(value)) / scale, float(value @ along) / scale
            tail = f"{float(np.linalg.norm(last)) / scale:9.2e}" if last is not None else " " * 9
            declared = f"  off by {self.deviations[name] / scale:.0e}" if name in self.expected else ""
            lines.append(f"{name:<{width}}  {size:9.2e}  {part:+9.2e}  {tail}{declared}".rstrip())
        return "\n".join(lines)


@checked
def attribute(
    measure: Measure,
    truth: FloatArray,
    *,
    causes: Iterable[str],
    name: str = "estimator",
    expected: Mapping[str, FloatArray] | None = None,
) -> Attribution:
    """Attribute the bias of anything whose exact mean can be had with causes switched on and off.

    Parameters
    ----------
    measure
        Set of causes → mean (N,). Called with none, with each alone, with all, and with all but each.
    truth
        (N,).
    causes
        Names; any.
    name
        For the table.
    expected
        Declared contributions of single causes, (N,) each.

    Examples
    --------
    Two causes that add 1 and 2, and 5 together:

    >>> sizes = {(): 0.0, ("a",): 1.0, ("b",): 2.0, ("a", "b"): 5.0}
    >>> found = attribute(lambda on: np.array([sizes[tuple(sorted(on))]]), np.zeros(1), causes=("a", "b"))
    >>> found.alone["a"], found.last_in["a"], found.remainder
    (array([1.]), array([3.]), array([2.]))
    """
    listed = tuple(causes)

    def measured(on: frozenset[str]) -> FloatArray:
        found: FloatArray = check_array(f"measure({set(on) or '{}'})", measure(on))
        check_shape(f"measure({set(on) or '{}'})", found, truth.shape, "a mean (N,), as truth is")
        return found

    check_shape("truth", truth, (None,), "one entry per parameter")
    none, every = measured(frozenset()), measured(frozenset(listed))
    alone = {cause: measured(frozenset({cause})) - none for cause in listed}
    last_in = {cause: every - measured(frozenset(listed) - {cause}) for cause in listed}
    return Attribution(
        name=name,
        truth=truth,
        base=none - truth,
        alone=alone,
        last_in=last_in,
        total=every - truth,
        expected=dict(expected or {}),
    )


@checked
def attribute_bias(
    on: Scenario | str = "random, terminating",
    *,
    causes: Iterable[str] = tuple(CAUSES),
    horizon: int = 2,
    critic_error: float = 0.1,
    follower_sweeps: Iterations = 2,
    mixing: float = 0.16,
    expected: Mapping[str, FloatArray] | None = None,
) -> Attribution:
    """Attribute the bias of sample-based hypergradients for the infinite-horizon objective on a scenario.

    Parameters
    ----------
    on
        A scenario or its name; one whose paths go on, so that truncation is a cause.
    causes
        Names in `CAUSES`.
    horizon
        Steps of a trajectory. Batches of two are enumerated, so it must be short.
    critic_error
        Standard deviation of the critic's error in each entry, drawn once.
    follower_sweeps
        Sweeps of value iteration from zero that an unconverged follower does.
    mixing
        Share of the average over actions in the kernel that makes mismatched samples.
    expected
        Declared contributions of single causes.

    Raises
    ------
    UnknownNameError
        If a cause does not exist.
    TooLargeError
        If there are too many pairs of trajectories.

    Examples
    --------
    >>> found = attribute_bias(causes=["truncation", "critic error"])
    >>> bool(np.abs(found.base).max() < 1e-12), bool(np.abs(found.alone["truncation"]).max() > 1e-3)
    (True, True)
    """
    entry = find_scenario("on", on) if isinstance(on, str) else on
    listed = tuple(causes)
    for cause in listed:
        if cause not in CAUSES:
            raise UnknownNameError("causes", cause, CAUSES)
    problem, theta = entry.problem, entry.theta
    best = solve_follower(problem, theta)
    exact = ExactCritic.solve(problem, theta, best.policy)
    rng = named_stream(20260314, "critic error", entry.name)
    off = exact.action_values[0] + critic_error * rng.standard_normal(best.policy.shape)
    wrong = TableCritic(action_values=off, policy=best.policy)
    hasty = solve_follower(problem, theta, method="value_iteration", stop_after=follower_sweeps)
    elsewhere = TabularSimulator(dynamics=mixed_dynamics(problem, mixing))

    def mean(switched: frozenset[str]) -> FloatArray:
        switches: dict[str, Any] = {
            "truncation": "termination" if "truncation" in switched else "tail",
            "benefit": "same path" if "double use" in switched else "advantage",
            "batch": "pairs" if "ratio averaging" in switched else "none",
            "suffix": "one step" if "model of ∇Q_F" in switched else "rest",
        }
        return enumerate_moments(
            SampleFormula(**switches),
            problem,
            theta,
            horizon=horizon,
            batch=2 if "ratio averaging" in switched else None,
            follower=hasty if "follower error" in switched else best,
            critic=wrong if "critic error" in switched else exact,
            simulator=elsewhere if "mismatch" in switched else None,
        ).mean

    return attribute(mean, entry.truth.value, causes=listed, name=f"{entry.name}, {horizon} steps", expected=expected)


def mixed_dynamics(problem: ConfigurableMDP, share: float) -> ConfigurableMDP:
    """Return the problem with a share of every action's kernel replaced by the average over those that can be taken.

    Examples
    --------
    >>> from bilevelrl.tasks import random_mdp
    >>> mixed = mixed_dynamics(random_mdp(), 1.0).tables_at(np.zeros(3)).transition
    >>> bool(np.allclose(mixed[:, 0], mixed[:, 1]))
    True
    """

    def tables(x: Any) -> Tables:
        old = problem.tables(x)
        kernel = to_dense(old.transition)
        playable = np.ones(kernel.shape[:2]) if old.action_mask is None else np.array(old.action_mask, dtype=np.float64)
        each = playable / playable.sum(axis=1, keepdims=True)
        mean = sum(each[:, action, None] * kernel[:, action] for action in range(kernel.shape[1]))
        mixed = (1.0 - share) * kernel + share * mean[:, None, :]
        return Tables(
            transition=mixed,
            reward_follower=old.reward_follower,
            reward_leader=old.reward_leader,
            initial=old.initial,
            regulariser=old.regulariser,
            action_mask=old.action_mask,
        )

    return ConfigurableMDP(
        tables=tables,
        discount_leader=problem.discount_leader,
        discount_follower=problem.discount_follower,
        temperature=problem.temperature,
        theta_shape=problem.theta_shape,
        name=f"{problem.name}, mixed",
    )
