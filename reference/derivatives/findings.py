"""What is wrong with a derivative, and the sentence that says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.derivatives.probes import check_direction

__all__ = ["Finding", "describe"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a claimed derivative.

    Attributes
    ----------
    kind : str
        "kink", "jump", "edge" (no values to both sides), "stairs", "random"
        (another value at the same θ), "not finite" or "wrong".
    index : int
        Flat index of the entry, -1 for a weighted sum of all.
    claimed, found, error : float
        The claim, what differences show, and their own error.
    along : array or None
        The direction, like θ; None: `check_direction`.
    """

    kind: str
    index: int
    claimed: float
    found: float
    error: float
    along: FloatArray | None = None


_REASONS = {
    "the complex step": (
        "the function is not analytic (abs, conj, max) or drops the imaginary part (real, a cast); use another route"
    ),
    "constant": (
        "the trace of θ is lost in it (plain NumPy on object arrays, a cast to float, `.item()`, values kept from "
        "another call), or an `if` on values decides; write it with autograd.numpy, or give the closed form"
    ),
    "autograd": (
        "a rule of the automatic differentiation library that is wrong for this call (autograd 1.9.1 has one: "
        "linalg.solve of a stack of matrices and one vector; write b[..., None]), an abs, where, clip or sign exactly "
        "at its branch in a function that is smooth there (softplus from max and abs, at 0: use logaddexp), or plain "
        "NumPy or an `if` on values on part of the way; rewrite that step or give the closed form"
    ),
    "not finite": (
        "the function is differentiable there and autograd's rule for one of its steps is not (norm(x)**2 at 0, prod "
        "with a factor 0, where() with an infinite slope in the branch not taken); rewrite it or give the closed form"
    ),
}


def describe(label: str, name: str, shape: tuple[int, ...], finding: Finding, source: str, theta: FloatArray) -> str:
    """Return the message of a finding: the table, the direction, both numbers and the likely reason.

    Parameters
    ----------
    label, name, shape
        The function and its table.
    finding
        What is wrong.
    source
        "autograd", "constant" (not traced at all) or the name of a closed form.
    theta
        Where.
    """
    entry = name
    if finding.index >= 0 and shape:
        entry = f"{name}{[int(i) for i in np.unravel_index(finding.index, shape)]}"
    elif shape:
        entry = f"a weighted sum of {name}"
    point = np.array2string(theta, threshold=8)
    along = check_direction(theta) if finding.along is None else finding.along
    direction = np.array2string(along, threshold=8, precision=3)
    start = f"{label}(theta): the derivative of {entry} at theta={point} along {direction}"
    if finding.kind == "kink":
        return (
            f"{start} does not exist: slopes to the two sides differ by {finding.error:.6g} however small the step, "
            "a kink (or a jump, or an infinite slope) exactly at this θ; expected a differentiable function; move θ "
            "off the kink or smooth the function"
        )
    if finding.kind == "jump":
        return (
            f"{start} does not exist: the slope grows without end as steps shrink, a jump or an infinite slope exactly "
            "at this θ; expected a differentiable function; move θ off the jump or smooth the function"
        )
    if finding.kind == "edge":
        return (
            f"{start} cannot be formed: there are no finite values on one side of this θ, the edge of where the "
            "function is defined, or a kink with an infinite slope; expected a differentiable function; move θ inside"
        )
    if finding.kind == "random":
        return (
            f"{label}(theta): {name} is another array when it is asked for again at the same theta={point}; expected a "
            "function of θ alone: draw random numbers once, before it, and keep nothing between calls"
        )
    if finding.kind == "stairs":
        return (
            f"{start} is {finding.claimed:.6g} at every θ nearby, and from one to the next it is {finding.found:.6g}: "
            "it moves in steps; expected a differentiable function; likely reason: an argument that is rounded, a "
            "cache whose key is a rounded θ, or a lookup in a grid; leave out the rounding, key the cache by θ itself, "
            "or interpolate; verify_derivatives=False turns this check off"
        )
    reason = _REASONS.get("not finite" if finding.kind == "not finite" else source)
    if reason is None:
        reason = f"{source} is wrong, or belongs to another function"
    claimed = "0 (the table does not depend on θ)" if source == "constant" else f"{finding.claimed:.10g} by {source}"
    return (
        f"{start} is {claimed} and {finding.found:.10g} by differences (± {finding.error:.1g}); likely reason: "
        f"{reason}. route='finite_difference' needs no derivative of the function; verify_derivatives=False turns "
        "this check off"
    )
