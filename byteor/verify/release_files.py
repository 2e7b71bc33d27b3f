"""Verifies that the files of a release are the ones in its signed list.

The signature covers the list, and the list has the hash of each file. A listed file that is missing is not checked, so
that a single file can be verified. Other files in the folder are not covered. The output mentions both, but does not
count the list itself and the key set among the other files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from byteor.engine.canonical import Json, format_time, parse_object
from byteor.engine.signing import release_statement
from byteor.engine.signing.bundle import SIGNING_KEYS, FileEntry
from byteor.engine.signing.refusals import Refused, StatementCode
from byteor.engine.signing.release_statement import Release

from .files import read_file
from .trust import Doubt, EvidenceCode, Signature, Trust, Unproven

_MAX_LIST_BYTES = 1024 * 1024
_MAX_SHOWN = 5  # names in one line


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseProof:
    """The verified facts about a release. ``checked``, ``missing`` and ``not_covered`` are sorted names."""

    release: Release
    signature: Signature
    checked: Sequence[str]
    missing: Sequence[str]
    not_covered: Sequence[str]
    doubts: tuple[Doubt, ...] = ()

    @property
    def signatures(self) -> list[Signature]:
        """The verified signatures."""
        return [self.signature]

    def document(self) -> Json:
        """Return the proof as JSON data."""
        release = self.release
        return {
            "name": release.name,
            "version": release.version,
            "commit": release.commit,
            "committed_at": format_time(release.committed_at),
            "files": [
                {"name": name, "size": release.files[name].size, "sha256": release.files[name].sha256}
                for name in self.checked
            ],
            "missing": list(self.missing),
            "not_covered": list(self.not_covered),
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the printed proof, each as a label and a value."""
        yield "release", f"{self.release.name} {self.release.version}"
        yield "commit", f"{self.release.commit}, {format_time(self.release.committed_at)}"
        for name in self.checked:
            entry = self.release.files[name]
            yield "file", f"{name}, {entry.size:,} bytes, {entry.sha256}"
        if self.missing:
            yield "NOT CHECKED", f"in the list, but not in the folder: {_shortened(self.missing)}"
        if self.not_covered:
            yield "NOT COVERED", f"in the folder, but not in the list: {_shortened(self.not_covered)}"


def _shortened(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MAX_SHOWN:,} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + rest


def prove(path: Path, trust: Trust) -> ReleaseProof:
    """Verify the signed list in this file, and then the listed files in the same folder.

    Raises Unproven or Refused if the list is malformed or too large, no trusted key signed it, a file differs from it
    or is not a regular file, or no listed file is there.
    """
    try:
        verified = release_statement.verify(parse_object(read_file(path, _MAX_LIST_BYTES)), trust.keyset)
    except ValueError as error:
        raise Refused(StatementCode.RELEASE_MALFORMED, f"{path.name}: {error}") from error
    except Refused as refused:
        raise Refused(refused.code, f"{path.name}: {refused.detail}") from refused
    trust.check(verified.kid)
    release = verified.content
    with os.scandir(path.parent) as scanned:
        entries = {entry.name: entry for entry in scanned}
    checked = sorted(release.files.keys() & entries.keys())
    if not checked:
        raise Unproven(EvidenceCode.FILE_MISSING, f"the folder of {path.name} contains none of the listed files")
    for name in checked:
        if not entries[name].is_file(follow_symlinks=False):
            raise Unproven(EvidenceCode.ENTRY_TYPE, f"{name} is not a regular file")
        _check_file(Path(entries[name].path), release.files[name])
    return ReleaseProof(
        release=release,
        signature=Signature(path.name, verified.kid, "the version, the commit, and each file's size and hash"),
        checked=checked,
        missing=sorted(release.files.keys() - entries.keys()),
        not_covered=sorted(entries.keys() - release.files.keys() - {path.name, SIGNING_KEYS}),
    )


def _check_file(path: Path, expected: FileEntry) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.size:
            raise Unproven(
                EvidenceCode.RELEASE_ALTERED,
                f"{path.name} has {size:,} bytes, but the list says {expected.size:,} bytes",
            )
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if found != expected.sha256:
        raise Unproven(
            EvidenceCode.RELEASE_ALTERED, f"{path.name} has the hash {found}, but the list says {expected.sha256}"
        )
