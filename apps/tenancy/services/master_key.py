"""Rotation of the master key: every encrypted value is encrypted again."""

from __future__ import annotations

from django.db import transaction

from apps.tenancy import audit, vault
from apps.tenancy.actors import Actor


@transaction.atomic
def reseal(*, actor: Actor) -> int:
    """Encrypt every value under the current master key that is still under the previous one; return how many.

    It changes all values or none, and may be repeated. Raises VaultError for a value that neither key opens.
    """
    counts: dict[str, int] = {}
    for field in vault.sealed_fields():
        rows = field.model._base_manager.exclude(**{field.attname: None}).select_for_update(of=("self",), no_key=True)
        for row in rows.order_by("pk").iterator(chunk_size=500):
            if vault.reseal(row, field):
                row.save(update_fields=[field.attname])
                counts[str(field)] = counts.get(str(field), 0) + 1
    if counts:
        audit.record("master_key.rotate", actor=actor, scope=None, resource=("master_key", "vault"), changes=counts)
    return sum(counts.values())
