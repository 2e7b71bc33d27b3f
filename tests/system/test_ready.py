"""The probes /healthz and /readyz, what /readyz says is missing, and database connections that were closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

import byteor
from apps.operations.management import installation
from byteor_cloud.api import system
from byteor_cloud.api.readiness import Check, run_checks
from byteor_cloud.captures import sealing
from byteor_cloud.config import read_key
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_cache() -> Iterator[None]:
    """Clear the cached result of the migration check."""
    system._migrations.cache_clear()
    yield
    system._migrations.cache_clear()


def refuse(*args: object, **kwargs: object) -> None:
    raise OperationalError("connection refused at 10.0.0.7, user byteor")


def not_ready(response: Any) -> str:
    """Assert that the response is a 503 problem. Return its detail, which names the missing dependencies."""
    assert response.status_code == 503
    assert 5 <= int(response["Retry-After"]) <= 15
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == "urn:byteor:problem:unavailable"
    detail: str = body["detail"]
    return detail


def test_readyz_returns_200_when_no_dependency_is_missing(settings: Any, tmp_path: Path) -> None:
    response = Client().get("/readyz")

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "version": byteor.__version__, "sealing": sealing.in_force()}


def test_applied_migrations_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().get("/readyz").status_code == 200

    with monkeypatch.context() as patch:
        patch.setattr(system, "MigrationExecutor", refuse)
        assert Client().get("/readyz").status_code == 200


def test_healthz_uses_neither_database_nor_storage(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr(default_storage, "save", refuse)

    with django_assert_num_queries(0):
        response = Client().get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_readyz_names_missing_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseDatabaseWrapper, "cursor", refuse)  # affects all threads

    assert not_ready(Client().get("/readyz")) == "Not ready: database."
    assert Client().get("/healthz").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_readyz_is_not_ready_if_migrations_are_missing() -> None:
    newest = MigrationRecorder.Migration.objects.filter(app="tenancy").latest("name")
    newest.delete()

    try:
        assert not_ready(Client().get("/readyz")) == "Not ready: migrations."
    finally:
        MigrationRecorder(connection).record_applied("tenancy", newest.name)
    assert Client().get("/readyz").status_code == 200


def test_migration_and_readiness_accept_schema_of_next_release() -> None:
    recorder = MigrationRecorder(connection)
    before = recorder.applied_migrations().keys()
    recorder.record_applied("tenancy", "9999_next_release")
    try:
        installation.migrate()

        assert Client().get("/readyz").status_code == 200
        assert recorder.applied_migrations().keys() == {*before, ("tenancy", "9999_next_release")}
    finally:
        recorder.record_unapplied("tenancy", "9999_next_release")


def test_readyz_names_wrong_master_key(settings: Any) -> None:
    old, new = settings.CONFIG, replace(settings.CONFIG, master_key=b"n" * 32)
    settings.CONFIG = new
    assert not_ready(Client().get("/readyz")) == "Not ready: master key."
    assert Client().get("/healthz").status_code == 200

    # A host that has both keys is in the middle of a rotation.
    settings.CONFIG = replace(new, master_key_previous=read_key(old.master_key))
    assert Client().get("/readyz").status_code == 200


def test_readyz_names_master_key_when_master_key_file_is_missing(settings: Any, tmp_path: Path) -> None:
    settings.CONFIG = replace(settings.CONFIG, master_key=tmp_path / "master_key")

    assert not_ready(Client().get("/readyz")) == "Not ready: master key."


def test_readyz_names_failing_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_storage, "save", refuse)

    assert not_ready(Client().get("/readyz")) == "Not ready: storage."


def test_readyz_names_storage_when_folder_is_file(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("in the way")
    settings.STORAGES = settings.STORAGES | {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path / "artifacts", "allow_overwrite": True},
        }
    }

    assert not_ready(Client().get("/readyz")) == "Not ready: storage."


def test_readyz_names_both_database_and_storage_when_both_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseDatabaseWrapper, "cursor", refuse)  # affects all threads
    monkeypatch.setattr(default_storage, "save", refuse)

    assert not_ready(Client().get("/readyz")) == "Not ready: database, storage."


def test_completed_readiness_probes_leave_no_file_and_interrupted_probes_leave_one_file(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.STORAGES = settings.STORAGES | {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path, "allow_overwrite": True},
        }
    }
    for _ in range(3):
        assert Client().get("/readyz").status_code == 200
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    # All probes of a process use the same file, even if they are interrupted before they delete it.
    monkeypatch.setattr(FileSystemStorage, "delete", lambda self, name: None)
    for _ in range(3):
        Client().get("/readyz")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_hanging_readiness_check_runs_once_and_does_not_hide_other_failures() -> None:
    proceed = threading.Event()
    runs: list[None] = []

    def hang() -> None:
        runs.append(None)
        assert proceed.wait(PATIENCE_S)

    hanging, refusing, passing = Check("store", hang, seconds=0.1), Check("disk", refuse), Check("folder", lambda: None)
    checks = [hanging, refusing, passing]

    assert [run_checks(checks) for _ in range(10)] == [["store", "disk"]] * 10
    assert len(runs) == 1

    proceed.set()
    wait_until(lambda: run_checks(checks) == ["disk"])


@pytest.mark.django_db(transaction=True)
def test_connection_closed_by_database_is_not_used_again() -> None:
    def backend_pid() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pid: int = cursor.fetchone()[0]
        connection.close()  # returns the connection to the pool
        return pid

    closed = {backend_pid() for _ in range(8)}
    parameters = connection.get_connection_params()
    address = {name: parameters[name] for name in ("dbname", "user", "host", "port") if name in parameters}
    with psycopg.connect(**address, autocommit=True) as other:
        for pid in closed:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    assert closed.isdisjoint({backend_pid() for _ in range(8)})
