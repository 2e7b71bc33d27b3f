"""Signing keys of organizations and of the installation. A key is published, then used to sign, then retired.

A private key leaves the vault only to sign. The installation's key (no organization) signs the checkpoints of the
installation's own audit chain.

A key's status follows from its times (``SigningKey.status_at``), so that all readers see the status change at the same
moment. The worker, a rotation or a retirement then stores the status, records the audit event and updates the ETag in
heartbeat responses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import Environment, Organization, SigningKey
from apps.tenancy.services import audit, vault
from apps.tenancy.services.state import lock_row
from byteor.engine import canonical
from byteor.engine.signing import keys
from byteor.engine.signing.keys import KeyStatus
from byteor_cloud.database.large_columns import each_row
from byteor_cloud.errors import Conflict, IllegalTransition

# The service itself hardly needs a replaced key: envelopes are signed on request, and credentials are checked against
# the time at which they were signed. The week is for key sets that people downloaded to verify files elsewhere.
RETIRE_IN_S = 7 * 86_400
_MIN_ACTIVATION_DELAY_S = 60
_INSTALLATION_LOCK = 7_226_190_005  # an arbitrary lock number, the same in every process
# The number of heartbeat intervals before a new key signs. Heartbeats may be lost, and are less frequent under load.
_HEARTBEATS_AWAITED = 3
_EVENTS = {
    KeyStatus.ACTIVE: "signing_key.activate",
    KeyStatus.RETIRING: "signing_key.supersede",
    KeyStatus.RETIRED: "signing_key.retire",
}


@transaction.atomic
def create(*, organization: Organization, actor: Actor) -> SigningKey:
    """Create the first key of a new organization, which is active immediately."""
    key = _create(organization, KeyStatus.ACTIVE, not_before=timezone.now(), actor=actor)
    _store_etag(organization)
    return key


@transaction.atomic
def ensure_installation_key() -> None:
    """Create the installation's signing key, active immediately, if there is none. Concurrent calls are safe."""
    _lock(None)
    if not SigningKey.objects.filter(organization=None).exists():
        _create(None, KeyStatus.ACTIVE, not_before=timezone.now(), actor=system_actor("signing_keys"))


@transaction.atomic
def rotate(
    *,
    organization: Organization | None,
    activate_in_s: int | None = None,
    retire_in_s: int = RETIRE_IN_S,
    actor: Actor,
) -> SigningKey:
    """Create and publish the next key of an organization (None: of the installation).

    The next key starts to sign after ``activate_in_s`` seconds, by default when online agents have had time to get it.
    No agent needs the installation's key, so by default its next key signs immediately. The replaced key is retired
    ``retire_in_s`` seconds after the next key has started to sign. Raises Conflict if a next key already exists.
    """
    locked = _lock(organization)
    now = timezone.now()
    _update_due_statuses(locked, now, actor=actor)
    if SigningKey.objects.filter(organization=locked, status=KeyStatus.NEXT).exists():
        raise Conflict("A next key already exists. Retire that key to withdraw it.", code="signing_key.next_waits")
    wait_s = _activation_delay_s(locked) if activate_in_s is None else activate_in_s
    starts = now + timedelta(seconds=wait_s)
    old = SigningKey.objects.get(organization=locked, status=KeyStatus.ACTIVE)
    old.signs_until, old.not_after = starts, starts + timedelta(seconds=retire_in_s)
    old.save(update_fields=["signs_until", "not_after"])
    replaced = {"replaces": old.kid, "which_ends": canonical.format_time(old.not_after)}
    key = _create(locked, KeyStatus.NEXT, not_before=starts, actor=actor, **replaced)
    _update_due_statuses(locked, now, actor=actor)
    _store_etag(locked)
    key.refresh_from_db()
    return key


@transaction.atomic
def retire(key: SigningKey, *, reason: str, actor: Actor) -> SigningKey:
    """Retire a retiring key immediately, or withdraw the next key.

    A signature that contains its time still verifies if it was made before the key was retired. A withdrawn key
    verifies nothing, because it has never signed. Raises Conflict for the active key, and IllegalTransition for a key
    that is already retired.
    """
    organization = _lock(key.organization)
    now = timezone.now()
    _update_due_statuses(organization, now, actor=actor)
    key = SigningKey.objects.get(pk=key.pk)
    match KeyStatus(key.status):
        case KeyStatus.ACTIVE:
            detail = (
                "This key is active. It can be retired after a next key has replaced it. To create a next key, rotate "
                "the signing key."
            )
            raise Conflict(detail, code="signing_key.active")
        case KeyStatus.RETIRED:
            raise IllegalTransition("This key is already retired.")
        case KeyStatus.RETIRING:
            key.not_after = now
        case KeyStatus.NEXT:
            # A retired key without any time between these moments is trusted for no signature (``PublicKey.trusts``).
            key.not_before = key.not_after = key.created_at
            SigningKey.objects.filter(organization=organization, status=KeyStatus.ACTIVE).update(
                signs_until=None, not_after=None
            )
    key.save(update_fields=["not_before", "not_after"])
    _save_status(key, KeyStatus.RETIRED, actor=actor, reason=reason)
    _store_etag(organization)
    return key


