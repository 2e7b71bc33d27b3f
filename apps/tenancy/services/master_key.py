"""Rotation of the master key: encrypt all stored secrets under the new key."""

from __future__ import annotations

import time

from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg.errors import LockNotAvailable

from apps.tenancy.actors import Actor
from apps.tenancy.models import MasterKey
from apps.tenancy.models.sealed_field import SealedField, sealed_fields
from apps.tenancy.services import audit, vault

BATCH_SIZE = 500  # rows read and written per statement
MAX_NAMED = 20  # maximum number of values listed in an error
LOCK_TIMEOUT_MS = 200  # less than PostgreSQL's deadlock_timeout, which is 1 s by default
PAUSE_S = 0.2  # seconds before the next attempt


def reseal(*, actor: Actor) -> dict[str, int]:
    """Encrypt every value under this host's current master key, and make this key the installation's.

    Returns the number of changed values by column, without unchanged columns. Changes all values or none, and is
    idempotent. Raises MasterKeyUnavailable if this host does not have the installation's key, and VaultError if some
    values can be decrypted with neither of the host's keys.
    """
    while True:
        try:
            return _reseal(actor)
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
        # Another transaction has locked a value, and may be waiting for the lock on the key. The rollback has released
        # that lock, so the other transaction can finish before the next attempt.
        time.sleep(PAUSE_S)


@transaction.atomic
def _reseal(actor: Actor) -> dict[str, int]:
    vault.ensure_key()
    # Each transaction that encrypts a value holds a share lock on this row, so no new values appear from now on.
    stored = MasterKey.objects.select_for_update().get()
    vault.ensure_key()  # another rotation may have finished in the meantime
    counts: dict[str, int] = {}
    lost: list[str] = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{LOCK_TIMEOUT_MS}ms"])
    for field in sealed_fields():
        if changed := _reseal_column(field, lost):
            counts[str(field)] = changed
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout TO DEFAULT")
    if lost:
        more = f" and {len(lost) - MAX_NAMED} more" if len(lost) > MAX_NAMED else ""
        raise vault.VaultError(
            f"neither {vault.SETTINGS} decrypts {', '.join(lost[:MAX_NAMED])}{more}. If a host with a third key"
            " encrypted these values, first run this command with the installation's present key as the master key and"
            " the key of that host as the previous key"
        )
    old, new = stored.key_id, vault.own_key_ids()[0]
    if new != old:
        stored.key_id, stored.previous_key_id, stored.since = new, old, timezone.now()
        stored.save()
    if counts or new != old:
        changes = {"key_id": [old, new], "values": counts}
        audit.record("master_key.rotate", actor=actor, scope=None, resource=vault.RESOURCE, changes=changes)
    return counts


def _reseal_column(field: SealedField, lost: list[str]) -> int:
    """Encrypt the column's values again and return how many changed. Add those that no key decrypts to ``lost``."""
    rows = field.model._base_manager.exclude(**{field.attname: None}).select_for_update(of=("self",), no_key=True)
    count = 0
    changed = []
    for row in rows.order_by("pk").iterator(chunk_size=BATCH_SIZE):
        try:
            if vault.reseal(row, field):
                changed.append(row)
        except vault.VaultError:
            lost.append(f"{field} of {row.pk}")
        if len(changed) == BATCH_SIZE:
            count += field.model._base_manager.bulk_update(changed, [field.attname])
            changed = []
    return count + field.model._base_manager.bulk_update(changed, [field.attname])
