"""The embedded database: its settings, its use by several commands, and commands and servers that are killed."""

import os
import shutil
import signal
import stat
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from byteor_cloud.database import embedded
from byteor_cloud.database.embedded import EmbeddedPostgres
from byteor_cloud.database.embedded_files import EmbeddedPostgresError
from tests.system.embedded.commands import Command, command, execute, is_stopped, postmaster


def test_data_survives_server_stop(folder: Path) -> None:
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


def test_database_is_utf8_with_fixed_sort_order(server: EmbeddedPostgres) -> None:
    url = server.acquire()

    [row] = execute(
        url,
        "SELECT datname, pg_encoding_to_char(encoding), datlocprovider, datlocale, current_user"
        " FROM pg_database WHERE datname = current_database()",
    )

    assert row == ("byteor_cloud", "UTF8", "b", "C.UTF-8", "byteor_cloud")


def test_embedded_database_has_private_socket_folder_and_no_network_address(server: EmbeddedPostgres) -> None:
    url = server.acquire()

    sockets = Path(unquote(url.partition("host=")[2].partition("&")[0]))
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert execute(url, "SHOW listen_addresses") == [("",)]


def test_concurrent_commands_share_server_and_last_command_stops_it(folder: Path) -> None:
    with command(folder) as one, command(folder) as two, command(folder) as three:
        assert one.url() == two.url() == three.url()
        first = postmaster(folder)

        for leaving in (one, two):
            leaving.end()
            assert postmaster(folder) == first
            assert not is_stopped(folder)
    assert is_stopped(folder)


def test_acquired_server_runs_despite_concurrent_starts_and_stops(folder: Path) -> None:
    failures: list[Exception] = []

    def start_and_stop() -> None:
        for _ in range(8):
            server = EmbeddedPostgres(folder)
            try:
                assert execute(server.acquire(), "SELECT 1") == [(1,)]
                server.release()
            except Exception as failure:
                failures.append(failure)

    # Each instance has its own locks, like a separate process.
    threads = [threading.Thread(target=start_and_stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert is_stopped(folder)


def test_next_command_uses_and_stops_server_of_killed_command(folder: Path) -> None:
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


def test_killed_server_is_restarted_with_all_committed_data(folder: Path) -> None:
    with command(folder) as holder:
        url = holder.url()
        execute(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        dead = postmaster(folder)
        os.kill(dead, signal.SIGKILL)

        holder.process.stdin.write("\n")  # type: ignore[union-attr]  # stdin is a pipe
        holder.process.stdin.flush()  # type: ignore[union-attr]  # stdin is a pipe
        assert holder.url() == url

        assert postmaster(folder) != dead
        assert execute(url, "SELECT count(*) FROM kept") == [(1000,)]
    assert is_stopped(folder)


def test_next_command_starts_server_after_command_and_server_were_killed(folder: Path) -> None:
    killed = Command(folder)
    execute(killed.url(), "CREATE TABLE kept AS SELECT 1 AS n")
    killed.kill()
    os.kill(postmaster(folder), signal.SIGKILL)

    with command(folder) as following:
        assert execute(following.url(), "SELECT n FROM kept") == [(1,)]
    assert is_stopped(folder)


def test_stale_process_id_is_not_mistaken_for_server(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    sockets = Path(unquote(server.acquire().partition("host=")[2].partition("&")[0]))
    lines = (folder / "postgres/data/postmaster.pid").read_text().splitlines()
    server.release()

    # The state after a crash, when an unrelated process has the former process id of the server.
    stale = "\n".join([str(os.getpid()), *lines[1:]]) + "\n"
    for leftover in (folder / "postgres/data/postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        leftover.write_text(stale)
        shutil.chown(leftover, (folder / "postgres/data").stat().st_uid)

    execute(server.acquire(), "SELECT 1")
    server.release()
    assert is_stopped(folder)


def test_manually_started_server_is_not_stopped(folder: Path) -> None:
    manual = EmbeddedPostgres(folder)
    manual.acquire()
    # Hide the lock file, as if pg_ctl had started the server.
    (folder / "postgres/server.lock").rename(folder / "postgres/hidden")
    running = postmaster(folder)

    with pytest.raises(EmbeddedPostgresError, match=rf"^process {running} serves .* stop that process$"):
        EmbeddedPostgres(folder).acquire()

    assert postmaster(folder) == running
    (folder / "postgres/hidden").rename(folder / "postgres/server.lock")
    manual.release()
    assert is_stopped(folder)


def test_only_first_start_creates_cluster(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    run = embedded._run

    def noted(arguments: list[str], *rest: Any, **options: Any) -> int:
        started.append(Path(arguments[0]).name)
        return run(arguments, *rest, **options)

    monkeypatch.setattr(embedded, "_run", noted)
    server.acquire()
    assert started == ["initdb", "sh"]
    server.release()
    server.acquire()

    assert started == ["initdb", "sh", "sh"]
