"""Functions of JAX and PyTorch as functions that this package differentiates, with those libraries' own derivatives.

autograd sees each array that such a function returns as one operation whose rule is the other library's: its value, its
vector-Jacobian product and, where that exists, its Jacobian-vector product. So tables, matrices and policies of every
kind of problem can be written in either library, for every route; an array that the other library says does not depend
on θ stays a constant here. What it says is held against differences like any other derivative.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from autograd.extend import defjvp, defvjp, primitive
from autograd.tracer import getval, isbox

from bilevelrl.reference.arrays import FloatArray, Traced
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import DerivativeError, MissingExtraError, ShapeError, refusal

__all__ = ["from_jax", "from_torch"]

_Result = TypeVar("_Result")
Foreign = Callable[[Any], Any]


@checked
def from_jax(function: Foreign, *, into: Callable[..., _Result] | None = None) -> Callable[[Traced], Any]:
    """Return a JAX function of θ as one that every route here differentiates, by JAX's own rules, in float64.

    Parameters
    ----------
    function
        θ (a `jax.Array`, float64) → an array, or a mapping, tuple or list of arrays. Entries that are NumPy arrays or
        numbers are constants. `jax.jit` of it is as good, and faster.
    into
        What to make of a mapping: called with its entries as keywords, as in `into=Tables` or `into=LQRMatrices`.

    Returns
    -------
    Callable
        θ → the same with NumPy's arrays; traced where θ is, and evaluated by JAX at complex θ.

    Raises
    ------
    MissingExtraError
        If JAX is not installed.
    ShapeError
        When called: if an entry is in single precision.

    Examples
    --------
    >>> import jax.numpy as jnp  # doctest: +SKIP
    >>> tables = from_jax(lambda theta: {"reward_leader": jnp.exp(theta), ...}, into=Tables)  # doctest: +SKIP
    >>> problem = ConfigurableMDP(tables=tables, ...)  # doctest: +SKIP
    """
    return _differentiable(_Jax(function, _imported("jax", "jax")), into)


@checked
def from_torch(function: Foreign, *, into: Callable[..., _Result] | None = None) -> Callable[[Traced], Any]:
    """Return a PyTorch function of θ as one that every route here differentiates, by PyTorch's own rules, in float64.

    Parameters
    ----------
    function
        θ (a float64 tensor on the CPU) → a tensor, or a mapping, tuple or list of tensors. Entries that do not require
        gradients are constants. Modules have to be in float64: `module.double()`.
    into
        As in `from_jax`.

    Returns
    -------
    Callable
        As of `from_jax`.

    Raises
    ------
    MissingExtraError
        If PyTorch is not installed.
    ShapeError
        When called: if an entry is in single precision, or not on the CPU.

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> tables = from_torch(lambda theta: {"reward_leader": torch.exp(theta), ...}, into=Tables)  # doctest: +SKIP
    """
    return _differentiable(_Torch(function, _imported("torch", "torch")), into)


def _imported(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"tables written with {module}", module, extra) from error


@dataclass(frozen=True, slots=True)
class _Traced:
    """What a library knows of a function at one real θ.

    Attributes
    ----------
    values, moves
        Its arrays in order, and which of them depend on θ.
    arrange
        Puts arrays in their places.
    pull
        (number of the array, cotangent) → vector-Jacobian product, of θ's shape.
    push
        Direction → derivatives of the arrays along it.
    """

    values: list[FloatArray]
    moves: list[bool]
    arrange: Callable[[list[Traced]], Any]
    pull: Callable[[int, FloatArray], FloatArray]
    push: Callable[[FloatArray], list[FloatArray]]


class _Library(Protocol):
    """A function of another library."""

    def evaluate(self, theta: FloatArray) -> Any:
        """Return what it makes of NumPy's θ, real or complex, with NumPy's arrays."""

    def trace(self, theta: FloatArray) -> _Traced:
        """Return its values and derivatives at a real θ."""


@primitive
def _entry(theta: FloatArray, found: _Traced, number: int) -> FloatArray:
    return found.values[number]


def _pull(_: Traced, theta: Traced, found: _Traced, number: int) -> Callable[[Traced], Traced]:
    return lambda cotangent: found.pull(number, _first(theta, cotangent))


def _push(direction: Traced, _: Traced, theta: Traced, found: _Traced, number: int) -> Traced:
    return found.push(_first(theta, direction))[number]


defvjp(_entry, _pull, argnums=(0,))
defjvp(_entry, _push, argnums=(0,))


def _differentiable(library: _Library, into: Callable[..., _Result] | None) -> Callable[[Traced], Any]:
    """Return the function for autograd; nothing is kept between calls, as what it closes over may have changed."""

    def function(theta: Traced) -> Any:
        if isbox(theta):
            found = library.trace(_plain(theta))
            moved = enumerate(found.moves)
            result = found.arrange([_entry(theta, found, n) if moves else found.values[n] for n, moves in moved])
        else:
            result = library.evaluate(np.asarray(theta))
        if into is None:
            return result
        if not isinstance(result, Mapping):
            raise ShapeError(refusal("function(theta)", type(result).__name__, "a mapping of arrays", "return a dict"))
        return into(**result)

    return function


def _plain(theta: Traced) -> FloatArray:
    while isbox(theta):
        theta = getval(theta)
    return np.asarray(theta)


def _first(theta: Traced, value: Traced) -> FloatArray:
    """A cotangent or a direction, where nobody differentiates what is made of it."""
    if isbox(theta) or isbox(value):
        raise DerivativeError(
            "second derivative of another library's function: expected first derivatives only, which is all that a "
            "hypergradient needs; write the function with autograd.numpy for higher ones"
        )
    return np.asarray(value)


def _flatten(result: Any) -> tuple[list[Any], list[str], Callable[[list[Any]], Any]]:
    """Return the arrays of a result, their names, and what puts others in their places."""
    if isinstance(result, Mapping):
        keys = list(result)
        return list(result.values()), [str(key) for key in keys], lambda arrays: dict(zip(keys, arrays, strict=True))
    if isinstance(result, (tuple, list)):
        return list(result), [f"[{n}]" for n in range(len(result))], tuple
    return [result], ["function(theta)"], lambda arrays: arrays[0]


def _checked(name: str, array: Any, library: str) -> FloatArray:
    """Return a float64, complex128 or boolean array; the rounding of single precision would pass for a derivative."""
    found = np.asarray(array)
    if found.dtype.kind not in "biu" and found.dtype not in (np.float64, np.complex128):
        remedy = f"compute it in float64: look for a cast in the function, or {library} parameters in {found.dtype}"
        raise ShapeError(refusal(f"{name}.dtype", str(found.dtype), "float64", remedy))
    return found if found.dtype.kind in "cb" else found.astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Jax:
    """A function of JAX; float64 is switched on while it runs, and only then."""

    function: Foreign
    jax: Any

    def doubles(self) -> AbstractContextManager[None]:
        switch = self.jax.enable_x64 if hasattr(self.jax, "enable_x64") else self.jax.experimental.enable_x64
        return cast(AbstractContextManager[None], switch(True))

    def evaluate(self, theta: FloatArray) -> Any:
        with self.doubles():
            leaves, names, arrange = _flatten(self.function(self.jax.numpy.array(theta)))
            return arrange([_checked(name, leaf, "JAX") for name, leaf in zip(names, leaves, strict=True)])

    def trace(self, theta: FloatArray) -> _Traced:
        jax = self.jax
        seen: list[Any] = []

        def listed(x: Any) -> list[Any]:
            leaves, names, arrange = _flatten(self.function(x))
            seen[:] = [[isinstance(leaf, jax.core.Tracer) for leaf in leaves], names, arrange]
            return leaves

        with self.doubles():
            point = jax.numpy.array(theta)
            found, pullback = jax.vjp(listed, point)
            moves, names, arrange = seen
            values = [_checked(name, value, "JAX") for name, value in zip(names, found, strict=True)]
            kinds = [jax.numpy.result_type(value) for value in found]
            still = [not jax.numpy.issubdtype(kind, jax.numpy.inexact) for kind in kinds]  # masks and counts

        def pull(number: int, cotangent: FloatArray) -> FloatArray:
            with self.doubles():
                cotangents = [
                    np.zeros(value.shape, jax.dtypes.float0) if stands else jax.numpy.zeros(value.shape)
                    for value, stands in zip(values, still, strict=True)
                ]
                cotangents[number] = jax.numpy.asarray(cotangent)
                return np.asarray(pullback(cotangents)[0])

        def push(direction: FloatArray) -> list[FloatArray]:
            with self.doubles():
                return [np.asarray(x) for x in jax.jvp(listed, (point,), (jax.numpy.asarray(direction),))[1]]

        return _Traced(values, moves, arrange, pull, push)


@dataclass(frozen=True, slots=True)
class _Torch:
    """A function of PyTorch, run on the CPU."""

    function: Foreign
    torch: Any

    def evaluate(self, theta: FloatArray) -> Any:
        with self.torch.no_grad():
            leaves, names, arrange = _flatten(self.function(self.torch.tensor(theta)))
        return arrange([self._array(name, leaf) for name, leaf in zip(names, leaves, strict=True)])

    def _array(self, name: str, leaf: Any) -> FloatArray:
        if not self.torch.is_tensor(leaf):
            return _checked(name, leaf, "PyTorch")
        if leaf.device.type != "cpu":
            raise ShapeError(
                refusal(f"{name}.device", str(leaf.device), "cpu", "keep the function's tensors on the CPU")
            )
        return _checked(name, leaf.detach().resolve_conj().numpy(), "PyTorch")

    def trace(self, theta: FloatArray) -> _Traced:
        torch = self.torch
        point = torch.tensor(theta, requires_grad=True)
        with torch.enable_grad():
            leaves, names, arrange = _flatten(self.function(point))
        values = [self._array(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
        moves = [torch.is_tensor(leaf) and leaf.requires_grad for leaf in leaves]

        def pull(number: int, cotangent: FloatArray) -> FloatArray:
            (found,) = torch.autograd.grad(
                leaves[number], point, torch.tensor(cotangent), retain_graph=True, allow_unused=True
            )
            return np.zeros(theta.shape) if found is None else np.asarray(found)

        def push(direction: FloatArray) -> list[FloatArray]:
            def listed(x: Any) -> tuple[Any, ...]:
                found = _flatten(self.function(x))[0]
                return tuple(leaf if torch.is_tensor(leaf) else torch.tensor(leaf) for leaf in found)

            try:
                tangents = torch.autograd.functional.jvp(listed, point.detach(), torch.tensor(direction))[1]
            except (NotImplementedError, RuntimeError) as error:  # by two reverse passes: one has no derivative
                raise NotImplementedError(str(error)) from error
            return [np.asarray(tangent.detach()) for tangent in tangents]

        return _Traced(values, moves, arrange, pull, push)
