"""Tests of database timeouts, connection pools, the required number of connections, and frequent statements."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError
from django.db import DataError, IntegrityError, connection, transaction
from django.test import Client

from apps.operations.management.commands import serve
from apps.tenancy.models import Project
from apps.tenancy.services import organizations
from byteor_cloud.database import connections
from byteor_cloud.database.connections import FrequentStatement
from tests.races import Race, concurrently
from tests.worlds import World

__all__ = ["concurrently"]

URL = "postgresql://someone@db.example:5432/cloud"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("api", "-c statement_timeout=7s -c lock_timeout=5s -c idle_in_transaction_session_timeout=60s"),
        ("worker", "-c statement_timeout=600s -c lock_timeout=60s -c idle_in_transaction_session_timeout=600s"),
        ("command", None),
    ],
)
def test_database_timeouts_depend_on_process_kind(
    monkeypatch: pytest.MonkeyPatch, kind: str, expected: str | None
) -> None:
    monkeypatch.setenv(connections.PROCESS_KIND_VARIABLE, kind)

    by_default = connections.database_settings(URL, threads=8)["OPTIONS"].get("options")
    with_url = connections.database_settings(f"{URL}?options=-c%20statement_timeout%3D5s", threads=8)["OPTIONS"][
        "options"
    ]

    assert by_default == expected
    assert with_url == f"{expected or ''} -c statement_timeout=5s".strip()


@pytest.mark.parametrize(("kind", "is_pooled"), [("api", True), ("worker", True), ("command", False)])
def test_only_api_and_worker_have_connection_pool(monkeypatch: pytest.MonkeyPatch, kind: str, is_pooled: bool) -> None:
    monkeypatch.setenv(connections.PROCESS_KIND_VARIABLE, kind)

    assert ("pool" in connections.database_settings(URL, threads=8)["OPTIONS"]) is is_pooled


@contextmanager
def timeouts(**seconds: float) -> Iterator[None]:
    """Set the database timeouts of every connection that is opened inside the block."""
    database_name = connection.settings_dict["NAME"]

    def alter(change: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{database_name}" {change}')
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]  # the wrapper for PostgreSQL has a pool

    for name, value in seconds.items():
        alter(f"SET {name} = '{int(value * 1000)}ms'")
    try:
        yield
    finally:
        for name in seconds:
            alter(f"RESET {name}")


@pytest.fixture
def slow_project(monkeypatch: pytest.MonkeyPatch) -> None:
    real = organizations.create_project

    def create(**columns: Any) -> Project:
        with transaction.atomic():
            project = real(**columns)
            if columns["name"] == "billing":
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(60)")
        return project

    monkeypatch.setattr(organizations, "create_project", create)


@pytest.mark.usefixtures("slow_project")
@pytest.mark.django_db(transaction=True)
def test_statement_timeout_returns_503_and_changes_nothing() -> None:
    world = World("slow")
    with timeouts(statement_timeout=1):
        response = world.admin.api.post(f"/api/v1/orgs/{world.organization.pk}/projects", {"name": "billing"})

    assert response.status_code == 503
    assert 5 <= int(response["Retry-After"]) <= 15
    assert response.json()["detail"] == "The database query took too long. Try again, or request less data."
    assert not Project.objects.filter(name="billing").exists()


def _lock_project(parameters: Any, world: World) -> psycopg.Connection[Any]:
    other = psycopg.connect(**parameters)
    other.execute("SELECT 1 FROM tenancy_project WHERE id = %s FOR UPDATE", [world.project.pk])
    return other


@pytest.mark.django_db(transaction=True)
def test_lock_timeout_returns_503_and_changes_nothing() -> None:
    world = World("locked")
    parameters = connection.get_connection_params()
    address = {name: parameters[name] for name in ("dbname", "user", "host", "port") if name in parameters}
    with _lock_project(address, world) as other, timeouts(lock_timeout=0.2):
        response = world.admin.api.put(
            f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}", {"name": "renamed"}
        )
        other.rollback()

    assert response.status_code == 503
    assert 1 <= int(response["Retry-After"]) <= 4
    assert not Project.objects.filter(name="renamed").exists()


@pytest.mark.django_db
def test_statement_timeout_on_sign_in_page_returns_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_cancelled(*args: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '57014'; END $$")

    monkeypatch.setattr("apps.tenancy.api.views.sign_in.accounts.spend_sign_in_link", raise_cancelled)
    client = Client(raise_request_exception=False, headers={"Accept": "text/html"})

    response = client.get("/auth/link/x")
    if response.status_code != 503:
        response = client.post("/auth/link/x")

    assert response.status_code == 503
    assert 5 <= int(response["Retry-After"]) <= 15
    assert b"secret" not in response.content


@pytest.mark.parametrize(
    ("mode", "processes", "threads", "needed"),
    [("combined", 2, 8, 2 * 24 + 35 + 6), ("api", 3, 64, 3 * 72 + 6), ("worker", 64, 8, 35 + 6)],
)
def test_required_connections_depend_on_deployment_mode(mode: str, processes: int, threads: int, needed: int) -> None:
    counted = connections.connections_needed(
        api_processes=0 if mode == "worker" else processes, threads=threads, workers=0 if mode == "api" else 1
    )

    assert counted == needed


@pytest.mark.django_db
def test_serve_refuses_too_few_database_connections_without_pooler(
    settings: Any, set_config: Callable[..., Any]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        )
        available = cursor.fetchone()[0]
    fits = (available - 35 - 6) // 24

    serve._ensure_connections(set_config(deployment_mode="combined", api_processes=fits, api_threads=8))
    serve._ensure_connections(set_config(deployment_mode="worker", api_processes=64, api_threads=8))
    pooled = set_config(deployment_mode="combined", api_processes=fits + 1, api_threads=8, database_direct_url=URL)
    serve._ensure_connections(pooled)
    with pytest.raises(CommandError, match=r"^up to \d+ database connections") as raised:
        serve._ensure_connections(set_config(deployment_mode="combined", api_processes=fits + 1, api_threads=8))

    message = str(raised.value)
    assert "\n" not in message
    for name in (f"BYTEOR_CLOUD_API_PROCESSES ({fits + 1})", "BYTEOR_CLOUD_API_THREADS (8)", "max_connections"):
        assert name in message


@pytest.mark.django_db
def test_worker_that_needs_too_many_connections_is_not_told_to_lower_api_settings(
    set_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "connections_needed", lambda **_: 1_000_000)

    with pytest.raises(CommandError, match=r"permits only \d+: raise PostgreSQL's max_connections \(\d+\)$"):
        serve._ensure_connections(set_config(deployment_mode="worker", api_processes=64, api_threads=8))


@pytest.fixture
def set_config(settings: Any) -> Callable[..., Any]:
    """Return a function that returns a copy of the configuration with changes."""
    from dataclasses import replace

    return lambda **changes: replace(settings.CONFIG, **changes)


@pytest.fixture
def frequent(transactional_db: None) -> Iterator[Callable[[str], FrequentStatement]]:
    """Yield a function that creates frequent statements, whose connections are closed after the test."""
    made: list[FrequentStatement] = []

    def make(statement: str) -> FrequentStatement:
        made.append(FrequentStatement(statement))
        return made[-1]

    yield make
    for one in made:
        one.close()


type Frequent = Callable[[str], FrequentStatement]


def test_frequent_statement_accepts_long_parameters_and_results(frequent: Frequent) -> None:
    echo = frequent("SELECT repeat(%s::text, 50), now() FROM generate_series(1, 3)")

    for _ in range(2):
        rows = echo.run("x" * 300_000)

        assert [len(text) for text, _ in rows] == [15_000_000] * 3
        assert rows[0][1].utcoffset().total_seconds() == 0
    assert len(echo._idle) == 1


def test_frequent_statement_can_be_used_after_error(frequent: Frequent) -> None:
    double = frequent("SELECT %s::text::int * 2")

    with pytest.raises(DataError):
        double.run("x")

    assert double.run("21") == [(42,)]


def test_frequent_statement_raises_error_of_failed_commit(frequent: Frequent) -> None:
    World("acme")
    orphan = frequent(
        "UPDATE tenancy_project SET organization_id = %s::text::uuid RETURNING id"  # the commit checks this id
    )

    with pytest.raises(IntegrityError):
        orphan.run("00000000-0000-0000-0000-000000000000")


def test_frequent_statement_replaces_closed_connection(frequent: Frequent) -> None:
    pid = frequent("SELECT pg_backend_pid() WHERE %s::text IS NOT NULL")
    [(before,)] = pid.run("")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [before])

    [(after,)] = pid.run("")

    assert after != before


def test_frequent_statement_uses_separate_connection_for_each_concurrent_caller(
    concurrently: Race, frequent: Frequent
) -> None:
    pid = frequent("SELECT pg_backend_pid(), pg_sleep(0.2), %s::text")

    rows = concurrently(*(lambda: pid.run("") for _ in range(2)))

    assert len({backend for [(backend, *_)] in rows}) == len(pid._idle) == 2


def test_frequent_statement_can_be_used_with_more_than_1024_open_files(frequent: Frequent) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = [os.dup(0) for _ in range(1100)]
    try:
        assert frequent("SELECT %s::text").run("x") == [("x",)]
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
