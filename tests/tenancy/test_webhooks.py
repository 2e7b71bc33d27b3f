"""The webhook API: projects and environments, secrets, the delivery log, pings and repeated deliveries."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.tenancy import tasks
from apps.tenancy.models import AuditEvent, Webhook, WebhookDelivery
from apps.tenancy.services.vault import MasterKeyUnavailable
from apps.tenancy.services.webhooks import delivery, subscriptions
from byteor_cloud.worker import jobs
from tests.tenancy.receiver import Receiver
from tests.tenancy.webhook_steps import delivery_log, is_signed, org, record_event, subscribe
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db


def test_delivery_is_repeated_on_request(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    event = record_event(world)
    run_jobs()

    response = world.admin.api.post(f"{path}/deliveries/{delivery_log(world, path)[0]['id']}/redeliver")
    run_jobs()

    assert (response.status_code, response.json()["status"]) == (202, "pending")
    assert [(m.headers["webhook-id"], m.body) for m in receiver.messages] == [
        (str(event.pk), receiver.messages[0].body)
    ] * 2
    line = delivery_log(world, path)[0]
    assert (line["status"], [each["status"] for each in line["attempts"]]) == ("delivered", [204, 204])
    assert AuditEvent.objects.get(action="webhook.redeliver").changes == {"delivery": line["id"]}


@pytest.mark.parametrize("act", ["create", "rotate-secret"])
def test_etag_of_response_with_secret_permits_update(world: World, act: str) -> None:
    hooks = f"/api/v1/orgs/{world.organization.pk}/webhooks"
    made = world.admin.api.post(hooks, {"url": "https://hooks.example.com/", "events": ["*"]})
    path = f"{hooks}/{made.json()['id']}"
    answer = made if act == "create" else world.admin.api.post(f"{path}/{act}")

    assert world.admin.api.get(path, If_None_Match=answer["ETag"]).status_code == 304
    assert world.admin.api.put(path, {"description": "x"}, If_Match=answer["ETag"]).status_code == 200


def test_disabled_webhook_gets_no_pings_or_repeated_deliveries(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    record_event(world)
    run_jobs()
    world.admin.api.put(path, {"enabled": False})
    before = (AuditEvent.objects.count(), list(WebhookDelivery.objects.values()))

    for act in ("test", f"deliveries/{delivery_log(world, path)[0]['id']}/redeliver"):
        refused = world.admin.api.post(f"{path}/{act}")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:webhook.disabled")

    assert (AuditEvent.objects.count(), list(WebhookDelivery.objects.values())) == before
    assert run_jobs() == 0


def test_ping_is_sent_regardless_of_subscribed_events(world: World, receiver: Receiver) -> None:
    path, token = subscribe(world, receiver, "approval.expire")

    response = world.admin.api.post(f"{path}/test")
    run_jobs()

    assert (response.status_code, response.json()["type"]) == (202, "ping")
    body = json.loads(receiver.messages[0].body)
    assert (body["type"], body["resource"]["url"], body["environment_id"]) == ("ping", path, None)
    assert is_signed(receiver.messages[0], token)


def test_delivery_log_can_be_filtered_by_event_type(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    world.admin.api.post(f"{path}/test")
    record_event(world)

    queries = ("?type=ping", "?type=deployment.create", "?type=approval.approve", "")
    found = [world.admin.api.get(f"{path}/deliveries{query}").json()["results"] for query in queries]

    assert [[line["type"] for line in lines] for lines in found] == [
        ["ping"],
        ["deployment.create"],
        [],
        ["deployment.create", "ping"],
    ]


def test_both_secrets_sign_until_previous_secret_expires(world: World, receiver: Receiver) -> None:
    path, old = subscribe(world, receiver)

    rotated = world.admin.api.post(f"{path}/rotate-secret")
    new = rotated.json()["token"]
    record_event(world)
    run_jobs()
    Webhook.objects.update(previous_secret_until=timezone.now())
    record_event(world)
    run_jobs()

    assert rotated.status_code == 201
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", new)
    assert [[is_signed(message, each) for each in (new, old)] for message in receiver.messages] == [
        [True, True],
        [True, False],
    ]
    assert receiver.messages[1].headers["webhook-signature"].count("v1,") == 1


def test_webhook_secret_is_absent_from_later_responses_stored_rows_logs_and_messages(
    world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path, token = subscribe(world, receiver)
    receiver.statuses = [500]
    rotated = world.admin.api.post(f"{path}/rotate-secret").json()["token"]
    record_event(world)
    run_jobs()

    responses = [world.admin.api.get(p).text for p in (path, org(world), f"{path}/deliveries")]
    responses.append(world.admin.api.put(path, {"description": "x"}).text)
    stored = [*AuditEvent.objects.values(), *WebhookDelivery.objects.values(), *Webhook.objects.values()]
    everything = "\n".join([*responses, str(stored), caplog.text, receiver.messages[0].body.decode()])
    for secret in (token, rotated):
        raw = base64.b64decode(secret.removeprefix("whsec_"))
        assert secret.removeprefix("whsec_") not in everything
        assert str(raw) not in everything


def test_undecryptable_secret_makes_attempt_fail_with_master_key_error(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver)
    record_event(world)
    Webhook.objects.update(secret=b"encrypted under a third key")

    run_jobs()

    assert [each["error"] for each in delivery_log(world, path)[0]["attempts"]] == ["master_key"]
    assert receiver.messages == []


def test_host_with_wrong_master_key_leaves_delivery_to_other_hosts(
    world: World, receiver: Receiver, settings: Any
) -> None:
    path, _ = subscribe(world, receiver)
    record_event(world)
    right = settings.CONFIG
    settings.CONFIG = replace(right, master_key=b"x" * 32)
    hook = Webhook.objects.get()

    with pytest.raises(MasterKeyUnavailable) as refused:
        delivery.deliver_due(hook.pk)

    assert jobs.is_outage(refused.value)
    assert delivery_log(world, path)[0]["attempts"] == []
    settings.CONFIG = right
    run_jobs()
    assert len(receiver.messages) == 1


@pytest.mark.parametrize("field", ["project_id", "environment_id"])
def test_webhook_for_project_or_environment_of_another_organization_is_rejected(
    world: World, other: World, receiver: Receiver, field: str
) -> None:
    foreign = {"project_id": str(other.project.pk), "environment_id": str(other.prod.pk)}[field]

    refused = world.admin.api.post(org(world), {"url": receiver.url, "events": ["*"], field: foreign})

    assert refused.status_code == 400
    assert [(e["pointer"], e["code"]) for e in refused.json()["errors"]] == [(f"/{field}", "does_not_exist")]
    assert Webhook.objects.count() == 0


def test_webhook_of_project_can_be_changed_to_webhook_of_environment(world: World, receiver: Receiver) -> None:
    path, _ = subscribe(world, receiver, project_id=str(world.project.pk))

    assert world.admin.api.put(path, {"environment_id": str(world.dev.pk)}).status_code == 200
    narrowed = world.admin.api.put(path, {"project_id": None}).json()

    assert (narrowed["project_id"], narrowed["environment_id"]) == (None, str(world.dev.pk))
    changes = AuditEvent.objects.filter(action="webhook.update").order_by("id").values_list("changes", flat=True)
    assert list(changes) == [
        {"environment_id": [None, str(world.dev.pk)]},
        {"project_id": [str(world.project.pk), None]},
    ]


def test_number_of_webhooks_is_limited(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MAX_WEBHOOKS", 1)
    subscribe(world, receiver)

    refused = world.admin.api.post(org(world), {"url": receiver.url, "events": ["*"]})

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:byteor:problem:webhook.too_many")
    assert Webhook.objects.count() == 1


@pytest.mark.parametrize("events", [[], ["deployment"], ["deployment.explode"], ["agent.*"], "*"])
def test_invalid_event_types_are_rejected(world: World, events: Any) -> None:
    refused = world.admin.api.post(org(world), {"url": "https://hooks.example.com", "events": events})

    assert refused.status_code == 400
    assert all(error["pointer"].startswith("/events") for error in refused.json()["errors"])
    assert Webhook.objects.count() == 0


def test_deliveries_are_kept_for_30_days(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    young, old = record_event(world), record_event(world)
    WebhookDelivery.objects.filter(event=old).update(created_at=timezone.now() - timedelta(days=30, minutes=1))
    WebhookDelivery.objects.filter(event=young).update(created_at=timezone.now() - timedelta(days=29))

    tasks.delete_old_deliveries()

    assert WebhookDelivery.objects.get().event == young
