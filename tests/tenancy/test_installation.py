"""The installation's own audit chain: full events about people's accounts, with copies for their organizations."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from apps.tenancy import tasks
from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, AuditSeal, Membership, SigningKey, User, UserToken
from apps.tenancy.permissions import Role
from apps.tenancy.services import accounts, audit, ledger, organizations, signing_keys, tokens
from apps.tenancy.services.ledger import Verification
from byteor.engine.hash_chain import LedgerCode
from tests.races import Race
from tests.tenancy.installation_steps import (
    LAST_EVENTS_BEFORE,
    add_member,
    count_installation_events,
    list_events,
    make_token,
    recorded,
    sign_in,
)
from tests.tenancy.ledger_steps import run, without_triggers
from tests.worlds import Api, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ignoring_earlier_events")]


# -- events and their copies ------------------------------------------------------------------------------------------


def test_token_events_are_recorded_in_full_and_copied_to_organization(world: World) -> None:
    made = make_token(world.viewer)
    world.viewer.api.delete(f"/api/v1/tokens/{made['id']}")

    own, copy = recorded("token.create")
    assert (own.organization_id, own.ip, own.changes) == (
        None, "127.0.0.1", {"prefix": made["prefix"], "name": [None, "my laptop"]},
    )  # fmt: skip
    assert (copy.organization, copy.ip, copy.changes) == (world.organization, None, {"prefix": made["prefix"]})
    same = ("actor_kind", "actor_id", "actor_display", "resource_kind", "resource_id", "outcome", "request_id")
    assert [getattr(own, name) for name in same] == [getattr(copy, name) for name in same]
    assert [event.organization_id for event in recorded("token.revoke")] == [None, world.organization.pk]
    assert [event.ip for event in recorded("token.revoke")] == ["127.0.0.1", None]


def test_sign_in_and_sign_out_are_recorded(world: World) -> None:
    sign_in(world.viewer.user).post("/admin/logout/")

    for action in ("session.sign_in", "session.sign_out"):
        own, copy = recorded(action)
        assert (own.organization_id, own.ip) == (None, "192.0.2.7")
        assert (copy.organization, copy.ip, copy.changes) == (world.organization, None, own.changes)


def test_organizations_see_only_events_of_their_own_members(world: World, other: World) -> None:
    """The person first belongs to two organizations, then to only one of them."""
    add_member(other, "viewer@acme.example")
    make_token(world.viewer)
    make_token(world.operator)

    assert [event["actor"]["display"] for event in list_events(other, "token.create")][:1] == ["viewer@acme.example"]
    ours = {event["actor"]["display"] for event in list_events(world, "token.create")}
    assert {"viewer@acme.example", "operator@acme.example"} <= ours
    assert "operator@acme.example" not in str(list_events(other, "token.create"))
    seen = list_events(other, "token.create")[0]
    assert (seen["ip"], "my laptop" in str(seen)) == (None, False)
    assert seen["resource_scope"]["organization_id"] == str(other.organization.pk)

    Membership.objects.filter(user=world.viewer.user, organization=other.organization).delete()
    LAST_EVENTS_BEFORE.append(AuditEvent.objects.latest("id").pk)
    make_token(world.viewer)
    assert [event.organization_id for event in recorded("token.create")] == [None, world.organization.pk]


def test_event_of_person_with_two_roles_is_copied_to_organization_once(world: World) -> None:
    Membership.objects.create(
        user=world.viewer.user, organization=world.organization, project=world.project, role=Role.OPERATOR
    )

    make_token(world.viewer)

    assert [event.organization_id for event in recorded("token.create")] == [None, world.organization.pk]


def test_event_is_not_copied_to_organization_for_role_in_deleted_project(world: World) -> None:
    Membership.objects.filter(user=world.viewer.user).update(project=world.project)
    organizations.delete(world.project, kind="project", actor=world.admin.actor)

    make_token(world.viewer)

    assert [event.organization_id for event in recorded("token.create")] == [None]


def test_event_of_unclaimed_account_is_not_copied_to_organization(world: World, other: World) -> None:
    """Until somebody claims the account, the organization does not see the account's events."""
    invited = add_member(world, "new@acme.example")
    LAST_EVENTS_BEFORE.append(AuditEvent.objects.latest("id").pk)

    call_command("sign_in_link", email="new@acme.example", stdout=StringIO())
    assert [event.organization_id for event in recorded("sign_in_link.create")] == [None]

    sign_in(invited)
    assert [event.organization_id for event in recorded("session.sign_in")] == [None, world.organization.pk]
    LAST_EVENTS_BEFORE.append(AuditEvent.objects.latest("id").pk)
    call_command("sign_in_link", email="new@acme.example", stdout=StringIO())
    assert [event.organization_id for event in recorded("sign_in_link.create")] == [None, world.organization.pk]


