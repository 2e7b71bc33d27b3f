"""Quotas and usage of organizations. They are tested here because artifacts may import all apps that apply quotas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.artifacts.models import Artifact, Replay, UnreferencedBlob
from apps.artifacts.services import retention
from apps.fleet.models import Agent, EnrollmentToken
from apps.fleet.services import agents as fleet
from apps.fleet.services import enrollment, heartbeats
from apps.fleet.services.enrollment import Enrolled, Enrollment
from apps.pipelines.models import Draft
from apps.releases.models import Deployment
from apps.releases.services import bundles
from apps.tenancy.models import AuditEvent, Environment, MonthlyPeak, OrganizationQuotas, Quota, UseCount
from apps.tenancy.services import organizations, quotas, usage
from byteor_cloud.errors import QuotaExceeded
from byteor_cloud.ids import uuid7
from byteor_cloud.storage import blobs
from tests.artifacts.incidents import PAYLOADS, incident, ingested, journal, upload
from tests.races import Race
from tests.releases import stories
from tests.worlds import PLAN, Api, World, report, run_jobs

pytestmark = pytest.mark.django_db


def limit(world: World, **limits: int | None) -> None:
    """Set quotas of the organization."""
    by_quota = {Quota(name): value for name, value in limits.items()}
    quotas.set_quotas(world.organization, by_quota, actor=world.admin.actor)


def used(world: World) -> dict[str, int]:
    return {str(quota): count for quota, count in usage.count_used(world.organization.pk).items()}


def read(world: World) -> dict[str, Any]:
    response = world.viewer.api.get(f"/api/v1/orgs/{world.organization.pk}/usage")
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


def refused(response: Any, quota: str, limit: int, used: int) -> None:
    body = response.json()
    assert response.status_code == 409
    assert (body["type"], body["limit"], body["used"]) == (f"urn:byteor:problem:quota.{quota}", limit, used)
    assert f"{limit:,}" in body["detail"]


def enroll(world: World, token: str, **body: Any) -> Any:
    return Api(token).post(world.path(rest="/agents"), body)


def draft(world: World, name: str, environment: Environment | None = None) -> Any:
    return world.operator.api.post(world.path(environment, "/drafts"), {"name": name, "plan": PLAN})


# -- agents ---------------------------------------------------------------------------------------------------------


def request(world: World, name: str, environment: Environment | None = None) -> Enrollment:
    """Return an enrollment request with its own token, so that no other request waits for the token's row lock."""
    environment, actor = environment or world.dev, world.admin.actor
    token, _ = enrollment.create_enrollment_token(environment=environment, actor=actor)
    return Enrollment(token=token, environment=environment, name=name, actor=actor)


def test_concurrent_enrollments_never_exceed_quota(concurrently: Race, world: World) -> None:
    stories.fleet(world, 2)
    limit(world, agents=7)
    requests = [request(world, f"racer-{n}", (world.dev, world.staging)[n % 2]) for n in range(20)]

    # The job that sums up the counters runs at the same time.
    results = concurrently(*(lambda r=r: enrollment.enroll(r) for r in requests), usage.count_use, usage.count_use)[:20]

    assert sum(isinstance(result, Enrolled) for result in results) == 5
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 15
    assert Agent.objects.count() == 7
    assert EnrollmentToken.objects.filter(uses=1, pk__in=[each.token.pk for each in requests]).count() == 5
    assert used(world)["agents"] == 7


def test_agent_quota_refuses_only_additional_agents(world: World) -> None:
    (first, first_api), _ = stories.fleet(world, 2)
    limit(world, agents=2)
    token, replacing = world.enrollment_token(), world.enrollment_token(replace=True, max_uses=5)

    refused(enroll(world, token, name="third"), "agents", 2, 2)

    assert EnrollmentToken.objects.filter(uses=0, replace=False, max_uses=1).exists()
    assert Agent.objects.count() == 2
    # Replacing an agent does not add one, so it is permitted even if the organization already exceeds its quota.
    limit(world, agents=1)
    assert enroll(world, replacing, name=first.name).status_code == 201
    refused(enroll(world, replacing, name="fourth"), "agents", 1, 2)
    beat = {"status": "healthy", "agent_version": "1", "active": None}
    assert first_api.post(f"/api/v1/agents/{first.pk}/heartbeat", beat).status_code == 401  # the agent was replaced
    # Decommissioned agents make room.
    for agent in Agent.objects.enrolled():
        fleet.decommission(agent, actor=world.admin.actor)
    assert enroll(world, token, name="third").status_code == 201
    assert used(world)["agents"] == 1


