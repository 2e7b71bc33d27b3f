"""Tests of request bodies: size limits, checks before reading, and incomplete bodies.

Also tests that no database connection is held while a body is received or sent.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from apps.fleet.models import Heartbeat
from apps.pipelines.models import Draft
from apps.tenancy.credentials import Family, generate
from byteor_cloud.api import bodies
from tests.front import FrontClient
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db
CHUNKED: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
JSON = "application/json"
FORM = "multipart/form-data; boundary=xx"


class Body(io.RawIOBase):
    """A request body that counts the bytes read, and records whether a database connection was held during a read."""

    def __init__(self, content: bytes = b"", *, fails: Exception | None = None) -> None:
        self.content, self.fails = io.BytesIO(content), fails
        self.count = 0
        self.held_connection = False

    def read(self, size: int = -1) -> bytes:
        self.held_connection |= connection.connection is not None
        data = self.content.read(size)
        self.count += len(data)
        if len(data) < size and self.fails is not None:
            raise self.fails
        return data

    def readline(self, size: int | None = -1) -> bytes:
        raise AssertionError("the server must not read lines")


def send(path: str, body: Body, *, length: int, token: str | None, kind: str = JSON, **environ: Any) -> Any:
    """Send ``body`` with POST, as a WSGI server would pass it to the application."""
    if token is not None:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    variables = {"CONTENT_TYPE": kind, "CONTENT_LENGTH": str(length), "wsgi.input": body, **environ}
    return FrontClient(raise_request_exception=True).generic("POST", path, **variables)


def drafts(world: World) -> str:
    return world.path(rest="/drafts")


def is_problem(response: Any, status: int, code: str) -> bool:
    return (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}")


@pytest.mark.parametrize(
    ("route", "cap"),
    [
        ("drafts", 4 << 20),
        ("heartbeat", 64 << 10),
        ("deployment", 64 << 10),
        ("artifacts", (64 << 20) + (1 << 20)),
        ("/auth/link/x", 64 << 10),
        ("/admin/login/", 64 << 10),
        ("/nowhere", 64 << 10),
    ],
)
def test_oversized_body_is_refused_before_reading(world: World, route: str, cap: int) -> None:
    agent, api = world.agent()
    is_agents = route in {"heartbeat", "deployment", "artifacts"}
    path = f"/api/v1/agents/{agent.pk}/{route}" if is_agents else drafts(world) if route == "drafts" else route
    token = api.token if is_agents else world.operator.api.token if route == "drafts" else None
    body = Body(b"x" * 100)

    response = send(path, body, length=cap + 1, token=token, kind=FORM if route == "artifacts" else JSON)

    assert is_problem(response, 413, "payload_too_large")
    assert body.count == 0
    small = send(path, Body(b"{}"), length=2, token=token, kind=FORM if route == "artifacts" else JSON)
    assert small.status_code != 413


def test_oversized_chunked_body_is_refused(world: World) -> None:
    body = Body(b"[" + b"1," * (8 << 20))

    response = send(drafts(world), body, length=0, token=world.operator.api.token, **CHUNKED)

    assert is_problem(response, 413, "payload_too_large")
    assert body.count <= (4 << 20) + 1


def test_chunked_bodies_are_accepted_except_for_uploads(world: World) -> None:
    response = send(
        drafts(world), Body(b'{"name": "chunked", "plan": {}}'), length=0, token=world.operator.api.token, **CHUNKED
    )
    agent, api = world.agent()
    upload = send(
        f"/api/v1/agents/{agent.pk}/artifacts", Body(b"--xx"), length=0, token=api.token, kind=FORM, **CHUNKED
    )

    assert (response.status_code, Draft.objects.get().name) == (201, "chunked")
    assert is_problem(upload, 411, "length_required")


@pytest.fixture
def received(settings: Any, tmp_path: Path) -> Path:
    """Receive uploads in a folder that no other process in the test run uses."""
    default = settings.STORAGES["default"]
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**default, "OPTIONS": {**default["OPTIONS"], "location": tmp_path / "received"}},
    }
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "received")
    return tmp_path / "received"


@pytest.mark.parametrize("path", ["/auth/link/x", "/admin/", "/nowhere"])
@pytest.mark.parametrize("folder_exists", [True, False])
def test_refused_form_with_file_leaves_no_file_on_disk(path: str, folder_exists: bool, received: Path) -> None:
    if folder_exists:
        received.mkdir()
    part = b'--xx\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"x" * 50_000 + b"\r\n--xx--\r\n"
    client = Client(enforce_csrf_checks=True, raise_request_exception=True)
    client.cookies["csrftoken"] = "a" * 32

    response = client.generic("POST", path, part, FORM)

    assert response.status_code in {403, 404}
    assert list(received.glob("*")) == []


def test_unauthenticated_api_request_is_refused_before_reading_its_body(world: World) -> None:
    agent, _ = world.agent()
    for path in (drafts(world), f"/api/v1/agents/{agent.pk}/artifacts", f"/api/v1/agents/{agent.pk}/deployment"):
        body = Body(b"x" * 100)

        response = send(path, body, length=10**9, token=None)

        assert is_problem(response, 401, "unauthenticated")
        assert body.count == 0


@pytest.mark.parametrize(
    ("caller", "kind", "length", "status", "code"),
    [
        ("no credential", "text/plain", 10**9, 401, "unauthenticated"),
        ("an agent", "text/plain", 10**9, 403, "wrong_credential"),
        ("another tenant", "text/plain", 10**9, 404, "not_found"),
        ("a viewer", "text/plain", 10**9, 403, "forbidden"),
        ("an operator", "text/plain", 10**9, 413, "payload_too_large"),
        ("an operator", "text/plain", 5, 415, "unsupported_media_type"),
        ("an operator", JSON, 5, 400, "malformed_json"),
    ],
)
def test_request_returns_problem_of_first_failed_check(
    world: World, other: World, caller: str, kind: str, length: int, status: int, code: str
) -> None:
    _, agent = world.agent()
    callers = {
        "an agent": agent,
        "another tenant": other.operator.api,
        "a viewer": world.viewer.api,
        "an operator": world.operator.api,
    }
    token = callers[caller].token if caller in callers else None

    assert is_problem(send(drafts(world), Body(b"{{{{{"), length=length, token=token, kind=kind), status, code)


def test_unsupported_method_returns_405_even_with_invalid_credential(world: World) -> None:
    response = Api("bor_usr_nonsense")("PATCH", drafts(world), {})

    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("body", "kind"), [(b"{", JSON), (b"{}", "text/plain"), (b'{"status": 1}', JSON), (b"x" * 70_000, JSON)]
)
def test_invalid_heartbeat_with_unknown_agent_key_returns_401(world: World, body: bytes, kind: str) -> None:
    agent, api = world.agent()
    path = f"/api/v1/agents/{agent.pk}/heartbeat"

    with_unknown_key = send(path, Body(body), length=len(body), token=generate(Family.AGENT).text, kind=kind)
    with_own_key = send(path, Body(body), length=len(body), token=api.token, kind=kind)

    assert is_problem(with_unknown_key, 401, "unauthenticated")
    assert with_own_key.status_code in {400, 413, 415}
    assert "X-RateLimit-Remaining" in with_own_key
    assert Heartbeat.objects.get(agent=agent).last_seen_at is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("route", ["drafts", "heartbeat", "deployment", "artifacts", "/auth/link/x"])
def test_no_database_connection_is_held_while_body_arrives(route: str) -> None:
    world = World("acme")
    agent, api = world.agent()
    is_agents = route in {"heartbeat", "deployment", "artifacts"}
    path = f"/api/v1/agents/{agent.pk}/{route}" if is_agents else drafts(world) if route == "drafts" else route
    token = api.token if is_agents else world.operator.api.token if route == "drafts" else None
    body = Body(b"--xx--\r\n" if route == "artifacts" else b"{}")
    connection.close()  # between two requests, a server holds no connection

    send(path, body, length=len(body.content.getvalue()), token=token, kind=FORM if route == "artifacts" else JSON)

    assert body.count > 0
    assert not body.held_connection


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TimeoutError(104, "too slow"), 408, "request_timeout"),
        (ConnectionResetError(104, "gone"), 400, "truncated"),
        (None, 400, "truncated"),
    ],
)
@pytest.mark.parametrize("route", ["drafts", "heartbeat", "artifacts"])
def test_incomplete_body_changes_nothing(
    world: World, route: str, error: Exception | None, status: int, code: str, received: Path
) -> None:
    agent, api = world.agent()
    path = drafts(world) if route == "drafts" else f"/api/v1/agents/{agent.pk}/{route}"
    token = world.operator.api.token if route == "drafts" else api.token
    form = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nabc'
    body = Body(form if route == "artifacts" else b'{"name": "x", "plan": {}}', fails=error)

    response = send(path, body, length=1000, token=token, kind=FORM if route == "artifacts" else JSON)

    assert is_problem(response, status, code)
    assert not Draft.objects.exists()
    assert Heartbeat.objects.get(agent=agent).last_seen_at is None
    assert list(received.glob("*")) == []


@pytest.mark.django_db(transaction=True)
def test_streamed_response_holds_no_database_connection_between_chunks() -> None:
    def lines() -> Iterator[str]:
        for number in range(100):
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            yield f"{number:01000d}\n"

    pieces = []
    for piece in bodies.join_lines(lines()):
        assert connection.connection is None
        pieces.append(piece)

    assert len(pieces) > 1
    assert b"".join(pieces) == "".join(f"{number:01000d}\n" for number in range(100)).encode()


@pytest.mark.django_db(transaction=True)
def test_no_database_connection_is_held_while_response_is_read() -> None:
    world = World("acme")

    response = world.operator.api.get(drafts(world))

    assert response.status_code == 200
    assert connection.connection is None
    assert response["Content-Length"] == str(len(response.content))
