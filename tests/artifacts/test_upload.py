"""Uploads of artifacts: each is streamed, hashed and stored once, and a refused upload leaves no file behind."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, override
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact
from apps.tenancy.models import AuditEvent
from byteor_cloud.ids import uuid7
from byteor_cloud.storage import blobs
from byteor_cloud.storage.blobs import ReceivedFile
from byteor_cloud.storage.data_folders import PARTIAL
from tests.artifacts import incidents
from tests.artifacts.incidents import FORM, MULTIPART, form, upload
from tests.races import Race
from tests.releases import stories
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db


def hash_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def is_stored(content: bytes) -> bool:
    return Path(
        django_settings.STORAGES["default"]["OPTIONS"]["location"], blobs.storage_name(hash_of(content))
    ).exists()


@pytest.fixture(autouse=True)
def _no_temporary_file_is_left(settings: Any, tmp_path: Path, store: Path) -> Iterator[None]:
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "uploads")
    yield
    assert list(tmp_path.glob("uploads/*")) == []
    assert list(store.rglob(f"{PARTIAL}*")) == []


def refused(response: Any, status: int, code: str, content: bytes) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}"), response.json()
    assert response["Content-Type"] == "application/problem+json"
    assert (Artifact.objects.count(), ProcrastinateJob.objects.filter(task_name="artifacts.ingest").count()) == (0, 0)
    assert not is_stored(content)


def test_upload_is_stored_and_returned(world: World) -> None:
    agent, api = world.agent()
    deployment = stories.offered(world, world.bundle())
    content = b"first bytes"
    spec_hash = "sha256:" + "a" * 64

    response = upload(
        api, agent, content, kind="snapshot", spec_hash=spec_hash, deployment_id=str(deployment.pk),
        metadata='{"why": "test"}',
    )  # fmt: skip

    assert response.status_code == 201
    body = response.json()
    expected: dict[str, Any] = {
        "environment_id": str(world.dev.pk), "kind": "snapshot", "status": "received", "reasons": [],
        "agent_id": str(agent.pk), "deployment_id": str(deployment.pk), "version_id": None, "spec_hash": spec_hash,
        "content_hash": hash_of(content), "size_bytes": len(content), "captured_at": "2026-11-01T10:00:00Z",
        "metadata": {"why": "test"},
    }  # fmt: skip
    assert {name: body[name] for name in expected} == expected
    path = world.path(rest=f"/artifacts/{body['id']}")
    assert world.viewer.api.get(path).json() == body
    fetched = world.operator.api.get(f"{path}/content")
    assert b"".join(fetched.streaming_content) == content
    assert (fetched["Content-Type"], fetched["ETag"]) == ("application/octet-stream", f'"{hash_of(content)}"')
    assert fetched["Content-Disposition"] == f'attachment; filename="{body["id"]}.bin"'
    assert world.viewer.api.get(f"{path}/content").status_code == 403
    event = AuditEvent.objects.get(action="artifact.receive")
    assert (event.actor_id, event.resource_id) == (str(agent.pk), body["id"])


@pytest.mark.parametrize("kind", ["snapshot", "telemetry", "diagnostic"])
def test_artifacts_other_than_incident_bundles_get_status_verified_without_check(
    world: World, run_jobs: Any, kind: str
) -> None:
    agent, api = world.agent()
    artifact_id = upload(api, agent, kind=kind).json()["id"]

    run_jobs()

    artifact = Artifact.objects.get(pk=artifact_id)
    assert (artifact.status, artifact.reasons) == ("verified", [])


def test_repeated_upload_to_same_environment_returns_existing_artifact(world: World) -> None:
    (one, one_api), (two, two_api) = stories.fleet(world, 2)
    first = upload(one_api, one, b"same")

    again = upload(one_api, one, b"same", captured_at="2026-11-02T10:00:00Z")
    by_another = upload(two_api, two, b"same")

    assert [a.status_code for a in (first, again, by_another)] == [201, 200, 200]
    assert again.json() == by_another.json() == first.json()
    assert Artifact.objects.count() == 1
    assert ProcrastinateJob.objects.filter(task_name="artifacts.ingest").count() == 1


def test_upload_with_wrong_kind_or_hash_can_be_corrected(world: World, run_jobs: Any) -> None:
    agent, api = world.agent()
    content = incidents.incident(world.version().spec_kv)
    wrong_kind = upload(api, agent, content)
    wrong_hash = upload(api, agent, content, kind="incident_bundle", spec_hash="sha256:" + "0" * 64)

    right = upload(api, agent, content, kind="incident_bundle")
    run_jobs()
    again = upload(api, agent, content, kind="incident_bundle")

    assert [a.status_code for a in (wrong_kind, wrong_hash, right, again)] == [201, 201, 201, 200]
    assert again.json()["id"] == right.json()["id"]
    ids = [response.json()["id"] for response in (wrong_kind, wrong_hash, right)]
    statuses = dict(Artifact.objects.values_list("pk", "status"))
    assert [statuses[UUID(id)] for id in ids] == ["verified", "rejected", "verified"]


def test_same_content_in_two_environments_creates_two_artifacts(world: World) -> None:
    one, one_api = world.agent()
    two, two_api = world.agent(world.staging)

    responses = [upload(one_api, one, b"same"), upload(two_api, two, b"same")]

    assert [response.status_code for response in responses] == [201, 201]
    assert responses[0].json()["id"] != responses[1].json()["id"]


def test_concurrent_identical_uploads_create_one_artifact(concurrently: Race, world: World) -> None:
    (agent, api), *_ = stories.fleet(world, 1)

    responses = concurrently(*(lambda: upload(api, agent, b"racing") for _ in range(4)))

    assert sorted(response.status_code for response in responses) == [200, 200, 200, 201]
    assert len({response.json()["id"] for response in responses}) == 1
    assert Artifact.objects.count() == 1
    assert AuditEvent.objects.filter(action="artifact.receive").count() == 1


class _Stream(io.RawIOBase):
    """A request body that repeats one block of zeros, so that it is never in memory as a whole."""

    def __init__(self, opening: bytes, size: int, end: bytes) -> None:
        self.length = len(opening) + size + len(end)
        self._parts = [opening, *[bytes(64 * 1024)] * (size // (64 * 1024)), end]

    @override
    def read(self, size: int = -1, /) -> bytes:
        if not self._parts:
            return b""
        data = self._parts.pop(0)
        if 0 <= size < len(data):
            self._parts.insert(0, data[size:])
            data = data[:size]
        return data


def test_memory_use_does_not_grow_with_upload_size(world: World) -> None:
    agent, api = world.agent()
    opening, _, end = form(FORM, b"CONTENT").partition(b"CONTENT")
    peaks = []

    for size in (1 << 20, 64 << 20):
        stream = _Stream(opening, size, end)
        environ: Any = {"CONTENT_LENGTH": str(stream.length), "wsgi.input": stream}
        tracemalloc.start()
        response = api.client.generic(
            "POST", f"/api/v1/agents/{agent.pk}/artifacts", b"?", MULTIPART,
            headers={"Authorization": f"Bearer {api.token}"}, **environ,
        )  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (response.status_code, response.json()["size_bytes"]) == (201, size)

    assert peaks[1] < peaks[0] + (2 << 20)


@pytest.mark.django_db(transaction=True)
def test_upload_is_written_once_and_stored_in_one_transaction(
    world: World, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, api = world.agent()
    upload(api, agent, b"first")
    synced: list[tuple[bool, int]] = []
    sync = os.fsync

    def record(handle: int) -> None:
        status = os.fstat(handle)
        synced.append((stat.S_ISREG(status.st_mode), status.st_ino))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    with CaptureQueriesContext(connection) as queries:
        assert upload(api, agent, b"x" * 1_000_000).status_code == 201

    kept = (store / blobs.storage_name(hash_of(b"x" * 1_000_000))).stat().st_ino
    assert [inode for is_file, inode in synced if is_file] == [kept]
    assert (False, (store / blobs.storage_name(hash_of(b"x" * 1_000_000))).parent.stat().st_ino) in synced
    assert [query["sql"] for query in queries.captured_queries].count("BEGIN") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("when", ["write", "fsync", "rename"])
def test_upload_is_refused_if_disk_fails(world: World, monkeypatch: pytest.MonkeyPatch, number: int, when: str) -> None:
    agent, api = world.agent()

    def fail(*arguments: Any, **keywords: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        match when:
            case "write":
                patched.setattr(ReceivedFile, "append", fail)
            case "fsync":
                patched.setattr(os, "fsync", fail)
            case "rename":
                patched.setattr(ReceivedFile, "move", fail)
        response = upload(api, agent, b"bad")

    if when == "rename" and number == errno.EIO:
        refused(response, 503, "unavailable", b"bad")
    else:
        refused(response, 507, "insufficient_storage", b"bad")
    assert upload(api, agent, b"bad").status_code == 201


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_truncated_upload_is_refused(world: World, kept: float) -> None:
    agent, api = world.agent()
    content = b"x" * 300_000
    whole = form(FORM, content)
    part = whole[: int(len(whole) * kept)]
    environ: Any = {"CONTENT_LENGTH": str(len(whole)), "wsgi.input": io.BytesIO(part)}

    response = api.client.generic(
        "POST", f"/api/v1/agents/{agent.pk}/artifacts", b"?", MULTIPART,
        headers={"Authorization": f"Bearer {api.token}"},
        **environ,
    )  # fmt: skip

    refused(response, 400, "truncated", content)


def test_form_without_final_boundary_is_refused(world: World) -> None:
    agent, api = world.agent()
    whole = form(FORM, b"content")

    response = api.post(f"/api/v1/agents/{agent.pk}/artifacts", whole[:-10], Content_Type=MULTIPART)

    refused(response, 400, "truncated", b"content")


@pytest.mark.parametrize("oversized", ["file", "body"])
def test_oversized_upload_is_refused(world: World, settings: Any, oversized: str) -> None:
    agent, api = world.agent()
    settings.CONFIG = dataclasses.replace(settings.CONFIG, max_upload_bytes=100_000, max_body_bytes=10_000)
    content = b"y" * (100_001 if oversized == "file" else 200_000)

    refused(upload(api, agent, content), 413, "payload_too_large", content)

    assert upload(api, agent, content[:100_000]).status_code == 201


def test_all_files_of_refused_form_are_removed(world: World) -> None:
    agent, api = world.agent()
    first, second = form(FORM, b"x"), form({}, b"y")
    boundary = first.rstrip().rpartition(b"\r\n")[2]
    whole = first.rstrip().removesuffix(boundary) + second

    response = api.post(f"/api/v1/agents/{agent.pk}/artifacts", whole + b"no boundary", Content_Type=MULTIPART)

    refused(response, 400, "truncated", b"x")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"kind": "virus"}, "/kind"),
        ({"captured_at": "yesterday"}, "/captured_at"),
        ({"spec_hash": "abc"}, "/spec_hash"),
        ({"deployment_id": "x"}, "/deployment_id"),
        ({"deployment_id": str(uuid7())}, "/deployment_id"),
        ({"metadata": "{"}, "/metadata"),
        ({"metadata": "[]"}, "/metadata"),
        ({"metadata": '{"a": "\\u0000"}'}, "/metadata"),
        ({"metadata": '{"a": "\\ud800"}'}, "/metadata"),
        ({"metadata": '{"\\udfff": 1}'}, "/metadata"),
        ({"metadata": '{"a": 1, "a": 2}'}, "/metadata"),
        ({"metadata": '{"a": NaN}'}, "/metadata"),
        ({"capturd_at": "x"}, "/capturd_at"),
    ],
)
def test_error_points_to_invalid_upload_field(world: World, fields: dict[str, str], pointer: str) -> None:
    agent, api = world.agent()

    response = upload(api, agent, b"bad", **fields)

    refused(response, 400, "invalid", b"bad")
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (form(FORM, None), "/file"),
        (form(FORM, b""), "/file"),
        (form({**FORM, "file": "text"}, None), "/file"),
        (form({"kind": "telemetry"}, b"bad"), "/captured_at"),
        (form({"captured_at": FORM["captured_at"]}, b"bad"), "/kind"),
    ],
    ids=["no file", "empty file", "text for a file", "no time", "no kind"],
)
def test_error_points_to_missing_or_empty_upload_field(world: World, body: bytes, pointer: str) -> None:
    agent, api = world.agent()

    response = api.post(f"/api/v1/agents/{agent.pk}/artifacts", body, Content_Type=MULTIPART)

    refused(response, 400, "invalid", b"bad")
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_upload_for_deployment_of_another_environment_is_refused(world: World) -> None:
    agent, api = world.agent()
    world.agent(world.staging)
    foreign = stories.offered(world, world.bundle(world.staging))

    response = upload(api, agent, b"bad", deployment_id=str(foreign.pk))

    refused(response, 400, "invalid", b"bad")


def test_upload_with_json_body_instead_of_form_is_refused(world: World) -> None:
    agent, api = world.agent()

    refused(api.post(f"/api/v1/agents/{agent.pk}/artifacts", {**FORM}), 415, "unsupported_media_type", b"")


def test_only_agent_itself_can_upload_its_artifacts(world: World) -> None:
    (agent, _), (_, other_api) = stories.fleet(world, 2)
    token = world.enrollment_token()

    for api, status in ((other_api, 404), (world.admin.api, 403), (Api(token), 403), (Api(None), 401)):
        response = upload(api, agent, b"bad")
        assert response.status_code == status
    assert (Artifact.objects.count(), is_stored(b"bad")) == (0, False)


def test_artifact_list_applies_filters(world: World) -> None:
    agent, api = world.agent()
    first = upload(api, agent, b"1", kind="snapshot", captured_at="2026-01-01T00:00:00Z").json()
    second = upload(api, agent, b"2", spec_hash="sha256:" + "b" * 64).json()
    path = world.path(rest="/artifacts")

    def found(query: str) -> list[str]:
        return [row["id"] for row in world.viewer.api.get(f"{path}?{query}").json()["results"]]

    assert found("") == [second["id"], first["id"]]
    assert found("kind=snapshot") == [first["id"]]
    assert found("status=verified") == []
    assert found(f"agent_id={agent.pk}&limit=1") == [second["id"]]
    assert found("spec_hash=sha256:" + "b" * 64) == [second["id"]]
    assert found("captured_after=2026-06-01T00:00:00Z") == [second["id"]]
    assert found("captured_before=2026-06-01T00:00:00Z") == [first["id"]]
    assert incidents.FORM["kind"] == "telemetry"


def test_metadata_over_64_kib_is_refused_before_parsing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, api = world.agent()
    fits = '{"why": "' + "é" * ((64 * 1024 - 11) // 2) + '"}'
    over = [fits + " " * 2, '{"why": "' + "x" * (64 * 1024) + '"}', "[" * (64 * 1024 + 1)]

    for number, metadata in enumerate(over):
        refused(upload(api, agent, b"%d" % number, metadata=metadata), 413, "payload_too_large", b"%d" % number)

    assert upload(api, agent, b"fits", metadata=fits).status_code == 201


def test_artifact_list_omits_large_metadata(world: World) -> None:
    agent, api = world.agent()
    ids = [
        upload(api, agent, b"%d" % size, metadata='{"why": "' + "x" * size + '"}').json()["id"] for size in (3000, 5000)
    ]

    shown = world.viewer.api.get(world.path(rest="/artifacts")).json()["results"]

    assert {row["id"]: row["metadata"] for row in shown} == {ids[0]: {"why": "x" * 3000}, ids[1]: None}
    assert world.viewer.api.get(world.path(rest=f"/artifacts/{ids[1]}")).json()["metadata"] == {"why": "x" * 5000}
