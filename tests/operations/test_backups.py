"""Backups: what they contain, which faults they report, when they are refused, and what waits for them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.utils import timezone

from apps.artifacts.models import Artifact, UnreferencedBlob
from apps.artifacts.services import retention, uploads
from apps.operations.services import backups
from apps.tenancy.models import AuditEvent, AuditSeal, MasterKey
from apps.tenancy.services import ledger
from byteor_cloud.backup import locks, manifest, unfinished
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.passphrase import encrypt_key
from byteor_cloud.backup.programs import find_program
from byteor_cloud.backup.reading import open_backup
from byteor_cloud.backup.targets import FolderTarget
from byteor_cloud.backup.unfinished import Unfinished
from byteor_cloud.storage import blobs
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db(transaction=True)

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def data_folder(settings: Any, tmp_path: Path) -> None:
    """Give each test a blob store and a data folder of its own."""
    settings.CONFIG = replace(settings.CONFIG, data_dir=tmp_path / "data")
    default = {
        **settings.STORAGES["default"],
        "OPTIONS": {"location": tmp_path / "data/artifacts", "allow_overwrite": True},
    }
    settings.STORAGES = {**settings.STORAGES, "default": default}


def store(world: World, content: bytes) -> Artifact:
    agent, _ = world.agent(name=f"agent-{hashlib.sha256(content).hexdigest()[:8]}")
    artifact, _ = uploads.receive(
        environment=world.dev,
        agent=agent,
        kind="diagnostic",
        captured_at=timezone.now(),
        content_hash="sha256:" + hashlib.sha256(content).hexdigest(),
        file=ContentFile(content),
        actor=world.admin.actor,
    )
    return artifact


def back_up(target: Path, passphrase: str | None = None) -> backups.Created:
    return backups.create(str(target), passphrase=passphrase, report=lambda *progress: None)


def faults(target: Path, passphrase: str | None = None) -> list[str]:
    with open_backup(str(target)) as backup:
        return list(backups.verify(backup, passphrase=passphrase, report=lambda *progress: None))


def blob_file(target: Path, artifact: Artifact) -> Path:
    return target / manifest.blob_path(artifact.content_hash.removeprefix("sha256:"))


def source_file(artifact: Artifact) -> Path:
    with blobs.read(artifact.content_hash) as file:
        return Path(file.name)


@pytest.mark.parametrize("place", ["backups", "backup.tar"])
def test_backup_contains_rows_blobs_ledger_heads_and_master_key(world: World, tmp_path: Path, place: str) -> None:
    artifacts = [store(world, b"one"), store(world, b"two" * 100_000)]
    world.deployment(world.bundle())
    run_jobs()
    ledger.seal_all()
    target = tmp_path / place

    created = back_up(target, PASSPHRASE)

    assert faults(target, PASSPHRASE) == []
    with open_backup(str(target)) as backup:
        listed = {f"sha256:{blob.sha256}": blob.size for blob in backup.list_blobs()}
        made = backup.manifest
        with (tmp_path / "dump").open("wb") as dump:
            backup.copy_dump(dump)
    assert backup.manifest_hash == created.manifest_hash
    assert {artifact.content_hash: artifact.size_bytes for artifact in artifacts}.items() <= listed.items()
    assert len(listed) == 3  # and the deployment's bundle
    assert {(each.organization_id, each.seq) for each in made.ledgers} == {
        (None if seal.organization_id is None else str(seal.organization_id), seal.seq)
        for seal in AuditSeal.objects.order_by("organization", "-seq").distinct("organization")
    }
    assert (made.counts["agents"], made.counts["artifacts"]) == (2, 2)
    assert made.master_key_id == MasterKey.objects.get().key_id
    pg_restore = find_program("pg_restore", made.postgresql)
    content = subprocess.run([pg_restore, "--file=-", tmp_path / "dump"], capture_output=True, check=True).stdout
    assert all(str(artifact.pk).encode() in content for artifact in artifacts)


def test_second_backup_copies_only_new_blobs(world: World, tmp_path: Path) -> None:
    store(world, b"old")
    first = back_up(tmp_path / "backups")
    store(world, b"new")

    second = back_up(tmp_path / "backups")

    assert (first.copied, first.manifest.blob_count) == (1, 1)
    assert (second.copied, second.manifest.blob_count) == (1, 2)
    assert len(FolderTarget(tmp_path / "backups").list_names()) == 2


def test_backup_is_recorded_in_audit_trail(world: World, tmp_path: Path) -> None:
    assert backups.last_created_at() is None

    created = back_up(tmp_path / "backups", PASSPHRASE)

    event = AuditEvent.objects.get(action="backup.create")
    assert (event.organization_id, event.resource_id) == (None, created.manifest.name)
    assert event.changes == {
        "manifest_hash": [None, created.manifest_hash], "has_master_key": [None, True], "faulty_blobs": [None, 0],
    }  # fmt: skip
    assert backups.last_created_at() == event.timestamp


def test_backup_without_passphrase_does_not_contain_master_key(world: World, tmp_path: Path) -> None:
    created = back_up(tmp_path / "backups")

    assert created.manifest.master_key is None
    assert created.manifest.master_key_id == MasterKey.objects.get().key_id
    assert faults(tmp_path / "backups", PASSPHRASE) == [
        "the backup does not contain the master key, so there is nothing to decrypt"
    ]


def test_backup_reports_missing_and_altered_blobs_of_installation(world: World, tmp_path: Path) -> None:
    missing, altered, intact = store(world, b"missing"), store(world, b"altered"), store(world, b"intact")
    source_file(missing).unlink()
    source_file(altered).write_bytes(b"al-ered")

    created = back_up(tmp_path / "backups")

    found = {(f"sha256:{blob.sha256}", blob.fault) for blob in created.faults}
    assert found == {(missing.content_hash, "missing"), (altered.content_hash, "altered")}
    assert created.manifest.faulty_blobs == 2
    assert not blob_file(tmp_path / "backups", altered).exists()
    assert blob_file(tmp_path / "backups", intact).read_bytes() == b"intact"
    assert sorted(fault.rpartition(" was already ")[2] for fault in faults(tmp_path / "backups")) == [
        "altered when the backup was made", "missing when the backup was made",
    ]  # fmt: skip


def test_verification_reports_missing_and_altered_files_and_wrong_passphrase(world: World, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    missing, altered, half = store(world, b"missing"), store(world, b"altered"), store(world, b"half" * 1000)
    name = back_up(target, PASSPHRASE).manifest.name
    blob_file(target, missing).unlink()
    blob_file(target, altered).write_bytes(b"al-ered")
    os.truncate(blob_file(target, half), 2000)
    dump = target / manifest.dump_path(name)
    os.truncate(dump, dump.stat().st_size // 2)

    found = faults(target, "another passphrase")

    assert found[0] == f"{manifest.dump_path(name)} was altered"
    paths = {artifact: manifest.blob_path(artifact.content_hash[7:]) for artifact in (missing, altered, half)}
    assert set(found[1:-1]) == {
        f"{paths[missing]} is missing", f"{paths[altered]} was altered", f"{paths[half]} was altered",
    }  # fmt: skip
    assert found[-1] == "the passphrase does not decrypt the master key in this backup"
    blob_list = target / manifest.blob_list_path(name)
    blob_list.write_text(blob_list.read_text().upper())
    assert f"{manifest.blob_list_path(name)} was altered" in faults(target)


def test_verification_finds_master_key_that_does_not_match_its_id(world: World, tmp_path: Path) -> None:
    name = back_up(tmp_path / "backups", PASSPHRASE).manifest.name
    other = encrypt_key(b"k" * 32, MasterKey.objects.get().key_id, PASSPHRASE)
    path = tmp_path / "backups" / manifest.manifest_path(name)
    content = json.loads(path.read_text())
    content["master_key"]["encrypted"] = other.to_json()
    path.write_text(json.dumps(content))

    assert ["is not the key" in fault for fault in faults(tmp_path / "backups", PASSPHRASE)] == [True]


def test_incomplete_backup_is_ignored_and_removed_by_next_backup(world: World, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    artifact = store(world, b"kept")
    complete, incomplete = (back_up(target).manifest.name for _ in range(2))
    (target / manifest.manifest_path(incomplete)).unlink()

    with open_backup(str(target)) as backup:
        assert backup.manifest.name == complete
    with pytest.raises(BackupError, match=f"contains no complete backup {incomplete}"):
        open_backup(str(target), incomplete)

    third = back_up(target)
    assert third.copied == 0
    assert {name for name, _ in FolderTarget(target).list_names()} == {complete, third.manifest.name}
    assert blob_file(target, artifact).exists()


def test_backup_is_refused_while_another_backup_runs(world: World, tmp_path: Path) -> None:
    with (
        locks.backup_lock(),
        pytest.raises(
            BackupError, match=rf"another backup .*on .*, process {os.getpid()}, database session \d+, since"
        ),
    ):
        back_up(tmp_path / "backups")

    assert not (tmp_path / "backups").exists()
    back_up(tmp_path / "backups")


def test_blob_removal_waits_for_end_of_backup(world: World) -> None:
    artifact = store(world, b"unneeded")
    artifact.delete()

    with locks.backup_lock():
        assert retention.delete_unreferenced_blobs() == 0
        assert source_file(artifact).exists()
        assert UnreferencedBlob.objects.filter(pk=artifact.content_hash).exists()

    assert retention.delete_unreferenced_blobs() == 1
    assert not blobs.is_stored(artifact.content_hash)


def test_data_folder_is_refused_as_target(world: World, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for place in ("data", "data/artifacts", "data/backups", "data/x.tar", "link/backups"):
        with pytest.raises(BackupError, match="is in the data folder"):
            back_up(tmp_path / place)


def test_target_with_backups_of_another_installation_is_refused(world: World, tmp_path: Path) -> None:
    name = back_up(tmp_path / "backups").manifest.name
    path = tmp_path / "backups" / manifest.manifest_path(name)
    path.write_text(json.dumps({**json.loads(path.read_text()), "installation": "another"}))

    with pytest.raises(BackupError, match="contains backups of another installation"):
        back_up(tmp_path / "backups")


def test_database_with_older_schema_is_not_backed_up(world: World, tmp_path: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT app, name, applied FROM django_migrations ORDER BY id DESC LIMIT 1")
        newest = cursor.fetchone()
        cursor.execute("DELETE FROM django_migrations WHERE (app, name) = (%s, %s)", newest[:2])
    try:
        with pytest.raises(BackupError, match="the database's schema is older than this release"):
            back_up(tmp_path / "backups")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)", newest)


def test_last_made_backup_counts_as_newest_even_if_clock_was_set_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up(tmp_path / "backups").manifest
    monkeypatch.setattr(timezone, "now", lambda: first.created_at - timedelta(days=30))

    second = back_up(tmp_path / "backups").manifest

    assert second.created_at < first.created_at
    with open_backup(str(tmp_path / "backups")) as newest:
        assert newest.manifest == second


def test_backup_is_refused_while_restore_is_unfinished(world: World, tmp_path: Path) -> None:
    unfinished.mark(Unfinished("20261129T083000Z-0a1b2c", "sha256:00"))

    with pytest.raises(BackupError, match=r"is unfinished: run manage\.py restore again"):
        back_up(tmp_path / "backups")

    unfinished.remove_mark()
    assert not (tmp_path / "backups").exists()


def test_partial_files_of_another_installation_are_kept(world: World, tmp_path: Path) -> None:
    name = back_up(tmp_path / "backups").manifest.name
    path = tmp_path / "backups" / manifest.manifest_path(name)
    path.write_text(json.dumps({**json.loads(path.read_text()), "installation": "another"}))
    (partial := tmp_path / "backups/blobs/.partial-x").touch()

    with pytest.raises(BackupError, match="contains backups of another installation"):
        back_up(tmp_path / "backups")

    assert partial.exists()


def test_backup_is_refused_if_no_pg_dump_matches_server_version(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byteor_cloud.backup.programs.server_major", lambda session: 97)

    with pytest.raises(BackupError, match=r"pg_dump of PostgreSQL 97 was not found.*install the client programs"):
        back_up(tmp_path / "backups")

    assert FolderTarget(tmp_path / "backups").list_names() == []


def test_failed_dump_leaves_no_backup(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(world, b"kept")
    monkeypatch.setattr("byteor_cloud.backup.programs._DUMP", ("--no-such-option",))

    with pytest.raises(BackupError, match="pg_dump failed: "):
        back_up(tmp_path / "backups")

    assert FolderTarget(tmp_path / "backups").list_names() == []
