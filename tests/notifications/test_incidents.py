"""Events about incidents that agents captured, and about fixtures that a current deployment fails."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import QuerySet
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture, RequestedCapture
from apps.artifacts.services import incidents, requested_captures, uploads
from apps.releases.models import ConfigBundle
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import MessageEvent
from byteor.engine.compiler import compile_plan
from byteor_cloud.ids import uuid7
from tests.artifacts.conftest import store
from tests.artifacts.fixture_steps import bundle
from tests.artifacts.gate_steps import members, release
from tests.artifacts.incidents import archive, files_of, ingested, upload
from tests.artifacts.kept import OTHER_MASK
from tests.artifacts.test_current_fixtures import keep_golden, scan
from tests.notifications.stories import claim_all, handle, notified_of
from tests.races import Race
from tests.worlds import PLAN, World, plan, run_jobs

__all__ = ["store"]
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("store")]
NEW, REOPENED = MessageType.INCIDENT_NEW, MessageType.INCIDENT_REOPENED
STOP = {"stage": "check", "sequence": 3, "error": "secret card 1234567890"}
_numbers = iter(range(1_000_000))


def capture(stopped: Any = STOP, content: Any = PLAN) -> bytes:
    """Return an incident bundle that differs from all others."""
    documents = {"outcome.json": {"stopped": stopped}, "number.json": next(_numbers)}
    files = files_of(str(compile_plan(content).spec_kv))
    return archive({**files, **{name: json.dumps(body).encode() for name, body in documents.items()}})


def events() -> QuerySet[MessageEvent]:
    """Return all events except invitations, oldest first."""
    return MessageEvent.objects.exclude(type=MessageType.INVITATION).order_by("pk")


def types() -> list[str]:
    return list(events().values_list("type", flat=True))


def age(by: timedelta) -> None:
    """Pretend that all events were recorded earlier by this duration, and handled that long ago."""
    for event in MessageEvent.objects.all():
        MessageEvent.objects.filter(pk=event.pk).update(
            created_at=event.created_at - by, handled_at=timezone.now() - by
        )


def test_message_about_incident_names_stage_pipeline_and_agent_but_no_captured_data(world: World) -> None:
    claim_all()
    version = world.version()
    artifact = ingested(world, capture())
    handle(world)

    event = events().get()
    assert (event.type, event.outcome, event.actor_id) == (NEW, EventOutcome.NOTIFIED, None)
    assert event.text == f"Stage check stopped pipeline quotes on agent {artifact.agent} in dev."
    assert event.path == f"/admin/artifacts/artifact/{artifact.pk}/change/"
    assert artifact.version == version
    assert "secret" not in json.dumps([event.data, event.subject, event.text])
    assert notified_of(world.viewer) == [NEW]


def test_incidents_of_unknown_versions_are_grouped_and_message_names_no_pipeline_or_stage(world: World) -> None:
    for name in ("quotes", "evil"):
        artifact = ingested(world, capture(content=plan(name)))
    handle(world)

    first, second = events().order_by("pk")
    assert artifact.version is None
    assert first.text.startswith("An unknown pipeline had an incident on agent ")
    assert (first.subject, second.outcome) == (second.subject, EventOutcome.GROUPED)


def test_message_about_incident_that_no_stage_caused_names_pipeline_and_agent(world: World) -> None:
    world.version()
    artifact = ingested(world, capture(None))
    handle(world)

    event = events().get()
    assert event.text == f"Pipeline quotes had an incident on agent {artifact.agent} in dev."


def test_stage_that_is_not_in_spec_is_not_named(world: World) -> None:
    world.version()
    ingested(world, capture({**STOP, "stage": "secret card 1234567890"}))
    handle(world)

    event = events().get()
    assert "secret" not in json.dumps([event.data, event.subject, event.text])


def test_repeated_incidents_are_grouped_by_stage_pipeline_and_tenant(world: World, other: World) -> None:
    for each, content in ((world, PLAN), (world, plan("trades")), (other, PLAN)):
        each.version(content=content)
    for _ in range(3):
        ingested(world, capture())
    ingested(world, capture({**STOP, "stage": "decode"}))
    ingested(world, capture(content=plan("trades")))
    ingested(other, capture())
    handle(world)
    handle(other)

    assert types() == [NEW] * 6
    outcomes = list(events().values_list("outcome", flat=True))
    assert outcomes == ["notified", "grouped", "grouped", "notified", "notified", "notified"]


@pytest.mark.parametrize(("days", "then"), [(6.9, NEW), (7.1, REOPENED)])
def test_incident_is_reopened_after_a_week(world: World, days: float, then: MessageType) -> None:
    ingested(world, capture())
    handle(world)
    age(timedelta(days=days))

    artifact = ingested(world, capture())
    handle(world)

    assert types() == [NEW, then]
    text = MessageEvent.objects.latest("pk").text
    reopened = " again. The incident was reopened, because it had not occurred for at least a week."
    assert text.endswith(reopened) == (then == REOPENED)
    assert str(artifact.agent) in text


def test_repetition_of_reopened_incident_is_grouped(world: World) -> None:
    ingested(world, capture())
    handle(world)
    age(timedelta(days=8))
    for _ in range(2):
        ingested(world, capture())
    handle(world)

    assert types() == [NEW, REOPENED, REOPENED]
    assert MessageEvent.objects.latest("pk").outcome == EventOutcome.GROUPED


def test_incident_is_not_reopened_by_incident_of_other_environment(world: World) -> None:
    ingested(world, capture())
    MessageEvent.objects.update(environment=world.prod)
    age(timedelta(days=8))

    ingested(world, capture())

    assert types() == [NEW, NEW]


def test_requested_captures_and_rejected_bundles_and_other_artifact_kinds_notify_nobody(world: World) -> None:
    agent, api = world.agent()
    row = requested_captures.request(agent, reason="slow", actor=world.operator.actor)
    made = upload(api, agent, capture(), kind="incident_bundle", capture_id=str(row.pk))
    upload(api, agent, archive({}), kind="incident_bundle")
    upload(api, agent, capture(), kind="diagnostic")
    run_jobs()

    assert Artifact.objects.filter(status="verified").count() == 2
    assert RequestedCapture.objects.get().artifact_id is not None
    assert made.status_code == 201
    assert types() == []


def test_event_about_deleted_artifact_is_obsolete(world: World) -> None:
    ingested(world, capture()).delete()
    handle(world)

    assert events().get().outcome == EventOutcome.OBSOLETE


def test_artifact_stays_received_until_its_incident_is_recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, api = world.agent()
    upload(api, agent, capture(), kind="incident_bundle")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(incidents, "record", fail)
        with pytest.raises(KeyboardInterrupt):
            uploads.ingest(str(Artifact.objects.get().pk))
    assert (Artifact.objects.get().status, types()) == ("received", [])
    run_jobs()
    uploads.ingest(str(Artifact.objects.get().pk))

    assert (Artifact.objects.get().status, types()) == ("verified", [NEW])


def test_concurrent_checks_of_one_artifact_record_one_incident(concurrently: Race, world: World) -> None:
    agent, api = world.agent()
    upload(api, agent, capture(), kind="incident_bundle")
    key = str(Artifact.objects.get().pk)

    concurrently(*[lambda: uploads.ingest(key)] * 3)

    assert types() == [NEW]


def test_message_names_three_fixtures_that_current_deployment_fails_and_counts_others(world: World) -> None:
    claim_all()
    agents = members(world)
    now, changed = bundle(world, "now"), bundle(world, "changed", redact=OTHER_MASK)
    fixture = keep_golden(world, now)
    for name in ("b", "c", "d"):
        Fixture.objects.create(
            **{
                field.attname: getattr(fixture, field.attname)
                for field in Fixture._meta.concrete_fields
                if field.name not in {"id", "name"}
            },
            name=name,
        )
    release(world, changed, agents)
    MessageEvent.objects.exclude(type=MessageType.FIXTURE_CURRENT_FAILS).delete()
    scan()
    handle(world)

    event = MessageEvent.objects.get(type=MessageType.FIXTURE_CURRENT_FAILS)
    assert event.text == "quotes v1, which runs in dev, fails 4 fixtures: b, c, cards and 1 more."
    assert event.path.startswith("/admin/releases/regression/")
    assert notified_of(world.viewer)[-1] == MessageType.FIXTURE_CURRENT_FAILS


def test_event_about_failing_fixtures_is_obsolete_if_regression_does_not_exist(
    world: World, bundle: ConfigBundle
) -> None:
    MessageEvent.objects.all().delete()
    MessageEvent.objects.create(
        organization=world.organization, project=world.project, environment=world.prod,
        type=MessageType.FIXTURE_CURRENT_FAILS, resource_kind="regression", resource_id=str(uuid7()),
    )  # fmt: skip
    handle(world)

    assert events().get().outcome == EventOutcome.OBSOLETE
