"""Methods that training on LQR games compares: published ones, pathwise ones, and the exact hypergradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["METHODS", "GameMethod"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GameMethod:
    """One way to a direction.

    Attributes
    ----------
    title : str
        In tables and figures.
    kind
        "score", "pathwise" or "exact".
    guiding : bool
        With the follower's response.
    replay : bool
        Keep the episodes of all outer iterations, not only the last one's.
    average_reward : bool
        Of pathwise methods: see `PathwiseGame`.
    """

    title: str
    kind: Literal["score", "pathwise", "exact"]
    guiding: bool
    replay: bool = False
    average_reward: bool = True


METHODS: Mapping[str, GameMethod] = MappingProxyType(
    {
        "bc_hg": GameMethod(title="BC-HG", kind="score", guiding=True),
        "naive_pgd_on": GameMethod(title="Naive-PGD (on-policy)", kind="score", guiding=False),
        "naive_pgd_off": GameMethod(title="Naive-PGD (off-policy)", kind="score", guiding=False, replay=True),
        "pathwise": GameMethod(title="pathwise BC-HG", kind="pathwise", guiding=True),
        "pathwise_raw": GameMethod(
            title="pathwise BC-HG, rewards not averaged", kind="pathwise", guiding=True, average_reward=False
        ),
        "pathwise_partial": GameMethod(title="pathwise, no response", kind="pathwise", guiding=False),
        "exact": GameMethod(title="exact hypergradient", kind="exact", guiding=True),
        "exact_partial": GameMethod(title="exact, no response", kind="exact", guiding=False),
    }
)
"""Every method by name."""
