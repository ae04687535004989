"""Routes to the exact hypergradient, one file each; importing this package registers them."""

from bilevelrl.reference.routes import finite_difference, implicit
from bilevelrl.reference.routes.game import complex_step as game_complex_step
from bilevelrl.reference.routes.game import reduction as game_reduction
from bilevelrl.reference.routes.game import theorem2 as game_theorem2
from bilevelrl.reference.routes.game import total_derivative as game_total_derivative
from bilevelrl.reference.routes.game import unrolled as game_unrolled
from bilevelrl.reference.routes.lqr import autograd_unrolled as lqr_autograd
from bilevelrl.reference.routes.tabular import (
    complex_step,
    forward,
    m_sobirl,
    theorem1,
    unrolled,
)

__all__ = [
    "complex_step",
    "finite_difference",
    "forward",
    "game_complex_step",
    "game_reduction",
    "game_theorem2",
    "game_total_derivative",
    "game_unrolled",
    "implicit",
    "lqr_autograd",
    "m_sobirl",
    "theorem1",
    "unrolled",
]
