"""Names that installations have stored. This release must accept what earlier releases signed or encrypted."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import timedelta
from uuid import UUID

import pytest
from django.contrib.sessions.models import Session
from django.core import signing
from django.db import models
from django.test import Client
from django.utils import timezone

from apps.notifications.models import ChatWebhook
from apps.tenancy.models import IdempotencyKey, Project, SigningKey, User, Webhook
from apps.tenancy.models.sealed_field import sealed_fields
from apps.tenancy.services import vault
from tests.worlds import World

BACKENDS = ["apps.tenancy.sessions.Accounts", "django.contrib.auth.backends.ModelBackend"]
SESSION_SALT = "django.contrib.sessions.SessionStore"  # the salt ends with the class name of the session store
FORM_SALT = "apps.tenancy.console.forms"
ROW, ORGANIZATION = UUID(int=1), UUID(int=2)
# For each encrypted column: a row, and the text to which the row's ciphertext is bound.
SEALED: dict[str, tuple[models.Model, str]] = {
    "tenancy.IdempotencyKey.response": (IdempotencyKey(caller="user:1", key="k"), "idempotency:user:1:k"),
    "tenancy.SigningKey.private_key": (
        SigningKey(organization_id=ORGANIZATION, kid="kid"),
        f"signing-key:{ORGANIZATION}:kid",
    ),
    "notifications.ChatWebhook.url": (
        ChatWebhook(pk=ROW, organization_id=ORGANIZATION),
        f"chat_webhook:{ORGANIZATION}:{ROW}",
    ),
    "tenancy.Webhook.secret": (Webhook(pk=ROW, organization_id=ORGANIZATION), f"webhook:{ORGANIZATION}:{ROW}"),
    "tenancy.Webhook.previous_secret": (Webhook(pk=ROW, organization_id=ORGANIZATION), f"webhook:{ORGANIZATION}:{ROW}"),
}


def browser(user: User, backend: str = BACKENDS[0]) -> Client:
    """Return a client whose session is stored in the format of earlier releases."""
    values = {
        "_auth_user_id": str(user.pk),
        "_auth_user_backend": backend,
        "_auth_user_hash": user.get_session_auth_hash(),
    }
    data = signing.dumps(values, salt=SESSION_SALT, compress=True)
    Session.objects.create(session_key="a" * 32, session_data=data, expire_date=timezone.now() + timedelta(days=1))
    client = Client(headers={"accept": "text/html"})
    client.cookies["sessionid"] = "a" * 32
    return client


@pytest.mark.parametrize("backend", BACKENDS)
def test_session_with_stored_backend_path_stays_signed_in(world: World, backend: str) -> None:
    assert browser(world.viewer.user, backend).get("/admin/").status_code == 200


def test_session_of_unknown_backend_is_signed_out(world: World) -> None:
    assert browser(world.viewer.user, "apps.tenancy.sessions.Gone").get("/admin/").status_code == 302


@pytest.mark.parametrize(("salt", "projects"), [(FORM_SALT, 1), ("another", 0)])
def test_form_id_of_earlier_release_is_accepted_only_with_expected_salt(world: World, salt: str, projects: int) -> None:
    form_id = signing.TimestampSigner(salt=salt).sign("a form")
    url = f"/admin/tenancy/organization/{world.organization.pk}/act/create_project/"

    browser(world.admin.user).post(url, {"_confirm": "yes", "_form": form_id, "name": "billing"})

    assert Project.objects.filter(name="billing").count() == projects


def test_encryption_context_of_each_sealed_field_is_stable() -> None:
    fields = {f"{field.model._meta.label}.{field.name}": field for field in sealed_fields()}

    assert {name: fields[name].context_of(row).decode() for name, (row, _) in SEALED.items()} == {
        name: text for name, (_, text) in SEALED.items()
    }
    assert set(fields) == set(SEALED)


def test_master_key_id_is_stable() -> None:
    key = bytes(range(32))

    assert vault.key_id(key) == hmac.digest(key, b"byteor-cloud master key", "sha256").hex()[:16]


def test_stored_response_is_returned_for_same_idempotency_key(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/projects"
    stored = world.admin.api.get(f"{path}/{world.project.pk}").json()
    row = IdempotencyKey(
        caller=f"user:{world.admin.user.pk}",
        key="k",
        fingerprint=hashlib.sha256(f'POST {path}\n{{"name":"billing"}}'.encode()).hexdigest(),
        status=201,
        expires_at=timezone.now() + timedelta(hours=1),
    )
    vault.seal(row, "response", json.dumps([f"{path}/{world.project.pk}", 7, stored]).encode())
    row.save()

    response = world.admin.api.post(path, {"name": "billing"}, Idempotency_Key="k")

    assert (response.status_code, response.json()) == (201, stored)
    assert response["Location"] == f"{path}/{world.project.pk}"
    assert response["Idempotent-Replayed"] == "true"
