"""The door of public functions: each argument is held against its annotation before the function sees it.

`@checked` stands on public functions, methods and dataclasses. What an annotation says is what is asked for: `int` is
an integer and no boolean, `float` a finite real number, `FloatArray` an array of finite real numbers (lists and other
dtypes are converted, masks and imaginary parts are never dropped), a `Literal` one of its names, a class an instance of
it. Ranges are part of the annotation too: `Count`, `Positive`, `Probability` and the others of this package. `Any` is
not looked at, unless it is `Annotated[Any, like(...)]`: such arguments (problems, θ, entries that may be traced) are
checked where it is known what they must be. A name that is not there at run time is an error, not a check left out:
`Annotated[Problem, as_is]` says that nothing is asked. On the way out, what a caller's own code raised becomes a
`CallableError`.
"""

from bilevelrl.reference.doors.door import as_is, checked, checked_record, like
from bilevelrl.reference.doors.facades import on_demand
from bilevelrl.reference.doors.given_code import callable_error
from bilevelrl.reference.doors.ranges import (
    LARGEST_ITERATIONS,
    Count,
    Deviation,
    Discount,
    Horizon,
    Iterations,
    Natural,
    NonNegative,
    Numbers,
    Positive,
    Probability,
    Rate,
    Real,
    Seed,
    Share,
    Spread,
    Steps,
    Temperature,
    check_count,
    check_integer,
    check_stream_steps,
)

__all__ = [
    "LARGEST_ITERATIONS",
    "Count",
    "Deviation",
    "Discount",
    "Horizon",
    "Iterations",
    "Natural",
    "NonNegative",
    "Numbers",
    "Positive",
    "Probability",
    "Rate",
    "Real",
    "Seed",
    "Share",
    "Spread",
    "Steps",
    "Temperature",
    "as_is",
    "callable_error",
    "check_count",
    "check_integer",
    "check_stream_steps",
    "checked",
    "checked_record",
    "like",
    "on_demand",
]
