"""Ends of the toy game's runs, setting by setting, beside the paper's, and the constants behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from bilevelrl.benchmarks.paper.toy_game.training import SELECTED, setting_training
from bilevelrl.benchmarks.sweeping.figures import Row
from bilevelrl.benchmarks.sweeping.summary import summarise
from bilevelrl.benchmarks.sweeping.sweep_store import read_table
from bilevelrl.estimators.critics import DenseNetwork, JointNetworks
from bilevelrl.estimators.training import METHODS
from bilevelrl.reference import MarkovGame, named_stream
from bilevelrl.reference.arrays import FloatArray

__all__ = [
    "METRICS",
    "SettingEnd",
    "constants",
    "constants_table",
    "directions_table",
    "ends_table",
    "grid_tables",
    "paper_curve",
    "paper_ends",
    "setting_ends",
    "variants_table",
]

METRICS: Mapping[int, str] = {1: "discounted_return", 2: "undiscounted_return"}
"""What the paper shows over 150 steps, by bonus R: the two scales do not compare."""

_DIRECTIONS = (
    "cosine",
    "relative_error",
    "expected_cosine",
    "logit_direction",
    "expected_logit_direction",
    "logit_truth",
)

Setting = tuple[int, str, int, int]
"""Bonus, method, actor and critic updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingEnd:
    """Where the runs of one method at one setting end.

    Attributes
    ----------
    variant : str
        What of the published options is undone.
    setting : (bonus, method, actor updates, critic updates)
        Which.
    ends, probabilities, objectives : (seeds,)
        The paper's metric, p = f(1|A), and the exact infinite-horizon return under the best response, all averaged over
        the last 5 % of the outer iterations.
    paper_mean, paper_deviation : float or None
        The paper's; the deviation over seeds only where it draws a band.
    """

    variant: str
    setting: Setting
    ends: FloatArray
    probabilities: FloatArray
    objectives: FloatArray
    paper_mean: float | None
    paper_deviation: float | None

    @property
    def mean(self) -> float:
        """Mean of the ends."""
        return float(self.ends.mean())


def paper_ends() -> Mapping[Setting, tuple[float, float | None]]:
    """Return the paper's end of every setting whose label can be told, with its deviation where a band is drawn.

    Examples
    --------
    >>> paper_ends()[1, "bc_hg", 10, 1]
    (27.097, 0.3703)
    """
    found = {}
    for row in _data("paper_toy_game_final.csv"):
        deviation = row["final_standard_deviation"]
        key = (row["bonus"], row["method"], row["actor_steps"], row["critic_steps"])
        found[key] = (float(row["final_mean"]), float(deviation) if deviation != "" else None)
    return found


def paper_curve(bonus: int, method: str) -> FloatArray | None:
    """Return outer iterations, mean and standard error of the paper's curve, (3, points); None where it has none.

    The error is zero where the paper draws no band.
    """
    own = [row for row in _data("paper_toy_game.csv") if (row["bonus"], row["method"]) == (bonus, method)]
    if not own:
        return None
    spread = [row["standard_deviation"] or 0.0 for row in own]
    seeds = 10.0
    return np.array([[row["iteration"] for row in own], [row["mean"] for row in own], spread / np.sqrt(seeds)])


def setting_ends(rows: Sequence[Row]) -> list[SettingEnd]:
    """Gather tidy rows, as `setting_sweep` gives them, by variant and setting."""
    paper, gathered = paper_ends(), dict[tuple[str, Setting], dict[int, Row]]()
    for row in rows:
        updates = SELECTED[row["bonus"]].get(row["method"], (0, 0))
        setting = (
            row["bonus"],
            row["method"],
            row.get("actor_steps") or updates[0],
            row.get("critic_steps") or updates[1],
        )
        gathered.setdefault((row["variant"], setting), {})[row["seed"]] = row
    found = []
    for (variant, setting), seeds in gathered.items():
        mean, deviation = paper.get(setting, (None, None))
        own = list(seeds.values())
        found.append(
            SettingEnd(
                variant=variant,
                setting=setting,
                ends=np.array([row[f"final_{METRICS[setting[0]]}"] for row in own]),
                probabilities=np.array([row["final_probability"] for row in own]),
                objectives=np.array([row["final_objective"] for row in own]),
                paper_mean=mean,
                paper_deviation=deviation,
            )
        )
    return found


