"""The command ``installation_operator``, and the events, seals and keys that operators see."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from apps.tenancy.models import AuditEvent, OrganizationKey, SigningKey, User
from apps.tenancy.services import ledger, signing_keys
from tests.tenancy.installation_steps import make_token, sign_in
from tests.tenancy.ledger_steps import run
from tests.worlds import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ignoring_earlier_events")]


def operators() -> list[str]:
    return list(User.objects.filter(is_superuser=True).values_list("email", flat=True))


def test_installation_operator_role_is_granted_and_revoked(world: World) -> None:
    email = "viewer@acme.example"
    client = sign_in(world.viewer.user)
    assert client.get("/admin/tenancy/ratecounter/").status_code == 403

    assert run("installation_operator", "grant", "--email", "Viewer@acme.example") == (
        0, [f"{email} is now an installation operator"],
    )  # fmt: skip

    assert operators() == [email]
    assert run("installation_operator", "list")[1] == [f"{email} {world.viewer.user.pk}"]
    assert client.get("/admin/tenancy/ratecounter/").status_code == 200
    assert run("installation_operator", "revoke", "--email", email)[1] == [
        f"{email} is no longer an installation operator"
    ]
    assert operators() == []
    assert client.get("/admin/tenancy/ratecounter/").status_code == 403
    events = AuditEvent.objects.filter(action__startswith="installation_operator.").order_by("id")
    assert [(e.action, e.organization_id, e.actor_display, e.resource_id, e.changes) for e in events] == [
        (
            f"installation_operator.{act}",
            None,
            "system:installation_operator",
            str(world.viewer.user.pk),
            {"email": email},
        )
        for act in ("grant", "revoke")
    ]


def test_grant_or_revocation_without_effect_is_reported(world: World) -> None:
    email = "viewer@acme.example"
    assert run("installation_operator", "revoke", "--email", email) == (0, [f"{email} is not an installation operator"])
    run("installation_operator", "grant", "--email", email)
    events = AuditEvent.objects.count()

    assert run("installation_operator", "grant", "--email", email) == (
        0,
        [f"{email} is already an installation operator"],
    )

    assert AuditEvent.objects.count() == events


def test_unknown_or_inactive_person_cannot_become_operator(world: World) -> None:
    User.objects.filter(pk=world.viewer.user.pk).update(is_active=False)
    events, people = AuditEvent.objects.count(), User.objects.count()

    assert run("installation_operator", "grant", "--email", "nobody@x.example") == (
        1,
        ["there is no account with the verified address nobody@x.example: invite the person first, or run bootstrap"],
    )  # fmt: skip
    assert run("installation_operator", "grant", "--email", "viewer@acme.example") == (
        1, ["The account of viewer@acme.example is not active."],
    )  # fmt: skip

    assert (AuditEvent.objects.count(), User.objects.count(), operators()) == (events, people, [])


def test_installation_operator_role_of_inactive_account_can_be_revoked(world: World) -> None:
    User.objects.filter(pk=world.viewer.user.pk).update(is_active=False, is_superuser=True)

    assert run("installation_operator", "revoke", "--email", "viewer@acme.example")[0] == 0

    assert operators() == []


def test_account_with_unverified_address_is_not_found(world: World) -> None:
    """Somebody with an unverified address might not own the address."""
    User.objects.create(email="root@acme.example", email_verified=False)

    assert run("installation_operator", "grant", "--email", "root@acme.example")[0] == 1

    assert operators() == []


def test_operators_see_events_seals_and_keys_without_organization(world: World, other: World) -> None:
    make_token(other.viewer)
    run("installation_operator", "grant", "--email", "viewer@acme.example")
    client, admins = sign_in(world.viewer.user), sign_in(world.admin.user)

    def seen(who: Client, query: str) -> list[Any]:
        page = who.get(f"/admin/tenancy/auditevent/{query}")
        assert page.status_code == 200
        return [event.organization_id for event in page.context["cl"].result_list]

    both = seen(client, "?q=token.create")
    assert {None, other.organization.pk, world.organization.pk} <= set(both)
    assert set(seen(client, "?organization__isnull=True")) == {None}
    assert set(seen(admins, "?q=token.create")) == {world.organization.pk}
    own = AuditEvent.objects.filter(organization=None).latest("id")
    assert client.get(f"/admin/tenancy/auditevent/{own.pk}/change/").status_code == 200
    assert admins.get(f"/admin/tenancy/auditevent/{own.pk}/change/").status_code == 404
    signing_keys.ensure_installation_key()
    ledger.seal_all()
    for table in ("auditseal", "signingkey"):
        assert client.get(f"/admin/tenancy/{table}/?organization__isnull=True").context["cl"].result_count > 0
    key = SigningKey.objects.get(organization=None)
    assert client.get(f"/admin/tenancy/signingkey/{key.pk}/change/").status_code == 200
    assert not OrganizationKey.objects.exists()
