"""Tests of writing requests and parsing responses."""

from __future__ import annotations

import pytest

from byteor_cloud.simulator.wire import BadResponse, read_response, write_request

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\n, w\r\n0\r\n\r\n"


def test_request_is_written_as_http() -> None:
    assert write_request("POST", "/p", host="h:1", token="t", body=b"{}", extra="Date: x\r\n") == (
        b"POST /p HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\nDate: x\r\n\r\n{}"
    )
    assert write_request("GET", "/", host="h") == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(("data", "body"), [(PLAIN, b"hello"), (CHUNKED, b"hello, w")])
def test_response_with_length_or_chunks_is_incomplete_without_last_byte(data: bytes, body: bytes) -> None:
    for length in range(len(data)):
        assert read_response(data[:length]) is None
    response = read_response(data)

    assert response is not None
    assert (response.status, response.body, response.keeps_connection) == (200, body, True)
    assert response.retry_after_s is None


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_connection_and_retry_after_headers_are_parsed_except_retry_after_dates(
    value: str, seconds: float | None
) -> None:
    head = f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    response = read_response(head.encode())

    assert response is not None
    assert (response.status, response.retry_after_s, response.keeps_connection) == (503, seconds, False)


def test_body_without_length_ends_when_connection_closes() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nhello"

    assert read_response(data) is None
    response = read_response(data, is_closed=True)
    assert response is not None
    assert (response.body, response.keeps_connection) == (b"hello", False)
    empty = read_response(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    assert empty is not None
    assert empty.body == b""


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", b"x" * 100_000, CHUNKED.replace(b"5\r\n", b"z\r\n"),
        CHUNKED.replace(b"5\r\n", b"-2\r\n"), PLAIN.replace(b": 5", b": -5"), PLAIN.replace(b": 5", b": x"),
    ],
)  # fmt: skip
def test_invalid_response_is_rejected(data: bytes) -> None:
    with pytest.raises(BadResponse):
        read_response(data)
