"""Where a sweep keeps its results: one file per finished cell, each there whole or not at all.

A folder belongs to one configuration, and to one process at a time. What finished is never run again, and an
interruption at any moment loses at most what the unfinished cells did since their last checkpoint.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilevelrl.benchmarks.sweeping.sweep_grid import Cell, Grid, cell_name
from bilevelrl.reference.errors import InvalidInputError, MissingExtraError, StorageError, refusal
from bilevelrl.reference.storage import csv_text, software_versions, write_atomically

__all__ = ["SweepFolder", "mixed_software", "read_table", "write_table"]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFolder:
    """The results of one sweep.

    Parameters
    ----------
    path
        The folder; made if it is not there.
    configuration
        Plain values that all cells share and that their results depend on.
    """

    path: Path
    configuration: Mapping[str, Any]

    def open(self) -> None:
        """Make the folder, or check that it is of this configuration; it must be `locked`.

        Raises
        ------
        InvalidInputError
            If it belongs to another configuration.
        StorageError
            If it cannot be read or written.
        """
        manifest, wanted = self.path / "sweep.json", json.loads(json.dumps(dict(self.configuration)))
        kept = {path for ending in ("json", "npz") for path in self.path.glob(f"*.{ending}")} - {manifest}
        if not kept:  # a folder in which nothing was made belongs to nobody, whatever was tried there
            write_atomically(manifest, json.dumps(wanted, indent=1, sort_keys=True))
        if not manifest.exists():
            raise InvalidInputError(f"{self.path}: holds other files; expected an empty folder or one of this sweep")
        found = _read_json(manifest)
        if found != wanted:
            keys = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            raise InvalidInputError(
                f"{self.path}: results of another configuration (they differ in {', '.join(keys)}); "
                "choose another folder, or the configuration that it was made with"
            )
        for left in self.path.glob(".*.part"):
            left.unlink(missing_ok=True)  # of a process that was killed while it wrote

    def result_path(self, cell: Cell) -> Path:
        """Return the file of a finished cell."""
        return self.path / f"{cell_name(cell)}.json"

    def checkpoint_path(self, cell: Cell) -> Path:
        """Return the file that an unfinished cell may continue from."""
        return self.path / f"{cell_name(cell)}.npz"

    def fingerprint(self) -> str:
        """Return a digest of the configuration, which every result carries."""
        return hashlib.sha256(json.dumps(dict(self.configuration), sort_keys=True).encode()).hexdigest()

    def store(self, cell: Cell, rows: Sequence[Row]) -> None:
        """Write the rows of a finished cell.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        record = {"cell": dict(cell), "rows": list(rows), "versions": software_versions(), "sweep": self.fingerprint()}
        body = json.dumps(record, allow_nan=False)
        digest = hashlib.sha256(body.encode()).hexdigest()
        write_atomically(self.result_path(cell), f"{digest}\n{body}\n".encode())
        self.checkpoint_path(cell).unlink(missing_ok=True)

    def load(self, cell: Cell) -> tuple[list[Row], dict[str, str]] | None:
        """Return the rows of a cell and the versions that made them, or None where it has not finished.

        Raises
        ------
        StorageError
            If the file is damaged, or was made by another sweep. A file of before this was recorded is taken as it is.
        """
        path = self.result_path(cell)
        if not path.exists():
            return None
        digest, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        if hashlib.sha256(body.removesuffix("\n").encode()).hexdigest() != digest:
            raise StorageError(f"{path}: not a whole result; remove it to run {dict(cell)} again, the others are kept")
        record = json.loads(body)
        if record.get("sweep", self.fingerprint()) != self.fingerprint():
            raise StorageError(
                f"{path}: a result of another configuration; remove it to run {dict(cell)} again, the others are kept"
            )
        return record["rows"], record["versions"]

    def table(self, grid: Grid) -> list[Row]:
        """Return all finished rows: the cell's values, the row's, and the versions that made them."""
        tidy: list[Row] = []
        for cell in grid:
            found = self.load(cell)
            if found is not None:
                rows, versions = found
                made_by = {f"version_{name}": version for name, version in versions.items()}
                tidy.extend({**cell, **row, **made_by} for row in rows)
        return tidy


def mixed_software(rows: Sequence[Row]) -> str:
    """Return which versions differ among rows of `SweepFolder.table`, or nothing where all were made alike.

    Examples
    --------
    >>> mixed_software([{"version_numpy": "2.0"}, {"version_numpy": "2.1"}, {"version_numpy": "2.0"}])
    'numpy 2.0 and 2.1'
    """
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("version_"))
    made_by = {name: sorted({str(row.get(name, "not recorded")) for row in rows}) for name in names}
    differing = (f"{name[8:]} {' and '.join(found)}" for name, found in made_by.items() if len(found) > 1)
    return ", ".join(differing)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("no object of JSON")
    except (OSError, ValueError, RecursionError) as broken:
        raise StorageError(f"{path}: cannot be read ({broken}); restore it or choose another folder") from None
    return record


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write tidy rows as CSV or Parquet, by the name's ending.

    Raises
    ------
    InvalidInputError
        If there is no row, or the ending is another one.
    MissingExtraError
        If Parquet is asked for without pyarrow.
    StorageError
        If it cannot be written.
    """
    if not rows:
        raise InvalidInputError("rows=[]: expected at least one row; let a cell finish first")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".csv":
        write_atomically(path, csv_text([names, *([row.get(name, "") for name in names] for row in rows)]))
    elif path.suffix == ".parquet":
        try:
            import pyarrow  # type: ignore[import-not-found,import-untyped,unused-ignore]
            import pyarrow.parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError as error:
            raise MissingExtraError("writing Parquet", "pyarrow", "parquet") from error
        content = io.BytesIO()
        table = pyarrow.Table.from_pydict({name: [row.get(name) for row in rows] for name in names})
        pyarrow.parquet.write_table(table, content)
        write_atomically(path, content.getvalue())
    else:
        raise InvalidInputError(refusal("path", str(path), "a name ending in .csv or .parquet", "name the file so"))


def read_table(path: Path) -> list[Row]:
    """Read a CSV that `write_table` wrote: numbers as numbers, the rest as text.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except OSError as broken:
        raise StorageError(f"{path}: cannot be read ({broken})") from None


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
