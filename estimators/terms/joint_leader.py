"""What estimators in Markov games share: target, critic, stopping, and the leader's own term.

    Σ_t γ_L^t ∇log f_θ(l_t|s_t) (Q_L(s_t, l_t, a_t) - b)

is the policy gradient with the follower's response held fixed, the `policy` part of the hypergradient. A baseline b(s)
that depends on the state alone leaves its expectation unchanged. The published runs subtract `Σ_l f(l|s) Q_L(s, l, a)`
at the follower's action instead; where the follower has seen l, its action depends on l, and that biases the term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.random import Generator

from bilevelrl.estimators.critics.gaussian_game import LQRGameCritic, VisitedValues
from bilevelrl.estimators.critics.joint_tables import GameCritic, Operator
from bilevelrl.estimators.critics.tables import leader_discount
from bilevelrl.estimators.estimator import Claim, Context, Contribution, Draw
from bilevelrl.estimators.expectations.joint_actions import expected_game_parts
from bilevelrl.estimators.sampling.linear_quadratic import LQRSimulator
from bilevelrl.estimators.sampling.tabular import TabularSimulator
from bilevelrl.estimators.sampling.trajectories import Trajectories
from bilevelrl.estimators.terms.along_trajectories import AlongTrajectories
from bilevelrl.reference import LQRGame, MarkovGame
from bilevelrl.reference.arrays import FloatArray, check_shape
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import EstimatorError, InvalidInputError, UnknownNameError, UnsupportedError
from bilevelrl.reference.problem import Part

__all__ = ["Baseline", "GameSide"]

Baseline: TypeAlias = Literal["state_value", "none", "action_dependent"]
"""What is subtracted from Q_L in the leader's own term."""

OPTIONS: dict[str, tuple[Any, ...]] = {
    "critic": ("exact", "context"),
    "baseline": ("state_value", "none", "action_dependent"),
    "stopping": (None, "single", "sum"),
}


