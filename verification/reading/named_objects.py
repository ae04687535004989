"""Objects by their Python names, as commands are given them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from bilevelrl.reference.errors import InvalidInputError, refusal

__all__ = ["named_object"]


def named_object(argument: str, name: str) -> Any:
    """Return the object of a name as `package.module:name`; modules of the working directory are found too.

    Raises
    ------
    InvalidInputError
        If it cannot be imported.

    Examples
    --------
    >>> named_object("--problem", "bilevelrl.tasks:layered_mdp")().name
    'layered_mdp(3x2x2, seed=0)'
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise InvalidInputError(refusal(argument, name, "MODULE:NAME", "write my_module:make_problem"))
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(refusal(argument, name, "what can be imported", str(error))) from error
    return found
