"""The certified data as one archive for other people's programs: the same files give the same bytes.

Run with `python -m bilevelrl.benchmarks.reference_problems.archive --output FOLDER` in a checkout. The archive holds
the problems, their schema and README, the readers in four languages, `certify.py`, the licence, and `SHA256SUMS` over
all of them; its own checksum lies beside it. It is not compressed, so that no library's version enters its bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tarfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from bilevelrl.reference.errors import StorageError
from bilevelrl.reference.storage import write_atomically
from bilevelrl.tasks.scenarios import DATA_VERSION

__all__ = ["archive_bytes", "main"]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    ("tasks/data", ("*.json", "README.md")),
    ("docs/examples/readers", ("recompute.*", "certify.py")),
    (".", ("LICENSE",)),
)
"""Folders of the checkout, and what of them is packed."""


def archive_bytes(root: Path, name: str) -> bytes:
    """Return the archive of a checkout's data, under a folder of the name.

    Raises
    ------
    StorageError
        If a folder is not there: an installed package has the problems alone.
    """
    files: dict[str, bytes] = {}
    for folder, patterns in SOURCES:
        place = "readers/" if folder.endswith("readers") else ""
        found = sorted(path for pattern in patterns for path in (root / folder).glob(pattern) if path.is_file())
        if not found:
            raise StorageError(f"{root / folder}: holds nothing to pack; expected a checkout; clone the repository")
        files.update({f"{place}{path.name}": path.read_bytes() for path in found})
    sums = "".join(f"{hashlib.sha256(files[file]).hexdigest()}  {file}\n" for file in sorted(files))
    files["SHA256SUMS"] = sums.encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(files):
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mode = len(files[file]), 0o644
            archive.addfile(entry, io.BytesIO(files[file]))
    return packed.getvalue()


def main(arguments: Sequence[str] | None = None, report: Callable[[str], None] = print) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder (default build)")
    options = parser.parse_args(arguments)
    name = f"bilevelrl-reference-data-{DATA_VERSION}-{metadata.version('bilevelrl')}"
    packed = archive_bytes(ROOT, name)
    checksum = hashlib.sha256(packed).hexdigest()
    options.output.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output / f"{name}.tar", lambda file: file.write(packed))
    write_atomically(options.output / f"{name}.tar.sha256", f"{checksum}  {name}.tar\n")
    report(f"wrote {options.output / name}.tar ({len(packed) / 2**20:.1f} MiB, sha256 {checksum})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
