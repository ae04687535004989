"""Choosing step sizes on Four-Rooms, over the published grids, on other seeds than are reported.

The paper (Kudo et al. 2026, arXiv:2603.14867, Appendix C) takes the setting with the best mean over the last tenth of
all outer iterations, on the seeds that it reports. Here runs are shorter, and on seeds of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bilevelrl.estimators.training import METHODS, Run
from bilevelrl.reference.errors import InvalidInputError

__all__ = ["SELECTION_SEEDS", "UNTUNED", "Setting", "choose", "selection_runs", "settings_of"]

LEARNING_RATES = (0.5, 0.1, 0.05, 0.01)
CRITIC_STEP_SIZES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)

SELECTION_SEEDS = (100, 101, 102)
"""Seeds that settings are chosen on; reported seeds count from 0."""

SELECTION_SHARE = 0.1
"""Of a run's end, whose mean counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Step sizes of a method: of the ascent, and α of its SARSA critic where it has one."""

    learning_rate: float = 0.1
    critic_step_size: float = 0.5


UNTUNED: Mapping[str, Setting] = MappingProxyType(
    {name: Setting(learning_rate=0.5 if name == "exact" else 0.1) for name in METHODS}
)
"""Settings without a search."""


def settings_of(method: str) -> tuple[Setting, ...]:
    """Return the published grid of a method: 24 settings with a SARSA critic, else 4.

    Examples
    --------
    >>> len(settings_of("bc_hg")), len(settings_of("hpgd_mc"))
    (24, 4)
    """
    steps = CRITIC_STEP_SIZES if METHODS[method].critic == "sarsa" else (UNTUNED[method].critic_step_size,)
    return tuple(Setting(learning_rate=rate, critic_step_size=step) for rate in LEARNING_RATES for step in steps)


def selection_runs(seeds: Mapping[str, int]) -> list[Run]:
    """Return a run of every setting, for so many of the selection seeds, by method.

    Examples
    --------
    >>> len(selection_runs({"bc_hg": 3, "naive_pgd": 1}))
    76
    """
    return [
        Run(
            method=method,
            seed=seed,
            learning_rate=setting.learning_rate,
            critic_step_size=setting.critic_step_size,
        )
        for method, count in seeds.items()
        for setting in settings_of(method)
        for seed in SELECTION_SEEDS[:count]
    ]


def choose(scores: Sequence[Mapping[str, Any]]) -> dict[str, Setting]:
    """Return each method's setting with the best mean score over seeds; of equal ones the first.

    Parameters
    ----------
    scores
        Rows with `method`, `learning_rate`, `critic_step_size`, `seed` and `score`.

    Raises
    ------
    InvalidInputError
        If a score is not finite, or settings of a method were not run on the same seeds.

    Examples
    --------
    >>> row = {"method": "bc_hg", "critic_step_size": 0.5, "seed": 100}
    >>> rows = [{**row, "learning_rate": 0.5, "score": 0.2}, {**row, "learning_rate": 0.1, "score": 0.3}]
    >>> choose(rows)["bc_hg"]
    Setting(learning_rate=0.1, critic_step_size=0.5)
    """
    by_setting: dict[str, dict[Setting, dict[int, float]]] = {}
    for row in scores:
        if not np.isfinite(row["score"]):
            raise InvalidInputError(f"score={row['score']!r} of {row['method']}: expected a finite number")
        setting = Setting(learning_rate=row["learning_rate"], critic_step_size=row["critic_step_size"])
        by_setting.setdefault(row["method"], {}).setdefault(setting, {})[int(row["seed"])] = float(row["score"])
    best = {}
    for method, settings in by_setting.items():
        if len({tuple(sorted(seeds)) for seeds in settings.values()}) > 1:
            raise InvalidInputError(
                f"scores of {method!r}: expected every setting on the same seeds; run what is missing"
            )
        best[method] = max(settings, key=lambda setting: float(np.mean(list(settings[setting].values()))))
    return best
