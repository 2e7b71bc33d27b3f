"""Messages to chat servers: which events are sent, retries, failures, slow servers, summaries and old deliveries."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from django.utils import timezone

from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.notifications.services import housekeeping
from apps.notifications.services.chat import deliveries, sending
from apps.releases.models import ConfigBundle, Deployment
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import AuditEvent, MessageEvent
from apps.tenancy.services import organizations
from apps.tenancy.services.webhooks import outgoing
from byteor_cloud.ids import smallest_uuid7
from tests.notifications.chat_steps import add, delivery_log, happen, let_time_pass, texts, work
from tests.patience import PATIENCE_S
from tests.tenancy.receiver import Receiver, serving
from tests.worlds import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment(world: World, bundle: ConfigBundle) -> Deployment:
    """Create a deployment to prod, and delete all events."""
    made = world.deployment(bundle)
    MessageEvent.objects.all().delete()
    return made


def outcome(world: World, path: str) -> list[tuple[str, list[tuple[int | None, str]]]]:
    """Return the deliveries, newest first: the status, and the HTTP status and error of each attempt, oldest first."""
    return [
        (line["status"], [(each["status"], each["error"]) for each in line["attempts"]])
        for line in delivery_log(world, path)
    ]


# -- which events are sent ------------------------------------------------------------------------------------------


def test_message_describes_event_and_links_to_console(
    world: World, chat: Receiver, deployment: Deployment, settings: Any
) -> None:
    settings.CONFIG = replace(settings.CONFIG, public_base_url="https://cloud.example")
    path = add(world, chat, "rollout.stopped")
    happen(deployment)

    work()

    first, *lines = texts(chat)[0].split("\n")
    assert first == "The deployment of quotes v1 to prod stopped."
    assert lines[-1] == (
        f"<https://cloud.example/admin/releases/deployment/{deployment.pk}/change/|Open the deployment>"
    )
    assert chat.messages[0].path == "/hook?team=ops"
    assert outcome(world, path) == [("delivered", [(200, "")])]
    line = delivery_log(world, path)[0]
    assert (line["event"], line["text"]) == ("rollout.stopped", first)
    assert ChatWebhook.objects.get().failing_since is None


def test_webhook_gets_only_its_event_types_from_its_scope(world: World, chat: Receiver, deployment: Deployment) -> None:
    def named(name: str, *events: str, **options: Any) -> None:
        add(world, chat, *events, name=name, **options)

    named("all")
    named("project", project_id=str(world.project.pk))
    named("prod", "rollout.stopped", environment_id=str(world.prod.pk))
    named("dev", environment_id=str(world.dev.pk))
    named("finished", "rollout.finished")
    named("disabled", enabled=False)
    other = organizations.create_project(organization=world.organization, name="research", actor=world.admin.actor)
    named("research", project_id=str(other.pk))
    happen(deployment)

    work()

    sent = ChatDelivery.objects.order_by("webhook__name").values_list("webhook__name", flat=True)
    assert list(sent) == ["all", "prod", "project"]
    assert len(chat.messages) == 3


@pytest.mark.parametrize(
    ("type", "kind", "expected"),
    [
        (MessageType.INVITATION, "user", []),
        (MessageType.KEY_EXPIRES, "user_token", []),
        (MessageType.KEY_EXPIRES, "organization_key", ["all"]),
        (MessageType.WEBHOOK_FAILING, "webhook", ["all"]),
        (MessageType.QUOTA_NEAR, "organization", ["all"]),
        (MessageType.AGENTS_OFFLINE, "environment", ["all", "prod"]),
    ],
)
def test_personal_events_are_never_sent_and_organization_events_only_to_organization_wide_webhooks(
    world: World, chat: Receiver, type: MessageType, kind: str, expected: list[str]
) -> None:
    add(world, chat, name="all")
    add(world, chat, name="prod", environment_id=str(world.prod.pk))
    in_prod = {"project": world.project, "environment": world.prod}
    event = MessageEvent.objects.create(
        organization=world.organization, type=type, resource_kind=kind, resource_id="1",
        **({} if type == MessageType.KEY_EXPIRES else in_prod),
    )  # fmt: skip

    deliveries.create_deliveries(event)

    sent = ChatDelivery.objects.order_by("webhook__name").values_list("webhook__name", flat=True)
    assert list(sent) == expected


def test_events_of_other_organizations_are_not_sent(
    world: World, other: World, chat: Receiver, deployment: Deployment
) -> None:
    add(other, chat)
    happen(deployment)

    work()

    assert chat.messages == []


# -- failures -------------------------------------------------------------------------------------------------------


def test_message_is_retried_after_server_errors(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat)
    chat.statuses, chat.content = [500, 503, 200], b"ok"
    happen(deployment)

    work()
    let_time_pass(seconds=1)
    early = len(chat.messages)
    let_time_pass(seconds=20)
    let_time_pass(seconds=100)

    assert (early, len(chat.messages)) == (1, 3)
    assert outcome(world, path) == [("delivered", [(500, ""), (503, ""), (200, "")])]


@pytest.mark.parametrize("is_date", [False, True])
def test_next_attempt_respects_delay_or_date_in_retry_after_header(
    world: World, chat: Receiver, deployment: Deployment, *, is_date: bool
) -> None:
    add(world, chat)
    until = format_datetime(timezone.now() + timedelta(hours=2), usegmt=True)
    chat.statuses, chat.headers = [429], {"Retry-After": until if is_date else "7200"}
    happen(deployment)

    work()

    delivery = ChatDelivery.objects.get()
    assert delivery.next_attempt_at is not None
    assert timedelta(minutes=119) < delivery.next_attempt_at - timezone.now() < timedelta(minutes=121)
    assert ChatWebhook.objects.get().enabled


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"channel_not_found", "channel_not_found"),
        (b'{"id":"web.incoming","message":"Invalid webhook","status_code":404}', "Invalid webhook"),
        (b"<html>https://127.0.0.1/hook?team=ops</html>", ""),
    ],
)
def test_client_error_fails_message_without_retry(
    world: World, chat: Receiver, deployment: Deployment, content: bytes, error: str
) -> None:
    path = add(world, chat)
    chat.statuses, chat.content = [404], content
    happen(deployment)

    work()
    let_time_pass(days=1)

    assert outcome(world, path) == [("failed", [(404, error)])]
    assert ChatWebhook.objects.get().failing_since is not None


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"no_service", "no_service"),
        (b"invalid_token", "invalid_token"),
        (b'{"status_code":400,"message":"Bad\\u0000 payload"}', "Bad payload"),
        (b'{"ok":false,"error":"channel_is_archived"}', "channel_is_archived"),
        (b"<html>Sign in</html>", "unexpected_response"),
        (b'{"success":false,"error":"No such channel"}', "No such channel"),
        (b"\xff\xfe", "unexpected_response"),
    ],
)
def test_message_is_retried_after_error_or_unexpected_content_with_status_200(
    world: World, chat: Receiver, deployment: Deployment, content: bytes, error: str
) -> None:
    path = add(world, chat)
    chat.content = content
    happen(deployment)

    work()
    chat.content = b"ok"
    let_time_pass(seconds=20)

    assert outcome(world, path) == [("delivered", [(200, error), (200, "")])]


@pytest.mark.parametrize("content", [b"ok", b"", b'{"success":true}', b"ok\n"])
def test_usual_responses_count_as_success(world: World, chat: Receiver, deployment: Deployment, content: bytes) -> None:
    path = add(world, chat)
    chat.content = content
    happen(deployment)

    work()

    assert outcome(world, path) == [("delivered", [(200, "")])]


def test_long_error_is_shortened_and_hides_secret_parts_of_url() -> None:
    url = "https://chat.example/hooks/T0123456/B0123456/abcdefABCDEF"
    text = "no hook t0123456/B0123456/abcdefabcdef " + "x" * 500
    result = outgoing.PostResult(400, "", 1, None, b'{"message": "%s"}' % text.encode())

    error = sending.find_error(result, url)

    assert error == ("no hook …/…/… " + "x" * 500)[:100]


def test_redirect_is_not_followed(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat)
    chat.statuses, chat.headers = [307], {"Location": chat.url}
    happen(deployment)

    work()

    assert len(chat.messages) == 1
    assert outcome(world, path) == [("pending", [(307, "")])]


def test_message_is_not_sent_to_private_address(
    world: World, chat: Receiver, deployment: Deployment, settings: Any
) -> None:
    path = add(world, chat)
    happen(deployment)
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=())

    work()

    assert chat.messages == []
    assert outcome(world, path) == [("pending", [(None, "forbidden_address")])]


@pytest.mark.parametrize("drip_s", [0.05, 60])
def test_request_times_out_if_chat_server_responds_slowly_or_hangs(
    world: World, chat: Receiver, deployment: Deployment, monkeypatch: pytest.MonkeyPatch, drip_s: float
) -> None:
    path = add(world, chat)
    monkeypatch.setattr(outgoing, "TIMEOUT_S", 0.4)
    chat.drip_s = drip_s
    happen(deployment, 3)

    work()

    assert outcome(world, path) == [("pending", []), ("pending", []), ("pending", [(None, "timeout")])]


@pytest.mark.django_db(transaction=True)
def test_slow_server_delays_only_its_own_messages(
    world: World, chat: Receiver, deployment: Deployment, concurrently: Any
) -> None:
    arrived = threading.Event()
    with serving() as hanging:
        hanging.drip_s = 0.05
        add(world, hanging, name="hanging")
        add(world, chat, name="prompt")
        happen(deployment)
        MessageEvent.objects.update(outcome=EventOutcome.NOTIFIED)
        deliveries.create_deliveries(MessageEvent.objects.get())
        hooks = {each.name: each.pk for each in ChatWebhook.objects.all()}

        def send_prompt() -> None:
            while not hanging.messages:  # until the other job has started
                assert not arrived.wait(0.01)
            sending.send_due(hooks["prompt"])
            arrived.set()

        concurrently(lambda: sending.send_due(hooks["hanging"]), send_prompt)

        assert arrived.wait(PATIENCE_S)
        statuses = dict(ChatDelivery.objects.values_list("webhook__name", "status"))
    assert statuses == {"hanging": "pending", "prompt": "delivered"}


def test_status_410_disables_webhook_and_records_event(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat)
    chat.statuses, chat.content = [410], b"channel_is_archived"
    happen(deployment, 2)

    work()

    shown = world.admin.api.get(path).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "The receiver returned 410 Gone.")
    assert len(chat.messages) == 1
    assert AuditEvent.objects.get(action="chat_webhook.disable").actor_display == "system:webhooks"
    assert MessageEvent.objects.filter(type=MessageType.WEBHOOK_FAILING).count() == 1
    assert world.admin.api.put(path, {"enabled": True}).json()["disabled_reason"] == ""
    chat.statuses, chat.content = [200], b"ok"
    let_time_pass(days=1)
    assert [status for status, _ in outcome(world, path)] == ["delivered", "failed"]


def test_webhook_that_fails_for_three_days_is_disabled(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat)
    chat.statuses = [404]
    happen(deployment)
    work()
    ChatWebhook.objects.update(failing_since=timezone.now() - timedelta(days=3))
    happen(deployment)

    work()

    shown = world.admin.api.get(path).json()
    assert not shown["enabled"]
    assert shown["disabled_reason"].startswith("The receiver has accepted nothing since ")


# -- summaries and obsolete events ----------------------------------------------------------------------------------


def test_many_due_events_are_sent_in_one_message(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat)
    happen(deployment, 25)

    work()

    first, *lines = texts(chat)[0].split("\n")
    assert len(chat.messages) == 1
    assert first.startswith("25 events since ")
    assert lines[:20] == ["• The deployment of quotes v1 to prod stopped."] * 20
    assert lines[20] == "• 5 more"
    assert lines[-1].endswith(f"/admin/tenancy/environment/{world.prod.pk}/change/|Open the environment>")
    assert outcome(world, path) == [("delivered", [(200, "")])] * 25


def test_summary_counts_grouped_events_and_names_time_of_first_event(
    world: World, chat: Receiver, deployment: Deployment
) -> None:
    add(world, chat)
    happen(deployment, 12)
    grouped, *others = MessageEvent.objects.order_by("pk")
    grouped.data, grouped.count = {**grouped.data, "since": "2026-01-02T03:04:05+00:00"}, 3
    grouped.save(update_fields=["data", "count"])
    MessageEvent.objects.filter(pk__in=[each.pk for each in others[:3]]).update(summary=grouped)

    work()

    assert texts(chat)[0].startswith("14 events since 2026-01-02 03:")


def test_few_due_events_are_sent_one_by_one(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat)
    happen(deployment, 10)

    work()

    assert len(chat.messages) == 10
    assert outcome(world, path) == [("delivered", [(200, "")])] * 10


def test_test_message_is_not_summarized(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat, name="ops *now*")
    world.admin.api.post(f"{path}/test")
    happen(deployment, 25)

    work()

    assert len(chat.messages) == 2
    assert texts(chat)[0].startswith("This is a test of the chat webhook ops \u2217now\u2217.\n")


def test_obsolete_events_are_not_sent(world: World, chat: Receiver, deployment: Deployment) -> None:
    path = add(world, chat)
    happen(deployment)
    happen(deployment, type=MessageType.WAVE_HELD)
    MessageEvent.objects.filter(type=MessageType.WAVE_HELD).update(outcome=EventOutcome.NOTIFIED)
    deliveries.create_deliveries(MessageEvent.objects.get(type=MessageType.WAVE_HELD))

    work()

    assert len(chat.messages) == 1
    assert outcome(world, path) == [("delivered", [(200, "")]), ("failed", [(None, "obsolete")])]
    assert ChatWebhook.objects.get().failing_since is None


@pytest.mark.parametrize("level", ["project", "environment"])
def test_events_of_deleted_project_or_environment_are_not_sent(
    world: World, chat: Receiver, deployment: Deployment, level: str
) -> None:
    path = add(world, chat)
    happen(deployment, 12)
    MessageEvent.objects.update(outcome=EventOutcome.NOTIFIED)
    for event in MessageEvent.objects.order_by("pk"):
        deliveries.create_deliveries(event)
    organizations.delete(world.project if level == "project" else world.prod, kind=level, actor=world.admin.actor)

    deliveries.enqueue_due()
    sending.send_due(ChatWebhook.objects.get().pk)

    assert chat.messages == []
    assert outcome(world, path) == [("failed", [(None, "obsolete")])] * 12


def test_old_deliveries_are_deleted(world: World, chat: Receiver) -> None:
    path = add(world, chat)
    world.admin.api.post(f"{path}/test")
    work()
    old = ChatDelivery.objects.get()
    ChatDelivery.objects.filter(pk=old.pk).delete()
    for days in (29, 31):
        ChatDelivery.objects.create(
            pk=smallest_uuid7(timezone.now() - timedelta(days=days)), webhook=old.webhook, status="delivered"
        )

    housekeeping.delete_old()

    assert ChatDelivery.objects.count() == 1
