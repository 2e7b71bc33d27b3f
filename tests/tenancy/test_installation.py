"""The installation's own chain: who signs in and by what, in full there, and a copy for those whom it concerns."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import IntegrityError, transaction
from django.test import Client

from apps.tenancy import audit, ledger, tasks, vault
from apps.tenancy.actors import system
from apps.tenancy.ledger import Verification
from apps.tenancy.models import AuditEvent, AuditSeal, Membership, OrganizationKey, SigningKey, User, UserToken
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, master_key, members, organizations, signing_keys, tokens
from byteor_cloud.engine.delivery.keys import KeyStatus
from byteor_cloud.engine.ledger import Checkpoint, LedgerCode
from byteor_cloud.verify import cli
from tests.races import Race, at_once  # noqa: F401  a fixture
from tests.tenancy.test_ledger import run, unguarded
from tests.worlds import Api, Person, World

pytestmark = pytest.mark.django_db


def add(world: World, email: str) -> User:
    """Give the person of the address a role in another organization."""
    return members.add(
        organization=world.organization, project=None, email=email, role=Role.VIEWER,
        granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor,
    ).user  # fmt: skip


def told(action: str) -> list[AuditEvent]:
    """The events of that action since ``forget``, the installation's first."""
    return sorted(
        AuditEvent.objects.filter(action=action, pk__gt=FROM[-1]), key=lambda e: e.organization_id is not None
    )


FROM: list[Any] = []


@pytest.fixture(autouse=True)
def since(world: World, other: World) -> None:
    """Only what happens in the test counts."""
    FROM.append(AuditEvent.objects.latest("id").pk)


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
    loner = accounts.account_for_invitation("loner@nowhere.example")

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


# -- the chain --------------------------------------------------------------------------------------------------------


def own_events() -> int:
    return AuditEvent.objects.filter(organization=None).count()


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
def test_two_workers_seal_it_once(at_once: Race) -> None:  # noqa: F811
    World("third")
    total = own_events()

    sealed = at_once(*[lambda: audit.seal_chain(None)] * 4)

    assert sorted(sealed) == [0, 0, 0, total]
    assert list(Verification(None).faults()) == []


@pytest.mark.django_db(transaction=True)
def test_two_commands_make_one_key(at_once: Race) -> None:  # noqa: F811
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


# -- keys, export, proof ----------------------------------------------------------------------------------------------


def test_the_installation_signs_with_a_key_of_its_own(world: World) -> None:
    signing_keys.ensure_installation_key()
    signing_keys.ensure_installation_key()

    key = SigningKey.objects.get(organization=None)
    assert key.status == "active"
    assert bytes(key.private_key) != vault.unseal(key, "private_key") == signing_keys.active_private_key(None)
    assert [each.kid for each in signing_keys.key_set(None)] == [key.kid]
    assert key.kid not in {each.kid for each in signing_keys.key_set(world.organization.pk)}
    assert AuditEvent.objects.get(resource_id=key.kid).organization_id is None


