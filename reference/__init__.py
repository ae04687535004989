"""The truth: models, follower solvers, exact objectives, and exact hypergradients by independent routes.

Sign and order conventions of the whole package: both players maximise; transition tables are indexed
`[state_t, action_t, state_tp1]`; `temperature` is β; discounts of leader and follower are always named apart.
"""

from bilevelrl.reference import errors
from bilevelrl.reference import routes as _routes  # registers the routes
from bilevelrl.reference.best_response import solve_follower
from bilevelrl.reference.certified import certified_hypergradient
from bilevelrl.reference.game.leader_policies import TabularSoftmaxPolicy
from bilevelrl.reference.game.model import MarkovGame
from bilevelrl.reference.lqr.matrices import LQRMatrices
from bilevelrl.reference.lqr.model import ConfigurableLQR
from bilevelrl.reference.lqr_game.model import LQRGame
from bilevelrl.reference.problem import Problem
from bilevelrl.reference.random_streams import named_stream
from bilevelrl.reference.registry import (
    HYPERGRADIENT_ROUTES,
    Hypergradient,
    hypergradient,
    leader_objective,
)
from bilevelrl.reference.tabular.follower import TabularFollower
from bilevelrl.reference.tabular.model import ConfigurableMDP, check_derivatives
from bilevelrl.reference.tabular.stacked import gradients as _stacked  # registers the answer of many θ at once
from bilevelrl.reference.tabular.tables import Tables
from bilevelrl.reference.tabular.transitions import SparseTransition

__all__ = [
    "HYPERGRADIENT_ROUTES",
    "ConfigurableLQR",
    "ConfigurableMDP",
    "Hypergradient",
    "LQRGame",
    "LQRMatrices",
    "MarkovGame",
    "Problem",
    "SparseTransition",
    "Tables",
    "TabularFollower",
    "TabularSoftmaxPolicy",
    "certified_hypergradient",
    "check_derivatives",
    "errors",
    "hypergradient",
    "leader_objective",
    "named_stream",
    "solve_follower",
]

del _routes, _stacked
