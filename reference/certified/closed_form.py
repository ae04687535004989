"""Problems in closed form: everything that θ does is written down as data, so that any language and any precision can
evaluate it.

θ passes through *features* φ(θ), blocks of θ sent through a link with an offset,

    φ_block = link(θ_block + offset),        link: identity, sigmoid, softmax

and every table is, entry by entry in C order,

    z_e = base_e + Σ_j slope_ej φ_j + Σ_ij quadratic_eij φ_i φ_j,        table = scale · link(z)

with link one of identity, tanh, sigmoid, softmax (over the last axis, on a support) and normalise (z divided by its sum
over the last axis). Numbers are exact: a double means the binary fraction that it stores. There is no mask: an action
that cannot be taken has `reference.tabular.tables.UNPLAYABLE` for its follower's reward, as `Tables` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from bilevelrl.reference.errors import InvalidInputError, ShapeError, UnknownNameError, refusal

__all__ = ["CLOSED_FORM_TABLES", "ClosedForm", "ClosedFormTable", "Exact", "FeatureBlock", "Kind"]

Exact: TypeAlias = int | float | Fraction

FeatureLink: TypeAlias = Literal["identity", "sigmoid", "softmax"]
TableLink: TypeAlias = Literal["identity", "tanh", "sigmoid", "softmax", "normalise"]
Kind: TypeAlias = Literal["configurable_mdp", "markov_game", "configurable_lqr", "lqr_game"]

FEATURE_LINKS = ("identity", "sigmoid", "softmax")
TABLE_LINKS = ("identity", "tanh", "sigmoid", "softmax", "normalise")

CLOSED_FORM_TABLES: Mapping[str, tuple[str, ...]] = {
    "configurable_mdp": ("transition", "reward_follower", "reward_leader", "initial", "regulariser"),
    "markov_game": ("transition", "reward_follower", "reward_leader", "initial", "policy", "regulariser"),
    "configurable_lqr": (
        "dynamics_state", "dynamics_action", "noise_covariance", "cost_state_follower", "cost_action_follower",
        "cost_state_leader", "cost_action_leader", "cost_constant_leader", "initial_mean", "initial_covariance",
        "regulariser",
    ),
    "lqr_game": (
        "dynamics_state", "dynamics_action", "dynamics_leader", "cost_state", "cost_action", "gain", "covariance",
        "target", "width", "initial_mean", "initial_covariance", "regulariser",
    ),
}  # fmt: skip
"""The tables of each kind of problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureBlock:
    """The next `length` entries of θ, and what they become.

    Examples
    --------
    >>> FeatureBlock(link="sigmoid", length=2).offset
    (0, 0)
    """

    link: FeatureLink
    length: int
    offset: tuple[Exact, ...] = ()

    def __post_init__(self) -> None:
        if self.link not in FEATURE_LINKS:
            raise UnknownNameError("feature link", self.link, FEATURE_LINKS)
        if not self.offset:
            object.__setattr__(self, "offset", (0,) * self.length)
        if len(self.offset) != self.length:
            raise ShapeError(refusal("offset", len(self.offset), f"{self.length} entries", "one per entry of θ"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedFormTable:
    """One table as data; formulas in the module's text.

    Parameters
    ----------
    shape
        Of the table; () for a number.
    base : {flat index: number}
        Entries left out are zero.
    slope : ((flat index, feature, number), ...)
        Linear part.
    quadratic : ((flat index, feature, feature, number), ...)
        Quadratic part.
    link
        What z is sent through.
    support : (flat indices), optional
        Where a softmax lives; the other entries of the table are zero.
    scale
        A number, or one number per row (all axes but the last).

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        If an index is out of range, a number not finite, a link unknown.

    Examples
    --------
    >>> ClosedFormTable(shape=(2,), base={1: 1.0}).size
    2
    """

    shape: tuple[int, ...]
    base: Mapping[int, Exact] = field(default_factory=dict)
    slope: tuple[tuple[int, int, Exact], ...] = ()
    quadratic: tuple[tuple[int, int, int, Exact], ...] = ()
    link: TableLink = "identity"
    support: tuple[int, ...] | None = None
    scale: Exact | tuple[Exact, ...] = 1

    def __post_init__(self) -> None:
        if self.link not in TABLE_LINKS:
            raise UnknownNameError("table link", self.link, TABLE_LINKS)
        places = [*self.base, *(e for e, *_ in self.slope), *(e for e, *_ in self.quadratic), *(self.support or ())]
        for place in places:
            if not 0 <= place < self.size:
                raise InvalidInputError(
                    refusal("flat index", place, f"in [0, {self.size}) for shape {self.shape}", "count in C order")
                )
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if len(scales) not in (1, self.rows):
            raise ShapeError(refusal("scale", len(scales), f"one number or {self.rows}", "one per row"))
        numbers = [*self.base.values(), *(x[-1] for x in self.slope), *(x[-1] for x in self.quadratic), *scales]
        for number in numbers:
            if not math.isfinite(number):
                raise InvalidInputError(refusal("entry", number, "a finite number", "check the table"))

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Length of the last axis."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Number of rows along the last axis."""
        return self.size // self.width

    def row_scale(self, row: int) -> Exact:
        """Return the scale of a row."""
        return self.scale[row] if isinstance(self.scale, tuple) else self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    """A bi-level problem as data, with the θ and the objective that are asked for.

    Parameters
    ----------
    kind
        A key of `CLOSED_FORM_TABLES`, which names its tables.
    tables
        The tables by name; a `regulariser` may be left out.
    features
        Blocks that cover θ in order.
    theta
        The point.
    discount_leader, discount_follower, temperature
        γ_L, γ_F and β.
    horizon, discounted
        Which objective, as for `leader_objective`.
    follower_sees_leader_action
        For games.
    name
        Used in messages and tables.

    Raises
    ------
    InvalidInputError, ShapeError, UnknownNameError
        If tables are missing or unknown, lengths do not fit, or a constant is out of range.
    """

    kind: Kind
    tables: Mapping[str, ClosedFormTable]
    features: tuple[FeatureBlock, ...]
    theta: tuple[Exact, ...]
    discount_leader: Exact
    discount_follower: Exact
    temperature: Exact
    horizon: int | None = None
    discounted: bool = True
    follower_sees_leader_action: bool = True
    name: str = "closed form"

    def __post_init__(self) -> None:
        if self.kind not in CLOSED_FORM_TABLES:
            raise UnknownNameError("kind", self.kind, CLOSED_FORM_TABLES)
        wanted = set(CLOSED_FORM_TABLES[self.kind])
        for name in set(self.tables) - wanted:
            raise UnknownNameError("table", name, wanted)
        missing = wanted - set(self.tables) - {"regulariser"}
        if missing:
            raise InvalidInputError(
                refusal("tables", sorted(self.tables), f"also {sorted(missing)}", f"a {self.kind} needs them")
            )
        length = sum(block.length for block in self.features)
        if length != len(self.theta):
            raise ShapeError(refusal("features", length, f"{len(self.theta)} entries of θ", "cover θ in order"))
        for entry in self.theta:
            if not math.isfinite(entry):
                raise InvalidInputError(refusal("theta", entry, "finite numbers", "check θ's origin"))
        for label, value in (("discount_leader", self.discount_leader), ("discount_follower", self.discount_follower)):
            if not (math.isfinite(value) and 0 <= value < 1):
                raise InvalidInputError(refusal(label, value, "a number in [0, 1)", "lower it"))
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InvalidInputError(refusal("temperature", self.temperature, "a finite number > 0", "raise it"))
        for name, table in self.tables.items():
            for place in [j for _, j, _ in table.slope] + [j for _, i, k, _ in table.quadratic for j in (i, k)]:
                if not 0 <= place < length:
                    raise InvalidInputError(
                        refusal(f"feature of {name}", place, f"in [0, {length})", "count features like θ")
                    )

    @property
    def parameters(self) -> int:
        """N, the length of θ."""
        return len(self.theta)
