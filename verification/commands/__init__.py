"""The command line."""

from bilevelrl.verification.commands.arguments import count, natural, seed
from bilevelrl.verification.commands.ending import end_with_parent

__all__ = ["count", "end_with_parent", "natural", "seed"]
