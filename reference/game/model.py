"""Two-player Markov games: the leader acts in every state with f_θ(l|s), and the follower responds.

The follower maximises `E Σ_t γ_F^t (r_F + β H)`, the leader `ρ(θ) + E Σ_t γ_L^t r_L` under the follower's best response
(paper, Section 3.2). θ enters through the leader's policy (and ρ) only. Tables are indexed
`[state_t, leader_action_t, action_t, state_tp1]`, with `action_t` the follower's.

Two information structures
--------------------------
*The follower sees the leader's action before it moves*, as in the paper: it plays g(a|s, l), and its continuation is an
expectation of soft values, `Σ_l f(l|s') V_F(s', l)`.

*It does not*: it plays g(a|s), and its value is the soft value of an expectation, `β log Σ_a exp(Σ_l f Q_F(s,l,a)/β)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.sparse

from bilevelrl.reference.arrays import (
    FloatArray,
    Traced,
    check_indices,
    check_shape,
    is_frozen,
)
from bilevelrl.reference.derivatives.array_values import called, differentiable_array
from bilevelrl.reference.derivatives.cache import Cache
from bilevelrl.reference.derivatives.differentiated import Differentiated
from bilevelrl.reference.derivatives.entries import Derivatives
from bilevelrl.reference.derivatives.numerical import linearised
from bilevelrl.reference.doors import Discount, Temperature, checked
from bilevelrl.reference.errors import (
    InvalidInputError,
    ShapeError,
    StochasticityError,
    SupportError,
    UnknownNameError,
    refusal,
)
from bilevelrl.reference.game.decisions import DecisionPoints
from bilevelrl.reference.game.leader_policies import check_leader_policy
from bilevelrl.reference.problem import TERMS, At, Term, TransitionBatch
from bilevelrl.reference.tabular.tables import UNPLAYABLE, playable_actions
from bilevelrl.reference.tabular.transitions import ROW_SUM_TOLERANCE, check_rows

__all__ = ["GameAt", "MarkovGame"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class MarkovGame(Differentiated):
    """A tabular two-player Markov game with a parameterised leader and a softly optimal follower.

    Parameters
    ----------
    transition : (S, L, A, S)
        P(s'|s, l, a). A row whose sum is within 1e-12 of one means the row divided by its exact sum; any other row may
        sum to less than one, is taken as the doubles that it is, and the rest is termination.
    reward_follower, reward_leader : (S, L, A)
        Each player maximises its discounted sum.
    initial : (S,)
        Law of the first state; sums to one within 1e-12 and means itself divided by its sum.
    policy
        θ → f_θ(l|s), (S, L), written with `autograd.numpy`; see `TabularSoftmaxPolicy`. Rows are laws as `initial` is.
    follower_sees_leader_action
        The information structure: True for g(a|s, l), False for g(a|s).
    discount_leader, discount_follower
        γ_L and γ_F, each in [0, 1).
    temperature
        β > 0, the follower's entropy weight.
    regulariser
        Optional θ → ρ(θ), added to the leader's objective.
    action_mask : (S, A), or (S, L, A) of a follower that sees the leader's action
        Optional: which actions the follower can take where, as in `Tables`.
    theta_shape
        Shape of θ; None accepts any one-dimensional θ.
    verify_derivatives
        Whether traced derivatives are held against differences, as in `ConfigurableMDP`.
    name
        Used in messages and tables.

    Raises
    ------
    ShapeError
        If the tables do not fit together.
    StochasticityError, InvalidInputError
        If a probability, a reward, a discount or the temperature is out of range.

    Examples
    --------
    A leader who pays for its own action 1, and a follower who likes to copy it:

    >>> from bilevelrl.reference import MarkovGame, TabularSoftmaxPolicy, leader_objective, solve_follower
    >>> game = MarkovGame(
    ...     transition=np.ones((1, 2, 2, 1)), reward_follower=np.eye(2)[None], reward_leader=np.eye(2)[None],
    ...     initial=np.ones(1), policy=TabularSoftmaxPolicy(states=1, leader_actions=2),
    ...     follower_sees_leader_action=True, discount_leader=0.5, discount_follower=0.5, temperature=1e-3)
    >>> round(leader_objective(game, np.zeros(1)), 12)
    2.0
    """

    transition: FloatArray
    reward_follower: FloatArray
    reward_leader: FloatArray
    initial: FloatArray
    policy: Callable[[Traced], Traced]
    follower_sees_leader_action: bool
    discount_leader: Discount
    discount_follower: Discount
    temperature: Temperature
    regulariser: Callable[[Traced], Traced] | None = None
    action_mask: Traced = None
    theta_shape: tuple[int, ...] | None = None
    verify_derivatives: bool = True
    name: str = "Markov game"
    _cache: Cache = field(default_factory=Cache, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("transition", "reward_follower", "reward_leader", "initial"):
            object.__setattr__(self, name, _frozen_table(getattr(self, name)))
        shape = self.transition.shape
        if len(shape) != 4 or shape[0] != shape[3] or min(shape) < 1:
            raise ShapeError(
                refusal("transition.shape", shape, "(S, L, A, S) with S, L, A >= 1", "index it [s, l, a, s']")
            )
        for name, wanted in (("reward_follower", shape[:3]), ("reward_leader", shape[:3]), ("initial", shape[:1])):
            found = getattr(self, name).shape
            if found != wanted:
                raise ShapeError(
                    refusal(f"{name}.shape", found, f"{wanted} to fit transition {shape}", "count the players' actions")
                )
        if self.action_mask is not None:
            self._store_mask(shape[:3])
        check_rows("transition", self.transition, "normalise each row over state_tp1")
        check_rows("initial", self.initial, "normalise the initial law")
        if abs(float(self.initial.sum()) - 1.0) > ROW_SUM_TOLERANCE:
            raise StochasticityError(
                refusal("sum of initial", float(self.initial.sum()), "1", "normalise the initial law")
            )

    def _store_mask(self, shape: tuple[int, ...]) -> None:
        """Take away what the follower cannot do; one that does not see the leader's action cannot do it whatever l."""
        try:
            axes = np.ndim(self.action_mask)
        except ValueError:  # ragged lists, which are refused by name below
            axes = 0
        seen = self.follower_sees_leader_action and axes == 3
        playable = playable_actions(self.action_mask, shape if seen else (shape[0], shape[2]))
        everywhere = playable if seen else playable[:, None]
        object.__setattr__(self, "action_mask", playable)
        object.__setattr__(
            self, "reward_follower", _frozen_table(np.where(everywhere, self.reward_follower, UNPLAYABLE))
        )

    @property
    def states(self) -> int:
        """Number of states S."""
        return int(self.transition.shape[0])

    @property
    def leader_actions(self) -> int:
        """Number of the leader's actions L."""
        return int(self.transition.shape[1])

    @property
    def actions(self) -> int:
        """Number of the follower's actions A."""
        return int(self.transition.shape[2])

    def states_at(self, theta: object) -> int:
        """Return the number of states S."""
        return self.states

    def at(self, theta: object) -> GameAt:
        """Evaluate the leader's policy and ρ once at a real θ, and check them.

        Raises
        ------
        ShapeError
            If the policy's table has another shape than (S, L).
        StochasticityError
            If a probability is negative or not finite, or a row does not sum to one.
        InvalidInputError
            If ρ is not a finite number.
        """
        theta = np.array(self.check_theta(theta))
        table, added = self._written(theta), self.regulariser_of(theta)
        meant = self._meant(table)
        self.derivatives.refresh(theta, {"policy": meant, "regulariser": added})
        check_leader_policy(table, (self.states, self.leader_actions))
        policy = np.asarray(meant, dtype=np.float64)
        return GameAt(problem=self, theta=theta, policy=policy, regulariser=_checked_number(added))

    def policy_at(self, theta: object) -> FloatArray:
        """Return f_θ(l|s), (S, L), at a real θ, checked; raises as `at`."""
        return self.at(theta).policy

    def evaluate(self, theta: object) -> Traced:
        """Evaluate the policy at any θ, traced and complex ones too; its values are not checked.

        Raises
        ------
        InvalidInputError
            If the function raises; with θ.
        """
        return self._meant(self._written(theta))

    def _written(self, theta: object) -> Traced:
        return differentiable_array("policy(theta)", called("policy", self.policy, theta))

    def _meant(self, table: Traced) -> Traced:
        """Return the table, or what rows of one entry mean at every θ: one, however their formula rounds."""
        shape = (self.states, self.leader_actions)
        return np.ones(shape) if self.leader_actions == 1 and np.shape(table) == shape else table

    def regulariser_of(self, theta: object) -> Traced:
        """Evaluate ρ at any θ, traced and complex ones too; 0 where there is none."""
        if self.regulariser is None:
            return 0.0
        value = differentiable_array("regulariser(theta)", called("regulariser", self.regulariser, theta))
        if np.shape(value) != ():
            raise ShapeError(refusal("regulariser(theta).shape", np.shape(value), "()", "sum it to a scalar"))
        return value

    @property
    def derivatives(self) -> Derivatives:
        """The derivatives of the policy and of ρ, by autograd."""

        def entries(theta: object) -> dict[str, Traced]:
            return {"policy": self.evaluate(theta), "regulariser": self.regulariser_of(theta)}

        return Derivatives(entries=entries, label="policy", cache=self._cache, verify=self.verify_derivatives)

    @checked
    def policy_pullback(self, theta: FloatArray, cotangents: FloatArray) -> FloatArray:
        """Return Σ_{s,l} c(s,l) ∇f_θ(l|s) for each of K cotangents (K, S, L), shape (K, N), by one forward pass.

        Raises
        ------
        DerivativeError
            If it is not what differences of the policy show, or does not exist.
        """
        check_shape("cotangents", cotangents, (None, self.states, self.leader_actions), "one table per cotangent")
        pull = self.pullback_at(theta)
        return np.stack([pull({"policy": cotangent}) for cotangent in cotangents])

    def policy_jacobian(self, theta: FloatArray) -> FloatArray:
        """Return ∇f_θ(l|s), (S, L, N): forward mode, or reverse mode where θ has more entries than the policy.

        Raises
        ------
        DerivativeError
            As `policy_pullback`.
        """
        theta = self.check_theta(theta)
        pairs = self.states * self.leader_actions
        shape = (self.states, self.leader_actions)
        if theta.size > pairs:
            return self.policy_pullback(theta, np.eye(pairs).reshape(pairs, *shape)).reshape(*shape, theta.size)
        return self.derivatives.jacobian(theta).get("policy", np.zeros((*shape, theta.size)))

    def linearised(self, theta: FloatArray) -> MarkovGame:
        """Return the game whose policy and ρ are affine in θ and the same to first order, without a trace."""
        affine = linearised(self.derivatives.entries, self.check_theta(theta), "policy")
        return replace(
            self, policy=lambda x: affine(x)["policy"], regulariser=lambda x: affine(x)["regulariser"],
            verify_derivatives=False,
        )  # fmt: skip

    def regulariser_at(self, theta: FloatArray) -> float:
        """Return ρ(θ), 0 where there is none, checked; raises as `at`."""
        return self.at(theta).regulariser

    @checked
    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Return Σ w ∇term over the batch: (N,), or (streams, N) when `per_stream`.

        Only `log_policy_leader` depends on θ in a game; weights on the other terms contribute nothing.

        Raises
        ------
        SupportError
            If a score is weighted where the leader's policy is zero.
        UnknownNameError
            If a term does not exist.
        """
        theta, streams = self.check_theta(theta), int(np.shape(batch.state_t)[0])
        for term in weights:
            if term not in TERMS:
                raise UnknownNameError("term", term, TERMS)
        weight = weights.get("log_policy_leader", np.zeros((streams, 1)))
        check_shape("weights['log_policy_leader']", weight, (streams, None), "one weight per step")
        stream, step = np.nonzero(weight)
        if stream.size == 0:
            return np.zeros((streams, theta.size)) if per_stream else np.zeros(theta.size)
        policy = self.policy_at(theta)
        shape = weight.shape
        check_shape("batch.state_t", batch.state_t, shape, "one state per step and weight")
        check_shape("batch.leader_action_t", batch.leader_action_t, shape, "sample the game: one action per step")
        state = check_indices("batch.state_t", np.asarray(batch.state_t)[stream, step], self.states)
        visited = np.asarray(batch.leader_action_t)[stream, step]
        leader_action = check_indices("batch.leader_action_t", visited, self.leader_actions)
        probability = policy[state, leader_action]
        self._check_support(theta, policy)
        if (probability == 0.0).any():
            place = int(np.argmin(probability))
            raise SupportError(
                f"policy[{int(state[place])}, {int(leader_action[place])}]=0.0 was visited: expected actions that the "
                "leader's policy can take; scores ∇log f do not exist at this theta, use that of the samples"
            )
        factor = weight[stream, step] / probability
        pair = state * self.leader_actions + leader_action
        if not per_stream:
            gathered = np.bincount(pair, weights=factor, minlength=policy.size).astype(np.float64)
            total: FloatArray = self.policy_pullback(theta, gathered.reshape(1, *policy.shape))[0]
            return total
        matrix = scipy.sparse.csr_array((factor, (stream, pair)), shape=(streams, policy.size))
        rows: FloatArray = np.asarray(matrix @ self.policy_jacobian(theta).reshape(policy.size, theta.size))
        return rows

    def _check_support(self, theta: FloatArray, policy: FloatArray) -> None:
        """Refuse scores where some probability is zero but its derivative is not."""
        if (policy > 0.0).all():
            return
        lost = (policy == 0.0) & (self.policy_jacobian(theta) != 0.0).any(axis=2)
        if lost.any():
            index = [int(i) for i in np.argwhere(lost)[0]]
            raise SupportError(
                f"policy{index}=0.0 but its derivative in θ is not zero: expected a leader policy with positive "
                "probabilities; scores miss this action, use an exact route or a softmax policy"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class GameAt(At[MarkovGame]):
    """A Markov game evaluated at one θ.

    Attributes
    ----------
    policy : (S, L)
        f_θ, checked.
    regulariser : float
        ρ(θ).
    """

    policy: FloatArray
    regulariser: float

    @property
    def values(self) -> FloatArray:
        """The leader's policy."""
        return self.policy

    @cached_property
    def points(self) -> DecisionPoints:
        """Where the follower decides, under this policy."""
        game = self.problem
        return DecisionPoints.of(
            game.transition,
            game.reward_follower,
            game.reward_leader,
            self.policy,
            sees_leader_action=game.follower_sees_leader_action,
        )


def _checked_number(value: Traced) -> float:
    """Return ρ as a finite float, or raise `InvalidInputError`."""
    number = float(value)
    if not np.isfinite(number):
        raise InvalidInputError(refusal("regulariser(theta)", number, "a finite number", "check it at this θ"))
    return number


def _frozen_table(values: FloatArray) -> FloatArray:
    """Return a read-only float64 copy, or the array itself if it is one already."""
    if is_frozen(values):
        return values
    table = values.copy()
    table.setflags(write=False)
    return table
