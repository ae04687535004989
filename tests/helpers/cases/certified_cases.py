"""What enclosures are read by."""

from dataclasses import replace

import numpy as np

from bilevelrl.tasks import chain, random_markov_game, random_mdp, toy_markov_game
from bilevelrl.tasks.generators.mdps import absorbing_mdp, periodic_mdp
from bilevelrl.tasks.scenarios.reference_data import reference_problem

TABULAR = {
    "dense": random_mdp(states=4, actions=2, parameters=3, seed=3),
    "cold": random_mdp(states=4, actions=3, parameters=3, seed=4, temperature=1e-3),
    "corridor": chain(states=6),
    "absorbing": absorbing_mdp(),
    "periodic": periodic_mdp(discount_follower=0.99),
    "game": random_markov_game(),
    "unseen": random_markov_game(follower_sees_leader_action=False),
    "toy": toy_markov_game(bonus=1.0),
}


def a_theta(problem):
    return 0.3 * np.cos(np.arange(problem.theta_shape[0], dtype=np.float64))


def form(**changes):
    return replace(reference_problem("mdp_one_state").closed_form, **changes)
