"""``manage.py worker``: the process that runs jobs; ``serve`` starts one."""

from __future__ import annotations

import signal
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from byteor_cloud.config import Address, Config
from byteor_cloud.worker.process import Worker


class Command(BaseCommand):
    help = "Run the worker until SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run jobs, and take over those of workers that died."""
        current: Config = settings.CONFIG
        # Beside an API process, that one's address tells all there is to tell.
        if current.deployment_mode == "worker" and current.worker_bind_addr is not None:
            Thread(target=_listen(current.worker_bind_addr).serve_forever, daemon=True).start()
        worker = Worker()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.run()


class _Handler(BaseHTTPRequestHandler):
    """``/healthz``, and in ``/metrics`` this process's own series; the domain's are the API's to tell."""

    def do_GET(self) -> None:
        """Answer either of them."""
        match self.path:
            case "/healthz":
                self._answer(200, "application/json", b'{"status":"alive"}')
            case "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
            case _:
                self._answer(404, "text/plain", b"There is nothing here.\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Probes are not logged."""


def _listen(address: Address) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

    try:
        return Server(address, _Handler)
    except OSError as error:
        raise CommandError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