def ends_table(ends: Sequence[SettingEnd]) -> str:
    """Return the ends of some settings beside the paper's, as a Markdown table."""
    titles = ("R", "method", "actor, critic", "seeds", "our mean ± SD", "IQM [95 %]", "paper ± SD", "difference", "p")
    lines = [titles, ("---",) * len(titles)]
    for end in ends:
        bonus, method, actor, critic = end.setting
        paper = difference = "–"
        if end.paper_mean is not None:
            spread = "" if end.paper_deviation is None else f" ± {end.paper_deviation:.2f}"
            paper, difference = f"{end.paper_mean:.2f}{spread}", f"{end.mean - end.paper_mean:+.2f}"
        ours = summarise([end.ends], rng=named_stream(0, "toy game", str(end.setting)))
        lines.append(
            (
                f"{bonus}",
                METHODS[MarkovGame][method].title,
                f"{actor}, {critic}",
                f"{end.ends.size}",
                _spread(end.ends, 2),
                f"{ours.interquartile_mean:.2f} [{ours.low:.2f}, {ours.high:.2f}]",
                paper,
                difference,
                _spread(end.probabilities, 3),
            )
        )
    return _markdown(lines)


def grid_tables(ends: Sequence[SettingEnd]) -> str:
    """Return one table per bonus and method, ours / the paper's, actor updates in rows, and how the two go together."""
    parts = []
    for bonus, method in dict.fromkeys(end.setting[:2] for end in ends):
        own = {end.setting[2:]: end for end in ends if end.setting[:2] == (bonus, method)}
        actors, critics = (sorted({key[axis] for key in own}) for axis in (0, 1))
        lines = [("actor \\ critic", *map(str, critics)), ("---",) * (len(critics) + 1)]
        lines += [(str(actor), *(_both(own.get((actor, critic))) for critic in critics)) for actor in actors]
        parts.append(
            f"R = {bonus}, {METHODS[MarkovGame][method].title}: ours / the paper's.{_agreement(list(own.values()))}"
        )
        parts.append(_markdown(lines))
    return "\n\n".join(parts)


def variants_table(ends: Sequence[SettingEnd]) -> str:
    """Return what each variant does to the end and to p, as a Markdown table: variants in rows, problems in columns."""
    settings = list(dict.fromkeys(end.setting for end in ends))
    found = {(end.variant, end.setting): end for end in ends}
    head = [f"{METHODS[MarkovGame][method].title}, R = {bonus}" for bonus, method, *_ in settings]
    lines = [("what is undone", *head), ("---",) * (len(head) + 1)]
    for variant in dict.fromkeys(end.variant for end in ends):
        cells = []
        for setting in settings:
            end = found.get((variant, setting))
            cells.append(
                "–"
                if end is None
                else f"{end.mean:.1f} ± {_deviation(end.ends):.1f}; p = {_spread(end.probabilities, 2)}"
            )
        lines.append((variant if variant != "published" else "nothing (as published)", *cells))
    return _markdown(lines)


