"""Configurable MDPs that are planned in by one kernel, measured by another and lived in by a third."""

from bilevelrl.reference.separate_kernels.leader import separate_error_bound, separate_leader_objective, solve_separate
from bilevelrl.reference.separate_kernels.linearise import linearise_separate
from bilevelrl.reference.separate_kernels.model import SeparateAt, SeparateKernels, seen_separate
from bilevelrl.reference.separate_kernels.split import split_separate
from bilevelrl.reference.separate_kernels.sweeps import separate_complex_parts, unroll_separate

__all__ = [
    "SeparateAt",
    "SeparateKernels",
    "linearise_separate",
    "seen_separate",
    "separate_complex_parts",
    "separate_error_bound",
    "separate_leader_objective",
    "solve_separate",
    "split_separate",
    "unroll_separate",
]
