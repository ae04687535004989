"""The leader's exact return as a JAX function of dense tables, with the exact hypergradient for its derivative rule.

The follower is solved by Newton's method in a `while_loop`; what JAX differentiates is not the loop but the rule

    ∂J/∂r_L = d π,   ∂J/∂r_F = w,   ∂J/∂P = γ_L d π V_L + γ_F w V_F,   ∂J/∂μ = V_L,   ∂J/∂ρ = 1,               (1)

with d and V_L as in `tabular.leader` (1) and w as in `tabular.linearise` (1)-(2). It shares no code with them: every
line is JAX's, so that `jax.jit`, `jax.vmap` and an accelerator take the whole.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bilevelrl.reference.doors import Discount, Temperature, checked
from bilevelrl.reference.errors import MissingExtraError, NotConvergedError, ShapeError, UnknownNameError, refusal
from bilevelrl.reference.tabular import TABLE_NAMES, check_values
from bilevelrl.reference.tabular.tables import Tables

__all__ = ["JaxHypergradient", "jax_hypergradient", "jax_objective"]

_TOLERANCE, _MOST_STEPS = 1e-12, 200  # of Newton's method, as in `solve_follower`


class JaxHypergradient(NamedTuple):
    """The leader's return and its gradient, arrays of JAX.

    Attributes
    ----------
    objective : ()
        J(θ).
    value
        ∇J(θ), in θ's own shape.
    """

    objective: Any
    value: Any


@checked
def jax_objective(
    tables: Any, *, discount_leader: Discount, discount_follower: Discount, temperature: Temperature
) -> Any:
    """Return the leader's exact return over an infinite horizon, differentiable by JAX once, in reverse mode.

    Parameters
    ----------
    tables
        {name: float64 array} with `transition` (S, A, S), `reward_follower` and `reward_leader` (S, A), `initial` (S,)
        and, if it is not zero, `regulariser` (): as of `Tables`, dense. Arrays that are known are checked as there;
        of traced ones the shapes and dtypes are.
    discount_leader, discount_follower, temperature
        As of `ConfigurableMDP`; numbers, not traced.

    Returns
    -------
    jax.Array
        J, (). NaN where the follower does not converge, which a compiled function cannot raise.

    Raises
    ------
    MissingExtraError
        If JAX is not installed.
    ShapeError, UnknownNameError
        If a table is missing, unknown, of another shape or not in float64.
    InvalidInputError
        If known tables are none of an MDP.
    NotConvergedError
        If known tables have a follower that does not converge.

    References
    ----------
    Kudo et al. (2026), arXiv:2603.14867, Theorem 1 (5)-(6).

    Examples
    --------
    >>> import jax, jax.numpy as jnp  # doctest: +SKIP
    >>> jax.config.update("jax_enable_x64", True)  # doctest: +SKIP
    >>> from bilevelrl.reference.in_jax import jax_objective  # doctest: +SKIP
    >>> options = {"discount_leader": 0.9, "discount_follower": 0.9, "temperature": 1.0}  # doctest: +SKIP
    >>> gradient = jax.jit(jax.grad(lambda theta: jax_objective(tables(theta), **options)))  # doctest: +SKIP
    """
    jax = _jax()
    given = _checked_tables(jax, tables)
    found = _rule()(discount_leader, discount_follower, temperature, given)
    if not isinstance(found, jax.core.Tracer):
        _refuse_not_converged(found)
    return found


@checked
def jax_hypergradient(
    tables: Callable[[Any], Any],
    theta: Any,
    *,
    discount_leader: Discount,
    discount_follower: Discount,
    temperature: Temperature,
) -> JaxHypergradient:
    """Return J(θ) and the exact hypergradient ∇J(θ), by JAX; may be jitted and mapped over θ.

    Parameters
    ----------
    tables
        θ → tables as of `jax_objective`, a function of JAX.
    theta
        θ, an array of float64 of any shape.
    discount_leader, discount_follower, temperature
        As of `ConfigurableMDP`.

    Raises
    ------
    BilevelRLError
        As `jax_objective`.

    Examples
    --------
    >>> import jax  # doctest: +SKIP
    >>> from bilevelrl.reference.in_jax import jax_hypergradient  # doctest: +SKIP
    >>> at = lambda theta: jax_hypergradient(tables, theta, **options)  # doctest: +SKIP
    >>> jax.jit(jax.vmap(at))(thetas).value.shape  # doctest: +SKIP
    (32, 105)
    """
    jax = _jax()
    if not isinstance(theta, jax.core.Tracer):
        _checked_tables(jax, tables(theta))

    def objective(x: Any) -> Any:
        return _rule()(discount_leader, discount_follower, temperature, _checked_tables(jax, tables(x)))

    found, slope = jax.value_and_grad(objective)(theta)
    if not isinstance(found, jax.core.Tracer):
        _refuse_not_converged(found)
    return JaxHypergradient(found, slope)


def _jax() -> Any:
    try:
        return importlib.import_module("jax")
    except ImportError as error:
        raise MissingExtraError("the hypergradient in JAX", "jax", "jax") from error


def _refuse_not_converged(found: Any) -> None:
    if not np.isfinite(found):
        raise NotConvergedError(
            f"follower: residual above {_TOLERANCE:g} after {_MOST_STEPS} Newton steps in JAX, expected convergence; "
            "solve it by `solve_follower`, which says where it stands"
        )


def _checked_tables(jax: Any, tables: Any) -> dict[str, Any]:
    """Return all five tables as arrays of JAX, or raise."""
    if not isinstance(tables, Mapping):
        raise ShapeError(refusal("tables", type(tables).__name__, "a mapping of arrays", "return a dict"))
    for name in tables:
        if name not in TABLE_NAMES:
            raise UnknownNameError("tables", name, TABLE_NAMES)
    found: dict[str, Any] = {}
    for name in TABLE_NAMES:
        if name not in tables and name != "regulariser":
            raise ShapeError(refusal("tables", sorted(tables), f"{name} among them", "give every table"))
        array = jax.numpy.asarray(tables.get(name, 0.0))
        if array.dtype != np.float64:
            remedy = "jax.config.update('jax_enable_x64', True) before the first array, and no casts"
            raise ShapeError(refusal(f"{name}.dtype", str(array.dtype), "float64", remedy))
        found[name] = array
    shape = found["transition"].shape
    wanted = {"transition": (*shape[:2], *shape[:1]), "reward_follower": shape[:2], "reward_leader": shape[:2]}
    for name, expected in (wanted | {"initial": shape[:1], "regulariser": ()}).items():
        if found[name].shape != expected or len(shape) != 3 or min(shape) < 1:
            raise ShapeError(refusal(f"{name}.shape", found[name].shape, f"{expected}", "S states, A actions, S next"))
    if not any(isinstance(array, jax.core.Tracer) for array in found.values()):
        check_values(Tables(**{name: np.asarray(array) for name, array in found.items()}))
    return found


@functools.cache
def _rule() -> Callable[..., Any]:
    """Return (γ_L, γ_F, β, tables) → J with its derivative rule."""
    jax = _jax()
    answer = jax.jit(functools.partial(_answer, jax), static_argnums=(0, 1, 2))

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
    def objective(discount_leader: float, discount_follower: float, temperature: float, tables: Any) -> Any:
        return answer(discount_leader, discount_follower, temperature, tables)[0]

    def forward(discount_leader: float, discount_follower: float, temperature: float, tables: Any) -> Any:
        return answer(discount_leader, discount_follower, temperature, tables)

    def backward(
        discount_leader: float, discount_follower: float, temperature: float, slopes: Any, cotangent: Any
    ) -> Any:
        return ({name: cotangent * slope for name, slope in slopes.items()},)

    objective.defvjp(forward, backward)
    result: Callable[..., Any] = objective
    return result


def _answer(jax: Any, discount_leader: float, discount_follower: float, temperature: float, tables: Any) -> Any:
    """Return J and ∂J/∂table of every table."""
    jnp, linalg = jax.numpy, jax.scipy.linalg
    kernel, reward = tables["transition"], tables["reward_leader"]

    def factorised(policy: Any, discount: float) -> Any:
        chain = jnp.einsum("sa,sat->st", policy, kernel)
        # The transpose, whose columns are diagonally dominant: elimination exchanges no rows.
        return linalg.lu_factor((jnp.eye(len(chain)) - discount * chain).T)

    def solved(system: Any, right: Any, transposed: bool = False) -> Any:
        return linalg.lu_solve(system, right, trans=int(not transposed))

    value_follower, policy, converged = _follower(
        jax, tables, discount_follower, temperature, lambda policy, right: solved(
            factorised(policy, discount_follower), right
        )
    )  # fmt: skip
    system = factorised(policy, discount_follower)
    own = system if discount_leader == discount_follower else factorised(policy, discount_leader)
    value = solved(own, (policy * reward).sum(axis=1))
    occupancy = solved(own, tables["initial"], transposed=True)
    action_value = reward + discount_leader * kernel @ value
    benefit = action_value - (policy * action_value).sum(axis=1, keepdims=True)
    weight = occupancy[:, None] * policy * benefit / temperature
    pushed = discount_follower * jnp.einsum("sa,sat->t", weight, kernel)
    weight = weight + solved(system, pushed, transposed=True)[:, None] * policy
    visits = occupancy[:, None] * policy
    moved = discount_leader * visits[:, :, None] * value + discount_follower * weight[:, :, None] * value_follower
    slopes = {  # (1)
        "transition": moved,
        "reward_follower": weight,
        "reward_leader": visits,
        "initial": value,
        "regulariser": jnp.ones(()),
    }
    objective = tables["regulariser"] + tables["initial"] @ value
    return jax.tree.map(lambda array: jnp.where(converged, array, jnp.nan), (objective, slopes))


def _follower(jax: Any, tables: Any, discount: float, temperature: float, solve: Callable[[Any, Any], Any]) -> Any:
    """Return V_F, π and whether they converged, by the stopping rules of `tabular.fixed_point`."""
    jnp = jax.numpy
    kernel, reward = tables["transition"], tables["reward_follower"]
    unit = (sum(reward.shape) + 8) * float(np.finfo(np.float64).eps)

    def look(value: Any) -> Any:
        action_value = reward + discount * kernel @ value
        largest = action_value.max(axis=1, keepdims=True)
        likely = jnp.exp((action_value - largest) / temperature)
        total = likely.sum(axis=1, keepdims=True)
        policy, backed_up = likely / total, (largest + temperature * jnp.log(total))[:, 0]
        off, scale = jnp.abs(backed_up - value), jnp.maximum(jnp.abs(backed_up), temperature)
        size = jnp.abs(reward) + discount * kernel @ jnp.abs(value)
        level = unit * ((policy * size).sum(axis=1) + scale)
        return value, backed_up, policy, (off / scale).max(), (off <= level).all()

    def ended(state: Any) -> Any:
        (_, _, _, left, rounding), best, _ = state
        return (left <= _TOLERANCE * (1.0 - discount)) | (rounding & (left >= 0.5 * best))

    def step(state: Any) -> Any:
        (value, backed_up, policy, left, _), best, count = state
        return look(value + solve(policy, backed_up - value)), jnp.minimum(best, left), count + 1

    first = look(jnp.zeros(reward.shape[0])), jnp.inf, 0
    state = jax.lax.while_loop(lambda state: ~ended(state) & (state[2] < _MOST_STEPS), step, first)
    return state[0][1], state[0][2], ended(state)
