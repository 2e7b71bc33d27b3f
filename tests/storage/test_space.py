"""Tests of full, read-only or broken disks (refused requests, no partial files), and of saving files as blobs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection
from django.test import Client

from apps.tenancy.api import limits
from apps.tenancy.models import AuditEvent, Project, UserToken
from byteor_cloud import errors
from byteor_cloud.api import problems
from byteor_cloud.storage import blobs, space
from byteor_cloud.storage.blobs import ReceivedFile
from byteor_cloud.storage.file_storage import AtomicFileStorage
from tests.worlds import World

HASH = "sha256:" + "ab" * 32
MIB = 1 << 20


def disk(*, left: int, of: int, files_left: int = 1000, files: int = 2000) -> Callable[[Path], Any]:
    """Return a fake ``os.statvfs`` for a disk of ``of`` bytes, of which ``left`` are free."""
    result = SimpleNamespace(
        f_frsize=4096, f_blocks=of // 4096, f_bavail=left // 4096, f_files=files, f_favail=files_left
    )
    return lambda folder: result


FULL = disk(left=0, of=100 * MIB)


@pytest.mark.parametrize(
    ("statvfs", "is_low"),
    [
        (disk(left=32 * MIB, of=10_000 * MIB), False),
        (disk(left=32 * MIB - 4096, of=10_000 * MIB), True),
        (disk(left=5 * MIB, of=100 * MIB), False),
        (disk(left=5 * MIB - 4096, of=100 * MIB), True),
        (FULL, True),
        (disk(left=9_000 * MIB, of=10_000 * MIB, files_left=63), True),
        (disk(left=9_000 * MIB, of=10_000 * MIB, files_left=64), False),
        (disk(left=9_000 * MIB, of=10_000 * MIB, files_left=0, files=0), False),  # btrfs does not count files
    ],
)
def test_space_is_low_below_thresholds(monkeypatch: pytest.MonkeyPatch, statvfs: Any, is_low: bool) -> None:
    monkeypatch.setattr(os, "statvfs", statvfs)

    assert space.is_low(Path("/")) is is_low


def test_space_is_not_low_in_missing_folder(tmp_path: Path) -> None:
    assert space.is_low(tmp_path / "gone") is False
    assert space.is_low(tmp_path) is False


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_uncaught_disk_error_returns_503(number: int) -> None:
    error = problems.as_domain_error(OSError(number, os.strerror(number), "/secret/path"))

    assert (type(error), error.retry_after) == (errors.Unavailable, 10)
    assert "/secret/path" not in error.detail


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "x"), PermissionError(errno.EACCES, "x"), ValueError("x")])
def test_uncaught_errors_unrelated_to_disk_return_500(error: Exception) -> None:
    assert not space.is_disk_error(error)
    assert problems.as_domain_error(error).status == 500


@pytest.mark.django_db
@pytest.mark.parametrize("code", ["53100", "58030"])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_full_or_failing_database_disk_causes_503_outside_api(
    monkeypatch: pytest.MonkeyPatch, code: str, accept: str
) -> None:
    """The middleware that saves sessions raises the error, so the error handling of the API does not see it."""
    client = Client(raise_request_exception=False, headers={"Accept": accept})

    def raise_full(*args: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'secret detail' USING ERRCODE = '{code}'; END $$")

    monkeypatch.setattr("django.contrib.sessions.middleware.SessionMiddleware.process_response", raise_full)
    response = client.get("/admin/login/")

    assert response.status_code == 503
    assert 10 <= int(response["Retry-After"]) <= 20
    assert "secret detail" not in response.content.decode()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", FULL)


@pytest.mark.django_db
@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_write_on_full_disk_of_embedded_database_is_refused_and_changes_nothing(world: World, method: str) -> None:
    before = AuditEvent.objects.count()
    path = f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}"

    response = world.admin.api.client.generic(
        method.upper(), path, headers={"Authorization": f"Bearer {world.admin.api.token}"}
    )

    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert 10 <= int(response["Retry-After"]) <= 20
    assert AuditEvent.objects.count() == before
    assert Project.objects.filter(pk=world.project.pk, deleted_at=None).exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("full_disk")
def test_read_on_full_disk_succeeds_and_writes_nothing(world: World, django_assert_num_queries: Any) -> None:
    UserToken.objects.update(last_used_at=None)
    writes: list[str] = []

    def collect_writes(execute: Any, sql: str, *args: Any) -> Any:
        if not sql.lstrip().upper().startswith("SELECT"):
            writes.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(collect_writes):
        response = world.admin.api.get("/api/v1/me")

    assert response.status_code == 200
    assert "X-RateLimit-Remaining" in response
    assert writes == []


@pytest.mark.django_db
@pytest.mark.usefixtures("full_disk")
def test_writes_to_external_database_succeed_when_local_disk_is_full(world: World, settings: Any) -> None:
    import dataclasses

    settings.CONFIG = dataclasses.replace(settings.CONFIG, database_url="postgresql://elsewhere/x")

    assert world.admin.api.post(f"/api/v1/orgs/{world.organization.pk}/projects", {"name": "more"}).status_code == 201
    assert Client().get("/readyz").json()["detail"] == "Not ready: disk."


@pytest.mark.django_db(transaction=True)
def test_read_succeeds_when_rate_counter_and_time_of_last_use_cannot_be_written(world: World) -> None:
    UserToken.objects.update(last_used_at=None)
    failed = []

    def fail_writes(execute: Any, sql: str, *args: Any) -> Any:
        if "tenancy_ratecounter" in sql or sql.startswith("UPDATE"):
            failed.append(sql)
            return execute("DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$", None, *args[1:])
        return execute(sql, *args)

    with connection.execute_wrapper(fail_writes):
        response = world.admin.api.get("/api/v1/me")
        with pytest.raises(DatabaseError):
            UserToken.objects.update(last_used_at=None)

    assert response.status_code == 200
    assert len(failed) >= 2
    assert response["X-RateLimit-Limit"] == str(limits.PER_MINUTE[UserToken.family])


class _FailingContent(ContentFile):  # type: ignore[type-arg]  # Django's class is not generic at run time
    """Content that raises an OSError after its first part."""

    def __init__(self, number: int) -> None:
        super().__init__(b"x" * 100)
        self._number = number

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield b"half"
        raise OSError(self._number, os.strerror(self._number))


def stored_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def artifacts(settings: Any, tmp_path: Path) -> Path:
    options = {"location": tmp_path, "allow_overwrite": True}
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "byteor_cloud.storage.file_storage.AtomicFileStorage", "OPTIONS": options},
    }
    return tmp_path


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, errors.InsufficientStorage), (errno.EDQUOT, errors.InsufficientStorage),
        (errno.EROFS, errors.Unavailable), (errno.EIO, errors.Unavailable),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_stored_before", [False, True])
def test_failed_upload_leaves_no_partial_file(
    artifacts: Path, number: int, expected: type[errors.DomainError], is_stored_before: bool
) -> None:
    if is_stored_before:
        blobs.put(HASH, b"the whole")
    before = stored_files(artifacts)

    with pytest.raises(expected) as raised:
        blobs.put_file(HASH, _FailingContent(number))

    assert type(raised.value) is expected
    assert raised.value.retry_after is not None
    assert stored_files(artifacts) == before
    assert len(before) == is_stored_before


def test_put_raises_unavailable_when_fsync_runs_out_of_space(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")  # some file systems allocate space only at fsync

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", raise_full)
        with pytest.raises(errors.Unavailable) as raised:
            blobs.put(HASH, b"tar")

    assert isinstance(raised.value.__cause__, OSError)
    assert stored_files(artifacts) == {}
    blobs.put(HASH, b"tar")
    assert stored_files(artifacts) == {"ab" * 32: b"tar"}


def received(content: bytes) -> ReceivedFile:
    file = blobs.receive("a")
    file.append(content)
    return file


def test_received_file_is_moved_into_blob_store_on_same_disk(artifacts: Path) -> None:
    with received(b"bytes") as file:
        inode = os.fstat(file.fileno()).st_ino

        blobs.put_file(HASH, file)

    assert stored_files(artifacts) == {"ab" * 32: b"bytes"}
    (file_path,) = [path for path in artifacts.rglob("*") if path.is_file()]
    assert (file_path.stat().st_ino, file_path.stat().st_mode & 0o777) == (inode, 0o644)


def test_received_file_is_copied_to_another_disk(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = received(b"bytes")

    def refuse(target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(file, "move", refuse)
    with file:
        blobs.put_file(HASH, file)

    assert stored_files(artifacts) == {"ab" * 32: b"bytes"}


def test_blobs_are_stored_in_atomic_file_storage_by_default() -> None:
    assert default_storage.exists("nothing") is False
    assert type(default_storage._wrapped) is AtomicFileStorage  # type: ignore[attr-defined]  # an attribute of Django's lazy object
