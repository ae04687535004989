"""Closed forms evaluated in balls: features, tables, and the pullback of weights to θ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flint import arb

from bilevelrl.reference.certified.balls import ball, softmax
from bilevelrl.reference.certified.closed_form import ClosedForm, ClosedFormTable
from bilevelrl.reference.certified.game import BallGame, game_evaluation
from bilevelrl.reference.certified.hypergradient import (
    SMALLEST_PRECISION,
    CertifiedHypergradient,
    certify_tabular,
    refine,
)
from bilevelrl.reference.certified.lqr.enclosure import lqr_evaluation
from bilevelrl.reference.certified.sources import Weight
from bilevelrl.reference.certified.tabular.tables import BallTables
from bilevelrl.reference.errors import UnsupportedError
from bilevelrl.reference.problem import Objective
from bilevelrl.reference.tabular.tables import TableName

__all__ = ["ClosedFormTables", "certify_closed_form", "feature_balls", "pull_table", "table_balls"]


def feature_balls(problem: ClosedForm) -> list[arb]:
    """Return φ(θ)."""
    features: list[arb] = []
    for block in problem.features:
        start = len(features)
        shifted = [
            ball(entry) + ball(offset)
            for entry, offset in zip(problem.theta[start : start + block.length], block.offset, strict=True)
        ]
        if block.link == "softmax":
            features += softmax(shifted)
        elif block.link == "sigmoid":
            features += [1 / (1 + (-entry).exp()) for entry in shifted]
        else:
            features += shifted
    return features


def pull_features(problem: ClosedForm, features: list[arb], weights: list[arb]) -> list[arb]:
    """Return Σ_j weights_j ∂φ_j/∂θ."""
    pulled: list[arb] = []
    for block in problem.features:
        here = slice(len(pulled), len(pulled) + block.length)
        share, weight = features[here], weights[here]
        if block.link == "softmax":
            mean = sum((p * w for p, w in zip(share, weight, strict=True)), arb(0))
            pulled += [p * (w - mean) for p, w in zip(share, weight, strict=True)]
        elif block.link == "sigmoid":
            pulled += [p * (1 - p) * w for p, w in zip(share, weight, strict=True)]
        else:
            pulled += weight
    return pulled


def table_balls(table: ClosedFormTable, features: list[arb]) -> list[arb]:
    """Return the table's entries in C order."""
    entries = [arb(0)] * table.size
    for place, number in table.base.items():
        entries[place] = ball(number)
    for place, j, number in table.slope:
        entries[place] += ball(number) * features[j]
    for place, i, j, number in table.quadratic:
        entries[place] += ball(number) * features[i] * features[j]
    if table.link == "tanh":
        entries = [entry.tanh() for entry in entries]
    elif table.link == "sigmoid":
        entries = [1 / (1 + (-entry).exp()) for entry in entries]
    elif table.link == "softmax":
        chosen = set(range(table.size)) if table.support is None else set(table.support)
        for start in range(0, table.size, table.width):
            row = [e for e in range(start, start + table.width) if e in chosen]
            shares = softmax([entries[e] for e in row]) if row else []
            entries[start : start + table.width] = [arb(0)] * table.width
            for e, share in zip(row, shares, strict=True):
                entries[e] = share
    elif table.link == "normalise":
        for start in range(0, table.size, table.width):
            mass = sum(entries[start : start + table.width], arb(0))
            if not mass.is_zero():
                entries[start : start + table.width] = [e / mass for e in entries[start : start + table.width]]
    return [ball(table.row_scale(e // table.width)) * entry for e, entry in enumerate(entries)]


def pull_table(table: ClosedFormTable, entries: list[arb], features: list[arb], weight: Weight) -> list[arb]:
    """Return Σ_e weight_e ∂table_e/∂φ; `entries` are the table's own."""
    pulled = [arb(0)] * len(features)
    if not table.slope and not table.quadratic:
        return pulled
    moving = {e // table.width for e, *_ in table.slope} | {e // table.width for e, *_ in table.quadratic}
    on_argument = [arb(0)] * table.size
    for row in moving:
        places = range(row * table.width, (row + 1) * table.width)
        scale = ball(table.row_scale(row))
        weights = [weight(_index(e, table.shape)) for e in places]
        shares = [entries[e] / scale if not scale.is_zero() else arb(0) for e in places]
        for e, slope in zip(places, _pull_link(table, shares, weights, features, row), strict=True):
            on_argument[e] = scale * slope
    for place, j, number in table.slope:
        pulled[j] += on_argument[place] * ball(number)
    for place, i, j, number in table.quadratic:
        pulled[i] += on_argument[place] * ball(number) * features[j]
        pulled[j] += on_argument[place] * ball(number) * features[i]
    return pulled


def _pull_link(
    table: ClosedFormTable, values: list[arb], weights: list[arb], features: list[arb], row: int
) -> list[arb]:
    """Return the weights on a row of z, given those on the row of link(z), whose values are known."""
    if table.link == "identity":
        return weights
    if table.link == "tanh":
        return [w * (1 - v * v) for v, w in zip(values, weights, strict=True)]
    if table.link == "sigmoid":
        return [w * v * (1 - v) for v, w in zip(values, weights, strict=True)]
    mean = sum((v * w for v, w in zip(values, weights, strict=True)), arb(0))
    if table.link == "softmax":
        return [v * (w - mean) for v, w in zip(values, weights, strict=True)]
    raise UnsupportedError(
        f"link={table.link!r}: rows that are normalised and depend on θ have no derivative here; use link='softmax'"
    )


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for length in reversed(shape):
        place, here = divmod(place, length)
        index.append(here)
    return tuple(reversed(index))


@dataclass(slots=True)
class ClosedFormTables:
    """A configurable MDP in closed form as a source of balls; remembers the last evaluation, at its precision."""

    problem: ClosedForm
    features: list[arb] = field(default_factory=list)
    entries: dict[str, list[arb]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """N."""
        return self.problem.parameters

    def tables(self, *, discounted: bool) -> BallTables:
        """Evaluate features and tables at the working precision."""
        problem = self.problem
        self.features = feature_balls(problem)
        self.entries = {name: table_balls(table, self.features) for name, table in problem.tables.items()}
        states, actions, _ = problem.tables["transition"].shape
        kernel, follower, leader = (self.entries[n] for n in ("transition", "reward_follower", "reward_leader"))
        return BallTables(
            kernel=[
                [
                    tuple(
                        (t, kernel[(s * actions + a) * states + t])
                        for t in range(states)
                        if not kernel[(s * actions + a) * states + t].is_zero()
                    )
                    for a in range(actions)
                ]
                for s in range(states)
            ],
            reward_follower=[follower[s * actions : (s + 1) * actions] for s in range(states)],
            reward_leader=[leader[s * actions : (s + 1) * actions] for s in range(states)],
            initial=self.entries["initial"],
            regulariser=self.entries["regulariser"][0] if "regulariser" in self.entries else arb(0),
            discount_leader=ball(problem.discount_leader) if discounted else arb(1),
            discount_follower=ball(problem.discount_follower),
            temperature=ball(problem.temperature),
        )

    def pull(self, name: TableName, weight: Weight) -> list[arb]:
        """Return Σ weight ∂table/∂θ."""
        if name not in self.problem.tables:
            return [arb(0)] * self.parameters
        on_features = pull_table(self.problem.tables[name], self.entries[name], self.features, weight)
        return pull_features(self.problem, self.features, on_features)


@dataclass(slots=True)
class ClosedFormGame:
    """A Markov game in closed form as a source of balls; θ enters the policy and the regulariser only."""

    problem: ClosedForm
    features: list[arb] = field(default_factory=list)
    entries: dict[str, list[arb]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, table in self.problem.tables.items():
            if name not in ("policy", "regulariser") and (table.slope or table.quadratic):
                raise UnsupportedError(f"table {name!r} of a Markov game depends on θ: expected policy and regulariser")

    def game(self, *, discounted: bool) -> BallGame:
        """Evaluate features and tables at the working precision."""
        problem = self.problem
        self.features = feature_balls(problem)
        self.entries = {name: table_balls(table, self.features) for name, table in problem.tables.items()}
        states, leads, actions, _ = problem.tables["transition"].shape
        kernel = self.entries["transition"]

        def row(pair: int) -> tuple[tuple[int, arb], ...]:
            return tuple(
                (t, kernel[pair * states + t]) for t in range(states) if not kernel[pair * states + t].is_zero()
            )

        def nested(name: str) -> list[list[list[arb]]]:
            flat = self.entries[name]
            return [
                [flat[(s * leads + i) * actions : (s * leads + i + 1) * actions] for i in range(leads)]
                for s in range(states)
            ]

        return BallGame(
            kernel=[
                [[row((s * leads + i) * actions + a) for a in range(actions)] for i in range(leads)]
                for s in range(states)
            ],
            reward_follower=nested("reward_follower"),
            reward_leader=nested("reward_leader"),
            initial=self.entries["initial"],
            policy=[self.entries["policy"][s * leads : (s + 1) * leads] for s in range(states)],
            regulariser=self.entries["regulariser"][0] if "regulariser" in self.entries else arb(0),
            discount_leader=ball(problem.discount_leader) if discounted else arb(1),
            discount_follower=ball(problem.discount_follower),
            temperature=ball(problem.temperature),
            follower_sees_leader_action=problem.follower_sees_leader_action,
        )

    def _pull(self, name: str, weight: Weight) -> list[arb]:
        if name not in self.problem.tables:
            return [arb(0)] * self.problem.parameters
        on_features = pull_table(self.problem.tables[name], self.entries[name], self.features, weight)
        return pull_features(self.problem, self.features, on_features)

    def pull_policy(self, weight: Sequence[Sequence[arb]]) -> list[arb]:
        """Return Σ weight ∂f/∂θ."""
        return self._pull("policy", lambda i: weight[i[0]][i[1]])

    def pull_regulariser(self) -> list[arb]:
        """Return ∇ρ."""
        return self._pull("regulariser", lambda i: arb(1))


def certify_closed_form(problem: ClosedForm, *, digits: int, maximum_bits: int) -> CertifiedHypergradient:
    """Return the certified hypergradient of a closed form at its θ."""
    if problem.kind == "configurable_mdp":
        return certify_tabular(
            ClosedFormTables(problem),
            digits=digits,
            horizon=problem.horizon,
            discounted=problem.discounted,
            maximum_bits=maximum_bits,
        )
    if problem.kind == "markov_game":
        Objective(problem.horizon, problem.discounted)
        evaluate = game_evaluation(ClosedFormGame(problem), horizon=problem.horizon, discounted=problem.discounted)
    else:
        evaluate = lqr_evaluation(problem)
    return refine(evaluate, digits, smallest=SMALLEST_PRECISION, largest_precision=maximum_bits)
