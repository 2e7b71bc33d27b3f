"""The installation's own chain: who signs in and by what, in full there, and a copy for those whom it concerns."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction

from apps.tenancy import audit, tasks
from apps.tenancy.actors import system
from apps.tenancy.ledger import Verification
from apps.tenancy.models import AuditEvent, AuditSeal, Membership, SigningKey, User, UserToken
from apps.tenancy.permissions import Role
from apps.tenancy.services import accounts, organizations, signing_keys, tokens
from byteor_cloud.engine.ledger import LedgerCode
from tests.races import Race
from tests.tenancy.installation_steps import FROM, add, listed, make_token, own_events, sign_in, told
from tests.tenancy.ledger_steps import run, unguarded
from tests.worlds import Api, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("since")]


# -- what is written where --------------------------------------------------------------------------------------------


def test_what_becomes_of_a_token_is_told_to_the_installation_in_full_and_to_the_organization(world: World) -> None:
    made = make_token(world.viewer)
    world.viewer.api.delete(f"/api/v1/tokens/{made['id']}")

    own, copy = told("token.create")
    assert (own.organization_id, own.ip, own.changes) == (
        None, "127.0.0.1", {"prefix": made["prefix"], "name": [None, "my laptop"]},
    )  # fmt: skip
    assert (copy.organization, copy.ip, copy.changes) == (world.organization, None, {"prefix": made["prefix"]})
    same = ("actor_kind", "actor_id", "actor_display", "resource_kind", "resource_id", "outcome", "request_id")
    assert [getattr(own, name) for name in same] == [getattr(copy, name) for name in same]
    assert [event.organization_id for event in told("token.revoke")] == [None, world.organization.pk]
    assert [event.ip for event in told("token.revoke")] == ["127.0.0.1", None]


def test_a_sign_in_and_a_sign_out_by_the_console(world: World) -> None:
    sign_in(world.viewer.user).post("/admin/logout/")

    for action in ("session.sign_in", "session.sign_out"):
        own, copy = told(action)
        assert (own.organization_id, own.ip) == (None, "192.0.2.7")
        assert (copy.organization, copy.ip, copy.changes) == (world.organization, None, own.changes)


def test_everybody_whom_it_concerns_sees_it_and_nobody_else(world: World, other: World) -> None:
    """The person belongs to both; later to one of them only."""
    add(other, "viewer@acme.example")
    make_token(world.viewer)
    make_token(world.operator)

    assert [event["actor"]["display"] for event in listed(other, "token.create")][:1] == ["viewer@acme.example"]
    ours = {event["actor"]["display"] for event in listed(world, "token.create")}
    assert {"viewer@acme.example", "operator@acme.example"} <= ours
    assert "operator@acme.example" not in str(listed(other, "token.create"))
    seen = listed(other, "token.create")[0]
    assert (seen["ip"], "my laptop" in str(seen)) == (None, False)
    assert seen["resource_scope"]["organization_id"] == str(other.organization.pk)

    Membership.objects.filter(user=world.viewer.user, organization=other.organization).delete()
    FROM.append(AuditEvent.objects.latest("id").pk)
    make_token(world.viewer)
    assert [event.organization_id for event in told("token.create")] == [None, world.organization.pk]


def test_two_roles_in_one_organization_are_one_copy(world: World) -> None:
    Membership.objects.create(
        user=world.viewer.user, organization=world.organization, project=world.project, role=Role.OPERATOR
    )

    make_token(world.viewer)

    assert [event.organization_id for event in told("token.create")] == [None, world.organization.pk]


def test_a_role_in_a_deleted_project_is_none(world: World) -> None:
    Membership.objects.filter(user=world.viewer.user).update(project=world.project)
    organizations.delete(world.project, kind="project", actor=world.admin.actor)

    make_token(world.viewer)

    assert [event.organization_id for event in told("token.create")] == [None]


def test_an_invitation_that_nobody_has_claimed_is_no_membership(world: World, other: World) -> None:
    """What the server's operator does for an invited person is none of the organization's business before."""
    invited = add(world, "new@acme.example")

    call_command("sign_in_link", email="new@acme.example", stdout=StringIO())
    assert [event.organization_id for event in told("token.create")] == [None]
    assert [event.organization_id for event in told("sign_in_link.create")] == [None]

    sign_in(invited)
    assert [event.organization_id for event in told("session.sign_in")] == [None, world.organization.pk]
    FROM.append(AuditEvent.objects.latest("id").pk)
    call_command("sign_in_link", email="new@acme.example", stdout=StringIO())
    assert [event.organization_id for event in told("token.create")] == [None, world.organization.pk]


@pytest.mark.parametrize("how", ["a token was used", "the console was entered", "an identity is bound"])
def test_an_account_is_claimed_by_any_use_of_it(world: World, how: str) -> None:
    invited = add(world, "new@acme.example")
    if how == "a token was used":
        _, text = tokens.create_user_token(user=invited, name="x", actor=system("test"))
        assert Api(text).get("/api/v1/me").status_code == 200
    elif how == "the console was entered":
        sign_in(invited)
    else:
        invited.social_auth.create(provider="oidc", uid="https://id.example#1")
    FROM.append(AuditEvent.objects.latest("id").pk)

    accounts.create_sign_in_link(user=User.objects.get(pk=invited.pk), actor=system("test"))

    assert [e.organization_id for e in told("sign_in_link.create")] == [None, world.organization.pk]


def test_a_person_of_no_organization_is_told_to_the_installation_only() -> None:
    loner = accounts.get_or_create_account("loner@nowhere.example")

    sign_in(loner)

    assert [event.organization_id for event in told("session.sign_in")] == [None]


def test_a_copy_that_fails_takes_the_event_and_the_change_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise IntegrityError("no room")

    count = UserToken.objects.count()
    monkeypatch.setattr(audit, "_joined", broken)

    with pytest.raises(IntegrityError), transaction.atomic():
        tokens.create_user_token(user=world.viewer.user, name="x", actor=world.viewer.actor)

    assert (UserToken.objects.count(), told("token.create")) == (count, [])


def test_the_worker_seals_it_with_the_others(world: World) -> None:
    make_token(world.viewer)

    tasks.seal_audit()

    seals = AuditSeal.objects.filter(organization=None)
    assert seals.count() == own_events() > 0
    assert sorted(seals.values_list("seq", flat=True)) == list(range(1, own_events() + 1))
    assert list(Verification(None).faults()) == list(Verification(world.organization.pk).faults()) == []
    assert not AuditEvent.objects.filter(seal=None).exists()


def test_what_an_older_release_left_unsealed_comes_first_and_in_order(world: World, other: World) -> None:
    """The organizations' chains are sealed up to now; the installation's begins with its oldest event."""
    for one in (world, other):
        audit.seal_chain(one.organization.pk)
    make_token(world.viewer)

    audit.seal_all()

    sealed = AuditSeal.objects.filter(organization=None).order_by("seq").values_list("event_id", flat=True)
    assert list(sealed) == list(
        AuditEvent.objects.filter(organization=None).order_by("id").values_list("id", flat=True)
    )


@pytest.mark.django_db(transaction=True)
def test_two_workers_seal_it_once(at_once: Race) -> None:
    World("third")
    total = own_events()

    sealed = at_once(*[lambda: audit.seal_chain(None)] * 4)

    assert sorted(sealed) == [0, 0, 0, total]
    assert list(Verification(None).faults()) == []


@pytest.mark.django_db(transaction=True)
def test_two_commands_make_one_key(at_once: Race) -> None:
    at_once(*[signing_keys.ensure_installation_key] * 4)

    assert SigningKey.objects.filter(organization=None, status="active").count() == 1
    assert AuditEvent.objects.filter(organization=None, action="signing_key.create").count() == 1


@pytest.mark.parametrize("status", ["active", "next"])
def test_the_database_keeps_one_key_of_each_kind(status: str) -> None:
    made = [SigningKey(kid=f"k{n}", public_key=b"x", private_key=b"x", status=status) for n in range(2)]
    made[0].save()

    with pytest.raises(IntegrityError), transaction.atomic():
        made[1].save()


def test_the_database_keeps_one_event_at_each_place(world: World) -> None:
    first, second = AuditEvent.objects.filter(organization=None)[:2]
    AuditSeal.objects.create(seq=1, event=first, prev_hash="x", hash="x")

    with pytest.raises(IntegrityError), transaction.atomic():
        AuditSeal.objects.create(seq=1, event=second, prev_hash="x", hash="x")


def test_an_altered_event_is_found(world: World) -> None:
    audit.seal_all()
    event = AuditSeal.objects.get(organization=None, seq=2).event
    with unguarded():
        AuditEvent.objects.filter(pk=event.pk).update(ip="192.0.2.99")

    code, said = run("verify_ledger")

    assert code == 1
    assert (
        f"the installation: seq 2, event {event.pk}: ledger.altered: the event, its place or its link was altered"
        in said
    )
    assert run("verify_ledger", "--installation")[0] == 1
    assert run("verify_ledger", "--org", "acme")[0] == 0
    assert [fault.code for fault in Verification(None).faults()] == [LedgerCode.ALTERED]
