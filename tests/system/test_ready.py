"""Liveness and readiness: what each needs, and what it says when that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from byteor_cloud.api import system

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """No test knows what another has found."""
    system._migrations.cache_clear()
    yield
    system._migrations.cache_clear()


def refuse(*args: object, **kwargs: object) -> None:
    raise OperationalError("connection refused at 10.0.0.7, user byteor")


def not_ready(response: Any) -> str:
    """What is said to be missing."""
    assert response.status_code == 503
    assert 5 <= int(response["Retry-After"]) <= 15
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == "urn:byteor:problem:unavailable"
    detail: str = body["detail"]
    return detail


def test_ready(settings: Any, tmp_path: Path) -> None:
    response = Client().get("/readyz")

    assert (response.status_code, response.json()) == (200, {"status": "ready"})


def test_what_was_migrated_is_not_asked_again(django_assert_num_queries: Any) -> None:
    assert Client().get("/readyz").status_code == 200

    with django_assert_num_queries(1) as queries:
        assert Client().get("/readyz").status_code == 200
    assert queries.captured_queries[0]["sql"] == "SELECT 1"


def test_alive_touches_nothing(monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any) -> None:
    monkeypatch.setattr(default_storage, "save", refuse)

    with django_assert_num_queries(0):
        response = Client().get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "cursor", refuse)

    assert not_ready(Client().get("/readyz")) == "Not ready: database."
    assert Client().get("/healthz").status_code == 200


def test_with_a_migration_missing() -> None:
    newest = MigrationRecorder.Migration.objects.filter(app="tenancy").latest("name")
    newest.delete()

    assert not_ready(Client().get("/readyz")) == "Not ready: migrations."
    MigrationRecorder(connection).record_applied("tenancy", newest.name)
    assert Client().get("/readyz").status_code == 200


def test_without_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_storage, "save", refuse)

    assert not_ready(Client().get("/readyz")) == "Not ready: storage."


def test_with_a_folder_that_is_a_file(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("in the way")
    settings.STORAGES = settings.STORAGES | {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path / "artifacts", "allow_overwrite": True},
        }
    }

    assert not_ready(Client().get("/readyz")) == "Not ready: storage."


def test_without_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "cursor", refuse)
    monkeypatch.setattr(default_storage, "save", refuse)

    said = not_ready(Client().get("/readyz"))

    assert said == "Not ready: database, storage."


def test_a_probe_leaves_no_file(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.STORAGES = settings.STORAGES | {
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path, "allow_overwrite": True},
        }
    }
    for _ in range(3):
        assert Client().get("/readyz").status_code == 200
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    # Cut off in the middle, again and again: one file, not one each.
    monkeypatch.setattr(FileSystemStorage, "delete", lambda self, name: None)
    for _ in range(3):
        Client().get("/readyz")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_closed_is_not_lent() -> None:
    def backend() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pid: int = cursor.fetchone()[0]
        connection.close()  # back into the pool
        return pid

    known = {backend() for _ in range(8)}
    parameters = connection.get_connection_params()
    where = {name: parameters[name] for name in ("dbname", "user", "host", "port") if name in parameters}
    with psycopg.connect(**where, autocommit=True) as other:
        for pid in known:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    assert known.isdisjoint({backend() for _ in range(8)})
