"""Webhook deliveries: retries, permanent failures, disabled webhooks, and a killed worker."""

from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.tenancy import tasks
from apps.tenancy.models import AuditEvent, Webhook, WebhookDelivery
from apps.tenancy.services.webhooks import attempts, delivery
from byteor_cloud.worker.jobs import JobLane, queue_of
from tests.tenancy.receiver import Receiver
from tests.tenancy.webhook_steps import delivery_log, is_signed, let_time_pass, record_event, subscribe
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db


def test_delivery_is_retried_after_failed_attempts(world: World, receiver: Receiver) -> None:
    path, token = subscribe(world, receiver)
    receiver.statuses = [500, 503, 204]
    record_event(world)

    run_jobs()
    waiting = delivery_log(world, path)[0]
    first = WebhookDelivery.objects.get().next_attempt_at
    let_time_pass(seconds=1)
    early = len(receiver.messages)
    let_time_pass(seconds=20)
    let_time_pass(seconds=100)

    assert (waiting["status"], early, len(receiver.messages)) == ("pending", 1, 3)
    assert first is not None
    assert timedelta(seconds=14) < first - timezone.now() < timedelta(seconds=19)
    line = delivery_log(world, path)[0]
    assert (line["status"], line["next_attempt_at"]) == ("delivered", None)
    assert [(each["status"], each["error"]) for each in line["attempts"]] == [(500, ""), (503, ""), (204, "")]
    assert len({(message.headers["webhook-id"], message.body) for message in receiver.messages}) == 1
    assert all(is_signed(message, token) for message in receiver.messages)
    assert Webhook.objects.get().failing_since is None


@pytest.mark.parametrize("tries", range(1, 8))
def test_waits_between_attempts_grow_exponentially(tries: int) -> None:
    pause = attempts.backoff(tries, None, timezone.now()).total_seconds()

    assert 15 * 4 ** (tries - 1) <= pause <= 18 * 4 ** (tries - 1)
    assert 15 * sum(4**n for n in range(7)) == 81_915


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("3600", 3600, 3600), ("5", 15, 18), ("999999999", 86400, 86400), ("9" * 400, 15, 18), ("-5", 15, 18),
     ("soon", 15, 18), ("", 15, 18), ("Wed, 21 Oct 2015 07:28:00 GMT", 15, 18), ("²", 15, 18)],
)  # fmt: skip
def test_retry_after_is_respected_within_bounds_and_ignored_if_invalid(text: str, low: int, high: int) -> None:
    assert low <= attempts.backoff(1, text, timezone.now()).total_seconds() <= high


