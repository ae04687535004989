"""What may get ascent out of the trap on Four-Rooms, one thing at a time: the arms of the experiment, declared.

The control is exact hypergradient ascent from the usual start. Every other arm changes one thing, or two where the
second is what the first needs to be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from bilevelrl.estimators.training import SGD, Adam, Optimiser
from bilevelrl.reference.errors import InvalidInputError, UnknownNameError

__all__ = ["ARMS", "Arm", "get_arm"]

Guidance: TypeAlias = Literal["exact", "exact weights", "samples"]
"""The guiding term's origin: the model; the model but for the benefit, which is a critic's; BC-HG's from samples."""

Critic: TypeAlias = Literal["exact", "frozen", "sarsa", "delayed sarsa"]
"""Where the benefit comes from: the model; a random table that never learns; a table that learns from each batch before
it is read; the same, read before it learns."""

Noise: TypeAlias = Literal["none", "isotropic", "shaped", "resampled"]
"""What is added: nothing; Gaussian of equal spread in all directions; Gaussian with the covariance of BC-HG's
deviations; BC-HG's deviations themselves, drawn again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to ascend.

    Attributes
    ----------
    name, group, title : str
        Unique name; what is being varied; one line about it.
    guidance, critic
        See the types.
    critic_scale : float
        Standard deviation of the critic's table at the start.
    chains : int
        How many independent batches, each with a critic of its own, a direction from samples is averaged over.
    noise, noise_scale
        What is added, in units of BC-HG's deviations at the usual start (their root mean square).
    normalised : bool
        Whether directions are scaled to norm 1, short ones too.
    learning_rate, largest_norm, optimiser
        Of the ascent.
    hottest : float or None
        The follower's β falls geometrically from there during the first half, for the gradient; None: never raised.
    start_scale : float
        Standard deviation of θ_0.
    """

    name: str
    group: str
    title: str
    guidance: Guidance = "exact"
    critic: Critic = "exact"
    critic_scale: float = 1.0
    chains: int = 1
    noise: Noise = "none"
    noise_scale: float = 1.0
    normalised: bool = False
    learning_rate: float = 0.1
    largest_norm: float = 1.0
    optimiser: Optimiser = field(default_factory=SGD)
    hottest: float | None = None
    start_scale: float = 0.01

    def __post_init__(self) -> None:
        if (self.critic == "exact") != (self.guidance == "exact") and self.guidance != "samples":
            raise InvalidInputError(f"arm {self.name!r}: expected a critic with guidance='exact weights' alone")
        if self.chains != 1 and self.guidance != "samples":
            raise InvalidInputError(f"arm {self.name!r}: expected several chains of samples alone")
        if self.noise != "none" and self.guidance != "exact":
            raise InvalidInputError(f"arm {self.name!r}: expected noise on the exact gradient alone")


def _noisy(noise: Noise, scale: float, *, clipped: bool) -> Arm:
    kind = {"isotropic": "isotropic", "shaped": "BC-HG's covariance", "resampled": "BC-HG's own deviations"}[noise]
    return Arm(
        name=f"{noise}_{scale:g}_{'clipped' if clipped else 'unclipped'}",
        group=f"exact + noise ({kind})",
        title=f"{scale:g} × BC-HG's spread, {'clipped to 1' if clipped else 'not clipped'}",
        noise=noise,
        noise_scale=scale,
        largest_norm=1.0 if clipped else np.inf,
    )


def _declared(*critics: tuple[str, str, Critic, float]) -> tuple[tuple[str, str, Critic, float], ...]:
    """Return the arguments; their type is what matters."""
    return critics


