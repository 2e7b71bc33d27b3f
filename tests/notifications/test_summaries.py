"""Summaries of grouped events, limits on e-mails, and notifications that count only for org_admins.

Nobody misses a grouped event because another one is obsolete or concerns other people.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.notifications.models import Notification
from apps.notifications.services import bell, handling, limits
from apps.notifications.services.limits import Limit
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import approvals
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import Membership, MessageEvent, User
from apps.tenancy.permissions import Role
from apps.tenancy.services import message_events
from byteor_cloud.config import SmtpServer
from tests.notifications.stories import ask, handle, notified_of
from tests.worlds import ALL, World

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the default limit on repeated events to one message in ten minutes."""
    monkeypatch.setattr(limits, "DEFAULT", Limit(1, timedelta(minutes=10)))


@pytest.fixture
def mail(settings: Any) -> None:
    """Configure a mail server, to which nothing is sent."""
    settings.CONFIG = replace(settings.CONFIG, smtp_url=SmtpServer("127.0.0.1", 25, "off"))


def pass_time(world: World) -> None:
    """Let the ten minutes of the limit end, and create and handle the summaries, as the worker does."""
    notified_events = MessageEvent.objects.filter(outcome=EventOutcome.NOTIFIED)
    notified_events.update(handled_at=timezone.now() - timedelta(minutes=11))
    limits.summarize()
    handle(world)


def deny(deployment: Deployment, world: World) -> None:
    assert deployment.approval is not None
    approvals.decide(
        deployment.approval, decision="deny", user=world.admin.user, comment="no", actor=world.admin.actor
    )  # fmt: skip


def test_summary_is_sent_if_only_its_newest_event_is_obsolete(world: World, bundle: ConfigBundle) -> None:
    ask(world, bundle)
    second, last = ask(world, bundle), ask(world, bundle)
    handle(world)
    deny(last, world)
    pass_time(world)

    summary = MessageEvent.objects.get(type=MessageType.APPROVAL_NEEDED, count=2)
    assert summary.outcome == EventOutcome.NOTIFIED
    assert summary.path == f"/admin/releases/approval/{second.approval_id}/change/"
    assert notified_of(world.reviewer).count(MessageType.APPROVAL_NEEDED) == 2


def test_summary_of_single_event_does_not_mention_other_events(world: World, bundle: ConfigBundle) -> None:
    for _ in range(2):
        ask(world, bundle)
    handle(world)
    pass_time(world)

    first, _, summary = MessageEvent.objects.filter(type=MessageType.APPROVAL_NEEDED).order_by("pk")
    assert (summary.is_summary, summary.count, summary.outcome) == (True, 1, EventOutcome.NOTIFIED)
    assert summary.text == first.text


def test_summary_of_obsolete_events_is_obsolete(world: World, bundle: ConfigBundle) -> None:
    deployments = [ask(world, bundle) for _ in range(3)]
    handle(world)
    for deployment in deployments[1:]:
        deny(deployment, world)
    pass_time(world)

    summary = MessageEvent.objects.get(type=MessageType.APPROVAL_NEEDED, count=2)
    assert summary.outcome == EventOutcome.OBSOLETE


def test_summary_notifies_everybody_concerned_by_any_of_its_events(world: World, bundle: ConfigBundle) -> None:
    ask(world, bundle)
    for reviewer in (world.reviewer, world.project_admin):
        ask(world, bundle, reviewers=[str(reviewer.user.pk)])
    handle(world)
    Notification.objects.all().delete()
    pass_time(world)

    people = set(Notification.objects.values_list("user", flat=True))
    assert people == {world.reviewer.user.pk, world.project_admin.user.pk}


def test_requester_of_any_stopped_deployment_gets_mail_about_summary(world: World, bundle: ConfigBundle) -> None:
    mine = world.deployment(bundle)
    theirs = [world.deployment(bundle, actor=world.reviewer.actor) for _ in range(2)]
    MessageEvent.objects.all().delete()
    for deployment in (theirs[0], mine, theirs[1]):
        resource = ("deployment", deployment.pk)
        message_events.record(MessageType.ROLLOUT_STOPPED, scope=world.prod, resource=resource)
    handle(world)
    Notification.objects.all().delete()
    pass_time(world)

    mails = dict(Notification.objects.values_list("user", "mail"))
    requesters = {user_id for user_id, mail in mails.items() if mail == "now"}
    assert requesters == {world.operator.user.pk, world.reviewer.user.pk}


def test_break_glass_events_are_not_grouped(world: World, bundle: ConfigBundle) -> None:
    world.prod.settings = {"max_in_flight_deployments": 5}
    world.prod.save(update_fields=["settings"])
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, "break_glass": {"reason": "outage"}}
    for _ in range(3):
        assert world.admin.api.post(world.path(world.prod, "/deployments"), body).status_code == 201
    handle(world)

    assert notified_of(world.reviewer).count(MessageType.BREAK_GLASS_NEEDED) == 3


def test_unverified_address_gets_no_mail(world: World, bundle: ConfigBundle, mail: None) -> None:
    User.objects.filter(pk=world.reviewer.user.pk).update(email_verified=False)
    ask(world, bundle)
    handle(world)

    due = set(Notification.objects.filter(mail_due_at__isnull=False).values_list("user", flat=True))
    assert due == {world.admin.user.pk, world.project_admin.user.pk}
    assert notified_of(world.reviewer) == [MessageType.APPROVAL_NEEDED]


def test_mails_of_one_organization_do_not_delay_mails_of_another_organization(
    world: World, other: World, bundle: ConfigBundle, mail: None
) -> None:
    Membership.objects.create(user=world.reviewer.user, organization=other.organization, role=Role.ORG_ADMIN)
    for number in range(handling.MOST_MAILS):
        event = MessageEvent.objects.create(
            organization=other.organization, type=MessageType.QUOTA_NEAR, resource_kind="organization",
            resource_id=str(number), outcome=EventOutcome.NOTIFIED,
        )  # fmt: skip
        then = timezone.now() - timedelta(seconds=number)
        Notification.objects.create(user=world.reviewer.user, event=event, mail="now", mailed_at=then)
    ask(world, bundle)
    handle(world)

    assert Notification.objects.due(timezone.now()).filter(user=world.reviewer.user).exists()


def test_person_gets_at_most_20_invitation_mails_in_a_day(world: World, mail: None) -> None:
    MessageEvent.objects.all().delete()
    for _ in range(25):
        message_events.record(
            MessageType.INVITATION, scope=world.organization, resource=("user", world.viewer.user.pk),
            data={"role": "viewer", "invited_by": "Ada"},
        )  # fmt: skip
    handle(world)

    assert Notification.objects.filter(user=world.viewer.user, mail_due_at__isnull=False).count() == 20


def test_notifications_for_org_admins_are_not_counted_for_other_members(world: World) -> None:
    event = MessageEvent.objects.create(
        organization=world.organization, type=MessageType.QUOTA_NEAR, resource_kind="organization",
        resource_id="1", outcome=EventOutcome.NOTIFIED,
    )  # fmt: skip
    Notification.objects.create(user=world.project_admin.user, event=event)
    Notification.objects.create(user=world.admin.user, event=event)

    assert bell.count_unread(world.admin.user) == 1
    assert bell.count_unread(world.project_admin.user) == 0
