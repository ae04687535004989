"""Certified truth: hypergradients in ball arithmetic, with rigorous radii (needs python-flint, extra `certified`).

No numerical code is shared with the floating-point routes: the follower is solved, enclosed and differentiated anew in
Arb's balls, at a precision that is doubled until the asked digits are proven.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from bilevelrl.reference.certified.certify import certified_hypergradient
from bilevelrl.reference.certified.closed_form import (
    CLOSED_FORM_TABLES,
    ClosedForm,
    ClosedFormTable,
    Exact,
    FeatureBlock,
)
from bilevelrl.reference.certified.extra import require_flint

if TYPE_CHECKING:
    from bilevelrl.reference.certified.balls import Enclosure
    from bilevelrl.reference.certified.hypergradient import CertifiedHypergradient
    from bilevelrl.reference.certified.stationary import (
        certify_bounded_maximum,
        certify_vertex,
        isolate_stationary_point,
    )

__all__ = [
    "CLOSED_FORM_TABLES",
    "CertifiedHypergradient",
    "ClosedForm",
    "ClosedFormTable",
    "Enclosure",
    "Exact",
    "FeatureBlock",
    "certified_hypergradient",
    "certify_bounded_maximum",
    "certify_vertex",
    "isolate_stationary_point",
]

_NEED_FLINT = {
    "Enclosure": "balls",
    "CertifiedHypergradient": "hypergradient",
    "certify_bounded_maximum": "stationary",
    "certify_vertex": "stationary",
    "isolate_stationary_point": "stationary",
}


def __getattr__(name: str) -> object:
    """Import what needs python-flint when it is asked for."""
    if name in _NEED_FLINT:
        require_flint(name)
        return getattr(import_module(f"bilevelrl.reference.certified.{_NEED_FLINT[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
