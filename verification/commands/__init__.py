"""The command line."""

from bilevelrl.verification.commands.arguments import count, natural, seed
from bilevelrl.verification.commands.ending import end_with_parent
from bilevelrl.verification.commands.places import add_place, named_object, read_place

__all__ = ["add_place", "count", "end_with_parent", "named_object", "natural", "read_place", "seed"]
