"""Backups of real installations: verified, restored, interrupted, killed, with a full disk and with a lost database."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from byteor_cloud.backup.targets import FolderTarget
from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.object_store import BUCKET, ObjectStore, object_store
from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import ROOT, Installation, children
from tests.system.test_full_disk import CAN_MOUNT
from tests.system.test_metrics import parsed

__all__ = ["object_store"]

PASSPHRASE = "correct horse battery"


@pytest.fixture
def database(installation: Installation) -> Iterator[str]:
    """Keep the installation's database running, and yield its URL."""
    embedded = EmbeddedPostgres(installation.data_dir)
    yield embedded.acquire()
    embedded.release()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def start(
    installation: Installation, target: Path | str, *, command: str = "backup", **settings: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), command, str(target)],
        env=installation.environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def held_up(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Make each pg_dump wait by locking a table that it dumps. Yields the session that holds the lock."""
    with psycopg.connect(database) as session:
        session.execute("LOCK TABLE social_auth_nonce IN ACCESS EXCLUSIVE MODE")
        yield session


def wait_for_dump(session: psycopg.Connection[Any]) -> None:
    """Wait until a pg_dump waits for the lock of ``held_up``."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'"

    def is_waiting() -> bool:
        session.execute("SELECT pg_stat_clear_snapshot()")
        return session.execute(waiting).fetchone() is not None

    wait_until(is_waiting)


def upload(installation: Installation, *contents: bytes) -> str:
    """Upload artifacts through a running server, and return the address of their list."""
    made = installation.bootstrap()
    org, token = f"{installation.base}/api/v1/orgs/{made['org_id']}", made["token"]

    def create(path: str, credential: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {credential}"}
        response = requests.post(path, headers=headers, timeout=PATIENCE_S, **options)
        assert response.status_code == 201, response.text
        return response.json()

    project = create(f"{org}/projects", token, json={"name": "trading"})["id"]
    environments = f"{org}/projects/{project}/environments"
    environment = f"{environments}/{create(environments, token, json={'name': 'dev', 'posture': 'dev'})['id']}"
    enrollment = create(f"{environment}/enrollment-tokens", token, json={})["token"]
    agent = create(f"{environment}/agents", enrollment, json={"name": "edge-1", "labels": {}})
    for content in contents:
        create(
            f"{installation.base}/api/v1/agents/{agent['agent_id']}/artifacts",
            agent["api_key"],
            files={"file": ("a", content)},
            data={"kind": "telemetry", "captured_at": "2026-11-25T00:00:00Z"},
        )
    return f"{environment}/artifacts"


def test_backup_of_running_installation_is_verified_and_its_master_key_is_extracted(
    installation: Installation, target: Path
) -> None:
    installation.serve()
    upload(installation, b"kept" * 1000)

    done = installation.manage("backup", str(target), BACKUP_PASSPHRASE=PASSPHRASE)

    assert done.returncode == 0, done.stderr
    [(name, is_complete)] = FolderTarget(target).list_names()
    lines = done.stdout.splitlines()
    assert is_complete
    assert lines[0] == f"Backup {name} created in {target}:"
    assert lines[2].startswith("  blobs: 1 with 4000 bytes (1 new)")
    assert lines[3].startswith("  manifest: sha256:")
    assert lines[4].endswith(", encrypted with the passphrase")
    assert PASSPHRASE not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "blobs: 1 of 1"
    elsewhere = Installation(is_prepared=False)  # verification needs neither the database nor the installation
    try:
        verified = elsewhere.manage("backup", "--verify", str(target), BACKUP_PASSPHRASE=PASSPHRASE)
        assert (verified.returncode, verified.stdout.splitlines()[0]) == (0, f"Backup {name} is intact:")
        assert not (elsewhere.data_dir / "postgres").exists()
        wrong = elsewhere.manage("backup", "--verify", str(target), BACKUP_PASSPHRASE="something else")
        key_file = target.parent / "master_key"
        extract = ("backup", str(target), "--extract-master-key", str(key_file))
        not_extracted = elsewhere.manage(*extract, BACKUP_PASSPHRASE="something else")
        assert not key_file.exists()
        extracted = elsewhere.manage(*extract, BACKUP_PASSPHRASE=PASSPHRASE)
        repeated = elsewhere.manage(*extract, BACKUP_PASSPHRASE=PASSPHRASE)
    finally:
        elsewhere.remove()
    assert wrong.returncode == 1
    assert wrong.stdout == "the passphrase does not decrypt the master key in this backup\n"
    assert wrong.stderr.splitlines()[-1] == f"CommandError: the backup {name} is not intact: 1 fault"
    assert not_extracted.returncode == 1
    assert not_extracted.stderr == "CommandError: the passphrase does not decrypt the master key in this backup\n"
    assert extracted.returncode == 0, extracted.stderr
    assert key_file.read_text() == (installation.data_dir / "secrets/master_key").read_text()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert (repeated.returncode, repeated.stderr) == (
        1, f"CommandError: {key_file} already exists: name a new file\n",
    )  # fmt: skip
    assert parsed(installation.get("/metrics").text)["byteor_last_backup_timestamp_seconds"] > 1_700_000_000


def test_backup_to_bucket_is_verified_and_missing_bucket_is_refused(
    installation: Installation, object_store: ObjectStore
) -> None:
    store = object_store.settings
    place = f"s3://{BUCKET}/nightly"
    settings = {name: store[name] for name in ("S3_ENDPOINT_URL", "S3_REGION")}

    done = installation.manage("backup", place, **settings)

    assert done.returncode == 0, done.stderr
    assert "master key: NOT in the backup" in done.stdout
    assert installation.manage("backup", "--verify", place, **settings).returncode == 0
    missing = installation.manage("backup", "s3://no-such-bucket", **settings)
    assert (missing.returncode, missing.stderr) == (1, "CommandError: s3://no-such-bucket: the bucket does not exist\n")


def test_interrupted_backup_exits_with_130_and_leaves_no_files(
    installation: Installation, database: str, target: Path, tmp_path: Path
) -> None:
    for place, number in ((target, signal.SIGINT), (tmp_path / "backup.tar", signal.SIGTERM)):
        with held_up(database) as session:
            backup = start(installation, place)
            wait_for_dump(session)
            backup.send_signal(number)
            output, errors = backup.communicate(timeout=PATIENCE_S)

        assert (backup.returncode, output, errors.splitlines()[-1]) == (130, "", "Interrupted.")
        assert "Traceback" not in errors
        assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_killed_backup_releases_its_lock_and_next_backup_completes(
    installation: Installation, database: str, target: Path
) -> None:
    with held_up(database) as session:
        backup = start(installation, target)
        wait_for_dump(session)
        refused = installation.manage("backup", str(target))
        backup.kill()
        backup.communicate(timeout=PATIENCE_S)
    assert refused.returncode == 1
    assert f", process {backup.pid}, " in refused.stderr
    assert "another backup of this installation is running" in refused.stderr
    with psycopg.connect(database, autocommit=True) as watcher:
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"
        wait_until(lambda: watcher.execute(held).fetchone() is None)

    done = installation.manage("backup", str(target))

    assert done.returncode == 0, done.stderr
    assert [is_complete for _, is_complete in FolderTarget(target).list_names()] == [True]
    assert not list(target.rglob(".partial-*"))


def test_next_backup_reuses_blobs_of_killed_backup(installation: Installation, database: str, target: Path) -> None:
    server = installation.serve()
    upload(installation, b"one", b"two", b"three")
    installation.stop(server)
    first, *_, last = sorted((installation.data_dir / "artifacts/sha256").rglob("?" * 64), key=lambda path: path.name)
    with unreadable(last):
        backup = start(installation, target)
        wait_until(lambda: (target / f"blobs/sha256/{first.name[:2]}/{first.name}").exists() or backup.poll())
        backup.kill()
        output, errors = backup.communicate(timeout=PATIENCE_S)
    assert (backup.returncode, output) == (-signal.SIGKILL, ""), errors
    assert [is_complete for _, is_complete in FolderTarget(target).list_names()] == [False]

    done = installation.manage("backup", str(target))

    assert done.returncode == 0, done.stderr
    copied = re.search(r"blobs: 3 with 11 bytes \((\d) new\)", done.stdout)
    assert copied is not None, done.stdout
    assert int(copied[1]) < 3
    assert [is_complete for _, is_complete in FolderTarget(target).list_names()] == [True]
    assert not list(target.rglob(".partial-*"))
    assert installation.manage("backup", "--verify", str(target)).returncode == 0


@contextmanager
def unreadable(file: Path) -> Iterator[None]:
    """Replace the file with a pipe that nobody writes to, so that each process that opens the pipe waits."""
    kept = file.with_name(f"{file.name}.kept")
    file.rename(kept)
    os.mkfifo(file)
    try:
        yield
    finally:
        kept.replace(file)


@pytest.mark.parametrize(
    ("session_name", "message"),
    [
        ("pg_dump", "CommandError: pg_dump failed: "),
        ("byteor-cloud backup on%", "CommandError: the database cannot be used: "),
    ],
)
def test_terminated_database_session_fails_backup_with_command_error(
    installation: Installation, database: str, target: Path, session_name: str, message: str
) -> None:
    with held_up(database) as session:
        backup = start(installation, target)
        wait_for_dump(session)
        terminate = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name LIKE %s"
        assert session.execute(terminate, [session_name]).fetchall() == [(True,)]
    output, errors = backup.communicate(timeout=PATIENCE_S)

    assert (backup.returncode, output) == (1, "")
    assert errors.splitlines()[-1].startswith(message)
    assert "Traceback" not in errors
    assert FolderTarget(target).list_names() == []


def test_external_database_is_backed_up_and_restored_without_revealing_password(
    installation: Installation, database: str, tmp_path: Path
) -> None:
    password, target = "the-databases-password", tmp_path / "backup.tar"
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("CREATE DATABASE restored")
    url = database.replace("//byteor_cloud@", f"//byteor_cloud:{password}@")
    settings = {
        "DATABASE_URL": url,
        "MASTER_KEY": base64.b64encode(bytes(range(32))).decode(),
        "SECRET_KEY": "x" * 60,
    }
    with held_up(database) as session:
        backup = start(installation, target, **settings)
        wait_for_dump(session)
        arguments = children(backup.pid).values()
    output, errors = backup.communicate(timeout=PATIENCE_S)
    assert (backup.returncode, errors.count("CommandError")) == (0, 0), errors
    assert [Path(each.split()[0]).name for each in arguments] == ["pg_dump"]
    assert password not in "".join(arguments) + output + errors

    elsewhere = Installation(is_prepared=False)
    settings["DATABASE_URL"] = url.replace("/byteor_cloud?", "/restored?")
    try:
        restored = elsewhere.manage("restore", str(target), **settings)
        again = elsewhere.manage("restore", str(target), **settings)
        older = elsewhere.manage(
            "restore", str(target), **{**settings, "MASTER_KEY": base64.b64encode(bytes(32)).decode()}
        )
    finally:
        elsewhere.remove()
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert restored.stdout.startswith("Backup ")
    assert again.stderr.splitlines() == [
        "CommandError: the database is not empty. Restore into a new data folder or an empty database"
    ]
    assert "but BYTEOR_CLOUD_MASTER_KEY is the key" in older.stderr
    assert password not in restored.stdout + restored.stderr + again.stderr + older.stderr


def test_restore_counts_only_blobs_that_backup_contains(installation: Installation, target: Path) -> None:
    installation.serve()
    upload(installation, b"lost" * 1000, b"kept" * 1000)
    lost = hashlib.sha256(b"lost" * 1000).hexdigest()
    [stored] = [each for each in installation.data_dir.rglob(f"*{lost[2:]}*") if each.is_file()]
    stored.unlink()
    assert installation.manage("backup", str(target), BACKUP_PASSPHRASE=PASSPHRASE).returncode == 1
    elsewhere = Installation(is_prepared=False)
    try:
        restored = elsewhere.manage("restore", str(target), BACKUP_PASSPHRASE=PASSPHRASE)
    finally:
        elsewhere.remove()

    lines = restored.stderr.splitlines()
    assert "byteor-cloud: 1 of 1 blob restored" in lines
    assert f"byteor-cloud: the blob {lost} was already missing when the backup was made" in lines


def test_lost_database_fails_backup_with_command_error(installation: Installation, database: str, target: Path) -> None:
    # The session of ``held_up`` is lost as well.
    with contextlib.suppress(psycopg.OperationalError), held_up(database) as session:
        backup = start(installation, target)
        wait_for_dump(session)
        os.kill(installation.database_pid(), signal.SIGQUIT)
        output, errors = backup.communicate(timeout=PATIENCE_S)

    assert (backup.returncode, output) == (1, "")
    assert errors.splitlines()[-1].startswith("CommandError: ")
    assert "Traceback" not in errors
    assert FolderTarget(target).list_names() == []


def test_full_disk_of_target_fails_backup_with_command_error(installation: Installation, tmp_path: Path) -> None:
    if not CAN_MOUNT:
        message = "NOT TESTED: a backup to a full disk. The test needs root on Linux to mount a small tmpfs."
        warnings.warn(pytest.PytestWarning(message), stacklevel=1)
        pytest.skip(message)
    (mount := tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=True)
    try:
        for place in (mount, mount / "backup.tar"):
            done = installation.manage("backup", str(place))

            assert done.returncode == 1
            assert done.stderr.splitlines()[-1] == f"CommandError: {place}: No space left on device"
            assert not [path for path in mount.rglob("*") if path.is_file()]
            if place == mount:
                for folder in ("blobs", "backups"):
                    (mount / folder).rmdir()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_invalid_backup_arguments_are_refused_with_one_error_line(installation: Installation, tmp_path: Path) -> None:
    for arguments, message in (
        (["s3://"], "a bucket must be given as s3://BUCKET or s3://BUCKET/PREFIX"),
        ([str(tmp_path / "b"), "--passphrase-file", str(tmp_path / "missing")], "cannot be read: No such file"),
        (["--verify", str(tmp_path)], f"{tmp_path} contains no complete backup"),
        (["--verify", str(tmp_path), "--backup", "../x"], "'../x' is not the name of a backup"),
        (["--verify", str(tmp_path / "missing.tar")], "missing.tar does not exist"),
        ([str(installation.data_dir / "artifacts")], "is in the data folder"),
        ([str(tmp_path), "--extract-master-key", str(tmp_path / "key")], "requires --passphrase-file"),
    ):
        done = installation.manage("backup", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
