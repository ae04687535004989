#!/usr/bin/env bash
# SciPy 1.17.1: solve_discrete_are returns a matrix where the equation has no solution, without error or warning.
# a = b = r = 1: the equation x = x - x²/(1 + x) + q is x² - q x - q = 0, which has no real root for -4 < q < 0. The documentation
# promises LinAlgError where the stabilising solution cannot be isolated. Seen: .45106191 for q = -.1 and for q = -.2, the
# same number, with residuals -.240 and -.340. Safe use: put what comes back into the equation. Here `solve_riccati` does so,
# with every method, and refuses. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "scipy==1.17.1" "numpy==2.4.6"
"$work/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
from scipy.linalg import solve_discrete_are

one = np.eye(1)
for cost in (-0.1, -0.2):
    found = float(solve_discrete_are(one, one, np.array([[cost]]), one)[0, 0])
    residual = -(found**2) / (1.0 + found) + cost
    print(f"q = {cost}: returned {found:.8f}, residual {residual:.3f}; discriminant {cost**2 + 4.0 * cost:.3f} < 0")
    assert abs(residual) > 0.1, "changed: the equation is solved, or refused"
PYTHON
