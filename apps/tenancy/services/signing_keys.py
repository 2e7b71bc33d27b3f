"""Signing keys of organizations and of the installation: published, then used, then retired.

The private half leaves the vault only to sign. The installation's (no organization) signs its own ledger's checkpoints.

What a key is follows from its times alone (``SigningKey.status_at``), so that everybody who reads sees the same change
at the same moment. The worker notes it afterwards: the status, the audit event, the ETag that heartbeats carry.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from apps.tenancy import audit, vault
from apps.tenancy.actors import Actor, system
from apps.tenancy.models import Environment, Organization, SigningKey
from apps.tenancy.state import lock
from byteor_cloud.engine.delivery import encoding, keys
from byteor_cloud.engine.delivery.keys import KeyStatus
from byteor_cloud.errors import Conflict, IllegalTransition

# Envelopes are signed when they are asked for and credentials are judged by their own time: a week is for sets of
# files that somebody took away to verify elsewhere.
RETIRE_IN_S = 7 * 86_400
_SOONEST_S = 60
_INSTALLATION = 7_226_190_005  # the lock of the installation's keys: any number, the same in every process
_BEATS = 3  # one may be lost, and the interval is stretched under load
_EVENTS = {
    KeyStatus.ACTIVE: "signing_key.activate",
    KeyStatus.RETIRING: "signing_key.supersede",
    KeyStatus.RETIRED: "signing_key.retire",
}


@transaction.atomic
def create(*, organization: Organization, actor: Actor) -> SigningKey:
    """A new organization's first key, active at once."""
    key = _make(organization, KeyStatus.ACTIVE, not_before=timezone.now(), actor=actor)
    _publish(organization)
    return key


@transaction.atomic
def ensure_installation_key() -> None:
    """Make the installation's first signing key, active at once, unless it is there. Safe to race."""
    _lock(None)
    if not SigningKey.objects.filter(organization=None).exists():
        _make(None, KeyStatus.ACTIVE, not_before=timezone.now(), actor=system("signing_keys"))


@transaction.atomic
def rotate(
    *,
    organization: Organization | None,
    activate_in_s: int | None = None,
    retire_in_s: int = RETIRE_IN_S,
    actor: Actor,
) -> SigningKey:
    """A new key, published now; it signs after ``activate_in_s`` seconds, by default when all agents have seen it.

    Without an organization it is the installation's, which no agent has to see: it signs at once. The one before goes
    on verifying for ``retire_in_s`` seconds more. Raises Conflict while a next one waits.
    """
    locked = _lock(organization)
    now = timezone.now()
    _note(locked, now, actor=actor)
    if SigningKey.objects.filter(organization=locked, status=KeyStatus.NEXT).exists():
        raise Conflict("A next key waits already; retire it to withdraw it.", code="signing_key.next_waits")
    wait_s = _time_to_be_seen_s(locked) if activate_in_s is None else activate_in_s
    starts = now + timedelta(seconds=wait_s)
    old = SigningKey.objects.get(organization=locked, status=KeyStatus.ACTIVE)
    old.signs_until, old.not_after = starts, starts + timedelta(seconds=retire_in_s)
    old.save(update_fields=["signs_until", "not_after"])
    replaced = {"replaces": old.kid, "which_ends": encoding.format_time(old.not_after)}
    key = _make(locked, KeyStatus.NEXT, not_before=starts, actor=actor, **replaced)
    _note(locked, now, actor=actor)
    _publish(locked)
    key.refresh_from_db()
    return key


@transaction.atomic
def retire(key: SigningKey, *, reason: str, actor: Actor) -> SigningKey:
    """End a retiring key now, or withdraw the next one. Raises Conflict for the active one: rotate first.

    What a retired key signed before still verifies, as far as it says when; a withdrawn one has signed nothing.
    """
    organization = _lock(key.organization)
    now = timezone.now()
    _note(organization, now, actor=actor)
    key = SigningKey.objects.get(pk=key.pk)
    match KeyStatus(key.status):
        case KeyStatus.ACTIVE:
            raise Conflict("This key signs now: rotate first.", code="signing_key.active")
        case KeyStatus.RETIRED:
            raise IllegalTransition("This key is retired already.")
        case KeyStatus.RETIRING:
            key.not_after = now
        case KeyStatus.NEXT:
            # Not even what claims to be older than the withdrawal: nothing may have been signed with it.
            key.not_before = key.not_after = key.created_at
            SigningKey.objects.filter(organization=organization, status=KeyStatus.ACTIVE).update(
                signs_until=None, not_after=None
            )
    key.save(update_fields=["not_before", "not_after"])
    _advance(key, KeyStatus.RETIRED, actor=actor, reason=reason)
    _publish(organization)
    return key


