"""A mixture in balls: its contexts' own passes at one precision, and the exact quotients that the weights mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flint import arb

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.certified.balls import largest
from bilevelrl.reference.certified.hypergradient import Evaluation
from bilevelrl.reference.problem import Part

__all__ = ["mixture_evaluation"]


def mixture_evaluation(contexts: Sequence[Callable[[], Evaluation]], weights: FloatArray) -> Callable[[], Evaluation]:
    """Return a pass over all contexts: `Σ p J` and `Σ p ∇J`, p the weights divided by their exact sum."""

    def evaluate() -> Evaluation:
        found = [context() for context in contexts]
        given = [arb(float(weight)) for weight in weights]
        total = sum(given, arb(0))
        shares = [weight / total for weight in given]
        names: dict[Part, None] = dict.fromkeys(name for each in found for name in each.parts)
        count = len(next(iter(found[0].parts.values())))
        nothing = [arb(0)] * count

        def summed(name: Part) -> list[arb]:
            columns = zip(*(each.parts.get(name, nothing) for each in found), strict=True)
            return [sum((p * x for p, x in zip(shares, column, strict=True)), arb(0)) for column in columns]

        return Evaluation(
            objective=sum((p * each.objective for p, each in zip(shares, found, strict=True)), arb(0)),
            parts={name: summed(name) for name in names},
            residual=largest(each.residual for each in found),
            condition=largest(each.condition for each in found),
            steps=sum(each.steps for each in found),
        )

    return evaluate
