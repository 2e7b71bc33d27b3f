"""Tests of the shortcut for agents' requests: it parses them like gunicorn and responds, or leaves them to gunicorn."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from hypothesis import given, settings
from hypothesis import strategies as st

from byteor_cloud.server.agent_requests import AgentsFirst, ShortCut, read, respond

AGENT = "/api/v1/agents/01990a5c-7a40-7cc0-8000-3f2b7e5d1c04"
PLAIN = f"POST {AGENT}/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
CFG = Config()
CFG.set("limit_request_line", 8190)
HERE, CLIENT = ("127.0.0.1", 8080), ("127.0.0.1", 50000)
# Variables that only gunicorn sets, and variables that cannot be compared.
_OF_GUNICORN = {"RAW_URI", "gunicorn.socket", "wsgi.input", "wsgi.early_hints", "wsgi.errors", "wsgi.file_wrapper"}


def cut(worker: Any = None, sock: Any = None) -> ShortCut:
    return ShortCut(worker or SimpleNamespace(cfg=CFG), sock, SimpleNamespace(getsockname=lambda: HERE), CLIENT)


def by_gunicorn(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Let gunicorn parse the request. Return the variables, the body, and the rest of ``data``. May raise an error."""
    parser = RequestParser(CFG, iter([data]), CLIENT)
    request = next(parser)
    _, environ = create(request, None, CLIENT, HERE, CFG)
    body = request.body.read()
    return {**environ, "wsgi.multithread": True}, body, parser.unreader.take_buffered()


def by_short_cut(data: bytes) -> tuple[dict[str, Any], bytes, bytes] | None:
    short_cut = cut()
    plain = read(data, short_cut._base, short_cut._scheme_headers)
    if plain is None or len(plain.rest) < plain.length:
        return None
    return plain.environ, plain.rest[: plain.length], plain.rest[plain.length :]


def comparable(environ: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in environ.items() if name not in _OF_GUNICORN}


def with_fields(*fields: str) -> bytes:
    return PLAIN.replace("\r\n\r\n", "".join(f"\r\n{field}" for field in fields) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        f"GET {AGENT}/deployment HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"GET {AGENT}/deployment?wait_s=30 HTTP/1.1\r\nhost:x\r\nIf-None-Match: W/\"a\", \"b\"\r\n\r\nGET /".encode(),
        with_fields("Accept: */*", "Accept-Encoding: gzip, deflate", "Connection: keep-alive", "User-Agent:  a b  "),
        with_fields("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Empty:"),
        with_fields("X-Forwarded-Proto: http"),
    ],
)  # fmt: skip
def test_agent_request_parser_agrees_with_gunicorn(data: bytes) -> None:
    found, expected = by_short_cut(data), by_gunicorn(data)

    assert found is not None
    assert (comparable(found[0]), *found[1:]) == (comparable(expected[0]), *expected[1:])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN.encode()[:-10],  # the head has not arrived completely
        PLAIN.replace("HTTP/1.1", "HTTP/1.0").encode(),
        PLAIN.replace("POST", "PUT").encode(),
        PLAIN.replace("/heartbeat", "/heartbeat/").encode(),
        PLAIN.replace("/heartbeat", "/heartbeat?a=%41").encode(),
        PLAIN.replace("/api", "//api").encode(),
        PLAIN.replace("POST ", "POST http://x").encode(),
        PLAIN.replace("\r\n", "\n").encode(),
        PLAIN.replace("Length: 2", "Length: 02").encode(),
        PLAIN.replace("Length: 2", "Length: +2").encode(),
        PLAIN.replace("Length: 2", "Length: 100000").encode(),
        with_fields("Content-Length: 2"),
        with_fields("content-length: 3"),
        with_fields("Host: y"),
        with_fields("X-A: 1", "x-a: 2"),
        with_fields("Transfer-Encoding: chunked"),
        with_fields("TE: trailers"),
        with_fields("Expect: 100-continue"),
        with_fields("Connection: close"),
        with_fields("Connection: upgrade"),
        with_fields("X_A: 1"),
        with_fields("X-A : 1"),
        with_fields("X-A: 1", " folded"),
        with_fields("X-A: é"),
        with_fields("X-A: \x00"),
        with_fields("X-A: a\tb"),
        with_fields("X-A: 1\r"),
        with_fields("X-Forwarded-Proto: https", "X-Forwarded-Ssl: on"),
        with_fields(*(f"X-{number}: 1" for number in range(60))),
    ],
)
def test_incomplete_heads_and_unsupported_requests_are_left_to_gunicorn(data: bytes) -> None:
    assert by_short_cut(data) is None


# -- random requests ---------------------------------------------------------------------------------------------------
# ``make fuzz`` tries many more. The templates are polls, heartbeats, reports, and several requests on one connection.