def test_retry_after_can_be_date(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    receiver.statuses = [503]
    receiver.headers = {"Retry-After": format_datetime(timezone.now() + timedelta(hours=2), usegmt=True)}
    record_event(world)

    run_jobs()

    due = WebhookDelivery.objects.get().next_attempt_at
    assert due is not None
    assert timedelta(minutes=119) < due - timezone.now() < timedelta(minutes=121)


def test_delivery_fails_after_eight_failed_attempts(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [500]
    record_event(world)

    run_jobs()
    for _ in range(9):
        let_time_pass(days=1)

    line = delivery_log(world, path)[0]
    assert (line["status"], line["next_attempt_at"], len(line["attempts"])) == ("failed", None, 8)
    assert line["finished_at"] is not None
    assert len(receiver.messages) == 8
    # ``let_time_pass`` does not move ``failing_since``, so the receiver has not failed for ``DISABLED_AFTER``.
    assert Webhook.objects.get().enabled


def test_delivery_waiting_for_retry_does_not_block_later_deliveries(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [500, 204]
    first, second, third = (record_event(world) for _ in range(3))

    for job in ProcrastinateJob.objects.order_by("-id")[:2]:
        ProcrastinateJob.objects.filter(pk=job.pk)._raw_delete("default")
    run_jobs()
    assert len(receiver.messages) == 1  # after a failure, the job stops sending to this receiver
    let_time_pass(seconds=1)

    assert [message.headers["webhook-id"] for message in receiver.messages] == [
        str(e.pk) for e in (first, second, third)
    ]
    assert [line["status"] for line in delivery_log(world, path)] == ["delivered", "delivered", "pending"]


def test_delivery_job_at_its_time_limit_enqueues_another_job(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(world, receiver)
    for _ in range(3):
        record_event(world)
    ProcrastinateJob.objects.all()._raw_delete("default")
    ticks = iter([0, 4, 10])
    monkeypatch.setattr(delivery, "monotonic", lambda: next(ticks))

    delivery.deliver_due(Webhook.objects.get().pk)

    assert len(receiver.messages) == 2
    assert ProcrastinateJob.objects.get().task_name == "tenancy.deliver_webhooks"
    monkeypatch.undo()
    assert delivery.MAX_JOB_S == 10


def test_status_410_disables_webhook(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [410]
    record_event(world)
    record_event(world)

    run_jobs()
    let_time_pass(days=1)

    assert len(receiver.messages) == 1
    assert [line["status"] for line in delivery_log(world, path)] == ["pending", "failed"]
    shown = world.admin.api.get(path).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "The receiver returned 410 Gone.")
    event = AuditEvent.objects.get(action="webhook.disable")
    assert (event.actor_display, event.changes["enabled"]) == ("system:webhooks", [True, False])

    receiver.statuses = [204]
    assert world.admin.api.put(path, {"enabled": True}).json()["disabled_reason"] == ""
    let_time_pass(days=1)
    assert [line["status"] for line in delivery_log(world, path)] == ["delivered", "failed"]


@pytest.mark.parametrize(("days", "enabled"), [(2, True), (3, False)])
def test_webhook_is_disabled_after_three_days_of_failures(
    world: World, receiver: Receiver, days: int, enabled: bool
) -> None:
    subscribe(world, receiver)
    receiver.statuses = [500]
    Webhook.objects.update(failing_since=timezone.now() - timedelta(days=days, minutes=1))
    record_event(world)

    run_jobs()
    assert Webhook.objects.get().enabled  # one failed attempt is not a failed delivery
    for _ in range(7):
        let_time_pass(days=1)

    assert Webhook.objects.get().enabled is enabled
    assert AuditEvent.objects.filter(action="webhook.disable").count() == (0 if enabled else 1)


def test_redirect_is_not_followed(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [307]
    receiver.headers = {"Location": receiver.url}
    record_event(world)

    run_jobs()

    assert len(receiver.messages) == 1
    assert [(each["status"], each["error"]) for each in delivery_log(world, path)[0]["attempts"]] == [(307, "")]


def test_delivery_is_sent_again_if_worker_dies_after_sending(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = subscribe(world, receiver)
    record_event(world)

    def dies(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(delivery, "_record_attempt", dies)
        with pytest.raises(KeyboardInterrupt):
            run_jobs()
    assert delivery_log(world, path)[0]["status"] == "pending"
    tasks.wake_webhooks()
    run_jobs()

    assert [message.headers["webhook-id"] for message in receiver.messages] == [
        str(AuditEvent.objects.latest("id").pk)
    ] * 2
    assert [len(line["attempts"]) for line in delivery_log(world, path)] == [1]


def test_deleted_webhook_receives_no_pending_delivery(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    record_event(world)

    assert world.admin.api.delete(path).status_code == 204

    assert run_jobs() == 1
    assert (receiver.messages, WebhookDelivery.objects.count()) == ([], 0)


def test_enqueuing_due_deliveries_twice_enqueues_one_job(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    record_event(world)
    ProcrastinateJob.objects.all()._raw_delete("default")

    delivery.enqueue_due()
    delivery.enqueue_due()

    job = ProcrastinateJob.objects.get()
    assert (job.task_name, job.queue_name) == (
        "tenancy.deliver_webhooks", queue_of(JobLane.WEBHOOKS, world.organization.pk)
    )  # fmt: skip
    assert job.lock == f"webhook:{Webhook.objects.get().pk}"
