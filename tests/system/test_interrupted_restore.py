"""Tests of restores that are killed, started twice, or started while a server uses the database."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from byteor_cloud.database import serving
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation, children
from tests.system.restore_target import PASSPHRASE, RestoreTarget, refused
from tests.system.test_backup import start, unreadable, upload

SETTINGS = {"BACKUP_PASSPHRASE": PASSPHRASE}


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two backups of the same three blobs."""
    folder = tmp_path_factory.mktemp("restore") / "backups"
    old = Installation()
    try:
        server = old.serve()
        upload(old, b"one", b"two", b"three")
        old.stop(server)
        for _ in range(2):
            made = old.manage("backup", str(folder), **SETTINGS)
            assert made.returncode == 0, made.stderr
    finally:
        old.remove()
    return folder


@pytest.fixture
def target() -> Iterator[RestoreTarget]:
    made = RestoreTarget(**SETTINGS)
    yield made
    made.remove()


def blob_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("sha256/??/" + "?" * 64))


def check_restored(target: RestoreTarget, done: subprocess.CompletedProcess[str], backups: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    names = {each.name for each in blob_files(backups)}
    assert {each.name for each in blob_files(target.data_dir / "artifacts")} == names
    assert target.manage("verify_ledger").returncode == 0


def test_killed_restore_is_completed_only_by_same_command(target: RestoreTarget, backups: Path) -> None:
    earlier = sorted(each.name for each in (backups / "backups").iterdir())[0]
    foreign = target.data_dir / "artifacts/sha256/ab" / ("ab" * 32)
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"of another installation")
    refused(target.restore(backups), "artifacts is not empty. Restore into a new data folder")
    shutil.rmtree(target.data_dir / "artifacts")
    *_, last = blob_files(backups)

    with psycopg.connect(target.url, autocommit=True) as server:
        serving.share(server)
        refused(target.restore(backups), "servers or workers are connected to this database")

    with unreadable(last):
        restore = start(target, backups, command="restore", **SETTINGS)
        wait_until(lambda: blob_files(target.data_dir / "artifacts") or restore.poll() is not None)
        refused(target.restore(backups), "another command is restoring or migrating this database")
        refused(target.manage("serve"), "is unfinished: run manage.py restore again")
        assert restore.poll() is None
        restore.kill()
        restore.communicate(timeout=PATIENCE_S)

    refused(target.manage("serve"), "is unfinished: run manage.py restore again")
    refused(target.restore(backups, "--backup", earlier), "is unfinished: complete it, or restore into a new data")
    content = last.read_bytes()
    last.unlink()
    refused(target.restore(backups), f"{last.name} is missing")
    last.write_bytes(content)
    check_restored(target, target.restore(backups), backups)
    refused(target.restore(backups), "the database is not empty")


def test_restore_succeeds_although_pg_restore_of_killed_restore_is_still_connected(
    target: RestoreTarget, backups: Path
) -> None:
    # Until this transaction ends, pg_restore waits, because it creates a table with the same name.
    with psycopg.connect(target.url) as session:
        session.execute("CREATE TABLE notifications_chatwebhook ()")
        restore = start(target, backups, command="restore", **SETTINGS)
        with psycopg.connect(target.url, autocommit=True) as watcher:
            waiting = (
                "SELECT 1 FROM pg_stat_activity"
                " WHERE application_name = 'byteor-cloud restore' AND wait_event_type = 'Lock'"
            )
            wait_until(lambda: watcher.execute(waiting).fetchone() or restore.poll() is not None)
        [survivor] = children(restore.pid)
        os.kill(survivor, signal.SIGSTOP)
        restore.kill()
        restore.communicate(timeout=PATIENCE_S)
        session.rollback()

    try:
        done = target.restore(backups)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(survivor, signal.SIGKILL)

    check_restored(target, done, backups)
