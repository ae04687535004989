#!/usr/bin/env bash
# lineax 0.1.1 and optimistix 0.1.0 (jax 0.10.2, float64): a tag is a promise about an operator, as documented, and is not held against
# it. The system I - γP of a chain is not symmetric; tagged positive semidefinite at γ = .5 it is solved by Cholesky's method
# for another matrix: 1.571 for 1.375, derivative in γ 2.367 for 1.1875, and the result says successful. Through optimistix
# the root is right and its gradient is not: 1.357 (root_find, positive semidefinite) and 1.000 (fixed_point, lower
# triangular) for 1.1875. Safe use: no tags, or assert what they say. Here no property of a matrix is promised; what a method
# needs is checked, and a residual stands in the bound. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "lineax==0.1.1" "optimistix==0.1.0" "jax==0.10.2" "equinox==0.13.8" "numpy==2.4.6"
"$work/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import lineax
import optimistix

jax.config.update("jax_enable_x64", True)
chain, paid, gamma = jnp.array([[0.5, 0.5], [0.1, 0.9]]), jnp.array([1.0, 0.0]), 0.5


def truth(discount):
    return jnp.linalg.solve(jnp.eye(2) - discount * chain, paid)[0]


def solved(discount, tags=()):
    found = lineax.linear_solve(lineax.MatrixLinearOperator(jnp.eye(2) - discount * chain, tags), paid)
    return found.value[0]


def root(discount, tags=frozenset()):
    newton = optimistix.Newton(rtol=1e-12, atol=1e-12)
    function = lambda value, discount: value - paid - discount * chain @ value  # noqa: E731
    return optimistix.root_find(function, newton, jnp.zeros(2), args=discount, tags=tags).value[0]


def swept(discount, tags=frozenset()):
    sweeps = optimistix.FixedPointIteration(rtol=1e-12, atol=1e-12)
    function = lambda value, discount: paid + discount * chain @ value  # noqa: E731
    return optimistix.fixed_point(function, sweeps, jnp.zeros(2), args=discount, tags=tags, max_steps=1000).value[0]


positive, lower = lineax.positive_semidefinite_tag, lineax.lower_triangular_tag
cases = {
    "truth": (truth, ()),
    "lineax, no tag": (solved, ((),)),
    "lineax, positive semidefinite": (solved, (positive,)),
    "optimistix.root_find, positive semidefinite": (root, (frozenset([positive]),)),
    "optimistix.fixed_point, lower triangular": (swept, (frozenset([lower]),)),
}
found = {}
for name, (function, tags) in cases.items():
    found[name] = float(function(gamma, *tags)), float(jax.grad(function)(gamma, *tags))
    print(f"{name}: value {found[name][0]:.4f}, derivative {found[name][1]:.4f}")
value, slope = found["truth"]
assert abs(value - 1.375) < 1e-12 and abs(slope - 1.1875) < 1e-12
assert abs(found["lineax, no tag"][1] - slope) < 1e-12, "changed"
assert abs(found["lineax, positive semidefinite"][0] - value) > 0.1, "changed"
for name in list(cases)[3:]:
    assert abs(found[name][0] - value) < 1e-9 and abs(found[name][1] - slope) > 0.1, "changed"
PYTHON
