"""The hypergradient in JAX is the reference's, jitted, mapped and composed with JAX's own derivatives."""

from contextlib import contextmanager

import numpy as np
import pytest

from bilevelrl.reference import ConfigurableMDP, Tables, hypergradient
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, ShapeError, UnknownNameError
from bilevelrl.reference.in_jax import jax_hypergradient, jax_objective, objective
from bilevelrl.tasks import from_jax, random_mdp

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.exact

OPTIONS = {"discount_leader": 0.9, "discount_follower": 0.8, "temperature": 0.5}


@contextmanager
def doubles():
    switch = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with switch(True):
        yield


@pytest.fixture(autouse=True)
def _in_float64():
    with doubles():
        yield


def written(states=4, actions=2, parameters=3, seed=0):
    """Tables of JAX in which θ enters everywhere."""
    rng = np.random.default_rng(seed)
    kernel, follower, leader = (rng.standard_normal((states, actions, n, parameters)) for n in (states, 1, 1))
    start = rng.standard_normal((states, parameters))

    def tables(theta):
        softmax = jax.nn.softmax
        return {
            "transition": 0.97 * softmax(kernel @ theta, axis=2),
            "reward_follower": jax.numpy.tanh(follower @ theta)[:, :, 0],
            "reward_leader": jax.numpy.sin(leader @ theta)[:, :, 0],
            "initial": softmax(start @ theta),
            "regulariser": -0.1 * (theta**2).sum(),
        }

    return tables


TABLES = written()
THETAS = np.random.default_rng(1).standard_normal((2, 3))


def reference(theta, options=OPTIONS, tables=TABLES):
    problem = ConfigurableMDP(tables=from_jax(jax.jit(tables), into=Tables), theta_shape=(3,), **options)
    return hypergradient(problem, theta, bound=False)


def apart(found, exact):
    size = max(float(np.abs(part).max()) for part in exact.parts.values())
    return float(np.abs(np.asarray(found) - exact.value).max()) / size


@pytest.mark.parametrize("options", [OPTIONS, OPTIONS | {"discount_leader": 0.8}], ids=["two discounts", "one"])
def test_the_reference_jitted_and_mapped(options):
    found = jax.jit(jax.vmap(lambda theta: jax_hypergradient(TABLES, theta, **options)))(THETAS)
    for row, theta in enumerate(THETAS):
        exact = reference(theta, options)
        assert apart(found.value[row], exact) < 1e-12
        assert abs(float(found.objective[row]) - exact.objective) < 1e-12
    # Another problem's truth is told from it.
    assert apart(found.value[0], reference(THETAS[0], options | {"discount_follower": 0.81})) > 1e-4


def test_every_table_of_a_problem_here():
    problem = random_mdp(states=6, actions=2, parameters=3, seed=3)
    theta = np.array([0.3, -0.2, 0.1])
    options = {name: getattr(problem, name) for name in OPTIONS}
    arrays = {name: jax.numpy.asarray(value) for name, value in problem.tables_at(theta).differentiable().items()}
    slopes = jax.grad(lambda arrays: jax_objective(arrays, **options))(arrays)
    pulled = problem.pullback_at(theta)({name: np.asarray(value) for name, value in slopes.items()})
    assert apart(pulled, hypergradient(problem, theta)) < 1e-12


def test_what_is_not_solved_is_not_returned(monkeypatch):
    monkeypatch.setattr(objective, "_MOST_STEPS", 0)
    objective._rule.cache_clear()
    try:
        with pytest.raises(NotConvergedError, match="0 Newton steps"):
            jax_hypergradient(TABLES, THETAS[0], **OPTIONS)
        found = jax.jit(lambda theta: jax_hypergradient(TABLES, theta, **OPTIONS))(THETAS[0])
        assert np.isnan(found.objective)
        assert np.isnan(found.value).all()
    finally:
        objective._rule.cache_clear()


def test_refusals():
    good = TABLES(THETAS[0])
    with pytest.raises(InvalidInputError, match="transition"):
        jax_objective(good | {"transition": 2.0 * good["transition"]}, **OPTIONS)
    with pytest.raises(InvalidInputError, match="reward_leader"):
        jax_hypergradient(lambda theta: good | {"reward_leader": np.nan * good["reward_leader"]}, THETAS[0], **OPTIONS)
    with pytest.raises(ShapeError, match="reward_leader"):
        jax_objective(good | {"reward_leader": good["reward_leader"][:, :1]}, **OPTIONS)
    with pytest.raises(ShapeError, match="initial"):
        jax_objective({name: value for name, value in good.items() if name != "initial"}, **OPTIONS)
    with pytest.raises(UnknownNameError, match="rewards"):
        jax_objective(good | {"rewards": good["initial"]}, **OPTIONS)
    with pytest.raises(ShapeError, match="mapping"):
        jax_objective(good["initial"], **OPTIONS)
    with pytest.raises(InvalidInputError, match="discount_leader"):
        jax_objective(good, **OPTIONS | {"discount_leader": 1.0})
    single = good | {"initial": good["initial"].astype(np.float32)}
    with pytest.raises(ShapeError, match="float32"):
        jax_objective(single, **OPTIONS)
    with pytest.raises(ShapeError, match="float32"):  # in a compiled function too
        jax.jit(lambda tables: jax_objective(tables, **OPTIONS))(single)