CASES = int(os.environ.get("BYTEOR_FUZZ_CASES", "100"))
POLL = f'GET {AGENT}/deployment?wait_s=30 HTTP/1.1\r\nHost: x\r\nIf-None-Match: "a"\r\nX-Forwarded-Proto: https\r\n\r\n'
REPORT = PLAIN.replace("heartbeat", "deployment").replace("Length: 2\r\n\r\n{}", 'Length: 8\r\n\r\n{"a": 1}')
_PIECES = st.sampled_from([
    "\r\n", "\n", "\r", ":", ": ", " ", "\t", ",", "0", "2", "é", "\x00", "_", "?", "#", "/", "..", "&a=b", "%0d",
    "HTTP/1.1", "chunked",
    "Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Host: y\r\n", "X-A: 1\r\n",
    "X-Forwarded-Proto: https\r\n", "X-Forwarded-Ssl: on\r\n", "Content-Length", "Expect: 100-continue\r\n",
    "POST ", "GET ", "\r\n\r\n",
])  # fmt: skip
_EDITS = st.tuples(st.integers(0, 400), st.integers(0, 3), _PIECES | st.characters(codec="latin-1"))
_NAMES = st.sampled_from([
    "Accept", "accept-encoding", "User-Agent", "Content-Type", "Authorization", "If-None-Match",
    "Idempotency-Key", "X-Request-ID", "X-Forwarded-For", "Forwarded", "Host", "Connection", "Keep-Alive",
    "Content-Length", "content-length", "Transfer-Encoding", "TE", "Trailer", "Expect", "Upgrade", "Script-Name",
    "Path-Info", "Remote-User", "X-A", "x-a", "X_A", "-", "1", "A.b", "A b", "Ä", "",
])  # fmt: skip
_VALUES = st.sampled_from([
    "", "x", "2", "02", "+2", "1_0", "9" * 12, "keep-alive", "Close", "close, keep-alive", "chunked", "identity",
    "https", "http", "on", "application/json", "100-continue", "h2c", '"a", W/"b"', "a\tb", "a\x7f", "é", " x ", "\t",
]) | st.text(st.characters(codec="latin-1"), max_size=8)  # fmt: skip
_FIELDS = st.tuples(_NAMES, st.sampled_from([": ", ":", ":  ", ":\t", " :"]), _VALUES).map("".join) | st.sampled_from([
    "X-Forwarded-Proto: https", "X-Forwarded-Proto: http", "X-Forwarded-Ssl: on", "X-Forwarded-Protocol: ssl",
    "Content-Length: 2", "Content-Type: application/json", "Connection: keep-alive", "X-A: 1", "x-a: 2", "X_A: 3",
])  # fmt: skip
_QUERIES = st.sampled_from(["", "?", "?wait_s=5", "?wait_s=5&wait_s=6", "?a", "?a=%41", "?a=b?c", "?a#b", "?é"])


def check_agreement(data: bytes) -> None:
    """Assert that gunicorn accepts the requests that the shortcut accepts, and parses them in the same way."""
    short_cut = cut()
    plain = read(data, short_cut._base, short_cut._scheme_headers)
    if plain is not None:
        expected = by_gunicorn(data)
        rest = plain.rest
        assert (comparable(plain.environ), rest[: plain.length], rest[plain.length :]) == (
            comparable(expected[0]), *expected[1:],
        )  # fmt: skip


@settings(max_examples=CASES)
@given(st.sampled_from([PLAIN, POLL, REPORT, POLL + PLAIN, PLAIN + POLL]), st.lists(_EDITS, max_size=4))
def test_parser_agrees_with_gunicorn_on_mutated_requests_that_it_accepts(
    text: str, edits: list[tuple[int, int, str]]
) -> None:
    for at, removed, inserted in edits:
        text = text[:at] + inserted + text[at + removed :]

    check_agreement(text.encode("latin-1"))


@settings(max_examples=CASES)
@given(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["heartbeat", "deployment"]),
    _QUERIES,
    st.lists(_FIELDS, max_size=3),
    st.sampled_from(["", "{}", "{}GET / HTTP/1.1\r\n\r\n", "0\r\n\r\n"]),
)
def test_parser_agrees_with_gunicorn_on_random_fields_that_it_accepts(
    method: str, resource: str, query: str, fields: list[str], body: str
) -> None:
    head = "\r\n".join([f"{method} {AGENT}/{resource}{query} HTTP/1.1", "Host: x", *fields])

    check_agreement(f"{head}\r\n\r\n{body}".encode("latin-1"))


@settings(max_examples=CASES)
@given(
    st.sampled_from([POLL, PLAIN, REPORT]),
    st.dictionaries(
        st.from_regex(r"X-[A-Za-z0-9-]{1,20}", fullmatch=True).filter(lambda name: "forwarded" not in name.lower()),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        max_size=5,
    ),
)
def test_x_headers_with_printable_ascii_values_are_accepted_unless_repeated(text: str, fields: dict[str, str]) -> None:
    are_distinct = len({name.upper() for name in fields}) == len(fields)
    head, _, body = text.partition("\r\n\r\n")
    data = "\r\n".join([head, *(f"{name}: {value}" for name, value in fields.items())]) + f"\r\n\r\n{body}"

    assert (by_short_cut(data.encode()) is not None) == are_distinct
    check_agreement(data.encode())