def test_the_export_is_proven_by_the_installations_keys(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_token(world.viewer)
    audit.seal_all()
    export, keys_, theirs = tmp_path / "installation.ndjson", tmp_path / "keys.json", tmp_path / "acme.json"
    code, lines = run("export_ledger", "--installation")
    export.write_text("".join(f"{text}\n" for text in lines))
    keys_.write_text(run("installation_keys")[1][0])
    theirs.write_text(json.dumps(signing_keys.key_set(world.organization.pk).document()))

    assert code == 0
    assert Checkpoint.read(lines[-1]).org_id is None
    # The key was made for this export, and its event waits for the next sealing.
    assert len(lines) - 1 == own_events() - 1
    assert "my laptop" in export.read_text()
    assert cli.main(["ledger", str(export), "--keys", str(keys_)]) == 0
    assert capsys.readouterr().out.startswith("PROVEN\n")
    assert cli.main(["ledger", str(export), "--keys", str(theirs)]) == 1
    assert run("verify_ledger", "--checkpoint", str(export))[0] == 0
    assert run("verify_ledger", "--installation", "--checkpoint", str(export))[0] == 0
    code, said = run("verify_ledger", "--org", "acme", "--checkpoint", str(export))
    assert (code, said) == (1, [f"{export}: the checkpoint is of the installation"])


def test_an_organizations_export_holds_the_copies_and_nothing_of_others(world: World, other: World) -> None:
    make_token(world.viewer)
    make_token(other.viewer)
    audit.seal_all()

    text = "".join(ledger.export(world.organization))

    assert "token.create" in text
    assert "my laptop" not in text
    assert "umbrella" not in text
    assert str(other.organization.pk) not in text


def test_its_key_is_changed_while_the_earlier_exports_hold(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit.seal_all()
    export = tmp_path / "before.ndjson"
    export.write_text("".join(f"{text}\n" for text in run("export_ledger", "--installation")[1]))

    rotated = json.loads(run("installation_keys", "--rotate")[1][0])

    assert [key["status"] for key in rotated["keys"]] == ["active", "retiring"]
    (tmp_path / "keys.json").write_text(json.dumps(rotated))
    assert cli.main(["ledger", str(export), "--keys", str(tmp_path / "keys.json")]) == 0
    assert Checkpoint.read(run("export_ledger", "--installation")[1][-1]).kid == rotated["active_kid"]
    retiring = SigningKey.objects.get(organization=None, status="retiring")
    assert signing_keys.retire(retiring, reason="lost", actor=system("test")).status == KeyStatus.RETIRED
    signing_keys.note_all()


def test_a_key_of_the_installation_becomes_active_and_retired_by_time(world: World) -> None:
    signing_keys.ensure_installation_key()
    key = signing_keys.rotate(organization=None, retire_in_s=60, actor=system("test"))
    old = SigningKey.objects.get(organization=None, status="retiring")
    SigningKey.objects.filter(pk=old.pk).update(not_after=old.created_at)

    tasks.note_keys()

    old.refresh_from_db()
    key.refresh_from_db()
    assert (old.status, old.private_key, key.status) == ("retired", None, "active")


def test_the_master_keys_change_takes_it_along(world: World, settings: Any) -> None:
    from dataclasses import replace

    signing_keys.ensure_installation_key()
    private = signing_keys.active_private_key(None)
    old, new = settings.CONFIG.master_key, bytes(range(32))
    settings.CONFIG = replace(settings.CONFIG, master_key=new, master_key_previous=old)

    assert master_key.reseal(actor=system("test")) >= 3

    settings.CONFIG = replace(settings.CONFIG, master_key_previous=None)
    assert signing_keys.active_private_key(None) == private


@pytest.mark.parametrize(
    "argv",
    [
        ("export_ledger",), ("export_ledger", "--org", "acme", "--installation"),
        ("verify_ledger", "--org", "acme", "--installation"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_whose_ledger_must_be_said_once(argv: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command(*argv, stdout=StringIO())


# -- operators --------------------------------------------------------------------------------------------------------


def operators() -> list[str]:
    return list(User.objects.filter(is_superuser=True).values_list("email", flat=True))


def test_an_operator_is_made_and_unmade(world: World) -> None:
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


def test_what_is_so_already_is_said_and_not_told_again(world: World) -> None:
    email = "viewer@acme.example"
    assert run("installation_operator", "revoke", "--email", email) == (0, [f"{email} is no installation operator"])
    run("installation_operator", "grant", "--email", email)
    events = AuditEvent.objects.count()

    assert run("installation_operator", "grant", "--email", email) == (
        0,
        [f"{email} is an installation operator already"],
    )

    assert AuditEvent.objects.count() == events


def test_who_is_unknown_or_inactive_is_not_made_one(world: World) -> None:
    User.objects.filter(pk=world.viewer.user.pk).update(is_active=False)
    events, people = AuditEvent.objects.count(), User.objects.count()

    assert run("installation_operator", "grant", "--email", "nobody@x.example") == (
        1, ["there is no account with the address nobody@x.example: invite the person, or bootstrap"],
    )  # fmt: skip
    assert run("installation_operator", "grant", "--email", "viewer@acme.example") == (
        1, ["The account of viewer@acme.example is not active."],
    )  # fmt: skip

    assert (AuditEvent.objects.count(), User.objects.count(), operators()) == (events, people, [])


def test_an_operator_whose_account_was_closed_can_be_unmade(world: World) -> None:
    User.objects.filter(pk=world.viewer.user.pk).update(is_active=False, is_superuser=True)

    assert run("installation_operator", "revoke", "--email", "viewer@acme.example")[0] == 0

    assert operators() == []


def test_an_address_that_nobody_proved_is_no_account(world: World) -> None:
    """Whoever signs in with an unproven address is not whom the operator means."""
    User.objects.create(email="root@acme.example", email_verified=False)

    assert run("installation_operator", "grant", "--email", "root@acme.example")[0] == 1

    assert operators() == []


def test_operators_see_what_belongs_to_no_organization(world: World, other: World) -> None:
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
    assert admins.get(f"/admin/tenancy/auditevent/{own.pk}/change/").status_code == 302
    signing_keys.ensure_installation_key()
    audit.seal_all()
    for table in ("auditseal", "signingkey"):
        assert client.get(f"/admin/tenancy/{table}/?organization__isnull=True").context["cl"].result_count > 0
    key = SigningKey.objects.get(organization=None)
    assert client.get(f"/admin/tenancy/signingkey/{key.pk}/change/").status_code == 200
    assert not OrganizationKey.objects.exists()
