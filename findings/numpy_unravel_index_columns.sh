#!/usr/bin/env bash
# NumPy 2.4.6 (and 2.3.5, 2.4.0; not 1.26.4, 2.0.2, 2.2.6): unravel_index of a large array of shape (n, 1) returns wrong coordinates
# without a word. The same indices as a flat array, or as a row, come out right, and 1,000 of them as a column do too. Reported as
# numpy/numpy#31980, which is closed; the newest release at the time of writing still has it.
# Seen: of 10,000 indices into (2, 3, 4), 904, 1204 and 1356 coordinates differ. Safe use: pass flat indices and reshape. Here the
# training of games draws its steps so. Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "numpy==2.4.6"
"$work/venv/bin/python" -W error - <<'PYTHON'
import numpy as np

shape = (2, 3, 4)
for count, expected in ((1000, [0, 0, 0]), (10_000, [904, 1204, 1356])):
    indices = np.arange(count) % 24
    right = np.unravel_index(indices, shape)
    assert np.array_equal(np.ravel_multi_index(right, shape), indices)
    row = np.unravel_index(indices[None, :], shape)
    assert all(np.array_equal(r[0], x) for r, x in zip(row, right))
    column = np.unravel_index(indices[:, None], shape)
    wrong = [int((c[:, 0] != x).sum()) for c, x in zip(column, right)]
    print(f"{count} indices as a column: wrong coordinates per axis {wrong}")
    assert wrong == expected, "changed"
PYTHON
