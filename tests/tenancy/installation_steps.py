"""Steps of tests about the installation's chain: add members, sign in, create tokens, read events."""

from __future__ import annotations

from typing import Any

from django.test import Client

from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, User
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, members
from tests.worlds import Person, World

LAST_EVENTS_BEFORE: list[Any] = []  # event ids; ``recorded`` ignores events up to the last one


def add_member(world: World, email: str) -> User:
    """Make the person with this address a viewer of ``world``'s organization."""
    return members.add(
        organization=world.organization, project=None, email=email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    ).membership.user  # fmt: skip


def recorded(action: str) -> list[AuditEvent]:
    """Return the events with this action, except ignored ones, the installation's own events first."""
    return sorted(
        AuditEvent.objects.filter(action=action, pk__gt=LAST_EVENTS_BEFORE[-1]),
        key=lambda e: e.organization_id is not None,
    )


def sign_in(user: User) -> Client:
    """Sign in with a one-time link, from an IP address that no other step uses."""
    client = Client(REMOTE_ADDR="192.0.2.7")
    link = accounts.create_sign_in_link(user=user, actor=system_actor("test"))
    assert client.post(f"/auth/link/{link}").status_code == 302
    return client


def make_token(person: Person) -> dict[str, Any]:
    response = person.api.post("/api/v1/tokens", {"name": "my laptop"})
    assert response.status_code == 201
    body: dict[str, Any] = response.json()
    return body


def list_events(world: World, action: str) -> list[dict[str, Any]]:
    path = f"/api/v1/orgs/{world.organization.pk}/audit-events?action={action}"
    results: list[dict[str, Any]] = world.admin.api.get(path).json()["results"]
    return results


def count_installation_events() -> int:
    return AuditEvent.objects.filter(organization=None).count()
