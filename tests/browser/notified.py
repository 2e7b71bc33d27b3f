"""Notifications for tests of the bell."""

from __future__ import annotations

from typing import Any

from apps.notifications.models import Notification
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import Environment, MessageEvent
from tests.browser.filled import table
from tests.worlds import Person


def notify(
    person: Person, environment: Environment, text: str = "The rollout of quotes v1 to prod finished.", path: str = ""
) -> Notification:
    """Create an unread notification of an event in the environment. By default, it links to the environment's page."""
    project = environment.project
    event = MessageEvent.objects.create(
        organization=project.organization, project=project, environment=environment, text=text,
        type=MessageType.ROLLOUT_FINISHED, resource_kind="deployment", resource_id="1", outcome=EventOutcome.NOTIFIED,
        path=path or f"{table(Environment)}{environment.pk}/change/",
    )  # fmt: skip
    return Notification.objects.create(user=person.user, event=event)


def counts(client: Any) -> dict[str, int]:
    """Return the numbers of unread notifications and waiting approvals that the console's pages fetch."""
    response = client.get("/admin/notifications/counts/")
    assert response.status_code == 200
    found: dict[str, int] = response.json()
    return found
