"""Trainings of the toll game."""

from bilevelrl.estimators.training import (
    METHODS,
    Run,
    Training,
    published_simulator,
)
from bilevelrl.reference import (
    ConfigurableMDP,
)
from bilevelrl.tasks import four_rooms


def every_method(seeds=2, rates=(0.1, 0.5)):
    return [
        Run(method=name, seed=seed, learning_rate=rate, critic_step_size=0.5 if rate == 0.1 else 0.9)
        for name in METHODS[ConfigurableMDP]
        for seed in range(seeds)
        for rate in rates
    ]


def training(**options):
    problem = four_rooms(temperature=0.003)
    simulator = published_simulator(four_rooms(temperature=0.003, kernel="paper"))
    settings = {"iterations": 4, "streams": 2, "steps": 60, "evaluate_every": 2, "entropy": 5}
    given = {"problem": problem, "simulator": simulator, "runs": every_method(), **settings, **options}
    return Training(**given)
