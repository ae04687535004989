"""Studies as tables: a row per scenario, estimator and number of samples, in a file that says what it was made from."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Any

from bilevelrl.reference.doors import checked_record
from bilevelrl.reference.errors import (
    InvalidInputError,
    refusal,
)
from bilevelrl.reference.storage import csv_text
from bilevelrl.tasks.scenarios import check_header
from bilevelrl.verification.reading.draws import read_text

__all__ = ["STUDY_FORMAT", "STUDY_VERSION", "Study", "StudyRow", "read_study", "study_csv"]

STUDY_FORMAT = "bilevelrl-study"

STUDY_VERSION = 1


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One estimator on one scenario at one number of samples.

    Attributes
    ----------
    scenario, estimator, level : str
        What was studied.
    samples : int
        Trajectories that one estimate averages over: independent draws, or the streams of one batch.
    moments : str
        "exact" by enumeration, or "sampled": where bias and standard deviation come from.
    bias, standard_deviation, root_mean_square : float
        Of the estimate, relative to ‖∇J‖; root_mean_square² = bias² + standard_deviation².
    cosine, cosine_low, cosine_high : float
        Mean cosine of an estimate with ∇J over replicates, and the 5th and 95th percentiles of single estimates.
    steps : float
        Environment and oracle steps per estimate, on average.
    """

    scenario: str
    estimator: str
    level: str
    samples: int
    moments: str
    bias: float
    standard_deviation: float
    root_mean_square: float
    cosine: float
    cosine_low: float
    cosine_high: float
    steps: float


@checked_record
@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Rows, and what they were made from.

    Attributes
    ----------
    rows : tuple of StudyRow
        Of every pair of an estimator and a scenario to which something can be said.
    scenarios, estimators : tuple of str
        All that were asked for.
    seed, replicates : int
        Root of all random streams; estimates per number of samples.
    samples : tuple of int
        Numbers of trajectories per estimate.
    versions : {software: version}
        That made it.
    """

    rows: tuple[StudyRow, ...]
    scenarios: tuple[str, ...]
    estimators: tuple[str, ...]
    seed: int
    samples: tuple[int, ...]
    replicates: int
    versions: Mapping[str, str]


def study_csv(study: Study) -> str:
    """Return a study as one tidy table, under a comment that says in JSON what it was made from and ends it with a sum.

    Most readers of tables pass over the comment where told that `#` begins one.
    """
    columns = [entry.name for entry in fields(StudyRow)]
    rows = [[getattr(row, column) for column in columns] for row in study.rows]
    shown = ([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    body = csv_text([columns, *shown])
    made = {entry.name: getattr(study, entry.name) for entry in fields(Study) if entry.name != "rows"}
    header = {"format": STUDY_FORMAT, "version": STUDY_VERSION, **made, "rows": len(study.rows)}
    head = json.dumps({**header, "sha256": _digest(header, body)}, ensure_ascii=False)
    return f"# {head}\n{body}"


def read_study(path: str | Path) -> Study:
    """Read what `study_csv` wrote.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, is no study or another version's, or was cut or changed since it was written.

    Examples
    --------
    >>> from bilevelrl.tasks import scenario
    >>> from bilevelrl.verification import run_study
    >>> study = run_study(on=[scenario("toll")], estimators=["naive_pgd"], samples=(1,), replicates=5)
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "study.csv"
    ...     _ = path.write_text(study_csv(study))
    ...     read_study(path).rows[0].estimator
    'naive_pgd'
    """
    first, _, body = read_text(path).partition("\n")
    if not first.startswith("#"):
        raise InvalidInputError(
            f"{path}: does not say what it was made from; expected a first line `# {{...}}` with seed, scenarios and "
            "versions; make the study anew"
        )
    header = check_header(first.removeprefix("#"), str(path), STUDY_FORMAT, STUDY_VERSION)
    said = header.pop("sha256", None)
    if said != _digest(header, body):
        raise InvalidInputError(
            refusal(f"{path}: sha256", said, "the sum of what the file says", "it was cut or changed: make it anew")
        )
    kinds: dict[str, Any] = {"int": int, "float": float, "str": str}
    convert = {entry.name: kinds[str(entry.type)] for entry in fields(StudyRow)}
    try:
        table = list(csv.DictReader(StringIO(body), strict=True))
        rows = tuple(StudyRow(**{key: convert[key](value) for key, value in row.items()}) for row in table)
        if header["rows"] != len(rows):
            raise ValueError("another number of rows than it says")
        study = Study(
            rows=rows,
            scenarios=tuple(header["scenarios"]),
            estimators=tuple(header["estimators"]),
            seed=header["seed"],
            samples=tuple(header["samples"]),
            replicates=header["replicates"],
            versions=dict(header["versions"]),
        )
        return _checked(study)
    except (KeyError, TypeError, ValueError, csv.Error) as broken:
        raise InvalidInputError(f"{path}: is no study ({broken}); expected the columns of StudyRow") from None


def _digest(header: Mapping[str, Any], body: str) -> str:
    return hashlib.sha256(f"{json.dumps(header, sort_keys=True)}\n{body}".encode()).hexdigest()


def _checked(study: Study) -> Study:
    """A study whose rows can come from what it says that they do."""
    whole = (study.seed, study.replicates, *study.samples)
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in whole):
        raise ValueError(f"seed, replicates, samples: {whole}")
    for place, row in enumerate(study.rows, 3):
        known = row.scenario in study.scenarios and row.estimator in study.estimators and row.samples in study.samples
        sizes = (row.bias, row.standard_deviation, row.root_mean_square, row.steps)
        cosines = (row.cosine, row.cosine_low, row.cosine_high)
        right = all(0.0 <= size < math.inf for size in sizes) and all(-1.0 <= cosine <= 1.0 for cosine in cosines)
        if not (known and right and row.moments in ("exact", "sampled")):
            raise ValueError(f"line {place} cannot be true")
    return study
