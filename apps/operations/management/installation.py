"""What the commands share: the database brought up to date, and where the site is."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Q

from apps.tenancy.models import Organization
from byteor_cloud.config import Address, Config

MIGRATION_LOCK = 7_226_190_001  # any number, the same in every process
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  a comparison, not a bind


def migrate() -> None:
    """Bring the database up to date: one process does, the others wait for it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            call_command("migrate", interactive=False, verbosity=0)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])


def organization_named(text: str) -> Organization:
    """The organization of this id or slug. Raises CommandError."""
    try:
        named = Q(pk=UUID(text))
    except ValueError:
        named = Q(slug=text)
    organization = Organization.objects.filter(named).first()
    if organization is None:
        raise CommandError(f"there is no organization {text!r}", returncode=2)
    return organization


def bracketed(host: str) -> str:
    """``host`` as URLs and gunicorn write it."""
    return f"[{host}]" if ":" in host else host


def origin(address: Address) -> str:
    """The URL at which a server bound to ``address`` is reached from this machine."""
    host, port = address
    return f"http://{bracketed(_WILDCARDS.get(host, host))}:{port}"


def site(current: Config) -> str:
    """Where the site is, as far as a command can know: a server that runs on this data folder says where it listens."""
    if current.public_base_url:
        return current.public_base_url
    with contextlib.suppress(OSError, ValueError):
        host, _, port = _note(current).read_text().rpartition(" ")
        with socket.create_connection((_WILDCARDS.get(host, host), int(port)), timeout=1):
            return origin((host, int(port)))
    return origin(current.api_bind_addr)


@contextmanager
def noted(current: Config) -> Iterator[None]:
    """Tell the other commands on this data folder where this server listens (``site``)."""
    host, port = current.api_bind_addr
    with contextlib.suppress(OSError):  # a full disk: the others then believe the settings
        _note(current).write_text(f"{host} {port}")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _note(current).unlink(missing_ok=True)


def _note(current: Config) -> Path:
    return current.data_dir / "serving"
