"""An organization's signing keys: made, published, used. The private half leaves the vault only to sign."""

from __future__ import annotations

import hashlib
from uuid import UUID

from django.db import transaction

from apps.tenancy import audit, vault
from apps.tenancy.actors import Actor
from apps.tenancy.models import Organization, SigningKey
from byteor_cloud.engine.delivery import encoding, keys


def _context(organization_id: UUID, kid: str) -> str:
    return f"signing-key:{organization_id}:{kid}"


@transaction.atomic
def create(*, organization: Organization, actor: Actor) -> SigningKey:
    """A new active key; the caller has made sure that there is no other active one."""
    private = keys.generate()
    public = keys.public_key(private)
    kid = keys.kid(public)
    key = SigningKey.objects.create(
        organization=organization,
        kid=kid,
        public_key=public,
        private_key=vault.seal(private, context=_context(organization.pk, kid)),
    )
    audit.record("signing_key.create", actor=actor, scope=organization, resource=("signing_key", kid))
    published = encoding.canonical(key_set(organization.pk).document())
    organization.key_set_etag = hashlib.sha256(published).hexdigest()[:32]
    organization.save(update_fields=["key_set_etag"])
    return key


@transaction.atomic
def rotate(*, organization: Organization, actor: Actor) -> SigningKey:
    """A new active key; the one before goes on verifying as ``retiring``."""
    locked = SigningKey.objects.select_for_update().filter(organization=organization, status="active")
    for old in list(locked):
        old.status = SigningKey.Status.RETIRING
        old.save(update_fields=["status"])
        audit.record(
            "signing_key.retire",
            actor=actor,
            scope=organization,
            resource=("signing_key", old.kid),
            changes={"status": ["active", "retiring"]},
        )
    return create(organization=organization, actor=actor)


def key_set(organization_id: UUID) -> keys.KeySet:
    """All published keys, newest first."""
    rows = SigningKey.objects.filter(organization_id=organization_id).order_by("-id")
    return keys.KeySet(
        tuple(
            keys.PublicKey(bytes(row.public_key), keys.KeyStatus(row.status), row.not_before, row.not_after)
            for row in rows
        )
    )


def active_private_key(organization_id: UUID) -> bytes:
    """The raw private key that signs now. Keep it no longer than the signing takes."""
    row = SigningKey.objects.get(organization_id=organization_id, status=SigningKey.Status.ACTIVE)
    return vault.unseal(bytes(row.private_key), context=_context(organization_id, row.kid))
