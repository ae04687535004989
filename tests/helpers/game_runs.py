"""A random game, and trainings in it, that tests of games share."""

from dataclasses import replace

import numpy as np

from bilevelrl.estimators.training import GameOptions, GameTraining, Run
from bilevelrl.tasks import random_markov_game

GAME = random_markov_game(states=4, leader_actions=3, seed=3, follower_sees_leader_action=True)
EXACT = GameOptions(critic="exact")
THETAS = np.random.default_rng(0).normal(size=(3, *GAME.theta_shape))


def policies_of(game=GAME, thetas=THETAS):
    return np.stack([game.policy_at(theta) for theta in thetas])


def zeros(game=GAME, runs=3):
    return np.zeros((runs, *game.reward_leader.shape))


def runs_of(*methods, seeds=2, rate=0.05, critic=0.2):
    return [Run(method=m, seed=s, learning_rate=rate, critic_step_size=critic) for m in methods for s in range(seeds)]


def training_of(*methods, game=GAME, seeds=2, critic_rate=0.2, rate=0.05, **options):
    shared = {name: options.pop(name) for name in ("iterations", "streams", "steps", "ascent_steps") if name in options}
    more = {name: options.pop(name) for name in ("optimiser", "evaluate_every", "probe") if name in options}
    shared = {"iterations": 4, "streams": 2, "steps": 12, **shared, **more}
    chosen = replace(options.pop("base", GameOptions()), **options)
    return GameTraining(
        problem=game, runs=runs_of(*methods, seeds=seeds, critic=critic_rate, rate=rate), options=chosen, **shared
    )
