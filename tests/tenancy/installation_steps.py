"""What tests of the installation do: join members, sign in, make tokens, read its events."""

from __future__ import annotations

from typing import Any

from django.test import Client

from apps.tenancy.actors import system
from apps.tenancy.models import AuditEvent, User
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, members
from tests.worlds import Person, World

FROM: list[Any] = []  # what the fixture ``since`` notes: the last event before the test


def add(world: World, email: str) -> User:
    """Give the person of the address a role in another organization."""
    return members.add(
        organization=world.organization, project=None, email=email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    ).user  # fmt: skip


def told(action: str) -> list[AuditEvent]:
    """The events of that action since the fixture ``since``, the installation's first."""
    return sorted(
        AuditEvent.objects.filter(action=action, pk__gt=FROM[-1]), key=lambda e: e.organization_id is not None
    )


def sign_in(user: User) -> Client:
    """Sign in by a one-time link, from an address of one's own."""
    client = Client(REMOTE_ADDR="192.0.2.7")
    link = accounts.create_sign_in_link(user=user, actor=system("test"))
    assert client.post(f"/auth/link/{link}").status_code == 302
    return client


def make_token(person: Person) -> dict[str, Any]:
    answer = person.api.post("/api/v1/tokens", {"name": "my laptop"})
    assert answer.status_code == 201
    body: dict[str, Any] = answer.json()
    return body


def listed(world: World, action: str) -> list[dict[str, Any]]:
    path = f"/api/v1/orgs/{world.organization.pk}/audit-events?action={action}"
    results: list[dict[str, Any]] = world.admin.api.get(path).json()["results"]
    return results


def own_events() -> int:
    return AuditEvent.objects.filter(organization=None).count()
