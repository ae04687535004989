"""Every named configuration of an estimator: one dictionary for all kinds of problem, filled where it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from bilevelrl.estimators.estimator import Estimator, EstimatorEntry
from bilevelrl.estimators.methods import (
    bchg,
    bchg_lambda,
    bi_ac,
    hpgd,
    naive_pgd,
    nudged,
    pathwise,
    policy_covariance,
    sobirl,
    total_derivative,
)
from bilevelrl.estimators.rivals import amd, k_step, log_derivative, logit_steps, value_penalty, zero_order
from bilevelrl.reference import ConfigurableMDP
from bilevelrl.reference.doors import checked
from bilevelrl.reference.errors import InvalidInputError, refusal
from bilevelrl.reference.problem import Objective

__all__ = ["ESTIMATORS", "estimators_for", "register_estimator"]

_METHODS = (
    bchg,
    bchg_lambda,
    bi_ac,
    hpgd,
    naive_pgd,
    nudged,
    pathwise,
    policy_covariance,
    sobirl,
    total_derivative,
    amd,
    k_step,
    logit_steps,
    log_derivative,
    value_penalty,
    zero_order,
)

ESTIMATORS: dict[str, EstimatorEntry] = {entry.name: entry for method in _METHODS for entry in method.CONFIGURATIONS}
"""Every configuration by name, those of this package first."""


@checked
def estimators_for(kind: type) -> dict[str, EstimatorEntry]:
    """Return the configurations that are listed for a kind of problem, a class.

    Examples
    --------
    >>> from bilevelrl.reference import LQRGame
    >>> list(estimators_for(LQRGame))
    ['bc_hg_game', 'policy_gradient']
    """
    return {name: entry for name, entry in ESTIMATORS.items() if issubclass(kind, entry.kinds)}


@checked
def register_estimator(
    name: str,
    *,
    summary: str,
    level: Literal["formula", "practical"],
    make: Callable[[Objective], Estimator],
    kinds: tuple[type, ...] = (ConfigurableMDP,),
) -> None:
    """Add a configuration to `ESTIMATORS`; see `EstimatorEntry`.

    Raises
    ------
    InvalidInputError
        If the name is taken or the level unknown.
    """
    if isinstance(make, type):
        raise InvalidInputError(refusal("make", make, "a function Objective → Estimator", "wrap it in a lambda"))
    entry = EstimatorEntry(name=name, summary=summary, level=level, make=make, kinds=kinds)
    # A file that is imported again, as test runners do, registers the same configuration again.
    if name in ESTIMATORS and _origin(ESTIMATORS[name].make) != _origin(make):
        raise InvalidInputError(refusal("name", name, "a new name or the same make", "choose another name"))
    ESTIMATORS[name] = entry


def _origin(make: Callable[[Objective], Estimator]) -> tuple[str, int]:
    """Where a function is written."""
    code = getattr(make, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (repr(make), 0)
