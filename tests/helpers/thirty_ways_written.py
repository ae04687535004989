"""The ways themselves: `WAYS` of `tests/helpers/thirty_ways.py`, each as one would meet it in somebody's notebook."""

from __future__ import annotations

import functools
import math
from typing import Any

import autograd.numpy as anp
import numpy as np
from thirty_ways import STIFF, WEIGHTS, Way, by_hand, features

from bilevelrl.tasks import from_jax, from_torch

WAYS: list[Way] = []


def way(name, **options):
    """Register a function of θ that remembers nothing."""

    def register(function):
        WAYS.append(Way(name, lambda: function, **options))
        return function

    return register


def remembering(name, **options):
    """Register a function that makes functions of θ."""

    def register(fresh):
        WAYS.append(Way(name, fresh, **options))
        return fresh

    return register


# --- plain NumPy and plain Python ----------------------------------------------------------------------------------


@way("np.array of entries")
@way("np.array of entries, sparse", kinds=("kernel",))
@way("np.array of entries, with its jacobian", slope=lambda: by_hand, kinds=("reward", "kernel", "lqr"))
@way("np.array of entries, with its pullback", slope=lambda: by_hand, as_pullback=True, kinds=("reward", "kernel"))
def _(t):
    a, b = t
    return np.array([[0.5 + 0.2 * a, 0.5 * np.exp(-b)], [0.2 + 0.3 * max(a, 0.0), 0.4 + 0.3 * a * b]])


@way("floats and math")
@way("floats and math, with its jacobian", slope=lambda: by_hand, kinds=("reward", "kernel", "lqr"))
def _(t):
    a, b = float(t[0]), float(t[1])
    return np.array([[0.5 + 0.2 * a, 0.5 * math.exp(-b)], [0.2 + 0.3 * max(a, 0.0), 0.4 + 0.3 * a * b]])


@way("item and math, nested lists")
def _(t):
    a, b = t[0].item(), t[1].item()
    return [[0.5 + 0.2 * a, 0.5 * math.exp(-b)], [0.2 + 0.3 * max(a, 0.0), 0.4 + 0.3 * a * b]]


@way("zeros and item assignment")
def _(t):
    m = np.zeros((2, 2))
    m[0, 0] = 0.5 + 0.2 * t[0]
    m[0, 1] = 0.5 * np.exp(-t[1])
    m[1, 0] = 0.2 + 0.3 * np.maximum(t[0], 0.0)
    m[1, 1] = 0.4 + 0.3 * t[0] * t[1]
    return m


@way("copy of theta and item assignment")
def _(t):
    u = t.copy()
    u[0] = max(u[0], 0.0)
    rows = np.array([[0.2 * t[0], 0.5 * np.exp(-t[1])], [0.3 * u[0], 0.3 * t[0] * t[1]]])
    return rows + np.array([[0.5, 0.0], [0.2, 0.4]])


@way("in place")
def _(t):
    m = np.array([[0.5, 0.0], [0.2, 0.4]])
    m[0] += [0.2 * t[0], 0.5 * np.exp(-t[1])]
    m[1, 0] += 0.3 * max(t[0], 0.0)
    m[1, 1:] += 0.3 * np.prod(t)
    return m


@way("out argument")
def _(t):
    m = np.empty((2, 2))
    np.multiply(t[0], [[0.2, 0.0], [0.0, 0.3 * t[1]]], out=m)
    np.add(m, [[0.5, 0.5 * np.exp(-t[1])], [0.2 + 0.3 * np.maximum(t[0], 0.0), 0.4]], out=m)
    return m


@way("np.stack of rows")
def _(t):
    above = np.array([0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])])
    return np.stack([above, np.array([0.2 + 0.3 * np.where(t[0] > 0, t[0], 0.0), 0.4 + 0.3 * t[0] * t[1]])])


