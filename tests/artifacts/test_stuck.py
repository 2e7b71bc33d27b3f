"""Artifacts whose check cannot continue, and missing or unavailable files, folders, blobs and deploy bundles."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.jobs import IngestArtifact
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import children, derived, uploads
from apps.fleet.models import Agent
from apps.tenancy.models import AuditEvent
from byteor_cloud.api import system
from byteor_cloud.errors import NotStored, Unavailable
from byteor_cloud.storage import blobs
from byteor_cloud.worker import jobs
from byteor_cloud.worker.process import Worker
from tests.artifacts.incidents import incident, ingested, journal, kept_folder, upload
from tests.browser.confirmed import YES
from tests.browser.filled import act, row_page, signed_in
from tests.races import Race
from tests.releases import stories
from tests.resources.jobs import dead_letter
from tests.worlds import Api, World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("concurrently")]
ROUNDS = 8


def work() -> None:
    """Run up to ``ROUNDS`` attempts of the queued jobs, without the delays between them."""
    for _ in range(ROUNDS):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")
        Worker(has_clock=False).run(until_idle=True)


class Stuck:
    """An artifact with the status ``received``, because every attempt to check it failed."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.world = world
        self.agent, self.api = world.agent()
        self.content = incident(world.version().spec_kv)
        self.id = self.upload().json()["id"]

        def fail(*_: object) -> None:
            raise error or NotStored("The content is no longer stored.")

        with monkeypatch.context() as patch:
            patch.setattr(uploads, "build_capture", fail)
            work()
        assert self.row.status == "received"

    @property
    def row(self) -> Artifact:
        return Artifact.objects.get(pk=self.id)

    def upload(self) -> Any:
        return upload(self.api, self.agent, self.content, kind="incident_bundle")

    def reasons(self, api: Api | None = None) -> Any:
        """Return the ``reasons`` of the artifact, which must be the same in the list of artifacts."""
        api = api or self.world.viewer.api
        found = api.get(self.world.path(rest=f"/artifacts/{self.id}")).json()["reasons"]
        (listed,) = [each for each in api.get(self.world.path(rest="/artifacts")).json()["results"]
                     if each["id"] == self.id]  # fmt: skip
        assert listed["reasons"] == found
        return found


@pytest.fixture
def stuck(world: World, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    return Stuck(world, monkeypatch)


def events() -> list[str]:
    return list(
        AuditEvent.objects.filter(action__startswith="artifact.").order_by("id").values_list("action", flat=True)
    )


# -- reasons


def test_unchecked_artifact_reports_that_its_check_failed_permanently(stuck: Stuck) -> None:
    (reason,) = stuck.reasons()

    assert reason["code"] == "check_failed"
    assert "artifacts.ingest failed permanently" in reason["detail"]
    assert "The content is no longer stored." in reason["detail"]
    page = signed_in(stuck.world.viewer.user).get(row_page(stuck.row))
    assert "Waiting to be checked. The job artifacts.ingest failed permanently" in page.content.decode()


def test_unchecked_artifact_reports_outage_that_delays_its_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck(world, monkeypatch, Unavailable("The blob store is not available."))

    (reason,) = stuck.reasons()
    assert (reason["code"], "The blob store is not available." in reason["detail"]) == ("check_delayed", True)
    work()
    assert (stuck.row.status, stuck.reasons()) == ("verified", [])


def test_query_count_of_artifact_list_does_not_grow_with_waiting_artifacts(stuck: Stuck) -> None:
    def count() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert stuck.world.viewer.api.get(stuck.world.path(rest="/artifacts")).status_code == 200
        return len(queries)

    count()  # the first request also stores the time when the credential was last used
    one = count()
    for number in range(5):
        upload(stuck.api, stuck.agent, b"%d" % number)

    assert count() == one


def test_migration_adds_lock_to_old_ingest_jobs(world: World) -> None:
    letter = dead_letter(IngestArtifact(artifact_id="0190b3c2-0000-7000-8000-000000000001"))
    migration = importlib.import_module("apps.artifacts.migrations.0010_ingest_serials").Migration

    with connection.cursor() as cursor:
        cursor.execute(migration.operations[0].sql)

    assert ProcrastinateJob.objects.get(pk=letter.pk).lock == "0190b3c2-0000-7000-8000-000000000001"


# -- repeated uploads


def test_repeated_upload_requeues_check_that_failed_with_error(stuck: Stuck) -> None:
    again = stuck.upload()

    assert (again.status_code, again.json()["id"], again.json()["reasons"]) == (200, stuck.id, [])
    assert events() == ["artifact.receive", "artifact.requeue"]
    event = AuditEvent.objects.get(action="artifact.requeue")
    assert (event.actor_kind, event.resource_id) == ("agent", stuck.id)
    work()
    assert stuck.row.status == "verified"
    assert not ProcrastinateJob.objects.exists()


def test_repeated_upload_requeues_check_whose_job_was_lost(stuck: Stuck) -> None:
    ProcrastinateJob.objects.all().delete()

    stuck.upload()
    work()

    assert stuck.row.status == "verified"


def test_repeated_upload_restores_lost_blob(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, api = world.agent()
    content = incident(world.version().spec_kv)
    made = upload(api, agent, content, kind="incident_bundle").json()
    blobs.delete(made["content_hash"])
    work()
    (obstacle,) = uploads.find_obstacles(Artifact.objects.all()).values()
    assert (obstacle.is_dead, "no longer stored" in obstacle.error) == (True, True)

    upload(api, agent, content, kind="incident_bundle")
    work()

    assert Artifact.objects.get().status == "verified"


def test_concurrent_repeated_uploads_queue_one_check(stuck: Stuck, concurrently: Race) -> None:
    responses = concurrently(*(stuck.upload for _ in range(4)))

    assert [response.status_code for response in responses] == [200] * 4
    assert events() == ["artifact.receive", "artifact.requeue"]
    assert ProcrastinateJob.objects.filter(task_name="artifacts.ingest").count() == 1


def test_repeated_upload_does_not_requeue_waiting_or_finished_checks(world: World) -> None:
    agent, api = world.agent()
    content = incident(world.version().spec_kv)

    def send(**fields: str) -> None:
        assert upload(api, agent, content, kind="incident_bundle", **fields).status_code in {200, 201}

    send()
    send()
    assert ProcrastinateJob.objects.filter(task_name="artifacts.ingest").count() == 1
    send(spec_hash="sha256:" + "0" * 64)
    work()
    assert sorted(Artifact.objects.values_list("status", flat=True)) == ["rejected", "verified"]
    send()
    send(spec_hash="sha256:" + "0" * 64)

    assert not ProcrastinateJob.objects.exists()
    assert "artifact.requeue" not in events()


def test_check_that_killed_its_process_too_often_is_not_requeued_by_upload(stuck: Stuck) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_jobs SET byteor_kills = %s", [jobs.KILLS])

    assert stuck.upload().status_code == 200

    assert ProcrastinateJob.objects.get().status == "failed"
    assert events() == ["artifact.receive"]


def test_repeated_upload_changes_nothing_while_store_is_unavailable(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable("The blob store is not available.", retry_after=10)

    monkeypatch.setattr(blobs, "put_file", refuse)

    assert stuck.upload().status_code == 503

    assert (events(), ProcrastinateJob.objects.get().status) == (["artifact.receive"], "failed")


def test_ingest_job_without_lock_can_be_retried_in_console(stuck: Stuck) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_jobs SET lock = NULL")  # older releases enqueued jobs without a lock
    signed_in(stuck.world.operator.user).post(act(ProcrastinateJob.objects.get(), "retry"), YES)

    work()

    assert (stuck.row.status, stuck.reasons()) == ("verified", [])


# -- deleted files and folders


def data_folders() -> list[Path]:
    return [Path(settings.CONFIG.data_dir, name) for name in ("scratch", "captures")]


def remove_folders() -> None:
    for folder in data_folders():
        shutil.rmtree(folder, ignore_errors=True)


def test_deleted_scratch_and_capture_folders_are_recreated(world: World) -> None:
    spec = world.version().spec_kv
    remove_folders()
    artifact = ingested(world, incident(spec))
    assert [folder.stat().st_mode & 0o777 for folder in data_folders()] == [0o700] * 2

    for rest in ("/files", "/files?path=spec.kv", "/journal/quotes_in"):
        remove_folders()
        response = world.operator.api.get(world.path(rest=f"/artifacts/{artifact.pk}{rest}"))
        assert response.status_code == 200
        assert b"".join(response)  # reading to the end closes the file
    remove_folders()
    world.operator.api.post(world.path(rest=f"/artifacts/{artifact.pk}/replay"), {})
    work()
    assert Replay.objects.get().status == "succeeded"


@pytest.mark.parametrize("rest", ["/files", "/files?path=journal/quotes_in.bin", "/journal/quotes_in"])
def test_deleted_files_of_capture_folder_are_rebuilt_when_read(world: World, rest: str) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    folder = kept_folder(artifact)
    (folder / "list.json").unlink()
    (folder / "files" / "journal" / "quotes_in.bin").unlink()

    response = world.operator.api.get(world.path(rest=f"/artifacts/{artifact.pk}{rest}"))

    assert response.status_code == 200
    assert b"".join(response)


def test_missing_local_file_counts_as_outage_and_causes_503_unlike_missing_blob(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    remove_folders()

    def lose(*_: object, **__: object) -> None:
        raise FileNotFoundError("a cleaner was faster")

    with monkeypatch.context() as patch:
        patch.setattr(children, "run_in_child", lose)
        response = world.operator.api.get(world.path(rest=f"/artifacts/{artifact.pk}/files"))

    assert response.status_code == 503
    assert jobs.is_outage(FileNotFoundError())
    assert not jobs.is_outage(NotStored("gone"))


def test_download_of_artifact_whose_blob_is_missing_returns_404(world: World) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    blobs.delete(artifact.content_hash)
    page = f"{row_page(artifact).removesuffix('change/')}content/"
    path, console = world.path(rest=f"/artifacts/{artifact.pk}/content"), signed_in(world.operator.user)

    assert (world.operator.api.get(path).status_code, console.get(page).status_code) == (404, 404)


def test_download_of_artifact_returns_503_while_blob_store_is_unavailable(world: World, store: Path) -> None:
    artifact = ingested(world, incident(world.version().spec_kv))
    derived.delete(artifact)
    page = f"{row_page(artifact).removesuffix('change/')}content/"
    path, console = world.path(rest=f"/artifacts/{artifact.pk}/content"), signed_in(world.operator.user)

    store.rename(store.with_name(f"{store.name}-aside"))  # as if the disk of the store were not mounted

    assert (world.operator.api.get(path).status_code, console.get(page).status_code) == (503, 503)


def test_artifact_page_contacts_unavailable_blob_store_only_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = ingested(world, incident(world.version().spec_kv, quotes_in=journal([b"{}"])))
    derived.delete(artifact)
    requested: list[str] = []

    def fail_to_read(content_hash: str) -> None:
        requested.append(content_hash)
        raise Unavailable("The blob store is not available. Try again later.")

    monkeypatch.setattr(blobs, "read", fail_to_read)
    page = signed_in(world.operator.user).get(row_page(artifact))

    assert (page.status_code, requested) == (200, [artifact.content_hash])
    assert "The blob store is not available." in page.content.decode()


def test_download_of_lost_deploy_bundle_returns_503_to_agent(world: World) -> None:
    ((agent, api),) = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    path = f"/api/v1/agents/{agent.pk}/deployment/bundle?hash={deployment.bundle_hash}"
    served = api.get(path)
    assert b"".join(served.streaming_content)

    blobs.delete(deployment.bundle_hash or "")

    assert api.get(path).status_code == 503
    assert Agent.objects.filter(pk=agent.pk).exists()


def test_readyz_reports_unusable_temporary_folders(world: World) -> None:
    system._migrations.cache_clear()
    api = Api(None)
    remove_folders()
    assert api.client.get("/readyz").status_code == 200
    assert all(folder.is_dir() for folder in data_folders())

    for folder in data_folders():
        folder.rmdir()
        folder.write_text("in the way")
        response = api.client.get("/readyz")
        assert (response.status_code, response.json()["detail"]) == (503, "Not ready: temporary files.")
        folder.unlink()
    assert api.client.get("/readyz").status_code == 200
