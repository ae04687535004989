"""What a verification found: its rows as objects, tidy CSV and JSON, and text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bilevelrl.reference.doors import checked, checked_record
from bilevelrl.reference.storage import csv_text, software_versions, write_atomically
from bilevelrl.verification.checks.verdicts import Verdict
from bilevelrl.verification.pipeline.plain_text import plain_report
from bilevelrl.verification.pipeline.rows import EstimatorRow, Findings, RouteRow

__all__ = ["EstimatorRow", "Report", "RouteRow"]


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Findings):
    """Everything that one verification found, to be printed and saved; attributes as `Findings`."""

    def to_csv(self) -> str:
        """Return all rows as one tidy table: column `kind` tells estimators from routes."""
        records = [_flat("estimator", row) for row in self.estimators] + [_flat("route", row) for row in self.routes]
        columns = list(dict.fromkeys(name for record in records for name in record))
        return csv_text([columns, *([record.get(name, "") for name in columns] for record in records)])

    def to_json(self) -> str:
        """Return all rows, the configuration and the versions as JSON (not-a-number and infinity as null)."""
        return json.dumps(
            {
                "passed": self.passed,
                "headline": self.headline,
                "remarks": list(self.remarks),
                "likely_cause": None if self.explanation is None else self.explanation.cause,
                "explanation": None if self.explanation is None else str(self.explanation),
                "seconds": self.seconds,
                "configuration": dict(self.configuration),
                "versions": software_versions(),
                "estimators": [_finite(_flat("estimator", row)) for row in self.estimators],
                "routes": [_finite(_flat("route", row)) for row in self.routes],
            },
            indent=1,
        )

    @checked
    def save(self, directory: str | Path) -> tuple[Path, ...]:
        """Write `verify.csv` and `verify.json` into a directory and return their paths."""
        files = {"verify.csv": self.to_csv(), "verify.json": self.to_json() + "\n"}
        return tuple(write_atomically(Path(directory) / name, text) for name, text in files.items())

    def __str__(self) -> str:
        """The tables as plain text."""
        return plain_report(self)


_PREFIXES = {"parts": "bias", "tested": "truth"}


def _flat(kind: str, row: EstimatorRow | RouteRow) -> dict[str, Any]:
    record: dict[str, Any] = {"kind": kind}
    for entry in fields(row):
        value = getattr(row, entry.name)
        if isinstance(value, Verdict):
            record.update(verdict=value.outcome.value, detectable=value.detectable, reason=value.reason)
        elif isinstance(value, Mapping):
            record.update({f"{_PREFIXES[entry.name]}_{part}": number for part, number in value.items()})
        else:
            record[entry.name] = value
    return record


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }


def ordered(rows: Sequence[EstimatorRow]) -> tuple[EstimatorRow, ...]:
    """Return rows in the order of problems, then temperature, as given otherwise."""
    problems = list(dict.fromkeys(row.problem for row in rows))
    return tuple(sorted(rows, key=lambda row: (problems.index(row.problem), row.temperature)))
