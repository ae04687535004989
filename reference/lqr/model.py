"""Configurable linear-quadratic regulators with entropy: θ configures the system, a soft follower controls it.

    x_{t+1} = A x_t + B a_t + ξ_t,  ξ_t ~ N(0, W) unobserved,      x_0 ~ N(m_0, Z_0)

    r_F = -(x'Q x + a'R a),      r_L = -(x'C x + a'D a) - k

Both players maximise; matrices Q, R, C, D are costs. The follower's entropy-regularised best response is the linear
Gaussian policy of Proposition 1 (arXiv:2603.14867). θ may enter every matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bilevelrl.reference.arrays import FloatArray, Traced, is_frozen
from bilevelrl.reference.derivatives.array_values import called
from bilevelrl.reference.derivatives.cache import Cache
from bilevelrl.reference.derivatives.differentiated import Differentiated
from bilevelrl.reference.derivatives.entries import Derivatives, Jacobian
from bilevelrl.reference.derivatives.numerical import linearised
from bilevelrl.reference.doors import Discount, Temperature, checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.lqr.matrices import LQRMatrices, check_matrices
from bilevelrl.reference.lqr.scores import lqr_cotangents
from bilevelrl.reference.problem import At, Term, TransitionBatch

__all__ = ["ConfigurableLQR", "LQRAt"]


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurableLQR(Differentiated):
    """A linear-quadratic bi-level problem with an unobservable disturbance (paper, Proposition 1).

    Parameters
    ----------
    matrices
        θ → `LQRMatrices`, written with `autograd.numpy`.
    discount_leader, discount_follower
        γ_L and γ_F, each in [0, 1).
    temperature
        β > 0, the follower's entropy weight, in units of the follower's reward.
    theta_shape
        Shape of θ; None accepts any one-dimensional θ. Gradients are flat, (N,), in C order.
    matrices_jacobian
        Optional closed form: θ → {matrix name: (*shape, N)}; matrices left out do not depend on θ.
    verify_derivatives
        Whether traced and closed-form derivatives are held against differences, as in `ConfigurableMDP`.
    name
        Used in messages and tables.

    Raises
    ------
    InvalidInputError
        If a discount or the temperature is out of range.

    Examples
    --------
    >>> from bilevelrl.reference import ConfigurableLQR, LQRMatrices, leader_objective
    >>> one = np.eye(1)
    >>> def matrices(theta):
    ...     return LQRMatrices(
    ...         dynamics_state=theta[0] * one, dynamics_action=one, noise_covariance=0.1 * one,
    ...         cost_state_follower=one, cost_action_follower=one, cost_state_leader=one, cost_action_leader=0.0 * one,
    ...         initial_mean=np.ones(1), initial_covariance=0.0 * one)
    >>> problem = ConfigurableLQR(matrices=matrices, discount_leader=0.5, discount_follower=0.9, temperature=0.1)
    >>> round(leader_objective(problem, np.array([1.0])), 6)
    -1.224284
    """

    matrices: Callable[[Traced], LQRMatrices]
    discount_leader: Discount
    discount_follower: Discount
    temperature: Temperature
    theta_shape: tuple[int, ...] | None = None
    matrices_jacobian: Jacobian | None = None
    verify_derivatives: bool = True
    name: str = "configurable LQR"
    _cache: Cache = field(default_factory=Cache, init=False, repr=False, compare=False)

    def at(self, theta: object) -> LQRAt:
        """Evaluate the matrices once at a real θ and check them.

        Raises
        ------
        InvalidInputError
            If θ or a matrix is invalid, naming it.
        """
        theta = np.array(self.check_theta(theta))
        matrices = self.evaluate(theta)
        self.derivatives.refresh(theta, matrices.differentiable())
        # Matrices that are the same read-only array at every θ are checked once.
        known = self._cache.get("checked", {})
        entries = matrices.differentiable()
        result = check_matrices(matrices, checked=[name for name, value in entries.items() if known.get(name) is value])
        self._cache["checked"] = {
            name: value for name, value in entries.items() if is_frozen(value) and value.dtype == np.float64
        }
        return LQRAt(problem=self, theta=theta, matrices=result)

    def matrices_at(self, theta: object) -> LQRMatrices:
        """Return the matrices at a real θ, checked; raises as `at`."""
        return self.at(theta).matrices

    def evaluate(self, theta: object) -> LQRMatrices:
        """Evaluate the matrices at any θ, traced and complex ones too; their values are not checked.

        Raises
        ------
        InvalidInputError
            If the function raises or returns something else; with θ.
        """
        matrices = called("matrices", self.matrices, theta)
        if not isinstance(matrices, LQRMatrices):
            raise InvalidInputError(
                refusal("matrices(theta)", type(matrices).__name__, "an LQRMatrices", "return LQRMatrices(...)")
            )
        return matrices

    @property
    def derivatives(self) -> Derivatives:
        """The derivatives of the matrices by name."""
        return Derivatives(
            entries=lambda theta: self.evaluate(theta).differentiable(),
            label="matrices",
            cache=self._cache,
            jacobian_given=self.matrices_jacobian,
            verify=self.verify_derivatives,
        )

    def linearised(self, theta: FloatArray) -> ConfigurableLQR:
        """Return the problem whose matrices are affine in θ and the same to first order, without a trace."""
        affine = linearised(self.derivatives.entries, self.check_theta(theta), "matrices")
        return replace(
            self, matrices=lambda x: LQRMatrices(**affine(x)), matrices_jacobian=None, verify_derivatives=False
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
        """Return Σ w ∇term over the batch: (N,), or (streams, N) when `per_stream`.

        Raises
        ------
        SupportError
            If a score is weighted whose covariance is singular.
        """
        theta = self.check_theta(theta)
        cotangents = lqr_cotangents(self.matrices_at(theta), batch, weights, self.varying(theta), per_stream=per_stream)
        return self._pull(theta, cotangents, np.shape(batch.state_t)[0], per_stream)


@dataclass(frozen=True, eq=False, kw_only=True)
class LQRAt(At[ConfigurableLQR]):
    """A configurable LQR evaluated at one θ.

    Attributes
    ----------
    matrices
        Its matrices, checked.
    """

    matrices: LQRMatrices

    @property
    def values(self) -> LQRMatrices:
        """The matrices."""
        return self.matrices

    @property
    def follower_system(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """A, B, Q and R as the follower's solver reads them."""
        m = self.matrices
        return m.dynamics_state, m.dynamics_action, m.cost_state_follower, m.cost_action_follower
