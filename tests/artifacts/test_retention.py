"""Retention: expired artifacts are deleted, and so are blobs to which no row refers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import transaction
from django.utils import timezone

from apps.artifacts.models import Artifact, UnreferencedBlob
from apps.artifacts.services import retention, uploads
from apps.fleet.models import Agent
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud.errors import NotStored, Unavailable
from byteor_cloud.storage import blobs
from tests.races import Race
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db


def _artifact(world: World, environment: Environment, content: bytes) -> Artifact:
    agent, _ = world.agent(environment, name=f"agent {content!r}")
    artifact, _ = uploads.receive(
        environment=environment,
        agent=agent,
        kind="diagnostic",
        captured_at=timezone.now(),
        content_hash="sha256:" + hashlib.sha256(content).hexdigest(),
        file=ContentFile(content),
        actor=world.admin.actor,
    )
    return artifact


def _is_stored(content_hash: str) -> bool:
    try:
        blobs.read(content_hash).close()
    except NotStored:
        return False
    return True


def test_only_expired_artifacts_are_deleted(world: World) -> None:
    short = world.environment("dev", "short", artifact_retention_days=1)
    old, kept = _artifact(world, short, b"old"), _artifact(world, world.dev, b"kept")

    assert retention.delete_old_artifacts(timezone.now() + timedelta(hours=23)) == 0
    assert retention.delete_old_artifacts(timezone.now() + timedelta(days=2)) == 1

    assert list(Artifact.objects.values_list("pk", flat=True)) == [kept.pk]
    event = AuditEvent.objects.get(action="artifact.expire")
    assert (event.environment_id, event.changes) == (old.environment_id, {"artifacts": 1, "retention_days": 1})


def test_expired_artifacts_are_deleted_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_SIZE", 2)
    short = world.environment("dev", "short", artifact_retention_days=1)
    for number in range(5):
        _artifact(world, short, b"%d" % number)

    assert retention.delete_old_artifacts(timezone.now() + timedelta(days=2)) == 5

    assert not Artifact.objects.exists()
    assert [e.changes["artifacts"] for e in AuditEvent.objects.filter(action="artifact.expire").order_by("id")] == [
        2, 2, 1,
    ]  # fmt: skip
    assert retention.delete_unreferenced_blobs() == 5


def test_blob_is_kept_while_row_refers_to_it(world: World) -> None:
    one, two = _artifact(world, world.dev, b"shared"), _artifact(world, world.staging, b"shared")

    one.delete()
    assert retention.delete_unreferenced_blobs() == 0
    assert _is_stored(two.content_hash)
    assert not UnreferencedBlob.objects.exists()

    two.delete()
    assert retention.delete_unreferenced_blobs() == 1
    assert not _is_stored(two.content_hash)
    assert not UnreferencedBlob.objects.exists()


def test_blobs_of_purged_environment_are_deleted(world: World) -> None:
    world.agent()
    deployment = world.deployment(world.bundle())
    run_jobs()
    deployment.refresh_from_db()
    hashes = [_artifact(world, world.dev, b"purged").content_hash, deployment.bundle_hash or ""]

    world.admin.api.delete(world.path())
    run_jobs()

    assert set(UnreferencedBlob.objects.values_list("pk", flat=True)) >= set(hashes)
    retention.delete_unreferenced_blobs()
    assert [_is_stored(content_hash) for content_hash in hashes] == [False, False]


def test_deletion_of_unreferenced_blobs_keeps_referenced_deploy_bundle(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.agent()
    deployment = world.deployment(world.bundle())
    run_jobs()
    deployment.refresh_from_db()

    _list_strays_for_a_week(timezone.now() + timedelta(days=9))
    retention.delete_unreferenced_blobs()

    assert _is_stored(deployment.bundle_hash or "")


def _list_strays_for_a_week(now: datetime) -> int:
    """Run the hourly search for stray blobs once for each hour of the week before ``now``."""
    return sum(retention.list_stray_blobs(now - timedelta(hours=hour)) for hour in range(168))


def test_blob_deletion_needs_few_storage_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[str] = []
    for name in ("listdir", "get_modified_time", "exists", "size"):
        monkeypatch.setattr(FileSystemStorage, name, _recording(requests, getattr(FileSystemStorage, name)))
    kept, gone = _artifact(world, world.dev, b"kept"), _artifact(world, world.dev, b"gone")
    requests.clear()

    retention.delete_unreferenced_blobs()
    assert requests == []
    gone.delete()
    assert (retention.delete_unreferenced_blobs(), requests) == (1, [])
    _list_strays_for_a_week(timezone.now() + timedelta(days=9))

    # Within a week, each folder is listed once, and only the times of stray blobs are read.
    folders = [name for name in requests if name.count("/") == 1]
    assert sorted(folders) == [f"sha256/{number:02x}" for number in range(256)]
    assert blobs.storage_name(kept.content_hash) not in requests


def _recording(requests: list[str], real: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of the storage so that it records the name of each requested file or folder."""

    def record(self: FileSystemStorage, name: str) -> Any:
        requests.append(name)
        return real(self, name)

    return record


