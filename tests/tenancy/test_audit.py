"""Audit events: changes and denials are recorded without secrets. Events are immutable and sealed in a chain."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import serializers
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from apps.tenancy import tasks
from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, AuditSeal, DenialCount, Organization, Project, User
from apps.tenancy.services import audit, ledger
from apps.tenancy.services.ledger import Verification
from byteor.engine.hash_chain import GENESIS
from byteor_cloud.ids import smallest_uuid7
from tests.races import Race
from tests.worlds import Api, World, report, run_jobs

pytestmark = pytest.mark.django_db
SECRET = re.compile(r"bor_[a-z]{3}_[0-9A-Za-z]{20,}")


def org(world: World, rest: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}{rest}"


def changes_of(world: World) -> list[tuple[str, Callable[[], Any], str, str, dict[str, Any]]]:
    """Return requests with the event that each must cause: (name, request, action, actor, changes)."""
    admin, operator = world.admin.api, world.operator.api
    project = org(world, f"/projects/{world.project.pk}")
    viewer = world.viewer.user.pk
    return [
        ("settings", lambda: admin.put(org(world), {"settings": {"token_max_days": 9}}), "organization.update",
         "admin", {"settings": [{}, {"token_max_days": 9}]}),
        ("project", lambda: admin.post(org(world, "/projects"), {"name": "b"}), "project.create", "admin",
         {"name": [None, "b"]}),
        ("rename", lambda: admin.put(project, {"name": "c"}), "project.update", "admin", {"name": ["trading", "c"]}),
        ("environment", lambda: admin.post(f"{project}/environments", {"name": "x", "posture": "dev"}),
         "environment.create", "admin", {"name": [None, "x"], "posture": [None, "dev"], "settings": [None, {}]}),
        ("member", lambda: admin.post(f"{project}/members", {"email": "viewer@acme.example", "role": "viewer"}),
         "member.add", "admin", {"role": [None, "viewer"], "email": [None, "viewer@acme.example"]}),
        ("role", lambda: admin.put(org(world, f"/members/{viewer}"), {"role": "operator"}), "member.update", "admin",
         {"role": ["viewer", "operator"]}),
        ("removal", lambda: admin.delete(org(world, f"/members/{viewer}")), "member.remove", "admin",
         {"role": ["operator", None]}),
        ("draft", lambda: operator.post(world.path(rest="/drafts"), {"name": "d", "plan": {}}), "draft.create",
         "operator", {"name": [None, "d"]}),
        ("deletion", lambda: admin.delete(world.path(world.staging)), "environment.delete", "admin", {}),
    ]  # fmt: skip


def test_changes_are_recorded_with_old_and_new_values(world: World) -> None:
    # Otherwise, adding a member would also create a sign-in link and record that.
    User.objects.update(last_login=timezone.now())
    for name, act, action, who, changes in changes_of(world):
        before = AuditEvent.objects.count()

        response = act()

        assert response.status_code < 300, name
        event = AuditEvent.objects.latest("id")
        assert AuditEvent.objects.count() == before + 1, name
        assert (event.action, event.actor_display, event.outcome) == (action, f"{who}@acme.example", "success")
        assert (event.organization, event.actor_kind) == (world.organization, "user")
        assert {k: v for k, v in event.changes.items() if k in changes} == changes
        assert event.request_id == response["X-Request-ID"]
        assert event.ip == "127.0.0.1"


def test_events_of_api_key_contain_its_prefix(world: World) -> None:
    made = world.admin.api.post(org(world, "/api-keys"), {"name": "ci", "role": "viewer"}).json()
    world.admin.api.delete(org(world, f"/api-keys/{made['id']}"))

    events = list(AuditEvent.objects.filter(resource_id=made["id"]).order_by("id"))

    assert [e.action for e in events] == ["api_key.create", "api_key.revoke"]
    assert [e.changes["prefix"] for e in events] == [made["prefix"]] * 2
    assert made["prefix"] == made["token"][:14]


def test_reads_and_heartbeats_are_not_recorded(world: World) -> None:
    agent, api = world.agent()
    before = AuditEvent.objects.count()

    world.viewer.api.get(world.path())
    beat = {"status": "healthy", "agent_version": "0.1.0", "active": None}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", beat).status_code == 200

    assert AuditEvent.objects.count() == before


def test_credentials_are_in_no_row_or_log_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    admin = world.admin.api
    made = [
        admin.post("/api/v1/tokens", {"name": "a"}).json()["token"],
        admin.post(org(world, "/api-keys"), {"name": "a", "role": "viewer"}).json()["token"],
        admin.post(world.path(rest="/enrollment-tokens"), {}, Idempotency_Key="k1").json()["token"],
    ]
    enrolled = Api(made[2]).post(world.path(rest="/agents"), {"name": "a"}).json()
    agent_path = f"/api/v1/agents/{enrolled['agent_id']}"
    rotated = admin.post(world.path(rest=f"/agents/{enrolled['agent_id']}/rotate-key")).json()["token"]
    made += [enrolled["api_key"], rotated]
    for text in made:
        Api(text).get(agent_path)
        Api(text[:-1]).get(agent_path)
    agent, api = world.agent()
    world.deployment(world.bundle())
    run_jobs()
    report(api, agent, "active")
    run_jobs()
    assert len({SECRET.search(text) and text for text in made}) == 5

    audited = serializers.serialize("json", AuditEvent.objects.all())
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        stored = ""
        for table in tables:
            cursor.execute(f'SELECT string_agg(t::text, chr(10)) FROM "{table}" t')
            stored += cursor.fetchone()[0] or ""

    assert len(audited) > 10_000
    assert len(stored) > len(audited) / 2
    assert len(caplog.text) > 1000
    for where in (audited, stored, caplog.text):
        assert SECRET.search(where) is None
        assert not any(text in where or text[8:30] in where for text in [*made, str(world.admin.api.token)])


@pytest.mark.parametrize("role", ["origin", "replica", "local"])
@pytest.mark.parametrize("table", ["tenancy_auditevent", "tenancy_auditseal"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_triggers_reject_changes_of_events_and_seals_even_by_table_owner(
    world: World, table: str, statement: str, role: str
) -> None:
    ledger.seal_chain(world.organization.pk)
    before = AuditEvent.objects.count()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for name in ("tenancy_auditevent", "tenancy_auditseal"):
            # The migration enables this trigger, but the test setup disables it.
            cursor.execute(f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER {name}_no_truncate")
        cursor.execute("SELECT tableowner = current_user FROM pg_tables WHERE tablename = %s", [table])
        assert cursor.fetchone() == (True,)
        cursor.execute(f"SET LOCAL session_replication_role = {role}")

        with pytest.raises(DatabaseError, match="its rows are immutable"), transaction.atomic():
            cursor.execute(statement.format(table))

        cursor.execute("SET LOCAL session_replication_role = origin")
    assert AuditEvent.objects.count() == before > 0


def test_events_of_purged_project_are_kept(world: World) -> None:
    project = world.project.pk
    events = AuditEvent.objects.filter(project_id=project)
    before = set(events.values_list("pk", flat=True))
    assert world.admin.api.delete(org(world, f"/projects/{project}")).status_code == 204

    run_jobs()

    assert not Project.objects.filter(pk=project).exists()
    assert set(events.values_list("pk", flat=True)) > before
    ledger.seal_all()
    assert list(Verification(world.organization.pk).faults()) == []


def test_organization_with_events_cannot_be_deleted(world: World) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(IntegrityError), transaction.atomic():
            cursor.execute("DELETE FROM tenancy_organization WHERE id = %s", [world.organization.pk])

    assert Organization.objects.filter(pk=world.organization.pk).exists()


def test_sealing_links_every_event_once(world: World, other: World) -> None:
    total = AuditEvent.objects.filter(organization=world.organization).count()

    sealed = [ledger.seal_chain(world.organization.pk, limit=5) for _ in range(total // 5 + 2)]

    assert sum(sealed) == total
    assert sealed[-1] == 0
    seals = list(AuditSeal.objects.filter(organization=world.organization).order_by("seq"))
    assert [s.seq for s in seals] == list(range(1, total + 1))
    assert seals[0].prev_hash == GENESIS
    assert [s.prev_hash for s in seals[1:]] == [s.hash for s in seals[:-1]]
    assert [s.event_id for s in seals] == sorted(s.event_id for s in seals)
    assert list(Verification(world.organization.pk).faults()) == []
    assert not AuditSeal.objects.filter(organization=other.organization).exists()
    ledger.seal_all()
    assert not AuditEvent.objects.filter(seal=None, organization__isnull=False).exists()


def test_events_recorded_after_clock_was_ahead_are_sealed(world: World) -> None:
    ahead = timezone.now() + timedelta(days=2)
    AuditEvent.objects.create(
        id=smallest_uuid7(ahead), timestamp=ahead, organization=world.organization, resource_kind="test",
        resource_id="1",
        action="test.ahead", outcome="success", actor_kind="system", actor_id="test", actor_display="test",
    )  # fmt: skip
    ledger.seal_all()

    audit.record("test.after", actor=system_actor("test"), scope=world.organization, resource=("test", "2"))
    ledger.seal_all()

    assert not AuditEvent.objects.filter(seal=None, organization=world.organization).exists()


def test_job_seal_rest_seals_old_events_of_chain_that_fell_behind(
    world: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = AuditEvent.objects.filter(seal=None, organization=world.organization)
    later = timezone.now() + timedelta(hours=2)
    monkeypatch.setattr("django.utils.timezone.now", lambda: later)
    AuditEvent.objects.create(
        id=smallest_uuid7(later), timestamp=later, organization=other.organization, resource_kind="test",
        resource_id="1",
        action="test.later", outcome="success", actor_kind="system", actor_id="test", actor_display="test",
    )  # fmt: skip
    ledger.seal_chain(other.organization.pk)
    ledger.seal_all()
    assert left.exists()

    tasks.seal_rest()

    assert not left.exists()
    assert list(Verification(world.organization.pk).faults()) == []


def test_backdated_event_is_sealed_and_reported(world: World) -> None:
    ledger.seal_all()
    past = timezone.now() - timedelta(hours=2)
    event = AuditEvent.objects.create(
        id=smallest_uuid7(past), timestamp=past, organization=world.organization, resource_kind="test",
        resource_id="1",
        action="test.past", outcome="success", actor_kind="system", actor_id="test", actor_display="test",
    )  # fmt: skip
    ledger.seal_all()
    assert [fault.code for fault in Verification(world.organization.pk).faults()] == ["ledger.unsealed"]

    tasks.seal_rest()

    faults = [(fault.code, fault.event_id) for fault in Verification(world.organization.pk).faults()]
    assert faults == [("ledger.backdated", str(event.pk))]


def test_several_batches_are_sealed_in_one_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BATCH_SIZE", 2)
    left = AuditEvent.objects.filter(seal=None, organization=world.organization)
    assert left.count() > 4

    ledger.seal_all()

    assert not left.exists()
    assert list(Verification(world.organization.pk).faults()) == []


def test_sealing_does_not_read_whole_ledger(world: World, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    ledger.seal_all()

    with django_assert_num_queries(2) as queries:
        ledger.seal_all()

    last = AuditSeal.objects.order_by("-id").first()
    assert last is not None
    earliest = smallest_uuid7(last.event.timestamp - timedelta(hours=1))
    assert earliest.hex in queries.captured_queries[1]["sql"]


def test_listed_sealed_event_contains_its_seal(world: World) -> None:
    ledger.seal_all()

    newest = world.admin.api.get(org(world, "/audit-events?limit=1")).json()["results"][0]

    last = AuditSeal.objects.filter(organization=world.organization).latest("seq")
    assert newest["seal"] == {"seq": last.seq, "prev_hash": last.prev_hash, "hash": last.hash}
    assert newest["id"] == str(last.event_id)


@pytest.mark.django_db(transaction=True)
def test_concurrent_workers_seal_each_audit_event_once(concurrently: Race) -> None:
    world = World("acme")
    total = AuditEvent.objects.filter(organization=world.organization).count()

    sealed = concurrently(*[lambda: ledger.seal_chain(world.organization.pk)] * 4)

    assert sorted(sealed) == [0, 0, 0, total]
    assert list(Verification(world.organization.pk).faults()) == []


def denied(world: World, times: int) -> None:
    for _ in range(times):
        assert world.viewer.api.post(org(world, "/projects"), {"name": "x"}).status_code == 403


def minute_is_over() -> None:
    DenialCount.objects.update(minute=F("minute") - timedelta(minutes=1))


def test_denials_of_same_action_within_one_minute_become_one_event(world: World) -> None:
    before = AuditEvent.objects.count()
    denied(world, 3)
    assert world.viewer.api.put(org(world), {"name": "x"}).status_code == 403
    assert AuditEvent.objects.count() == before
    assert sorted(DenialCount.objects.values_list("action", "count")) == [
        ("OrganizationDetailViewSet.update", 1),
        ("ProjectCollectionViewSet.create", 3),
    ]

    audit.close_denials()  # records nothing, because the minute is not over
    assert AuditEvent.objects.count() == before
    minute_is_over()
    audit.close_denials()
    audit.close_denials()

    events = AuditEvent.objects.filter(outcome="denied").order_by("action")
    assert [(e.action, e.changes["denials"], e.actor_display) for e in events] == [
        ("OrganizationDetailViewSet.update", 1, "viewer@acme.example"),
        ("ProjectCollectionViewSet.create", 3, "viewer@acme.example"),
    ]
    assert {e.organization for e in events} == {world.organization}
    assert not DenialCount.objects.exists()


def test_denials_are_counted_per_organization(world: World, other: World) -> None:
    both = world.viewer
    other.admin.api.post(f"/api/v1/orgs/{other.organization.pk}/members", {"email": both.user.email, "role": "viewer"})
    for place in (world, other, other):
        assert both.api.post(f"/api/v1/orgs/{place.organization.pk}/projects", {"name": "x"}).status_code == 403

    counts = dict(DenialCount.objects.values_list("organization__name", "count"))
    assert counts == {"acme": 1, "umbrella": 2}


def test_denial_by_service_is_counted(world: World) -> None:
    path = org(world, f"/projects/{world.project.pk}/members")

    assert world.project_admin.api.post(path, {"email": "a@acme.example", "role": "org_admin"}).status_code == 403

    row = DenialCount.objects.get()
    assert (row.action, row.organization) == ("ProjectMemberViewSet.create", world.organization)


def test_denials_of_agent_are_counted_in_its_own_organization(world: World, other: World) -> None:
    agent, api = world.agent()
    assert api.get(other.path()).status_code == 403
    assert api.get(world.path()).status_code == 403

    row = DenialCount.objects.get()
    assert (row.organization, row.count, row.actor_id) == (world.organization, 2, str(agent.pk))


def test_denial_of_nonmember_is_not_counted_in_organization(world: World, other: World) -> None:
    assert other.admin.api.get(org(world)).status_code == 404

    assert DenialCount.objects.get().organization is None


def test_requests_without_valid_credential_are_not_counted_as_denials(world: World) -> None:
    assert Api(None).get(org(world)).status_code == 401
    assert Api("bor_usr_" + "0" * 49).get(org(world)).status_code == 401

    assert not DenialCount.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_concurrent_denials_are_all_counted(concurrently: Race) -> None:
    world = World("acme")
    barrier = threading.Barrier(4)

    def five() -> None:
        barrier.wait()
        api = Api(world.viewer.api.token)
        for _ in range(5):
            api.post(org(world, "/projects"), {"name": "x"})

    concurrently(*[five] * 4)

    assert sum(DenialCount.objects.values_list("count", flat=True)) == 20


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ("action=project.create", {"project.create"}),
        ("resource_kind=signing_key", {"signing_key.create"}),
        ("outcome=denied", set()),
        ("after=2100-01-01T00:00:00Z", set()),
        ("before=2000-01-01T00:00:00Z", set()),
    ],
)
def test_events_can_be_filtered(world: World, query: str, actions: set[str]) -> None:
    listed = world.admin.api.get(org(world, f"/audit-events?{query}")).json()["results"]

    assert {row["action"] for row in listed} == actions
