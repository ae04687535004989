"""Routes to the exact hypergradient, one file each; importing this package registers them."""

from bilevelrl.reference.routes import (
    complex_step,
    finite_difference,
    forward,
    implicit,
    m_sobirl,
    theorem1,
    unrolled,
)

__all__ = ["complex_step", "finite_difference", "forward", "implicit", "m_sobirl", "theorem1", "unrolled"]
