"""A pytest plugin: one embedded PostgreSQL for the whole run, unless BYTEOR_CLOUD_DATABASE_URL names another.

It is loaded by ``-p`` and works while it is imported, since pytest-django reads the settings before any conftest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from byteor_cloud.embedded import EmbeddedPostgres

# xdist's workers inherit what their controller has set.
_OWNER = "BYTEOR_TEST_OWNER"


def _prepare() -> EmbeddedPostgres | None:
    if _OWNER in os.environ:
        return None
    os.environ[_OWNER] = str(os.getpid())
    folder = Path(tempfile.mkdtemp(prefix="byteor-test-"))
    folder.chmod(0o711)  # the server's account must be able to pass
    (folder / "static").mkdir()  # whitenoise warns without it
    os.environ["BYTEOR_CLOUD_DATA_DIR"] = str(folder)
    if "BYTEOR_CLOUD_DATABASE_URL" in os.environ:
        os.environ.setdefault("BYTEOR_CLOUD_MASTER_KEY", "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=")
        os.environ.setdefault("BYTEOR_CLOUD_SECRET_KEY", "test" * 10)
        return None
    held = EmbeddedPostgres(folder)
    os.environ["BYTEOR_EMBEDDED_DATABASE_URL"] = held.acquire()
    return held


_held = _prepare()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server that this process started."""
    if os.environ.get(_OWNER) == str(os.getpid()):
        if _held is not None:
            _held.release()
        shutil.rmtree(os.environ["BYTEOR_CLOUD_DATA_DIR"], ignore_errors=True)
