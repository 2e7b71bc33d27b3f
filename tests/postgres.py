"""A pytest plugin: one embedded PostgreSQL for the whole run, unless BYTEOR_CLOUD_DATABASE_URL names another.

It is loaded by ``-p`` and does its work at import, since pytest-django reads the settings before any conftest.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from byteor_cloud.database import embedded
from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.cluster import copy_migrated

# The process that prepares the run sets this variable. Workers of xdist inherit it and do not prepare the run again.
_OWNER = "BYTEOR_TEST_OWNER"


def _keep_bytecode() -> None:
    """Cache compiled modules in the virtual environment if they must not be stored next to the sources.

    The tests start many processes, and a server without the cache takes much longer to start.
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
    hiding = Path(__file__).with_name("not_installed")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(hiding), os.environ.get("PYTHONPATH")]))
    folder = Path(tempfile.mkdtemp(prefix="byteor-test-"))
    folder.chmod(0o711)  # the server's account must have access to subfolders
    (folder / "static").mkdir()  # whitenoise warns if the folder is missing
    os.environ["BYTEOR_CLOUD_DATA_DIR"] = str(folder)
    # atexit instead of a pytest hook, because pytest calls no hook if it cannot read Django's settings. The handlers
    # run in reverse order: the last one registered runs first.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if "BYTEOR_CLOUD_DATABASE_URL" in os.environ:
        os.environ.setdefault("BYTEOR_CLOUD_MASTER_KEY", "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=")
        os.environ.setdefault("BYTEOR_CLOUD_SECRET_KEY", "test" * 10)
        return
    copy_migrated(folder)
    held = EmbeddedPostgres(folder)
    # Durability is off, because the data is temporary.
    with patch.dict(embedded._SETTINGS, fsync="off", full_page_writes="off"):
        os.environ["BYTEOR_EMBEDDED_DATABASE_URL"] = held.acquire()
    atexit.register(held.release)


_prepare()
