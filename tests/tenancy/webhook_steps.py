"""Steps of tests about webhooks: subscribe, record an event, let time pass, check the received messages."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

from django.db.models import F

from apps.tenancy import tasks
from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, WebhookDelivery
from apps.tenancy.services import audit
from tests.tenancy.receiver import Message, Receiver
from tests.worlds import World, run_jobs

LOOPBACK = (ip_network("127.0.0.0/8"),)
WORKER = system_actor("test")


def org(world: World, rest: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/webhooks{rest}"


def subscribe(world: World, receiver: Receiver, *events: str, **options: Any) -> tuple[str, str]:
    """Create a webhook through the API and return its path and secret."""
    body = {"url": receiver.url, "events": list(events) or ["*"], **options}
    made = world.admin.api.post(org(world), body)
    assert made.status_code == 201
    return org(world, f"/{made.json()['id']}"), made.json()["token"]


def record_event(world: World, action: str = "deployment.create", scope: Any = None) -> AuditEvent:
    """Record an audit event as services do."""
    kind = action.partition(".")[0]
    place = scope or world.prod
    return audit.record(action, actor=WORKER, scope=place, resource=(kind, place.pk), changes={"n": [0, 1]})


def delivery_log(world: World, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.admin.api.get(f"{path}/deliveries").json()["results"]
    return found


def let_time_pass(**by: Any) -> None:
    """Make deliveries due earlier by this duration, and let the worker send the due deliveries."""
    WebhookDelivery.objects.update(next_attempt_at=F("next_attempt_at") - timedelta(**by))
    tasks.wake_webhooks()
    run_jobs()


def is_signed(message: Message, token: str) -> bool:
    """Return whether the message is signed with this secret, as a receiver would check it."""
    key = base64.b64decode(token.removeprefix("whsec_"))
    signed = b".".join(
        [message.headers["webhook-id"].encode(), message.headers["webhook-timestamp"].encode(), message.body]
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in message.headers["webhook-signature"].split(" ")
