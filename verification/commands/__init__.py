"""The command line."""

from typing import TYPE_CHECKING

from bilevelrl.reference.doors import on_demand

if TYPE_CHECKING:
    from bilevelrl.verification.commands.arguments import count, natural, seed
    from bilevelrl.verification.commands.places import add_place, read_place
    from bilevelrl.verification.reading.named_objects import named_object

__all__ = ["add_place", "count", "named_object", "natural", "read_place", "seed"]

__getattr__, __dir__ = on_demand(globals())
