"""Steps for tests of chat webhooks: create one, record events, let time pass, and read the messages."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.db.models import F

from apps.notifications import tasks
from apps.notifications.models import ChatDelivery
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent
from apps.tenancy.services import message_events
from tests.tenancy.receiver import Receiver
from tests.worlds import Person, World, run_jobs


def org(world: World, rest: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/chat-webhooks{rest}"


def body(url: str, *events: str, **options: Any) -> dict[str, Any]:
    return {"name": "ops", "format": "slack", "url": url, "events": list(events) or ["*"], **options}


def add(world: World, chat: Receiver, *events: str, by: Person | None = None, **options: Any) -> str:
    """Create a chat webhook through the API and return its path."""
    made = (by or world.admin).api.post(org(world), body(chat.url, *events, **options))
    assert made.status_code == 201, made.json()
    return org(world, f"/{made.json()['id']}")


def happen(deployment: Any, count: int = 1, type: MessageType = MessageType.ROLLOUT_STOPPED) -> None:
    """Record events about a deployment. Each has a different subject, so that they are not grouped."""
    for _ in range(count):
        message_events.record(
            type, scope=deployment.environment, resource=("deployment", deployment.pk),
            subject=str(MessageEvent.objects.count()),
        )  # fmt: skip


def work() -> None:
    """Handle the new events and send the due messages, as the worker does."""
    for _ in range(2):  # the first round creates deliveries for new events, the second sends them
        tasks.wake()
        run_jobs()


def let_time_pass(**by: Any) -> None:
    """Make deliveries due earlier by this duration, and let the worker send the due messages."""
    ChatDelivery.objects.update(next_attempt_at=F("next_attempt_at") - timedelta(**by))
    work()


def texts(chat: Receiver) -> list[str]:
    """Return the texts of the messages that have arrived."""
    return [json.loads(message.body)["text"] for message in chat.messages]


def delivery_log(world: World, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.admin.api.get(f"{path}/deliveries").json()["results"]
    return found
