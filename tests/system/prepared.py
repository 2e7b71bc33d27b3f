"""A database that is up to date, as files: made once a run, and copied for each installation of the tests.

Making one takes longer than all else that the first start of a server does.
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
    """Give a new data folder what its first command would make there."""
    home = embedded._find_home(data_dir)
    source = embedded._find_home(_made_once(Path(os.environ["BYTEOR_CLOUD_DATA_DIR"])))
    # Root's copy still belongs to the account that the server runs as.
    subprocess.run(["cp", "-a", source / "data", home / "data"], check=True)


def _made_once(run: Path) -> Path:
    """The data folder that is copied, made by whichever process of the run needs one first."""
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
