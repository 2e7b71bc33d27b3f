"""A migrated database and the static files, which prepared installations of the tests get instead of creating them.

Creating them takes longer than all other steps of a server's first start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import ROOT, copy_migrated
from tests.once import made_once

_COLLECT = """
import django
django.setup()
from apps.operations.management import static_files
static_files.collect()
"""


def prepare(data_dir: Path, *, has_database: bool = True) -> None:
    """Put the static files and a migrated database into a new data folder, as the folder's first server would do.

    Without ``has_database``, put only the static files there, because the server uses an external database.
    """
    made = made_once("collected", _collect)
    # Hard links are fastest, but do not work between file systems. In that case the files are copied.
    how = "-al" if made.stat().st_dev == data_dir.stat().st_dev else "-a"
    subprocess.run(["cp", how, made / "static", made / "static.collected", data_dir], check=True)
    if has_database:
        copy_migrated(data_dir)


def _collect(unfinished: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BYTEOR_")}
    clean |= {"BYTEOR_CLOUD_DATA_DIR": str(unfinished), "DJANGO_SETTINGS_MODULE": "byteor_cloud.settings"}
    subprocess.run([sys.executable, "-c", _COLLECT], env=clean, cwd=ROOT, check=True)
