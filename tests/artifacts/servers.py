"""A small HTTP server for tests. It records POST requests and responds to them as the test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """The origin of a server, and the path, headers and body of each POST request that it received."""

    origin: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


def respond_ok(handler: BaseHTTPRequestHandler) -> None:
    """Respond with status 200 and no body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@contextmanager
def serve_http(respond: Callable[[BaseHTTPRequestHandler], None] = respond_ok) -> Iterator[Receiver]:
    """Run a server on a free loopback port while the block runs. Yields its origin and requests."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, dict(self.headers), body))
            respond(self)

        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log."""

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
