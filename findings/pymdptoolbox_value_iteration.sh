#!/usr/bin/env bash
# pymdptoolbox 4.0b3: ValueIteration.V is not the value function, whatever epsilon. It stops when the span of the change is small, which
# is enough for the policy; the constant that all states still gain is not added to V.
# Seen: its own forest example, discount .9: V(0) = 5.05197 after 4 sweeps for epsilon .01, 1e-6 and 1e-12, where the value is 26.244; its
# PolicyIteration gives 26.244. Safe use: evaluate the policy it returns. Here solvers stop by a bound on the value itself, and
# `solve_follower` at a low temperature gives what `from_arrays` reads. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "pymdptoolbox==4.0b3" "scipy==1.17.1" "numpy==2.4.6"
"$work/venv/bin/python" - <<'PYTHON'
import mdptoolbox.example
import mdptoolbox.mdp
import numpy as np

transition, reward = mdptoolbox.example.forest()
value = np.zeros(3)
for _ in range(2000):
    value = (reward + 0.9 * np.einsum("ast,t->sa", transition, value)).max(axis=1)
for epsilon in (1e-2, 1e-6, 1e-12):
    iteration = mdptoolbox.mdp.ValueIteration(transition, reward, 0.9, epsilon=epsilon)
    iteration.run()
    print(f"epsilon {epsilon:.0e}: V = {np.round(iteration.V, 5)} after {iteration.iter} sweeps; the value is {np.round(value, 5)}")
    assert np.allclose(iteration.V, [5.05197, 8.29197, 12.29197]), "changed"
policy = mdptoolbox.mdp.PolicyIteration(transition, reward, 0.9)
policy.run()
assert np.allclose(policy.V, value)
PYTHON
