"""The signed list of a release's files: a DSSE envelope around an in-toto statement whose subject is the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from byteor.engine.canonical import Fields, Json, canonical, format_time

from . import configuration_statement, dsse
from .bundle import FileEntry
from .configuration_statement import Verified
from .keys import KeySet

PREDICATE_TYPE = "urn:byteor:release:v1"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", re.ASCII)  # a file name, never a path
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of a product: the commit from which it was made, and the size and hash of each file by name."""

    name: str
    version: str
    commit: str
    committed_at: datetime
    files: Mapping[str, FileEntry]

    @property
    def signed_at(self) -> datetime:
        """The time of the commit. The list contains no other time, so that the same commit gives the same bytes."""
        return self.committed_at

    @classmethod
    def from_document(cls, document: object, subject: Mapping[str, str]) -> Release:
        """Parse a predicate about these files. Raises ValueError for any deviation from the format."""
        members, hashes = Fields(document), Fields(dict(subject))
        sizes = members.fields("sizes")
        if sizes.names() != subject.keys():
            raise ValueError("'sizes' must name the same files as the subject")
        for name in subject:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a permitted file name")
        if not _COMMIT.fullmatch(members.text("commit")):
            raise ValueError("'commit' is not a commit id of 40 lowercase hexadecimal digits")
        release = cls(
            name=members.text("name"),
            version=members.text("version"),
            commit=members.text("commit"),
            committed_at=members.time("committed_at"),
            files={name: FileEntry(hashes.digest(name), sizes.integer(name)) for name in sorted(subject)},
        )
        if canonical(release.document()) != canonical(document):
            raise ValueError("it has an unknown member, or a value that is not in the expected form")
        return release

    def document(self) -> Json:
        """Return the predicate. The hashes are in the subject."""
        return {
            "name": self.name,
            "version": self.version,
            "commit": self.commit,
            "committed_at": format_time(self.committed_at),
            "sizes": {name: entry.size for name, entry in self.files.items()},
        }


def sign(release: Release, private_key: bytes) -> Json:
    """Return a signed envelope around the list."""
    subject = {name: entry.sha256 for name, entry in release.files.items()}
    return dsse.sign_statement(PREDICATE_TYPE, subject, release.document(), private_key)


def verify(envelope: object, keyset: KeySet) -> Verified[Release]:
    """Return the list if a trusted key signed it. Otherwise raises Refused with a code ``release.…``.

    A key that was retired after the time of the commit is trusted.
    """
    return configuration_statement.verify_once(
        "release",
        PREDICATE_TYPE,
        envelope,
        keyset,
        lambda subject, predicate: Release.from_document(predicate, subject),
    )
