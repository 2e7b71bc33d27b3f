"""A shortcut through gunicorn for the requests that agents send continually.

gunicorn takes more time to parse a heartbeat and to check its response than the application takes to handle it, because
gunicorn supports all forms of HTTP. Here, one regular expression parses requests of one strict form, and each response
is written directly. All other requests are passed to gunicorn unchanged. gunicorn would parse the
requests that are accepted here in the same way: ``tests/server/test_agent_requests.py`` compares the results.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any, NamedTuple, override

from gunicorn import SERVER, http
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import _ip_in_allow_list
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import base_environ

from byteor_cloud.server import pauses

_HEAD = re.compile(
    rb"(GET|POST) (/api/v1/agents/[0-9a-f-]{36}/(?:heartbeat|deployment))(?:\?([\w=&]*+))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]++:[\x20-\x7e]*+\r\n){1,50}+)\r\n"
)
_LENGTH = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_LONGEST_BODY = 99_999
# These headers change how a request is framed, or what the client expects from the connection.
_UNUSUAL = frozenset({"HTTP_TRANSFER_ENCODING", "HTTP_TE", "HTTP_TRAILER", "HTTP_EXPECT", "HTTP_UPGRADE"})
_BODILESS = frozenset({"204", "304"})


class Plain(NamedTuple):
    """A request of the strict form: its WSGI environment, the length of its body, and the bytes after its head."""

    environ: dict[str, Any]
    length: int
    rest: bytes


def read(data: bytes, base: Mapping[str, Any], scheme_headers: Mapping[str, str]) -> Plain | None:
    """Return the request that starts with these bytes, or None if gunicorn must handle it.

    ``base`` has the WSGI variables that all requests of the connection share. ``scheme_headers`` has the variables, and
    their values, with which a trusted proxy reports that its client used TLS.
    """
    match = _HEAD.match(data)
    if match is None:
        return None
    method, path, query, fields = match.groups(b"")
    environ = dict(base)
    lines = fields.decode("ascii").split("\r\n")[:-1]
    for line in lines:
        name, _, value = line.partition(":")
        environ[_variable(name)] = value.strip(" ")
    length = environ.get("CONTENT_LENGTH")
    uses_tls = [environ[name] == value for name, value in scheme_headers.items() if name in environ]
    if (
        len(environ) != len(base) + len(lines)  # a header occurs twice
        or not _UNUSUAL.isdisjoint(environ)
        or environ.get("HTTP_CONNECTION", "keep-alive").lower() != "keep-alive"
        or (length is not None and not _LENGTH.fullmatch(length))
        or len(uses_tls) > 1
    ):
        return None
    environ["wsgi.url_scheme"] = "https" if any(uses_tls) else "http"
    environ["REQUEST_METHOD"] = method.decode("ascii")
    environ["PATH_INFO"] = path.decode("ascii")
    environ["QUERY_STRING"] = query.decode("ascii")
    return Plain(environ, int(length or 0), data[match.end() :])


@lru_cache(maxsize=1000)
def _variable(name: str) -> str:
    variable = name.upper().replace("-", "_")
    return variable if variable in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{variable}"


class ShortCut:
    """Handles the requests of the strict form on one connection."""

    def __init__(self, worker: Any, sock: Any, listener: Any, address: Any) -> None:
        self._worker, self._sock = worker, sock
        cfg, (server_name, server_port) = worker.cfg, listener.getsockname()[:2]
        self._base = {
            **base_environ(cfg),
            "wsgi.multithread": True,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
            "SERVER_NAME": server_name,
            "SERVER_PORT": str(server_port),
            "REMOTE_ADDR": address[0],
            "REMOTE_PORT": str(address[1]),
            "gunicorn.socket": sock,  # as gunicorn does for its own requests; open_connections.py reads it
        }
        is_trusted = _ip_in_allow_list(address[0], cfg.forwarded_allow_ips, cfg.forwarded_allow_networks())
        headers = cfg.secure_scheme_headers if is_trusted else {}
        self._scheme_headers = {_variable(name): value for name, value in headers.items()}

    def serve(self, unreader: Any) -> bool:
        """Handle requests until gunicorn must handle one, and leave that one in ``unreader``.

        Returns True if the worker stops first.
        """
        worker, sock = self._worker, self._sock
        while True:
            sock.let_others_run(has_more=unreader.buf.tell() > 0)
            data = unreader.read()
            plain = read(data, self._base, self._scheme_headers)
            if plain is None:
                unreader.unread(data)
                return False
            unreader.unread(plain.rest)
            body = plain.environ["wsgi.input"] = Body(LengthReader(unreader, plain.length))
            worker.nr += 1
            if worker.nr >= worker.max_requests:
                worker.alive = False
            is_last = not worker.alive
            sock.is_handled = True
            try:
                sock.sendall(respond(worker.wsgi, plain.environ, is_last=is_last))
            finally:
                sock.is_handled = False
            if is_last:
                return True
            pauses.rest(plain.environ)
            while body.read(_LONGEST_BODY):  # skip the unread rest, after which the next request starts
                pass


def respond(application: Callable[..., Iterable[bytes]], environ: dict[str, Any], *, is_last: bool) -> bytes:
    """Call the application and return the whole response. Raises ValueError if a header contains a line break."""
    lines: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        connection = "close" if is_last else "keep-alive"
        lines[:] = (
            f"HTTP/1.1 {status}",
            f"Server: {SERVER}",
            f"Date: {_date(int(time.time()))}",
            f"Connection: {connection}",
        )
        lines.extend(f"{name}: {value}" for name, value in headers)
        if status[:3] not in _BODILESS and not any(name == "Content-Length" for name, _ in headers):
            lines.append("")

    pieces = application(environ, start_response)
    try:
        body = b"".join(pieces)
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
    if not lines[-1]:
        lines[-1] = f"Content-Length: {len(body)}"
    head = "\r\n".join(lines)
    if head.count("\r") + head.count("\n") != 2 * len(lines) - 2:
        raise ValueError("a header contains a line break")
    return head.encode("latin-1") + b"\r\n\r\n" + body


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


class AgentsFirst(RequestParser):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's parser, which gets only the requests that the shortcut does not handle."""

    mesg: Any

    @override
    def __next__(self) -> Any:
        """Return the next request that gunicorn must handle."""
        if self.mesg is not None and (self.mesg.should_close() or not self.finish_body()):
            raise StopIteration
        self.mesg = None  # the body is finished, so the next byte starts a request
        if self.unreader.sock.short_cut.serve(self.unreader):
            raise StopIteration
        return super().__next__()


# gunicorn's workers create their parser through this name.
http.get_parser = AgentsFirst