def directions_table(rows: Sequence[Row], *, early: int = 100) -> str:
    """Return how directions compare with the exact hypergradient along the paths, early and late, as Markdown.

    Parameters
    ----------
    rows
        Of `setting_sweep`, with curves.
    early
        Outer iterations up to it are early.
    """
    titles = ("R", "method", "iterations", "cosine", "relative error", "expected cosine", "SD", "expected", "truth")
    lines: list[Sequence[str]] = [titles, ("---",) * len(titles)]
    last = max(row["iteration"] for row in rows)
    for bonus, method in dict.fromkeys((row["bonus"], row["method"]) for row in rows):
        for begin, end in ((0, min(early, last)), (early, last)):
            own = [row for row in rows if (row["bonus"], row["method"]) == (bonus, method)]
            own = [row for row in own if begin < row["iteration"] <= end]
            if not own:
                continue
            of = {name: np.array([row[name] for row in own]) for name in _DIRECTIONS}
            noise = of["logit_direction"] - of["expected_logit_direction"]
            lines.append(
                (
                    f"{bonus}",
                    METHODS[MarkovGame][method].title,
                    f"{begin}–{end}",
                    f"{of['cosine'].mean():+.2f}",
                    f"{np.median(of['relative_error']):.2g}",
                    f"{of['expected_cosine'].mean():+.2f}",
                    f"{_deviation(noise):.2g}",
                    f"{of['expected_logit_direction'].mean():+.2g}",
                    f"{of['logit_truth'].mean():+.2g}",
                )
            )
    return _markdown(lines)


def constants() -> list[Row]:
    """Return the constants that the runs use beside the published ones, read from what is run.

    Examples
    --------
    >>> all(row["ours"] == row["published"] for row in constants())
    True
    """
    training = setting_training(bonus=1, methods=["bc_hg"], actor_steps=1, critic_steps=1)
    game, options = training.problem, training.options
    actor = DenseNetwork(sizes=(game.states, 64, 64, game.leader_actions))
    critic = JointNetworks.architecture(game)
    run = training.runs[0]
    assert training.start().shape[1] == actor.parameters
    ours = {
        "discount of the leader": game.discount_leader,
        "discount of the follower": game.discount_follower,
        "follower's temperature": game.temperature,
        "steps of an episode": training.steps,
        "episodes per outer iteration": training.streams,
        "outer iterations": training.iterations,
        "seeds": len(training.runs),
        "actor network": "-".join(map(str, actor.sizes)),
        "critic network": "-".join(map(str, critic.sizes)),
        "activation": actor.activation,
        "actor's learning rate (Adam)": run.learning_rate,
        "critic's learning rate (Adam)": run.critic_step_size,
        "minibatch": options.minibatch,
        "rate of the target networks": options.target_rate,
        "targets move once per": options.target_update,
    }
    published = {row["constant"]: row["published"] for row in _data("paper_toy_game_constants.csv")}
    return [{"constant": name, "ours": value, "published": published[name]} for name, value in ours.items()]


def constants_table(rows: Sequence[Row]) -> str:
    """Return the constants as a Markdown table."""
    lines = [("constant", "ours", "published"), ("---",) * 3]
    return _markdown([*lines, *((row["constant"], f"{row['ours']}", f"{row['published']}") for row in rows)])


def _both(end: SettingEnd | None) -> str:
    if end is None:
        return "–"
    return f"{end.mean:.1f} / {'–' if end.paper_mean is None else f'{end.paper_mean:.1f}'}"


def _agreement(ends: Sequence[SettingEnd]) -> str:
    pairs = np.array([(end.mean, end.paper_mean) for end in ends if end.paper_mean is not None])
    if len(pairs) < 3 or np.ptp(pairs, axis=0).min() == 0.0:
        return ""
    apart = pairs[:, 0] - pairs[:, 1]
    together = float(np.corrcoef(pairs.T)[0, 1])
    return (
        f" Over the {len(pairs)} settings of both: mean difference {apart.mean():+.2f}, mean absolute difference "
        f"{np.abs(apart).mean():.2f}, correlation {together:.2f}."
    )


def _deviation(values: FloatArray) -> float:
    return float(values.std(ddof=1)) if values.size > 1 else 0.0


def _spread(values: FloatArray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {_deviation(values):.{digits}f}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(name: str) -> list[Row]:
    with resources.as_file(resources.files("bilevelrl.benchmarks") / "data" / name) as path:
        return read_table(Path(path))
