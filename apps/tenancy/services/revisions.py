"""Edit rows with optimistic concurrency: lock the row, compare its revision, save, and record an audit event."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.models import Revisioned
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import PreconditionFailed
from byteor_cloud.json_text import JsonText, parsed


def is_same_json(one: object, other: object) -> bool:
    """Return whether two values are equal as JSON. Unlike in Python, ``True`` and ``1`` differ."""
    if isinstance(one, JsonText) or isinstance(other, JsonText):
        return one == other or is_same_json(parsed(one), parsed(other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(is_same_json(*pair) for pair in zip(one, other, strict=True))
    return one == other


def lock_revision[R: Revisioned](row: R, expected: int | None) -> R:
    """Lock the row and return it.

    Raises NotFound if it was deleted, and PreconditionFailed if its revision is not ``expected`` (None: any).
    """
    locked = lock_row(row)
    if expected is not None and locked.revision != expected:
        raise PreconditionFailed("The resource has changed since you read it. Read it again and repeat the request.")
    return locked


def _to_json(value: object) -> object:
    if isinstance(value, bytes | memoryview):  # the value of a SealedField
        return "(encrypted)"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, UUID) else value


@transaction.atomic
def edit[R: Revisioned](
    row: R,
    values: Mapping[str, Any],
    *,
    kind: str,
    scope: audit.Scope,
    actor: Actor,
    expected_revision: int | None = None,
    unaudited: Collection[str] = (),
) -> R:
    """Set ``values`` and record one audit event with the old and new values of changed fields, except ``unaudited``.

    If every value is already set, nothing is saved or recorded. Raises the errors of ``lock_revision``.
    """
    locked = lock_revision(row, expected_revision)
    changes = {
        name: [getattr(locked, name), value]
        for name, value in values.items()
        if not is_same_json(getattr(locked, name), value)
    }
    if not changes:
        return locked
    for name, (_, value) in changes.items():
        setattr(locked, name, value)
    locked.revision += 1
    locked.updated_at = timezone.now()
    locked.save(update_fields=[*changes, "revision", "updated_at"])
    audited = {name: [_to_json(value) for value in change] for name, change in changes.items() if name not in unaudited}
    audit.record(f"{kind}.update", actor=actor, scope=scope, resource=(kind, locked.pk), changes=audited)
    return locked
