"""Requested captures: the command to the agent, the upload that completes the request, late and repeated uploads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from apps.artifacts.models import Artifact, RequestedCapture
from apps.artifacts.services import requested_captures
from apps.artifacts.tasks import expire_captures, retain
from apps.fleet.models import Agent, Heartbeat
from apps.fleet.services import agents, keys
from apps.tenancy.models import AuditEvent, Quota
from apps.tenancy.services import quotas
from byteor.agent.api import ControlPlane
from byteor.agent.identity import BaseUrl, Credentials, SecretValue
from byteor.agent.key_rotation import KeyRotation
from byteor.agent.keyring import Keyring
from byteor.agent.loop import AgentLoop
from byteor.agent.offer_handler import OfferHandler
from byteor.agent.pipeline import BundleRunner
from byteor.agent.requested_captures import RequestedCaptures
from byteor.agent.resource_meter import ResourceMeter
from byteor.agent.retry import Backoff
from byteor.agent.state_folder import StateFolder
from byteor.engine.replay import Record
from byteor_cloud.ids import uuid7
from tests.artifacts.incidents import upload
from tests.races import Race
from tests.releases import stories
from tests.worlds import Api, World, run_jobs

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def post(world: World, agent: Agent, api: Api | None = None, *, key: str = "", **body: Any) -> Any:
    headers = {"Idempotency_Key": key} if key else {}
    path = world.path(rest=f"/agents/{agent.pk}/capture")
    return (api or world.operator.api).post(path, {"reason": "slow", **body}, **headers)


def requested(world: World, agent: Agent, **body: Any) -> str:
    """Request a capture as if the agent's earlier requests were a minute old. Return the new request's id."""
    RequestedCapture.objects.filter(agent=agent).update(created_at=timezone.now() - timedelta(seconds=61))
    response = post(world, agent, **body)
    assert response.status_code == 202, response.json()
    return str(response.json()["id"])


def shown(world: World, agent: Agent, capture_id: str) -> tuple[str, str | None]:
    """Return the status and the artifact of a request, as the API shows them."""
    body = world.viewer.api.get(world.path(rest=f"/agents/{agent.pk}/captures/{capture_id}")).json()
    return body["status"], body["artifact_id"]


def commands(agent: Agent, api: Api) -> list[str]:
    """Send a heartbeat and return the commands in its response."""
    body = {"status": "healthy", "agent_version": "1"}
    return sorted(api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).json()["commands"])


def pending(agent: Agent, api: Api) -> Any:
    response = api.get(f"/api/v1/agents/{agent.pk}/capture")
    assert response.status_code == 200
    return response.json()["capture"]


def overdue(capture_id: str) -> None:
    RequestedCapture.objects.filter(pk=capture_id).update(expires_at=timezone.now())


def audited(capture_id: str) -> list[tuple[str, str]]:
    rows = AuditEvent.objects.filter(resource_id=capture_id).order_by("id")
    return [(row.action, row.actor_kind) for row in rows]


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:byteor:problem:")


def test_request_reaches_agent_and_is_completed_by_upload(world: World) -> None:
    agent, api = world.agent()
    keys.request_rotation(agent, actor=world.operator.actor)
    assert (commands(agent, api), pending(agent, api)) == (["rotate_key"], None)

    response = post(world, agent, reason="p99 is high", last_n=500, key="once")

    assert response.status_code == 202
    body, location = response.json(), response["Location"]
    assert location.endswith(f"/agents/{agent.pk}/captures/{body['id']}")
    assert world.viewer.api.get(location).json() == body
    created, expires = (datetime.fromisoformat(body[name]) for name in ("created_at", "expires_at"))
    assert expires - created == HOUR
    expected = {
        "environment_id": str(world.dev.pk), "agent_id": str(agent.pk), "status": "requested", "reason": "p99 is high",
        "last_n": 500, "artifact_id": None, "requested_by": "operator@acme.example", "uploaded_at": None,
    }  # fmt: skip
    assert {name: body[name] for name in expected} == expected
    again = post(world, agent, reason="p99 is high", last_n=500, key="once")
    assert (again.json(), again["Idempotent-Replayed"]) == (body, "true")
    assert commands(agent, api) == ["capture", "rotate_key"]
    assert pending(agent, api) == {name: body[name] for name in ("id", "reason", "last_n", "expires_at")}

    artifact = upload(api, agent, kind="incident_bundle", capture_id=body["id"])

    assert artifact.status_code == 201
    assert shown(world, agent, body["id"]) == ("uploaded", artifact.json()["id"])
    assert (commands(agent, api), pending(agent, api)) == (["rotate_key"], None)
    assert audited(body["id"]) == [("capture.request", "user"), ("capture.upload", "agent")]
    # The agent did not receive the response, and repeats the upload.
    repeated = upload(api, agent, kind="incident_bundle", capture_id=body["id"])
    assert (repeated.status_code, repeated.json()["id"]) == (200, artifact.json()["id"])
    assert len(audited(body["id"])) == 2
    keys.rotate_key(agent, actor=world.operator.actor)
    assert Heartbeat.objects.get(agent=agent).commands == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"reason": ""}, "/reason"),
        ({"reason": "  "}, "/reason"),
        ({"reason": "x" * 501}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"last_n": 0}, "/last_n"),
        ({"last_n": 2_000_000_001}, "/last_n"),
        ({"last_n": "5"}, "/last_n"),
        ({"kind": "snapshot"}, "/kind"),
    ],
)
def test_invalid_request_is_refused(world: World, body: dict[str, Any], pointer: str) -> None:
    agent, api = world.agent()

    response = post(world, agent, **body)

    assert code(response) == (400, "invalid")
    assert [each["pointer"] for each in response.json()["errors"]] == [pointer]
    assert (RequestedCapture.objects.count(), commands(agent, api)) == (0, [])


def test_refused_requests_change_nothing(world: World, other: World) -> None:
    agent, api = world.agent()
    in_prod, _ = world.agent(world.prod, "elsewhere")
    foreign, _ = other.agent()
    left, _ = world.agent(name="left")
    agents.decommission(left, actor=world.admin.actor)

    assert post(world, agent, world.viewer.api).status_code == 403
    assert [post(world, each).status_code for each in (in_prod, foreign, left)] == [404, 404, 404]
    assert RequestedCapture.objects.count() == 0
    capture_id = requested(world, agent)
    second = post(world, agent)
    assert code(second) == (429, "too_many_requests")
    assert 59 <= int(second["Retry-After"]) <= 60 + 30
    assert [str(row.pk) for row in RequestedCapture.objects.all()] == [capture_id]
    # Requests for captures of other agents neither count toward the limit nor are shown.
    neighbor, _ = world.agent(name="neighbor")
    assert post(world, neighbor).status_code == 202
    listed = world.viewer.api.get(world.path(rest=f"/agents/{agent.pk}/captures?status=requested")).json()
    assert [row["id"] for row in listed["results"]] == [capture_id]
    wrong = f"/agents/{neighbor.pk}/captures/{capture_id}"
    assert world.viewer.api.get(world.path(rest=wrong)).status_code == 404
    assert api.get(f"/api/v1/agents/{neighbor.pk}/capture").status_code == 404
    # Captures can also be requested from drained agents.
    agents.set_drained(agent, drained=True, reason="", actor=world.admin.actor)
    assert requested(world, agent)


@pytest.mark.parametrize("whose", ["unknown", "neighbor", "malformed"])
def test_upload_with_malformed_unknown_or_other_agents_capture_id_is_refused(world: World, whose: str) -> None:
    agent, api = world.agent()
    neighbor, _ = world.agent(name="neighbor")
    theirs = requested(world, neighbor)
    capture_id = {"unknown": str(uuid7()), "neighbor": theirs, "malformed": "7"}[whose]

    response = upload(api, agent, kind="incident_bundle", capture_id=capture_id)

    assert code(response) == (400, "invalid")
    assert [each["pointer"] for each in response.json()["errors"]] == ["/capture_id"]
    assert Artifact.objects.count() == 0
    assert shown(world, neighbor, theirs) == ("requested", None)


def test_late_upload_is_stored_and_expired_request_refers_to_it(world: World) -> None:
    agent, api = world.agent()
    capture_id = requested(world, agent)
    expire_captures()
    assert (shown(world, agent, capture_id)[0], commands(agent, api)) == ("requested", ["capture"])
    overdue(capture_id)
    assert pending(agent, api) is None

    expire_captures()
    expire_captures()

    assert (shown(world, agent, capture_id), commands(agent, api)) == (("expired", None), [])
    first = upload(api, agent, b"first", capture_id=capture_id)
    second = upload(api, agent, b"second", capture_id=capture_id)
    assert [response.status_code for response in (first, second)] == [201, 201]
    assert shown(world, agent, capture_id) == ("expired", first.json()["id"])
    assert audited(capture_id) == [
        ("capture.request", "user"), ("capture.expire", "system"), ("capture.upload_late", "agent"),
    ]  # fmt: skip
    # The next request is overdue when the capture is uploaded, but the job has not expired it yet.
    later = requested(world, agent)
    overdue(later)
    third = upload(api, agent, b"first", capture_id=later)
    assert (third.status_code, shown(world, agent, later)) == (200, ("expired", first.json()["id"]))
    assert commands(agent, api) == []


def test_capture_command_remains_while_requests_are_open_and_oldest_is_shown_first(world: World) -> None:
    agent, api = world.agent()
    first, second = requested(world, agent), requested(world, agent)

    assert pending(agent, api)["id"] == first
    upload(api, agent, b"1", capture_id=first)
    assert (commands(agent, api), pending(agent, api)["id"]) == (["capture"], second)
    upload(api, agent, b"2", kind="diagnostic", capture_id=second)
    assert (commands(agent, api), pending(agent, api)) == ([], None)


def test_upload_over_quota_leaves_request_open_for_diagnostic(world: World) -> None:
    agent, api = world.agent()
    capture_id = requested(world, agent)
    quotas.set_quotas(world.organization, {Quota.CAPTURES_PER_DAY: 0}, actor=world.admin.actor)

    refused = upload(api, agent, kind="incident_bundle", capture_id=capture_id)

    assert code(refused) == (409, "quota.captures_per_day")
    assert shown(world, agent, capture_id) == ("requested", None)
    said = upload(api, agent, kind="diagnostic", capture_id=capture_id)
    assert shown(world, agent, capture_id) == ("uploaded", said.json()["id"])


def test_old_requests_are_deleted_and_uploaded_request_is_kept_without_its_artifact(world: World) -> None:
    agent, api = world.agent()
    kept, old = requested(world, agent), requested(world, agent)
    upload(api, agent, capture_id=kept)
    Artifact.objects.update(created_at=timezone.now() - timedelta(days=91))
    RequestedCapture.objects.filter(pk=old).update(created_at=timezone.now() - timedelta(days=91))

    retain()

    assert [str(row.pk) for row in RequestedCapture.objects.all()] == [kept]
    assert shown(world, agent, kept) == ("uploaded", None)
    agents.decommission(agent, actor=world.admin.actor)
    assert shown(world, agent, kept) == ("uploaded", None)


def test_only_one_of_concurrent_requests_is_accepted(concurrently: Race, world: World) -> None:
    agent, api = world.agent()

    responses = concurrently(*[lambda: post(world, agent)] * 4)

    assert sorted(response.status_code for response in responses) == [202, 429, 429, 429]
    assert (RequestedCapture.objects.count(), commands(agent, api)) == (1, ["capture"])


def test_requested_capture_is_recorded_once_despite_concurrent_uploads_expiry_and_request(
    concurrently: Race, world: World
) -> None:
    agent, api = world.agent()
    for number in range(5):
        capture_id = requested(world, agent)

        def send(content: str, capture_id: str = capture_id, number: int = number) -> Any:
            return upload(api, agent, f"{content} {number}".encode(), capture_id=capture_id)

        RequestedCapture.objects.update(created_at=timezone.now() - timedelta(seconds=61))
        *uploads, _, new = concurrently(
            lambda: send("a"), lambda: send("b"),
            lambda: requested_captures.expire_overdue(timezone.now() + HOUR),
            lambda: post(world, agent),
        )  # fmt: skip

        assert [each.status_code for each in uploads] == [201, 201]
        assert new.status_code == 202
        status, artifact_id = shown(world, agent, capture_id)
        assert status in {"uploaded", "expired"}
        assert artifact_id in {each.json()["id"] for each in uploads}
        assert [action for action, _ in audited(capture_id)] in (
            ["capture.request", "capture.upload"],
            ["capture.request", "capture.expire", "capture.upload_late"],
        )
        is_open = RequestedCapture.objects.filter(status="requested").exists()
        assert commands(agent, api) == ["capture"] * is_open
        requested_captures.expire_overdue(timezone.now() + 2 * HOUR)
        assert commands(agent, api) == []


@pytest.mark.django_db(transaction=True)
def test_reference_agent_uploads_requested_capture(world: World, live_server: Any, tmp_path: Path) -> None:
    agent, api = world.agent()
    assert api.token is not None
    state = StateFolder(tmp_path / "state")
    plane = ControlPlane(Credentials(BaseUrl.parse(live_server.url), str(agent.pk), SecretValue(api.token)))
    keyring = Keyring(state, plane)
    loop = AgentLoop(
        plane=plane, keyring=keyring, rotation=KeyRotation(state, plane, stores_key=False),
        offer_handler=OfferHandler(
            state=state, plane=plane, keyring=keyring, environment_id=str(agent.environment_id),
            pipeline=BundleRunner(state, [Record(number, number, b'{"id":1}') for number in range(1, 6)], {}),
            now=lambda: datetime.now(UTC),
        ),
        captures=RequestedCaptures(state, plane, now=lambda: datetime.now(UTC), backoff=Backoff()),
        usage=ResourceMeter(state.folder), wait=lambda _: True, backoff=Backoff(),
    )  # fmt: skip
    idle = requested(world, agent)
    loop.run_until_idle()
    stories.offered(world, world.bundle())
    busy = requested(world, agent, reason="p99 is high", last_n=2)

    loop.run_until_idle()
    loop.run_until_idle()
    run_jobs()

    (diagnostic, incident) = Artifact.objects.order_by("id")
    assert shown(world, agent, idle) == ("uploaded", str(diagnostic.pk))
    assert diagnostic.metadata["problem"] == "no pipeline is running, so there is nothing to capture"
    assert shown(world, agent, busy) == ("uploaded", str(incident.pk))
    assert (incident.kind, incident.status, incident.metadata) == (
        "incident_bundle", "verified", {"reason": "p99 is high"},
    )  # fmt: skip
    journal = world.operator.api.get(world.path(rest=f"/artifacts/{incident.pk}/journal/quotes_in")).json()
    assert [record["sequence"] for record in journal["results"]] == [4, 5]
    replayed = world.operator.api.post(world.path(rest=f"/artifacts/{incident.pk}/replay"), {"mode": "dry_run"})
    run_jobs()
    assert world.viewer.api.get(replayed["Location"]).json()["status"] == "succeeded"
    assert isinstance(incident.pk, UUID)
