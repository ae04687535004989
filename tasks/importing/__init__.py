"""Worlds that others wrote: environments, arrays and model checkers' files become configurable MDPs.

`from_gymnasium`, `from_arrays` and `from_explicit_files` return an `ImportedMDP`: what the follower lives in, without
a θ; its `problem` says where θ enters. `from_pettingzoo` returns an `ImportedGame`. `from_jax`
and `from_torch` take functions of θ.
"""

from bilevelrl.tasks.importing.environments import from_gymnasium
from bilevelrl.tasks.importing.explicit_files import from_explicit_files
from bilevelrl.tasks.importing.games import ImportedGame, from_pettingzoo
from bilevelrl.tasks.importing.hooks import HOOKS
from bilevelrl.tasks.importing.imported import ImportedMDP
from bilevelrl.tasks.importing.other_arrays import from_jax, from_torch
from bilevelrl.tasks.importing.plain_arrays import from_arrays

__all__ = [
    "HOOKS",
    "ImportedGame",
    "ImportedMDP",
    "from_arrays",
    "from_explicit_files",
    "from_gymnasium",
    "from_jax",
    "from_pettingzoo",
    "from_torch",
]
