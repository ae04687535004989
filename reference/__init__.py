"""The truth: models, follower solvers, exact objectives, and exact hypergradients by independent routes.

Sign and order conventions of the whole package: both players maximise; transition tables are indexed
`[state_t, action_t, state_tp1]`; `temperature` is β; discounts of leader and follower are always named apart.
"""

from bilevelrl.reference import routes as _routes  # registers the routes
from bilevelrl.reference.certified import certified_hypergradient
from bilevelrl.reference.configurable_mdp import ConfigurableMDP, check_derivatives
from bilevelrl.reference.follower import (
    Status,
    SuboptimalFollower,
    TabularFollower,
    solve_follower,
    solve_followers,
)
from bilevelrl.reference.leader import leader_action_values, tabular_leader_objective
from bilevelrl.reference.problem import PARTS, TERMS, FollowerSolution, Part, Problem, Term
from bilevelrl.reference.random_streams import named_stream
from bilevelrl.reference.registry import (
    HYPERGRADIENT_ROUTES,
    Hypergradient,
    Route,
    hypergradient,
    leader_objective,
    register_objective,
    register_route,
)
from bilevelrl.reference.tables import Tables
from bilevelrl.reference.transitions import SparseTransition

__all__ = [
    "HYPERGRADIENT_ROUTES",
    "PARTS",
    "TERMS",
    "ConfigurableMDP",
    "FollowerSolution",
    "Hypergradient",
    "Part",
    "Problem",
    "Route",
    "SparseTransition",
    "Status",
    "SuboptimalFollower",
    "Tables",
    "TabularFollower",
    "Term",
    "certified_hypergradient",
    "check_derivatives",
    "hypergradient",
    "leader_action_values",
    "leader_objective",
    "named_stream",
    "register_objective",
    "register_route",
    "solve_follower",
    "solve_followers",
]

register_objective(ConfigurableMDP)(tabular_leader_objective)
del _routes
