"""Files of a migrated database, created once per test run and copied for each installation of the tests.

Creating and migrating a database takes longer than all other steps of a server's first start.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from byteor_cloud import embedded

ROOT = Path(__file__).parents[2]


def put_database(data_dir: Path) -> None:
    """Put a migrated database into a new data folder, as the first command there would create it."""
    home = embedded._find_home(data_dir)
    source = embedded._find_home(_made_once(Path(os.environ["BYTEOR_CLOUD_DATA_DIR"])))
    # If root makes the copy, the files must keep their owner: the account that the database server runs as.
    subprocess.run(["cp", "-a", source / "data", home / "data"], check=True)


def _made_once(run: Path) -> Path:
    """Return the data folder to copy. The first process of the run that needs it creates it."""
    whole = run / "migrated"
    with (run / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            unfinished = run / "unfinished"
            clean = {name: value for name, value in os.environ.items() if not name.startswith("BYTEOR_")}
            subprocess.run(
                [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"],
                env={**clean, "BYTEOR_CLOUD_DATA_DIR": str(unfinished)},
                check=True,
            )
            unfinished.rename(whole)
    return whole
