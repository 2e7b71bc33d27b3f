"""Steps of tests about hosts: store a host with certain master keys, rotate the key, read rows that must not change."""

from __future__ import annotations

from io import StringIO
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management import call_command

from apps.tenancy.models import AuditEvent, Host, IdempotencyKey, MasterKey, OrganizationKey, SigningKey, Webhook
from apps.tenancy.services import vault
from byteor_cloud.config import read_key

OLD = read_key(settings.CONFIG.master_key) or b""
NEW, THIRD = b"n" * 32, b"t" * 32


def announce(name: str, current: bytes, previous: bytes | None = None, **more: Any) -> UUID:
    """Store a host with these keys. It counts as running unless an old ``last_seen`` is passed."""
    row = Host.objects.create(
        name=name, data_dir="/srv", mode="api", key_id=vault.key_id(current),
        previous_key_id="" if previous is None else vault.key_id(previous), **{"has_key_files": False, **more},
    )  # fmt: skip
    return row.pk


def rotate_master_key(*argv: str) -> list[str]:
    """Run the command, and return the lines that it prints."""
    out = StringIO()
    call_command("rotate_master_key", *argv, stdout=out)
    return out.getvalue().splitlines()


def everything() -> list[Any]:
    """Return the rows that a refused rotation or request must not change."""
    models = (SigningKey, Webhook, IdempotencyKey, AuditEvent, MasterKey, OrganizationKey)
    return [list(model._base_manager.order_by("pk").values()) for model in models]
