"""What an estimator is: a declaration of its draw, its target and its expectation, and weights on derivatives.

Every sample-based hypergradient of this package is linear in the derivatives of the visited rewards and
log-probabilities,

    estimate = Σ over contributions Σ_t w[m, t] ∇term(state_t, action_t, state_tp1; θ),                              (1)

with scalar weights that depend on the trajectories, the follower's solution and a critic. So an estimator only
computes weights. The base class turns them into a mean by one vector-Jacobian product per part, whose cost does not
depend on the number of parameters, or into one row per draw.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.sample import SampledProblem, sample_trajectories
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, Problem
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import as_is, checked, checked_record, like
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.problem import Objective, Part, Term, TransitionBatch
from bilevelrl.reference.seen import seen_by_estimators

__all__ = [
    "Claim",
    "Context",
    "Contribution",
    "Draw",
    "Estimate",
    "Estimator",
    "EstimatorEntry",
    "FollowerGradientCritic",
    "LeaderCritic",
    "SharedProblem",
]


class Draw(enum.Enum):
    """What one independent sample of an estimator consists of."""

    TRAJECTORY = "one trajectory: the estimate of a batch is the mean over its streams"
    BATCH = "a whole batch: averages and ratios inside the batch, one estimate per batch"


class Claim(enum.Enum):
    """What an estimator says of its expectation."""

    UNBIASED = "its expectation is its target"
    DECLARED = "biased by design: its expectation is what `expectation` computes"
    MEASURED = "biased, and no closed form is claimed: the bias is only measured"


class LeaderCritic(Protocol):
    """Leader's values as an estimator may use them, tabular or parametric."""

    def action_value(self, state: Any, action: Any, *, steps_to_go: Any = None) -> FloatArray:
        """Q_L(s, a); `steps_to_go` selects Q^(h) for critics of truncated episodes."""
        ...

    def value(self, state: Any, *, steps_to_go: Any = None) -> FloatArray:
        """V_L(s) under the follower's policy; zero at a terminal state."""
        ...


class FollowerGradientCritic(Protocol):
    """∇V_F as estimators may use it."""

    def value(self, state: Any) -> FloatArray:
        """∇V_F at states (...) or (..., n): (..., N)."""
        ...


class GradientBaseline(Protocol):
    """What may be subtracted from a gradient of the follower's values: a table over states."""

    @property
    def table(self) -> FloatArray:
        """b(s), (S, N)."""
        ...


class SharedProblem(Protocol):
    """What every estimator asks of a problem; most ask for more, see `Problem`."""

    discount_leader: float
    discount_follower: float
    temperature: float


def _check_response(name: str, value: Any) -> Any:
    """Return a follower's solution: estimators ask for its policy, or its gain, or its draws; plain data has none."""
    plain = isinstance(value, type) or type(value).__module__.partition(".")[0] in ("builtins", "numpy")
    if plain and value is not None:
        raise InvalidInputError(refusal(name, value, "a follower's solution", "use solve_follower"))
    return value


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an estimator may know beside the trajectories.

    Attributes
    ----------
    problem, theta
        The problem and the leader's parameter.
    follower
        The follower's solution (V_F, Q_F, π) that drew the actions.
    critic
        Leader's critic, or None for estimators that bring their own.
    follower_gradient
        Critic of the gradient of the follower's values, for estimators that read one; None: the exact one.
    baseline
        State-dependent baseline of that gradient, for estimators that read one.
    simulator
        Where fresh samples come from, for estimators that reset; None: the problem's own model.
    rng
        Generator for estimators with randomness of their own; None where there is none.
    """

    problem: Annotated[Any, like(SharedProblem)]
    theta: FloatArray
    follower: Annotated[Any, _check_response]
    critic: LeaderCritic | None = None
    follower_gradient: Annotated[Any, like(FollowerGradientCritic | None)] = None
    baseline: Annotated[Any, like(GradientBaseline | None)] = None
    simulator: Annotated[Any, like(TabularSimulator | LQRSimulator | None)] = None
    rng: Generator | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "theta", np.asarray(self.theta))  # a list of numbers is a θ too


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """Weights on the derivatives of visited transitions, for one part of the hypergradient.

    Attributes
    ----------
    part
        The part it belongs to.
    batch
        The transitions: the trajectories themselves or others of the same number of streams.
    weights
        {term: (streams, steps)}.
    rows : (streams, N) or None
        Added as they are: what a critic of gradients contributes.
    """

    part: Part
    batch: TransitionBatch
    weights: Mapping[Term, FloatArray]
    rows: FloatArray | None = None

    @checked
    def total(self, context: Context) -> FloatArray:
        """Return the sum over streams, (N,)."""
        found = np.zeros(context.theta.size)
        if self.weights:
            found = found + context.problem.pullback(context.theta, self.batch, self.weights)  # (1)
        return found if self.rows is None else found + self.rows.sum(axis=0)

    @checked
    def per_stream(self, context: Context) -> FloatArray:
        """Return one row per stream, (streams, N)."""
        streams = np.shape(self.batch.state_t)[0]
        found = np.zeros((streams, context.theta.size))
        if self.weights:
            found = found + context.problem.pullback(context.theta, self.batch, self.weights, per_stream=True)  # (1)
        return found if self.rows is None else found + self.rows


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One estimate of the hypergradient with its parts and its cost.

    Attributes
    ----------
    mean : (N,)
        The estimate.
    parts : {name: (N,)}
        Its parts; they sum to the mean.
    per_draw : (draws, N) or None
        One row per independent draw, where it was asked for.
    cost : {name: int}
        environment_steps, oracle_steps (steps after resets), follower_solves.
    """

    mean: FloatArray
    parts: Mapping[Part, FloatArray]
    per_draw: FloatArray | None = None
    cost: Mapping[str, int] = field(default_factory=dict)


