"""Markov games for the reference data: the discrete toy game and random games, both information structures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from bilevelrl.reference import named_stream
from bilevelrl.reference.certified import ClosedForm, ClosedFormTable, Exact, FeatureBlock

__all__ = ["game_cases", "toy_game_form"]


def game_cases(entropy: int) -> Iterator[tuple[ClosedForm, str]]:
    """Yield (problem, summary)."""
    near = {1: -1.611, 2: 0.0105}  # logits near the leader's optimum
    for bonus in (1, 2):
        yield (
            toy_game_form(f"toy_game_{bonus}_optimum", bonus=bonus, logit=near[bonus]),
            f"the toy game with bonus {bonus}, near the leader's optimum",
        )
        yield (
            toy_game_form(f"toy_game_{bonus}_even", bonus=bonus, logit=0.0),
            f"the toy game, bonus {bonus}, even policy",
        )
        for discounted in (True, False):
            weights = "discounted" if discounted else "undiscounted"
            yield (
                toy_game_form(
                    f"toy_game_{bonus}_horizon_150_{weights}", bonus=bonus, logit=near[bonus], horizon=150,
                    discounted=discounted,
                ),
                f"the toy game with bonus {bonus}, episodes of 150 steps, {weights}",
            )  # fmt: skip
        yield (
            toy_game_form(f"toy_game_{bonus}_unseen", bonus=bonus, logit=-0.5, sees=False),
            f"the toy game with bonus {bonus}; the follower does not see the leader's action",
        )
    for sees in (True, False):
        for beta, gamma in (("0.5", "0.9"), ("0.01", "0.9"), ("0.5", "0.999")):
            seen = "seen" if sees else "unseen"
            yield (
                _random_game(
                    f"game_{seen}_{beta}_{gamma}", entropy, sees=sees, beta=Fraction(beta), gamma=Fraction(gamma)
                ),
                f"random game, leader's action {seen}, temperature {beta}, follower's discount {gamma}",
            )


def toy_game_form(
    name: str, *, bonus: int, logit: float, horizon: int | None = None, discounted: bool = True, sees: bool = True
) -> ClosedForm:
    """States S, A, B; the leader's action 1 in A sends the follower back to S and fines it, see the summary's task.

    The leader earns 1 whenever the follower goes from S to A; from A, under action 0, the follower's b earns `bonus`.
    θ holds one logit per state, of the leader's action 1 against 0.
    """
    S, A, B = 0, 1, 2
    outcomes: dict[tuple[int, int, int], tuple[int, int, int]] = {}  # (s, l, a) -> (s', r_F, r_L)
    for leader in (0, 1):
        outcomes |= {(S, leader, 0): (S, 0, 0), (S, leader, 1): (A, 1, 1), (S, leader, 2): (B, 1, 0)}
        outcomes |= {(B, leader, 0): (S, 0, 0), (B, leader, 1): (B, 0, 0), (B, leader, 2): (B, 0, 0)}
    outcomes |= {(A, 0, 0): (S, 0, 0), (A, 0, 1): (A, 0, 0), (A, 0, 2): (B, bonus, 0)}
    outcomes |= {(A, 1, a): (S, -1, 0) for a in range(3)}
    flat = {key: (key[0] * 2 + key[1]) * 3 + key[2] for key in outcomes}
    return ClosedForm(
        kind="markov_game",
        name=name,
        tables={
            "transition": ClosedFormTable(
                shape=(3, 2, 3, 3), base={flat[key] * 3 + after[0]: 1 for key, after in outcomes.items()}
            ),
            "reward_follower": ClosedFormTable(
                shape=(3, 2, 3), base={flat[key]: after[1] for key, after in outcomes.items()}
            ),
            "reward_leader": ClosedFormTable(
                shape=(3, 2, 3), base={flat[key]: after[2] for key, after in outcomes.items()}
            ),
            "initial": ClosedFormTable(shape=(3,), base={S: 1}),
            "policy": ClosedFormTable(shape=(3, 2), slope=tuple((2 * s + 1, s, 1) for s in range(3)), link="softmax"),
        },
        features=(FeatureBlock(link="identity", length=3),),
        theta=(0.0, logit, 0.0),
        discount_leader=Fraction(99, 100),
        discount_follower=Fraction(99, 100),
        temperature=Fraction(1, 20),
        horizon=horizon,
        discounted=discounted,
        follower_sees_leader_action=sees,
    )


def _random_game(name: str, entropy: int, *, sees: bool, beta: Fraction, gamma: Fraction) -> ClosedForm:
    states, leads, actions, parameters = 4, 2, 3, 5
    rng = named_stream(entropy, name)

    def draw(size: int) -> dict[int, Exact]:
        return {e: int(n) / 64.0 for e, n in enumerate(rng.integers(-64, 65, size))}

    pairs = states * leads * actions
    kernel: dict[int, Exact] = {e: int(n) for e, n in enumerate(rng.integers(0, 17, pairs * states))}
    kernel |= {pair * states + pair % states: 8 for pair in range(pairs)}
    slope = draw(states * leads * parameters)
    return ClosedForm(
        kind="markov_game",
        name=name,
        tables={
            "transition": ClosedFormTable(shape=(states, leads, actions, states), base=kernel, link="normalise"),
            "reward_follower": ClosedFormTable(shape=(states, leads, actions), base=draw(pairs)),
            "reward_leader": ClosedFormTable(shape=(states, leads, actions), base=draw(pairs)),
            "initial": ClosedFormTable(shape=(states,), base={0: 3, 2: 5}, link="normalise"),
            "policy": ClosedFormTable(
                shape=(states, leads),
                base=draw(states * leads),
                slope=tuple((e // parameters, e % parameters, number) for e, number in slope.items()),
                link="softmax",
            ),
            "regulariser": ClosedFormTable(shape=(), quadratic=tuple((0, j, j, -0.125) for j in range(parameters))),
        },
        features=(FeatureBlock(link="identity", length=parameters),),
        theta=tuple(math.ldexp(int(n), -6) for n in rng.integers(-32, 33, parameters)),
        discount_leader=Fraction(19, 20),
        discount_follower=gamma,
        temperature=beta,
        follower_sees_leader_action=sees,
    )
