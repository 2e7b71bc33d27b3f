"""The database connections of a process: pooled, and given out only while the server at their other end lives."""

from __future__ import annotations

import select
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from gevent.monkey import get_original
from psycopg_pool import ConnectionPool

WORKER_THREADS = 12
# Not gevent's: this one never waits, so it needs no event loop, and it costs a tenth.
_poll = get_original("select", "poll")


def configuration(url: str, *, threads: int) -> dict[str, Any]:
    """Django's settings of the database at ``url`` for a process of so many threads, or a worker."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
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
                # A connection for every thread: the default of four fails under eight (stack.md).
                "max_size": max(threads, WORKER_THREADS) + 2,
                # Both bound what an outage costs: a request's wait, and the pool's back-off after it.
                "timeout": 5,
                "reconnect_timeout": 5,
                "check": ensure_alive,
            },
            **options,
        },
    }


def ensure_alive(connection: psycopg.Connection[Any]) -> None:
    """Raise OperationalError for an idle connection that its server has closed; costs no round trip."""
    waiting = _poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if not waiting.poll(0):  # an idle server says nothing, a dead one hangs up
        return
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.OperationalError:
        # The others went with it. One by one they would cost the pool's growing pauses.
        pool = connections[DEFAULT_DB_ALIAS].pool  # type: ignore[attr-defined]  # PostgreSQL's wrapper has it
        pool.check()
        raise
