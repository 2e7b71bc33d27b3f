"""Reads the files to verify, with limits on sizes and lines. Follows no links inside an export and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from byteor.engine.signing import dsse, tar
from byteor.engine.signing.bundle import CREDENTIAL, MAX_BUNDLE_BYTES, SIGNING_KEYS

from .trust import EvidenceCode, Unproven

BUNDLE = dsse.SUBJECT_NAME
ENVELOPE = "envelope.json"
RELEASE = "release.json"
APPROVAL_RECORD = "approval.json"
TEST_RESULT = "test-result.json"
GATE = "gate.json"
WAVE_APPROVALS = "wave-approvals.json"
DEPLOYMENT = "deployment.json"
NAMES = (BUNDLE, ENVELOPE, CREDENTIAL, APPROVAL_RECORD, TEST_RESULT, GATE, WAVE_APPROVALS, SIGNING_KEYS, DEPLOYMENT)

_MAX_BYTES = MAX_BUNDLE_BYTES  # limit for one file outside a tar: that of a deploy bundle
_MAX_EXPORT_BYTES = (len(NAMES) + 1) * _MAX_BYTES
_MAX_LINE = 16 * 1024 * 1024  # characters in a line of a ledger


def read_export(path: Path) -> Mapping[str, bytes]:
    """Return the files of an export by name, from the downloaded tar, or from the folder into which it was unpacked.

    Raises Unproven for a malformed tar, and for a file that is unexpected or not a regular file. Also raises Unproven
    if the tar as a whole, or a file in the folder, is too large.
    """
    if path.is_dir():
        return {name: read_file(path / name) for name in _list_folder(path)}
    try:
        files = tar.unpack(read_file(path, _MAX_EXPORT_BYTES))
    except ValueError as error:
        raise Unproven(EvidenceCode.MALFORMED, f"{path.name}: {error}") from error
    for name in files:
        _check_name(name)
    return files


def read_file(path: Path, limit: int = _MAX_BYTES) -> bytes:
    """Read a file. Raises Unproven if it is larger than ``limit``."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unproven(EvidenceCode.TOO_LARGE, f"{path.name} is larger than {limit} bytes")
    return data


def read_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of an exported ledger. Raises Unproven if the ledger is not UTF-8 or a line is too long."""
    try:
        while line := file.readline(_MAX_LINE):
            if len(line) == _MAX_LINE and not line.endswith("\n"):
                raise Unproven(EvidenceCode.LEDGER_MALFORMED, f"a line has {_MAX_LINE} characters or more")
            yield line
    except UnicodeDecodeError as error:
        raise Unproven(EvidenceCode.LEDGER_MALFORMED, f"not UTF-8: {error}") from error


def _list_folder(path: Path) -> list[str]:
    with os.scandir(path) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        _check_name(entry.name)
        if not entry.is_file(follow_symlinks=False):
            raise Unproven(EvidenceCode.ENTRY_TYPE, f"{entry.name} is not a regular file")
    return [entry.name for entry in entries]


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise Unproven(EvidenceCode.ENTRY_EXTRA, f"{name} does not belong to the evidence of a deployment")
