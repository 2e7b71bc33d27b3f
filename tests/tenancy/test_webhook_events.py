"""The events that webhooks receive, and the number of queries that recording them takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.tenancy.models import AuditEvent, WebhookDelivery
from apps.tenancy.services import audit
from apps.tenancy.webhook_events import FAMILIES, NAMES, PATTERNS, TYPES
from tests.tenancy.receiver import Receiver
from tests.tenancy.webhook_steps import WORKER, delivery_log, is_signed, record_event, subscribe
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db


def test_deployment_events_are_delivered(world: World, receiver: Receiver) -> None:
    world.agent(world.prod)
    bundle = world.bundle(world.prod)
    path, token = subscribe(world, receiver)

    deployment = world.deployment(bundle)
    run_jobs()

    approval = deployment.approval
    assert approval is not None
    bodies = [json.loads(message.body) for message in receiver.messages]
    assert {each["type"] for each in bodies} == {"deployment.create", "approval.request"}
    event = AuditEvent.objects.get(action="deployment.create")
    message_body = next(each for each in bodies if each["type"] == "deployment.create")
    assert message_body == {
        "id": str(event.pk),
        "type": "deployment.create",
        "created_at": event.timestamp.isoformat().replace("+00:00", "Z"),
        "organization_id": str(world.organization.pk),
        "project_id": str(world.project.pk),
        "environment_id": str(world.prod.pk),
        "resource": {
            "kind": "deployment",
            "id": str(deployment.pk),
            "url": world.path(world.prod, f"/deployments/{deployment.pk}"),
        },
        "actor": {"kind": "user", "display": world.operator.user.email},
        "changes": event.changes,
    }
    for each, message in zip(bodies, receiver.messages, strict=True):
        assert (message.path, message.headers["webhook-id"]) == ("/hook?team=ops", each["id"])
        assert message.headers["content-type"] == "application/json"
        assert is_signed(message, token)
        assert world.viewer.api.get(each["resource"]["url"]).status_code == 200
    assert [(line["status"], line["attempts"][0]["status"]) for line in delivery_log(world, path)] == [
        ("delivered", 204)
    ] * 2


@pytest.mark.parametrize(
    ("patterns", "action", "expected_count"),
    [
        (["*"], "approval.revoke", 1),
        (["deployment.*"], "deployment.activate", 1),
        (["deployment.*"], "approval.revoke", 0),
        (["approval.approve"], "approval.approve", 1),
        (["approval.approve"], "approval.decision.approve", 0),
        (["deployment.*", "deployment.fail"], "deployment.fail", 1),
        (["fixture.current_fails"], "fixture.current_fails", 1),
        (["*"], "fixture.current_fails", 1),
        (["*"], "fixture.create", 0),
        (["*"], "draft.create", 0),
        (["*"], "deployments.create", 0),
    ],
)
def test_deliveries_are_created_only_for_subscribed_event_types(
    world: World, receiver: Receiver, patterns: list[str], action: str, expected_count: int
) -> None:
    path, _ = subscribe(world, receiver, *patterns)

    record_event(world, action)

    assert [line["type"] for line in delivery_log(world, path)] == [action] * expected_count


def test_webhook_of_project_or_environment_receives_only_its_events(
    world: World, other: World, receiver: Receiver
) -> None:
    everywhere, _ = subscribe(world, receiver)
    project, _ = subscribe(world, receiver, project_id=str(world.project.pk))
    prod, _ = subscribe(world, receiver, environment_id=str(world.prod.pk))
    off, _ = subscribe(world, receiver, enabled=False)
    elsewhere, _ = subscribe(other, receiver)

    record_event(world)
    record_event(world, scope=world.dev)

    counts = [len(delivery_log(world, path)) for path in (everywhere, project, prod, off)]
    assert (counts, delivery_log(other, elsewhere)) == ([2, 2, 1, 0], [])


def test_denials_and_events_of_rolled_back_transactions_are_not_delivered(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)

    with transaction.atomic():
        record_event(world)
        transaction.set_rollback(True)
    resource = ("deployment", world.prod.pk)
    audit.record("deployment.create", actor=WORKER, scope=world.prod, resource=resource, outcome="denied")

    assert WebhookDelivery.objects.count() == 0
    assert run_jobs() == 0


def test_webhook_lookup_costs_one_additional_query_per_event(world: World) -> None:
    with CaptureQueriesContext(connection) as for_webhooks:
        record_event(world)
    with CaptureQueriesContext(connection) as for_others:
        record_event(world, "draft.create")

    assert (len(for_webhooks), len(for_others)) == (2, 1)


def test_literal_deployment_and_approval_actions_in_code_are_event_types() -> None:
    code = "\n".join(path.read_text() for path in (Path(django_settings.BASE_DIR) / "apps").rglob("*.py"))
    written = re.findall(r'audit\.record\(\s*f?"([\w.{}]+)"', code)

    assert len(written) > 20
    named = {action for action in written if action.startswith(FAMILIES) and "{" not in action}
    assert named - set(TYPES) == set()
    assert "approval.remind" in TYPES  # recorded with a constant


def test_every_webhook_event_pattern_has_unique_name() -> None:
    assert NAMES.keys() == {*PATTERNS}
    assert len({*NAMES.values()}) == len(NAMES)
