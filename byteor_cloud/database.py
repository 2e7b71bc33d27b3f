"""The pooled database connections of a process, with their timeouts and a check that they still work."""

from __future__ import annotations

import os
import select
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections
from gevent.monkey import get_original
from psycopg_pool import ConnectionPool

# A worker process has a thread for each slot (``jobs.SLOTS``), and three for fetching, for heartbeats and for upkeep.
WORKER_THREADS = 19
# Use the original poll instead of gevent's: it never waits here, so it needs no event loop and is ten times as fast.
_poll = get_original("select", "poll")
# The environment variable with the kind of process (a key of TIMEOUTS), set before Django starts.
PROCESS_KIND_VARIABLE = "BYTEOR_PROCESS_KIND"
# Connections are reserved for this many commands that may run beside the server.
COMMANDS, COMMAND_CONNECTIONS = 3, 2


class Timeouts(NamedTuple):
    """The seconds after which the database ends a statement, a wait for a lock, or an idle transaction."""

    statement_s: int
    lock_s: int
    idle_s: int


# Commands (such as migrations) are not listed: a person watches them, so they have no timeouts.
TIMEOUTS = {"api": Timeouts(30, 10, 60), "worker": Timeouts(600, 60, 600)}


def pool_size(threads: int) -> int:
    """Return the number of connections that one process may open: a worker, or an API process with ``threads``."""
    # Every thread needs a connection; psycopg's default of four makes eight busy threads fail.
    return max(threads, WORKER_THREADS) + 2


def connections_needed(*, api_processes: int, threads: int, workers: int) -> int:
    """Return the number of connections that these processes, and a few commands beside them, may open in total."""
    return (api_processes + workers) * pool_size(threads) + COMMANDS * COMMAND_CONNECTIONS


def _timeout_options(timeouts: Timeouts | None) -> str:
    """Return the timeouts as the connection parameter ``options``."""
    if timeouts is None:
        return ""
    return (
        f"-c statement_timeout={timeouts.statement_s}s -c lock_timeout={timeouts.lock_s}s"
        f" -c idle_in_transaction_session_timeout={timeouts.idle_s}s"
    )


def database_settings(url: str, *, threads: int) -> dict[str, Any]:
    """Return Django's ``DATABASES`` entry for the database at ``url``.

    ``options`` in the URL come after the process's timeouts, so they take precedence.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    timeouts = TIMEOUTS.get(os.environ.get(PROCESS_KIND_VARIABLE, ""))
    server_options = f"{_timeout_options(timeouts)} {options.pop('options', '')}".strip()
    if server_options:
        options["options"] = server_options
    return {
        # Do not use django-prometheus's engine: with pooled connections it adds a cursor wrapper at every request.
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", unquote(parts.hostname or "")),
        "PORT": str(parts.port or ""),
        "OPTIONS": {
            "pool": {
                "min_size": 2,
                "max_size": pool_size(threads),
                # Limits for outages: the time that a request waits, and the pool's longest pause between attempts.
                "timeout": 5,
                "reconnect_timeout": 5,
                "check": ensure_alive,
            },
            **options,
        },
    }


def ensure_alive(session: psycopg.Connection[Any]) -> None:
    """Raise OperationalError if the server has closed the idle connection. This needs no round trip to the server."""
    poller = _poll()
    poller.register(session.fileno(), select.POLLIN)
    if not poller.poll(0):  # a server sends nothing on an idle connection until it closes it
        return
    try:
        ConnectionPool.check_connection(session)
    except psycopg.OperationalError:
        # The pool's other connections are probably closed too. Checking all of them now avoids the pool's growing
        # pauses between reconnections.
        pool = connections[DEFAULT_DB_ALIAS].pool  # type: ignore[attr-defined]  # PostgreSQL's wrapper has it
        pool.check()
        raise


def release_connection() -> None:
    """Return this thread's or greenlet's connection to the pool; call this before a long wait.

    The next query takes a connection again. Inside a transaction this does nothing.
    """
    if not connection.in_atomic_block:
        connection.close()
