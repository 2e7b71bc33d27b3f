"""The database connections of a process: pooled, and given out only while the server at their other end lives."""

from __future__ import annotations

import os
import select
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections
from gevent.monkey import get_original
from psycopg_pool import ConnectionPool

# Of a worker process: a thread for each slot (``jobs.SLOTS``), and three that fetch, show that it lives, and tend.
WORKER_THREADS = 19
# Not gevent's: this one never waits, so it needs no event loop, and it costs a tenth.
_poll = get_original("select", "poll")
# What kind of process this is, for the sake of TIMEOUTS; ``wsgi.py`` and ``manage.py`` set it before Django starts.
PROCESS_KIND_VARIABLE = "BYTEOR_PROCESS_KIND"
# Commands that run beside the server have two each.
COMMANDS, COMMAND_CONNECTIONS = 3, 2


class Timeouts(NamedTuple):
    """After how many seconds the database ends a statement, a wait for a lock, an idle transaction."""

    statement_s: int
    lock_s: int
    idle_s: int


# Requests must not wait long; jobs may take their time, but not for ever. Commands (migrations, a purge by hand) have
# somebody who watches them, and no limit.
TIMEOUTS = {"api": Timeouts(30, 10, 60), "worker": Timeouts(600, 60, 600)}


def pool_size(threads: int) -> int:
    """Return how many connections a process of so many threads, or a worker, may open."""
    # A connection for every thread: the default of four fails under eight (stack.md).
    return max(threads, WORKER_THREADS) + 2


def connections_needed(*, api_processes: int, threads: int, workers: int) -> int:
    """Return how many connections these processes and a few commands beside them may open in all."""
    return (api_processes + workers) * pool_size(threads) + COMMANDS * COMMAND_CONNECTIONS


def _server_settings(timeouts: Timeouts | None) -> str:
    """Return what each connection asks of the server, as libpq's ``options``."""
    if timeouts is None:
        return ""
    return (
        f"-c statement_timeout={timeouts.statement_s}s -c lock_timeout={timeouts.lock_s}s"
        f" -c idle_in_transaction_session_timeout={timeouts.idle_s}s"
    )


def configuration(url: str, *, threads: int) -> dict[str, Any]:
    """Return Django's settings of the database at ``url`` for a process of so many threads, or a worker.

    ``options`` of the URL come after our timeouts and so win.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    asked = f"{_server_settings(TIMEOUTS.get(os.environ.get(PROCESS_KIND_VARIABLE, '')))} {options.pop('options', '')}".strip()
    if asked:
        options["options"] = asked
    return {
        # Not django-prometheus's engine: it wraps a pooled connection's cursors once more at every request.
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
                # Both bound what an outage costs: a request's wait, and the pool's back-off after it.
                "timeout": 5,
                "reconnect_timeout": 5,
                "check": ensure_alive,
            },
            **options,
        },
    }


def ensure_alive(session: psycopg.Connection[Any]) -> None:
    """Raise OperationalError for an idle connection that its server has closed; costs no round trip."""
    waiting = _poll()
    waiting.register(session.fileno(), select.POLLIN)
    if not waiting.poll(0):  # an idle server says nothing, a dead one hangs up
        return
    try:
        ConnectionPool.check_connection(session)
    except psycopg.OperationalError:
        # The others went with it. One by one they would cost the pool's growing pauses.
        pool = connections[DEFAULT_DB_ALIAS].pool  # type: ignore[attr-defined]  # PostgreSQL's wrapper has it
        pool.check()
        raise


def release_connection() -> None:
    """Give this thread's or greenlet's connection back to the pool, so that none is held through a long wait.

    The next query takes one again. Inside a transaction nothing happens: there it cannot be given back.
    """
    if not connection.in_atomic_block:
        connection.close()
