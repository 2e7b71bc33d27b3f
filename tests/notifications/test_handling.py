"""New events: who is notified, when an e-mail is due, and which events are grouped, obsolete or retried."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.notifications.models import Notification, NotificationSettings
from apps.notifications.services import handling, limits
from apps.releases.models import ConfigBundle
from apps.releases.services import approvals
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import Membership, MessageEvent, User
from apps.tenancy.services import message_events, organizations
from byteor_cloud.config import SmtpServer
from tests.notifications.stories import ask, handle
from tests.worlds import World

pytestmark = pytest.mark.django_db


def test_deployment_request_records_one_event_and_notifies_everybody_who_can_decide(
    settings: Any, world: World, bundle: ConfigBundle
) -> None:
    settings.CONFIG = replace(settings.CONFIG, smtp_url=SmtpServer("127.0.0.1", 25, "off"))
    deployment = ask(world, bundle)

    assert MessageEvent.objects.get().type == MessageType.APPROVAL_NEEDED
    handle(world)

    event = MessageEvent.objects.get()
    assert event.outcome == EventOutcome.NOTIFIED
    assert (
        event.text == f"{world.operator.user.email} asks you to approve the deployment of quotes v1 to 1 agent in prod."
    )
    assert event.path == f"/admin/releases/approval/{deployment.approval_id}/change/"
    notified = set(Notification.objects.values_list("user", flat=True))
    assert notified == {
        world.admin.user.pk,
        world.project_admin.user.pk,
        world.reviewer.user.pk,
    }  # not the requester, and not the viewer
    assert set(Notification.objects.values_list("mail", flat=True)) == {"now"}
    assert Notification.objects.due(timezone.now()).count() == 3


def test_person_who_never_signed_in_or_has_left_is_not_notified(world: World, bundle: ConfigBundle) -> None:
    ask(world, bundle)
    Membership.objects.filter(user=world.admin.user).delete()
    User.objects.filter(pk=world.reviewer.user.pk).update(last_login=None)

    handle(world)

    assert Notification.objects.get().user == world.project_admin.user


def test_event_about_decided_request_is_obsolete(world: World, bundle: ConfigBundle) -> None:
    deployment = ask(world, bundle)
    assert deployment.approval is not None
    approvals.decide(
        deployment.approval, user=world.admin.user, decision="approve", comment="", actor=world.admin.actor
    )

    handle(world)

    assert MessageEvent.objects.get(type=MessageType.APPROVAL_NEEDED).outcome == EventOutcome.OBSOLETE
    assert Notification.objects.count() == 0


def test_choice_for_environment_overrides_choice_for_all_environments_and_organization_default(
    world: World, bundle: ConfigBundle
) -> None:
    organizations.update_organization(
        world.organization, {"settings": {"default_notification_settings": {"approval.needed": "daily"}}},
        actor=world.admin.actor,
    )  # fmt: skip
    people = [world.admin, world.project_admin, world.reviewer]
    for person, chosen in zip(people[1:], [{"*": "off"}, {"*": "off", str(world.prod.pk): "now"}], strict=True):
        NotificationSettings.objects.create(user=person.user, choices={"approval.needed": chosen})
    ask(world, bundle)

    handle(world)

    mails = dict(Notification.objects.values_list("user__email", "mail"))
    assert [mails[each.user.email] for each in people] == ["daily", "off", "now"]


def test_events_beyond_limit_are_grouped_into_one_later_message(world: World, bundle: ConfigBundle) -> None:
    deployment = world.deployment(bundle)
    MessageEvent.objects.all().delete()
    for _ in range(30):
        message_events.record(MessageType.ROLLOUT_STOPPED, scope=world.prod, resource=("deployment", deployment.pk))
    handle(world)

    def outcomes() -> list[str]:
        return sorted(MessageEvent.objects.values_list("outcome", flat=True))

    assert outcomes() == ["grouped"] * 20 + ["notified"] * 10
    limits.summarize()
    assert MessageEvent.objects.count() == 30

    MessageEvent.objects.update(handled_at=timezone.now() - timedelta(minutes=11))
    limits.summarize()
    limits.summarize()
    handle(world)

    summary = MessageEvent.objects.get(count=20)
    assert summary.outcome == EventOutcome.NOTIFIED
    assert summary.text.startswith("1 of 20 similar events: The deployment of quotes v1 to prod stopped")
    assert Notification.objects.filter(user=world.viewer.user).count() == 11


def test_event_whose_handling_fails_is_retried_and_delays_no_other_event(world: World, bundle: ConfigBundle) -> None:
    deployment = world.deployment(bundle)
    MessageEvent.objects.all().delete()
    for resource_id in ("not an id", deployment.pk):
        message_events.record(MessageType.ROLLOUT_STOPPED, scope=world.prod, resource=("deployment", resource_id))

    handle(world)

    broken, sound = MessageEvent.objects.order_by("pk")
    assert (broken.outcome, broken.tries) == (EventOutcome.PENDING, 1)
    assert sound.outcome == EventOutcome.NOTIFIED
    handle(world)
    broken.refresh_from_db()
    assert broken.tries == 1  # the next attempt is not due yet
    for _ in range(30):
        MessageEvent.objects.update(retry_at=timezone.now())
        handle(world)
    broken.refresh_from_db()
    assert (broken.outcome, broken.tries) == (EventOutcome.FAILED, handling.MAX_TRIES)
    assert not broken.notifications.exists()
