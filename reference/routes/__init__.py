"""Routes to the exact hypergradient, one file each; importing this package registers them."""

from bilevelrl.reference.routes import (
    complex_step,
    finite_difference,
    forward,
    game_complex_step,
    game_finite_difference,
    game_implicit,
    game_reduction,
    game_theorem2,
    game_total_derivative,
    game_unrolled,
    implicit,
    m_sobirl,
    theorem1,
    unrolled,
)

__all__ = [
    "complex_step",
    "finite_difference",
    "forward",
    "game_complex_step",
    "game_finite_difference",
    "game_implicit",
    "game_reduction",
    "game_theorem2",
    "game_total_derivative",
    "game_unrolled",
    "implicit",
    "m_sobirl",
    "theorem1",
    "unrolled",
]
