"""Processes that use one embedded database at the same time, like commands in several terminals."""

import os
import pwd
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from byteor_cloud.database import embedded
from tests.patience import PATIENCE_S

CHECKOUT = Path(embedded.__file__).parents[2]
NOBODY = pwd.getpwnam("nobody")

# Acquires the database and prints its URL, and does both again for every input line. Releases the database at the end
# of the input.
COMMAND = """
import sys
from pathlib import Path
from byteor_cloud.database import embedded, embedded_files

if len(sys.argv) > 2:
    embedded_files.OUTSIDE = Path(sys.argv[2])
server = embedded.EmbeddedPostgres(Path(sys.argv[1]))
print(server.acquire(), flush=True)
for line in sys.stdin:
    print(server.acquire(), flush=True)
server.release()
"""


class Command:
    """A process that uses the embedded database of a data folder."""

    def __init__(self, *arguments: Path, user: int | None = None, python_path: Path = CHECKOUT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PYTHONPATH": f"{python_path}:{CHECKOUT}"},  # the command must work without HOME and PATH
            user=user,
            group=None if user is None else NOBODY.pw_gid,
            extra_groups=None if user is None else (),
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "the command printed nothing"
        line = self.process.stdout.readline().strip()
        assert line, self.end()
        return line

    def end(self) -> str:
        return self.process.communicate(timeout=PATIENCE_S)[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def command(*arguments: Path, user: int | None = None, python_path: Path = CHECKOUT) -> Iterator[Command]:
    started = Command(*arguments, user=user, python_path=python_path)
    try:
        yield started
    finally:
        if started.process.returncode is None:
            assert started.end() == ""
            assert started.process.returncode == 0


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres/data/postmaster.pid").read_text().splitlines()[0])


def is_stopped(data_dir: Path) -> bool:
    lock = embedded._try_lock(data_dir / "postgres/server.lock")
    if lock is None:
        return False
    os.close(lock)
    return not (data_dir / "postgres/data/postmaster.pid").exists()


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []
