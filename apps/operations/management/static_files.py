"""Collects and compresses the console's static files in the data folder, from which the API serves them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping

import structlog
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

logger = structlog.get_logger(__name__)


def collect() -> Mapping[str, str]:
    """Collect the files if they have changed. Returns environment variables that the API needs in addition, if any."""
    mark, found = settings.STATIC_ROOT.with_name("static.collected"), _fingerprint()
    try:
        if settings.STATIC_ROOT.is_dir() and mark.exists() and mark.read_text() == found:
            return {}
        mark.unlink(missing_ok=True)  # an interrupted collection must not count as complete
        call_command("collectstatic", interactive=False, verbosity=0)
        mark.write_text(found)
    except OSError as error:
        # On a full disk, serve the installed files uncompressed. Delete the collected files, because an incomplete file
        # would count as up to date at the next start.
        logger.warning("static_files_not_collected", error=str(error))
        shutil.rmtree(settings.STATIC_ROOT, ignore_errors=True)
        return {settings.STATIC_FROM_SOURCES: "1"}
    return {}


def _fingerprint() -> str:
    """Return a hash of the names, sizes and modification times of all installed static files."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage in finder.list([]):
            stat = os.stat(storage.path(name))
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
