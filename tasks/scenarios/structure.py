"""What can be said of a problem's paths before any is listed: how many there are, and whether they end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame, Problem
from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.tabular import ROW_SUM_TOLERANCE, to_dense

__all__ = ["ROUNDING", "Structure", "choose_horizon", "path_tags"]

ROUNDING = 1e-15
"""Probability of going on that counts as none: what it takes of a mean is below the rounding of the mean."""

MOST_PATHS = 20_000
"""Paths that a horizon is chosen for where they go on; those that end may be ten times as many."""

_FEW_STATES = 12  # of which a short path sees something
_MOST_STATES = 400
_LONGEST = 100
_SETTLED = 10_000  # steps
_COUNTED = 1e6  # paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """The paths of a tabular problem or Markov game, whoever acts.

    Attributes
    ----------
    initial : (S,)
        Law of the first state.
    kernel : (S, A, S)
        Transitions; zero for actions that cannot be taken.
    branches : (S, S)
        In how many ways a state leads to another.
    ends : (S,)
        In how many ways it ends the process.

    Examples
    --------
    >>> from bilevelrl.tasks import layered_mdp
    >>> found = Structure.of(layered_mdp(), np.zeros(3))
    >>> found.left(2) > 0.5, found.left(3), found.paths(3)
    (True, 0.0, 64.0)
    """

    initial: FloatArray
    kernel: FloatArray
    branches: FloatArray
    ends: FloatArray

    @classmethod
    def of(cls, problem: Problem, theta: FloatArray) -> Structure | None:
        """Read it off; None where a problem has no tables, or many states."""
        playable = None
        if isinstance(problem, MarkovGame):
            if problem.action_mask is not None:
                mask = np.asarray(problem.action_mask).reshape(problem.states, -1, problem.transition.shape[2])
                playable = np.broadcast_to(mask, problem.transition.shape[:3]).reshape(problem.states, -1)
            kernel, initial = problem.transition.reshape(problem.states, -1, problem.states), problem.initial
        elif isinstance(problem, ConfigurableMDP):
            tables = problem.tables_at(theta)
            if tables.states > _MOST_STATES:
                return None
            kernel, initial = np.asarray(to_dense(tables.transition)), np.asarray(tables.initial)
            playable = tables.action_mask
        else:
            return None
        missing = 1.0 - kernel.sum(axis=2) > ROW_SUM_TOLERANCE
        if playable is not None:
            kernel, missing = np.where(playable[:, :, None], kernel, 0.0), missing & playable
        return cls(
            initial=np.asarray(initial, dtype=np.float64),
            kernel=kernel,
            branches=(kernel > 0.0).sum(axis=1).astype(np.float64),
            ends=missing.sum(axis=1).astype(np.float64),
        )

    def left(self, horizon: int) -> float:
        """Return the largest probability, over all ways to act, that a path goes on after so many steps."""
        going_on = np.ones(self.initial.size)
        for step in range(horizon):
            before, going_on = going_on, (self.kernel @ going_on).max(axis=1)
            if np.array_equal(going_on, before):
                break
            if step == _SETTLED:  # it falls by one factor from here on, the largest eigenvalue
                return float(self.initial @ going_on) * float(going_on.max() / before.max()) ** (horizon - step - 1)
        return float(self.initial @ going_on)

    def paths(self, horizon: int) -> float:
        """Return the number of paths, at most, inf where it is beyond any use."""
        ahead = np.ones(self.initial.size)
        with np.errstate(over="ignore"):
            for _ in range(horizon):
                before, ahead = ahead, self.branches @ ahead + self.ends
                if np.array_equal(ahead, before):
                    break
                if ahead[self.initial > 0.0].sum() > _COUNTED:
                    return math.inf
        return float(ahead[self.initial > 0.0].sum())


def choose_horizon(problem: Problem, theta: FloatArray) -> int:
    """Return how many steps of a path to look at: all of them where paths end, else as many as can be listed.

    Where not even three steps can be, or there are many states, as many as the leader's discounts leave a hundredth of,
    to be sampled.

    Examples
    --------
    >>> from bilevelrl.tasks import four_rooms, layered_mdp, random_mdp
    >>> [choose_horizon(make(), np.zeros(make().theta_shape)) for make in (layered_mdp, random_mdp, four_rooms)]
    [3, 4, 100]
    """
    structure = Structure.of(problem, theta)
    if structure is not None:
        listed = 0
        for steps in range(1, _LONGEST + 1):
            paths = structure.paths(steps)
            if paths > 10 * MOST_PATHS:
                break
            if structure.left(steps) <= ROUNDING:
                return steps
            listed = steps if paths <= MOST_PATHS else listed
        if listed >= 3 and structure.initial.size <= _FEW_STATES:
            return listed
    elif _one_dimensional(problem, theta):
        return 2  # few enough normals for quadrature
    discount = problem.discount_leader
    if discount == 0.0:
        return 1
    return _LONGEST if discount**_LONGEST > 0.01 else max(1, math.ceil(math.log(0.01) / math.log(discount)))


def path_tags(problem: Problem, theta: FloatArray, horizon: int) -> frozenset[str]:
    """Return what can be said of streams of so many steps: whether they end, and whether they can be listed."""
    structure = Structure.of(problem, theta)
    if structure is None:
        small = _one_dimensional(problem, theta) and horizon <= 2
        return frozenset({"goes_on"} if small else {"goes_on", "large"})
    ends = {"ends"} if structure.left(horizon) <= ROUNDING else {"goes_on"}
    return frozenset(ends if structure.paths(horizon) <= 10 * MOST_PATHS else {*ends, "large"})


def _one_dimensional(problem: Problem, theta: FloatArray) -> bool:
    """Whether states and actions are single numbers."""
    if isinstance(problem, LQRGame):
        return problem.dynamics_leader.shape == problem.dynamics_action.shape == (1, 1)
    return isinstance(problem, ConfigurableLQR) and problem.matrices_at(theta).dynamics_action.shape == (1, 1)
