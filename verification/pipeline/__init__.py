"""The main job: rows of estimators and routes against the truth."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilevelrl.verification.pipeline.studies import REPLICATES, SAMPLES, own_study_rows

__all__ = ["REPLICATES", "SAMPLES", "own_study_rows"]


def __getattr__(name: str) -> object:
    """Import studies when they are asked for: they read files, by what imports a module of this folder."""
    if name in __all__:
        return getattr(import_module("bilevelrl.verification.pipeline.studies"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
