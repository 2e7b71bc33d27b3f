"""The folder that is derived from an incident bundle: its unpacked files, a list of them, and its journals' indexes.

It can be rebuilt from the bundle at any time. Does not use Django.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from byteor.engine.replay import (
    BadJournal,
    IncidentBundle,
    extract_incident,
    file_digests,
    index_file,
    validate_incident,
)

_BLOCK = 4096  # bytes; on most file systems, files and folders take a multiple of this


def build_capture(archive: BinaryIO, into: Path) -> IncidentBundle:
    """Unpack and check an incident bundle, and index its journals. Raises RejectedBundle.

    A broken journal gets no index: the bundle is valid, but the journal cannot be read in pages. The index files are
    numbered, because a journal's name comes from the upload and may be too long or invalid as a file name.
    """
    files, indexes = into / "files", into / "indexes"
    files.mkdir()
    indexes.mkdir()
    extract_incident(archive, files)
    bundle = validate_incident(files)
    numbers = {}
    for number, (lane, journal) in enumerate(bundle.journals.items()):
        with suppress(BadJournal):
            index_file(journal, indexes / str(number))
            numbers[lane] = number
    (into / "indexes.json").write_text(json.dumps(numbers))
    (into / "list.json").write_text(json.dumps(file_digests(files)))
    return bundle


def size_of(capture: Path) -> int:
    """Return about how many bytes of disk space the folder takes, with all files and folders in it."""
    sizes = [path.stat().st_size if path.is_file() else 0 for path in (capture, *capture.rglob("*"))]
    return sum(max(1, -(-size // _BLOCK)) * _BLOCK for size in sizes)


def listed_files(capture: Path) -> list[dict[str, Any]]:
    """Return the path, size and SHA-256 of each file in the bundle."""
    listed: list[dict[str, Any]] = json.loads((capture / "list.json").read_text())
    return listed


def indexes_of(capture: Path) -> dict[str, Path]:
    """Return the index files of the journals by lane."""
    numbers: dict[str, int] = json.loads((capture / "indexes.json").read_text())
    return {lane: capture / "indexes" / str(number) for lane, number in numbers.items()}
