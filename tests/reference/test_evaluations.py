"""How often a route evaluates what the user wrote: once, and once more under a trace where it differentiates by one."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient, leader_objective, solve_follower
from bilevelrl.reference.arrays import is_differentiated
from bilevelrl.tasks import random_lqr, random_lqr_game, random_markov_game, random_mdp

pytestmark = pytest.mark.exact

THETA = np.array([0.1, -0.2, 0.05])
N = THETA.size
LOW = {"discount_leader": 0.5, "discount_follower": 0.5}
PROBLEMS = {
    "mdp": (random_mdp(states=4, actions=2, parameters=N, seed=0), "tables"),
    "game": (random_markov_game(states=3, leader_actions=2, actions=2, seed=0, **LOW), "policy"),
    "lqr": (random_lqr(states=2, actions=1, radius=0.5, **LOW), "matrices"),
    "lqr game": (random_lqr_game(states=1, radius=0.5, **LOW), "leader_policy"),
}

# Evaluations under a trace. Forward mode takes one per parameter, and one along their sum, which theirs must add up to:
# a function that keeps traced values gives itself away there. Reverse mode through sweeps is checked by one, for θ was
# traced before, and takes one per part, for its θ is split by where it enters.
TRACED = {
    "solve_follower": 0,
    "leader_objective": 0,
    "implicit": 1,
    "m_sobirl": 1,
    "mixed_derivative": 1,
    "theorem1": N + 1,
    "hpgd_form": N + 1,
    "forward": N + 1,
    "theorem2": 1 + N + 1,
    "total_derivative": 1 + N + 1,
    "reduction": 1 + 1,
    "finite_difference": 0,
    "complex_step": 0,
}
# Forward mode looks at the shapes first, and the MDP that a game reduces to evaluates the policy itself. What takes no
# trace asks again at θ, to see that the function knows nothing else.
TWICE = {
    "theorem1", "hpgd_form", "forward", "theorem2", "total_derivative", "reduction",
    "complex_step", "finite_difference",
}  # fmt: skip
SPLIT = {"mdp": 1 + 5, "game": 1 + 2, "lqr": 1 + 5, "lqr game": 1 + 3}
CASES = [(kind, name) for kind in PROBLEMS for name in ("solve_follower", "leader_objective")] + [
    (kind, name)
    for kind, (problem, _) in PROBLEMS.items()
    for name, entry in HYPERGRADIENT_ROUTES.items()
    if type(problem) in entry.kinds and name != "certified"
]


def evaluations(kind, name):
    """Return how often the user's function is called at θ, and how often under a trace.

    It is the second call at θ, for derivatives are checked at the first, and nothing may be kept from it.
    """
    problem, entry = PROBLEMS[kind]
    function, plain, traced = getattr(problem, entry), [], []

    def counting(theta):
        if is_differentiated(theta):
            traced.append(theta)
        elif np.array_equal(theta, THETA):
            plain.append(theta)
        return function(theta)

    problem = replace(problem, **{entry: counting})
    asked = {"solve_follower": solve_follower, "leader_objective": leader_objective}
    for _ in range(2):
        plain.clear()
        traced.clear()
        asked.get(name, partial(hypergradient, route=name))(problem, THETA)
    return len(plain), len([theta for theta in traced if not np.iscomplexobj(theta)])


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_problem_is_evaluated_once_per_call(kind, name):
    plain, traced = evaluations(kind, name)
    assert plain == 1 + (name in TWICE)
    expected = SPLIT[kind] if name in ("unrolled", "closed_form") else TRACED[name]
    assert traced == expected


def test_a_second_evaluation_is_seen(monkeypatch):
    exact = HYPERGRADIENT_ROUTES["implicit"].kinds[type(PROBLEMS["mdp"][0])]

    def again(at, **options):
        return exact(at.problem.at(at.theta), **options)

    monkeypatch.setitem(HYPERGRADIENT_ROUTES["implicit"].kinds, type(PROBLEMS["mdp"][0]), again)
    assert evaluations("mdp", "implicit") == (2, 1)