def note_all() -> None:
    """Note what time has brought about since, in every organization and of the installation's keys."""
    due = SigningKey.objects.due(timezone.now()).order_by()
    for organization_id in due.values_list("organization_id", flat=True).distinct():
        note(organization_id)


@transaction.atomic
def note(organization_id: UUID | None) -> None:
    """Note what time has brought about since: a key that became active, one that was retired."""
    organization = _lock(None if organization_id is None else Organization(pk=organization_id))
    _note(organization, timezone.now(), actor=system("signing_keys"))
    _publish(organization)


def key_set(organization_id: UUID | None) -> keys.KeySet:
    """Return all published keys of an organization, or (None) of the installation, as they are now, newest first."""
    now = timezone.now()
    rows = SigningKey.objects.filter(organization=organization_id).order_by("-id")
    return keys.KeySet(
        tuple(keys.PublicKey(bytes(row.public_key), row.status_at(now), row.not_before, row.not_after) for row in rows)
    )


def etag(key_set: keys.KeySet) -> str:
    """The ETag of a published key set."""
    return hashlib.sha256(encoding.canonical(key_set.document())).hexdigest()[:32]


def active_private_key(organization_id: UUID | None) -> bytes:
    """Return the raw private key that signs now. Keep it no longer than the signing takes."""
    now = timezone.now()
    rows = SigningKey.objects.filter(organization=organization_id, private_key__isnull=False)
    return vault.unseal(next(row for row in rows if row.status_at(now) is KeyStatus.ACTIVE), "private_key")


def _lock(organization: Organization | None) -> Organization | None:
    """Lock the keys of an organization, or (None) of the installation, until the transaction ends."""
    if organization is not None:
        return lock(organization)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_INSTALLATION])
    return None


def _time_to_be_seen_s(organization: Organization | None) -> int:
    """How long until every agent that is there has beaten, and so has fetched what was published before."""
    if organization is None:
        return 0
    environments = Environment.objects.live().filter(project__organization=organization)
    intervals = [environment.effective_settings.heartbeat_interval_s for environment in environments]
    return max(_SOONEST_S, _BEATS * max(intervals, default=0))


def _make(
    organization: Organization | None, status: KeyStatus, *, not_before: datetime, actor: Actor, **said: str
) -> SigningKey:
    private = keys.generate()
    public = keys.public_key(private)
    key = SigningKey(
        organization=organization, kid=keys.kid(public), public_key=public, status=status, not_before=not_before
    )
    vault.seal(key, "private_key", private)
    key.save()
    changes = {"status": [None, status], "not_before": encoding.format_time(not_before), **said}
    audit.record(
        "signing_key.create", actor=actor, scope=organization, resource=("signing_key", key.kid), changes=changes
    )
    return key


def _note(organization: Organization | None, now: datetime, *, actor: Actor) -> None:
    """Bring every status in line with its key's times; the caller holds the organization's lock."""
    due = SigningKey.objects.filter(organization=organization).due(now).order_by("id")
    # The active one steps down before the next one takes over; ids don't tell which that is where a clock stepped back.
    for key in sorted(due, key=lambda key: key.status == KeyStatus.NEXT):
        _advance(key, key.status_at(now), actor=actor)


def _advance(key: SigningKey, status: KeyStatus, *, actor: Actor, **said: str) -> None:
    changes = {"status": [key.status, status], **said}
    key.status = status
    if status is KeyStatus.RETIRED:
        key.private_key = None
    key.save(update_fields=["status", "private_key"])
    audit.record(
        _EVENTS[status], actor=actor, scope=key.organization, resource=("signing_key", key.kid), changes=changes
    )


def _publish(organization: Organization | None) -> None:
    """Tell the agents, by the ETag in their next heartbeat, that the set is another one."""
    if organization is None:
        return
    organization.key_set_etag = etag(key_set(organization.pk))
    organization.save(update_fields=["key_set_etag"])
