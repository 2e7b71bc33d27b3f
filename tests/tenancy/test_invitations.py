"""Invitations: who gets a sign-in link, what the link permits, and what it does not permit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from social_django.models import UserSocialAuth

from apps.notifications.services import wording
from apps.notifications.services.wording import Content, invitations
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import AuditEvent, IdempotencyKey, Membership, MessageEvent, SignInLink, User, UserToken
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, members, tokens
from byteor_cloud.errors import Conflict, TooManyRequests
from tests.patience import PATIENCE_S
from tests.tenancy.provider import Provider
from tests.tenancy.sign_in_flow import sign_in
from tests.worlds import Api, Person, World

pytestmark = pytest.mark.django_db
BOB = "bob@people.example"


@pytest.fixture
def mail(settings: Any) -> None:
    """Configure an e-mail server."""
    settings.CONFIG = replace(settings.CONFIG, smtp_url="smtp://mail.example")


def members_of(world: World, *, project: bool = False) -> str:
    below = f"/projects/{world.project.pk}" if project else ""
    return f"/api/v1/orgs/{world.organization.pk}{below}/members"


def invite(
    world: World, by: Person | None = None, *, project: bool = False, role: str = "viewer", **headers: str
) -> Any:
    """Invite Bob through the API, and return the response."""
    path = members_of(world, project=project)
    return (by or world.admin).api.post(path, {"email": BOB, "role": role}, **headers)


def invite_again(world: World, by: Person | None = None, *, project: bool = False) -> Any:
    return (by or world.admin).api.post(f"{members_of(world, project=project)}/{bob().pk}/invite")


@pytest.mark.parametrize("project", [False, True])
def test_location_header_of_added_member_can_be_used_to_change_and_remove_member(world: World, project: bool) -> None:
    made = invite(world, project=project)

    changed = world.admin.api.put(made["Location"], {"role": "operator"})

    assert made["Location"] == f"{members_of(world, project=project)}/{bob().pk}"
    assert (changed.status_code, changed.json()["role"]) == (200, "operator")
    assert world.admin.api.delete(made["Location"]).status_code == 204


def wait_a_minute() -> None:
    """Pretend that all invitations were sent a minute ago."""
    Membership.objects.update(invited_at=timezone.now() - timedelta(minutes=1))


def bob() -> User:
    return User.objects.get(email=BOB, email_verified=True)


def use(url: str) -> int:
    """Press the button on the page of a link, and return the status."""
    return Client().post(url.removeprefix("http://testserver")).status_code


def is_signed_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


# Who gets a link


def test_admin_gets_link_that_signs_invited_person_in_once(world: World) -> None:
    response = invite(world)

    url = response.json()["invitation_url"]
    assert url.startswith("http://testserver/auth/link/bor_lnk_")
    link = SignInLink.objects.get(user=bob())
    assert timedelta(days=6, hours=23) < link.expires_at - timezone.now() <= timedelta(days=7)
    assert not accounts.is_claimed(bob())
    assert (use(url), use(url)) == (302, 401)
    assert accounts.is_claimed(bob())
    assert bob().vouched_by == world.organization


def test_public_base_url_is_used_in_link(world: World, settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, public_base_url="https://cloud.example")

    assert invite(world).json()["invitation_url"].startswith("https://cloud.example/auth/link/bor_lnk_")


def test_expired_link_is_refused(world: World) -> None:
    url = invite(world).json()["invitation_url"]
    SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert use(url) == 401
    assert not accounts.is_claimed(bob())


def test_no_link_is_shown_if_invitations_are_sent_by_email(world: World, mail: None) -> None:
    assert invite(world).json()["invitation_url"] is None
    wait_a_minute()
    assert invite_again(world).json()["invitation_url"] is None
    assert not SignInLink.objects.filter(user=bob()).exists()


def test_project_admin_gets_no_link(world: World) -> None:
    """With a link to an account that has more permissions elsewhere, a project admin could get these permissions."""
    invite(world, role="org_admin")

    assert invite(world, world.project_admin, project=True).json()["invitation_url"] is None
    wait_a_minute()
    assert invite_again(world, world.project_admin, project=True).json()["invitation_url"] is None
    wait_a_minute()
    assert invite_again(world, project=True).json()["invitation_url"] is not None


@pytest.mark.parametrize("how", ["signed in", "identity bound", "token used"])
def test_no_link_is_shown_for_claimed_account_with_confirmed_address(world: World, other: World, how: str) -> None:
    person = accounts.get_or_create_account(BOB)
    if how == "signed in":
        User.objects.filter(pk=person.pk).update(last_login=timezone.now())
    elif how == "identity bound":
        UserSocialAuth.objects.create(user=person, provider="oidc", uid="https://id.example#1")
    else:
        _, text = tokens.create_user_token(user=person, name="x", actor=system_actor("test"))
        assert Api(text).get("/api/v1/me").status_code == 200

    assert invite(world).json()["invitation_url"] is None
    wait_a_minute()
    assert invite_again(world).json()["type"] == "urn:byteor:problem:claimed"
    assert not SignInLink.objects.filter(user=bob()).exists()


@pytest.mark.parametrize("change", [{"is_superuser": True}, {"is_active": False}])
def test_no_link_is_shown_for_installation_operators_and_inactive_accounts(
    world: World, change: dict[str, bool]
) -> None:
    url = invite(world).json()["invitation_url"]
    User.objects.filter(email=BOB).update(**change)

    assert invite(world, project=True).json()["invitation_url"] is None
    assert use(url) == 401
    assert not accounts.is_claimed(bob())


def test_other_organization_gets_no_link_to_invited_account(world: World, other: World) -> None:
    url = invite(world, role="org_admin").json()["invitation_url"]

    assert invite(other).json()["invitation_url"] is None
    wait_a_minute()
    assert invite_again(other).json()["invitation_url"] is None
    assert invite_again(world).json()["invitation_url"] is None

    # The first organization's link must not give access to the other organization either.
    assert use(url) == 401
    assert not accounts.is_claimed(bob())


def test_new_invitation_replaces_earlier_link(world: World) -> None:
    first = invite(world).json()["invitation_url"]
    wait_a_minute()
    second = invite_again(world).json()["invitation_url"]

    assert use(first) == 401
    assert use(second) == 302


def test_removing_last_role_makes_link_invalid(world: World) -> None:
    invite(world)
    url = invite(world, project=True).json()["invitation_url"]

    assert world.admin.api.delete(f"{members_of(world)}/{bob().pk}").status_code == 204
    assert SignInLink.objects.filter(user=bob()).exists()
    assert world.admin.api.delete(f"{members_of(world, project=True)}/{bob().pk}").status_code == 204

    assert not SignInLink.objects.filter(user=bob()).exists()
    assert use(url) == 401


# Accounts claimed with a link that an admin could see


def test_account_that_admin_could_have_claimed_is_not_used_by_other_organizations(world: World, other: World) -> None:
    """Otherwise, an admin could claim the account of an address in advance, and wait until others invite the person."""
    assert use(invite(world).json()["invitation_url"]) == 302
    squatted = bob()

    response = invite(other, role="org_admin")

    assert response.json()["user_id"] == str(bob().pk) != str(squatted.pk)
    assert response.json()["invitation_url"] is not None
    squatted.refresh_from_db()
    assert not squatted.email_verified
    assert set(squatted.memberships.values_list("organization", flat=True)) == {world.organization.pk}
    lost = AuditEvent.objects.get(action="account.lose_address")
    assert (lost.organization_id, lost.resource_id) == (None, str(squatted.pk))


def test_own_organization_can_give_more_roles_to_account_claimed_with_its_link(world: World) -> None:
    assert use(invite(world).json()["invitation_url"]) == 302
    person = bob()

    assert invite(world, project=True).json()["user_id"] == str(person.pk)
    assert accounts.get_or_create_account(BOB, organization=world.organization).pk == person.pk


def test_account_cannot_become_installation_operator_until_its_address_is_confirmed(world: World) -> None:
    assert use(invite(world).json()["invitation_url"]) == 302

    with pytest.raises(Conflict) as refused:
        accounts.set_installation_operator(bob(), is_operator=True, actor=system_actor("test"))
    assert refused.value.reason == "not_confirmed"

    link = accounts.create_sign_in_link(user=bob(), actor=system_actor("sign_in_link"))
    assert use(f"/auth/link/{link}") == 302
    assert accounts.set_installation_operator(bob(), is_operator=True, actor=system_actor("test"))


def test_first_sign_in_with_identity_provider_keeps_account_but_ends_earlier_access(
    world: World, provider: Provider
) -> None:
    client = Client()
    path = invite(world).json()["invitation_url"].removeprefix("http://testserver")
    assert client.post(path).status_code == 302
    invited = bob()
    _, text = tokens.create_user_token(user=invited, name="x", actor=Actor("user", str(invited.pk), BOB))
    assert is_signed_in(client)
    assert Api(text).get("/api/v1/me").status_code == 200
    provider.claims |= {"email": BOB}

    signed_in = sign_in(Client(), provider).json()

    assert signed_in["user"]["id"] == str(invited.pk)
    assert Api(signed_in["token"]).get("/api/v1/me").status_code == 200
    assert not is_signed_in(client)
    assert Api(text).get("/api/v1/me").status_code == 401
    assert UserToken.objects.filter(user=invited, revoked_at=None).count() == 1
    assert bob().vouched_by is None
    assert sign_in(Client(), provider).json()["user"]["id"] == str(invited.pk)


def test_sign_in_with_unverified_address_does_not_use_account_of_that_address(world: World, provider: Provider) -> None:
    assert use(invite(world).json()["invitation_url"]) == 302
    provider.claims |= {"email": BOB, "email_verified": False}

    assert sign_in(Client(), provider).json()["user"]["id"] != str(bob().pk)
    assert bob().vouched_by == world.organization


def test_sign_in_with_identity_provider_makes_link_invalid(world: World, provider: Provider) -> None:
    url = invite(world).json()["invitation_url"]
    provider.claims |= {"email": BOB}
    assert sign_in(Client(), provider).json()["user"]["id"] == str(bob().pk)

    assert use(url) == 401
    assert bob().vouched_by is None


# Repetitions, messages and records


def test_repeated_request_with_idempotency_key_gets_same_link_for_at_most_ten_minutes(world: World) -> None:
    first, again = (invite(world, Idempotency_Key="k") for _ in range(2))

    assert first.json()["invitation_url"] == again.json()["invitation_url"] is not None
    assert again["Idempotent-Replayed"] == "true"
    assert SignInLink.objects.filter(user=bob()).count() == 1
    stored = IdempotencyKey.objects.get()
    assert stored.expires_at <= timezone.now() + timedelta(minutes=10)
    assert first.json()["invitation_url"].rpartition("/")[2].encode() not in bytes(stored.response)


def test_etag_of_invited_member_can_be_used_to_change_role(world: World) -> None:
    response = invite(world)

    path = f"{members_of(world)}/{bob().pk}"
    assert world.admin.api.put(path, {"role": "operator"}, If_Match=response["ETag"]).status_code == 200


def test_secret_of_shown_link_is_stored_in_no_audit_event_and_no_message_event(world: World) -> None:
    first = invite(world)
    wait_a_minute()
    secrets = [each.json()["invitation_url"].rpartition("/")[2] for each in (first, invite_again(world))]

    stored = json.dumps([
        list(AuditEvent.objects.values_list("action", "changes", "resource_id")),
        list(MessageEvent.objects.values_list("data", "text", "path", "subject")),
        list(SignInLink.objects.values_list("digest", flat=True)),
    ], default=str)  # fmt: skip
    assert [secret for secret in secrets if secret in stored] == []
    actions = AuditEvent.objects.filter(resource_id=str(bob().pk)).order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["member.add", "sign_in_link.create", "member.invite", "sign_in_link.create"]


def test_invitation_message_states_inviter_place_and_role(world: World) -> None:
    MessageEvent.objects.all().delete()
    invite(world, role="project_admin")
    invite(world, project=True)

    first, second = MessageEvent.objects.filter(type=MessageType.INVITATION).order_by("pk")

    descriptions = [wording.describe(each) for each in (first, second)]
    assert [each and each.sentence for each in descriptions] == [
        f"{world.admin.user.email} invited you to acme as project admin.",
        f"{world.admin.user.email} invited you to the project trading of acme as viewer.",
    ]
    assert {each.resource_id for each in (first, second)} == {str(bob().pk)}
    Membership.objects.filter(user=bob()).delete()
    assert wording.describe(first) is None


def test_invitation_can_be_sent_again_once_a_minute(world: World) -> None:
    invite(world)

    refused = invite_again(world)
    assert (refused.status_code, int(refused["Retry-After"]) >= 1) == (429, True)
    wait_a_minute()
    assert invite_again(world).status_code == 200
    assert invite_again(world).status_code == 429
    assert MessageEvent.objects.filter(type=MessageType.INVITATION, resource_id=str(bob().pk)).count() == 2


def link_in_mail(event: MessageEvent) -> str | None:
    """Create the sign-in link of an e-mail about the invitation. Return its path, or None if no link is created."""
    content = invitations.with_link(event, Content("", "/a/page", ""))
    return None if content.path == "/a/page" else content.path


def test_link_in_email_confirms_address(world: World, other: World, mail: None) -> None:
    invite(world)
    invite(other)
    event, later = MessageEvent.objects.filter(resource_id=str(bob().pk)).order_by("pk")

    first, second = link_in_mail(event), link_in_mail(later)

    assert first is not None
    assert second is not None
    assert use(first) == 302  # a mail server may have dropped the later e-mail
    assert use(second) == 401  # the first sign-in to the account invalidated its other links
    assert bob().vouched_by is None
    assert link_in_mail(event) is None
    created = AuditEvent.objects.filter(action="sign_in_link.create", actor_id="mail")
    assert [each.organization_id for each in created] == [None, None]


def test_email_to_person_who_is_no_longer_member_contains_no_link(world: World, mail: None) -> None:
    invite(world)
    event = MessageEvent.objects.get(resource_id=str(bob().pk))
    Membership.objects.filter(user=bob()).delete()

    assert link_in_mail(event) is None


# Races


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call the functions at the same time, each in its own thread, and return the results in the same order.

    The result of a function that raises Conflict or TooManyRequests is the error.
    """
    barrier, results = Barrier(len(calls)), {}

    def run(number: int, call: Callable[[], Any]) -> None:
        barrier.wait(PATIENCE_S)
        try:
            results[number] = call()
        except (Conflict, TooManyRequests) as error:
            results[number] = error
        finally:
            connection.close()

    threads = [Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(calls))]


