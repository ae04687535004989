#!/usr/bin/env bash
# SciPy 1.17.1: whether solve_discrete_lyapunov refuses an equation without a solution depends on the size of the matrix. Below ten rows the
# linear system is solved and a singular one raises LinAlgError; from ten rows on a bilinear transformation is used, which warns and
# returns a matrix.
# Seen: quarter turns in the plane, side by side (a xᵀ - x + 1 has no solution): LinAlgError for 8 rows; for 10 rows a warning and the zero
# matrix, residual 1. Safe use: method="direct", or put what comes back into the equation. Here stationary covariances come from the
# package's own solver with a check of stability first. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "scipy==1.17.1" "numpy==2.4.6"
"$work/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
from scipy.linalg import LinAlgError, solve_discrete_lyapunov


def turns(rows):
    return np.kron(np.eye(rows // 2), [[0.0, 1.0], [-1.0, 0.0]])


try:
    solve_discrete_lyapunov(turns(8), np.eye(8))
    raise SystemExit("changed: eight rows are not refused")
except LinAlgError as error:
    print(f"8 rows: LinAlgError, {error}")
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    found = solve_discrete_lyapunov(turns(10), np.eye(10))
residual = np.abs(turns(10) @ found @ turns(10).T - found + np.eye(10)).max()
print(f"10 rows: {[w.category.__name__ for w in seen]}, a matrix with residual {residual:.1f}")
assert [w.category for w in seen] == [RuntimeWarning] and residual > 0.5, "changed"
PYTHON
