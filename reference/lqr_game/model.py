"""Linear-quadratic Markov games: the leader's noisy linear policy disturbs a follower that sees its action.

    x_{t+1} = A x_t + B a_t + C l_t,      l_t ~ N(K x_t, Ω) = f_θ,      x_0 ~ N(m_0, Z_0)

    r_F = -(x'Q x + a'R a),      r_L(x) = exp(-½ (x - x*)' D^{-1} (x - x*))

θ enters the leader's policy (K, Ω). The follower's best response is that of Proposition 2 (arXiv:2603.14867): with P
the Riccati solution for `(A + C K, B)`, `a ~ N(-G (A x + C l), (β/2) S^{-1})`, and its value once l is drawn is

    V_F(x, l) = -x'Q x - y'Γ y - v,    y = A x + C l,    Γ = γ P - γ P B G,                                     (1)
    v = [ (β/2) log det S - (β m/2) log(π β) + γ tr(Γ C Ω C') ] / (1 - γ).                                      (2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import autograd.numpy as anp
import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced, check_shape, check_vectors
from bilevelrl.reference.derivatives.array_values import called, differentiable_array
from bilevelrl.reference.derivatives.cache import Cache
from bilevelrl.reference.derivatives.differentiated import Differentiated
from bilevelrl.reference.derivatives.entries import Derivatives
from bilevelrl.reference.derivatives.numerical import linearised
from bilevelrl.reference.doors import Discount, Temperature, checked
from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnsupportedError, refusal
from bilevelrl.reference.lqr.follower import LQRFollower, action_covariance, entropy_cost, follower_riccati
from bilevelrl.reference.lqr.matrices import check_covariance, check_matrix
from bilevelrl.reference.lqr.scores import covariance_inverse, gaussian_score, weighted_outer
from bilevelrl.reference.lqr.solvers import RiccatiSolution, symmetric
from bilevelrl.reference.problem import At, Status, Term, TransitionBatch, solve

__all__ = ["LQRGame", "LQRGameAt", "LeaderGaussian", "seeing_response", "solve_lqr_game"]

_SHAPES: dict[str, str] = {
    "dynamics_state": "nn",
    "dynamics_action": "nm",
    "dynamics_leader": "np",
    "cost_state": "nn",
    "cost_action": "mm",
    "target": "n",
    "width": "nn",
    "initial_mean": "n",
    "initial_covariance": "nn",
    "leader_covariance": "pp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderGaussian:
    """The leader's policy at one θ; traceable.

    Attributes
    ----------
    gain : (p, n)
        K of `l ~ N(K x, Ω)`.
    covariance : (p, p)
        Ω, positive semi-definite; scores need it definite.
    regulariser : ()
        ρ, added to the objective once.
    """

    gain: Traced
    covariance: Traced
    regulariser: Traced = 0.0

    def __post_init__(self) -> None:
        for name, value in self.differentiable().items():
            object.__setattr__(self, name, differentiable_array(name, value))

    def differentiable(self) -> dict[str, Traced]:
        """Return {name: array}, the form in which derivatives are taken."""
        return {"gain": self.gain, "covariance": self.covariance, "regulariser": self.regulariser}


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class LQRGame(Differentiated):
    """A linear-quadratic game with an observable disturbance (paper, Proposition 2).

    Parameters
    ----------
    dynamics_state, dynamics_action, dynamics_leader
        A (n, n), B (n, m) and C (n, p).
    cost_state, cost_action
        Q (n, n) positive semi-definite and R (m, m) positive definite, the follower's costs.
    target, width
        x* (n,) and D (n, n), positive definite, of the leader's reward.
    initial_mean, initial_covariance
        m_0 (n,) and Z_0 (n, n), positive semi-definite; a zero Z_0 starts at m_0.
    leader_covariance
        Ω (p, p), where `leader_policy` is None.
    leader_policy
        θ → `LeaderGaussian`, written with `autograd.numpy`; None: θ is K, flattened, and Ω constant.
    discount_leader, discount_follower, temperature
        γ_L, γ_F in [0, 1) and β > 0.
    theta_shape
        Shape of θ; None: (p · n,) without a `leader_policy`, else any one-dimensional θ.
    verify_derivatives
        Whether traced derivatives are held against differences, as in `ConfigurableMDP`.
    name
        Used in messages and tables.

    Raises
    ------
    ShapeError
        If dimensions do not match.
    InvalidInputError
        If a number is out of range or a matrix indefinite.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> from bilevelrl.reference import leader_objective
    >>> round(leader_objective(lqr_game(), np.array([-9.683, -10.25]), horizon=100), 3)
    3.402
    """

    dynamics_state: FloatArray
    dynamics_action: FloatArray
    dynamics_leader: FloatArray
    cost_state: FloatArray
    cost_action: FloatArray
    target: FloatArray
    width: FloatArray
    initial_mean: FloatArray
    initial_covariance: FloatArray
    discount_leader: Discount
    discount_follower: Discount
    temperature: Temperature
    leader_covariance: FloatArray | None = None
    leader_policy: Callable[[Traced], LeaderGaussian] | None = None
    theta_shape: tuple[int, ...] | None = None
    verify_derivatives: bool = True
    name: str = "LQR game"
    _cache: Cache = field(default_factory=Cache, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.leader_policy is None) == (self.leader_covariance is None):
            raise InvalidInputError(
                "leader_covariance, leader_policy: expected exactly one of them; pass the other None"
            )
        if np.ndim(self.dynamics_action) != 2 or np.ndim(self.dynamics_leader) != 2:
            raise ShapeError("dynamics_action, dynamics_leader: expected (n, m) and (n, p); one column per action")
        (n, m), p = np.shape(self.dynamics_action), np.shape(self.dynamics_leader)[1]
        size = {"n": n, "m": m, "p": p}
        for name, letters in _SHAPES.items():
            value = getattr(self, name)
            if value is not None:
                array = check_matrix(name, value, tuple(size[letter] for letter in letters)).copy()
                array.setflags(write=False)
                object.__setattr__(self, name, array)
        for name, definite in (
            ("cost_state", False),
            ("cost_action", True),
            ("width", True),
            ("initial_covariance", False),
        ):
            check_covariance(name, getattr(self, name), definite=definite)
        if self.leader_policy is None:
            assert self.leader_covariance is not None
            check_covariance("leader_covariance", self.leader_covariance)
            object.__setattr__(self, "theta_shape", (p * n,) if self.theta_shape is None else self.theta_shape)

    def policy(self, theta: object) -> LeaderGaussian:
        """Return the leader's policy at θ, traceable; its values are not checked.

        Raises
        ------
        InvalidInputError
            If the function raises or returns something else; with θ.
        """
        if self.leader_policy is not None:
            found = called("leader_policy", self.leader_policy, theta)
            if not isinstance(found, LeaderGaussian):
                raise InvalidInputError(
                    refusal(
                        "leader_policy(theta)", type(found).__name__, "a LeaderGaussian", "return LeaderGaussian(...)"
                    )
                )
            return found
        shape = self.dynamics_leader.shape[::-1]
        return LeaderGaussian(gain=anp.reshape(theta, shape), covariance=self.leader_covariance)

    def at(self, theta: object) -> LQRGameAt:
        """Evaluate the leader's policy once at a real θ and check it.

        Raises
        ------
        InvalidInputError
            If a shape is wrong or Ω indefinite.
        """
        theta = np.array(self.check_theta(theta))
        policy = self.policy(theta)
        if self.leader_policy is not None:
            self.derivatives.refresh(theta, policy.differentiable())
        n, p = self.dynamics_leader.shape
        gain = check_matrix("gain", policy.gain, (p, n))
        covariance = check_matrix("covariance", policy.covariance, (p, p))
        if self.leader_policy is not None:
            check_covariance("covariance", covariance)
        added = check_matrix("regulariser", policy.regulariser, ())
        checked_policy = LeaderGaussian(gain=gain, covariance=covariance, regulariser=added)
        return LQRGameAt(problem=self, theta=theta, policy=checked_policy)

    def policy_at(self, theta: object) -> LeaderGaussian:
        """Return the leader's policy at a real θ, checked; raises as `at`."""
        return self.at(theta).policy

    @property
    def derivatives(self) -> Derivatives:
        """The derivatives of the leader's policy by name: known where θ is K, else traced."""
        shape = self.dynamics_leader.shape[::-1]
        own = self.leader_policy is not None
        return Derivatives(
            entries=lambda theta: self.policy(theta).differentiable(),
            label="leader_policy",
            cache=self._cache,
            jacobian_given=None if own else lambda theta: {"gain": np.eye(theta.size).reshape(*shape, theta.size)},
            verify=self.verify_derivatives and own,
        )

    def linearised(self, theta: FloatArray) -> LQRGame:
        """Return the game whose leader's policy is affine in θ and the same to first order, without a trace."""
        affine = linearised(self.derivatives.entries, self.check_theta(theta), "leader_policy")
        return replace(
            self, leader_policy=lambda x: LeaderGaussian(**affine(x)), leader_covariance=None, verify_derivatives=False
        )

    @checked
    def pullback(
        self,
        theta: FloatArray,
        batch: TransitionBatch,
        weights: Mapping[Term, FloatArray],
        *,
        per_stream: bool = False,
    ) -> FloatArray:
        """Return Σ w ∇term over the batch: (N,), or (streams, N) when `per_stream`; only log f depends on θ.

        Raises
        ------
        SupportError
            If a score is weighted and Ω is singular.
        UnsupportedError
            If the batch has no leader actions.
        """
        theta, streams = self.check_theta(theta), np.shape(batch.state_t)[0]
        if "log_policy_leader" not in weights:
            return np.zeros((streams, theta.size)) if per_stream else np.zeros(theta.size)
        if batch.leader_action_t is None:
            raise UnsupportedError("leader_action_t=None: expected the leader's actions in the batch; sample the game")
        policy, weight = self.policy_at(theta), weights["log_policy_leader"]
        precision = covariance_inverse("leader_covariance", policy.covariance)
        state_t = check_vectors("batch.state_t", batch.state_t, policy.gain.shape[1])
        leader_action_t = check_vectors("batch.leader_action_t", batch.leader_action_t, policy.gain.shape[0])
        check_shape("weights['log_policy_leader']", weight, state_t.shape[:-1], "one weight per step")
        residual = leader_action_t - state_t @ policy.gain.T
        y, covariance = gaussian_score(weight, residual, precision, per_stream)
        cotangents = {"gain": weighted_outer(weight, y, state_t, per_stream), "covariance": covariance}
        return self._pull(theta, cotangents, streams, per_stream)

    @property
    def follower_sees_leader_action(self) -> bool:
        """True: the disturbance is observed."""
        return True

    def reward_leader(self, state: object) -> FloatArray:
        """Return r_L at states (..., n), in (0, 1]."""
        off = check_vectors("state", state, len(self.target)) - self.target
        result: FloatArray = np.exp(-0.5 * np.vecdot(off @ np.linalg.inv(self.width), off))
        return result

    @checked
    def planned_dynamics(self, policy: LeaderGaussian) -> FloatArray:
        """Return A + C K, what the follower plans with before it sees the leader's action."""
        result: FloatArray = self.dynamics_state + self.dynamics_leader @ policy.gain
        return result


