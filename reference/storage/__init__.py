"""Results on disk, and functions that pickle."""

from bilevelrl.reference.storage.files import (
    Content,
    csv_text,
    locked,
    software_versions,
    writable_file,
    writable_folder,
    write_atomically,
)
from bilevelrl.reference.storage.remade import remade

__all__ = [
    "Content",
    "csv_text",
    "locked",
    "remade",
    "software_versions",
    "writable_file",
    "writable_folder",
    "write_atomically",
]
