"""Webhooks: what is announced, how it is signed, sent, tried again, given up and sent once more. A real receiver."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.tenancy import audit, tasks
from apps.tenancy.actors import system
from apps.tenancy.models import AuditEvent, Webhook, WebhookDelivery
from apps.tenancy.services import webhooks
from apps.tenancy.webhooks import delivery
from apps.tenancy.webhooks.events import FAMILIES, TYPES
from byteor_cloud.jobs import Lane, queue_of
from tests.tenancy.receiver import Message, Receiver, serving
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db
LOOPBACK = (ip_network("127.0.0.0/8"),)
WORKER = system("test")


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """A receiver on this host, where webhooks may go."""
    settings.CONFIG = replace(settings.CONFIG, webhook_allow_private=LOOPBACK)
    with serving() as served:
        yield served


def org(world: World, rest: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/webhooks{rest}"


def subscribe(world: World, receiver: Receiver, *events: str, **options: Any) -> tuple[str, str]:
    """A webhook made through the API: its path and its secret."""
    body = {"url": receiver.url, "events": list(events) or ["*"], **options}
    made = world.admin.api.post(org(world), body)
    assert made.status_code == 201
    return org(world, f"/{made.json()['id']}"), made.json()["token"]


def happens(world: World, action: str = "deployment.create", scope: Any = None) -> AuditEvent:
    """An event as services write it."""
    kind = action.partition(".")[0]
    place = scope or world.prod
    return audit.record(action, actor=WORKER, scope=place, resource=(kind, place.pk), changes={"n": [0, 1]})


def log(world: World, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.admin.api.get(f"{path}/deliveries").json()["results"]
    return found


def later(**by: Any) -> None:
    """Time passes for what is owed; then the worker looks."""
    WebhookDelivery.objects.update(next_attempt_at=F("next_attempt_at") - timedelta(**by))
    tasks.wake_webhooks()
    run_jobs()


def is_signed(message: Message, token: str) -> bool:
    """As a receiver computes it by the convention, from the text of the secret."""
    key = base64.b64decode(token.removeprefix("whsec_"))
    signed = b".".join(
        [message.headers["webhook-id"].encode(), message.headers["webhook-timestamp"].encode(), message.body]
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in message.headers["webhook-signature"].split(" ")


# -- what is announced ---------------------------------------------------------------------------------------------


def test_a_deployment_is_told_of_step_by_step(world: World, receiver: Receiver) -> None:
    world.agent(world.prod)
    bundle = world.bundle(world.prod)
    path, token = subscribe(world, receiver)

    deployment = world.deployment(bundle)
    run_jobs()

    approval = deployment.approval
    assert approval is not None
    told = [json.loads(message.body) for message in receiver.got]
    assert {each["type"] for each in told} == {"deployment.create", "approval.request"}
    event = AuditEvent.objects.get(action="deployment.create")
    said = next(each for each in told if each["type"] == "deployment.create")
    assert said == {
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
    for each, message in zip(told, receiver.got, strict=True):
        assert (message.path, message.headers["webhook-id"]) == ("/hook?team=ops", each["id"])
        assert message.headers["content-type"] == "application/json"
        assert is_signed(message, token)
        assert world.viewer.api.get(each["resource"]["url"]).status_code == 200
    assert [(line["status"], line["attempts"][0]["status"]) for line in log(world, path)] == [("delivered", 204)] * 2


@pytest.mark.parametrize(
    ("asked", "action", "told"),
    [
        (["*"], "approval.revoke", 1),
        (["deployment.*"], "deployment.activate", 1),
        (["deployment.*"], "approval.revoke", 0),
        (["approval.approve"], "approval.approve", 1),
        (["approval.approve"], "approval.decision.approve", 0),
        (["deployment.*", "deployment.fail"], "deployment.fail", 1),
        (["*"], "draft.create", 0),
        (["*"], "deployments.create", 0),
    ],
)
def test_what_is_asked_for_is_told(world: World, receiver: Receiver, asked: list[str], action: str, told: int) -> None:
    path, _ = subscribe(world, receiver, *asked)

    happens(world, action)

    assert [line["type"] for line in log(world, path)] == [action] * told


def test_a_place_narrows_it(world: World, other: World, receiver: Receiver) -> None:
    everywhere, _ = subscribe(world, receiver)
    project, _ = subscribe(world, receiver, project_id=str(world.project.pk))
    prod, _ = subscribe(world, receiver, environment_id=str(world.prod.pk))
    off, _ = subscribe(world, receiver, enabled=False)
    elsewhere, _ = subscribe(other, receiver)

    happens(world)
    happens(world, scope=world.dev)

    counts = [len(log(world, path)) for path in (everywhere, project, prod, off)]
    assert (counts, log(other, elsewhere)) == ([2, 2, 1, 0], [])


def test_what_is_rolled_back_is_not_told_and_a_denial_neither(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)

    with transaction.atomic():
        happens(world)
        transaction.set_rollback(True)
    resource = ("deployment", world.prod.pk)
    audit.record("deployment.create", actor=WORKER, scope=world.prod, resource=resource, outcome="denied")

    assert WebhookDelivery.objects.count() == 0
    assert run_jobs() == 0


def test_an_organization_without_webhooks_pays_one_query(world: World) -> None:
    with CaptureQueriesContext(connection) as told:
        happens(world)
    with CaptureQueriesContext(connection) as untold:
        happens(world, "draft.create")

    assert (len(told), len(untold)) == (2, 1)


def test_every_event_of_deployments_and_approvals_has_its_type() -> None:
    code = "\n".join(path.read_text() for path in (Path(django_settings.BASE_DIR) / "apps").rglob("*.py"))
    written = re.findall(r'audit\.record\(\s*f?"([\w.{}]+)"', code)

    assert len(written) > 20
    named = {action for action in written if action.startswith(FAMILIES) and "{" not in action}
    assert named - set(TYPES) == set()


# -- how it is sent ------------------------------------------------------------------------------------------------


def test_a_refusal_is_tried_again_later(world: World, receiver: Receiver) -> None:
    path, token = subscribe(world, receiver)
    receiver.statuses = [500, 503, 204]
    happens(world)

    run_jobs()
    waiting = log(world, path)[0]
    first = WebhookDelivery.objects.get().next_attempt_at
    later(seconds=1)
    early = len(receiver.got)
    later(seconds=20)
    later(seconds=100)

    assert (waiting["status"], early, len(receiver.got)) == ("pending", 1, 3)
    assert first is not None
    assert timedelta(seconds=14) < first - timezone.now() < timedelta(seconds=19)
    line = log(world, path)[0]
    assert (line["status"], line["next_attempt_at"]) == ("delivered", None)
    assert [(each["status"], each["error"]) for each in line["attempts"]] == [(500, ""), (503, ""), (204, "")]
    assert len({(message.headers["webhook-id"], message.body) for message in receiver.got}) == 1
    assert all(is_signed(message, token) for message in receiver.got)
    assert Webhook.objects.get().failing_since is None


@pytest.mark.parametrize("tries", range(1, 8))
def test_the_pauses_grow_to_a_day_in_all(tries: int) -> None:
    pause = delivery._wait(tries, None, timezone.now()).total_seconds()

    assert 15 * 4 ** (tries - 1) <= pause <= 18 * 4 ** (tries - 1)
    assert 15 * sum(4**n for n in range(7)) == 81_915


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("3600", 3600, 3600), ("5", 15, 18), ("999999999", 86400, 86400), ("9" * 400, 15, 18), ("-5", 15, 18),
     ("soon", 15, 18), ("", 15, 18), ("Wed, 21 Oct 2015 07:28:00 GMT", 15, 18), ("²", 15, 18)],
)  # fmt: skip
def test_retry_after_is_heeded_within_bounds(text: str, low: int, high: int) -> None:
    assert low <= delivery._wait(1, text, timezone.now()).total_seconds() <= high


def test_retry_after_may_be_a_date(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    receiver.statuses = [503]
    receiver.headers = {"Retry-After": format_datetime(timezone.now() + timedelta(hours=2), usegmt=True)}
    happens(world)

    run_jobs()

    due = WebhookDelivery.objects.get().next_attempt_at
    assert due is not None
    assert timedelta(minutes=119) < due - timezone.now() < timedelta(minutes=121)


def test_it_is_given_up_after_eight_attempts(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [500]
    happens(world)

    run_jobs()
    for _ in range(9):
        later(days=1)

    line = log(world, path)[0]
    assert (line["status"], line["next_attempt_at"], len(line["attempts"])) == ("failed", None, 8)
    assert line["finished_at"] is not None
    assert len(receiver.got) == 8
    assert Webhook.objects.get().enabled  # not for days yet


def test_one_that_is_refused_does_not_hold_up_the_next(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [500, 204]
    first, second, third = (happens(world) for _ in range(3))

    for job in ProcrastinateJob.objects.order_by("-id")[:2]:
        ProcrastinateJob.objects.filter(pk=job.pk)._raw_delete("default")
    run_jobs()
    assert len(receiver.got) == 1  # a receiver that fails is not asked for more at once
    later(seconds=1)

    assert [message.headers["webhook-id"] for message in receiver.got] == [str(e.pk) for e in (first, second, third)]
    assert [line["status"] for line in log(world, path)] == ["delivered", "delivered", "pending"]


def test_a_job_that_took_long_leaves_the_rest_to_the_next(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(world, receiver)
    for _ in range(3):
        happens(world)
    ProcrastinateJob.objects.all()._raw_delete("default")
    ticks = iter([0, 4, 10])
    monkeypatch.setattr(delivery, "monotonic", lambda: next(ticks))

    delivery.deliver_due(Webhook.objects.get().pk)

    assert len(receiver.got) == 2
    assert ProcrastinateJob.objects.get().task_name == "tenancy.deliver_webhooks"
    monkeypatch.undo()
    assert delivery.LONGEST_S == 10


def test_a_receiver_that_is_gone_is_disabled(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [410]
    happens(world)
    happens(world)

    run_jobs()
    later(days=1)

    assert len(receiver.got) == 1
    assert [line["status"] for line in log(world, path)] == ["pending", "failed"]
    shown = world.admin.api.get(path).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "The receiver answered 410 Gone.")
    event = AuditEvent.objects.get(action="webhook.disable")
    assert (event.actor_display, event.changes["enabled"]) == ("system:webhooks", [True, False])

    receiver.statuses = [204]
    assert world.admin.api.put(path, {"enabled": True}).json()["disabled_reason"] == ""
    later(days=1)
    assert [line["status"] for line in log(world, path)] == ["delivered", "failed"]


@pytest.mark.parametrize(("days", "enabled"), [(2, True), (3, False)])
def test_a_receiver_that_fails_for_days_is_disabled(world: World, receiver: Receiver, days: int, enabled: bool) -> None:
    subscribe(world, receiver)
    receiver.statuses = [500]
    Webhook.objects.update(failing_since=timezone.now() - timedelta(days=days, minutes=1))
    happens(world)

    run_jobs()
    assert Webhook.objects.get().enabled  # one failure says nothing
    for _ in range(7):
        later(days=1)

    assert Webhook.objects.get().enabled is enabled
    assert AuditEvent.objects.filter(action="webhook.disable").count() == (0 if enabled else 1)


def test_a_redirect_is_not_followed(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    receiver.statuses = [307]
    receiver.headers = {"Location": receiver.url}
    happens(world)

    run_jobs()

    assert len(receiver.got) == 1
    assert [(each["status"], each["error"]) for each in log(world, path)[0]["attempts"]] == [(307, "")]


def test_a_worker_that_dies_after_sending_sends_it_again(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = subscribe(world, receiver)
    happens(world)

    def dies(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(delivery, "_note", dies)
        with pytest.raises(KeyboardInterrupt):
            run_jobs()
    assert log(world, path)[0]["status"] == "pending"
    tasks.wake_webhooks()
    run_jobs()

    assert [message.headers["webhook-id"] for message in receiver.got] == [str(AuditEvent.objects.latest("id").pk)] * 2
    assert [len(line["attempts"]) for line in log(world, path)] == [1]


def test_what_is_deleted_meanwhile_is_let_go(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    happens(world)

    assert world.admin.api.delete(path).status_code == 204

    assert run_jobs() == 1
    assert (receiver.got, WebhookDelivery.objects.count()) == ([], 0)


def test_waking_twice_enqueues_once(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    happens(world)
    ProcrastinateJob.objects.all()._raw_delete("default")

    delivery.wake_due()
    delivery.wake_due()

    job = ProcrastinateJob.objects.get()
    assert (job.task_name, job.queue_name) == (
        "tenancy.deliver_webhooks", queue_of(Lane.WEBHOOKS, world.organization.pk)
    )  # fmt: skip
    assert job.lock == f"webhook:{Webhook.objects.get().pk}"


# -- what people do ------------------------------------------------------------------------------------------------


def test_it_is_delivered_again_on_request(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    event = happens(world)
    run_jobs()

    answer = world.admin.api.post(f"{path}/deliveries/{log(world, path)[0]['id']}/redeliver")
    run_jobs()

    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert [(m.headers["webhook-id"], m.body) for m in receiver.got] == [(str(event.pk), receiver.got[0].body)] * 2
    line = log(world, path)[0]
    assert (line["status"], [each["status"] for each in line["attempts"]]) == ("delivered", [204, 204])
    assert AuditEvent.objects.get(action="webhook.redeliver").changes == {"delivery": line["id"]}


def test_a_disabled_one_is_neither_tried_out_nor_delivered_again(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    happens(world)
    run_jobs()
    world.admin.api.put(path, {"enabled": False})
    before = (AuditEvent.objects.count(), list(WebhookDelivery.objects.values()))

    for act in ("test", f"deliveries/{log(world, path)[0]['id']}/redeliver"):
        refused = world.admin.api.post(f"{path}/{act}")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:webhook.disabled")

    assert (AuditEvent.objects.count(), list(WebhookDelivery.objects.values())) == before
    assert run_jobs() == 0


def test_a_ping_is_sent_whatever_was_asked_for(world: World, receiver: Receiver) -> None:
    path, token = subscribe(world, receiver, "approval.expire")

    answer = world.admin.api.post(f"{path}/test")
    run_jobs()

    assert (answer.status_code, answer.json()["type"]) == (202, "ping")
    said = json.loads(receiver.got[0].body)
    assert (said["type"], said["resource"]["url"], said["environment_id"]) == ("ping", path, None)
    assert is_signed(receiver.got[0], token)


def test_the_log_is_filtered_by_the_type_that_is_told(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    world.admin.api.post(f"{path}/test")
    happens(world)

    queries = ("?type=ping", "?type=deployment.create", "?type=approval.approve", "")
    found = [world.admin.api.get(f"{path}/deliveries{query}").json()["results"] for query in queries]

    assert [[line["type"] for line in lines] for lines in found] == [
        ["ping"],
        ["deployment.create"],
        [],
        ["deployment.create", "ping"],
    ]


def test_a_rotated_secret_signs_beside_the_old_for_a_day(world: World, receiver: Receiver) -> None:
    path, old = subscribe(world, receiver)

    rotated = world.admin.api.post(f"{path}/rotate-secret")
    new = rotated.json()["token"]
    happens(world)
    run_jobs()
    Webhook.objects.update(previous_secret_until=timezone.now())
    happens(world)
    run_jobs()

    assert rotated.status_code == 201
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", new)
    assert [[is_signed(message, each) for each in (new, old)] for message in receiver.got] == [
        [True, True],
        [True, False],
    ]
    assert receiver.got[1].headers["webhook-signature"].count("v1,") == 1


def test_its_secret_is_shown_once(world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    path, token = subscribe(world, receiver)
    receiver.statuses = [500]
    rotated = world.admin.api.post(f"{path}/rotate-secret").json()["token"]
    happens(world)
    run_jobs()

    answers = [world.admin.api.get(p).text for p in (path, org(world), f"{path}/deliveries")]
    answers.append(world.admin.api.put(path, {"description": "x"}).text)
    stored = [*AuditEvent.objects.values(), *WebhookDelivery.objects.values(), *Webhook.objects.values()]
    everything = "\n".join([*answers, str(stored), caplog.text, receiver.got[0].body.decode()])
    for secret in (token, rotated):
        raw = base64.b64decode(secret.removeprefix("whsec_"))
        assert secret.removeprefix("whsec_") not in everything
        assert str(raw) not in everything


def test_another_master_key_is_said_so(world: World, receiver: Receiver, settings: Any) -> None:
    path, _ = subscribe(world, receiver)
    happens(world)
    settings.CONFIG = replace(settings.CONFIG, master_key=b"x" * 32)

    run_jobs()

    assert [each["error"] for each in log(world, path)[0]["attempts"]] == ["master_key"]
    assert receiver.got == []


@pytest.mark.parametrize("field", ["project_id", "environment_id"])
def test_a_place_of_another_tenant_is_unknown(world: World, other: World, receiver: Receiver, field: str) -> None:
    foreign = {"project_id": str(other.project.pk), "environment_id": str(other.prod.pk)}[field]

    refused = world.admin.api.post(org(world), {"url": receiver.url, "events": ["*"], field: foreign})

    assert refused.status_code == 400
    assert [(e["pointer"], e["code"]) for e in refused.json()["errors"]] == [(f"/{field}", "does_not_exist")]
    assert Webhook.objects.count() == 0


def test_a_place_is_changed_and_taken_off(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver, project_id=str(world.project.pk))

    assert world.admin.api.put(path, {"environment_id": str(world.dev.pk)}).status_code == 200
    narrowed = world.admin.api.put(path, {"project_id": None}).json()

    assert (narrowed["project_id"], narrowed["environment_id"]) == (None, str(world.dev.pk))
    changes = AuditEvent.objects.filter(action="webhook.update").order_by("id").values_list("changes", flat=True)
    assert list(changes) == [
        {"environment_id": [None, str(world.dev.pk)]},
        {"project_id": [str(world.project.pk), None]},
    ]


def test_there_are_not_too_many(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MOST", 1)
    subscribe(world, receiver)

    refused = world.admin.api.post(org(world), {"url": receiver.url, "events": ["*"]})

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:webhook.too_many")
    assert Webhook.objects.count() == 1


@pytest.mark.parametrize("events", [[], ["deployment"], ["deployment.explode"], ["agent.*"], "*"])
def test_an_unknown_event_is_refused(world: World, events: Any) -> None:
    refused = world.admin.api.post(org(world), {"url": "https://hooks.example.com", "events": events})

    assert refused.status_code == 400
    assert all(error["pointer"].startswith("/events") for error in refused.json()["errors"])
    assert Webhook.objects.count() == 0


def test_the_log_is_kept_for_a_month(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    young, old = happens(world), happens(world)
    WebhookDelivery.objects.filter(event=old).update(created_at=timezone.now() - timedelta(days=30, minutes=1))
    WebhookDelivery.objects.filter(event=young).update(created_at=timezone.now() - timedelta(days=29))

    tasks.forget_deliveries()

    assert WebhookDelivery.objects.get().event == young
