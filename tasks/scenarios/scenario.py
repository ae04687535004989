"""A scenario: a problem of any kind at a parameter, what its streams show, and the truth, stored or computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from bilevelrl.reference import Hypergradient, Problem, hypergradient
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.contexts import Mixture, reduce_contexts
from bilevelrl.reference.doors import Count, Horizon, Steps, checked, checked_record, like
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, refusal
from bilevelrl.reference.problem import GAME_PARTS, INFINITE_HORIZON, PARTS, Objective, Part
from bilevelrl.reference.seen import seen_by_estimators
from bilevelrl.tasks.exporting import as_gymnasium, write_npz
from bilevelrl.tasks.scenarios.structure import choose_horizon, path_tags

if TYPE_CHECKING:
    import gymnasium

__all__ = ["SCENARIO_TAGS", "Provenance", "Scenario", "Truth"]

SCENARIO_TAGS: Mapping[str, str] = {
    "pairs": "few enough paths to list every pair of them",
    "integrable": "few enough normals that the mean is a quadrature",
    "large": "more paths than can be listed",
    "textbook": "the stored truth is a closed form, derived by hand in the docstring",
    "random": "random tables of a stated structure; the truth is stored with the routes that agree on it",
    "ends": "every path ends by itself within the horizon, but for a probability below rounding",
    "revisits": "paths come back to states, and to pairs of state and action",
    "cut": "some streams are cut at the horizon, and what that takes away is known; in tables others end before",
    "several_episodes": "episodes follow each other in a stream",
    "long": "paths of more than ten steps; in linear-quadratic problems of as many as quadrature can take",
    "large_rewards": "the leader's rewards and benefits go beyond 3",
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


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """An objective and its hypergradient.

    Attributes
    ----------
    objective : float
        J(θ).
    parts : {part: (N,)}
        All of the kind's parts, also those that are zero.
    error_bound : float
        Bound on the error of every number.

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
        names = GAME_PARTS if "policy" in parts else PARTS
        for part in parts:
            if part not in names:
                raise UnknownNameError("part", part, names)
        given = {part: np.array(list(entries), dtype=np.float64) for part, entries in parts.items()}
        sizes = {entries.shape for entries in given.values()}
        if len(sizes) != 1:
            raise ShapeError(refusal("parts", sizes, "at least one part, all of one length N", "one entry per θ"))
        complete = {part: given.get(part, np.zeros(sizes.copy().pop())) for part in names}
        for part, entries in complete.items():
            if not np.isfinite(entries).all():
                raise InvalidInputError(refusal(f"parts[{part!r}]", entries, "finite numbers", "check the formula"))
            entries.setflags(write=False)
        return cls(objective=float(objective), parts=complete, error_bound=float(error_bound))

    @property
    def value(self) -> FloatArray:
        """(N,): ∇J(θ), the sum of the parts."""
        return sum(self.parts.values(), np.zeros(len(next(iter(self.parts.values())))))


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
    """A problem at θ and the truth there; scenarios are equal where they are the same object.

    Attributes
    ----------
    problem : Problem
        Of any kind.
    theta : (N,)
        Where the truth is asked for; a copy of its own.
    horizon : int
        Steps of an episode, after which trajectories are cut.
    episodes : int
        That follow each other in a stream, each from the initial law.
    tags : frozenset of str
        Of `SCENARIO_TAGS`.
    objective : Objective or None
        The objective that streams are held against; None: the infinite horizon where paths end, else `horizon` steps.
    truths : {Objective: Truth}
        Those that are stored; others are computed by `hypergradient` when they are asked for, and kept.
    provenance : Provenance
        Where stored truths come from.
    truth_of_problem : Problem or None
        Whose hypergradient is the truth, and whose follower plays; None: those of `problem`, which samples are drawn
        from.
    name, summary, title : str
        Unique name (default: the problem's), one line on what is special about it, and what tables call it (default:
        the name).

    Raises
    ------
    UnknownNameError
        If a tag does not exist.
    ShapeError
        If θ does not fit the problem, or a truth θ.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario, toy_game_theta, toy_markov_game
    >>> bandit = scenario("bandit")
    >>> bandit.problem.temperature, bandit.target, bool(bandit.truth.value[0] > 0.0)
    (0.5, Objective(horizon=None, discounted=True), True)

    Any problem; its truth is computed:

    >>> game = Scenario(problem=toy_markov_game(), theta=toy_game_theta(0.5), horizon=4)
    >>> game.target.horizon, sorted(game.target_truth.parts)
    (4, ['policy', 'regulariser', 'response'])
    """

    problem: Annotated[Any, like(Problem)]
    theta: FloatArray
    horizon: Steps
    tags: frozenset[str] = frozenset()
    episodes: Count = 1
    objective: Objective | None = None
    truths: Mapping[Objective, Truth] = field(default_factory=dict)
    provenance: Provenance = Provenance(source="computed by `hypergradient`")
    truth_of_problem: Annotated[Any, like(Problem | None)] = None
    name: str = ""
    summary: str = ""
    title: str = ""
    _solved: dict[Objective, Hypergradient] = field(default_factory=dict, init=False, repr=False)
    _computed: dict[Objective, Truth] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for tag in self.tags:
            if tag not in SCENARIO_TAGS:
                raise UnknownNameError("tag", tag, SCENARIO_TAGS)
        theta = self.problem.check_theta(self.theta).copy()
        theta.setflags(write=False)
        name = self.name or str(getattr(self.problem, "name", type(self.problem).__name__))
        for attribute, value in (("theta", theta), ("name", name), ("title", self.title or name)):
            object.__setattr__(self, attribute, value)
        for truth in self.truths.values():
            if truth.value.shape != (theta.size,):
                raise ShapeError(
                    refusal("truth.value.shape", truth.value.shape, f"{(theta.size,)}", "one per entry of theta")
                )

    @classmethod
    @checked
    def of(
        cls, problem: Annotated[Any, like(Problem)], theta: Any = None, *, horizon: Horizon = None, name: str = ""
    ) -> Scenario:
        """Return the scenario of a problem of any kind; all else is computed: truth, tags, how far its streams go.

        A mixture is taken as the one MDP of `reduce_contexts`, whose episodes draw a context each.

        Parameters
        ----------
        problem, theta
            The problem and the leader's parameter; default: zeros, where the problem says of which shape.
        horizon
            Steps of a stream; None: to the end of all paths, else as many as can be listed, or sampled.
        name
            Default: the problem's.

        Raises
        ------
        InvalidInputError
            If θ is left out and the problem does not say of which shape it is.

        Examples
        --------
        >>> from bilevelrl.tasks import layered_mdp, random_mdp
        >>> [(on.horizon, on.ends) for on in map(Scenario.of, (layered_mdp(), random_mdp()))]
        [(3, True), (4, False)]
        """
        if isinstance(problem, Mixture):
            name, problem = name or problem.name, reduce_contexts(problem)
        if theta is None:
            if problem.theta_shape is None:
                raise InvalidInputError(refusal("theta", None, "where the truth is asked for", "pass theta=..."))
            theta = np.zeros(problem.theta_shape)
        theta = problem.check_theta(theta)
        truth = None
        if seen_by_estimators.serves(problem):
            seen = seen_by_estimators(problem.at(theta))
            problem, truth = seen.samples, None if seen.truth is seen.samples else seen.truth
        steps = choose_horizon(problem, theta) if horizon is None else horizon
        return cls(
            problem=problem,
            truth_of_problem=truth,
            theta=theta,
            horizon=steps,
            name=name,
            tags=path_tags(problem, theta, steps),
            objective=INFINITE_HORIZON,
        )

    @property
    def computed(self) -> tuple[Objective, ...]:
        """Objectives whose truth was asked for and computed so far."""
        return tuple(self._computed)

    @property
    def ends(self) -> bool:
        """Whether every path ends by itself within the horizon."""
        return "ends" in self.tags

    @property
    def target(self) -> Objective:
        """The objective that trajectories of `horizon` steps can tell."""
        if self.objective is not None:
            return self.objective
        return INFINITE_HORIZON if self.ends else Objective(horizon=self.horizon)

    @checked
    def solved(self, objective: Objective) -> Hypergradient:
        """Return the hypergradient of an objective with its follower, computed once."""
        if objective not in self._solved:
            horizon, discounted = objective.horizon, objective.discounted
            whose = self.problem if self.truth_of_problem is None else self.truth_of_problem
            self._solved[objective] = hypergradient(whose, self.theta, horizon=horizon, discounted=discounted)
        return self._solved[objective]

    @checked
    def truth_of(self, objective: Objective) -> Truth:
        """Return the truth of an objective: the stored one where there is one, else computed once."""
        steps = objective.horizon
        if objective not in self.truths and self.ends and objective.discounted and steps and steps >= self.horizon:
            objective = INFINITE_HORIZON
        if objective in self.truths:
            return self.truths[objective]
        if objective not in self._computed:
            found = self.solved(objective)
            truth = Truth(objective=found.objective, parts=dict(found.parts), error_bound=found.error_bound)
            self._computed[objective] = truth
        return self._computed[objective]

    @property
    def truth(self) -> Truth:
        """The truth of the infinite horizon."""
        return self.truth_of(INFINITE_HORIZON)

    @property
    def truncated(self) -> Truth:
        """The truth of `horizon` steps, under a follower that plans for ever; `truth` itself where paths end."""
        return self.truth_of(Objective(horizon=self.horizon))

    @property
    def target_truth(self) -> Truth:
        """The truth that trajectories of `horizon` steps are held against."""
        return self.truth_of(self.target)

    @checked
    def export_npz(self, path: str | Path) -> Path:
        """Write tables, Jacobians, the follower's solution and the truth to a .npz file; see `scenario_arrays`."""
        return write_npz(self, path)

    @checked
    def as_gymnasium(self, *, horizon: Horizon = None) -> gymnasium.Env[Any, Any]:
        """Return the follower's decision process as a Gymnasium environment, cut after `horizon` or its own steps."""
        return as_gymnasium(self.problem, self.theta, horizon=self.horizon if horizon is None else horizon)
