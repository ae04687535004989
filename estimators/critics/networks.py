"""Small dense networks for many runs at once, with a reverse pass written out by hand.

The weights of all runs are one array (R, P), as the optimisers step it. Nothing mixes rows: each run's outputs and
gradients are its own matrix products, so that they do not depend, to the last bit, on which runs stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import DTypeLike

from bilevelrl.estimators.optimisers import Adam
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, ShapeError, UnknownNameError, refusal

__all__ = ["Activation", "DenseNetwork", "LearningCritic", "NetworkCritic", "Scheme", "Tape"]

Activation: TypeAlias = Literal["relu", "tanh"]
Scheme: TypeAlias = Literal["xavier_normal", "xavier_uniform", "orthogonal"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "tanh")
SCHEMES: tuple[Scheme, ...] = ("xavier_normal", "xavier_uniform", "orthogonal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """What a forward pass leaves for the reverse pass.

    Attributes
    ----------
    activations : tuple of (R, B, size) or (B, in)
        The inputs, and what each hidden layer puts out.
    matrices : tuple of (R, size, size)
        The weights of every layer.
    """

    activations: tuple[Any, ...]
    matrices: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseNetwork:
    """Affine layers with an activation between them, and none after the last.

    Parameters
    ----------
    sizes
        Of the inputs, the hidden layers and the outputs.
    activation
        "relu" (with derivative 0 at 0) or "tanh".
    dtype
        Of weights and outputs, float64 or float32.

    Raises
    ------
    InvalidInputError, UnknownNameError
        If a size is no integer >= 1, there are fewer than two, or an option is not known.

    Examples
    --------
    >>> network = DenseNetwork(sizes=(3, 64, 64, 2))
    >>> network.parameters
    4546
    >>> weights = network.initialise(np.random.default_rng(0))[None]
    >>> outputs, tape = network.forward(weights, np.eye(3))
    >>> outputs.shape, network.backward(tape, np.ones((1, 3, 2))).shape
    ((1, 3, 2), (1, 4546))
    """

    sizes: Sequence[int]
    activation: Activation = "relu"
    dtype: DTypeLike = np.float64

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        whole = all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) for size in self.sizes)
        if len(self.sizes) < 2 or not whole or min(self.sizes) < 1:
            raise InvalidInputError(
                refusal("sizes", self.sizes, "at least two integers >= 1", "e.g. (inputs, 64, 64, outputs)")
            )
        if self.activation not in ACTIVATIONS:
            raise UnknownNameError("activation", self.activation, ACTIVATIONS)
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if self.dtype not in (np.dtype(np.float64), np.dtype(np.float32)):
            raise InvalidInputError(refusal("dtype", str(self.dtype), "float64 or float32", "others lose digits"))

    @property
    def parameters(self) -> int:
        """Number of weights P, biases included."""
        return sum((before + 1) * after for before, after in pairwise(self.sizes))

    def initialise(
        self,
        rng: Generator,
        scheme: Scheme = "xavier_normal",
        *,
        hidden_gain: float | None = None,
        output_gain: float = 1.0,
    ) -> FloatArray:
        """Return random weights (P,) with biases of zero.

        Parameters
        ----------
        rng
            Draws layer after layer.
        scheme
            "xavier_normal" and "xavier_uniform": variance `2 gain² / (in + out)`. "orthogonal": orthonormal rows or
            columns times the gain.
        hidden_gain
            Of all layers but the last; by default 1, and √2 for "orthogonal".
        output_gain
            Of the last layer.

        Raises
        ------
        UnknownNameError
            If the scheme does not exist.
        """
        if scheme not in SCHEMES:
            raise UnknownNameError("scheme", scheme, SCHEMES)
        inner = hidden_gain if hidden_gain is not None else (np.sqrt(2.0) if scheme == "orthogonal" else 1.0)
        blocks: list[FloatArray] = []
        layers = list(pairwise(self.sizes))
        for layer, (before, after) in enumerate(layers):
            gain = output_gain if layer == len(layers) - 1 else inner
            blocks += [gain * _draw(rng, scheme, before, after).ravel(), np.zeros(after)]
        weights: FloatArray = np.concatenate(blocks).astype(self.dtype)
        return weights

    def layers(self, weights: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        """Return views of each layer's matrix (R, in, out) and bias (R, 1, out).

        Raises
        ------
        ShapeError
            If the weights are not (R, P).
        """
        weights = np.asarray(weights)
        if weights.ndim != 2 or weights.shape[1] != self.parameters:
            raise ShapeError(
                refusal("weights.shape", weights.shape, f"(R, {self.parameters})", "one row of weights per run")
            )
        found, begin, runs = [], 0, weights.shape[0]
        for before, after in pairwise(self.sizes):
            middle = begin + before * after
            matrix = weights[:, begin:middle].reshape(runs, before, after)
            found.append((matrix, weights[:, None, middle : middle + after]))
            begin = middle + after
        return found

    def forward(self, weights: FloatArray, inputs: FloatArray) -> tuple[FloatArray, Tape]:
        """Return the outputs (R, B, out), and the tape for `backward` and `input_gradient`.

        Parameters
        ----------
        weights : (R, P)
            One row per run.
        inputs : (R, B, in), or (B, in) for all runs
            One row per sample.

        Raises
        ------
        ShapeError
            If shapes do not fit together.
        NotConvergedError
            If an output is not finite.
        """
        layers = self.layers(weights)
        hidden = np.asarray(inputs, dtype=self.dtype)
        runs = layers[0][0].shape[0]
        if hidden.ndim not in (2, 3) or hidden.shape[-1] != self.sizes[0] or hidden.shape[:-2] not in ((), (runs,)):
            raise ShapeError(
                refusal("inputs.shape", hidden.shape, f"({runs}, B, {self.sizes[0]}) or (B, {self.sizes[0]})", "fit it")
            )
        kept = [hidden]
        for layer, (matrix, bias) in enumerate(layers):
            hidden = np.matmul(hidden, matrix)
            hidden += bias
            if layer < len(layers) - 1:
                hidden = np.maximum(hidden, 0.0, out=hidden) if self.activation == "relu" else np.tanh(hidden)
                kept.append(hidden)
        if not np.isfinite(hidden).all():
            raise NotConvergedError("DenseNetwork: an output is not finite; take smaller steps or inputs")
        return hidden, Tape(activations=tuple(kept), matrices=tuple(matrix for matrix, _ in layers))

    def backward(self, tape: Tape, cotangent: FloatArray) -> FloatArray:
        """Return Σ cotangent · ∂output/∂weights over samples and outputs, (R, P).

        Parameters
        ----------
        tape
            Of the forward pass.
        cotangent : (R, B, out)
            Derivative of the scalar of interest by each output.
        """
        blocks: list[FloatArray] = []
        runs = tape.matrices[0].shape[0]
        for layer, signal in self._signals(tape, cotangent):
            matrix = np.matmul(np.swapaxes(tape.activations[layer], -1, -2), signal)
            blocks = [matrix.reshape(runs, -1), signal.sum(axis=1), *blocks]
        return np.concatenate(blocks, axis=1)

    def input_gradient(self, tape: Tape, cotangent: FloatArray) -> FloatArray:
        """Return Σ cotangent · ∂output/∂input over outputs, (R, B, in); arguments as `backward`."""
        *_, (_, signal) = self._signals(tape, cotangent)
        gradient: FloatArray = np.matmul(signal, np.swapaxes(tape.matrices[0], -1, -2))
        return gradient

    def _signals(self, tape: Tape, cotangent: FloatArray) -> list[tuple[int, FloatArray]]:
        """Derivatives by what enters each layer's activation, last layer first."""
        runs, last = tape.matrices[0].shape[0], len(tape.matrices) - 1
        signal = np.asarray(cotangent, dtype=self.dtype)
        wanted = (runs, tape.activations[0].shape[-2], self.sizes[-1])
        if signal.shape != wanted:
            raise ShapeError(refusal("cotangent.shape", signal.shape, str(wanted), "one number per output"))
        found = [(last, signal)]
        for layer in range(last, 0, -1):
            signal = np.matmul(signal, np.swapaxes(tape.matrices[layer], -1, -2))
            reached = tape.activations[layer]
            signal *= (reached > 0.0) if self.activation == "relu" else 1.0 - reached**2
            found.append((layer - 1, signal))
        return found