@way("np.concatenate and reshape")
def _(t):
    kinked = 0.2 + 0.3 * np.maximum(t[:1], 0.0)
    return np.concatenate([0.5 + 0.2 * t[:1], 0.5 * np.exp(-t[1:]), kinked, 0.4 + 0.3 * t[:1] * t[1:]]).reshape(2, 2)


@way("np.hstack and np.vstack")
def _(t):
    above = np.hstack([0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])])
    return np.vstack([above, np.hstack([0.2 + 0.3 * np.clip(t[0], 0.0, None), 0.4 + 0.3 * t[0] * t[1]])])


@way("np.where")
def _(t):
    return np.where(
        t[0] > 0,
        np.array([[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2 + 0.3 * t[0], 0.4 + 0.3 * t[0] * t[1]]]),
        np.array([[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2, 0.4 + 0.3 * t[0] * t[1]]]),
    )


@way("np.abs for the kink")
def _(t):
    up = 0.5 * (np.abs(t[0]) + t[0])
    return np.asarray([[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2 + 0.3 * up, 0.4 + 0.3 * t[0] * t[1]]])


@way("np.einsum of features")
def _(t):
    return np.einsum("ijk,k->ij", WEIGHTS, features(np, t))


@way("np.dot of features")
@way("np.dot of features, with its jacobian", slope=lambda: by_hand, kinds=("reward", "kernel", "lqr"))
def _(t):
    return np.dot(WEIGHTS, features(np, t))


@way("np.matmul of an np.asarray")
def _(t):
    return np.matmul(WEIGHTS, np.asarray(features(np, np.asarray(t))))


@way("np.asarray as floats")
def _(t):
    x = np.asarray(t, dtype=float)
    return WEIGHTS @ np.array([1.0, x[0], np.exp(-x[1]), max(x[0], 0.0), x[0] * x[1]])


@way("np.tensordot of features")
def _(t):
    return np.tensordot(WEIGHTS, features(np, t), axes=1)


@way("np.outer of unit vectors")
def _(t):
    e, f = np.eye(2)
    m = np.outer(e, e) * (0.5 + 0.2 * t[0]) + np.outer(e, f) * (0.5 * np.exp(-t[1]))
    return m + np.outer(f, e) * (0.2 + 0.3 * np.maximum(0.0, t[0])) + np.outer(f, f) * (0.4 + 0.3 * t[0] * t[1])


@way("np.vectorize")
def _(t):
    def entry(i, j):
        return [0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1]), 0.2 + 0.3 * max(t[0], 0.0), 0.4 + 0.3 * t[0] * t[1]][2 * i + j]

    return np.vectorize(entry)(*np.indices((2, 2)))


@way("np.fromfunction of loops")
def _(t):
    f = [1.0, t[0], np.exp(-t[1]), max(t[0], 0.0), t[0] * t[1]]
    return np.array([[sum(WEIGHTS[i, j, k] * f[k] for k in range(5)) for j in range(2)] for i in range(2)])


@way("list comprehension, lists returned")
def _(t):
    f = [1.0, t[0], np.exp(-t[1]), max(t[0], 0.0), t[0] * t[1]]
    return [[sum(w * x for w, x in zip(row, f, strict=True)) for row in rows] for rows in WEIGHTS]


@way("np.full and masks")
def _(t):
    m = np.full((2, 2), t[0])
    m *= [[0.2, 0.0], [0.0, 0.3 * t[1]]]
    m += [[0.5, 0.5 * np.exp(-t[1])], [0.2, 0.4]]
    m[np.array([[False, False], [True, False]])] += 0.3 * (t[0] if t[0] > 0 else 0.0)
    return m


@way("np.linalg.solve")
def _(t):
    above = np.linalg.solve(STIFF, STIFF @ np.array([0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])]))
    below = np.linalg.solve(STIFF, STIFF @ np.array([0.2 + 0.3 * max(t[0], 0), 0.4 + 0.3 * t[0] * t[1]]))
    return np.array([above, below])


