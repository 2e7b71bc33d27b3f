"""PostgreSQL's programs: pg_dump and pg_restore of the right version, and how they connect."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.pq import Conninfo

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.database.embedded_files import MAJOR, Account, EmbeddedPostgresError, find_programs

EMBEDDED_MAJOR = int(MAJOR)
# A low compression level, because a dump must not slow down the service that runs at the same time.
_DUMP = ("--format=custom", "--compress=1", "--no-owner", "--no-privileges", "--no-unlogged-table-data")
_FOLDERS = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/opt/homebrew/opt/postgresql@{}/bin")


def server_major(session: psycopg.Connection[Any]) -> int:
    """Return the major version of the connection's server."""
    return session.info.server_version // 10_000


def find_program(name: str, major: int, *, or_newer: bool = False) -> Path:
    """Return the path of a program of this major version, such as pg_dump 18. Raises BackupError if there is none.

    The programs of the embedded database are used if they have this version, even for another server. With
    ``or_newer``, the program may also have a newer version.
    """
    for path in _candidates(name, major, or_newer=or_newer):
        with suppress(OSError, subprocess.SubprocessError):
            output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
            if (version := re.search(r"\(PostgreSQL\) (\d+)", output)) and _suits(int(version[1]), major, or_newer):
                return path
    wanted, other = (f"{major} or newer", "an older") if or_newer else (str(major), "another")
    raise BackupError(
        f"{name} of PostgreSQL {wanted} was not found, and {other} version cannot be used:"
        f" install the client programs of PostgreSQL {major} (for example, the package postgresql-client-{major})"
    )


def _suits(version: int, major: int, or_newer: bool) -> bool:
    return version >= major if or_newer else version == major


def _candidates(name: str, major: int, *, or_newer: bool) -> Iterator[Path]:
    if _suits(EMBEDDED_MAJOR, major, or_newer):
        with suppress(EmbeddedPostgresError):
            yield find_programs(Account(os.geteuid(), os.getegid())) / name
    for folder in _FOLDERS:
        yield Path(folder.format(major)) / name
    if (found := shutil.which(name)) is not None:
        yield Path(found)


@contextmanager
def connection_environment(session: psycopg.Connection[Any]) -> Iterator[dict[str, str]]:
    """Yield the environment with which a program connects to the session's database.

    Other users can see the arguments of a process. The connection is therefore described in the environment. Some
    parameters, such as the password of a TLS key, have no variable. They are in a private service file that exists
    while the block runs.
    """
    parameters = session.info.get_parameters()  # without the user's password
    variables = {each.keyword.decode(): each.envvar for each in Conninfo.get_defaults()}
    environment = {
        "PATH": os.defpath,
        "LC_ALL": "C",
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
    }
    others = []
    for keyword, value in parameters.items():
        if keyword in {"service", "servicefile"}:  # the parameters contain what the service file says
            continue
        if (variable := variables.get(keyword)) is not None:
            environment[variable.decode()] = value
        else:
            others.append(f"{keyword}={value}\n")
    if session.info.password:
        environment["PGPASSWORD"] = session.info.password
    with tempfile.NamedTemporaryFile("w", prefix="byteor-service-") as file:
        file.writelines(["[byteor]\n", *others])
        file.flush()
        yield {**environment, "PGSERVICEFILE": file.name, "PGSERVICE": "byteor"}


# Where libpq looks for a user's certificates and password file. All other parameters of the connection are passed on
# explicitly.
_INHERITED = ("HOME", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGPASSFILE")


class Dump:
    """The output of a running pg_dump. ``read`` raises BackupError at the end if pg_dump failed."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Any) -> None:
        self._process, self._errors = process, errors

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes of the dump."""
        assert self._process.stdout is not None  # noqa: S101  it is a pipe
        piece: bytes = self._process.stdout.read(size)
        if not piece and self._process.wait() != 0:
            self._errors.seek(0)
            raise BackupError(f"pg_dump failed: {first_error(self._errors.read())}")
        return piece


@contextmanager
def dumping(session: psycopg.Connection[Any], snapshot: str) -> Iterator[Dump]:
    """Run a pg_dump that reads the exported snapshot. It is killed at the end of the block."""
    program = find_program("pg_dump", server_major(session))
    with connection_environment(session) as environment, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own program and arguments
            [program, *_DUMP, f"--snapshot={snapshot}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # so that Ctrl-C interrupts only this process, which then kills pg_dump
        )
        try:
            yield Dump(process, errors)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None  # noqa: S101  it is a pipe
            process.stdout.close()


def check_dump(file: Path, major: int) -> None:
    """Raise BackupError if pg_restore cannot read the table of contents of a dump that pg_dump ``major`` wrote.

    Also raises BackupError if there is no suitable pg_restore.
    """
    result = subprocess.run(  # noqa: S603 - our own program and arguments
        [find_program("pg_restore", major, or_newer=True), "--list", file],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        check=False,
    )
    if result.returncode != 0:
        raise BackupError(f"pg_restore cannot read the dump: {first_error(result.stderr)}")


def first_error(output: bytes) -> str:
    """Return the first error in a program's error output, or the last line if no line contains "error: ".

    If there is no output, return "it was killed". The lines after an error are left out, because they may
    quote statements and rows.
    """
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    found = next((line for line in lines if "error: " in line), lines[-1] if lines else "it was killed")
    return re.sub(r"^pg_\w+: (error: )?", "", found)[:500]
