"""A pytest plugin: one embedded PostgreSQL for the whole run, unless BYTEOR_CLOUD_DATABASE_URL names another.

It is loaded by ``-p`` and works while it is imported, since pytest-django reads the settings before any conftest.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from byteor_cloud import embedded
from byteor_cloud.embedded import EmbeddedPostgres

# xdist's workers inherit what their controller has set.
_OWNER = "BYTEOR_TEST_OWNER"


def _keep_bytecode() -> None:
    """Keep compiled modules in the environment's folder, where it is forbidden to keep them beside the sources.

    The tests start a hundred processes. Compiling what a server imports takes longer than all the rest of its start.
    """
    if sys.dont_write_bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(Path(sys.prefix, "bytecode"))


def _prepare() -> None:
    if _OWNER in os.environ:
        return
    os.environ[_OWNER] = str(os.getpid())
    _keep_bytecode()
    folder = Path(tempfile.mkdtemp(prefix="byteor-test-"))
    folder.chmod(0o711)  # the server's account must be able to pass
    (folder / "static").mkdir()  # whitenoise warns without it
    os.environ["BYTEOR_CLOUD_DATA_DIR"] = str(folder)
    # At the exit, and not in a hook: pytest calls none when Django's settings can't be read. The last one in is first.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if "BYTEOR_CLOUD_DATABASE_URL" in os.environ:
        os.environ.setdefault("BYTEOR_CLOUD_MASTER_KEY", "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=")
        os.environ.setdefault("BYTEOR_CLOUD_SECRET_KEY", "test" * 10)
        return
    held = EmbeddedPostgres(folder)
    # Nothing of it need survive a power cut; transactional tests empty every table, each of which is a file or several.
    with patch.dict(embedded._SETTINGS, fsync="off", full_page_writes="off"):
        os.environ["BYTEOR_EMBEDDED_DATABASE_URL"] = held.acquire()
    atexit.register(held.release)


_prepare()