def test_tls_headers_of_untrusted_client_are_ignored() -> None:
    cfg = Config()
    cfg.set("forwarded_allow_ips", "10.0.0.1")

    short_cut = cut(SimpleNamespace(cfg=cfg))
    plain = read(with_fields("X-Forwarded-Proto: https"), short_cut._base, short_cut._scheme_headers)

    assert plain is not None
    assert plain.environ["wsgi.url_scheme"] == "http"


# -- responses ---------------------------------------------------------------------------------------------------------


class Connection:
    """A connection to an application. ``parser`` handles agents' requests, and yields the others to gunicorn."""

    def __init__(self, application: Callable[..., Any], max_requests: int = 100) -> None:
        self.client, server = socket.socketpair()
        self.worker = SimpleNamespace(cfg=CFG, nr=0, max_requests=max_requests, alive=True, wsgi=application)
        server.settimeout(5)
        self.turns: list[bool] = []  # for each wait for a request, whether bytes of the request had been read already
        self.server = SimpleNamespace(
            recv=server.recv,
            sendall=server.sendall,
            is_handled=False,
            let_others_run=lambda *, has_more: self.turns.append(has_more),
        )
        self.server.short_cut = cut(self.worker, self.server)
        self.close = server.close
        self.parser = AgentsFirst(CFG, self.server, CLIENT)

    def responses(self) -> bytes:
        """Return the bytes sent until the connection is closed or nothing arrives for 50 ms."""
        self.client.settimeout(0.05)
        found = b""
        try:
            while piece := self.client.recv(65536):
                found += piece
        except TimeoutError:
            pass
        return found


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Respond with the first two bytes of the request's body."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.input"].read(2)]


def refuse(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Respond without reading the body."""
    start_response("401 Unauthorized", [("Content-Length", "0")])
    return []


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    made: list[Connection] = []

    def connection(*args: Any) -> Connection:
        made.append(Connection(*args))
        return made[-1]

    yield connection
    for each in made:
        each.client.close()
        each.close()


def test_agent_requests_are_handled_before_and_after_request_left_to_gunicorn(
    connect: Callable[..., Connection],
) -> None:
    connection = connect(echo)
    connection.client.sendall(2 * PLAIN.encode() + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")

    request = next(connection.parser)

    assert (request.method, request.path) == ("GET", "/healthz")
    responses = connection.responses().decode()
    assert responses.count("HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: ") == 2
    assert responses.endswith("Connection: keep-alive\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}")
    # After gunicorn's request, the shortcut continues.
    connection.client.sendall(PLAIN.encode())
    connection.client.shutdown(socket.SHUT_WR)
    with pytest.raises(StopIteration):
        next(connection.parser)
    assert connection.responses().count(b"200 OK") == 1
    assert connection.worker.nr == 3
    assert connection.turns == [False, True, True, False, False]  # four requests and the end


def test_unread_request_body_is_not_parsed_as_next_request(connect: Callable[..., Connection]) -> None:
    connection = connect(refuse)
    inner = PLAIN.encode()
    outer = PLAIN.replace("Length: 2", f"Length: {len(inner)}").encode()[:-2]
    connection.client.sendall(outer + inner + PLAIN.encode())
    connection.client.shutdown(socket.SHUT_WR)

    with pytest.raises(StopIteration):
        next(connection.parser)

    assert connection.responses().count(b"HTTP/1.1 401") == 2


def test_connection_ends_after_request_with_truncated_body(connect: Callable[..., Connection]) -> None:
    connection = connect(echo)
    connection.client.sendall(PLAIN.encode()[:-1])
    connection.client.shutdown(socket.SHUT_WR)

    with pytest.raises(StopIteration):
        next(connection.parser)

    assert connection.responses().endswith(b"\r\n\r\n{")


def test_process_at_request_limit_closes_connection_after_response(connect: Callable[..., Connection]) -> None:
    connection = connect(echo, 2)
    connection.client.sendall(3 * PLAIN.encode())

    with pytest.raises(StopIteration):
        next(connection.parser)

    assert not connection.worker.alive
    responses = connection.responses().decode()
    assert (responses.count("Connection: keep-alive"), responses.count("Connection: close")) == (1, 1)


def test_response_header_with_line_break_is_refused() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-A", "1\r\nX-B: 2")])
        return [b""]

    with pytest.raises(ValueError, match="line break"):
        respond(application, {}, is_last=False)


def test_304_response_has_no_content_length() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("304 Not Modified", [("ETag", '"x"')])
        return [b""]

    assert respond(application, {}, is_last=False).endswith(b'\r\nETag: "x"\r\n\r\n')
