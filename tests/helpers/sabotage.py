"""Code that a route must not use, broken: who calls it is seen."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bilevelrl.reference.errors import CallableError


class SabotageError(Exception):
    """Raised by code that a route must not use."""


def sabotage(*arguments: object, **options: object) -> None:
    raise SabotageError


@contextmanager
def sabotaged() -> Iterator[None]:
    """Expect a call of what is broken; the door takes it for the caller's code, and says so with it as the cause."""
    with pytest.raises((SabotageError, CallableError)) as caught:
        yield
    assert isinstance(caught.value, SabotageError) or isinstance(caught.value.__cause__, SabotageError)
