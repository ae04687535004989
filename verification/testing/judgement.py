"""What draws say about a claim: the verdict, what it could see, and everything it rests on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bilevelrl.reference.arrays import FloatArray
from bilevelrl.reference.doors import checked_record
from bilevelrl.reference.storage import software_versions
from bilevelrl.verification.causes.explanation import Explanation
from bilevelrl.verification.checks.verdicts import POWER_LIMIT, Outcome, Verdict
from bilevelrl.verification.statistics.cosine import CosineInterval
from bilevelrl.verification.statistics.designs import MeanTest
from bilevelrl.verification.statistics.draws_needed import LARGEST_COUNT

__all__ = ["ASCENT", "Judgement", "SampledClaim"]

ASCENT = "of positive product with the truth"

SampledClaim: TypeAlias = Literal["unbiased", "ascent"]
"""What draws may be claimed to be: "unbiased" estimates, or on average of a positive product with the truth."""


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What draws say about a claim.

    Attributes
    ----------
    scenario, claim : str
        What was judged; the claim in words.
    verdict : Verdict
        Passed, failed, no power; not applicable where the draws depend on each other.
    test : MeanTest
        All comparisons, in the order of `names`.
    names : tuple of str
        What each comparison is called.
    truth, mean, standard_deviation : (N,)
        The truth, and moments of one draw.
    draws : int
        How many there are.
    draws_needed : int or None
        About how many a bias of `POWER_LIMIT` of the truth needs, going by the moments of these draws; None: more than
        `LARGEST_COUNT`, or they do not vary.
    cosine : CosineInterval
        Mean cosine of one draw with the truth.
    explanation : Explanation or None
        The nearest known mistake, where the claim has failed.
    budget : str
        What was spent on false alarms.
    untested : tuple of str
        Parts that the truth lacks, where the claim is to be unbiased: draws without them are not told from right ones.
    """

    scenario: str
    claim: str
    verdict: Verdict
    test: MeanTest
    names: tuple[str, ...]
    truth: FloatArray
    mean: FloatArray
    standard_deviation: FloatArray
    draws: int
    draws_needed: int | None
    cosine: CosineInterval
    explanation: Explanation | None
    budget: str
    untested: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the claim was judged and held."""
        return self.verdict.outcome is Outcome.PASSED

    def __str__(self) -> str:
        """The verdict, what it could see, and the worst comparisons."""
        lines = [
            f"{self.verdict.outcome.value.upper()}: {self.draws:,} draws on {self.scenario!r}, claimed {self.claim}",
            f"  {self.verdict.reason}",
        ]
        if self.explanation is not None:
            lines.append(f"  {self.explanation}")
        if self.passed and self.untested:
            lines.append(f"  not tested, for the truth has nothing of them here: {', '.join(self.untested)}")
        if self.verdict.outcome is Outcome.NO_POWER and self.standard_deviation.any():
            wanted = f"more than {LARGEST_COUNT:.0e}" if self.draws_needed is None else f"about {self.draws_needed:,}"
            what = "an ascent by" if self.claim == ASCENT else "a bias of"
            lines.append(f"  {what} {POWER_LIMIT:.0%} of the truth needs {wanted} draws")
        with np.errstate(divide="ignore", invalid="ignore"):
            strength = np.nan_to_num(np.abs(self.test.bias) / self.test.half_width)
        judged_bias = self.claim != ASCENT
        for i in np.argsort(-strength)[:5]:
            lines.append(
                f"  {self.names[i]:<28} {'bias' if judged_bias else 'mean'} {self.test.bias[i]:+.3g} ± "
                f"{self.test.half_width[i]:.2g}{'  REJECTED' if judged_bias and self.test.rejected[i] else ''}"
            )
        lines.append(
            f"  mean cosine with the truth {self.cosine.mean:+.3f} [{self.cosine.low:+.3f}, {self.cosine.high:+.3f}]"
        )
        lines.append(f"  {self.budget}; power {self.test.power:g}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Everything as JSON, with versions; what is not finite becomes null."""
        record = {
            "scenario": self.scenario,
            "claim": self.claim,
            "outcome": self.verdict.outcome.value,
            "reason": self.verdict.reason,
            "detectable": self.verdict.detectable,
            "draws": self.draws,
            "draws_needed": self.draws_needed,
            "truth": self.truth.tolist(),
            "mean": self.mean.tolist(),
            "standard_deviation": self.standard_deviation.tolist(),
            "cosine": [self.cosine.low, self.cosine.mean, self.cosine.high],
            "untested": list(self.untested),
            "likely_cause": None if self.explanation is None else self.explanation.cause,
            "comparisons": [
                {"name": name, "mean": float(b), "half_width": float(h)}
                if self.claim == ASCENT
                else {"name": name, "bias": float(b), "half_width": float(h), "rejected": bool(r)}
                for name, b, h, r in zip(
                    self.names, self.test.bias, self.test.half_width, self.test.rejected, strict=True
                )
            ],
            "error_rate": self.test.error_rate,
            "power": self.test.power,
            "versions": software_versions(),
        }
        return json.dumps(_finite(record), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
