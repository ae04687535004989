"""A scenario: a problem at a parameter, with a stored truth and where that truth comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelrl.reference import PARTS, ConfigurableMDP
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import Horizon, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, refusal
from bilevelrl.reference.problem import Part
from bilevelrl.tasks.scenarios.exports import gymnasium_environment, write_npz

if TYPE_CHECKING:
    import gymnasium

__all__ = ["SCENARIO_TAGS", "Provenance", "Scenario", "Truth"]

SCENARIO_TAGS: Mapping[str, str] = {
    "textbook": "the stored truth is a closed form, derived by hand in the docstring",
    "random": "random tables of a stated structure; the truth is stored with the routes that agree on it",
    "ends": "every path ends by itself within the horizon, but for a probability below rounding",
    "revisits": "paths come back to states, and to pairs of state and action",
    "goes_on": "paths go on beyond any horizon",
    "isolating": "θ enters one table only",
    "initial": "θ enters the law of the first state",
    "direct": "θ enters the leader's reward",
    "transition": "θ enters the transitions",
    "response": "the follower's response to θ matters",
    "regulariser": "θ enters the leader's regulariser",
    "one_state": "a single state",
    "one_action": "a single action: no response is possible",
    "one_parameter": "a single parameter",
    "cold": "a follower whose policy is nearly greedy",
    "hot": "a follower whose policy is nearly uniform",
    "slow": "information travels slowly through the chain",
    "periodic": "states are visited in turn",
    "absorbing": "a state that is never left, and pays an entropy bonus for ever",
    "sparse": "few successors per state and action",
    "unreachable": "states that no path visits",
    "unequal_discounts": "γ_L and γ_F far apart, or one of them zero",
    "equal_discounts": "γ_L = γ_F",
    "envelope": "the leader's and the follower's objective agree to first order: the response vanishes",
}
"""Every tag and what it promises."""


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A stored objective and hypergradient.

    Attributes
    ----------
    objective : float
        J(θ).
    parts : {part: (N,)}
        All of `PARTS`, also those that are zero.
    error_bound : float
        Bound on the error of every stored number.

    Examples
    --------
    >>> truth = Truth.of(objective=1.0, parts={"direct": [2.0]}, error_bound=0.0)
    >>> truth.value, truth.parts["response"]
    (array([2.]), array([0.]))
    """

    objective: float
    parts: Mapping[Part, FloatArray]
    error_bound: float

    @classmethod
    @checked
    def of(cls, *, objective: float, parts: Mapping[Part, Iterable[float]], error_bound: float) -> Truth:
        """Fill in the parts that are zero, and freeze.

        Raises
        ------
        UnknownNameError, ShapeError, InvalidInputError
            If a part does not exist, lengths differ, or a number is not finite.
        """
        for part in parts:
            if part not in PARTS:
                raise UnknownNameError("part", part, PARTS)
        given = {part: np.array(list(entries), dtype=np.float64) for part, entries in parts.items()}
        sizes = {entries.shape for entries in given.values()}
        if len(sizes) != 1:
            raise ShapeError(refusal("parts", sizes, "at least one part, all of one length N", "one entry per θ"))
        complete = {part: given.get(part, np.zeros(sizes.copy().pop())) for part in PARTS}
        for part, entries in complete.items():
            if not np.isfinite(entries).all():
                raise InvalidInputError(refusal(f"parts[{part!r}]", entries, "finite numbers", "check the formula"))
            entries.setflags(write=False)
        return cls(objective=float(objective), parts=complete, error_bound=float(error_bound))

    @property
    def value(self) -> FloatArray:
        """(N,): ∇J(θ), the sum of the parts."""
        return sum(self.parts.values(), np.zeros(len(self.parts["direct"])))


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a stored truth comes from.

    Attributes
    ----------
    source : str
        "closed form", or the command that generated it.
    routes : tuple of str
        Routes that agreed on it; empty for a closed form.
    digits : float
        Significant digits, relative to the largest part, to which the routes agreed; 16 for a closed form.
    """

    source: str
    routes: tuple[str, ...] = ()
    digits: float = 16.0


@checked
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """A problem, a leader's parameter, and the stored truth there; scenarios are equal where they are the same object.

    Attributes
    ----------
    name, summary : str
        Unique name, and one line on what is special about it.
    problem : ConfigurableMDP
        Tabular and small: every trajectory of `horizon` steps can be listed.
    theta : (N,)
        Where the truth is stored.
    truth : Truth
        Of the infinite-horizon objective.
    truncated : Truth
        Of the objective of `horizon` steps, under a follower that plans for ever; `truth` itself where paths end.
    provenance : Provenance
        Where both come from.
    tags : frozenset of str
        Of `SCENARIO_TAGS`.
    horizon : int
        Steps after which trajectories are cut when they are listed.

    Raises
    ------
    UnknownNameError
        If a tag does not exist.
    ShapeError
        If θ and the truth have different lengths.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> bandit = scenario("bandit")
    >>> bandit.problem.temperature, bandit.target_horizon, bool(bandit.truth.value[0] > 0.0)
    (0.5, None, True)
    """

    name: str
    summary: str
    problem: ConfigurableMDP
    theta: FloatArray
    truth: Truth
    truncated: Truth
    provenance: Provenance
    tags: frozenset[str]
    horizon: int

    def __post_init__(self) -> None:
        for tag in self.tags:
            if tag not in SCENARIO_TAGS:
                raise UnknownNameError("tag", tag, SCENARIO_TAGS)
        for truth in (self.truth, self.truncated):
            if truth.value.shape != (self.theta.size,):
                raise ShapeError(
                    refusal("truth.value.shape", truth.value.shape, f"{(self.theta.size,)}", "one per entry of theta")
                )
        self.theta.setflags(write=False)

    @property
    def ends(self) -> bool:
        """Whether every path ends by itself within the horizon."""
        return "ends" in self.tags

    @property
    def target_horizon(self) -> int | None:
        """Horizon of the objective that trajectories of `horizon` steps can tell: None where paths end."""
        return None if self.ends else self.horizon

    @property
    def target_truth(self) -> Truth:
        """The truth that trajectories of `horizon` steps are held against."""
        return self.truth if self.ends else self.truncated

    @checked
    def export_npz(self, path: str | Path) -> Path:
        """Write tables, Jacobians, the follower's solution and the truth to a .npz file; see `scenario_arrays`."""
        return write_npz(self, path)

    @checked
    def as_gymnasium(self, *, horizon: Horizon = None) -> gymnasium.Env[Any, Any]:
        """Return the follower's decision process as a Gymnasium environment; see `gymnasium_environment`."""
        return gymnasium_environment(self, horizon=horizon)
