#!/usr/bin/env bash
# autograd 1.9.1 and JAX 0.10.2 with numpy 2.4.6: the derivative of x / y is wrong where y is below 1e-154, an ordinary double.
# Both work with y squared, which underflows. A softmax that is written as exp(t) / sum(exp(t)), as policies of cold followers
# are, keeps its value to the last digits down to exp(t) = 1e-300. Its gradient is the same wherever the logits are shifted to.
# Seen, logits (c, c - 1), the gradient's first entry, right .19661: autograd .19784 at c = -370, .25690 at c = -371.9, nan at
# c = -380, all with the value .73106; JAX nan from c = -356 on. PyTorch 2.13.0 has .19661 in all of these places.
# Here: a softmax subtracts its largest logit first, and derivatives are held against differences. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "autograd==1.9.1" "numpy==2.4.6" "jax==0.10.2" "jaxlib==0.10.2"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import autograd
import autograd.numpy as anp
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


def first_share(library):
    return lambda logits: (library.exp(logits) / library.sum(library.exp(logits)))[0]


right = 1.0 / (1.0 + np.exp(-1.0))
slope = right * (1.0 - right)
seen = {}
for shift in (-300.0, -356.0, -370.0, -371.9, -380.0):
    logits = np.array([shift, shift - 1.0])
    value = first_share(np)(logits)
    by_autograd = autograd.grad(first_share(anp))(logits)[0]
    by_jax = float(jax.grad(first_share(jnp))(jnp.asarray(logits))[0])
    seen[shift] = by_autograd, by_jax
    print(f"c = {shift}: value {value:.12f} (right {right:.12f}), slope {slope:.5f}; autograd {by_autograd:.5f}, JAX {by_jax:.5f}")
    assert abs(value - right) < 1e-14
assert np.allclose(seen[-300.0], slope, rtol=1e-10)
assert abs(seen[-356.0][0] - slope) < 1e-6 and not np.isfinite(seen[-356.0][1]), "changed: JAX"
assert abs(seen[-370.0][0] - slope) > 1e-3 and abs(seen[-371.9][0] - slope) > 0.05, "changed: autograd is right"
assert not np.isfinite(seen[-380.0]).any(), "changed: finite"
PYTHON
