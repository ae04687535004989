"""Facades whose names are loaded when they are asked for: who needs one of them does not wait for all (PEP 562).

A facade imports its names in an `if TYPE_CHECKING:` block, which is what type checkers read, and says

    __getattr__, __dir__ = on_demand(globals())

The block is the one list of where each name lives: here it is read from the facade's own source.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["on_demand"]


def on_demand(facade: dict[str, Any]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a facade.

    Parameters
    ----------
    facade
        Its `globals()`, which keep each name from the first time on.

    Raises
    ------
    AttributeError
        By `__getattr__`, if the facade has no such name.

    Examples
    --------
    >>> import bilevelrl.verification
    >>> "mean_test" in dir(bilevelrl.verification), bilevelrl.verification.mean_test.__module__
    (True, 'bilevelrl.verification.statistics.means')
    """
    homes: dict[str, tuple[str, str]] = {}

    def read() -> None:
        for node in ast.parse(facade["__spec__"].loader.get_source(facade["__name__"])).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                for line in node.body:
                    if isinstance(line, ast.ImportFrom) and line.module is not None:
                        homes.update({alias.asname or alias.name: (line.module, alias.name) for alias in line.names})

    def load(name: str) -> Any:
        if not homes and not name.startswith("__"):
            read()
        if name not in homes:
            raise AttributeError(f"module {facade['__name__']!r} has no attribute {name!r}")
        module, original = homes[name]
        facade[name] = getattr(importlib.import_module(module), original)
        return facade[name]

    return load, lambda: sorted({*facade, *facade["__all__"]})
