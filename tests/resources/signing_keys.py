"""Signing keys."""

from __future__ import annotations

from apps.tenancy.models import SigningKey
from apps.tenancy.services import signing_keys
from tests.permissions import ADMIN, VIEW_ORG
from tests.resources import Act, Call, O, Place, Resource, Table


def signing_key(place: Place) -> SigningKey:
    return place.world.organization.signing_keys.get(status="active")


def kid(place: Place) -> str:
    return place.get(signing_key).kid


def next_kid(place: Place) -> str:
    # The key must not become active before the test uses it.
    made = signing_keys.rotate(
        organization=place.world.organization, activate_in_s=86400, actor=place.world.admin.actor
    )
    return made.kid


RESOURCE = Resource(
    calls=(
        Call("listSigningKeys", "GET", O + "/signing-keys", VIEW_ORG),
        Call("rotateSigningKey", "POST", O + "/signing-keys/rotate", ADMIN, 201),
        Call("retireSigningKey", "POST", O + "/signing-keys/{kid}/retire", ADMIN, on=next_kid),
    ),
    tables=(
        Table(
            "tenancy.signingkey", VIEW_ORG, signing_key,
            acts={"retire": Act("retireSigningKey", {"comment": "because"})},
            large=frozenset({"private_key"}), short={"public_key": "32 bytes"},
        ),
    ),
    ids={"kid": kid},
)  # fmt: skip
