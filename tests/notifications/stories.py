"""Steps that tests of messages share."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from apps.notifications.models import Notification
from apps.notifications.services import handling
from apps.releases.models import ConfigBundle, Deployment
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent, User
from apps.tenancy.permissions import Role
from tests.worlds import ALL, Person, World


def claim_all() -> None:
    """Make every account one to which somebody has signed in, because nobody else gets messages.

    Delete the events about the invitations of these people, which other tests do not expect.
    """
    MessageEvent.objects.filter(type=MessageType.INVITATION).delete()
    User.objects.filter(last_login=None).update(last_login=timezone.now())


def member(world: World, role: Role, name: str) -> Person:
    """Add a member who has signed in."""
    person = world.person(role, name)
    claim_all()
    return person


def ask(world: World, bundle: ConfigBundle, **body: Any) -> Deployment:
    """Let the operator request a deployment to all agents."""
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, **body}
    response = world.operator.api.post(world.path(bundle.environment, "/deployments"), body)
    assert response.status_code == 201, response.json()
    return Deployment.objects.get(pk=response.json()["id"])


def handle(world: World) -> None:
    """Handle the organization's new events, as the worker does."""
    handling.handle_pending(world.organization.pk)


def told(person: Person) -> list[str]:
    """Return the types of the events that the person was notified about, oldest first."""
    return [
        row.event.type for row in Notification.objects.filter(user=person.user).select_related("event").order_by("pk")
    ]
