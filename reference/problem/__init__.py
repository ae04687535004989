"""What a problem is, what may be asked of it, and for which objective; each kind answers in its own folder."""

from bilevelrl.reference.problem.follower import Follower, FollowerMethod, Status, solve
from bilevelrl.reference.problem.linearisation import (
    ComplexParts,
    Linearisation,
    SplitObjective,
    TracedObjective,
    closed_form_objective,
    complex_parts,
    linearise,
    nudged_slopes,
    split_objective,
    unrolled_objective,
)
from bilevelrl.reference.problem.objective import INFINITE_HORIZON, Objective, evaluate_objective
from bilevelrl.reference.problem.on_demand import AnswerBounds, error_bound, when_read
from bilevelrl.reference.problem.protocol import (
    GAME_PARTS,
    PARTS,
    TERMS,
    At,
    Part,
    Problem,
    Question,
    Term,
    TransitionBatch,
    evaluated,
)

__all__ = [
    "GAME_PARTS",
    "INFINITE_HORIZON",
    "PARTS",
    "TERMS",
    "AnswerBounds",
    "At",
    "ComplexParts",
    "Follower",
    "FollowerMethod",
    "Linearisation",
    "Objective",
    "Part",
    "Problem",
    "Question",
    "SplitObjective",
    "Status",
    "Term",
    "TracedObjective",
    "TransitionBatch",
    "closed_form_objective",
    "complex_parts",
    "error_bound",
    "evaluate_objective",
    "evaluated",
    "linearise",
    "nudged_slopes",
    "solve",
    "split_objective",
    "unrolled_objective",
    "when_read",
]
