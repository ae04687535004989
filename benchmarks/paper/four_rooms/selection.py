"""Choosing step sizes on Four-Rooms, over the published grids, on other seeds than are reported.

The paper (Kudo et al. 2026, arXiv:2603.14867, Appendix C) takes the setting with the best mean over the last tenth of
10,000 outer iterations, on the seeds that it reports. Here the search has two stages and seeds of its own: all settings
for 4000 iterations, then finalists for 10,000. One short stage would not do: after 1000 iterations most settings
are still on the plateau that they start on, and the largest learning rate wins because it has left first. Three seeds
would not do either: with larger batches a setting decides how many runs end in the trap, not where the others end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators.training import METHODS, Run
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.errors import InvalidInputError

__all__ = [
    "SELECTION_SEEDS",
    "UNTUNED",
    "Setting",
    "choose",
    "chosen_settings",
    "finalists",
    "selection_runs",
    "settings_of",
]

LEARNING_RATES = (0.5, 0.1, 0.05, 0.01)
CRITIC_STEP_SIZES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)

SELECTION_SEEDS = (100, 101, 102, 103, 104, 105)
"""Seeds that settings are chosen on; reported seeds count from 0."""

SELECTION_SHARE = 0.1
"""Of a run's end, whose mean counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Step sizes of a method: of the ascent, and α of its SARSA critic where it has one."""

    learning_rate: float = 0.1
    critic_step_size: float = 0.5


UNTUNED: Mapping[str, Setting] = MappingProxyType(
    {name: Setting(learning_rate=0.5 if name == "exact" else 0.1) for name in METHODS[ConfigurableMDP]}
)
"""Settings without a search."""


def settings_of(method: str) -> tuple[Setting, ...]:
    """Return the published grid of a method: 24 settings with a SARSA critic, else 4.

    Examples
    --------
    >>> len(settings_of("bc_hg")), len(settings_of("hpgd_mc"))
    (24, 4)
    """
    steps = (
        CRITIC_STEP_SIZES if METHODS[ConfigurableMDP][method].critic == "sarsa" else (UNTUNED[method].critic_step_size,)
    )
    return tuple(Setting(learning_rate=rate, critic_step_size=step) for rate in LEARNING_RATES for step in steps)


def selection_runs(settings: Mapping[str, Sequence[Setting]], seeds: Mapping[str, int]) -> list[Run]:
    """Return a run of every setting of every method, for so many of the selection seeds.

    Examples
    --------
    >>> settings = {"bc_hg": settings_of("bc_hg"), "naive_pgd": settings_of("naive_pgd")}
    >>> len(selection_runs(settings, {"bc_hg": 3, "naive_pgd": 1}))
    76
    """
    return [
        Run(
            method=method,
            seed=seed,
            learning_rate=setting.learning_rate,
            critic_step_size=setting.critic_step_size,
        )
        for method, every in settings.items()
        for setting in every
        for seed in SELECTION_SEEDS[: seeds[method]]
    ]


def mean_scores(scores: Sequence[Mapping[str, Any]]) -> dict[str, dict[Setting, float]]:
    """Return {method: {setting: mean score over seeds}}, best first; of equal ones the first stays first.

    Parameters
    ----------
    scores
        Rows with `method`, `learning_rate`, `critic_step_size`, `seed` and `score`.

    Raises
    ------
    InvalidInputError
        If a score is not finite, or settings of a method were not run on the same seeds.
    """
    by_setting: dict[str, dict[Setting, dict[int, float]]] = {}
    for row in scores:
        if not np.isfinite(row["score"]):
            raise InvalidInputError(f"score={row['score']!r} of {row['method']}: expected a finite number")
        setting = Setting(learning_rate=row["learning_rate"], critic_step_size=row["critic_step_size"])
        by_setting.setdefault(row["method"], {}).setdefault(setting, {})[int(row["seed"])] = float(row["score"])
    found = {}
    for method, settings in by_setting.items():
        if len({tuple(sorted(seeds)) for seeds in settings.values()}) > 1:
            raise InvalidInputError(
                f"scores of {method!r}: expected every setting on the same seeds; run what is missing"
            )
        means = {setting: float(np.mean(list(seeds.values()))) for setting, seeds in settings.items()}
        found[method] = dict(sorted(means.items(), key=lambda item: -item[1]))
    return found


def choose(scores: Sequence[Mapping[str, Any]]) -> dict[str, Setting]:
    """Return each method's setting with the best mean score; see `mean_scores`.

    Examples
    --------
    >>> row = {"method": "bc_hg", "critic_step_size": 0.5, "seed": 100}
    >>> rows = [{**row, "learning_rate": 0.5, "score": 0.2}, {**row, "learning_rate": 0.1, "score": 0.3}]
    >>> choose(rows)["bc_hg"]
    Setting(learning_rate=0.1, critic_step_size=0.5)
    """
    return {method: next(iter(settings)) for method, settings in mean_scores(scores).items()}


def finalists(
    scores: Sequence[Mapping[str, Any]], *, each: int = 2, smallest: float = 0.05
) -> dict[str, list[Setting]]:
    """Return the best critics' step sizes for every learning rate, for the second stage.

    Parameters
    ----------
    scores
        As in `mean_scores`.
    each
        Settings of one learning rate.
    smallest
        Learning rate; lower ones are still on the plateau at the end.
    """
    found: dict[str, list[Setting]] = {}
    for method, settings in mean_scores(scores).items():
        found[method] = []
        for rate in LEARNING_RATES:
            own = [setting for setting in settings if setting.learning_rate == rate]
            found[method] += own[:each] if rate >= smallest else []
    return found


def chosen_settings(temperature: float, batch_steps: int = 100) -> dict[str, Setting]:
    """Return the settings that the search chose in a panel; where it has none, as with 100 steps, else `UNTUNED`.

    Examples
    --------
    >>> chosen_settings(0.002) == dict(UNTUNED)
    True
    >>> chosen_settings(0.003, 400)["naive_pgd"] == chosen_settings(0.003)["naive_pgd"]
    True
    """
    with resources.as_file(resources.files("bilevelrl.benchmarks") / "data" / "four_rooms_settings.csv") as path:
        rows = read_table(Path(path))
    found: dict[int, dict[str, Setting]] = {100: {}, batch_steps: {}}
    for row in rows:
        if row["temperature"] == temperature and row["batch_steps"] in found:
            found[row["batch_steps"]][row["method"]] = Setting(
                learning_rate=row["learning_rate"], critic_step_size=row["critic_step_size"] or 0.5
            )
    return {**UNTUNED, **found[100], **found[batch_steps]}
