"""Helpers that several commands share, for migration, folders, the installation's URL and organizations."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import structlog
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Q

from apps.tenancy.models import Organization
from byteor_cloud.config import BindAddress, Config
from byteor_cloud.database.connections import direct_connection
from byteor_cloud.errors import Unavailable
from byteor_cloud.storage import data_folders

MIGRATION_LOCK = 7_226_190_001  # the id of an advisory lock: arbitrary, but equal in all processes
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  a comparison, not a bind
logger = structlog.get_logger(__name__)


def migrate() -> None:
    """Migrate the database. If several processes start at the same time, one migrates and the others wait."""
    # The lock belongs to a session, so it cannot be taken through a pooler. Closing the session releases it.
    with connection.wrap_database_errors, direct_connection() as session:
        session.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        call_command("migrate", interactive=False, verbosity=0)


def find_organization(text: str) -> Organization:
    """Return the organization with this id or slug. Raises CommandError if there is none."""
    try:
        is_named = Q(pk=UUID(text))
    except ValueError:
        is_named = Q(slug=text)
    organization = Organization.objects.filter(is_named).first()
    if organization is None:
        raise CommandError(f"there is no organization with the id or slug {text!r}", returncode=2)
    return organization


def bracketed(host: str) -> str:
    """Return the host as used in URLs and by gunicorn, with an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def create_folders() -> None:
    """Create the folders for temporary files. Raises CommandError if that fails, except for disk errors.

    A server with a full disk can still serve reads. Later, each use of a folder creates it.
    """
    try:
        data_folders.create()
    except Unavailable as error:
        raise CommandError(error.detail) from None
    except OSError as error:
        logger.warning("folders_not_created", error=error.strerror)


def origin(address: BindAddress) -> str:
    """Return the URL at which this host reaches a server that is bound to ``address``."""
    host, port = address
    return f"http://{bracketed(_WILDCARDS.get(host, host))}:{port}"


def public_url(current: Config) -> str:
    """Return the installation's URL: the setting, the address of a running server, or the configured address."""
    if current.public_base_url:
        return current.public_base_url
    with contextlib.suppress(OSError, ValueError):
        host, _, port = _address_file(current).read_text().rpartition(" ")
        with socket.create_connection((_WILDCARDS.get(host, host), int(port)), timeout=1):
            return origin((host, int(port)))
    return origin(current.api_bind_addr)


@contextmanager
def publish_address(current: Config) -> Iterator[None]:
    """Write this server's address into the data folder while the block runs, for ``public_url`` in other commands."""
    host, port = current.api_bind_addr
    with contextlib.suppress(OSError):  # on a full disk, other commands use the settings
        _address_file(current).write_text(f"{host} {port}")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _address_file(current).unlink(missing_ok=True)


def _address_file(current: Config) -> Path:
    return current.data_dir / "serving"
