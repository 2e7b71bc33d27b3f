"""Tests of folders, tar files and buckets with backups."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.backup.bucket_target import BucketTarget
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import blob_path, dump_path, manifest_path
from byteor_cloud.backup.reading import AlteredError, CheckedReader, open_target
from byteor_cloud.backup.tar_target import TarTarget
from byteor_cloud.backup.targets import FolderTarget, Target
from tests.object_store import BUCKET, REGION, ObjectStore, object_store

__all__ = ["object_store"]

NAME = "20261129T090000Z-00ff00"
CONTENT = os.urandom(3 << 20)
DIGEST = "ab" + "0" * 62


class BrokenSource:
    """A source that fails after its first bytes, like a pg_dump that is killed."""

    def __init__(self) -> None:
        self._pieces = [b"half"]

    def read(self, size: int = -1, /) -> bytes:
        if self._pieces:
            return self._pieces.pop()
        raise BackupError("pg_dump failed")


def bucket_target(store: ObjectStore, name: str = BUCKET) -> BucketTarget:
    return BucketTarget(f"s3://{name}/nightly", endpoint_url=store.endpoint, region=REGION)


@pytest.fixture(params=["folder", "tar", "bucket"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    made: Target
    if request.param == "bucket":
        store = request.getfixturevalue("object_store")
        made = bucket_target(store)
    else:
        made = FolderTarget(tmp_path / "backups") if request.param == "folder" else TarTarget(tmp_path / "backup.tar")
    with closing(made):
        yield made
    if request.param == "bucket":
        store.bucket.objects.all().delete()


def test_files_are_read_as_they_were_written(target: Target) -> None:
    target.prepare()
    target.write(dump_path(NAME), io.BytesIO(CONTENT))
    target.write(blob_path(DIGEST), io.BytesIO(b""))
    target.write(manifest_path(NAME), io.BytesIO(b"{}"))
    target.finish()

    stored = type(target)(target._path) if isinstance(target, TarTarget) else target
    with closing(stored.open(dump_path(NAME))) as file:
        assert file.read() == CONTENT
    assert stored.list_blobs("ab") == {DIGEST: 0}
    assert stored.list_blobs("00") == {}
    assert stored.list_names() == [(NAME, True)]
    with pytest.raises(FileNotFoundError):
        stored.open(blob_path("cd" * 32))


def test_file_whose_source_fails_does_not_appear(target: Target) -> None:
    target.prepare()

    with pytest.raises(BackupError, match="pg_dump failed"):
        target.write(dump_path(NAME), BrokenSource())
    with pytest.raises(AlteredError, match="the blob was altered"):
        target.write(blob_path(DIGEST), CheckedReader(io.BytesIO(b"other"), "the blob", DIGEST))

    assert not any(is_complete for _, is_complete in target.list_names())
    assert target.list_blobs("ab") == {}
    if not isinstance(target, TarTarget):  # a tar file is readable only when it is complete
        with pytest.raises(FileNotFoundError):
            target.open(dump_path(NAME))


def test_incomplete_backup_is_removed_without_its_blobs(tmp_path: Path, object_store: ObjectStore) -> None:
    for target in (FolderTarget(tmp_path / "backups"), bucket_target(object_store)):
        target.prepare()
        target.write(dump_path(NAME), io.BytesIO(b"dump"))
        target.write(blob_path(DIGEST), io.BytesIO(b"blob"))
        assert target.list_names() == [(NAME, False)]

        target.remove(NAME)

        assert target.list_names() == []
        assert target.list_blobs("ab") == {DIGEST: 4}


def test_folder_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    target = FolderTarget(tmp_path / "backups")
    target.prepare()
    target.write(dump_path(NAME), io.BytesIO(b"dump"))
    target.write(blob_path(DIGEST), io.BytesIO(b"blob"))

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "backups").rglob("*") if path.is_dir()}
    files = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "backups").rglob("*") if path.is_file()}
    assert (modes, files) == ({0o700}, {0o600})


def test_tar_file_is_readable_by_its_owner_only_and_appears_when_complete(tmp_path: Path) -> None:
    with closing(TarTarget(tmp_path / "backup.tar")) as target:
        target.prepare()
        target.write(manifest_path(NAME), io.BytesIO(b"{}"))
        assert not (tmp_path / "backup.tar").exists()
        target.finish()
    with closing(TarTarget(tmp_path / "half.tar")) as target:
        target.prepare()
        target.write(dump_path(NAME), io.BytesIO(b"dump"))

    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]
    assert stat.S_IMODE((tmp_path / "backup.tar").stat().st_mode) == 0o600


@pytest.mark.parametrize("left", [100, 1 << 20])
def test_truncated_tar_file_is_refused(tmp_path: Path, left: int) -> None:
    path = tmp_path / "backup.tar"
    with closing(TarTarget(path)) as target:
        target.prepare()
        target.write(dump_path(NAME), io.BytesIO(CONTENT))
        target.finish()
    os.truncate(path, left)

    with pytest.raises(BackupError, match=r"backup.tar is not a complete tar file"):
        TarTarget(path).list_names()


def test_folder_in_use_for_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "backup.tar").touch()

    for place, message in (
        ("full", "contains other files, such as thesis.txt: use an empty folder"),
        ("file", "is a file, not a folder"),
        ("missing/backups", "the folder .*/missing does not exist"),
        ("missing/b.tar", "the folder .*/missing does not exist"),
        ("backup.tar", "already exists: a tar file contains one backup"),
    ):
        with closing(open_target(str(tmp_path / place))) as target, pytest.raises(BackupError, match=message):
            target.prepare()

    assert list((tmp_path / "full").iterdir()) == [tmp_path / "full" / "thesis.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT TESTED: a folder without write permission. Root may write anywhere.")
def test_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(BackupError, match="Permission denied"):
        FolderTarget(tmp_path).prepare()


def test_missing_bucket_is_refused(object_store: ObjectStore) -> None:
    with pytest.raises(BackupError, match="the bucket does not exist"):
        bucket_target(object_store, "no-such-bucket").prepare()


def test_bucket_with_other_objects_is_refused(object_store: ObjectStore) -> None:
    object_store.bucket.put_object(Key="nightly/thesis.txt", Body=b"x")

    with pytest.raises(BackupError, match=r"contains other objects, such as thesis\.txt"):
        bucket_target(object_store).prepare()

    object_store.bucket.objects.all().delete()


def test_denied_and_unreachable_stores_are_refused_without_credentials(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def deny(*args: Any, **options: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "AKIASECRET"}}, "ListObjectsV2")

    denied = bucket_target(object_store)
    monkeypatch.setattr(denied, "_pages", deny)
    unreachable = BucketTarget("s3://b/p", endpoint_url="http://127.0.0.1:1", region=REGION)

    for target, message in ((denied, "access denied"), (unreachable, "the store cannot be used")):
        with pytest.raises(BackupError, match=message) as refused:
            target.prepare()
        assert "AKIA" not in str(refused.value)


@pytest.mark.parametrize("location", ["", "ftp://host/x", "s3://", "s3://user:secret@bucket/x", "s3://bucket?x"])
def test_invalid_locations_are_refused(location: str) -> None:
    with pytest.raises(BackupError, match=r"is neither a folder|must be given as s3://") as refused:
        open_target(location)
    assert "secret" not in str(refused.value)
