"""The account of a sign-in: who counts as the same person, who claims an invited account, and who is rejected."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from social_django.models import UserSocialAuth

from apps.tenancy.models import AuditEvent, User, UserToken
from apps.tenancy.services import accounts
from tests.tenancy.provider import Claims, Provider
from tests.tenancy.sign_in_flow import HTML, JSON, configure, nothing_was_created, sign_in, with_claims

pytestmark = pytest.mark.django_db


# Identity


def test_same_subject_of_another_issuer_is_another_person(client: Client, provider: Provider, settings: Any) -> None:
    first = sign_in(client, provider).json()["user"]["id"]
    other = Provider()
    other.claims["email"] = "ada@elsewhere.example"
    configure(settings, other.issuer)

    second = sign_in(client, other).json()["user"]["id"]
    other.stop()

    assert second != first
    assert set(UserSocialAuth.objects.values_list("uid", flat=True)) == {f"{provider.issuer}#1", f"{other.issuer}#1"}


def test_provider_that_reports_another_issuer_is_rejected(client: Client, provider: Provider) -> None:
    status, document = provider._respond("/.well-known/openid-configuration", {}, "")
    provider.responses["/.well-known/openid-configuration"] = (status, document | {"issuer": "https://issuer.example"})
    provider.change_claims = with_claims(iss="https://issuer.example")

    assert sign_in(client, provider).status_code == 401
    assert nothing_was_created()


def test_person_whose_email_address_changes_keeps_account(client: Client, provider: Provider) -> None:
    first = sign_in(client, provider).json()["user"]["id"]
    provider.claims["email"] = "lovelace@acme.example"

    assert sign_in(client, provider).json()["user"]["id"] == first
    assert User.objects.get().email == "ada@acme.example"


def test_verified_address_claims_invited_account_once(client: Client, provider: Provider) -> None:
    invited = accounts.get_or_create_account("ADA@acme.example")

    first = sign_in(client, provider).json()["user"]
    provider.claims["sub"] = "2"
    second = sign_in(Client(), provider).json()["user"]

    assert first["id"] == str(invited.pk)
    assert second["id"] != first["id"]
    stranger = User.objects.get(pk=second["id"])
    assert (stranger.email, stranger.email_verified) == ("ada@acme.example", False)
    claims = AuditEvent.objects.filter(action="account.claim")
    assert [event.resource_id for event in claims] == [str(invited.pk)]
    assert accounts.get_or_create_account("ada@acme.example") == invited


@pytest.mark.parametrize(
    ("claims", "userinfo"),
    [
        ({"email_verified": False}, {}),
        ({"email_verified": None}, {}),
        ({"email_verified": "true"}, {}),
        # Only the ID token's address is verified, but the user info contains another address.
        ({"email": "eve@acme.example"}, {"email": "ada@acme.example", "email_verified": False}),
    ],
)
def test_unverified_address_claims_no_account(
    client: Client, provider: Provider, claims: Claims, userinfo: Claims
) -> None:
    invited = accounts.get_or_create_account("ada@acme.example")
    provider.claims |= claims
    provider.userinfo = userinfo

    made = sign_in(client, provider).json()["user"]

    assert made["id"] != str(invited.pk)
    account = User.objects.get(pk=made["id"])
    assert (account.email, account.email_verified) == ("ada@acme.example", False)
    assert not invited.social_auth.exists()


def test_inactive_account_cannot_sign_in(client: Client, provider: Provider) -> None:
    sign_in(client, provider)
    User.objects.update(is_active=False)
    tokens, events = UserToken.objects.count(), AuditEvent.objects.count()

    for accept in (JSON, HTML):
        assert sign_in(client, provider, accept).status_code == 401
    assert (UserToken.objects.count(), AuditEvent.objects.count()) == (tokens, events)
    assert not any("_auth_user_id" in session.get_decoded() for session in Session.objects.all())


def test_inactive_invited_account_is_not_claimed(client: Client, provider: Provider) -> None:
    accounts.get_or_create_account("ada@acme.example")
    User.objects.update(is_active=False)

    assert sign_in(client, provider).status_code == 401
    assert User.objects.count() == 1
    assert not UserSocialAuth.objects.exists()


@pytest.mark.parametrize(
    ("claims", "email", "name"),
    [
        ({"name": "A\x00da"}, "ada@acme.example", "Ada"),
        ({"name": "x" * 300}, "ada@acme.example", "x" * 200),
        ({"name": ["Ada"]}, "ada@acme.example", ""),
        ({"name": None, "email": None}, "", ""),
        ({"email": f"{'a' * 60}@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}.example"}, "", "Ada"),
        ({"email": "ada\x00@acme.example"}, "", "Ada"),
        ({"email": "no address"}, "", "Ada"),
        ({"email": {"a": 1}}, "", "Ada"),
    ],
)
def test_unusual_names_and_addresses_are_cleaned_or_omitted(
    client: Client, provider: Provider, claims: Claims, email: str, name: str
) -> None:
    provider.claims |= claims

    assert sign_in(client, provider).status_code == 200
    account = User.objects.get()
    assert (account.email, account.name, account.email_verified) == (email, name, bool(email))


@pytest.mark.parametrize("subject", ["x" * 300, "a\x00b"])
def test_subject_that_cannot_be_stored_is_rejected(client: Client, provider: Provider, subject: str) -> None:
    provider.claims["sub"] = subject

    assert sign_in(client, provider).status_code == 401
    assert nothing_was_created()
