"""Worlds that others wrote: environments, arrays and model checkers' files become configurable MDPs.

Each function returns an `ImportedMDP`: what the follower lives in, without a θ. Its `problem` says where θ enters.
"""

from bilevelrl.tasks.importing.environments import from_gymnasium
from bilevelrl.tasks.importing.explicit_files import from_explicit_files
from bilevelrl.tasks.importing.hooks import HOOKS
from bilevelrl.tasks.importing.imported import ImportedMDP
from bilevelrl.tasks.importing.plain_arrays import from_arrays

__all__ = ["HOOKS", "ImportedMDP", "from_arrays", "from_explicit_files", "from_gymnasium"]