@dataclass(frozen=True, kw_only=True)
class GameSide(AlongTrajectories):
    """Base of estimators in Markov games.

    Parameters
    ----------
    target, stopping
        As in `AlongTrajectories`.
    critic
        "exact": Q_L under both players' policies, by steps to go where the target has a horizon. "context":
        `context.critic`, a `GameCritic`, or in an LQR game `VisitedValues`.
    baseline
        "state_value": V_L(s). "none". "action_dependent": the published one, which biases the term if the follower sees
        the leader's action.
    behaviour_theta
        The θ whose leader policy made the trajectories; None: the context's own. Nothing is reweighted, as in the
        published off-policy runs: visits are those of another leader, which biases every term.

    Raises
    ------
    UnknownNameError
        If an option is not known.
    InvalidInputError
        If stopping is combined with a horizon.
    """

    kinds: ClassVar[tuple[type, ...]] = (MarkovGame, LQRGame)
    weighed: ClassVar[bool] = True
    critic: Literal["exact", "context"] = "exact"
    baseline: Baseline = "state_value"
    behaviour_theta: FloatArray | None = None

    def __post_init__(self) -> None:
        for option, known in OPTIONS.items():
            if getattr(self, option) not in known:
                raise UnknownNameError(option, getattr(self, option), [str(name) for name in known])
        if self.stopping is not None and self.target.horizon is not None:
            raise InvalidInputError(
                f"stopping={self.stopping!r}: expected target horizon None; geometric times replace the horizon"
            )
        object.__setattr__(self, "draw", Draw.TRAJECTORY)

    def _claim(self, *, biased: bool) -> None:
        """Set the claim that follows from the options."""
        exact = self.critic == "exact" and self.baseline != "action_dependent" and self.target.horizon is None
        exact = exact and self.behaviour_theta is None
        object.__setattr__(self, "claim", Claim.UNBIASED if exact and not biased else Claim.DECLARED)

    @checked
    def sample(
        self,
        problem: Any,
        theta: Any,
        follower: Any,
        *,
        streams: int,
        steps: int,
        rng: Generator,
        simulator: TabularSimulator | LQRSimulator | None = None,
    ) -> Trajectories:
        """Draw trajectories of the kind the claim is about; off-policy ones with the leader of `behaviour_theta`."""
        acting = theta if self.behaviour_theta is None else self.behaviour_theta
        return super().sample(problem, acting, follower, streams=streams, steps=steps, rng=rng, simulator=simulator)

    @checked
    def game(self, trajectories: Trajectories | None, context: Context) -> Any:
        """Return the context's problem, a tabular or a linear-quadratic Markov game.

        Raises
        ------
        UnsupportedError
            If it is another kind of problem.
        EstimatorError
            If the trajectories hold no leader actions.
        """
        if not isinstance(context.problem, self.kinds):
            raise UnsupportedError(
                f"{self.name}: problem of type {type(context.problem).__name__}: expected "
                f"{' or '.join(f'a {kind.__name__}' for kind in self.kinds)}; "
                "for configurable MDPs use BCHG or NaivePGD"
            )
        if trajectories is not None and trajectories.leader_action_t is None:
            raise EstimatorError(f"{self.name}: leader_action_t=None: expected the leader's actions; sample them anew")
        return context.problem

    @checked
    def leader_critic(self, context: Context) -> GameCritic | VisitedValues:
        """Return the critic that is read.

        Raises
        ------
        EstimatorError
            If the context has none of the right kind.
        """
        if self.critic == "context":
            if not isinstance(context.critic, GameCritic | VisitedValues):
                raise EstimatorError(f"{self.name}: context.critic: expected a GameCritic; see learn_game_critic")
            return context.critic
        game = self.game(None, context)
        if isinstance(game, LQRGame):
            return LQRGameCritic.solve(context, self.target)
        return GameCritic.solve(game, context.theta, context.follower, operator=self.operator, target=self.target)

    @property
    def operator(self) -> Operator:
        """The operator whose fixed point the exact critic is."""
        return "expected"

    @checked
    def read(self, table: FloatArray, critic: GameCritic, trajectories: Trajectories) -> FloatArray:
        """Return entries (streams, steps) of a table (K, S, L, A) by steps to go; padding reads anything."""
        check_shape("table", table, critic.action_values.shape, "one entry per entry of the critic's")
        to_go = self._to_go(trajectories)
        state = np.where(trajectories.valid, trajectories.state_t, 0)
        result: FloatArray = table[critic.rows(to_go), state, trajectories.leader_action_t, trajectories.action_t]
        return result

    def _to_go(self, trajectories: Trajectories) -> Any:
        horizon = self.target.horizon
        return None if horizon is None else np.maximum(horizon - trajectories.time_in_episode, 0)

    @checked
    def benefit_t(self, critic: GameCritic | VisitedValues, trajectories: Trajectories) -> FloatArray:
        """Return B at every step, (streams, steps)."""
        if not isinstance(critic, GameCritic):
            return critic.benefit_t(trajectories, self._to_go(trajectories))
        return self.read(critic.benefits(), critic, trajectories)

    @checked
    def policy_term(
        self, trajectories: Trajectories, context: Context, critic: GameCritic | VisitedValues
    ) -> Contribution:
        """Return the leader's own term."""
        if not isinstance(critic, GameCritic):
            advantage = critic.advantage_t(trajectories, self._to_go(trajectories), baseline=self.baseline)
        else:
            advantage = self.read(critic.action_values - critic.baselines(self.baseline), critic, trajectories)
        weight = self.leader_weight(trajectories, context)
        return Contribution(part="policy", batch=trajectories, weights={"log_policy_leader": weight * advantage})

    @checked
    def expected(
        self, context: Context, *, horizon: int, influence: FloatArray | None, first: int
    ) -> Mapping[Part, FloatArray]:
        """Return exact expectations; see `expected_game_parts` for the influence."""
        self.game(None, context)
        critic = self.leader_critic(context)
        if not isinstance(critic, GameCritic):
            raise UnsupportedError(
                f"{self.name}: no closed-form expectation in an LQRGame; use quadrature on a one-dimensional one"
            )
        return expected_game_parts(
            context,
            critic,
            baseline=self.baseline,
            target=self.target,
            stopped=self.stopping is not None,
            horizon=horizon,
            influence=influence,
            first=first,
            discount=leader_discount(context.problem, self.target),
            behaviour_theta=self.behaviour_theta,
        )
