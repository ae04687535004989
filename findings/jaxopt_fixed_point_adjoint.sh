#!/usr/bin/env bash
# jaxopt 0.8.5 (jax 0.10.2, float64): the gradient through FixedPointIteration does not follow `tol`. The adjoint system is solved by a solver of
# its own with its own tolerance, so that the value is right to 14 digits and its gradient to 7, and tighter `tol` changes nothing.
# Seen: values of a walk on a ring of 50 states, discount .99, which are linear in θ: value off by 2e-14, gradient by 2.3e-8 for tol 1e-10 and
# 1e-13; with implicit_diff_solve=solve_gmres by 1.9e-5; with solve_lu by 6e-16. Safe use: pass implicit_diff_solve with a
# tolerance. Here routes solve the adjoint directly and state a bound. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "jaxopt==0.8.5" "jax==0.10.2" "numpy==2.4.6" "scipy==1.17.1"
"$work/venv/bin/python" - <<'PYTHON'
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxopt import FixedPointIteration, linear_solve

jax.config.update("jax_enable_x64", True)
states = np.arange(50)
walk = np.zeros((50, 50))
walk[states, (states + 1) % 50] = walk[states, (states - 1) % 50] = 0.5
reward = np.exp(-states / 7.0)
truth = np.linalg.solve(np.eye(50) - 0.99 * walk, reward)[0]


def value(theta, tol, **options):
    sweeps = FixedPointIteration(lambda v, t: t * reward + 0.99 * walk @ v, maxiter=100_000, tol=tol, **options)
    return sweeps.run(jnp.zeros(50), theta).params[0]


errors = {}
for tol in (1e-10, 1e-13):
    errors[tol] = abs(float(jax.grad(value)(1.0, tol)) / truth - 1.0)
    print(f"tol {tol:.0e}: value off by {abs(float(value(1.0, tol)) / truth - 1.0):.0e}, gradient by {errors[tol]:.1e}")
for name in ("solve_gmres", "solve_lu"):
    solved = functools.partial(value, tol=1e-13, implicit_diff_solve=getattr(linear_solve, name))
    errors[name] = abs(float(jax.grad(solved)(1.0)) / truth - 1.0)
    print(f"{name}: gradient off by {errors[name]:.1e}")
assert 1e-9 < errors[1e-13] < 1e-6 and abs(errors[1e-10] / errors[1e-13] - 1.0) < 0.5, "changed"
assert errors["solve_lu"] < 1e-14 < 1e-6 < errors["solve_gmres"], "changed"
PYTHON
