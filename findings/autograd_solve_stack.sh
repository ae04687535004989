#!/usr/bin/env bash
# autograd 1.9.1 with numpy 2.4.6: the derivative of linalg.solve(stack of matrices, one vector) is wrong, without a word.
# The value is right (numpy solves every matrix of the stack for the vector). The gradient with respect to a θ of two entries
# comes back with shape (2, 2, 2); central differences and the complex step of the same function agree on two numbers.
# Seen: autograd (2, 2, 2) with first row [.08, .8]; differences [1.2, 2.975]. Here: derivatives are held against differences.
# Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "autograd==1.9.1" "numpy==2.4.6"
"$work/venv/bin/python" - <<'PYTHON'
import autograd
import autograd.numpy as anp
import numpy as np

matrices = np.array([[[2.0, 1.0], [1.0, 3.0]], [[4.0, 1.0], [0.0, 5.0]]])
features = np.array([[1.0, 0.5], [0.2, 2.0]])
weights = np.array([[1.0, 2.0], [3.0, 4.0]])
theta = np.array([0.3, 0.7])


def weighted(point):
    return anp.sum(weights * anp.linalg.solve(matrices, anp.dot(features, point)))


found = autograd.grad(weighted)(theta)
step = 1e-6
differences = np.array([(weighted(theta + step * e) - weighted(theta - step * e)) / (2.0 * step) for e in np.eye(2)])
exact = np.array([np.sum(weights * np.linalg.solve(matrices, features @ e)) for e in np.eye(2)])  # linear in θ
print("autograd shape", found.shape, "first row", np.ravel(found)[:2], "differences", differences, "exact", exact)
assert np.allclose(differences, exact, rtol=1e-8)
assert found.shape == (2, 2, 2), "changed: the gradient has another shape"
assert np.allclose(np.ravel(found)[:2], [0.08, 0.8])
PYTHON
