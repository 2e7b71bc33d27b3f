"""``manage.py worker``: run the worker. ``serve`` starts it as a child process."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, InterfaceError, connection
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from apps.operations.management import installation
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.services import vault
from byteor_cloud.concurrency.sharing import Shared
from byteor_cloud.config import BindAddress, Config
from byteor_cloud.worker.process import Worker


class Command(OperatorCommand):
    help = "Run jobs until SIGTERM or SIGINT."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run jobs, and recover the jobs of dead workers. In worker mode with an address, serve health and metrics."""
        current: Config = settings.CONFIG
        # During a database outage the worker starts anyway and waits. Each use of the key checks it again.
        with suppress(DatabaseError, InterfaceError):
            installation.check_restored()
            vault.ensure_key()
        connection.close()
        installation.create_folders()
        # In combined mode, the API serves health and metrics. In worker mode, the worker does if it has an address.
        if current.deployment_mode == "worker" and current.worker_bind_addr is not None:
            Thread(target=_listen(current.worker_bind_addr).serve_forever, daemon=True).start()
        worker = Worker()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.run()


_metrics = Shared(generate_latest)


class _Handler(BaseHTTPRequestHandler):
    """Serves ``/healthz``, and the metrics of this process at ``/metrics``. The API serves the domain metrics."""

    def do_GET(self) -> None:
        """Respond with health or metrics, or with 404 at other paths."""
        match self.path:
            case "/healthz":
                self._respond(200, "application/json", b'{"status":"alive"}')
            case "/metrics":
                self._respond(200, CONTENT_TYPE_LATEST, _metrics.get())
            case _:
                self._respond(404, "text/plain", b"Not found.\n")

    def _respond(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing, because probes would fill the log."""


def _listen(address: BindAddress) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

    try:
        return Server(address, _Handler)
    except OSError as error:
        raise CommandError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
