"""Routes to the exact hypergradient, one file each; importing this package registers them."""

from bilevelrl.reference.routes import (
    closed_form,
    complex_step,
    finite_difference,
    forward,
    implicit,
    m_sobirl,
    mixed_derivative,
    reduction,
    theorem1,
    theorem2,
    total_derivative,
    unrolled,
)

__all__ = [
    "closed_form",
    "complex_step",
    "finite_difference",
    "forward",
    "implicit",
    "m_sobirl",
    "mixed_derivative",
    "reduction",
    "theorem1",
    "theorem2",
    "total_derivative",
    "unrolled",
]
