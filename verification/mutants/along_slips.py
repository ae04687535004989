"""Slips in the formula for all kinds, each planted in the kinds where it is one: `TraceFormula` with a switch set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from bilevelrl.reference import ConfigurableLQR, ConfigurableMDP, LQRGame, MarkovGame
from bilevelrl.verification.mutants.along import TraceFormula

__all__ = ["KINDS", "AlongSlip", "along_slips"]

KINDS: dict[str, type] = {"MDP": ConfigurableMDP, "game": MarkovGame, "LQR": ConfigurableLQR, "LQR game": LQRGame}
"""{what a kind of problem is called in the names of mutants: the class}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlongSlip:
    """A planted error in one kind of problem.

    Attributes
    ----------
    name, changes, origin, meant_for : str
        As in `Mutant`.
    problem : type
        The kind.
    formula : TraceFormula
        A fresh one.
    """

    name: str
    changes: str
    origin: str
    meant_for: str
    problem: type
    formula: TraceFormula


_ALL = ("MDP", "game", "LQR", "LQR game")
_SLIP = "usual slip"

_Entry: TypeAlias = tuple[str, str, tuple[str, ...], dict[str, Any]]
"""Name, what is wrong, in which kinds, switches."""

_TIMES: tuple[_Entry, ...] = (
    ("global time", "np.arange(steps) for the time in the episode", _ALL, {"clock": "stream"}),
    ("time capped at ten", "γ^min(t, 10): a table of discounts too short", ("MDP", "game"), {"clock": "capped"}),
    ("own term undiscounted", "γ_L^t missing", ("game", "LQR", "LQR game"), {"weight": "1"}),
    ("leader at γ_F", "γ_F^t for γ_L^t", ("game", "LQR"), {"weight": "γ_F^t"}),
    ("leader one step late", "γ_L^(t+1) for γ_L^t", ("game", "LQR", "LQR game"), {"weight": "γ_L^(t+1)"}),
    ("divided by 1 - γ_L", "the normalisation of occupancies", ("MDP", "game"), {"weight": "over 1-γ_L"}),
    ("weights that sum to one", "γ_L^t over their sum", ("MDP", "game"), {"weight": "sum to one"}),
    (
        "γ_F in the response",
        "γ_F^t for γ_L^t in the guiding term alone",
        ("MDP", "game", "LQR"),
        {"weight": "γ_F^t", "weight_in": "response"},
    ),
    (
        "γ_F in the own term",
        "γ_F^t for γ_L^t beside a right response",
        ("MDP", "LQR game"),
        {"weight": "γ_F^t", "weight_in": "own"},
    ),
    (
        "response undiscounted",
        "γ_L^t missing in the guiding term alone",
        ("LQR",),
        {"weight": "1", "weight_in": "response"},
    ),
)
_SUMS: tuple[_Entry, ...] = (
    ("trace at γ_L", "γ_L for γ_F in ∇Q_F", ("game", "LQR"), {"trace": "γ_L"}),
    ("trace undiscounted", "1 for γ_F in ∇Q_F", ("game", "LQR"), {"trace": "1"}),
    ("trace discounted once more", "γ_F^(k-t+1) for γ_F^(k-t)", ("MDP", "game", "LQR"), {"trace": "late"}),
    ("trace cut", "truncated backpropagation: ∇Q_F after two steps is dropped", ("game", "LQR"), {"window": 2}),
    ("suffix averaged", "mean for sum over the steps of a suffix", ("MDP", "game", "LQR"), {"suffix": "mean"}),
    ("trace one step late", "the first leader action that matters is missing", ("game",), {"lag": 1}),
    ("first step dropped", "a loop from 1", ("MDP", "game"), {"steps": "not the first"}),
    ("last step dropped", "a loop to T - 1", ("MDP", "game"), {"steps": "not the last"}),
    ("three steps of the return", "the leader's sums end after three", ("MDP", "game"), {"steps": "three"}),
    ("start of the stream", "∇log μ at the first of several episodes only", ("MDP",), {"starts": "stream"}),
    ("mean over steps", "per step for per episode", ("MDP", "game", "LQR"), {"average": "steps"}),
    (
        "last episode dropped",
        "the last of several is left out, and counted",
        ("MDP", "game", "LQR"),
        {"average": "but the last"},
    ),
)
_VALUES: tuple[_Entry, ...] = (
    ("raw Q_L", "Q_L for B", ("game", "LQR game"), {"benefit": "action value"}),
    ("V_L for B", "the state's value for the benefit", ("LQR",), {"benefit": "value"}),
    ("benefit clipped", "clip(B, -3, 3)", ("MDP", "game", "LQR"), {"benefit": "clipped"}),
    ("positive benefits", "max(B, 0)", ("MDP", "game"), {"benefit": "positive"}),
    ("signs of benefits", "sign(B) for B", ("game",), {"benefit": "sign"}),
    (
        "benefit of the old policy",
        "less the mean under an earlier follower",
        ("MDP", "game", "LQR"),
        {"benefit": "stale"},
    ),
    ("benefit of the mode", "argmax for the action that was drawn", _ALL, {"benefit": "mode"}),
    ("baseline that saw the action", "Σ_l f Q_L(s, l, a) for V_L", ("game",), {"baseline": "action_dependent"}),
    ("entropy forgotten", "Σ π Q_F for V_F", ("game",), {"follower_value": "no entropy"}),
    ("log-mean-exp", "β log of the mean for β log of the sum", ("MDP",), {"follower_value": "log-mean-exp"}),
    ("V_F here", "V_F(x_t) for V_F(x_t+1)", ("LQR",), {"follower_value": "here"}),
    ("leader's value for the follower's", "V_L for V_F", ("MDP", "game", "LQR"), {"follower_value": "leader"}),
    ("V_F in units of β", "V_F/β for V_F", ("MDP", "LQR", "LQR game"), {"follower_value": "over β"}),
    ("V_L not discounted", "V_L ∇log P for γ_L V_L ∇log P", ("LQR",), {"ahead": "V_L"}),
    ("V_L at γ_F", "γ_F V_L ∇log P", ("MDP",), {"ahead": "γ_F V_L"}),
    ("V_F in the leader's term", "γ_L V_F ∇log P for γ_L V_L ∇log P", ("MDP", "LQR"), {"ahead": "γ_L V_F"}),
    ("the end is bootstrapped", "V_L of the last state where the process ended", ("MDP",), {"ahead": "at the end"}),
    ("reward of the next step", "∇r_L(s_t+1, a_t+1) for ∇r_L(s_t, a_t)", ("MDP", "LQR"), {"direct_at": "next"}),
    ("the follower's costs", "∇r_F for ∇r_L", ("LQR",), {"reward": "follower"}),
)
_FACTORS: tuple[_Entry, ...] = (
    ("temperature forgotten", "1 for 1/β", ("game", "LQR", "LQR game"), {"temperature_power": 0}),
    ("times the temperature", "β for 1/β", ("game",), {"temperature_power": 1}),
    ("no response", "the guiding term is missing", ("game", "LQR", "LQR game"), {"response": 0.0}),
    ("response subtracted", "wrong sign", ("game", "LQR", "LQR game"), {"response": -1.0}),
    ("own term twice", "the leader's score counted twice", ("game", "LQR game"), {"own": 2.0}),
    ("ρ at each step", "regulariser added T times", ("game", "LQR"), {"regulariser": "every step"}),
    ("no ρ", "the regulariser is missing", ("LQR game",), {"regulariser": "never"}),
    ("rows in float32", "rows rounded to single precision", ("game", "LQR", "LQR game"), {"precision": "single"}),
)
_CONTRACT: tuple[_Entry, ...] = (
    ("buffer that is not emptied", "output of the last call is added", ("MDP", "game"), {"contract": "accumulates"}),
    ("benefits less their mean", "centred over the batch", ("MDP", "game", "LQR"), {"contract": "centres"}),
)


def along_slips() -> Iterator[AlongSlip]:
    """Yield every planted error, with a fresh formula.

    Examples
    --------
    >>> found = list(along_slips())
    >>> [sum(slip.problem is kind for slip in found) >= 6 for kind in KINDS.values()]
    [True, True, True, True]
    """
    for table in (_TIMES, _SUMS, _VALUES, _FACTORS, _CONTRACT):
        for name, changes, kinds, switches in table:
            for kind in kinds:
                check = "bias, truncated" if kind.startswith("LQR") else "bias"
                full = f"{name}, {kind}"
                yield AlongSlip(
                    name=full,
                    changes=changes,
                    origin=_SLIP,
                    meant_for="contract" if table is _CONTRACT else check,
                    problem=KINDS[kind],
                    formula=TraceFormula(name=full, problem=KINDS[kind], **switches),
                )
