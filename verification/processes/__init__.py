"""Work in processes: jobs over several of them, and how a command and its workers end."""

from bilevelrl.verification.processes.ending import end_with_parent

__all__ = ["end_with_parent"]