def _draw(rng: Generator, scheme: Scheme, before: int, after: int) -> FloatArray:
    """One layer's matrix (in, out) before its gain."""
    spread = float(np.sqrt(2.0 / (before + after)))
    if scheme == "xavier_normal":
        return spread * rng.standard_normal((before, after))
    if scheme == "xavier_uniform":
        return rng.uniform(-np.sqrt(3.0) * spread, np.sqrt(3.0) * spread, (before, after))
    tall, triangle = np.linalg.qr(rng.standard_normal((max(before, after), min(before, after))))
    matrix: FloatArray = tall * np.where(np.diag(triangle) < 0.0, -1.0, 1.0)  # the law is uniform only with this sign
    return matrix if before >= after else matrix.T


class LearningCritic:
    """Weights (R, P) of many runs' critics that learn at rates (R,), and a lagged copy for the targets."""

    def __init__(self, weights: FloatArray, rates: FloatArray) -> None:
        self.weights, self.lagged, self.rates = weights, weights, rates

    def follow(self, share: float) -> None:
        """Move the lagged copy by a share of the way to the weights."""
        self.lagged = self.lagged + self.weights.dtype.type(share) * (self.weights - self.lagged)

    def arrays(self) -> dict[str, FloatArray]:
        """Return what learning goes on from."""
        return {"weights": self.weights, "lagged": self.lagged}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        self.weights, self.lagged = arrays["weights"], arrays["lagged"]