def test_batch_of_enrollments_respects_quota_of_each_organization(world: World, other: World) -> None:
    limit(world, agents=1)
    requests = [request(each, name, each.dev) for each in (world, other) for name in "abc"]

    results = enrollment.enroll_all(requests)

    assert [isinstance(result, QuotaExceeded) for result in results] == [False, True, True, False, False, False]
    assert (used(world)["agents"], used(other)["agents"]) == (1, 3)


# -- drafts, captures, stored bytes ---------------------------------------------------------------------------------


def test_draft_over_quota_is_refused(world: World) -> None:
    limit(world, drafts=2)
    assert [draft(world, "a").status_code, draft(world, "b", world.staging).status_code] == [201, 201]

    refused(draft(world, "c"), "drafts", 2, 2)

    assert Draft.objects.count() == 2
    kept = Draft.objects.get(name="a")
    path = world.path(rest=f"/drafts/{kept.pk}")
    assert world.operator.api.put(path, {"name": "renamed"}).status_code == 200
    assert world.operator.api.post(f"{path}/version", {}).status_code == 201
    assert world.operator.api.delete(path).status_code == 204
    assert draft(world, "c").status_code == 201


def test_captures_are_limited_per_day(world: World, store: Path) -> None:
    agent, api = world.agent()
    limit(world, captures_per_day=1)
    version = world.version()
    first, second = (incident(version.spec_kv, quotes_in=journal(PAYLOADS[:count])) for count in (1, 2))
    assert upload(api, agent, first, kind="incident_bundle").status_code == 201

    refused(upload(api, agent, second, kind="incident_bundle"), "captures_per_day", 1, 1)

    assert (Artifact.objects.count(), stored_files(store)) == (1, 1)
    assert upload(api, agent, first, kind="incident_bundle").status_code == 200  # a repeated upload
    assert upload(api, agent, b"log", kind="diagnostic").status_code == 201
    # Deleting artifacts does not restore the daily quota, but a new day does.
    Artifact.objects.all().delete()
    assert used(world)["captures_per_day"] == 1
    UseCount.objects.filter(kind="captures").update(since=timezone.now().date() - timedelta(days=1))
    assert upload(api, agent, second, kind="incident_bundle").status_code == 201


def stored_files(store: Path) -> int:
    return sum(each.is_file() for each in store.rglob("*"))