def test_old_unreferenced_blobs_are_deleted(world: World) -> None:
    stray = "sha256:" + hashlib.sha256(b"stray").hexdigest()
    blobs.put(stray, b"stray")

    _list_strays_for_a_week(timezone.now() + timedelta(hours=23))
    assert not _is_listed(stray)  # the blob is so young that its row may still be written
    _list_strays_for_a_week(timezone.now() + timedelta(days=9))
    assert _is_listed(stray)

    retention.delete_unreferenced_blobs()
    assert not _is_stored(stray)


def _is_listed(content_hash: str) -> bool:
    return UnreferencedBlob.objects.filter(pk=content_hash).exists()


def test_unreferenced_blob_is_kept_if_referenced_again_before_its_deletion(world: World) -> None:
    content_hash = "sha256:" + hashlib.sha256(b"late").hexdigest()
    blobs.put(content_hash, b"late")
    UnreferencedBlob.objects.create(content_hash=content_hash)

    _artifact(world, world.dev, b"late")

    assert retention.delete_unreferenced_blobs() == 0
    assert _is_stored(content_hash)


def test_failed_blob_deletion_is_retried_without_blocking_other_deletions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (_artifact(world, world.dev, content).content_hash for content in (b"first", b"second"))
    Artifact.objects.all().delete()
    UnreferencedBlob.objects.filter(pk=first).update(since=timezone.now() - timedelta(hours=1))
    real = FileSystemStorage.delete

    def refuse(self: FileSystemStorage, name: str) -> None:
        if name == blobs.storage_name(first):
            raise PermissionError(13, "Permission denied")
        real(self, name)

    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    with pytest.raises(PermissionError):
        retention.delete_unreferenced_blobs()
    assert (_is_listed(first), _is_listed(second)) == (True, True)
    with pytest.raises(PermissionError):
        retention.delete_unreferenced_blobs()

    assert (_is_stored(first), _is_stored(second)) == (True, False)
    monkeypatch.setattr(FileSystemStorage, "delete", real)
    assert retention.delete_unreferenced_blobs() == 1


def test_concurrent_uploads_and_deletions_lose_no_referenced_blob(concurrently: Race, world: World) -> None:
    content = b"again and again"
    agent, _ = world.agent(name="uploader")
    content_hash = "sha256:" + hashlib.sha256(content).hexdigest()
    lost: list[int] = []

    def upload(number: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(15):
                try:
                    artifact, _fresh = uploads.receive(
                        environment=world.dev, agent=agent, kind="diagnostic", captured_at=timezone.now(),
                        content_hash=content_hash, file=ContentFile(content), actor=world.admin.actor,
                    )  # fmt: skip
                except Unavailable:
                    continue  # the upload was refused, so the blob need not be stored
                if number == 0:  # one uploader deletes its artifact, as retention does
                    Artifact.objects.filter(pk=artifact.pk).delete()
                else:
                    with transaction.atomic():
                        row = Artifact.objects.select_for_update().filter(pk=artifact.pk).first()
                        if row is not None and not _is_stored(content_hash):
                            lost.append(number)

        return run

    def remove() -> None:
        for _ in range(60):
            retention.delete_unreferenced_blobs()

    results = concurrently(upload(0), upload(1), upload(2), remove)

    assert [result for result in results if result is not None] == []
    assert lost == []


@pytest.mark.parametrize("moment", ["stored", "locked"])
def test_blob_deletion_during_upload_loses_no_acknowledged_blob(
    concurrently: Race, world: World, monkeypatch: Any, moment: str
) -> None:
    """The blob is stored but its row is not yet. The deletion runs before or after the upload locks the blob."""
    content_hash = "sha256:" + hashlib.sha256(b"between").hexdigest()
    UnreferencedBlob.objects.create(content_hash=content_hash)
    reached, removed = threading.Event(), threading.Event()
    real = blobs.protect

    def keep(locked_hash: str) -> None:
        if moment == "locked":
            real(locked_hash)
        reached.set()
        removed.wait(1 if moment == "locked" else None)  # until the lock is released, a waiting deletion cannot finish
        if moment == "stored":
            real(locked_hash)

    monkeypatch.setattr(blobs, "protect", keep)

    def remove() -> int:
        reached.wait()
        count = retention.delete_unreferenced_blobs()
        removed.set()
        return count

    uploaded, count = concurrently(lambda: _artifact(world, world.dev, b"between"), remove)

    if moment == "stored":
        assert (type(uploaded), count, _is_stored(content_hash)) == (Unavailable, 1, False)
        assert not Artifact.objects.exists()
        monkeypatch.setattr(blobs, "protect", real)
        agent = Agent.objects.get(name="agent b'between'")
        uploads.receive(
            environment=world.dev, agent=agent, kind="diagnostic", captured_at=timezone.now(),
            content_hash=content_hash, file=ContentFile(b"between"), actor=world.admin.actor,
        )  # fmt: skip
    else:
        assert (type(uploaded), count) == (Artifact, 0)
    assert _is_stored(content_hash)
    assert Artifact.objects.count() == 1
