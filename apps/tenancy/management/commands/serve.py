"""``manage.py serve``: migrate, then API and worker by mode, until stopped."""

from __future__ import annotations

import os
import sys
import urllib.request
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection, connections

from byteor_cloud import config, supervisor

MIGRATION_LOCK = 7_226_190_001  # any number, the same in every process


class Command(BaseCommand):
    help = "Serve: the API, the worker, or both, as BYTEOR_CLOUD_DEPLOYMENT_MODE says."

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare, then supervise the processes."""
        current: config.Config = settings.CONFIG
        self._migrate()
        children = []
        if current.deployment_mode != "worker":
            call_command("collectstatic", interactive=False, verbosity=0)
            children.append(self._api(current))
        if current.deployment_mode != "api":
            children.append(self._python("worker", str(settings.BASE_DIR / "manage.py"), "worker"))
        connections.close_all()
        host, port = current.api_bind_addr
        what = f"on http://{host}:{port}" if current.deployment_mode != "worker" else "as a worker"

        def ready() -> None:
            self.stderr.write(f"byteor-cloud: serving {what}")

        code = supervisor.run(children, ready)
        if code:
            sys.exit(code)

    def _migrate(self) -> None:
        """One process migrates, the others wait for it."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
            try:
                call_command("migrate", interactive=False, verbosity=0)
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])

    @staticmethod
    def _python(name: str, *argv: str) -> supervisor.Child:
        return supervisor.Child(name, [sys.executable, *argv], dict(os.environ))

    def _api(self, current: config.Config) -> supervisor.Child:
        host, port = current.api_bind_addr
        metrics = current.data_dir / "metrics"
        metrics.mkdir(parents=True, exist_ok=True)
        for old in metrics.glob("*.db"):
            old.unlink()
        argv = [
            sys.executable, "-m", "gunicorn", "byteor_cloud.wsgi",
            "--bind", f"{host}:{port}", "--worker-class", "gthread",
            "--workers", str(current.api_processes), "--threads", str(current.api_threads),
            "--preload", "--no-control-socket", "--log-level", "warning", "--keep-alive", "75",
            "--graceful-timeout", "20", "--timeout", "120",
            "--chdir", str(settings.BASE_DIR),
        ]  # fmt: skip
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        probe_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  a comparison, not a bind
        url = f"http://{f'[{probe_host}]' if ':' in probe_host else probe_host}:{port}/healthz"

        def answers() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=2) as response:
                    return bool(response.status == 200)
            except OSError:
                return False

        return supervisor.Child("api", argv, environment, answers)
