"""Tests of request ids, of row ids, and of the conversion of errors to problems."""

from __future__ import annotations

import logging
import random
import threading
import uuid
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import RequestFactory
from psycopg_pool import PoolTimeout
from rest_framework import exceptions as drf

from apps.tenancy.models import AuditEvent, Project
from apps.tenancy.services import organizations
from byteor_cloud import errors
from byteor_cloud.api import problems
from byteor_cloud.ids import uuid7
from tests.worlds import World

pytestmark = pytest.mark.django_db


def projects(world: World) -> str:
    return f"/api/v1/orgs/{world.organization.pk}/projects"


def fail_writes(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make the creation of projects fail with this SQLSTATE after the row is inserted."""
    real = organizations.create_project

    def create(**columns: Any) -> Project:
        with transaction.atomic():
            real(**columns)
            with connection.cursor() as cursor:
                cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'secret detail' USING ERRCODE = '{code}'; END $$")
        raise AssertionError("unreachable")

    monkeypatch.setattr(organizations, "create_project", create)


@pytest.mark.parametrize(
    ("code", "retry_after"),
    [
        ("40P01", 1), ("55P03", 1), ("57014", 5), ("25P03", 5), ("57P01", 5), ("57P03", 5), ("53300", 5),
        ("08006", 5),
    ],
    ids=[
        "deadlock", "lock timeout", "statement timeout", "idle in transaction", "shutdown", "starting up",
        "too many connections", "connection lost",
    ],
)  # fmt: skip
def test_transient_database_error_returns_503_and_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, code: str, retry_after: int
) -> None:
    fail_writes(monkeypatch, code)
    events = AuditEvent.objects.count()

    response = world.admin.api.post(projects(world), {"name": "billing"})

    assert response.status_code == 503
    assert retry_after <= int(response["Retry-After"]) <= retry_after + 10
    assert response.json()["type"] == "urn:byteor:problem:unavailable"
    assert b"secret detail" not in response.content
    assert not Project.objects.filter(name="billing").exists()
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize(
    ("error", "span"),
    [
        (errors.TooManyRequests("", retry_after=1), 30),
        (errors.TooManyRequests("", retry_after=61), 30),
        (errors.Unavailable("", retry_after=5), 10),
        (errors.InsufficientStorage("", retry_after=30), 30),
        (errors.Conflict("", retry_after=1), 3),
    ],
)
def test_retry_after_header_adds_evenly_spread_delay_to_required_wait(error: errors.DomainError, span: int) -> None:
    random.seed(8)
    assert error.retry_after is not None

    values = [int(problems.respond(RequestFactory().get("/"), error)["Retry-After"]) for _ in range(2000)]

    assert set(values) == set(range(error.retry_after, error.retry_after + span + 1))
    assert max(values.count(value) for value in set(values)) < 2 * 2000 / (span + 1)


def test_exhausted_connection_pool_is_converted_to_unavailable_error() -> None:
    error = problems.as_domain_error(PoolTimeout("no connection in 5 s"))

    assert (type(error), error.retry_after) == (errors.Unavailable, 5)


def test_unexpected_exception_returns_500_without_details_and_is_logged(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raise_unexpected(**columns: Any) -> None:
        raise KeyError("a secret key")

    monkeypatch.setattr(organizations, "create_project", raise_unexpected)
    world.admin.api.client.raise_request_exception = False
    with caplog.at_level(logging.ERROR):
        token = f"Bearer {world.admin.api.token}"
        response = world.admin.api.client.post(
            projects(world), {"name": "x"}, "application/json", headers={"Authorization": token}
        )

    body = response.json()
    assert (response.status_code, response["Content-Type"]) == (500, errors.CONTENT_TYPE)
    assert body["type"] == "urn:byteor:problem:internal"
    assert b"secret key" not in response.content
    assert b"Traceback" not in response.content
    assert body["request_id"] in caplog.text


@pytest.mark.parametrize(
    ("name", "code"), [("trading", "name_taken"), ("TRADING!", "slug_taken")], ids=["name", "slug"]
)
def test_existing_project_name_or_slug_returns_409(world: World, name: str, code: str) -> None:
    events = AuditEvent.objects.count()

    response = world.admin.api.post(projects(world), {"name": name})

    assert (response.status_code, response.json()["type"]) == (409, f"urn:byteor:problem:{code}")
    assert (Project.objects.count(), AuditEvent.objects.count()) == (1, events)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (drf.NotAuthenticated(), 401, "unauthenticated"),
        (drf.PermissionDenied(), 403, "forbidden"),
        (drf.NotFound(), 404, "not_found"),
        (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (drf.NotAcceptable(), 406, "not_acceptable"),
        (drf.UnsupportedMediaType("a/b"), 415, "unsupported_media_type"),
        (drf.Throttled(), 429, "too_many_requests"),
        (drf.ParseError(), 400, "invalid"),
    ],
)
def test_drf_error_is_converted_to_domain_error_with_expected_status_and_code(
    error: Exception, status: int, code: str
) -> None:
    found = problems.as_domain_error(error)

    assert (found.status, found.reason) == (status, code)


def test_nested_errors_have_json_pointers() -> None:
    error = drf.ValidationError(
        {"plan": {"a/b": [{}, {"c~d": ["wrong"]}]}, "non_field_errors": ["all of it"], "tags": ["too many"]}
    )

    found = problems.as_domain_error(error)

    assert [(getattr(e, "pointer", None), e.detail) for e in found.errors] == [
        ("/plan/a~1b/1/c~0d", "wrong"),
        ("", "all of it"),
        ("/tags", "too many"),
    ]


def test_problem_contains_path_and_request_id(rf: RequestFactory) -> None:
    request = rf.get("/api/v1/me", headers={"X-Request-ID": "req-12345678"})

    assert problems.problem_body(request, errors.Conflict("No.", code="barred")) == {
        "type": "urn:byteor:problem:barred",
        "title": "Conflict",
        "status": 409,
        "detail": "No.",
        "instance": "/api/v1/me",
        "request_id": "req-12345678",
    }


def test_each_error_code_is_declared_once() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DomainError)]
    codes = [kind.code for kind in kinds if "code" in vars(kind)]  # NotStored uses the code of NotFound

    assert (len(kinds), len(codes)) == (22, 21)
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("given", ["req-12345678", "A.b_c-" + "d" * 58])
def test_valid_request_id_of_caller_is_returned_and_recorded(world: World, given: str) -> None:
    response = world.admin.api.post(projects(world), {"name": "billing"}, X_Request_ID=given)

    assert response["X-Request-ID"] == given
    assert AuditEvent.objects.filter(action="project.create").latest("id").request_id == given


@pytest.mark.parametrize("given", ["", "short", "d" * 65, "with space", "new\nline", "ümlaut-und-mehr"])
def test_invalid_request_id_of_caller_is_replaced(world: World, given: str) -> None:
    response = world.admin.api.get("/api/v1/me", X_Request_ID=given)

    assert uuid.UUID(response["X-Request-ID"]).version == 7


def test_uuid7_contains_version_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byteor_cloud.ids._last", 0)
    monkeypatch.setattr("byteor_cloud.ids.time.time_ns", lambda: 1_800_000_000_123_456_789)

    ids = [uuid7() for _ in range(3)]

    assert {(u.version, u.variant) for u in ids} == {(7, uuid.RFC_4122)}
    assert {u.int >> 80 for u in ids} == {1_800_000_000_123}
    assert ids == sorted(ids)
    assert len(set(ids)) == 3


def test_uuid7_increases_when_clock_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = uuid7()
    monkeypatch.setattr("byteor_cloud.ids.time.time_ns", lambda: 1_000_000_000)

    assert uuid7() > before


def test_uuid7_increases_across_threads() -> None:
    ids: list[list[uuid.UUID]] = [[] for _ in range(8)]
    latest: list[uuid.UUID] = []
    barrier = threading.Barrier(8)

    def make(own: list[uuid.UUID]) -> None:
        barrier.wait()
        for _ in range(2000):
            floor = latest[-1] if latest else uuid.UUID(int=0)
            own.append(uuid7())
            assert own[-1] > floor
            latest.append(own[-1])

    threads = [threading.Thread(target=make, args=(own,)) for own in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({u for own in ids for u in own}) == 16_000
    assert all(own == sorted(own) for own in ids)
