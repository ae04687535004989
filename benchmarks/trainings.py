"""Which training serves which kind of problem and which methods: what `bilevelrl train` and `bilevelrl list` go by."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from bilevelrl.benchmarks.sweeping.figures import studies_present
from bilevelrl.estimators.contexts import MixtureTraining
from bilevelrl.estimators.training import (
    METHODS,
    GameTraining,
    LeaderTraining,
    LQRGameTraining,
    LQRTraining,
    Run,
    Training,
)
from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, Problem
from bilevelrl.reference.contexts import Mixture
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError, UnsupportedError

__all__ = ["TRAINING_KINDS", "TrainingKind", "make_training", "training_kind", "training_kinds"]


def _nothing(iterations: int) -> Mapping[str, Any]:
    """Add no field."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingKind:
    """A class of trainings: what it is for, and how it runs unless told otherwise.

    Attributes
    ----------
    problem, training : type
        Which problems, which class.
    titles : mapping
        Name of a method → its title.
    learning_rate : float
        Of its runs.
    settings : mapping
        Fields of the training.
    of_iterations
        Further fields, which depend on the number of outer iterations.
    """

    problem: type[Any]
    training: type[LeaderTraining]
    titles: Mapping[str, str]
    learning_rate: float = 0.1
    settings: Mapping[str, Any] = field(default_factory=dict)
    of_iterations: Callable[[int], Mapping[str, Any]] = _nothing


def _titles(problem: type[Any]) -> dict[str, str]:
    return {name: method.title for name, method in METHODS[problem].items()}


TRAINING_KINDS = (
    TrainingKind(problem=ConfigurableMDP, training=Training, titles=_titles(ConfigurableMDP)),
    TrainingKind(
        problem=MarkovGame,
        training=GameTraining,
        titles=_titles(MarkovGame),
        learning_rate=1e-4,
    ),
    TrainingKind(problem=ConfigurableLQR, training=LQRTraining, titles=_titles(ConfigurableLQR)),
    TrainingKind(problem=LQRGame, training=LQRGameTraining, titles=_titles(LQRGame)),
    TrainingKind(problem=Mixture, training=MixtureTraining, titles=_titles(ConfigurableMDP)),
)
"""Every kind of the package; a new one is one entry."""


def training_kinds() -> tuple[TrainingKind, ...]:
    """Return every kind, with those of the studies beyond the paper where they can be imported."""
    if not studies_present():
        return TRAINING_KINDS
    studied = importlib.import_module("bilevelrl.benchmarks.research.model_based.trainings")
    return (*TRAINING_KINDS, *studied.TRAINING_KINDS)


def training_kind(problem: Problem, methods: Sequence[str]) -> TrainingKind:
    """Return the kind that trains all the methods on the problem.

    Raises
    ------
    UnsupportedError
        If there is none for such problems.
    UnknownNameError
        If a method is not known there, with close matches.
    InvalidInputError
        If the methods are of different kinds.

    Examples
    --------
    >>> from bilevelrl.tasks import toy_markov_game
    >>> training_kind(toy_markov_game(), ["bc_hg", "naive_pgd"]).training.__name__
    'GameTraining'
    """
    kinds = [kind for kind in training_kinds() if isinstance(problem, kind.problem)]
    if not kinds:
        raise UnsupportedError(f"problem of type {type(problem).__name__}: expected one of this package's problems")
    known = [name for kind in kinds for name in kind.titles]
    for method in methods:
        if method not in known:
            raise UnknownNameError("method", method, known)
    for kind in kinds:
        if set(methods) <= set(kind.titles):
            return kind
    raise InvalidInputError(
        f"methods={list(methods)}: expected methods of one kind ({'; '.join(', '.join(k.titles) for k in kinds)}); "
        "train the others in a run of their own"
    )


def make_training(
    problem: Problem,
    methods: Sequence[str],
    *,
    seeds: int,
    iterations: int,
    learning_rates: Sequence[float] | None = None,
    critic_step_size: float | None = None,
    published: bool = False,
    **options: Any,
) -> LeaderTraining:
    """Return the training of some methods on a problem.

    Parameters
    ----------
    problem, methods
        See `training_kind`.
    seeds, iterations
        Runs of each method and learning rate; outer iterations.
    learning_rates, critic_step_size
        None: the kind's, and the default of `Run`.
    published
        As the paper's runs are set up, where they differ from ours.
    options
        Further fields of the training; None leaves a default.

    Raises
    ------
    InvalidInputError
        If this kind of training has no such field.

    Examples
    --------
    >>> from bilevelrl.tasks import lqr_game
    >>> make_training(lqr_game(), ["bc_hg"], seeds=2, iterations=10, published=True).ascent_steps
    10
    """
    kind = training_kind(problem, methods)
    settings: dict[str, Any] = {
        **kind.settings,
        **(kind.training.published if published else {}),
        **kind.of_iterations(iterations),
    }
    own = {entry.name for entry in fields(kind.training)}
    for name, value in options.items():
        if value is None:
            continue
        if name not in own:
            raise InvalidInputError(
                f"{name}={value!r}: {kind.training.__name__} has no such setting; expected one of {sorted(own)}"
            )
        settings[name] = value
    step_size = {} if critic_step_size is None else {"critic_step_size": critic_step_size}
    runs = [
        Run(method=method, seed=seed, learning_rate=rate, **step_size)
        for method in methods
        for rate in (learning_rates or [kind.learning_rate])
        for seed in range(seeds)
    ]
    training: Any = kind.training
    made: LeaderTraining = training(problem=problem, runs=runs, iterations=iterations, **settings)
    return made
