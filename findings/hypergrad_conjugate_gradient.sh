#!/usr/bin/env bash
# hypergrad 0.0.1 (torch 2.13.0, float64): `conjugate_gradient` does not solve its system, and more iterations make it worse. Its next direction
# is built from the residual of the step before. Seen: y minimises y'Ay/2 - x'y with A = [[2, 1], [1, 3]], f = |y|²/2 at x = (1, 2), so that
# the hypergradient is A⁻¹y = (0, .2). Two iterations, which are exact in two dimensions, are off by .063; 20 by .061, 200 by far more than the
# hypergradient itself. `neumann` with a step of .2 is right to 1e-15 after 200. Safe use: `neumann`, with a step below 2 / λ_max and
# enough terms. Here the adjoint is eliminated, or conjugate gradients stop by a residual. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6"
"$work/venv/bin/pip" install -q --no-deps "hypergrad==0.0.1" # without torchvision and rich, which these functions do not import
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from hypergrad.approx_hypergrad import conjugate_gradient, neumann

torch.set_default_dtype(torch.float64)
matrix, x = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([1.0, 2.0])
y = torch.linalg.solve(matrix, x)


def inner(y, x):
    return 0.5 * y[0] @ matrix @ y[0] - x[0] @ y[0]


def outer(y, x):
    return 0.5 * y[0] @ y[0]


truth = torch.linalg.solve(matrix, y)
off = {}
for steps in (1, 2, 5, 20, 50, 200):
    off[steps] = float((conjugate_gradient(inner, outer, (y,), (x,), steps, 1.0)[0] - truth).norm())
    print(f"conjugate_gradient, {steps} iterations: off by {off[steps]:.2g} of {float(truth.norm()):.2g}")
series = float((neumann(inner, outer, (y,), (x,), 200, 0.2)[0] - truth).norm())
print(f"neumann, 200 terms: off by {series:.0e}")
assert off[2] > 0.05 and off[200] > off[50] > off[20] > 0.05, "changed"
assert series < 1e-14, "changed"
PYTHON
