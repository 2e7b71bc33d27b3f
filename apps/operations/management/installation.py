"""Helpers that several commands share, for migration, folders and organizations."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import structlog
from django.core.management import CommandError, call_command

from apps.tenancy.models import Organization
from byteor_cloud.backup import unfinished
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.errors import Unavailable
from byteor_cloud.storage import data_folders

MIGRATION_LOCK = 7_226_190_001  # the id of an advisory lock: arbitrary, but equal in all processes
logger = structlog.get_logger(__name__)


def migrate() -> None:
    """Migrate the database. If several processes start at the same time, one migrates and the others wait."""
    call_command("migrate", interactive=False, verbosity=0)


def check_restored() -> None:
    """Raise CommandError if a restore of the database is unfinished."""
    try:
        unfinished.check()
    except BackupError as error:
        raise CommandError(str(error)) from None


def find_organization(text: str) -> Organization:
    """Return the organization with this id or slug. Raises CommandError if there is none."""
    organization = None
    with suppress(ValueError):  # not an id
        organization = Organization.objects.filter(pk=UUID(text)).first()
    organization = organization or Organization.objects.filter(slug=text).first()
    if organization is None:
        raise CommandError(f"there is no organization with the id or slug {text!r}", returncode=2)
    return organization


def create_folders() -> None:
    """Create the folders for temporary and derived files. Raises CommandError if a folder is unusable.

    Disk errors are only logged, because a server with a full disk can still serve reads. Each later use of a folder
    creates it if it is missing.
    """
    try:
        data_folders.create()
    except Unavailable as error:
        raise CommandError(error.detail) from None
    except OSError as error:
        logger.warning("folders_not_created", error=error.strerror)
