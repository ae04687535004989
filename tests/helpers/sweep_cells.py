"""Functions of sweep cells that other processes can import."""

import os
import signal
from pathlib import Path

from bilevelrl.benchmarks.sweeping.sweep_grid import Grid
from bilevelrl.benchmarks.sweeping.sweeps import Sweep, run_sweep
from bilevelrl.estimators.training import Run, Training, train
from bilevelrl.tasks import four_rooms
from bilevelrl.verification.processes.ending import ended


def note(configuration, cell):
    with open(configuration["log"], "a") as file:
        file.write(f"{sorted(cell.items())}\n")


def trained(cell, configuration, checkpoint):
    """A short training that can be killed anywhere."""
    note(configuration, cell)
    runs = [Run(method="bc_hg", seed=cell["seed"], learning_rate=cell["rate"])]
    training = Training(
        problem=four_rooms(temperature=0.003),
        runs=runs,
        iterations=configuration["iterations"],
        steps=30,
        evaluate_every=1,
    )
    history = train(training, checkpoint=checkpoint, checkpoint_every=2)
    return [
        {"iteration": int(k), "objective": float(value)}
        for k, value in zip(history.iterations, history.objective[:, 0], strict=True)
    ]


def doubled(cell, configuration, checkpoint):
    note(configuration, cell)
    return [{"double": 2 * cell["x"]}]


def failing(cell, configuration, checkpoint):
    note(configuration, cell)
    if cell["x"] == 2 and not Path(configuration["mended"]).exists():
        raise ValueError("this cell is broken")
    return [{"double": 2 * cell["x"]}]


def deadly(cell, configuration, checkpoint):
    note(configuration, cell)
    if cell["x"] == 2 and not Path(configuration["mended"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return [{"double": 2 * cell["x"]}]


def training_sweep(folder, iterations=60):
    folder = Path(folder)
    configuration = {"iterations": iterations, "log": str(folder.parent / f"{folder.name}.log")}
    grid = Grid(axes={"rate": [0.1, 0.2], "seed": [0, 1]})
    return Sweep(function=trained, grid=grid, folder=folder, configuration=configuration)


def main(folder):
    """What the test kills."""
    run_sweep(training_sweep(folder))


def endless(cell, configuration, checkpoint):
    """Work that ends with its process only."""
    while True:
        sum(range(10**5))


def main_apart():
    """What the test interrupts: two cells in two processes, as a command runs them."""
    sweep = Sweep(function=endless, grid=Grid(axes={"x": [1, 2, 3]}), folder=Path("sweep"))
    return ended(lambda: len(run_sweep(sweep, backend="joblib", workers=2).rows))
