"""Tests of the formats of manifests and blob lists, and of the names of backups."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import LedgerHead, ListedBlob, Manifest, StoredFile, is_name, new_name

HEX = "ab" * 32
ORGANIZATION = "0193a5c0-0000-7000-8000-000000000001"
MANIFEST = Manifest(
    name="20261129T090000Z-00ff00",
    created_at=datetime(2026, 11, 29, 9, tzinfo=UTC),
    installation="i-1",
    product_version="0.1.0",
    migrations=("fleet.0001_initial", "tenancy.0001_initial"),
    postgresql=18,
    dump=StoredFile(HEX, 10),
    blob_list=StoredFile(HEX, 2),
    blob_count=3,
    blob_bytes=4,
    faulty_blobs=1,
    ledgers=(LedgerHead(None, 7, "sha256:aa"), LedgerHead(ORGANIZATION, 1 << 40, "sha256:bb")),
    master_key_id="0011223344556677",
    master_key=None,
    counts={"agents": 2},
)


def test_manifest_survives_writing_and_reading() -> None:
    assert Manifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST


def test_manifest_with_newer_format_version_is_refused() -> None:
    newer = {**json.loads(MANIFEST.to_bytes()), "version": 2}

    with pytest.raises(BackupError, match="has format version 2, but this release reads version 1"):
        Manifest.from_bytes(json.dumps(newer).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": "byteor-backup", "version": 1}',
        MANIFEST.to_bytes()[:-9],
        MANIFEST.to_bytes().replace(b'"size": 10', b'"size": Infinity'),
        MANIFEST.to_bytes().replace(b'"version": 1', b'"version": "\\u001b[2J"'),
        MANIFEST.to_bytes().replace(MANIFEST.name.encode(), b"../../etc/passwd"),
        MANIFEST.to_bytes().replace(ORGANIZATION.encode(), b"1"),
    ],
)
def test_damaged_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(BackupError, match="the manifest is damaged"):
        Manifest.from_bytes(content)


def test_blob_list_line_survives_writing_and_reading_and_invalid_line_is_refused() -> None:
    for blob in (ListedBlob(HEX, 5), ListedBlob(HEX, fault="missing"), ListedBlob(HEX, fault="altered")):
        assert ListedBlob.from_line(blob.to_line()) == blob
    for line in (b"", b"\n", f"{HEX} 5".encode(), f"{HEX} lost\n".encode(), b"../../etc/passwd 5\n"):
        with pytest.raises(BackupError, match="invalid line"):
            ListedBlob.from_line(line)


def test_backup_names_sort_by_time() -> None:
    earlier, later = datetime(2026, 9, 30, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)

    assert new_name(earlier) < new_name(later)


def test_backup_name_sorts_after_previous_backup_even_if_clock_was_set_back() -> None:
    last = new_name(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))

    name = new_name(datetime(2026, 9, 30, tzinfo=UTC), after=last)

    assert name[:16] == "20270101T000000Z"
    assert is_name(name)
    assert new_name(datetime(2027, 2, 1, tzinfo=UTC), after=last)[:16] == "20270201T000000Z"


@pytest.mark.parametrize("name", ["", "..", "20261129T090000Z", "20261332T090000Z-00ff00", "20261129T090000Z-00ff00/x"])
def test_invalid_backup_names_are_rejected(name: str) -> None:
    assert not is_name(name)
