"""Rotation of the master key: every encrypted value is encrypted again."""

from __future__ import annotations

import time

from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg.errors import LockNotAvailable

from apps.tenancy.actors import Actor
from apps.tenancy.models import MasterKey
from apps.tenancy.models.sealed_field import SealedField, sealed_fields
from apps.tenancy.services import audit, vault

AT_ONCE = 500
MAX_NAMED = 20  # the values that an error names
LOCK_TIMEOUT_MS = 200  # less than PostgreSQL's deadlock_timeout of 1 s
PAUSE_S = 0.2


def reseal(*, actor: Actor) -> dict[str, int]:
    """Encrypt every value under this host's current master key, and make that the installation's key.

    Returns how many values of each kind were encrypted under another key before. It changes all values or none, and may
    be repeated. Raises MasterKeyUnavailable if this host has not had the installation's key, and VaultError if there
    are values that neither key decrypts.
    """
    while True:
        try:
            return _reseal(actor)
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
        # Somebody locked a value and now waits for the lock on the key, which is free again.
        time.sleep(PAUSE_S)


@transaction.atomic
def _reseal(actor: Actor) -> dict[str, int]:
    vault.ensure_key()
    # Whoever encrypts a value holds this lock until it is committed, so from now on there are no new values.
    stored = MasterKey.objects.select_for_update().get()
    vault.ensure_key()  # another rotation may have ended meanwhile
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
            f"neither {vault.SETTINGS} decrypts {', '.join(lost[:MAX_NAMED])}{more}. A host with a third key may have"
            f" encrypted them: set its key as the previous one, and try again"
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
    """Return how many values of the column were changed. Append to ``lost`` what cannot be decrypted."""
    rows = field.model._base_manager.exclude(**{field.attname: None}).select_for_update(of=("self",), no_key=True)
    count = 0
    changed = []
    for row in rows.order_by("pk").iterator(chunk_size=AT_ONCE):
        try:
            if vault.reseal(row, field):
                changed.append(row)
        except vault.VaultError:
            lost.append(f"{field} of {row.pk}")
        if len(changed) == AT_ONCE:
            count += field.model._base_manager.bulk_update(changed, [field.attname])
            changed = []
    return count + field.model._base_manager.bulk_update(changed, [field.attname])
