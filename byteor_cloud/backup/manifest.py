"""The format of backups, version 1.

A folder or bucket contains the backups of one installation, which share their blobs::

    blobs/sha256/ab/<hex>        the content with the SHA-256 <hex>
    backups/<name>/database.dump    what pg_dump wrote, in its custom format
    backups/<name>/blobs.txt        a line for each blob that the dump refers to, in the order of the hashes
    backups/<name>/manifest.json    written last: a backup without it is incomplete

A tar file contains the same files of one backup, so that it can be unpacked to a folder. The manifest contains the
hashes of the dump and of the blob list, and each blob is named by its hash. Therefore the hash of the manifest alone
identifies the backup's whole content.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from byteor.engine.canonical import Malformed, format_time, parse_time
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.passphrase import EncryptedKey

FORMAT = "byteor-backup"
VERSION = 1
MAX_BYTES = 64 << 20  # of a manifest; enough for the ledger heads of about 400,000 organizations
_NAME = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{6}")
_TIME = "%Y%m%dT%H%M%SZ"
_HEX = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"([0-9a-f]{64}) ([0-9]{1,19}|missing|altered)\n")


def new_name(now: datetime, *, after: str | None = None) -> str:
    """Return a name for a new backup. Names sort by time.

    The name sorts after the name ``after``, even if the clock was set back since, so that the last name is always that
    of the newest backup.
    """
    time = now.astimezone(UTC).replace(microsecond=0)
    if after is not None and (match := _NAME.fullmatch(after)) is not None:
        time = max(time, datetime.strptime(match[1], _TIME).replace(tzinfo=UTC) + timedelta(seconds=1))
    return f"{time:{_TIME}}-{secrets.token_hex(3)}"


def is_name(text: str) -> bool:
    """Return whether the text has the form of a backup name."""
    if (match := _NAME.fullmatch(text)) is None:
        return False
    try:
        return datetime.strptime(match[1], _TIME).year < 9999
    except ValueError:
        return False


def dump_path(name: str) -> str:
    """Return the path of the dump of the backup ``name``."""
    return f"backups/{name}/database.dump"


def blob_list_path(name: str) -> str:
    """Return the path of the blob list of the backup ``name``."""
    return f"backups/{name}/blobs.txt"


def manifest_path(name: str) -> str:
    """Return the path of the manifest of the backup ``name``."""
    return f"backups/{name}/manifest.json"


def blob_path(digest: str) -> str:
    """Return the path of the blob with the SHA-256 ``digest`` (hexadecimal)."""
    return f"blobs/sha256/{digest[:2]}/{digest}"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The SHA-256 (hexadecimal) and the size in bytes of a file of the backup."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """A blob that the dump refers to.

    ``fault`` is "missing" or "altered" if the backup has no valid copy, because the installation itself had none.
    """

    sha256: str
    size: int = 0
    fault: str | None = None

    def to_line(self) -> bytes:
        """Return the line of the blob list."""
        return f"{self.sha256} {self.fault or self.size}\n".encode()

    @classmethod
    def from_line(cls, line: bytes) -> ListedBlob:
        """Read a line of the blob list. Raises BackupError."""
        match = _LINE.fullmatch(line.decode("ascii", "replace"))
        if match is None:
            raise BackupError("the blob list contains an invalid line")
        digest, value = match.groups()
        return cls(digest, int(value)) if value.isdigit() else cls(digest, fault=value)


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """The sequence number and hash of the last link of a chain in the dump.

    ``organization_id`` is None for the installation's own chain.
    """

    organization_id: str | None
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of a backup. It describes the database as of the snapshot in the dump."""

    name: str
    created_at: datetime
    installation: str
    """The id of the installation's first signing key, which stays the same for the life of the installation."""
    product_version: str
    migrations: tuple[str, ...]
    """The applied migrations, as ``app.name``, sorted."""
    postgresql: int
    """The major version of the database server and of pg_dump."""
    dump: StoredFile
    blob_list: StoredFile
    blob_count: int
    blob_bytes: int
    faulty_blobs: int
    """The number of listed blobs with a fault."""
    ledgers: tuple[LedgerHead, ...]
    master_key_id: str
    """The id of the master key that all secrets in the dump are encrypted under (``vault.key_id``)."""
    master_key: EncryptedKey | None
    """The encrypted key, or None if the backup was made without a passphrase."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The number of rows by kind. Decommissioned agents are not counted. For information only."""

    def to_bytes(self) -> bytes:
        """Return the content of the manifest's file."""
        value = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "created_at": format_time(self.created_at),
            "installation": self.installation,
            "product_version": self.product_version,
            "migrations": self.migrations,
            "postgresql": self.postgresql,
            "dump": {"sha256": self.dump.sha256, "size": self.dump.size},
            "blobs": {
                "sha256": self.blob_list.sha256,
                "size": self.blob_list.size,
                "count": self.blob_count,
                "bytes": self.blob_bytes,
                "faulty": self.faulty_blobs,
            },
            "ledgers": [{"org_id": each.organization_id, "seq": each.seq, "hash": each.hash} for each in self.ledgers],
            "master_key": {
                "id": self.master_key_id,
                "encrypted": None if self.master_key is None else self.master_key.to_json(),
            },
            "counts": dict(self.counts),
        }
        return json.dumps(value, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read a manifest. Raises BackupError if it is damaged, or if this release cannot read its format."""
        try:
            value = json.loads(content)
            if value["format"] != FORMAT:
                raise BackupError("the manifest does not belong to a backup of ByteOr Cloud")
            if (version := int(value["version"])) != VERSION:
                raise BackupError(f"the backup has format version {version}, but this release reads version {VERSION}")
            return cls._from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, Malformed, RecursionError):
            raise BackupError("the manifest is damaged") from None

    @classmethod
    def _from_json(cls, value: Any) -> Manifest:
        blobs, key = value["blobs"], value["master_key"]
        if not is_name(value["name"]):
            raise ValueError
        return cls(
            name=value["name"],
            created_at=parse_time(value["created_at"]),
            installation=str(value["installation"]),
            product_version=str(value["product_version"]),
            migrations=tuple(map(str, value["migrations"])),
            postgresql=int(value["postgresql"]),
            dump=_stored_file(value["dump"]),
            blob_list=_stored_file(blobs),
            blob_count=int(blobs["count"]),
            blob_bytes=int(blobs["bytes"]),
            faulty_blobs=int(blobs["faulty"]),
            ledgers=tuple(
                LedgerHead(
                    None if each["org_id"] is None else str(UUID(each["org_id"])), int(each["seq"]), str(each["hash"])
                )
                for each in value["ledgers"]
            ),
            master_key_id=str(key["id"]),
            master_key=None if key["encrypted"] is None else EncryptedKey.from_json(key["encrypted"]),
            counts={str(name): int(count) for name, count in value["counts"].items()},
        )


def _stored_file(value: Any) -> StoredFile:
    if not _HEX.fullmatch(value["sha256"]):
        raise ValueError
    return StoredFile(value["sha256"], int(value["size"]))


def hash_of(content: bytes) -> str:
    """Return the hash that identifies a manifest, ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