@dataclass(frozen=True, eq=False, kw_only=True)
class LQRGameAt(At[LQRGame]):
    """A linear-quadratic game evaluated at one θ.

    Attributes
    ----------
    policy
        The leader's policy, checked.
    """

    policy: LeaderGaussian

    @property
    def values(self) -> LeaderGaussian:
        """The leader's policy."""
        return self.policy

    @property
    def follower_system(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """A + C K, B, Q and R as the follower's solver reads them."""
        game = self.problem
        return game.planned_dynamics(self.policy), game.dynamics_action, game.cost_state, game.cost_action


def seeing_response(game: LQRGame, policy: LeaderGaussian, riccati: RiccatiSolution) -> LQRFollower:
    """Return the follower of Proposition 2 from a Riccati solution for (A + C K, B)."""
    discount, a, c = game.discount_follower, game.dynamics_state, game.dynamics_leader
    p = riccati.cost_to_go
    ahead = discount * symmetric(p - p @ game.dynamics_action @ riccati.reaction)  # Γ of (1)
    into = np.concatenate([a, c], axis=1)
    seen = into.T @ ahead @ into
    n = a.shape[0]
    seen[:n, :n] += game.cost_state
    spread = float(np.vdot(ahead, c @ policy.covariance @ c.T))
    entropy = entropy_cost(riccati.curvature, game.temperature)
    offset_seen = (entropy + discount * spread) / (1.0 - discount)  # (2)
    return LQRFollower(
        gain=riccati.reaction @ a,
        gain_leader=riccati.reaction @ c,
        covariance=action_covariance(riccati.curvature, game.temperature),
        cost_to_go=p,
        offset=offset_seen + spread,
        cost_to_go_seen=symmetric(seen),
        offset_seen=offset_seen,
        temperature=game.temperature,
        riccati=riccati,
        status=Status.CONVERGED,
    )


@solve.register(LQRGame)
def solve_lqr_game(at: LQRGameAt, **options: Traced) -> LQRFollower:
    """Solve the follower of a linear-quadratic game; arguments and errors as in `solve_follower`."""
    riccati, status = follower_riccati(*at.follower_system, at.problem.discount_follower, **options)
    return replace(seeing_response(at.problem, at.policy, riccati), status=status)