@way("np.linalg.inv and @")
def _(t):
    return np.linalg.inv(STIFF) @ (STIFF @ (WEIGHTS @ features(np, t)))


@way("np.piecewise")
def _(t):
    up = np.piecewise(t[0], [t[0] > 0], [lambda x: x, 0.0])
    return np.array([[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2 + 0.3 * float(up), 0.4 + 0.3 * t[0] * t[1]]])


@way("np.select and np.block")
def _(t):
    up = np.select([t[0] > 0], [t[0]], 0.0)
    return np.block([[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2 + 0.3 * up, 0.4 + 0.3 * t[0] * t[1]]])


@way("polynomials")
def _(t):
    return np.array(
        [[np.polyval([0.2, 0.5], t[0]), 0.5 / np.exp(t[1])], [np.polyval([0.3, 0.2], t[0] * (t[0] > 0)), 0.4]]
    ) + np.diag([0.0, 0.3]) * np.prod(t)


@way("map, filter and sum")
def _(t):
    up = sum(filter(lambda x: x > 0, [t[0]]))
    return np.reshape(
        list(map(np.dot, WEIGHTS.reshape(4, 5), [(1.0, t[0], np.exp(-t[1]), up, t[0] * t[1])] * 4)), (2, 2)
    )


@way("if on values")
def _(t):
    if t[0] > 0:
        return np.array([[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2 + 0.3 * t[0], 0.4 + 0.3 * t[0] * t[1]]])
    return np.array([[0.5 + 0.2 * t[0], 0.5 * np.exp(-t[1])], [0.2, 0.4 + 0.3 * t[0] * t[1]]])


@way("theta changed in place")
def _(t):
    t[1] = np.exp(-t[1])
    f = np.array([1.0, t[0], t[1], max(t[0], 0.0), -t[0] * np.log(t[1])])
    return WEIGHTS @ f


# --- types and layouts ---------------------------------------------------------------------------------------------


@way("float32", relative=1e-5)
def _(t):
    return (WEIGHTS @ features(np, t)).astype(np.float32)


@way("autograd, float32", library=anp, relative=1e-5)
def _(t):
    return anp.array(anp.dot(WEIGHTS, features(anp, t)), dtype=np.float32)


@way("float16", relative=2e-2)
def _(t):
    return np.float16(np.dot(WEIGHTS, features(np, t)))


@way("float32 inside, float64 outside", relative=1e-5)
@way(
    "float32 inside, float64 outside, with its jacobian", slope=lambda: by_hand, kinds=("reward", "lqr"), relative=1e-5
)
def _(t):
    return (WEIGHTS.astype(np.float32) @ features(np, np.asarray(t, dtype=np.float32))).astype(np.float64)


@way("values of a trace, in float32", relative=1e-5)
def _(t):
    x = np.array([getattr(entry, "_value", entry) for entry in t], dtype=np.float32)
    return (WEIGHTS.astype(np.float32) @ features(np, x)).astype(np.float64)


@way("long double")
def _(t):
    return np.dot(WEIGHTS.astype(np.longdouble), features(np, np.asarray(t, dtype=np.longdouble)))


@way("integers", formula="steps", kinds=("reward",))
def _(t):
    return np.floor(7.3 * (WEIGHTS @ features(np, t))).astype(int)


@way("Fortran order")
def _(t):
    return np.asfortranarray(WEIGHTS @ features(np, t))


@way("a transposed view")
def _(t):
    return (WEIGHTS.transpose(1, 0, 2) @ features(np, t)).T


@way("a read-only array")
def _(t):
    m = WEIGHTS @ features(np, t)
    m.flags.writeable = False
    return m


@way("a matrix of objects")
def _(t):
    f = features(np, t)
    return np.array([[np.dot(w, f) for w in row] for row in WEIGHTS], dtype=object)


@way("np.matrix")
def _(t):
    return np.array([np.asarray(np.asmatrix(row) @ features(np, t)).ravel() for row in WEIGHTS])


