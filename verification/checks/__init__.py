"""Deterministic checks and three-valued verdicts."""

from bilevelrl.verification.checks.verdicts import Verdict, judge_exact, judge_sampled, unjudged

__all__ = ["Verdict", "judge_exact", "judge_sampled", "unjudged"]
