"""A small HTTP server to post to: it keeps what came, and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """Where it listens, and the requests that came: path, headers, body."""

    origin: str = ""
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


def plainly(handler: BaseHTTPRequestHandler) -> None:
    """200 without a body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@contextmanager
def receiving(answer: Callable[[BaseHTTPRequestHandler], None] = plainly) -> Iterator[Receiver]:
    """A server on a free port of the loopback, for the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.came.append((self.path, dict(self.headers), body))
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
