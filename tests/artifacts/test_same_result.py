"""A replay has the same result with one worker and with four, and with blobs in a folder and in a bucket."""

from __future__ import annotations

from typing import Any

import pytest

from apps.artifacts import tasks
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import derived, replays
from apps.tenancy.models import AuditEvent
from byteor_cloud.storage import blobs
from byteor_cloud.worker.process import Worker
from tests.artifacts.incidents import ingested, kept_folder
from tests.engine.replay import everywhere
from tests.object_store import BUCKET, REGION, ObjectStore, object_store
from tests.races import Race
from tests.worlds import World, run_jobs

__all__ = ["object_store"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def bucket(settings: Any, object_store: ObjectStore) -> None:
    """Store blobs in a bucket."""
    options = {"bucket": BUCKET, "endpoint_url": object_store.endpoint, "region": REGION}
    store = {"BACKEND": "byteor_cloud.storage.object_storage.ObjectStorage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": store}


def captured(world: World) -> Artifact:
    world.version(content=everywhere.PLAN)
    return ingested(world, everywhere.BUNDLE.read_bytes())


@pytest.mark.usefixtures("bucket")
def test_artifact_in_bucket_replays_to_expected_result(world: World) -> None:
    artifact = captured(world)
    folder = kept_folder(artifact)
    shown = world.viewer.api.get(world.path(rest=f"/artifacts/{artifact.pk}")).json()
    replays.request(artifact, environment=world.dev, actor=world.operator.actor)
    run_jobs()

    assert Replay.objects.get().result == everywhere.expected_result()
    # The artifact shows the size of its capture folder. The folder is rebuilt from the bucket, and deleted after the
    # artifact.
    blocks = [-(-path.stat().st_size // 4096) or 1 if path.is_file() else 1 for path in (folder, *folder.rglob("*"))]
    assert shown["derived_bytes"] == 4096 * sum(blocks) > shown["size_bytes"]
    derived.delete(artifact)
    artifact.refresh_from_db()
    assert (artifact.derived_bytes, folder.exists()) == (0, False)
    listed = world.operator.api.get(world.path(rest=f"/artifacts/{artifact.pk}/files")).json()["results"]
    assert "journal/app.bin" in {each["path"] for each in listed}
    artifact.refresh_from_db()
    assert (artifact.derived_bytes, folder.is_dir()) == (shown["derived_bytes"], True)
    Artifact.objects.all().delete()
    tasks.retain()
    assert not blobs.is_stored(artifact.content_hash)
    assert not folder.exists()


def test_four_concurrent_workers_produce_equal_replay_results(concurrently: Race) -> None:
    world = World("acme")
    artifact = captured(world)
    for _ in range(4):
        replays.request(artifact, environment=world.dev, actor=world.operator.actor)

    concurrently(*[lambda: Worker(has_clock=False).run(until_idle=True)] * 4)

    assert [row.result for row in Replay.objects.all()] == [everywhere.expected_result()] * 4
    assert AuditEvent.objects.filter(action="replay.diverge").count() == 4
