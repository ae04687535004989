"""The subcommands that this package adds to `bilevelrl`: what `--help` says of them, before they are loaded."""

from __future__ import annotations

from typing import Any

__all__ = ["register"]

_COMMANDS = (
    ("reproduce", "train a figure of the paper anew, beside the paper's curves", "reproduce"),
    ("study", "bias, spread and cost of estimators on a problem of your own, as a table", "sweeping.own_studies"),
    ("train", "train the leader by one or several methods, batched over seeds", "train_command"),
)


def register(commands: Any) -> None:
    """Add the subcommands `reproduce`, `study` and `train`; each module has a function `fill` for its arguments."""
    for name, summary, module in _COMMANDS:
        commands.add_parser(name, help=summary, filled_by=f"bilevelrl.benchmarks.{module}:fill")