def _add(world: World) -> members.Invitation:
    return members.add(
        organization=world.organization, project=None, email=BOB, role=Role.VIEWER, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_only_one_of_concurrent_invitations_of_same_person_succeeds(world: World) -> None:
    results = together(*[lambda: _add(world)] * 4)

    assert sorted(type(each).__name__ for each in results) == ["Conflict"] * 3 + ["Invitation"]
    assert SignInLink.objects.filter(user=bob()).count() == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_invitations_by_two_organizations_show_at_most_one_link_and_it_is_invalid(
    world: World, other: World
) -> None:
    results = together(lambda: _add(world), lambda: _add(other))

    links = [each.link for each in results if each.link is not None]
    assert len(links) <= 1
    assert [use(f"/auth/link/{each}") for each in links] == [401] * len(links)
    assert bob().memberships.count() == 2
    assert not accounts.is_claimed(bob())


@pytest.mark.django_db(transaction=True)
def test_person_who_used_link_gets_no_role_in_organization_that_adds_account_concurrently(
    world: World, other: World
) -> None:
    """Whoever used the link has no role in the other organization, whether the use or the addition comes first."""
    link = _add(world).link

    together(lambda: use(f"/auth/link/{link}"), lambda: _add(other))

    claimed = User.objects.claimed().filter(email=BOB)
    assert not Membership.objects.filter(user__in=claimed, organization=other.organization).exists()
    assert Membership.objects.filter(organization=other.organization, user__email=BOB).count() == 1


@pytest.mark.django_db(transaction=True)
def test_link_used_while_invitation_is_sent_again_signs_in_at_most_once(world: World) -> None:
    invitation = _add(world)
    wait_a_minute()
    admin: Any = {"granter": GRANTS[Role.ORG_ADMIN], "actor": world.admin.actor}

    _, again = together(
        lambda: use(f"/auth/link/{invitation.link}"), lambda: members.invite_again(invitation.membership, **admin)
    )

    # Whichever came first, the old link was used or replaced, and the new one is valid once.
    assert use(f"/auth/link/{invitation.link}") != 302
    assert [use(f"/auth/link/{again.link}") for _ in range(2)].count(302) == 1


@pytest.mark.django_db(transaction=True)
def test_only_one_of_concurrent_repeated_invitations_is_sent(world: World) -> None:
    membership = _add(world).membership
    wait_a_minute()
    admin: Any = {"granter": GRANTS[Role.ORG_ADMIN], "actor": world.admin.actor}

    results = together(*[lambda: members.invite_again(membership, **admin)] * 3)

    assert sorted(type(each).__name__ for each in results) == ["Invitation", "TooManyRequests", "TooManyRequests"]
    assert SignInLink.objects.filter(user=bob()).count() == 1
