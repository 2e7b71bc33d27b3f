"""``manage.py serve``: migrate the database, then run the API, the worker or both until stopped."""

from __future__ import annotations

import os
import socket
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection, connections

from apps.operations.management import cleaning, database_wait, host_registration, installation, static_files
from apps.operations.management.embedded_restart import keep_embedded_database_running
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.services import vault
from byteor_cloud.captures import sealing
from byteor_cloud.config import PREFIX, BindAddress, Config
from byteor_cloud.database.connections import MIN_API_POOL, connections_needed
from byteor_cloud.server import addresses, supervisor


class Command(OperatorCommand):
    help = "Run the API, the worker or both, depending on BYTEOR_CLOUD_DEPLOYMENT_MODE."
    # Run the check in apps/console/theme.py, because an installation may have another version of the theme.
    requires_system_checks = ["theme"]

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare the installation, then supervise the processes."""
        current: Config = settings.CONFIG
        is_api = current.deployment_mode != "worker"
        if is_api:
            _ensure_port_free(current.api_bind_addr, "API_BIND_ADDR")
        elif current.worker_bind_addr is not None:
            _ensure_port_free(current.worker_bind_addr, "WORKER_BIND_ADDR")
        database_wait.wait_for_database(lambda line: self.stderr.write(f"byteor-cloud: {line}"), stopped_code=0)
        _ensure_connections(current)
        installation.migrate()
        vault.ensure_key()
        installation.create_folders()
        static = static_files.collect() if is_api else {}
        connections.close_all()

        def announce_ready() -> None:
            where = f"on {addresses.origin(current.api_bind_addr)}" if is_api else "as a worker"
            with suppress(OSError):  # stderr may be a file on a full disk
                self.stderr.write(f"byteor-cloud: {_describe_sealing()}")
                self.stderr.write(f"byteor-cloud: serving {where}")

        with (
            keep_embedded_database_running(current),
            host_registration.announced(),
            cleaning.cleaned(),
            addresses.publish_address(current) if is_api else nullcontext(),
        ):
            code = supervisor.run(list(_children(current, static)), announce_ready)
        if code:
            sys.exit(code)


def _describe_sealing() -> str:
    """Return a line with the restrictions of child processes that the kernel enforces, and with those it does not."""
    found = sealing.in_force()
    by_kernel = [f"{what} ({how})" for what, how in found.items() if how not in {None, "audit hook"}]
    others = [what for what, how in found.items() if how in {None, "audit hook"}]
    missing = f"; not sealed by this system: {', '.join(others)}" if others else ""
    return f"child processes are sealed: {', '.join(by_kernel) or 'nothing'}{missing}"


def _ensure_port_free(address: BindAddress, setting: str) -> None:
    """Raise CommandError if the server could not listen. Otherwise the supervisor would keep restarting it."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # gunicorn also sets this option, so a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            where = f"{addresses.bracketed(host)}:{port}"
            raise CommandError(f"cannot listen on {where}: {error.strerror} ({PREFIX}{setting})") from None


def _ensure_connections(current: Config) -> None:
    """Raise CommandError if the processes could need more connections than the database server permits.

    Nothing is checked behind a pooler, because the pooler's own limits apply and cannot be queried.
    """
    if current.database_direct_url is not None:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int"
            " + coalesce(current_setting('reserved_connections', true)::int, 0)"  # new in PostgreSQL 16
        )
        limit, reserved = cursor.fetchone()
    needed = connections_needed(
        api_processes=current.api_processes if current.deployment_mode != "worker" else 0,
        threads=current.api_threads,
        workers=1 if current.deployment_mode != "api" else 0,
    )
    if needed > limit - reserved:
        processes = f"{PREFIX}API_PROCESSES ({current.api_processes})"
        # A pool has at least the size for MIN_API_POOL threads.
        threads = f"if it is above {MIN_API_POOL}, {PREFIX}API_THREADS ({current.api_threads})"
        lower = "" if current.deployment_mode == "worker" else f" lower {processes} or, {threads}, or"
        raise CommandError(
            f"up to {needed} database connections are needed, but the server permits only {limit - reserved}:{lower}"
            f" raise PostgreSQL's max_connections ({limit})"
        )


# With -P, child processes do not import modules from the current folder.
_PYTHON = (sys.executable, "-P", "-m")


def _children(current: Config, static: Mapping[str, str]) -> Iterator[supervisor.Child]:
    if current.deployment_mode != "worker":
        yield _api(current, static)
    if current.deployment_mode != "api":
        yield supervisor.Child("worker", [*_PYTHON, "byteor_cloud", "worker"], _environment(current))
    if current.run_demo_agents:
        yield from _demo_agents(current.data_dir / "demo-agents")


def _environment(current: Config) -> dict[str, str]:
    """Return the environment of the API and worker. DATA_DIR is absolute, because the API runs in another folder."""
    return {**os.environ, f"{PREFIX}DATA_DIR": str(current.data_dir)}


def _api(current: Config, static: Mapping[str, str]) -> supervisor.Child:
    host, port = current.api_bind_addr
    argv = [
        *_PYTHON, "gunicorn", "byteor_cloud.wsgi",
        "--config", str(settings.BASE_DIR / "byteor_cloud/server/gunicorn.py"),
        "--bind", f"{addresses.bracketed(host)}:{port}",
        "--workers", str(current.api_processes),
    ]  # fmt: skip
    health = f"{addresses.origin(current.api_bind_addr)}/healthz"
    # The opener ignores the proxies in the environment, because the check must reach this server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def is_healthy() -> bool:
        try:
            with opener.open(health, timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    # gunicorn itself imports modules from the folder in which it starts, regardless of --chdir.
    return supervisor.Child("api", argv, {**_environment(current), **static}, is_healthy, str(settings.BASE_DIR))


def _demo_agents(folder: Path) -> Iterator[supervisor.Child]:
    """Yield an agent process for each state folder of the demo. Agents do not inherit the server's settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BYTEOR_")}
    program = str(Path(sys.executable).with_name("byteor-agent"))
    sample = ["--sample", str(folder / "sample.jsonl")] if (folder / "sample.jsonl").exists() else []
    for state in sorted(folder.iterdir()) if folder.exists() else ():
        if state.is_dir():
            yield supervisor.Child(state.name, [program, "run", "--state", str(state), *sample], environment)
