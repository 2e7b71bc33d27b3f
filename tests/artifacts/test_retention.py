"""Artifacts end with their environment's setting; bytes with the last row that refers to them."""

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

from apps.artifacts import retention
from apps.artifacts.models import Artifact, UnreferencedBlob
from apps.artifacts.services import uploads
from apps.fleet.models import Agent
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud import blobs
from byteor_cloud.errors import Unavailable
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
    except FileNotFoundError:
        return False
    return True


def test_artifacts_past_their_time_go_and_younger_ones_stay(world: World) -> None:
    short = world.environment("dev", "short", artifact_retention_days=1)
    old, kept = _artifact(world, short, b"old"), _artifact(world, world.dev, b"kept")

    assert retention.expire_artifacts(timezone.now() + timedelta(hours=23)) == 0
    assert retention.expire_artifacts(timezone.now() + timedelta(days=2)) == 1

    assert list(Artifact.objects.values_list("pk", flat=True)) == [kept.pk]
    event = AuditEvent.objects.get(action="artifact.expire")
    assert (event.environment_id, event.changes) == (old.environment_id, {"artifacts": 1, "retention_days": 1})


def test_more_than_one_transaction_holds_are_expired(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    short = world.environment("dev", "short", artifact_retention_days=1)
    for number in range(5):
        _artifact(world, short, b"%d" % number)

    assert retention.expire_artifacts(timezone.now() + timedelta(days=2)) == 5

    assert not Artifact.objects.exists()
    assert [e.changes["artifacts"] for e in AuditEvent.objects.filter(action="artifact.expire").order_by("id")] == [
        2, 2, 1,
    ]  # fmt: skip
    assert retention.remove_unreferenced() == 5


def test_bytes_stay_while_one_row_refers_to_them(world: World) -> None:
    one, two = _artifact(world, world.dev, b"shared"), _artifact(world, world.staging, b"shared")

    one.delete()
    assert retention.remove_unreferenced() == 0
    assert _is_stored(two.content_hash)
    assert not UnreferencedBlob.objects.exists()

    two.delete()
    assert retention.remove_unreferenced() == 1
    assert not _is_stored(two.content_hash)
    assert not UnreferencedBlob.objects.exists()


def test_bytes_end_with_a_purged_environment(world: World) -> None:
    world.agent()
    deployment = world.deployment(world.bundle())
    run_jobs()
    deployment.refresh_from_db()
    hashes = [_artifact(world, world.dev, b"purged").content_hash, deployment.bundle_hash or ""]

    world.admin.api.delete(world.path())
    run_jobs()

    assert set(UnreferencedBlob.objects.values_list("pk", flat=True)) >= set(hashes)
    retention.remove_unreferenced()
    assert [_is_stored(content_hash) for content_hash in hashes] == [False, False]


def test_a_deploy_bundle_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.agent()
    deployment = world.deployment(world.bundle())
    run_jobs()
    deployment.refresh_from_db()

    _look_through_all(timezone.now() + timedelta(days=9))
    retention.remove_unreferenced()

    assert _is_stored(deployment.bundle_hash or "")


def _look_through_all(now: datetime) -> int:
    """As an hourly job does in the week before ``now``."""
    return sum(retention.note_strays(now - timedelta(hours=hour)) for hour in range(168))


def test_the_store_is_not_asked_for_what_it_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("listdir", "get_modified_time", "exists", "size"):
        monkeypatch.setattr(FileSystemStorage, name, _noting(asked, getattr(FileSystemStorage, name)))
    kept, gone = _artifact(world, world.dev, b"kept"), _artifact(world, world.dev, b"gone")
    asked.clear()

    retention.remove_unreferenced()
    assert asked == []
    gone.delete()
    assert (retention.remove_unreferenced(), asked) == (1, [])
    _look_through_all(timezone.now() + timedelta(days=9))

    # Once a week each folder is listed, and only strays are asked how old they are.
    folders = [name for name in asked if name.count("/") == 1]
    assert sorted(folders) == [f"sha256/{number:02x}" for number in range(256)]
    assert blobs.storage_name(kept.content_hash) not in asked


def _noting(asked: list[str], real: Callable[..., Any]) -> Callable[..., Any]:
    def noted(self: FileSystemStorage, name: str) -> Any:
        asked.append(name)
        return real(self, name)

    return noted


def test_strays_go_when_they_are_old(world: World) -> None:
    stray = "sha256:" + hashlib.sha256(b"stray").hexdigest()
    blobs.put(stray, b"stray")

    _look_through_all(timezone.now() + timedelta(hours=23))
    assert not _is_noted(stray)  # too young: its row may be on its way
    _look_through_all(timezone.now() + timedelta(days=9))
    assert _is_noted(stray)

    retention.remove_unreferenced()
    assert not _is_stored(stray)


def _is_noted(content_hash: str) -> bool:
    return UnreferencedBlob.objects.filter(pk=content_hash).exists()


def test_a_noted_stray_that_found_its_row_is_kept(world: World) -> None:
    content_hash = "sha256:" + hashlib.sha256(b"late").hexdigest()
    blobs.put(content_hash, b"late")
    UnreferencedBlob.objects.create(content_hash=content_hash)

    _artifact(world, world.dev, b"late")

    assert retention.remove_unreferenced() == 0
    assert _is_stored(content_hash)


def test_trouble_of_the_store_loses_no_note_and_blocks_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
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
        retention.remove_unreferenced()
    assert (_is_noted(first), _is_noted(second)) == (True, True)
    with pytest.raises(PermissionError):
        retention.remove_unreferenced()

    assert (_is_stored(first), _is_stored(second)) == (True, False)
    monkeypatch.setattr(FileSystemStorage, "delete", real)
    assert retention.remove_unreferenced() == 1


def test_what_is_uploaded_again_while_it_is_removed_has_its_bytes(at_once: Race, world: World) -> None:
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
                    continue  # it was not acknowledged
                if number == 0:  # one of them takes its artifact back, as retention does
                    Artifact.objects.filter(pk=artifact.pk).delete()
                else:
                    with transaction.atomic():
                        row = Artifact.objects.select_for_update().filter(pk=artifact.pk).first()
                        if row is not None and not _is_stored(content_hash):
                            lost.append(number)

        return run

    def remove() -> None:
        for _ in range(60):
            retention.remove_unreferenced()

    answers = at_once(upload(0), upload(1), upload(2), remove)

    assert [answer for answer in answers if answer is not None] == []
    assert lost == []


@pytest.mark.parametrize("moment", ["stored", "locked"])
def test_a_removal_in_the_middle_of_an_upload(at_once: Race, world: World, monkeypatch: Any, moment: str) -> None:
    """The bytes are stored, their row is not there yet: the removal comes before the upload holds them, or waits."""
    content_hash = "sha256:" + hashlib.sha256(b"between").hexdigest()
    UnreferencedBlob.objects.create(content_hash=content_hash)
    reached, removed = threading.Event(), threading.Event()
    real = blobs.protect

    def keep(wanted: str) -> None:
        if moment == "locked":
            real(wanted)
        reached.set()
        removed.wait(1 if moment == "locked" else None)  # that one ends only after us
        if moment == "stored":
            real(wanted)

    monkeypatch.setattr(blobs, "protect", keep)

    def remove() -> int:
        reached.wait()
        count = retention.remove_unreferenced()
        removed.set()
        return count

    uploaded, count = at_once(lambda: _artifact(world, world.dev, b"between"), remove)

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