@way("a masked array")
def _(t):
    return np.ma.masked_array(WEIGHTS @ features(np, t), mask=False)


@way("tuples")
def _(t):
    a, b = t
    return ((0.5 + 0.2 * a, 0.5 * np.exp(-b)), (0.2 + 0.3 * max(a, 0.0), 0.4 + 0.3 * a * b))


# --- functions that remember ---------------------------------------------------------------------------------------


def plain(t):
    a, b = float(t[0]), float(t[1])
    return np.array([[0.5 + 0.2 * a, 0.5 * math.exp(-b)], [0.2 + 0.3 * max(a, 0.0), 0.4 + 0.3 * a * b]])


@remembering("memoised by the bytes of theta")
def _():
    memory: dict[bytes, Any] = {}

    def matrix(t):
        key = np.asarray(t).tobytes()
        if key not in memory:
            memory[key] = plain(t)
        return memory[key]

    return matrix


@remembering("memoised by the bytes of theta, autograd", library=anp)
def _():
    memory: dict[Any, Any] = {}

    def matrix(t):
        key = str(t)
        if key not in memory:
            memory[key] = anp.dot(WEIGHTS, features(anp, t))
        return memory[key]

    return matrix


@remembering("lru_cache")
def _():
    @functools.lru_cache
    def cached(a, b):
        return np.dot(WEIGHTS, features(np, (a, b)))

    return lambda t: cached(*t)


@remembering("lru_cache of autograd", library=anp)
def _():
    @functools.lru_cache
    def cached(a, b):
        return anp.dot(WEIGHTS, features(anp, (a, b)))

    return lambda t: cached(*t)


@remembering("one buffer for every call")
def _():
    buffer = np.empty((2, 2))

    def matrix(t):
        buffer[:] = WEIGHTS @ features(np, t)
        return buffer

    return matrix


@remembering("a read-only view of one buffer")
def _():
    buffer = np.empty((2, 2))

    def matrix(t):
        buffer[:] = WEIGHTS @ features(np, t)
        return np.broadcast_to(buffer, (2, 2))

    return matrix


@remembering("a global that is written and read")
def _():
    state: dict[str, Any] = {}

    def update(t):
        state["a"], state["b"] = t

    def matrix(t):
        update(t)
        a, b = state["a"], state["b"]
        return np.array([[0.5 + 0.2 * a, 0.5 * np.exp(-b)], [0.2 + 0.3 * max(a, 0.0), 0.4 + 0.3 * a * b]])

    return matrix


@remembering("the last theta's table if it is near")
def _():
    last: list[Any] = []

    def matrix(t):
        if not last or not np.array_equal(last[0], np.asarray(t)):
            last[:] = [np.array(t), plain(t)]
        return last[1]

    return matrix


# --- autograd ------------------------------------------------------------------------------------------------------


@way("autograd, array of entries", library=anp)
@way("autograd, array of entries, sparse", library=anp, kinds=("kernel",))
@way("autograd, with its jacobian", library=anp, slope=lambda: by_hand, kinds=("reward", "kernel", "lqr"))
@way("autograd entries, plain probabilities", library=np)
def _(t):
    a, b = t
    return anp.array([[0.5 + 0.2 * a, 0.5 * anp.exp(-b)], [0.2 + 0.3 * anp.maximum(a, 0.0), 0.4 + 0.3 * a * b]])


@way("autograd, stacked rows", library=anp)
def _(t):
    above = anp.stack([0.5 + 0.2 * t[0], 0.5 * anp.exp(-t[1])])
    return anp.stack([above, anp.stack([0.2 + 0.3 * anp.where(t[0] > 0, t[0], 0.0), 0.4 + 0.3 * t[0] * t[1]])])


@way("autograd, einsum", library=anp)
def _(t):
    return anp.einsum("ijk,k->ij", WEIGHTS, features(anp, t))


@way("autograd, dot", library=anp)
def _(t):
    return anp.dot(WEIGHTS, features(anp, t))


