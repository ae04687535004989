#!/usr/bin/env bash
# Gymnasium 1.4.0: Taxi-v4 made with fickle_passenger=True keeps, in `P`, the dynamics of the passenger who never changes its mind:
# the new destination is drawn in `step`, outside the table, and whether it will be is no part of the state. A planner that reads `P`
# plans for another problem without a word.
# Seen: with the passenger picked up, the first move lands outside every outcome that P lists in 574 of 2000 seeded episodes; the two
# tables are equal. Safe use: do not plan from P with this option. Here `from_gymnasium` refuses it, and holds a step from every pair
# against the table. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "gymnasium==1.4.0" "numpy==2.4.6"
"$work/venv/bin/python" - <<'PYTHON'
import gymnasium

PICK_UP, SOUTH = 4, 0
fickle = gymnasium.make("Taxi-v4", fickle_passenger=True).unwrapped
outside = 0
for seed in range(2000):
    fickle.reset(seed=seed)
    fickle.s = fickle.encode(0, 0, 0, 1)
    fickle.step(PICK_UP)
    listed = [int(outcome[1]) for outcome in fickle.P[fickle.s][SOUTH]]
    outside += int(fickle.step(SOUTH)[0]) not in listed
print(f"first moves that P does not list: {outside} of 2000")
assert fickle.P == gymnasium.make("Taxi-v4").unwrapped.P, "changed: the tables differ"
assert outside == 574, "changed"
PYTHON
