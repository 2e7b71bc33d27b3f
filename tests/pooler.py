"""pgbouncer in front of the embedded PostgreSQL, configured as in docs/scale.md."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.patience import PATIENCE_S, wait_until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
# As for the API in docs/scale.md, except for the addresses, names, authentication and pool size.
_SETTINGS = """
[databases]
byteor_cloud = host={host} port={port} user=byteor_cloud connect_query='{timeouts}'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
admin_users = byteor_cloud
default_pool_size = {size}
pool_mode = transaction
max_client_conn = 1000
max_prepared_statements = 100
ignore_startup_parameters = options
query_wait_timeout = 5
server_login_retry = 1
"""
_TIMEOUTS = "SET statement_timeout = 7000; SET lock_timeout = 5000; SET idle_in_transaction_session_timeout = 60000"


class Pooler:
    """A pgbouncer in transaction mode, which shares ``size`` connections to the database at ``direct_url``."""

    def __init__(self, folder: Path, port: int, direct_url: str, *, size: int) -> None:
        self.url = f"postgresql://byteor_cloud@127.0.0.1:{port}/byteor_cloud"
        self._port = port
        place = parse_qs(urlsplit(direct_url).query)
        self._file, self._log = folder / "pgbouncer.ini", folder / "pgbouncer.log"
        self._file.write_text(
            _SETTINGS.format(
                host=place["host"][0], port=place["port"][0], listen_port=port, size=size, timeouts=_TIMEOUTS
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start pgbouncer and wait until it responds."""
        assert PROGRAM is not None, "there is no pgbouncer"
        # pgbouncer refuses to run as root. Root therefore runs it as nobody, like the embedded database.
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        with self._log.open("ab") as log:
            process = subprocess.Popen([PROGRAM, "-q", *as_nobody, str(self._file)], stdout=log, stderr=log)
        self._process = process

        def responds() -> bool:
            assert process.poll() is None, self._log.read_text()
            with suppress(psycopg.OperationalError):
                return bool(self.ask("SHOW VERSION"))
            return False

        wait_until(responds)

    @property
    def pid(self) -> int | None:
        """The process id, or None before ``start`` and after ``kill``."""
        return None if self._process is None else self._process.pid

    def ask(self, command: str) -> list[tuple[Any, ...]]:
        """Run a command in pgbouncer's admin console."""
        with psycopg.connect(
            host="127.0.0.1", port=self._port, user="byteor_cloud", dbname="pgbouncer",
            autocommit=True, cursor_factory=psycopg.ClientCursor,
        ) as session:  # fmt: skip
            return session.execute(command.encode()).fetchall()

    def kill(self) -> None:
        """Kill pgbouncer if it is running, which closes all connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None
