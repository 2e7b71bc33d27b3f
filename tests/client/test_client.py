"""Retries, errors, pages, uploads and downloads of the client, against a server whose responses each test chooses."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from byteor.client import (
    ApiError,
    AsyncByteOr,
    ByteOr,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unavailable,
    UnexpectedResponse,
)
from byteor.client import models as m
from tests.client.faulty import NOBODY, Answer, Faulty, faulty, pages

TOKEN = "bor_usr_secret"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SETTINGS: dict[str, Any] = {
    "token_max_days": 90, "email_domains": [], "default_environment_settings": {}, "default_notification_settings": {},
}  # fmt: skip
ORGANIZATION: dict[str, Any] = {
    "id": "o1", "name": "acme", "slug": "acme", "settings": SETTINGS, "created_at": "2026-11-29T00:00:00Z",
    "updated_at": "2026-11-29T00:00:00Z",
}  # fmt: skip
OK = Answer(body=ORGANIZATION)


@contextmanager
def connected(*answers: Any) -> Iterator[tuple[ByteOr, Faulty]]:
    """Serve these responses, and yield a client and the server."""
    with faulty(*answers) as server, ByteOr(server.url, TOKEN) as client:
        yield client, server


def problem(status: int, **members: Any) -> Answer:
    return Answer(status, {"type": "urn:byteor:problem:busy", "title": "Busy", "detail": "Come back.", "status": status,
                           "request_id": "r1", **members})  # fmt: skip


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record and return the waits before retries, without sleeping."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr("byteor.client.runtime.time.sleep", found.append)
    monkeypatch.setattr("asyncio.sleep", sleep)
    return found


@pytest.mark.parametrize("first", [problem(503), problem(502), NOBODY, Answer(body=ORGANIZATION, cut=20)])
def test_read_is_repeated_after_temporary_failure(first: Any, waits: list[float]) -> None:
    with connected(first, OK) as (client, server):
        assert client.organization("o1").get_organization().name == "acme"

    assert len(server.received) == 2
    assert len(waits) == 1


def test_asynchronous_read_is_repeated_after_temporary_failure(waits: list[float]) -> None:
    async def read(url: str) -> str:
        async with AsyncByteOr(url, TOKEN) as client:
            return (await client.organization("o1").get_organization()).name

    with faulty(problem(503), NOBODY, OK) as server:
        assert asyncio.run(read(server.url)) == "acme"

    assert len(server.received) == 3
    assert len(waits) == 2


def test_client_obeys_retry_after_header_and_logs_problem_without_token(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    limited = problem(429)
    limited.headers["Retry-After"] = "7"
    with caplog.at_level(logging.WARNING, "byteor.client"), connected(limited, OK) as (client, _):
        client.organization("o1").get_organization()

    assert [7 <= each <= 8 for each in waits] == [True]
    assert "Come back." in caplog.text
    assert TOKEN not in caplog.text


def test_response_429_raises_error_immediately_if_retry_after_is_over_one_minute(waits: list[float]) -> None:
    limited = problem(429)
    limited.headers["Retry-After"] = "3600"
    with connected(limited) as (client, _), pytest.raises(TooManyRequests) as refused:
        client.organization("o1").get_organization()

    assert refused.value.retry_after == 3600
    assert waits == []


def test_read_is_attempted_five_times_while_server_is_unavailable(waits: list[float]) -> None:
    with connected(problem(503)) as (client, server), pytest.raises(Unavailable):
        client.organization("o1").get_organization()

    assert len(server.received) == 5
    assert all(each <= 60 for each in waits)


def test_creation_sends_same_idempotency_key_in_every_attempt(waits: list[float]) -> None:
    with connected(NOBODY, Answer(201, ORGANIZATION)) as (client, server):
        client.create_organization(name="acme")

    keys = [headers["Idempotency-Key"] for _, _, headers, _ in server.received]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_patch_without_idempotency_key_is_not_repeated_after_lost_connection(waits: list[float]) -> None:
    with connected(NOBODY, OK) as (client, server), pytest.raises(ConnectionFailed):
        client.environment("o", "p", "e").update_agent("a", name="edge")

    assert len(server.received) == 1
    assert waits == []


def test_conflict_is_raised_with_code_and_request_id(waits: list[float]) -> None:
    answer = problem(409, type="urn:byteor:problem:duplicate_name", detail="This name is taken.")
    with connected(answer) as (client, _), pytest.raises(Conflict) as refused:
        client.create_organization(name="acme")

    assert (refused.value.code, refused.value.request_id) == ("duplicate_name", "r1")
    assert str(refused.value) == "This name is taken. (request r1)"
    assert waits == []


def test_creation_is_retried_while_request_with_same_key_is_running(waits: list[float]) -> None:
    running = problem(409)
    running.headers["Retry-After"] = "1"
    with connected(running, Answer(201, ORGANIZATION)) as (client, _):
        assert client.create_organization(name="acme").id == "o1"


def test_error_contains_pointer_of_invalid_field() -> None:
    errors = [{"pointer": "/name", "code": "max_length", "detail": "At most 100 characters."}]
    with connected(problem(400, errors=errors)) as (client, _), pytest.raises(InvalidRequest) as refused:
        client.create_organization(name="x" * 200)

    assert refused.value.errors == errors
    assert "/name: At most 100 characters." in str(refused.value)


@pytest.mark.parametrize("answer", [Answer(body=b"<html>proxy</html>"), Answer(body=[]), Answer(body={"id": 5})])
def test_invalid_response_body_raises_unexpected_response(answer: Answer) -> None:
    with connected(answer) as (client, _), pytest.raises(UnexpectedResponse):
        client.organization("o1").get_organization()


def test_error_page_of_proxy_raises_error_with_its_status() -> None:
    with connected(Answer(404, b"<html>gone</html>")) as (client, _), pytest.raises(NotFound) as refused:
        client.organization("o1").get_organization()

    assert refused.value.status == 404
    assert "<html>" not in str(refused.value)


def test_unknown_fields_of_response_are_accepted() -> None:
    row = {**ORGANIZATION, "settings": {**SETTINGS, "theme": "dark"}, "surprise": [1]}
    with connected(Answer(body=row)) as (client, _):
        assert client.organization("o1").get_organization().name == "acme"


def test_omitted_fields_are_not_sent() -> None:
    with connected(OK) as (client, server):
        organization = client.organization("o1")
        organization.update_organization(name="new", if_match='"1"')
        ((method, path, headers, body),) = server.received

    assert (method, path, headers["If-Match"]) == ("PUT", "/api/v1/orgs/o1", '"1"')
    assert json.loads(body) == {"name": "new"}


def test_ids_are_quoted_in_paths() -> None:
    with connected(OK) as (client, server):
        client.organization("../x?y").get_organization()

    assert server.received[0][1] == "/api/v1/orgs/..%2Fx%3Fy"


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_id_that_would_change_path_is_refused(part: str) -> None:
    with connected(OK) as (client, server):
        with pytest.raises(ValueError, match="not an id"):
            client.environment("o", "p", "e").delete_draft(part)
        assert server.received == []


def test_redirect_is_not_followed() -> None:
    with faulty(OK) as other, connected(Answer(302, b"", {"Location": other.url})) as (client, _):
        with pytest.raises((ApiError, UnexpectedResponse)):
            client.organization("o1").get_organization()
        assert other.received == []


def ten_thousand_rows() -> list[Answer]:
    return pages([{**ORGANIZATION, "id": f"o{at}", "name": "x" * 500} for at in range(10_000)], 200)


def test_ten_thousand_rows_are_read_in_constant_memory() -> None:
    with connected(*ten_thousand_rows()) as (client, server):
        found = iter(client.list_organizations(limit=200))
        for _ in range(200):
            next(found)
        tracemalloc.start()
        count = 200 + sum(1 for _ in found)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert count == 10_000
    assert [parse_qs(urlsplit(path).query)["cursor"] for _, path, _, _ in server.received[1:3]] == [["c200"], ["c400"]]
    assert most < 3_000_000  # enough for two pages, but not for all rows, which take 9 MB


def test_ten_thousand_rows_are_read_asynchronously_in_constant_memory() -> None:
    async def read(url: str) -> tuple[int, int]:
        async with AsyncByteOr(url, TOKEN) as client:
            found = aiter(client.list_organizations(limit=200))
            for _ in range(200):
                await anext(found)
            tracemalloc.start()
            count = 200 + len([None async for _ in found])
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return count, most

    with faulty(*ten_thousand_rows()) as server:
        count, most = asyncio.run(read(server.url))

    assert count == 10_000
    assert most < 3_000_000  # enough for two pages, but not for all rows, which take 9 MB


def test_creating_blocking_client_loads_no_slow_or_asynchronous_modules() -> None:
    program = "import sys; from byteor.client import ByteOr; ByteOr('http://localhost'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)

    slow = {"asyncio", "httpx2", "logging", "msgspec", "random", "urllib", "byteor.client.models"}
    assert slow & set(done.stdout.split()) == set()
    assert "byteor.client.async_runtime" not in done.stdout


def test_importing_unknown_name_from_client_raises_import_error() -> None:
    with pytest.raises(ImportError, match="ByteOrr"):
        from byteor.client import ByteOrr  # type: ignore[attr-defined]  # noqa: F401  the misspelled name is the test


def test_download_that_is_cut_off_leaves_no_file(tmp_path: Path) -> None:
    with connected(Answer(body=b"x" * 10_000, cut=100)) as (client, _):
        download = client.environment("o", "p", "e").download_artifact("a")
        with pytest.raises(ConnectionFailed):
            download.save(tmp_path / "capture.tar")

    assert list(tmp_path.iterdir()) == []


def test_download_is_saved(tmp_path: Path) -> None:
    with connected(Answer(body=b"x" * 10_000)) as (client, _):
        client.environment("o", "p", "e").download_artifact("a").save(tmp_path / "capture.tar")

    assert (tmp_path / "capture.tar").read_bytes() == b"x" * 10_000


@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_retried_upload_sends_whole_file_again(kind: str, tmp_path: Path, waits: list[float]) -> None:
    path = tmp_path / "capture.tar"
    path.write_bytes(b"capture")
    file: Any = {"bytes": b"capture", "path": path, "file": io.BytesIO(b"capture")}[kind]
    with connected(problem(429), problem(400)) as (client, server), pytest.raises(InvalidRequest):
        client.own_agent("a").upload_artifact(file=file, kind="telemetry", captured_at=NOON)

    assert [b"capture" in body for _, _, _, body in server.received] == [True, True]


@pytest.mark.parametrize("value", [1, 1.5, "text", True, None, [1], {"price": 7}])
def test_json_value_of_captured_payload_keeps_its_type(value: Any) -> None:
    body = json.dumps({"json": value, "payload_base64": None, "truncated": False})

    found = msgspec.json.decode(body, type=m.ShownPayload).json

    assert found == value
    assert type(found) is type(value)


def test_repr_of_client_does_not_contain_token() -> None:
    client = ByteOr("http://127.0.0.1:9", TOKEN)

    assert TOKEN not in repr(client) + repr(client.organization("o"))


def test_url_without_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="https://"):
        ByteOr("byteor.example.com")


@pytest.mark.parametrize("token", ["bor_usr_secret\n", "bor usr_secret", "bor_usr_sécret", "bor\x01usr_secret"])
def test_malformed_token_is_refused_without_printing_it(token: str) -> None:
    with pytest.raises(ValueError, match="token") as refused:
        ByteOr("http://127.0.0.1:1", token)

    assert token not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["https://", "ftp://", ""])
def test_password_in_url_is_refused_without_printing_it(scheme: str) -> None:
    with pytest.raises(ValueError, match="The URL of the server must") as refused:
        ByteOr(f"{scheme}ada:hunter2@byteor.example.com", TOKEN)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("body", [{"errors": ["x"]}, {"errors": "x"}, {"errors": 7}, b"[" * 100_000])
def test_error_with_malformed_body_is_raised_with_its_status(body: Any) -> None:
    with connected(Answer(400, body)) as (client, _), pytest.raises(InvalidRequest) as refused:
        client.organization("o1").get_organization()

    assert "400" in str(refused.value)


PAGE = Answer(body=b"<html>Sign in</html>", headers={"Content-Type": "text/html; charset=utf-8"})


@pytest.mark.parametrize("answer", [PAGE, Answer(302, b"", {"Location": "https://proxy.example.com/"})])
def test_page_or_redirect_of_proxy_raises_unexpected_response(answer: Answer, tmp_path: Path) -> None:
    with connected(answer) as (client, _):
        environment = client.environment("o", "p", "e")
        with pytest.raises(UnexpectedResponse):
            environment.delete_draft("d1")
        with pytest.raises(UnexpectedResponse):
            environment.get_version_spec("v1")
        with pytest.raises(UnexpectedResponse):
            environment.download_artifact("a1").save(tmp_path / "a1")
        with pytest.raises(UnexpectedResponse):
            client.request("GET", "/api/v1/me")

    assert list(tmp_path.iterdir()) == []


def test_corrupt_compressed_response_raises_connection_failed(waits: list[float]) -> None:
    answer = Answer(body=b"plain", headers={"Content-Encoding": "gzip"})
    with connected(answer) as (client, _), pytest.raises(ConnectionFailed):
        client.organization("o1").get_organization()


def test_repeated_next_cursor_raises_unexpected_response() -> None:
    page = {"results": [ORGANIZATION], "next": None, "previous": None, "next_cursor": "c1"}
    with connected(Answer(body=page)) as (client, server), pytest.raises(UnexpectedResponse, match="does not end"):
        list(client.list_organizations())

    assert len(server.received) == 2


def test_query_in_path_of_raw_request_is_sent() -> None:
    with connected(Answer(body={})) as (client, server):
        client.request("GET", "/api/v1/me?limit=1")

    assert server.received[0][1] == "/api/v1/me?limit=1"