_KINDS = (ConfigurableMDP, MarkovGame, ConfigurableLQR, LQRGame)


class Estimator(ABC):
    """Base class of the package's estimators. Calling one gives one row per draw: (draws, N).

    Subclasses define `name`, `draw`, `claim`, `target` and `contributions`; those that claim `Claim.DECLARED` or
    `Claim.UNBIASED` also define `expectation`.
    """

    name: str
    draw: Draw
    claim: Claim
    target: Objective
    kinds: ClassVar[tuple[type, ...]] = (ConfigurableMDP, MarkovGame)  # of problems that it serves

    @checked
    def check_problem(self, context: Context) -> None:
        """Refuse a kind of problem that the estimator does not serve.

        Raises
        ------
        UnsupportedError
            Naming those that it does.
        """
        if seen_by_estimators.serves(context.problem):
            found = type(context.problem).__name__
            remedy = "tell it of `seen_by_estimators(problem.at(theta)).samples`, as `verify(problem=...)` does"
            raise UnsupportedError(f"{self.name}: {refusal('problem', found, 'what estimators see of it', remedy)}")
        if isinstance(context.problem, _KINDS) and not isinstance(context.problem, self.kinds):
            served = " or ".join(f"a {kind.__name__}" for kind in self.kinds)
            found = type(context.problem).__name__
            raise UnsupportedError(f"{self.name}: problem of type {found}: expected {served}; BCHG takes all kinds")

    @checked
    def serves_weights(self, context: Context) -> bool:
        """Return whether trajectories may carry weights of their own."""
        return False

    @property
    def rests_on_rare_draws(self) -> bool:
        """Whether most draws say nothing of a part, so that a sample can miss it without a sign in its spread."""
        return False

    @checked
    def values_count(self, context: Context) -> float:
        """Return how many times values enter what is multiplied with scores: their rounding enters as often."""
        return 1.0

    @abstractmethod
    def contributions(self, trajectories: Trajectories, context: Context) -> Sequence[Contribution]:
        """Return the weights; rows are streams. For `Draw.BATCH` the sum over streams is the estimate."""

    @checked
    def expectation(self, context: Context, *, horizon: int) -> Mapping[Part, FloatArray]:
        """Return the exact expectation, part by part, for streams of `horizon` steps from the initial law.

        Raises
        ------
        EstimatorError
            If the estimator declares none.
        """
        raise EstimatorError(f"{self.name}: declares no closed-form expectation; its bias can only be measured")

    @checked
    def sample(
        self,
        problem: Annotated[SampledProblem, as_is],
        theta: Any,
        follower: Any,
        *,
        streams: int,
        steps: int,
        rng: Generator,
        simulator: TabularSimulator | LQRSimulator | None = None,
    ) -> Trajectories:
        """Draw a batch of the kind that the claim is about: `sample_trajectories`, unless it needs another."""
        return sample_trajectories(problem, theta, follower, streams=streams, steps=steps, rng=rng, simulator=simulator)

    @checked
    def estimate(self, trajectories: Trajectories, context: Context, *, per_draw: bool = False) -> Estimate:
        """Return the estimate of a batch: its mean by one vector-Jacobian product per contribution.

        Parameters
        ----------
        trajectories, context
            The batch, and what else may be known.
        per_draw
            Also return one row per draw, at a cost that grows with N.
        """
        self.check_problem(context)
        _check_batch(self, trajectories, context)
        draws = trajectories.streams if self.draw is Draw.TRAJECTORY else 1
        parts: dict[Part, FloatArray] = {}
        rows: FloatArray | None = None
        for item in self.contributions(trajectories, context):
            parts[item.part] = parts.get(item.part, np.zeros(context.theta.size)) + item.total(context) / draws
        regulariser = context.problem.regulariser_gradient(context.theta)
        parts["regulariser"] = regulariser
        mean = sum(parts.values(), np.zeros(context.theta.size))
        if per_draw:
            rows = self(trajectories, context) if self.draw is Draw.TRAJECTORY else mean[None, :]
        if not np.isfinite(mean).all():
            raise EstimatorError(
                f"{self.name}: the estimate is not finite; check the critic and the follower's solution"
            )
        return Estimate(mean=mean, parts=parts, per_draw=rows, cost=self.cost(trajectories, context))

    def __call__(self, trajectories: Trajectories, context: Context) -> FloatArray:
        """Return one row per draw, (draws, N)."""
        return sum(self.parts_per_draw(trajectories, context).values())  # type: ignore[return-value]

    @checked
    def parts_per_draw(self, trajectories: Trajectories, context: Context) -> dict[Part, FloatArray]:
        """Return {part: (draws, N)}."""
        self.check_problem(context)
        _check_batch(self, trajectories, context)
        per_stream = self.draw is Draw.TRAJECTORY
        draws = trajectories.streams if per_stream else 1
        parts: dict[Part, FloatArray] = {}
        for item in self.contributions(trajectories, context):
            rows = item.per_stream(context) if per_stream else item.total(context)
            parts[item.part] = parts.get(item.part, np.zeros((draws, context.theta.size))) + rows.reshape(draws, -1)
        regulariser = context.problem.regulariser_gradient(context.theta)
        parts["regulariser"] = np.repeat(regulariser[None], draws, axis=0)
        return parts

    @checked
    def cost(self, trajectories: Trajectories, context: Context) -> dict[str, int]:
        """Return what the estimate of this batch costs."""
        return {"environment_steps": int(trajectories.valid.sum()), "oracle_steps": 0}


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorEntry:
    """A named configuration of an estimator: what tables, plots and the command line list.

    Attributes
    ----------
    name, summary : str
        Unique name, and one line about it.
    level : str
        "formula" (the paper's formula on given critics) or "practical" (what experiments run).
    make : function
        Objective → estimator.
    kinds : tuple of classes
        Kinds of problem for which it is listed and verified; its class may serve more.
    """

    name: str
    summary: str
    level: Literal["formula", "practical"]
    make: Callable[[Objective], Estimator]
    kinds: tuple[type, ...] = (ConfigurableMDP,)


def _check_batch(estimator: Estimator, trajectories: Any, context: Context) -> None:
    if not isinstance(trajectories, Trajectories):
        found = type(trajectories).__name__
        raise InvalidInputError(refusal("trajectories", found, "Trajectories", "use sample_trajectories"))
    if trajectories.weight_t is not None and not estimator.serves_weights(context):
        raise EstimatorError(f"{estimator.name}: weight_t: expected None; it weighs steps by their time alone")
    context.problem.check_theta(context.theta)
    if context.follower is None:
        raise InvalidInputError(refusal("context.follower", None, "a follower's solution", "use solve_follower"))
    policy = getattr(context.follower, "policy", None)
    if isinstance(policy, np.ndarray) and policy.ndim in (2, 3) and isinstance(context.problem, Problem):
        # (S, A), or (S, L, A) where the leader acts too.
        trajectories.check_states(policy.shape[0], policy.shape[-1], policy.shape[1] if policy.ndim == 3 else None)
