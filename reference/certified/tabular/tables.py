"""The tables of a configurable MDP in balls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flint import arb, arb_mat

from bilevelrl.reference.certified.balls import ball, largest
from bilevelrl.reference.errors import StochasticityError, TooLargeError, refusal
from bilevelrl.reference.tabular.transitions import ROW_SUM_TOLERANCE

__all__ = ["BallTables", "Row", "check_size"]

LARGEST_SYSTEM = 2000
"""States beyond which dense ball arithmetic would take hours."""

Row = tuple[tuple[int, arb], ...]
"""The successors of one state and action with their probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BallTables:
    """The tables of a configurable MDP in balls, and its constants.

    Attributes
    ----------
    kernel : [s][a] -> successors with probabilities
        Successors that are left out have probability zero.
    reward_follower, reward_leader : [s][a]
        Rewards.
    initial : [s]
        Law of the first state.
    regulariser : arb
        ρ(θ).
    discount_leader, discount_follower, temperature : arb
        γ_L (one where the return is undiscounted), γ_F and β.
    """

    kernel: Sequence[Sequence[Row]]
    reward_follower: Sequence[Sequence[arb]]
    reward_leader: Sequence[Sequence[arb]]
    initial: Sequence[arb]
    regulariser: arb
    discount_leader: arb
    discount_follower: arb
    temperature: arb

    def check(self) -> None:
        """Refuse what is certainly no law: negative probabilities, rows above one, an initial law off one.

        Raises
        ------
        StochasticityError
            Naming the row.
        """
        slack = ball(ROW_SUM_TOLERANCE)
        named = [
            (f"transition[{s}, {a}]", [p for _, p in row])
            for s, rows in enumerate(self.kernel)
            for a, row in enumerate(rows)
        ]
        for name, row in [*named, ("initial", list(self.initial))]:
            for probability in row:
                if probability < 0:
                    raise StochasticityError(refusal(name, float(probability), "probabilities >= 0", "normalise it"))
            mass = sum(row, arb(0))
            if mass > 1 + slack or (name == "initial" and mass < 1 - slack):
                expected = "1" if name == "initial" else "at most 1 (less means termination)"
                raise StochasticityError(refusal(f"sum of {name}", float(mass), expected, "normalise it"))

    def modulus(self, discount: arb) -> arb:
        """Return an upper bound on discount · max row sum."""
        masses = (sum((p for _, p in row), arb(0)) for rows in self.kernel for row in rows)
        return largest(mass * discount for mass in masses)

    def ahead(self, values: Sequence[arb]) -> list[list[arb]]:
        """Return Σ_s' P(s'|s,a) values(s'), [s][a]."""
        return [[sum((p * values[t] for t, p in row), arb(0)) for row in rows] for rows in self.kernel]

    def action_values(self, values: Sequence[arb]) -> list[list[arb]]:
        """Return r_F + γ_F P values, [s][a]."""
        return [
            [reward + self.discount_follower * onward for reward, onward in zip(rewards, onwards, strict=True)]
            for rewards, onwards in zip(self.reward_follower, self.ahead(values), strict=True)
        ]

    def chain(self, policy: Sequence[Sequence[arb]]) -> arb_mat:
        """Return P_π, (S, S)."""
        states = len(self.kernel)
        matrix = [[arb(0)] * states for _ in range(states)]
        for s, rows in enumerate(self.kernel):
            for a, row in enumerate(rows):
                for t, probability in row:
                    matrix[s][t] += policy[s][a] * probability
        return arb_mat(matrix)


def check_size(states: int) -> None:
    """Refuse systems that dense ball arithmetic does not reach.

    Raises
    ------
    TooLargeError
        Naming the limit.
    """
    if states > LARGEST_SYSTEM:
        raise TooLargeError(
            refusal("states", states, f"at most {LARGEST_SYSTEM} for a certified answer", "use route='implicit'")
        )