_ALL = (
    Arm(name="exact", group="control", title="exact gradient, rate .5, clipped to 1", learning_rate=0.5),
    *(
        Arm(
            name=f"rate_{rate:g}",
            group="step size",
            title=f"exact gradient, rate {rate:g}, not clipped",
            learning_rate=rate,
            largest_norm=np.inf,
        )
        for rate in (5.0, 50.0)
    ),
    *(
        Arm(
            name=f"normalised_{rate:g}",
            group="step size",
            title=f"exact gradient scaled to norm 1, rate {rate:g}",
            learning_rate=rate,
            normalised=True,
        )
        for rate in (0.1, 1.0)
    ),
    Arm(name="adam", group="step size", title="exact gradient, Adam, rate .1", optimiser=Adam(second_decay=0.99)),
    *(_noisy("isotropic", scale, clipped=True) for scale in (0.1, 1.0)),
    _noisy("isotropic", 1.0, clipped=False),
    *(_noisy("shaped", scale, clipped=True) for scale in (0.1, 1.0)),
    _noisy("shaped", 1.0, clipped=False),
    _noisy("resampled", 1.0, clipped=True),
    *(
        Arm(
            name=name,
            group="exact weights, wrong benefit",
            title=title,
            guidance="exact weights",
            critic=critic,
            critic_scale=scale,
        )
        for name, title, critic, scale in _declared(
            ("frozen_critic", "N(0, 1) table that never learns", "frozen", 1.0),
            ("sarsa_critic", "SARSA from an N(0, 1) table", "sarsa", 1.0),
            ("sarsa_critic_zero", "SARSA from zeros", "sarsa", 0.0),
        )
    ),
    *(
        Arm(name=name, group="samples (BC-HG)", title=title, guidance="samples", critic=critic, critic_scale=scale)
        for name, title, critic, scale in _declared(
            ("bc_hg", "as published: SARSA from N(0, 1), same batch", "sarsa", 1.0),
            ("bc_hg_zero", "SARSA from zeros, same batch", "sarsa", 0.0),
            ("bc_hg_delayed", "SARSA from N(0, 1), table of the batch before", "delayed sarsa", 1.0),
            ("bc_hg_exact_benefit", "exact benefit", "exact", 1.0),
        )
    ),
    *(
        Arm(
            name=f"{name}_averaged",
            group="samples (BC-HG)",
            title=title,
            guidance="samples",
            critic=critic,
            critic_scale=scale,
            chains=8,
        )
        for name, title, critic, scale in _declared(
            ("bc_hg", "same batch, averaged over 8 batches with a critic each", "sarsa", 1.0),
            ("bc_hg_delayed", "batch before, averaged over 8 batches with a critic each", "delayed sarsa", 1.0),
        )
    ),
    *(
        Arm(
            name=f"{name}_unclipped",
            group="samples (BC-HG)",
            title=f"{title}, not clipped",
            guidance="samples",
            critic=critic,
            critic_scale=scale,
            largest_norm=np.inf,
        )
        for name, title, critic, scale in _declared(
            ("bc_hg", "SARSA from N(0, 1), same batch", "sarsa", 1.0),
            ("bc_hg_zero", "SARSA from zeros, same batch", "sarsa", 0.0),
            ("bc_hg_delayed", "SARSA from N(0, 1), table of the batch before", "delayed sarsa", 1.0),
        )
    ),
    *(
        Arm(
            name=f"hot_{hottest:g}",
            group="temperature continuation",
            title=f"exact gradient, Adam, β from {hottest:g}",
            optimiser=Adam(second_decay=0.99),
            hottest=hottest,
        )
        for hottest in (0.02,)
    ),
    *(
        Arm(
            name=f"start_{scale:g}",
            group="start",
            title=f"exact gradient, Adam, from N(0, {scale:g}²)",
            optimiser=Adam(second_decay=0.99),
            start_scale=scale,
        )
        for scale in (1.0, 4.0, 8.0)
    ),
)

ARMS: Mapping[str, Arm] = MappingProxyType({arm.name: arm for arm in _ALL})
"""Every arm by name."""


def get_arm(name: str) -> Arm:
    """Return an arm by name.

    Raises
    ------
    UnknownNameError
        With close matches.

    Examples
    --------
    >>> get_arm("exact").title
    'exact gradient, rate .5, clipped to 1'
    """
    if name not in ARMS:
        raise UnknownNameError("arm", name, ARMS)
    return ARMS[name]
