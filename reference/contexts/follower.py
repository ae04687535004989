"""One follower per context: what each answers, and how well all of them are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from bilevelrl.reference.contexts.model import Mixture, MixtureAt, in_context
from bilevelrl.reference.errors import InvalidInputError, UnsupportedError, refusal
from bilevelrl.reference.problem import Follower, Status, solve

__all__ = ["MixtureFollower", "in_each_context", "solve_mixture"]

_WORSE = (Status.CONVERGED, Status.AT_ROUNDING, Status.STOPPED_EARLY, Status.ITERATION_LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureFollower:
    """The responses in all contexts.

    Attributes
    ----------
    contexts
        One follower each, as its own kind has it; states and actions are those of a context, so values, actions and
        probabilities are asked of these.
    """

    contexts: tuple[Follower, ...]

    @property
    def status(self) -> Status:
        """How the worst of the solvers ended."""
        return max((follower.status for follower in self.contexts), key=_WORSE.index)

    @property
    def residual(self) -> float:
        """Largest Bellman residual of all contexts."""
        return max(follower.residual for follower in self.contexts)

    @property
    def error_bound(self) -> float:
        """Bound on the error of the values in all contexts."""
        return max(follower.error_bound for follower in self.contexts)

    def value_at(self, state: object, leader_action: object = None) -> NoReturn:
        """Raise `UnsupportedError`: a state is that of a context."""
        _refuse("value_at")

    def action_value_at(self, state: object, action: object, leader_action: object = None) -> NoReturn:
        """Raise `UnsupportedError`: a state is that of a context."""
        _refuse("action_value_at")

    def sample(self, state: object, rng: object, leader_action: object = None) -> NoReturn:
        """Raise `UnsupportedError`: a state is that of a context."""
        _refuse("sample")

    def log_prob(self, state: object, action: object, leader_action: object = None) -> NoReturn:
        """Raise `UnsupportedError`: a state is that of a context."""
        _refuse("log_prob")


def _refuse(name: str) -> NoReturn:
    raise UnsupportedError(f"{name}: a mixture has one follower per context; ask follower.contexts[i].{name}")


def in_each_context(at: MixtureAt, name: str, given: object) -> Sequence[object]:
    """Return one of what was given for each context: a mixture's follower taken apart, or a sequence; None for none.

    Raises
    ------
    InvalidInputError
        If it is anything else, or not one per context.
    """
    if given is None:
        return [None] * len(at.contexts)
    parts = given.contexts if isinstance(given, MixtureFollower) else given
    if not isinstance(parts, (list, tuple)) or len(parts) != len(at.contexts):
        expected = f"a MixtureFollower or a sequence of {len(at.contexts)}, one per context"
        raise InvalidInputError(refusal(name, given, expected, "solve the followers of this mixture"))
    return [getattr(part, "follower", part) for part in parts]  # a hypergradient's own


@solve.register(Mixture)
def solve_mixture(at: MixtureAt, *, warm_start: object = None, **options: object) -> MixtureFollower:
    """Solve the follower of each context, from one warm start each."""
    followers = []
    for place, start in enumerate(in_each_context(at, "warm_start", warm_start)):
        with in_context(place):
            followers.append(solve(at.contexts[place], warm_start=start, **options))
    return MixtureFollower(contexts=tuple(followers))
