"""An HTTP server whose responses a test chooses: any status, headers and body, an incomplete body, or no response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

NOBODY = object()  # closes the connection without a response


@dataclass
class Answer:
    """A response. ``cut`` ends the connection after that many bytes of the body."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class Faulty:
    """The server's URL, the responses to further requests, and the requests that it received."""

    url: str
    answers: list[Any]
    received: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def faulty(*answers: Any) -> Iterator[Faulty]:
    """Run a server that sends these responses in order, one for each request. It repeats the last response."""
    state = Faulty("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            state.received.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            if answer is NOBODY:
                self.close_connection = True
                return
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: answer.cut])
            self.close_connection = answer.cut is not None

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_one

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pages(rows: Sequence[Any], size: int) -> list[Answer]:
    """Return the responses with the pages of a list."""
    starts = range(0, len(rows), size)
    return [
        Answer(body={"results": list(rows[at : at + size]), "next": None, "previous": None,
                     "next_cursor": f"c{at + size}" if at + size < len(rows) else None})
        for at in starts
    ]  # fmt: skip
