"""A server in a thread of the test process. It uses the database connection and the transaction of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from django.db import connections

from tests.front import FrontHandler


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served() -> Iterator[str]:
    """Serve the application, and yield its URL. Requests see the uncommitted rows of the test."""
    shared = connections["default"]
    handler = FrontHandler()

    def with_shared_connection(environ: dict[str, Any], start_response: Any) -> Any:
        connections["default"] = shared
        response = handler(environ)
        start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
        return [b"".join(response)]

    shared.inc_thread_sharing()
    server = make_server("127.0.0.1", 0, with_shared_connection, handler_class=_Quiet)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        shared.dec_thread_sharing()