class NetworkCritic(LearningCritic):
    """Critics that are networks and step by Adam; what they are moved towards, subclasses and callers say.

    Examples
    --------
    >>> network, inputs = DenseNetwork(sizes=(1, 8, 1)), np.array([[[-1.0], [1.0]]])
    >>> weights = network.initialise(np.random.default_rng(0))[None]
    >>> critic, wanted = NetworkCritic(network, weights, rates=np.array([0.01])), np.array([[[2.0], [3.0]]])
    >>> for _ in range(1000):
    ...     critic.step(inputs, lambda outputs: wanted - outputs)
    >>> critic.outputs(inputs).round(1).ravel().tolist()
    [2.0, 3.0]
    """

    def __init__(self, network: DenseNetwork, weights: FloatArray, rates: FloatArray) -> None:
        super().__init__(weights, rates)
        self.network, self.state = network, Adam().start(weights.shape)

    def outputs(self, inputs: FloatArray, *, lagged: bool = False) -> FloatArray:
        """Return what the networks, or their lagged copies, say of inputs (R, B, in) or (B, in): (R, B, out)."""
        return self.network.forward(self.lagged if lagged else self.weights, inputs)[0]

    def step(self, inputs: FloatArray, uphill: Callable[[FloatArray], FloatArray]) -> None:
        """Take one step: `uphill` turns the outputs into derivatives by them of what is to grow, (R, B, out)."""
        outputs, tape = self.network.forward(self.weights, inputs)
        self.ascend(self.network.backward(tape, uphill(outputs)))

    def ascend(self, gradient: FloatArray) -> None:
        """Take one step along a gradient (R, P), in double precision: squares of large ones leave the single one."""
        move, self.state = Adam().step(gradient.astype(np.float64), self.rates, self.state)
        self.weights = (self.weights + move).astype(self.weights.dtype)

    def arrays(self) -> dict[str, FloatArray]:
        """Return what learning goes on from, Adam's averages among it."""
        return {**super().arrays(), **{f"adam.{name}": array for name, array in self.state.items()}}

    def restore(self, arrays: Mapping[str, FloatArray]) -> None:
        """Continue from what `arrays` returned."""
        super().restore(arrays)
        self.state = {name.removeprefix("adam."): array for name, array in arrays.items() if name.startswith("adam.")}
