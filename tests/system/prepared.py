"""A migrated database and the static files, made once per test run and copied for each installation of the tests.

Creating them takes longer than all other steps of a server's first start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from byteor_cloud.database import embedded_files
from tests.once import made_once

ROOT = Path(__file__).parents[2]
_PREPARE = """
from byteor_cloud import command_line
assert command_line.run(["manage.py", "migrate", "--verbosity", "0"]) == 0
from apps.operations.management import static_files
static_files.collect()
"""


def prepare(data_dir: Path, *, has_database: bool = True) -> None:
    """Put the static files and a migrated database into a new data folder, as the folder's first server would do.

    Without ``has_database``, put only the static files there, because the server uses an external database.
    """
    made = made_once("migrated", _make)
    # Hard links are fastest, but do not work between file systems. In that case the files are copied.
    how = "-al" if made.stat().st_dev == data_dir.stat().st_dev else "-a"
    subprocess.run(["cp", how, made / "static", made / "static.collected", data_dir], check=True)
    if not has_database:
        return
    home, source = embedded_files.find_home(data_dir), embedded_files.find_home(made)
    # When root copies them, the files must keep their owner, which is the account of the database server.
    subprocess.run(["cp", "-a", source / "data", home / "data"], check=True)


def _make(unfinished: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BYTEOR_")}
    clean["BYTEOR_CLOUD_DATA_DIR"] = str(unfinished)
    subprocess.run([sys.executable, "-c", _PREPARE], env=clean, cwd=ROOT, check=True)
