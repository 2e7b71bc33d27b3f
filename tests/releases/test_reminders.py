"""Reminders of approvals: who may send them, how often, and who gets them."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from apps.notifications.models import Notification
from apps.notifications.services import handling
from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.releases.services import approvals
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import AuditEvent, MessageEvent
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import tokens
from byteor_cloud.errors import TooManyRequests
from tests.notifications.stories import ask, claim_all, handle
from tests.patience import PATIENCE_S
from tests.worlds import ALL, Api, Person, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def bundle(world: World) -> ConfigBundle:
    """Return a bundle in prod, which has one agent. All people have signed in."""
    claim_all()
    world.agent(world.prod)
    return world.bundle(world.prod)


def remind(world: World, deployment: Deployment, by: Person | Api | None = None) -> Any:
    """Request a reminder of the deployment's approval, by default as the operator."""
    api = by if isinstance(by, Api) else (by or world.operator).api
    return api.post(world.path(deployment.environment, f"/approvals/{deployment.approval_id}/remind"))


def reminders() -> list[MessageEvent]:
    return [event for event in MessageEvent.objects.order_by("pk") if event.data.get("is_reminder")]


def test_reminder_notifies_everybody_who_can_approve(world: World, bundle: ConfigBundle) -> None:
    deployment = ask(world, bundle)
    handle(world)
    Notification.objects.all().delete()

    response = remind(world, deployment)

    assert (response.status_code, response.json()["id"]) == (200, str(deployment.approval_id))
    handle(world)
    (event,) = reminders()
    assert (event.type, event.outcome) == (MessageType.APPROVAL_NEEDED, EventOutcome.NOTIFIED)
    assert event.text.startswith(f"{world.operator.user.email} reminds you to approve the deployment of quotes v1")
    expected = {world.admin.user.pk, world.project_admin.user.pk, world.reviewer.user.pk}
    assert set(Notification.objects.values_list("user", flat=True)) == expected
    recorded = AuditEvent.objects.get(action="approval.remind")
    assert (recorded.actor_display, recorded.resource_id) == (world.operator.user.email, str(deployment.approval_id))


@pytest.mark.parametrize("who", ["admin", "project_admin", "reviewer", "viewer"])
def test_people_other_than_requester_cannot_send_reminder(world: World, bundle: ConfigBundle, who: str) -> None:
    response = remind(world, ask(world, bundle), getattr(world, who))

    assert response.status_code == 403
    assert reminders() == []
    assert Approval.objects.get().reminded_at is None


def test_key_and_its_creator_can_send_reminder_of_request_made_with_key(world: World, bundle: ConfigBundle) -> None:
    _, text = tokens.create_organization_key(
        organization=world.organization, name="ci", role=Role.OPERATOR, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip
    key = Api(text)
    body = {"config_bundle_id": str(bundle.pk), "target": ALL}
    made = key.post(world.path(bundle.environment, "/deployments"), body)
    deployment = Deployment.objects.get(pk=made.json()["id"])

    assert remind(world, deployment).status_code == 403
    assert remind(world, deployment, key).status_code == 200
    Approval.objects.update(reminded_at=None)
    assert remind(world, deployment, world.admin).status_code == 200


def test_second_reminder_within_an_hour_is_refused(world: World, bundle: ConfigBundle) -> None:
    deployment = ask(world, bundle)
    assert remind(world, deployment).status_code == 200

    refused = remind(world, deployment)

    assert refused.status_code == 429
    assert 3_000 < int(refused["Retry-After"]) <= 3_700
    assert len(reminders()) == 1
    Approval.objects.update(reminded_at=timezone.now() - timedelta(hours=1))
    assert remind(world, deployment).status_code == 200
    assert len(reminders()) == 2


def test_reminder_of_decided_or_expired_request_is_refused(world: World, bundle: ConfigBundle) -> None:
    deployment = ask(world, bundle)
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert remind(world, deployment).json()["type"] == "urn:byteor:problem:approval.expired"

    Approval.objects.update(expires_at=timezone.now() + timedelta(hours=1))
    assert deployment.approval is not None
    approvals.decide(deployment.approval, user=world.admin.user, decision="deny", comment="no", actor=world.admin.actor)
    response = remind(world, deployment)

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:approval.decided")
    assert reminders() == []


def test_reminder_of_break_glass_deployment_has_type_break_glass_needed(world: World, bundle: ConfigBundle) -> None:
    body = {
        "config_bundle_id": str(bundle.pk), "target": ALL,
        "break_glass": {"reason": "The market is open."},
    }  # fmt: skip
    made = world.admin.api.post(world.path(bundle.environment, "/deployments"), body)
    assert made.status_code == 201, made.json()
    deployment = Deployment.objects.get(pk=made.json()["id"])

    assert remind(world, deployment, world.admin).status_code == 200

    assert [event.type for event in reminders()] == [MessageType.BREAK_GLASS_NEEDED]


def test_reminder_is_sent_even_if_further_requests_are_grouped(world: World, bundle: ConfigBundle) -> None:
    deployment = ask(world, bundle)
    event = MessageEvent.objects.get()
    for _ in range(30):
        event.pk = None
        event._state.adding = True
        MessageEvent.objects.create(**{
            field.name: getattr(event, field.name)
            for field in MessageEvent._meta.fields
            if field.name not in {"id", "created_at"}
        })  # fmt: skip
    remind(world, deployment)

    handling.handle_pending(world.organization.pk)

    assert MessageEvent.objects.filter(outcome=EventOutcome.GROUPED).count() == 21
    assert [event.outcome for event in reminders()] == [EventOutcome.NOTIFIED]


@pytest.mark.django_db(transaction=True)
def test_only_one_of_concurrent_reminders_is_sent(world: World, bundle: ConfigBundle) -> None:
    approval = ask(world, bundle).approval
    assert approval is not None
    barrier, outcomes = Barrier(4), []

    def attempt() -> None:
        barrier.wait(PATIENCE_S)
        try:
            approvals.remind(approval, actor=world.operator.actor)
            outcomes.append("sent")
        except TooManyRequests:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["refused"] * 3 + ["sent"]
    assert len(reminders()) == 1