def test_upload_over_stored_bytes_quota_is_refused(world: World, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, api = world.agent()
    assert upload(api, agent, b"x" * 600, kind="telemetry").status_code == 201
    limit(world, stored_bytes=1_000)
    files = stored_files(store)

    refused(upload(api, agent, b"y" * 401, kind="telemetry"), "stored_bytes", 1_000, 600)

    assert (Artifact.objects.count(), stored_files(store)) == (1, files)
    assert upload(api, agent, b"x" * 600, kind="telemetry").status_code == 200  # a repeated upload
    assert upload(api, agent, b"y" * 400, kind="telemetry").status_code == 201
    assert read(world)["used"]["stored_bytes"] == 1_000
    # A large upload is refused before its body is received, unless it may repeat an earlier upload of the agent.
    opened: list[str] = []
    receive = blobs.receive

    def note(name: str) -> Any:
        opened.append(name)
        return receive(name)

    monkeypatch.setattr(blobs, "receive", note)
    large = b"z" * (2 << 20)
    refused(upload(api, agent, large, kind="telemetry"), "stored_bytes", 1_000, 1_000)
    assert opened == []
    limit(world, stored_bytes=None)
    assert upload(api, agent, large, kind="telemetry").status_code == 201
    limit(world, stored_bytes=1_000)
    assert upload(api, agent, large, kind="telemetry").status_code == 200
    # Retention frees the space.
    Artifact.objects.update(created_at=timezone.now() - timedelta(days=400))
    retention.delete_old_artifacts()
    assert used(world)["stored_bytes"] == 0


def test_concurrent_uploads_never_exceed_quota(concurrently: Race, world: World, store: Path) -> None:
    agent, api = world.agent()
    limit(world, stored_bytes=500)

    responses = concurrently(*(lambda n=n: upload(api, agent, b"%d" % n * 100, kind="telemetry") for n in range(8)))

    assert sorted(response.status_code for response in responses) == [201] * 5 + [409] * 3
    assert used(world)["stored_bytes"] == 500
    retention.delete_unreferenced_blobs()
    assert (stored_files(store), UnreferencedBlob.objects.count()) == (5, 0)


def test_capture_folders_count_as_stored_bytes_but_may_exceed_quota(world: World) -> None:
    version = world.version()
    content = incident(version.spec_kv)
    limit(world, stored_bytes=len(content))

    artifact = ingested(world, content)

    assert (artifact.status, artifact.derived_bytes > 0) == ("verified", True)
    assert read(world)["used"]["stored_bytes"] == artifact.size_bytes + artifact.derived_bytes > len(content)
    path = world.path(rest=f"/artifacts/{artifact.pk}")
    assert world.operator.api.get(f"{path}/files").status_code == 200
    assert world.operator.api.post(f"{path}/replay", {}).status_code == 202


def test_stored_bytes_quota_refuses_new_but_not_existing_deployments(world: World) -> None:
    agents, (first, second), (deployment,) = stories.running(world, 1)
    size = deployment.bundle_size or 0
    assert used(world)["stored_bytes"] == size
    assert size <= bundles.estimate_size(first) <= size + 10_240
    limit(world, stored_bytes=size + 5_000)
    body = {"config_bundle_id": str(second.pk), "target": {"all": True}}

    refused(world.operator.api.post(world.path(rest="/deployments"), body), "stored_bytes", size + 5_000, size)

    # A deployment that was already permitted is still built and activated, and its rollback is not refused.
    assert Deployment.objects.count() == 1
    limit(world, stored_bytes=None)
    permitted = world.deployment(second)
    limit(world, stored_bytes=0)
    run_jobs()
    for agent, api in agents:
        assert report(api, agent, "active").status_code == 200
    run_jobs()
    permitted.refresh_from_db()
    assert permitted.status == "active"
    back = world.path(rest=f"/deployments/{permitted.pk}/rollback")
    assert world.operator.api.post(back, {"reason": "slow"}).status_code == 200
    assert used(world)["stored_bytes"] == size + (permitted.bundle_size or 0)


# -- without quotas -------------------------------------------------------------------------------------------------


def test_enrollment_draft_and_upload_without_quotas_need_one_quota_query_each(world: World, other: World) -> None:
    agent, api = world.agent()
    token = world.enrollment_token(max_uses=5)
    limit(other, agents=0, drafts=0, stored_bytes=0, captures_per_day=0)
    limit(world, agents=9)
    limit(world, agents=None)
    assert not OrganizationQuotas.objects.filter(organization=world.organization).exists()
    made: list[Callable[[], Any]] = [
        lambda: enroll(world, token, name="new"),
        lambda: draft(world, "new"),
        lambda: upload(api, agent, b"new", kind="telemetry"),
    ]
    for make in made:
        with CaptureQueriesContext(connection) as queries:
            assert make().status_code == 201
        about = [query["sql"] for query in queries if re.search("quota|usecount", query["sql"])]
        assert len(about) == 1, about
        assert "tenancy_organizationquotas" in about[0]


# -- usage ----------------------------------------------------------------------------------------------------------


def test_usage_is_complete_before_and_after_its_counters_are_summed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(world, agents=10)
    version = world.version()
    artifact = ingested(world, incident(version.spec_kv))
    agent, api = world.agent()
    assert world.operator.api.post(world.path(rest=f"/artifacts/{artifact.pk}/replay"), {}).status_code == 202
    run_jobs()
    replay = Replay.objects.get()
    monkeypatch.setattr(heartbeats, "COUNTED_EVERY_S", 0.0)
    heartbeats.tally = heartbeats.Tally()
    for _ in range(3):
        beat = {"status": "healthy", "agent_version": "1", "active": None}
        assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", beat).status_code == 200

    for job in (None, usage.count_use, usage.count_use):
        if job:
            job()
        body = read(world)
        month = f"{datetime.now(UTC):%Y-%m}"
        assert body["month"] == month
        assert body["limits"] == {"agents": 10, "stored_bytes": None, "captures_per_day": None, "drafts": None}
        stored = artifact.size_bytes + artifact.derived_bytes
        assert body["used"] == {"agents": 2, "stored_bytes": stored, "captures_per_day": 1, "drafts": 1}
        (only,) = body["by_month"]
        work = sum(stage["in"] for stage in replay.result["stages"].values())  # at least 1 unit per record and stage
        assert only == {
            "month": month, "agents": 2, "heartbeats": 3, "uploaded_bytes": artifact.size_bytes,
            "stored_bytes": stored, "replays": 1, "work": only["work"],
        }  # fmt: skip
        assert only["work"] >= work > 0
    assert UseCount.objects.filter(is_sum=False).count() == 0
    kinds = UseCount.objects.values_list("kind", flat=True)
    assert sorted(kinds) == sorted(UseCount.Kind.values)


def test_usage_keeps_current_and_12_previous_months(world: World) -> None:
    agents = stories.fleet(world, 3)
    usage.count_use()
    for agent, _ in agents:
        fleet.decommission(agent, actor=world.admin.actor)
    usage.count_use()
    assert (read(world)["used"]["agents"], read(world)["by_month"][0]["agents"]) == (0, 3)

    # As if the peaks were recorded 12 months ago, and the replays 11, 12 and 13 months ago.
    this = datetime.now(UTC).date().replace(day=1)
    months = [this]
    for _ in range(13):
        months.append((months[-1] - timedelta(days=1)).replace(day=1))
    MonthlyPeak.objects.filter(organization=world.organization).update(month=months[12])
    for month in months[11:]:
        UseCount.objects.create(organization=world.organization, kind="replays", since=month, count=5)
    usage.count_use()

    found = {each["month"]: (each["agents"], each["replays"]) for each in read(world)["by_month"]}
    assert found == {f"{this:%Y-%m}": (0, 0), f"{months[11]:%Y-%m}": (None, 5), f"{months[12]:%Y-%m}": (3, 5)}
    assert not UseCount.objects.filter(since=months[13]).exists()


def test_deleted_environment_uses_no_quota_except_daily_captures_and_purge_deletes_counters(world: World) -> None:
    limit(world, agents=1, drafts=1)
    agent, api = world.agent()
    assert upload(api, agent, b"bytes", kind="incident_bundle").status_code == 201
    assert draft(world, "a").status_code == 201
    usage.count_use()
    month = read(world)["by_month"][0]
    counters = UseCount.objects.filter(environment=world.dev.pk)
    assert counters.count() == 3

    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)

    assert read(world)["used"] == {"agents": 0, "stored_bytes": 0, "captures_per_day": 1, "drafts": 0}
    assert draft(world, "b", world.staging).status_code == 201
    organizations.purge(Environment, str(world.dev.pk))
    assert not counters.exists()
    assert read(world)["used"] == {"agents": 0, "stored_bytes": 0, "captures_per_day": 1, "drafts": 1}
    assert read(world)["by_month"][0] == month  # the purge keeps the month's peaks and sums
    organizations.delete(world.project, kind="project", actor=world.admin.actor)
    assert read(world)["used"]["drafts"] == 0


