"""Tables 2 and 3 of Kudo et al. (2026), arXiv:2603.14867: constants of the continuous tasks, read from what is run.

Published values are those of the released configurations; where the text says otherwise, the tasks' pages say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bilevelrl.benchmarks.paper.building.training import CRITICS, LEARNING_RATES, SELECTED, building_training
from bilevelrl.benchmarks.paper.toy_game.tables import constants_table
from bilevelrl.benchmarks.sweeping.figures import Figure, FigureOptions, Row
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators.training import METHODS, LQRGameTraining, NetworkCritics, lqr_game_training
from bilevelrl.reference import ConfigurableLQR
from bilevelrl.tasks import lqr_game

__all__ = ["FIGURES", "building_constants", "lqr_game_constants"]


def building_constants() -> list[Row]:
    """Return the building's constants beside the published ones.

    Examples
    --------
    >>> all(row["ours"] == row["published"] for row in building_constants())
    True
    """
    training = building_training(method="bc_hg", learning_rate=SELECTED["bc_hg"])
    problem, critic = training.problem, CRITICS["published_network"]()
    assert isinstance(critic, NetworkCritics)
    matrices = problem.matrices_at(np.zeros(8))
    return _rows(
        "building",
        {
            "discount of the leader": problem.discount_leader,
            "discount of the follower": problem.discount_follower,
            "follower's temperature": problem.temperature,
            "standard deviation of the noise": _root(matrices.noise_covariance),
            "standard deviation of the first state": _root(matrices.initial_covariance),
            "steps of an episode": training.steps,
            "episodes per outer iteration": training.streams,
            "outer iterations": training.iterations,
            "seeds": len(training.runs),
            "learning rates tried": _words(LEARNING_RATES),
            **{f"selected for {METHODS[ConfigurableLQR][name].title}": rate for name, rate in SELECTED.items()},
            "blocks of θ shortened one by one": _words(training.clip_blocks),
            "largest norm of a block": training.largest_norm,
            "scale of the first θ": training.start_scale,
            "steps of the critic per outer iteration": critic.steps,
            "critic's learning rate (Adam)": critic.learning_rate,
            "hidden units of the critic's two layers": critic.hidden,
            "actions sampled for a state's value": critic.actions,
        },
    )


def lqr_game_constants() -> list[Row]:
    """Return the LQR game's constants beside the published ones.

    Examples
    --------
    >>> all(row["ours"] == row["published"] for row in lqr_game_constants())
    True
    """
    training: LQRGameTraining = lqr_game_training(lqr_game(), "bc_hg", seeds=[0], published=True)
    game, options = training.problem, training.options
    assert game.leader_covariance is not None
    return _rows(
        "LQR game",
        {
            "discount of the leader": game.discount_leader,
            "discount of the follower": game.discount_follower,
            "follower's temperature": game.temperature,
            "target": _words(game.target),
            "widths of the leader's reward": _words(np.sqrt(np.diag(game.width)).round(12)),
            "first state": _words(game.initial_mean),
            "standard deviation of the leader's policy": _root(game.leader_covariance),
            "steps of an episode": training.steps,
            "episodes per outer iteration": training.streams,
            "scale of the first θ": training.start_scale,
            "outer iterations with random leader actions": options.exploring_iterations,
            "actor steps of BC-HG and Naive-PGD (on-policy)": training.ascent_steps,
            "critic steps": options.critic_steps,
            "minibatch of the critic": options.critic_minibatch,
            "minibatch of the actor": options.minibatch,
            "actor's learning rate (Adam)": training.runs[0].learning_rate,
            "critic's learning rate (Adam)": options.critic_rate,
            "share of the target networks": options.target_rate,
            "largest norm of BC-HG's directions": training.largest_norm,
        },
    )


def _root(covariance: Any) -> float:
    """Return the standard deviation behind a multiple of the identity."""
    variance = float(covariance[0, 0])
    assert np.array_equal(covariance, variance * np.eye(len(covariance)))
    return round(float(np.sqrt(variance)), 12)


def _words(values: Sequence[Any] | Any) -> str:
    return " ".join(str(np.asarray(value).item()) for value in values)


def _rows(task: str, ours: Mapping[str, Any]) -> list[Row]:
    with resources.as_file(resources.files("bilevelrl.benchmarks") / "data" / "paper_lqr_constants.csv") as path:
        published = {row["constant"]: row["published"] for row in read_table(Path(path)) if row["task"] == task}
    assert set(ours) == set(published)
    return [{"constant": name, "ours": value, "published": published[name]} for name, value in ours.items()]


def _table(name: str, title: str, constants: Callable[[], list[Row]]) -> Figure:
    def draw(folder: Path, rows: Sequence[Row], options: FigureOptions) -> list[Path]:
        return []

    return Figure(
        name=name,
        title=title,
        seeds=1,
        iterations=1,
        quick_seeds=1,
        quick_iterations=1,
        rows=lambda folder, options, run: constants(),
        table=lambda rows, options: constants_table(rows),
        draw=draw,
    )


FIGURES = (
    _table("table2", "building: constants of the runs beside the published ones", building_constants),
    _table("table3", "LQR game: constants of the runs beside the published ones", lqr_game_constants),
)