@way("autograd, plain @", library=anp)
def _(t):
    return WEIGHTS @ features(anp, t)


@way("autograd, clip", library=anp)
def _(t):
    f = anp.stack([1.0, t[0], anp.exp(-t[1]), anp.clip(t[0], 0.0, 5.0), t[0] * t[1]])
    return anp.dot(WEIGHTS, f)


@way("autograd, abs", library=anp)
def _(t):
    f = anp.array([1.0, t[0], anp.exp(-t[1]), 0.5 * (anp.abs(t[0]) + t[0]), anp.prod(t)])
    return anp.tensordot(WEIGHTS, f, axes=1)


@way("autograd, max of Python and if", library=anp)
def _(t):
    up = max(t[0], 0.0)
    if t[1] > 0:
        return anp.dot(WEIGHTS, anp.array([1.0, t[0], anp.exp(-t[1]), up, t[0] * t[1]]))
    return anp.zeros((2, 2))


@way("autograd, solve", library=anp)
def _(t):
    return anp.linalg.solve(STIFF, anp.dot(STIFF, anp.dot(WEIGHTS, features(anp, t))))


@way("autograd, solve of a stack", library=anp)
def _(t):
    stack = np.stack([STIFF, STIFF + np.eye(2)])
    m = anp.dot(WEIGHTS, features(anp, t))
    rows = anp.array([anp.dot(stack[i], m[i]) for i in range(2)])
    return anp.linalg.solve(stack, rows[..., None])[..., 0]


@way("autograd, mixed with np.stack")
def _(t):
    above = anp.array([0.5 + 0.2 * t[0], 0.5 * anp.exp(-t[1])])
    return np.stack([above, anp.array([0.2 + 0.3 * anp.maximum(t[0], 0.0), 0.4 + 0.3 * t[0] * t[1]])])


@way("autograd, one entry in plain NumPy", library=anp)
def _(t):
    up = np.maximum(float(getattr(t[0], "_value", t[0])), 0.0)
    return anp.array([[0.5 + 0.2 * t[0], 0.5 * anp.exp(-t[1])], [0.2 + 0.3 * up, 0.4 + 0.3 * t[0] * t[1]]])


@way("autograd, one term in plain NumPy", library=anp)
def _(t):
    lost = 0.2 * np.maximum(float(getattr(t[0], "_value", t[0])), 0.0)
    kinked = 0.2 + 0.1 * anp.maximum(t[0], 0.0) + lost
    return anp.array([[0.5 + 0.2 * t[0], 0.5 * anp.exp(-t[1])], [kinked, 0.4 + 0.3 * t[0] * t[1]]])


@way("autograd, lists returned", library=anp)
def _(t):
    a, b = t
    return [[0.5 + 0.2 * a, 0.5 * anp.exp(-b)], [0.2 + 0.3 * anp.maximum(a, 0.0), 0.4 + 0.3 * a * b]]


# --- tables that begin to depend on θ ------------------------------------------------------------------------------


@way("toll, plain", formula="toll")
def _(t):
    return np.array([[0.6 - 0.3 * max(float(t[0]), 0.0), 0.3], [0.4, 0.2]])


@way("toll, if and autograd", library=anp, formula="toll")
def _(t):
    toll = max(t[0], 0.0)
    return anp.array([[0.6 - 0.3 * toll, 0.3], [0.4, 0.2]])


@way("toll, maximum", library=anp, formula="toll")
def _(t):
    return anp.array([[0.6, 0.3], [0.4, 0.2]]) - 0.3 * anp.maximum(t[0], 0.0) * np.array([[1.0, 0.0], [0.0, 0.0]])


FREE = np.array([[0.6, 0.3], [0.4, 0.2]])


@way("toll, the same array where it is free", library=anp, formula="toll")
def _(t):
    if t[0] <= 0:
        return FREE
    return FREE - 0.3 * t[0] * np.array([[1.0, 0.0], [0.0, 0.0]])


