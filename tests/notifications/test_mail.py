"""E-mails: what they say, who gets them, and when they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.notifications.jobs import SendMails
from apps.notifications.models import Notification, NotificationSettings
from apps.notifications.services import handling, wording
from apps.notifications.services.mail import sending
from apps.notifications.services.wording import Content, releases
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services import approvals
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import Environment, Membership, MessageEvent, User
from apps.tenancy.services import message_events
from byteor_cloud.ids import uuid7
from byteor_cloud.worker.jobs import is_queued
from tests.notifications.stories import ask, claim_all, handle, send, use_mail_server
from tests.smtp_server import Received, SmtpServer, Step, Trouble, smtp_server
from tests.worlds import Person, World, run_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(settings: Any) -> Iterator[SmtpServer]:
    with smtp_server() as made:
        use_mail_server(settings, made)
        yield made


def mails_to(server: SmtpServer, person: Person) -> list[Received]:
    return [each for each in server.messages if each.recipient == person.user.email]


def note_finished(world: World, bundle: ConfigBundle, *, count: int = 1) -> None:
    """Create a deployment, delete all events, and record ``count`` new ones about its finished rollout.

    Each has a different subject, so that none is grouped.
    """
    deployment = world.deployment(bundle)
    MessageEvent.objects.all().delete()
    for number in range(count):
        message_events.record(
            MessageType.ROLLOUT_FINISHED, scope=world.prod, resource=("deployment", deployment.pk), subject=str(number)
        )


def choose(person: Person, timing: str, type: MessageType = MessageType.ROLLOUT_FINISHED) -> None:
    NotificationSettings.objects.update_or_create(user=person.user, defaults={"choices": {type: {"*": timing}}})


def due() -> int:
    return Notification.objects.exclude(mail_due_at=None).count()


def make_due() -> None:
    """Make all pending e-mails due now."""
    Notification.objects.exclude(mail_due_at=None).update(mail_due_at=timezone.now())


def test_single_notification_is_sent_as_mail_with_changes_link_and_reason(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    deployment = ask(world, bundle, note="Friday's release")

    handle(world)
    run_jobs()

    (mail,) = mails_to(server, world.reviewer)
    message = mail.message
    asks = f"{world.operator.user.email} asks you to approve the deployment of quotes v1 to 1 agent in prod"
    link = f"https://cloud.example/admin/releases/approval/{deployment.approval_id}/change/"
    assert (message["Subject"], message["To"]) == (asks, world.reviewer.user.email)
    assert (mail.sender, message["From"]) == ("byteor@cloud.example", "ByteOr Cloud <byteor@cloud.example>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Unsubscribe"] == "<https://cloud.example/admin/notifications/settings/>"
    assert message["Message-ID"].endswith("@cloud.example>")
    assert message["Date"].datetime.tzinfo is not None
    for text in (mail.part("plain"), mail.part("html").replace("&#x27;", "'")):
        assert f"{asks}." in text
        assert "Note: Friday's release" in text
        assert "Replaces no deployment, so everything is new." in text
        assert text.count(link) == 1
        assert "You received this e-mail because you can approve or deny this request." in text
        assert "https://cloud.example/admin/notifications/settings/" in text
    assert {each.recipient for each in server.messages} == {
        world.admin.user.email, world.project_admin.user.email, world.reviewer.user.email,
    }  # fmt: skip
    row = Notification.objects.get(user=world.reviewer.user)
    assert (row.mail_due_at, row.mail_tries, row.mail_error) == (None, 1, "")
    assert row.mailed_at is not None


def test_mail_with_many_changes_still_says_when_request_expires(
    server: SmtpServer, world: World, bundle: ConfigBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "_describe_request", lambda _: [f"change {number}" for number in range(30)])
    deployment = ask(world, bundle)
    assert deployment.approval is not None

    handle(world)
    run_jobs()

    text = mails_to(server, world.reviewer)[0].part("plain")
    assert "10 more" in text
    assert f"The request expires at {deployment.approval.expires_at:%Y-%m-%d}" in text


def test_several_notifications_are_sent_as_one_summary(server: SmtpServer, world: World, bundle: ConfigBundle) -> None:
    choose(world.viewer, "now")
    note_finished(world, bundle, count=3)

    handle(world)
    send(world)

    (mail,) = server.messages
    assert (mail.recipient, mail.message["Subject"]) == (world.viewer.user.email, f"3 notifications from {world.name}")
    for text in (mail.part("plain"), mail.part("html")):
        assert text.count("The rollout of quotes v1 in prod has finished.") == 3
        assert f"You received this e-mail because you have a role in {world.name}." in text
    assert Notification.objects.filter(user=world.viewer.user).values("mailed_at").distinct().count() == 1


def test_daily_notifications_are_sent_as_one_summary_in_morning(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    choose(world.viewer, "daily")
    note_finished(world, bundle, count=2)

    handle(world)
    send(world)

    assert server.messages == []
    (moment,) = set(Notification.objects.filter(mail="daily").values_list("mail_due_at", flat=True))
    assert moment is not None
    assert (moment.hour, moment.minute) == (8, 0)
    assert timezone.now() < moment <= timezone.now() + timedelta(days=1)

    make_due()
    send(world)

    (mail,) = server.messages
    assert mail.message["Subject"] == f"Daily summary of {world.name}: 2 notifications"


def test_names_cannot_add_markup_headers_or_lines(server: SmtpServer, world: World, bundle: ConfigBundle) -> None:
    name = "<b>\"Prod\"</b>\r\nBcc: eve@example.com\n\n\u202ePay & 'go' 🚀👩‍💻"
    Environment.objects.filter(pk=world.prod.pk).update(name=name)
    shown = "<b>\"Prod\"</b> Bcc: eve@example.com Pay & 'go' 🚀👩‍💻"
    ask(world, bundle)

    handle(world)
    send(world)

    for mail in server.messages:
        assert mail.message["Bcc"] is None
        assert mail.message["Subject"].endswith(f"to 1 agent in {shown}")
        assert f"to 1 agent in {shown}.\n" in mail.part("plain")
        html = mail.part("html")
        assert "<b>" not in html
        assert "&lt;b&gt;&quot;Prod&quot;&lt;/b&gt; Bcc: eve@example.com Pay &amp; &#x27;go&#x27; 🚀👩‍💻" in html
    assert len(server.messages) == 3


def test_long_url_in_header_is_not_encoded(
    settings: Any, server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    base = f"https://{'department.' * 10}example"
    settings.CONFIG = replace(settings.CONFIG, public_base_url=base)
    ask(world, bundle)

    handle(world)
    send(world)

    header = f"\r\nList-Unsubscribe: <{base}/admin/notifications/settings/>\r\n".encode()
    assert all(header in each.raw for each in server.messages)
    assert len(server.messages) == 3


def test_long_subject_is_shortened(server: SmtpServer, world: World, bundle: ConfigBundle) -> None:
    Environment.objects.filter(pk=world.prod.pk).update(name="x" * 200)
    ask(world, bundle)

    handle(world)
    send(world)

    assert {len(each.message["Subject"]) for each in server.messages} == {150}
    assert all("x" * 200 in each.part("plain") for each in server.messages)


def test_person_who_lost_role_or_account_before_sending_gets_no_mail(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    ask(world, bundle)
    handle(world)
    Membership.objects.filter(user=world.admin.user).delete()
    Membership.objects.filter(user=world.reviewer.user).update(role="viewer")
    User.objects.filter(pk=world.project_admin.user.pk).update(is_active=False)

    send(world)

    assert (server.messages, due()) == ([], 0)
    assert Notification.objects.exclude(mailed_at=None).count() == 0


def test_events_of_decided_request_or_deleted_environment_are_not_mailed(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    choose(world.viewer, "now")
    note_finished(world, bundle)
    handle(world)
    Environment.objects.filter(pk=world.prod.pk).update(deleted_at=timezone.now())
    send(world)
    Environment.objects.filter(pk=world.prod.pk).update(deleted_at=None)

    deployment = ask(world, bundle)
    handle(world)
    assert deployment.approval is not None
    approvals.decide(deployment.approval, user=world.admin.user, decision="deny", comment="no", actor=world.admin.actor)
    send(world)

    assert (server.messages, due()) == ([], 0)


def test_flood_of_notifications_becomes_few_mails(server: SmtpServer, world: World, bundle: ConfigBundle) -> None:
    choose(world.viewer, "now")
    deployment = world.deployment(bundle)
    MessageEvent.objects.all().delete()
    for number in range(2 * handling.MOST_MAILS + 4):
        message_events.record(
            MessageType.ROLLOUT_FINISHED, scope=world.prod, resource=("deployment", deployment.pk), subject=str(number)
        )
        if number % 2:
            handle(world)
            send(world)
    subjects = [each.message["Subject"] for each in server.messages]
    assert subjects == [f"2 notifications from {world.name}"] * handling.MOST_MAILS
    (later,) = set(Notification.objects.exclude(mail_due_at=None).values_list("mail_due_at", flat=True))
    assert later is not None
    assert later > timezone.now()
    add_copies(Notification.objects.filter(mail_due_at=later)[0], count=980)

    make_due()
    send(world)

    (summary,) = server.messages[handling.MOST_MAILS :]
    assert summary.message["Subject"] == f"984 notifications from {world.name}"
    assert summary.part("plain").count("The rollout of quotes v1 in prod has finished") == 50
    assert "\n934 more\n" in summary.part("plain")
    assert Notification.objects.filter(user=world.viewer.user, mailed_at=None).count() == 0


def add_copies(notification: Notification, *, count: int) -> None:
    """Add ``count`` notifications about copies of the notification's event. All e-mails are due at the same time."""
    row = MessageEvent.objects.filter(pk=notification.event_id).values().get()
    events = [MessageEvent(**{**row, "id": uuid7()}) for _ in range(count)]
    MessageEvent.objects.bulk_create(events)
    Notification.objects.bulk_create(
        Notification(user=notification.user, event=event, mail="now", mail_due_at=notification.mail_due_at)
        for event in events
    )


