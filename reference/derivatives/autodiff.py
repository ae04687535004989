"""Automatic differentiation: the few autograd operations this package uses, typed and without its warning.

autograd warns when an output does not depend on the input. Here every traced scalar gets `0 * sum(theta)` added, so
that it always depends on it: the warning cannot arise and a derivative that is structurally zero comes out as zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.errors import DerivativeError

__all__ = ["directional_derivatives", "gradient", "log_sum_exp", "sigmoid", "softmax"]


def gradient(function: Callable[[Traced], Traced], theta: FloatArray) -> FloatArray:
    """Gradient of a scalar function by reverse mode, in θ's own shape; zeros where nothing depends on θ.

    Examples
    --------
    >>> gradient(lambda x: anp.sum(x ** 2), np.array([1.0, -2.0]))
    array([ 2., -4.])
    >>> gradient(lambda x: 3.0, np.array([1.0, -2.0]))
    array([0., 0.])
    """

    def dependent(x: Traced) -> Traced:
        return function(x) + 0.0 * anp.sum(x)

    result: FloatArray = np.asarray(autograd.grad(dependent)(theta), dtype=np.float64)
    return result


def directional_derivatives(
    function: Callable[[Traced], dict[str, Traced]], theta: FloatArray
) -> dict[str, FloatArray]:
    """Jacobians of several array-valued functions of θ, by forward mode, one pass per coordinate.

    Parameters
    ----------
    function
        Maps θ to a dict of arrays. Traced by autograd.
    theta
        Any shape; N = theta.size.

    Returns
    -------
    dict
        name → array of shape (*output shape, N), zeros where the output does not depend on θ.

    Raises
    ------
    DerivativeError
        If the columns do not add up to the derivative along their sum: the function returns what it kept from an
        earlier pass.

    Examples
    --------
    >>> directional_derivatives(lambda x: {"y": x[0] * x}, np.array([2.0, 3.0]))["y"]
    array([[4., 0.],
           [3., 2.]])
    """
    values = {name: np.asarray(value, dtype=np.float64) for name, value in function(theta).items()}
    names = list(values)
    splits = np.cumsum([values[name].size for name in names])[:-1]
    flat_size = sum(value.size for value in values.values())
    columns = np.zeros((theta.size, flat_size))

    def flat(x: Traced) -> Traced:
        outputs = function(x)
        pieces = [anp.reshape(outputs[name] + 0.0 * anp.sum(x), (-1,)) for name in names]
        return anp.concatenate(pieces)

    try:
        push = autograd.make_jvp(flat)(theta)
        for j, direction in enumerate(np.eye(theta.size)):
            columns[j] = push(direction.reshape(theta.shape))[1]
        if theta.size > 1:
            _refuse_kept(columns, push(np.ones(theta.shape))[1])
    except NotImplementedError:  # some autograd primitives have no forward rule: one reverse pass per output instead
        pull, _ = autograd.make_vjp(flat)(theta)
        for i, direction in enumerate(np.eye(flat_size)):
            columns[:, i] = np.ravel(pull(direction))
    pieces = np.split(columns, splits, axis=1)
    return {
        name: np.ascontiguousarray(piece.T).reshape(*values[name].shape, theta.size)
        for name, piece in zip(names, pieces, strict=True)
    }


def _refuse_kept(columns: FloatArray, total: FloatArray) -> None:
    """A pass with tangents of another one, which the function kept, does not add up."""
    size = np.abs(columns).sum(axis=0)
    if (np.abs(columns.sum(axis=0) - total) > 1e-6 * (size + size.max(initial=0.0))).any():
        raise DerivativeError(
            "forward mode: derivatives along the coordinates do not add up to the one along their sum; expected a "
            "function that computes everything anew at each call; it returns traced values of an earlier call: leave "
            "out the cache, or key it by numbers and keep plain arrays only"
        )


def _shift(logits: Traced, axis: int) -> Traced:
    """The largest real part, as a constant: subtracting it changes no value and no derivative."""
    if isinstance(logits, np.ndarray) and logits.dtype == np.float64:
        return logits.max(axis=axis, keepdims=True)
    value = getval(logits)
    while value is not getval(value):
        value = getval(value)
    return np.max(np.real(value), axis=axis, keepdims=True)


def log_sum_exp(logits: Traced, axis: int = -1) -> Traced:
    """Stable log Σ exp along an axis; safe under autograd and under a complex step.

    Examples
    --------
    >>> float(log_sum_exp(np.array([1000.0, 1000.0])) - 1000.0)
    0.693147...
    """
    shift = _shift(logits, axis)
    return anp.log(anp.sum(anp.exp(logits - shift), axis=axis)) + np.squeeze(shift, axis=axis)


def softmax(logits: Traced, axis: int = -1) -> Traced:
    """Stable softmax along an axis; safe under autograd and under a complex step.

    Examples
    --------
    >>> softmax(np.array([0.0, 0.0]))
    array([0.5, 0.5])
    """
    library = np if isinstance(logits, np.ndarray) else anp  # autograd's wrappers cost more than the arithmetic
    weights = library.exp(logits - _shift(logits, axis))
    return weights / library.sum(weights, axis=axis, keepdims=True)


def sigmoid(logits: Traced) -> Traced:
    """Stable logistic function; safe under autograd and under a complex step.

    Examples
    --------
    >>> sigmoid(np.array([0.0]))
    array([0.5])
    """
    return 0.5 * (1.0 + anp.tanh(0.5 * logits))
