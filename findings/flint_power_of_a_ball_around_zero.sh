#!/usr/bin/env bash
# python-flint 0.9.0 (FLINT 3.6.0): a real ball whose midpoint is exactly zero, raised to a positive integer, is nan; with a midpoint of 1e-300,
# as a product, or as a complex ball, it is right. Reported as flintlib/python-flint#8 and #426, both open.
# Seen: arb(0, 0.5)**2 is nan, arb(1e-300, 0.5)**2 and arb(0, 0.5)*arb(0, 0.5) are [+/- 0.251]. A nan is no wrong enclosure, but what is
# computed from it says nothing. Safe use: multiply. Here balls are multiplied, and an enclosure that is not finite raises.
# Fails when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "python-flint==0.9.0"
"$work/venv/bin/python" -W error - <<'PYTHON'
from flint import acb, arb

ball = arb(0, 0.5)
print(f"power {ball**2}, product {ball * ball}, off centre {arb(1e-300, 0.5) ** 2}, complex {acb(ball) ** 2}")
assert not (ball**2).is_finite() and not (ball**1).is_finite(), "changed"
assert (ball * ball).is_finite() and (arb(1e-300, 0.5) ** 2).is_finite() and acb(ball).pow(2).real.is_finite()
PYTHON