def test_summary_does_not_count_events_that_person_can_no_longer_see(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    choose(world.viewer, "now")
    note_finished(world, bundle, count=2)
    message_events.record(
        MessageType.ROLLOUT_FINISHED, scope=world.dev, resource=("deployment", Deployment.objects.get().pk)
    )
    handle(world)
    assert due() == 3
    Environment.objects.filter(pk=world.dev.pk).update(deleted_at=timezone.now())

    send(world)

    assert [each.message["Subject"] for each in server.messages] == [f"2 notifications from {world.name}"]
    assert due() == 0


def test_invitation_is_sent_separately_from_summary(
    server: SmtpServer, world: World, bundle: ConfigBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(world.viewer, "now")
    note_finished(world, bundle, count=2)
    handle(world)
    event = MessageEvent.objects.create(
        organization=world.organization, type=MessageType.INVITATION, resource_kind="user",
        resource_id=str(world.viewer.user.pk), outcome="notified",
    )  # fmt: skip
    Notification.objects.create(user=world.viewer.user, event=event, mail="now", mail_due_at=timezone.now())
    usual, invitation = wording.describe, Content("Ada invited you to Acme.", "/admin/", "Accept the invitation")
    monkeypatch.setattr(wording, "describe", lambda about: invitation if about == event else usual(about))

    send(world)

    summary, invited = server.messages
    assert summary.message["Subject"] == f"2 notifications from {world.name}"
    assert invited.message["Subject"] == "Ada invited you to Acme"
    assert "somebody invited you. If you did not expect the invitation, you can ignore it." in invited.part("plain")
    assert "notifications/settings" not in invited.part("plain") + invited.part("html")
    assert invited.message["List-Unsubscribe"] is None


def test_without_mail_server_no_mail_is_due(settings: Any, world: World, bundle: ConfigBundle) -> None:
    settings.CONFIG = replace(settings.CONFIG, smtp_url=None)
    ask(world, bundle)

    handle(world)
    sending.enqueue_due()
    send(world)

    assert (Notification.objects.count(), due()) == (3, 0)
    assert not is_queued(SendMails, f"mails:{world.organization.pk}")


def test_mails_older_than_three_days_are_dropped(server: SmtpServer, world: World, bundle: ConfigBundle) -> None:
    ask(world, bundle)
    handle(world)
    Notification.objects.update(created_at=timezone.now() - timedelta(days=3, minutes=1))

    send(world)

    assert (server.messages, due()) == ([], 0)
    assert set(Notification.objects.values_list("mail_error", flat=True)) == {
        "The e-mail could not be sent within three days."
    }


def test_one_job_is_enqueued_for_organization_with_due_mails(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    ask(world, bundle)
    handle(world)
    run_jobs()
    assert len(server.messages) == 3
    Notification.objects.update(mail_due_at=timezone.now() + timedelta(hours=1), mailed_at=None)

    sending.enqueue_due()
    assert not is_queued(SendMails, f"mails:{world.organization.pk}")

    Notification.objects.update(mail_due_at=timezone.now())
    sending.enqueue_due()
    sending.enqueue_due()

    assert run_jobs() == 1
    assert len(server.messages) == 6


def test_all_mails_of_job_use_one_connection(server: SmtpServer, world: World, bundle: ConfigBundle) -> None:
    ask(world, bundle)
    handle(world)

    send(world)

    assert (len(server.messages), server.count(Step.CONNECT), server.count(Step.AUTH)) == (3, 1, 1)


def test_job_stops_after_maximum_number_of_mails_and_enqueues_another_job(
    server: SmtpServer, world: World, bundle: ConfigBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MAX_MAILS_PER_JOB", 2)
    ask(world, bundle)
    handle(world)

    send(world)
    assert len(server.messages) == 2

    run_jobs()
    assert len(server.messages) == 3


def test_message_id_is_stable_across_retries_and_differs_for_other_notifications(
    server: SmtpServer, world: World, bundle: ConfigBundle
) -> None:
    choose(world.viewer, "now")
    server.behave(Step.MESSAGE, Trouble.DROP, times=1)  # the response is lost
    note_finished(world, bundle, count=2)
    handle(world)
    send(world)
    make_due()
    send(world)

    first, again = server.messages
    assert first.message["Message-ID"] == again.message["Message-ID"]
    assert first.part("plain") == again.part("plain")

    note_finished(world, bundle)
    claim_all()
    handle(world)
    send(world)
    assert len({each.message["Message-ID"] for each in server.messages}) == 2