@remembering("toll, remembered where it is free", library=anp, formula="toll")
def _():
    frozen = FREE.copy()
    frozen.flags.writeable = False

    def matrix(t):
        return frozen if t[0] <= 0 else anp.where(np.eye(2) * [1, 0] > 0, 0.6 - 0.3 * t[0], frozen)

    return matrix


# --- other libraries, with the derivatives that they give ----------------------------------------------------------


def _jax_functions():
    import jax
    import jax.numpy as jnp

    doubles = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

    def matrix(t):
        f = jnp.stack([1.0 + 0.0 * t[0], t[0], jnp.exp(-t[1]), jnp.maximum(t[0], 0.0), t[0] * t[1]])
        return jnp.einsum("ijk,k->ij", jnp.asarray(WEIGHTS), f)

    return jax, matrix, doubles


def _jax(*, double, array):
    jax, matrix, doubles = _jax_functions()

    def evaluate(t):
        with doubles(double):
            found = matrix(jax.numpy.asarray(t))
            return np.asarray(found) if array else found

    return evaluate


def _jax_slope(double):
    jax, matrix, doubles = _jax_functions()

    def evaluate(t):
        with doubles(double):
            return np.asarray(jax.jacfwd(matrix)(jax.numpy.asarray(t)), dtype=np.float64)

    return evaluate


GIVEN = ("reward", "kernel", "lqr")
JAX = [
    Way(
        "JAX in float64, with its jacobian",
        lambda: _jax(double=True, array=True),
        slope=lambda: _jax_slope(True),
        kinds=GIVEN,
    ),
    Way(
        "JAX in float32, with its jacobian",
        lambda: _jax(double=False, array=True),
        slope=lambda: _jax_slope(False),
        kinds=GIVEN,
        relative=1e-5,
    ),
    Way("JAX through from_jax", lambda: from_jax(_jax_functions()[1]), library=anp),
    Way("JAX compiled, through from_jax", lambda: from_jax(_jax_functions()[0].jit(_jax_functions()[1])), library=anp),
    Way("JAX in float64, as it is", lambda: _jax(double=True, array=False)),
    Way("JAX in float32, as it is", lambda: _jax(double=False, array=False), relative=1e-5),
]


def _torch_matrix(x):
    import torch

    f = torch.stack([torch.ones((), dtype=x.dtype), x[0], torch.exp(-x[1]), torch.relu(x[0]), x[0] * x[1]])
    return torch.tensor(WEIGHTS, dtype=x.dtype) @ f


def _torch(*, double=True, grad=False, detached=True):
    import torch

    def evaluate(t):
        x = torch.tensor(np.asarray(t), dtype=torch.float64 if double else torch.float32, requires_grad=grad)
        found = _torch_matrix(x)
        return found.detach().numpy() if detached else found

    return evaluate


def _torch_slope(double):
    import torch

    def evaluate(t):
        x = torch.tensor(np.asarray(t), dtype=torch.float64 if double else torch.float32)
        return np.asarray(torch.func.jacfwd(_torch_matrix)(x), dtype=np.float64)

    return evaluate


TORCH = [
    Way("PyTorch in float64, with its jacobian", _torch, slope=lambda: _torch_slope(True), kinds=GIVEN),
    Way(
        "PyTorch in float32, with its jacobian",
        lambda: _torch(double=False),
        slope=lambda: _torch_slope(False),
        kinds=GIVEN,
        relative=1e-5,
    ),
    Way("PyTorch through from_torch", lambda: from_torch(_torch_matrix), library=anp),
    Way("PyTorch, tensors that require gradients", lambda: _torch(grad=True, detached=False)),
    Way("PyTorch, detached from what requires gradients", lambda: _torch(grad=True)),
    Way("PyTorch, tensors as they are", lambda: _torch(detached=False)),
    Way("PyTorch in float32, as it is", lambda: _torch(double=False), relative=1e-5),
]
