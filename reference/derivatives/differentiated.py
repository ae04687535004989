"""What every kind of problem says of its entries' derivatives: all of it follows from `derivatives`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bilevelrl.reference.arrays import FloatArray, check_theta
from bilevelrl.reference.derivatives.entries import Derivatives, pull_streams
from bilevelrl.reference.errors import DerivativeError

__all__ = ["Differentiated", "hold_row"]


class Differentiated:
    """A problem whose entries (tables, matrices, or the leader's policy) depend on θ."""

    __slots__ = ()

    theta_shape: tuple[int, ...] | None

    @property
    def derivatives(self) -> Derivatives:
        """The derivatives of the entries by name."""
        raise NotImplementedError

    def check_theta(self, theta: object) -> FloatArray:
        """Return θ as a float64 array of the right shape, or raise."""
        return check_theta(theta, self.theta_shape)

    def varying(self, theta: FloatArray) -> frozenset[str]:
        """Return the names of the entries that depend on θ, as the trace at this θ or the closed form has it."""
        return self.derivatives.varying(self.check_theta(theta))

    def jacobian(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return {name: (*shape, N)} for the entries that depend on θ: the closed form, or autograd's.

        Raises
        ------
        DerivativeError
            If it is not what differences of the entries show, or does not exist.
        """
        return self.derivatives.jacobian(self.check_theta(theta))

    def pullback_at(self, theta: FloatArray) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
        """Return a function of cotangents {name: array}: Σ ⟨cotangent, ∂entry/∂θ⟩, (N,); one trace serves all."""
        return self.derivatives.pullback_at(self.check_theta(theta))

    def regulariser_gradient(self, theta: FloatArray) -> FloatArray:
        """Return ∇ρ(θ), shape (N,)."""
        return self.pullback_at(theta)({"regulariser": np.ones(())})

    def _pull(
        self, theta: FloatArray, cotangents: Mapping[str, FloatArray], streams: int, per_stream: bool
    ) -> FloatArray:
        """Return `pullback_at` of cotangents, (N,); (streams, N) of those with an axis of streams in front."""
        if not per_stream:
            return self.pullback_at(theta)(cotangents)
        return pull_streams(cotangents, self.jacobian(theta), streams, theta.size)


def hold_row(name: str, theta: FloatArray, found: FloatArray, single: FloatArray) -> None:
    """Refuse a row of a stacked form that is not what the form for its θ alone gives.

    Raises
    ------
    DerivativeError
        Naming the form, and both.
    """
    size = float(np.abs(single).max(initial=0.0, where=np.isfinite(single)))
    if np.shape(found) != np.shape(single) or not np.allclose(found, single, 1e-9, 1e-9 * size):
        raise DerivativeError(
            f"{name}: its row for theta={theta.tolist()} is {np.ravel(found)[:4]}, and what that θ alone has is "
            f"{np.ravel(single)[:4]}; expected the same at every row; correct it, or leave it out"
        )
