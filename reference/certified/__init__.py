"""Certified truth: hypergradients in ball arithmetic, with rigorous radii (needs python-flint, extra `certified`).

No numerical code is shared with the floating-point routes: the follower is solved, enclosed and differentiated anew in
Arb's balls, at a precision that is doubled until the asked digits are proven.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bilevelrl.reference.certified.certify import certified_hypergradient
from bilevelrl.reference.certified.closed_form.formula import (
    CLOSED_FORM_TABLES,
    ClosedForm,
    ClosedFormTable,
    FeatureBlock,
)
from bilevelrl.reference.certified.extra import require_flint

if TYPE_CHECKING:
    from bilevelrl.reference.certified.balls import Enclosure
    from bilevelrl.reference.certified.hypergradient import CertifiedHypergradient

__all__ = [
    "CLOSED_FORM_TABLES",
    "CertifiedHypergradient",
    "ClosedForm",
    "ClosedFormTable",
    "Enclosure",
    "FeatureBlock",
    "certified_hypergradient",
]


def __getattr__(name: str) -> Any:
    """Classes whose modules need python-flint are imported when they are asked for."""
    if name in ("CertifiedHypergradient", "Enclosure"):
        require_flint(name)
        module = "hypergradient" if name == "CertifiedHypergradient" else "balls"
        return getattr(import_module(f"bilevelrl.reference.certified.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
