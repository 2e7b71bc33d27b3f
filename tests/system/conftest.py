"""Fixtures for installations with their own data folders, whose servers run as separate processes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port
from tests.system.prepared import prepare

ROOT = Path(__file__).parents[2]


class Installation:
    """A data folder, and methods that run commands and servers on it."""

    max_files: int | None = None
    """The number of files that each server process may open, or None for the system's limit."""
    program: Sequence[str] = (sys.executable, str(ROOT / "manage.py"))
    """The command line of ``manage.py``."""
    folder: Path | None = None
    """The working folder of ``manage.py``, or None for that of the tests."""
    command_timeout_s: float = PATIENCE_S
    """The longest time that ``manage`` waits for a command."""

    def __init__(self, *, is_prepared: bool = True, has_database: bool = True) -> None:
        """Create the folder. If it is prepared, it contains the static files and, if wanted, a migrated database."""
        self.data_dir = Path(tempfile.mkdtemp(prefix="byteor-system-"))
        self.data_dir.chmod(0o711)  # the database server's account must be able to enter the folder
        if is_prepared:
            prepare(self.data_dir, has_database=has_database)
        self.port = free_port()
        self.worker_port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = self.data_dir / "serve.log"
        self.servers: list[subprocess.Popen[bytes]] = []

    def environment(self, **settings: str) -> dict[str, str]:
        """Return this process's environment with the settings of the installation instead of those for tests."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BYTEOR_")}
        ours = {"DATA_DIR": str(self.data_dir), "API_PROCESSES": "2", "API_THREADS": "2", **settings}
        return clean | {f"BYTEOR_CLOUD_{name}": value for name, value in ours.items()}

    def manage(self, *argv: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``manage.py`` to its end."""
        return subprocess.run(
            [*self.program, *argv],
            cwd=self.folder,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=self.command_timeout_s,
            check=False,
        )

    def bootstrap(self, org: str = "Acme", **settings: str) -> Any:
        """Run ``bootstrap --json`` and return its output."""
        done = self.manage("bootstrap", "--org", org, "--email", f"ada@{org.lower()}.example", "--json", **settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def serve(self, **settings: str) -> subprocess.Popen[bytes]:
        """Start a server and wait until it serves."""
        earlier = self.output().count("byteor-cloud: serving")
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*self.program, "serve"],
                cwd=self.folder,
                env=self.environment(API_BIND_ADDR=f"127.0.0.1:{self.port}", **settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.servers.append(process)
        if self.max_files is not None:  # API processes start much later, with this limit
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (self.max_files, self.max_files))
        wait_until(lambda: self.output().count("byteor-cloud: serving") > earlier or process.poll() is not None)
        assert process.poll() is None, self.output()
        return process

    def stop(self, server: subprocess.Popen[bytes]) -> int:
        """Stop a server gracefully and return its exit code."""
        server.terminate()
        self.servers.remove(server)
        return server.wait(PATIENCE_S)

    def output(self) -> str:
        """Return all output of the servers."""
        return self.log.read_text() if self.log.exists() else ""

    def get(self, path: str, token: str | None = None) -> requests.Response:
        """Send a GET request on a new connection."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.get(self.base + path, headers=headers, timeout=PATIENCE_S)

    def database_pid(self) -> int:
        """Return the process id of the embedded database."""
        return int((self.data_dir / "postgres" / "data" / "postmaster.pid").read_text().partition("\n")[0])

    def remove(self) -> None:
        for server in list(self.servers):
            self.stop(server)
        shutil.rmtree(self.data_dir, ignore_errors=True)


def children(pid: int) -> dict[int, str]:
    """Return the command lines of a process's children by process id."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found[int(status.parent.name)] = (status.parent / "cmdline").read_text().replace("\0", " ")
    return found


@pytest.fixture
def installation() -> Iterator[Installation]:
    """Create an installation with a migrated database, without starting a server."""
    made = Installation()
    yield made
    made.remove()


@pytest.fixture(scope="package")
def running() -> Iterator[Installation]:
    """Start an installation on an empty folder for all tests that leave it running."""
    made = Installation(is_prepared=False)
    made.serve(WORKER_BIND_ADDR=f"127.0.0.1:{made.worker_port}")
    yield made
    made.remove()
