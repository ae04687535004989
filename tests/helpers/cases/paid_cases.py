"""Problems whose followers are paid."""

import numpy as np

from bilevelrl.estimators import Context
from bilevelrl.reference import solve_follower
from bilevelrl.tasks import layered_mdp, random_mdp

THETA = np.array([0.3, -0.2, 0.1])

LAYERED = layered_mdp(seed=0, discount_leader=0.9)

ENDING = random_mdp(
    states=3, actions=2, parameters=3, seed=1, termination=0.2, discount_leader=0.9, discount_follower=0.9
)

VARIANTS = [(2, "independent"), (2, "common"), (1, "independent"), (1, "common")]

DRAWS = 40_000

FIVE = 5.0


def context_of(problem, seed=0):
    return Context(
        problem=problem, theta=THETA, follower=solve_follower(problem, THETA), rng=np.random.default_rng(seed)
    )
