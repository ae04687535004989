"""The command `bilevelrl attribute`: how much each cause of bias adds on a scenario, exactly."""

from __future__ import annotations

import argparse
from typing import Any

from bilevelrl.verification.commands.arguments import count
from bilevelrl.verification.mutants.attribution import CAUSES, attribute_bias

__all__ = ["register_attribute"]


def register_attribute(commands: Any) -> None:
    """Add `attribute` to the subcommands of `bilevelrl`."""
    add = commands.add_parser("attribute", help="how much each cause of bias adds on a small scenario, exactly")
    add.add_argument("--scenario", metavar="NAME", default="random, terminating", help="of `bilevelrl scenarios`")
    add.add_argument("--cause", metavar="NAME", action="append", help=f"repeatable; of {', '.join(CAUSES)}")
    add.add_argument("--horizon", type=count, default=2, help="steps of a trajectory (default 2)")
    add.set_defaults(run=_attribute)


def _attribute(parsed: argparse.Namespace) -> int:
    print(attribute_bias(parsed.scenario, causes=parsed.cause or tuple(CAUSES), horizon=parsed.horizon))
    return 0
