"""Tests of folders, tar files and buckets with backups."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.backup.bucket_target import BucketTarget
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import blob_path, dump_path, manifest_path
from byteor_cloud.backup.reading import AlteredError, CheckedReader, StoredBackup, open_backup, open_target
from byteor_cloud.backup.tar_target import TarTarget
from byteor_cloud.backup.targets import FolderTarget, Target, copy
from tests.backup.test_manifest import MANIFEST
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


def test_removing_incomplete_backup_keeps_its_blobs(tmp_path: Path, object_store: ObjectStore) -> None:
    for target in (FolderTarget(tmp_path / "backups"), bucket_target(object_store)):
        target.prepare()
        target.write(dump_path(NAME), io.BytesIO(b"dump"))
        target.write(blob_path(DIGEST), io.BytesIO(b"blob"))
        assert target.list_names() == [(NAME, False)]

        target.remove(NAME)

        assert target.list_names() == []
        assert target.list_blobs("ab") == {DIGEST: 4}


def test_files_and_folders_in_target_folder_are_readable_by_owner_only(tmp_path: Path) -> None:
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


def test_unusable_folders_and_tar_files_are_refused_as_targets(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "backup.tar").touch()

    for place, message in (
        ("full", "contains other files, such as thesis.txt: use an empty folder"),
        ("file", "is not a folder"),
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


def test_errors_about_denied_and_unreachable_stores_contain_no_credentials(
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


def test_error_names_place_if_server_is_no_object_store(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def answer_404(*args: Any, **options: Any) -> None:
        raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "ListObjectsV2")

    target = bucket_target(object_store)
    monkeypatch.setattr(target, "_pages", answer_404)

    for act in (target.prepare, target.list_names):
        with pytest.raises(BackupError, match=rf"^s3://{BUCKET}/nightly: the store reports 404$"):
            act()


@pytest.mark.parametrize(
    "location", ["", "sftp://ada:secret@host/x", "s3://", "s3://user:secret@bucket/x", "s3://bucket?x", "s3://[x"]
)
def test_invalid_locations_are_refused(location: str) -> None:
    with pytest.raises(BackupError, match=r"is neither a folder|must be given as s3://") as refused:
        open_target(location)
    assert "secret" not in str(refused.value)


def test_leftovers_of_killed_backups_are_removed(tmp_path: Path, object_store: ObjectStore) -> None:
    folder, bucket = FolderTarget(tmp_path / "backups"), bucket_target(object_store)
    for target in (folder, bucket):
        target.prepare()
        target.write(blob_path(DIGEST), io.BytesIO(b"blob"))
    (tmp_path / "backups/blobs/sha256/ab/.partial-x").write_bytes(b"half")
    begun = [object_store.bucket.Object(f"{place}/{dump_path(NAME)}") for place in ("nightly", "another")]
    for each in begun:
        each.initiate_multipart_upload().Part(1).upload(Body=b"half")

    for target in (folder, bucket):
        target.remove_leftovers()
        assert target.list_blobs("ab") == {DIGEST: 4}

    left = list(object_store.bucket.multipart_uploads.all())
    assert [each.object_key for each in left] == [begun[1].key]
    left[0].abort()
    object_store.bucket.objects.all().delete()


def test_bucket_with_several_pages_of_objects_is_listed_completely(object_store: ObjectStore) -> None:
    digests = {hashlib.sha256(bytes([number % 256, number // 256])).hexdigest() for number in range(1001)}
    keys = [f"nightly/blobs/sha256/ab/{digest}" for digest in digests]
    keys += [f"nightly/{dump_path(f'20261129T{number:06}Z-00ff00')}" for number in range(1001) if number % 100 < 60]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: object_store.bucket.put_object(Key=key, Body=b"x"), keys))
    target = bucket_target(object_store)

    target.prepare()

    assert target.list_blobs("ab").keys() == digests
    assert len(target.list_names()) == len(keys) - 1001
    object_store.bucket.objects.all().delete()


def test_preparing_tar_file_removes_only_its_own_temporary_files(tmp_path: Path) -> None:
    mine, others = ".partial-[a].tar-0a1b2c3d", [".partial-a.tar-0a1b2c3d", ".partial-[a].tar-b.tar-0a1b2c3d"]
    for name in (mine, *others):
        (tmp_path / name).touch()

    with closing(TarTarget(tmp_path / "[a].tar")) as target:
        target.prepare()
        target.finish()

    assert {each.name for each in tmp_path.iterdir()} == {"[a].tar", *others}


def test_odd_members_of_tar_file_are_neither_extracted_nor_followed(tmp_path: Path) -> None:
    path, name = tmp_path / "x/backup.tar", "20261129T090000Z-00ff01"
    path.parent.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    with tarfile.open(path, "w") as tar:
        for member in (
            "../evil",
            "/tmp/evil",
            "backups/zz/manifest.json",
            "backups/../manifest.json",
            "backups/x\ny/z",
        ):
            tar.addfile(tarfile.TarInfo(member))
        for member, kind in ((manifest_path(name), tarfile.SYMTYPE), (blob_path(DIGEST), tarfile.LNKTYPE)):
            link = tarfile.TarInfo(member)
            link.type, link.linkname = kind, str(tmp_path / "secret")
            tar.addfile(link)
        fifo = tarfile.TarInfo(dump_path(name))
        fifo.type = tarfile.FIFOTYPE
        tar.addfile(fifo)

    target = TarTarget(path)

    assert target.list_names() == []
    for member in (manifest_path(name), blob_path(DIGEST), dump_path(name)):
        with pytest.raises(FileNotFoundError):
            target.open(member)
    with pytest.raises(BackupError, match="contains no complete backup"):
        open_backup(str(path))
    assert {each.name for each in tmp_path.rglob("*")} == {"x", "backup.tar", "secret"}


def test_copying_endless_file_stops_at_maximum_size(tmp_path: Path) -> None:
    endless = CheckedReader(Endless(), "the dump", "ab" * 32, max_size=10 << 20)

    with pytest.raises(AlteredError, match="the dump was altered"):
        copy(endless, io.BytesIO())


class Endless:
    """A source without an end, such as a link to /dev/zero."""

    def read(self, size: int = -1, /) -> bytes:
        return bytes(size)


def test_dump_longer_than_in_manifest_is_refused(tmp_path: Path) -> None:
    target = FolderTarget(tmp_path)
    target.prepare()
    target.write(manifest_path(NAME), io.BytesIO(MANIFEST.to_bytes()))
    (tmp_path / dump_path(NAME)).symlink_to("/dev/zero")

    with StoredBackup(target, NAME) as backup, (tmp_path / "copy").open("wb") as file:
        with pytest.raises(AlteredError, match=r"database\.dump was altered"):
            backup.copy_dump(file)
        assert file.tell() == 0


def test_error_messages_are_one_line_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "a\nb\x1b[2J").touch()

    with pytest.raises(BackupError, match=r"such as a\?b\?\[2J: use an empty folder") as refused:
        FolderTarget(tmp_path).prepare()

    assert str(refused.value).isprintable()