def test_heartbeats_counted_during_database_failure_are_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "COUNTED_EVERY_S", 0.0)
    one, two = uuid7(), uuid7()
    written: list[dict[str, int]] = []

    is_broken = iter([True, True, False])

    def write(counts: str) -> None:
        if next(is_broken):
            raise OperationalError("the database is gone")
        written.append(json.loads(counts))

    tally = heartbeats.Tally(write)
    for organization in (one, two, one):
        tally.count(organization)

    assert written == [{str(one): 2, str(two): 1}]


# -- setting quotas -------------------------------------------------------------------------------------------------


def test_quota_changes_are_recorded_and_invalid_limits_are_refused(world: World) -> None:
    def events() -> list[Any]:
        found = AuditEvent.objects.filter(action="organization.set_quotas", organization=world.organization)
        return [event.changes for event in found.order_by("id")]

    limit(world, agents=5, drafts=0)
    limit(world, agents=5)
    limit(world, agents=None, stored_bytes=quotas.MAX_LIMIT)

    assert events() == [
        {"agents": [None, 5], "drafts": [None, 0]}, {"agents": [5, None], "stored_bytes": [None, quotas.MAX_LIMIT]},
    ]  # fmt: skip
    expected = {"agents": None, "stored_bytes": quotas.MAX_LIMIT, "captures_per_day": None, "drafts": 0}
    assert read(world)["limits"] == expected
    for wrong in (-1, quotas.MAX_LIMIT + 1):
        with pytest.raises(Exception, match="agents must be from 0 to"), transaction.atomic():
            limit(world, drafts=7, agents=wrong)
    assert (read(world)["limits"], len(events())) == (expected, 2)
    refused(draft(world, "none"), "drafts", 0, 0)
