"""The folder that is derived from an incident bundle: its files unpacked, a list of them, and indexes of its journals.

It can be made again from the bundle at any time. Pure: no Django.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from byteor_cloud.engine.replay import (
    BadJournal,
    IncidentBundle,
    extract_incident,
    file_digests,
    index_file,
    validate_incident,
)


def build_capture(archive: BinaryIO, into: Path) -> IncidentBundle:
    """Unpack and check an incident bundle, and index its journals. Raises RejectedBundle.

    A broken journal gets no index: the bundle is valid, but that journal cannot be read by page.
    """
    files, indexes = into / "files", into / "indexes"
    files.mkdir()
    indexes.mkdir()
    extract_incident(archive, files)
    bundle = validate_incident(files)
    for lane, journal in bundle.journals.items():
        with suppress(BadJournal):
            index_file(journal, indexes / lane)
    (into / "list.json").write_text(json.dumps(file_digests(files)))
    return bundle


def size_of(capture: Path) -> int:
    """Return how many bytes the folder's files have."""
    return sum(path.stat().st_size for path in capture.rglob("*") if path.is_file())


def listed_files(capture: Path) -> list[dict[str, Any]]:
    """Return path, size and SHA-256 of each file of the bundle."""
    listed: list[dict[str, Any]] = json.loads((capture / "list.json").read_text())
    return listed


def indexes_of(capture: Path) -> dict[str, Path]:
    """Return the index file of each journal by lane."""
    return {path.name: path for path in sorted((capture / "indexes").iterdir())}
