"""A database cluster in which all migrations are applied. It is kept in the virtual environment for later test runs.

It is created again when the migrations, the modules that they import directly, the settings or the locked packages
change. Creating it takes longer than running most test files. Most embedded servers of the tests start with a copy of
it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from byteor_cloud.database import embedded_files

ROOT = Path(__file__).parents[1]
KEPT = Path(sys.prefix, "clusters")
_MIGRATE = """
from byteor_cloud import command_line
assert command_line.run(["manage.py", "migrate", "--verbosity", "0"]) == 0
"""
_IMPORTED = re.compile(r"^(?:from|import) ((?:byteor|byteor_cloud|apps)[.\w]*)", re.MULTILINE)


def copy_migrated(data_dir: Path) -> None:
    """Put a migrated cluster into a data folder that has none."""
    target = embedded_files.find_home(data_dir) / "data"
    KEPT.mkdir(exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = KEPT / _digest()
        if not kept.exists():
            for outdated in KEPT.glob("?" * len(kept.name)):
                shutil.rmtree(outdated)
            _make(kept)
        # When root copies the files, they must keep their owner, which is the account of the database server.
        subprocess.run(["cp", "-a", kept, target], check=True)


def _digest() -> str:
    """Return a digest of the migrations, the modules that they import directly, the settings and the packages."""
    hashed = hashlib.sha256()
    for file in [ROOT / "requirements/dev.lock", ROOT / "byteor_cloud/settings.py", *_sources()]:
        content = file.read_bytes()
        hashed.update(f"{file.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return hashed.hexdigest()


def _sources() -> Iterator[Path]:
    migrations = sorted((ROOT / "apps").glob("*/migrations/*.py"))
    yield from migrations
    names = {name for file in migrations for name in _IMPORTED.findall(file.read_text())}
    for name in sorted(names):
        path = ROOT / name.replace(".", "/")
        yield path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def _make(kept: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="byteor-cluster-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's account must have access to subfolders
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BYTEOR_")}
        clean["BYTEOR_CLOUD_DATA_DIR"] = str(folder)
        subprocess.run([sys.executable, "-c", _MIGRATE], env=clean, cwd=ROOT, check=True)
        unfinished = KEPT / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run(["cp", "-a", embedded_files.find_home(folder) / "data", unfinished], check=True)
        unfinished.rename(kept)