def update_all_statuses() -> None:
    """Update the stored status of all keys that became active, retiring or retired, including the installation's."""
    due = SigningKey.objects.due(timezone.now()).order_by()
    for organization_id in due.values_list("organization_id", flat=True).distinct():
        update_statuses(organization_id)


@transaction.atomic
def update_statuses(organization_id: UUID | None) -> None:
    """Update the stored key statuses of an organization (None: of the installation), and record audit events.

    For an organization, also update the stored ETag.
    """
    organization = _lock(None if organization_id is None else Organization(pk=organization_id))
    _update_due_statuses(organization, timezone.now(), actor=system_actor("signing_keys"))
    _store_etag(organization)


def key_set(organization_id: UUID | None) -> keys.KeySet:
    """Return all keys of an organization (None: of the installation) with their current status, newest first."""
    now = timezone.now()
    rows = SigningKey.objects.filter(organization=organization_id).order_by("-id")
    return keys.KeySet(
        tuple(keys.PublicKey(bytes(row.public_key), row.status_at(now), row.not_before, row.not_after) for row in rows)
    )


def etag(key_set: keys.KeySet) -> str:
    """Return the ETag of a published key set."""
    return hashlib.sha256(canonical.canonical(key_set.document())).hexdigest()[:32]


def find_active(organization_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Return the id of the key that signs for each of these organizations."""
    now = timezone.now()
    rows = SigningKey.objects.filter(organization__in=organization_ids, private_key__isnull=False).defer("private_key")
    return {row.organization_id: row.pk for row in rows if row.status_at(now) is KeyStatus.ACTIVE}


def active_private_key(organization_id: UUID | None) -> bytes:
    """Return the raw private key that signs for an organization (None: the installation). Discard it after signing."""
    now = timezone.now()
    rows = SigningKey.objects.filter(organization=organization_id, private_key__isnull=False)
    return vault.unseal(next(row for row in rows if row.status_at(now) is KeyStatus.ACTIVE), "private_key")


def _lock(organization: Organization | None) -> Organization | None:
    """Lock the keys of an organization (None: of the installation) until the transaction ends."""
    if organization is not None:
        return lock_row(organization)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_INSTALLATION_LOCK])
    return None


def _activation_delay_s(organization: Organization | None) -> int:
    """Return the seconds in which online agents should send a heartbeat, whose response announces a new key.

    Returns 0 for the installation, because no agent needs its key.
    """
    if organization is None:
        return 0
    environments = Environment.objects.live().filter(project__organization=organization)
    intervals = [environment.effective_settings.heartbeat_interval_s for environment in each_row(environments)]
    return max(_MIN_ACTIVATION_DELAY_S, _HEARTBEATS_AWAITED * max(intervals, default=0))


def _create(
    organization: Organization | None, status: KeyStatus, *, not_before: datetime, actor: Actor, **more_changes: str
) -> SigningKey:
    private = keys.generate()
    public = keys.public_key(private)
    key = SigningKey(
        organization=organization, kid=keys.kid(public), public_key=public, status=status, not_before=not_before
    )
    vault.seal(key, "private_key", private)
    key.save()
    changes = {"status": [None, status], "not_before": canonical.format_time(not_before), **more_changes}
    audit.record(
        "signing_key.create", actor=actor, scope=organization, resource=("signing_key", key.kid), changes=changes
    )
    return key


def _update_due_statuses(organization: Organization | None, now: datetime, *, actor: Actor) -> None:
    """Update the stored status of each key that is due. The caller must hold the lock of ``_lock``."""
    due = SigningKey.objects.filter(organization=organization).due(now).order_by("id")
    # The key that was active must be saved before the next key, since only one key may be active. The order of their
    # ids does not ensure this, because a clock may have stepped back between their creation.
    for key in sorted(due, key=lambda key: key.status == KeyStatus.NEXT):
        _save_status(key, key.status_at(now), actor=actor)


def _save_status(key: SigningKey, status: KeyStatus, *, actor: Actor, **more_changes: str) -> None:
    changes = {"status": [key.status, status], **more_changes}
    key.status = status
    if status is KeyStatus.RETIRED:
        key.private_key = None
    key.save(update_fields=["status", "private_key"])
    audit.record(
        _EVENTS[status], actor=actor, scope=key.organization, resource=("signing_key", key.kid), changes=changes
    )


def _store_etag(organization: Organization | None) -> None:
    """Store the ETag of an organization's key set. Does nothing for the installation (None)."""
    if organization is None:
        return
    organization.key_set_etag = etag(key_set(organization.pk))
    organization.save(update_fields=["key_set_etag"])
