#!/usr/bin/env bash
# SciPy 1.17.1: scipy.differentiate.derivative reports success with an estimated error of zero at a kink. Its default differences are
# symmetric, so |x| at 0 gives exactly 0 at every step and the error estimate, which compares steps, is exactly 0 as well.
# Seen: abs: derivative 0, error 0, success; max(x, 0): .5, error 0, success. Safe use: compare step_direction=-1 with +1. Here
# derivatives of users' tables are looked at from both sides, and a kink is an error that names the entry. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "scipy==1.17.1" "numpy==2.4.6"
"$work/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
from scipy.differentiate import derivative

for name, function, claimed in (("|x|", np.abs, 0.0), ("max(x, 0)", lambda x: np.maximum(x, 0.0), 0.5)):
    both = derivative(function, 0.0)
    left, right = (derivative(function, 0.0, step_direction=side).df for side in (-1, 1))
    print(f"{name} at 0: {both.df:.3f}, error {both.error}, success {both.success}; from the left {left:.3f}, right {right:.3f}")
    assert bool(both.success) and both.error == 0.0 and abs(both.df - claimed) < 1e-12, "changed"
    assert abs(right - left - (2.0 if claimed == 0.0 else 1.0)) < 1e-9
PYTHON