@pytest.mark.parametrize("how", ["token used", "signed in", "identity bound"])
def test_account_is_claimed_by_sign_in_or_token_use_or_bound_identity(world: World, how: str) -> None:
    invited = add_member(world, "new@acme.example")
    if how == "token used":
        _, text = tokens.create_user_token(user=invited, name="x", actor=system_actor("test"))
        assert Api(text).get("/api/v1/me").status_code == 200
    elif how == "signed in":
        sign_in(invited)
    else:
        invited.social_auth.create(provider="oidc", uid="https://id.example#1")
    LAST_EVENTS_BEFORE.append(AuditEvent.objects.latest("id").pk)

    accounts.create_sign_in_link(user=User.objects.get(pk=invited.pk), actor=system_actor("test"))

    assert [e.organization_id for e in recorded("sign_in_link.create")] == [None, world.organization.pk]


def test_sign_in_without_organization_is_recorded_only_in_installation_chain() -> None:
    loner = accounts.get_or_create_account("loner@nowhere.example")

    sign_in(loner)

    assert [event.organization_id for event in recorded("session.sign_in")] == [None]


def test_failed_copy_of_event_to_organization_rolls_back_event_and_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise IntegrityError("no room")

    count = UserToken.objects.count()
    monkeypatch.setattr(audit, "_joined_organizations", broken)

    with pytest.raises(IntegrityError), transaction.atomic():
        tokens.create_user_token(user=world.viewer.user, name="x", actor=world.viewer.actor)

    assert (UserToken.objects.count(), recorded("token.create")) == (count, [])


def test_worker_seals_installation_chain(world: World) -> None:
    make_token(world.viewer)

    tasks.seal_audit()

    seals = AuditSeal.objects.filter(organization=None)
    assert seals.count() == count_installation_events() > 0
    assert sorted(seals.values_list("seq", flat=True)) == list(range(1, count_installation_events() + 1))
    assert list(Verification(None).faults()) == list(Verification(world.organization.pk).faults()) == []
    assert not AuditEvent.objects.filter(seal=None).exists()


def test_installation_events_left_unsealed_by_older_release_are_sealed_in_order(world: World, other: World) -> None:
    """The organizations' chains are sealed, but the installation's chain has no seals yet."""
    for one in (world, other):
        ledger.seal_chain(one.organization.pk)
    make_token(world.viewer)

    ledger.seal_all()

    sealed = AuditSeal.objects.filter(organization=None).order_by("seq").values_list("event_id", flat=True)
    assert list(sealed) == list(
        AuditEvent.objects.filter(organization=None).order_by("id").values_list("id", flat=True)
    )


@pytest.mark.django_db(transaction=True)
def test_concurrent_workers_seal_installation_chain_once(concurrently: Race) -> None:
    World("third")
    total = count_installation_events()

    sealed = concurrently(*[lambda: ledger.seal_chain(None)] * 4)

    assert sorted(sealed) == [0, 0, 0, total]
    assert list(Verification(None).faults()) == []


@pytest.mark.django_db(transaction=True)
def test_concurrent_calls_create_one_installation_signing_key(concurrently: Race) -> None:
    concurrently(*[signing_keys.ensure_installation_key] * 4)

    assert SigningKey.objects.filter(organization=None, status="active").count() == 1
    assert AuditEvent.objects.filter(organization=None, action="signing_key.create").count() == 1


@pytest.mark.parametrize("status", ["active", "next"])
def test_database_permits_one_active_and_one_next_installation_key(status: str) -> None:
    made = [SigningKey(kid=f"k{n}", public_key=b"x", private_key=b"x", status=status) for n in range(2)]
    made[0].save()

    with pytest.raises(IntegrityError), transaction.atomic():
        made[1].save()


def test_database_permits_one_event_per_sequence_number(world: World) -> None:
    first, second = AuditEvent.objects.filter(organization=None)[:2]
    AuditSeal.objects.create(seq=1, event=first, prev_hash="x", hash="x")

    with pytest.raises(IntegrityError), transaction.atomic():
        AuditSeal.objects.create(seq=1, event=second, prev_hash="x", hash="x")


def test_altered_event_of_installation_is_found(world: World) -> None:
    ledger.seal_all()
    event = AuditSeal.objects.get(organization=None, seq=2).event
    with without_triggers():
        AuditEvent.objects.filter(pk=event.pk).update(ip="192.0.2.99")

    code, output = run("verify_ledger")

    assert code == 1
    assert (
        f"the installation: seq 2, event {event.pk}: ledger.altered:"
        " the event, its sequence number or its link was altered" in output
    )
    assert run("verify_ledger", "--installation")[0] == 1
    assert run("verify_ledger", "--org", "acme")[0] == 0
    assert [fault.code for fault in Verification(None).faults()] == [LedgerCode.ALTERED]
