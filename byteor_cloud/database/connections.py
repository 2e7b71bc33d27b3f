"""A process's database connections, pooled and direct, with their timeouts and a check that they still work."""

from __future__ import annotations

import atexit
import math
import os
import select
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, override
from urllib.parse import parse_qsl, unquote, urlsplit
from weakref import WeakSet

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import QuerySet
from django.db.models.query import ModelIterable
from gevent.monkey import get_original
from psycopg.abc import RV, PQGen
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg_pool import ConnectionPool

from byteor_cloud.concurrency import deadline, event_loop

# A worker has a thread for each slot (``jobs.SLOTS``), and three to fetch jobs, send heartbeats and maintain the queue.
WORKER_THREADS = 32
# An API process with fewer request slots gets a connection pool as if it had this many slots, because probes and
# scrapes use connections, but no request slots.
MIN_API_POOL = 16
# The original poll instead of gevent's. It is ten times as fast, and needs no event loop, since ``ensure_alive`` polls
# without waiting.
_poll = get_original("select", "poll")
# The environment variable with the kind of the process: "api", "worker" or COMMAND. Set it before Django starts.
PROCESS_KIND_VARIABLE = "BYTEOR_PROCESS_KIND"
COMMAND = "command"  # any command of ``manage.py`` except ``worker``
_NAME = b"frequent"  # the name of a FrequentStatement's prepared statement
# The connections that are counted for an API process in addition to its pool: one for notifications
# (``byteor_cloud.database.notices``), and one for each of the five instances of FrequentStatement.
API_CONNECTIONS = 6
WORKER_CONNECTIONS = 1  # the connection that receives notifications of new jobs
CONNECT_S = 5  # seconds until an attempt to connect times out
# The number of commands that may run at the same time as the server, and of connections that are reserved for each.
COMMANDS, COMMAND_CONNECTIONS = 3, 2


class Timeouts(NamedTuple):
    """The seconds after which the database cancels a statement or a wait for a lock, or ends an idle transaction."""

    statement_s: int
    lock_s: int
    idle_s: int


# Commands have no timeouts by default, because a person watches them. ``migrate`` limits its waits for locks itself.
# The API's statement and lock timeouts are shorter than ``deadline.REQUEST_S``, so that a live server reports a slow
# statement before the deadline.
TIMEOUTS = {"api": Timeouts(7, 5, 60), "worker": Timeouts(600, 60, 600)}


class Unresponsive(psycopg.OperationalError):
    """The server did not respond, or no pooled connection became free, before the deadline."""

    def __init__(self) -> None:
        super().__init__("the database is not responding")


class Connection(psycopg.Connection[Any]):
    """A connection that is closed when the server does not respond before the deadline.

    It is closed without a cancel request or a rollback, which would only be another wait. A pool then opens a new one.
    """

    @override
    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server's response, and then for a turn in the event loop.

        Raises Unresponsive if there is no response before the deadline.
        """
        result = self._wait(gen, interval, timeout)
        event_loop.resume()
        return result

    def _wait(self, gen: PQGen[RV], interval: float, timeout: float | None) -> RV:
        if timeout is not None or not deadline.is_limited():
            return super().wait(gen, interval, timeout)
        try:
            if deadline.is_over():
                raise Unresponsive
            with deadline.waiting() as left_s:
                return super().wait(gen, interval, left_s)
        except psycopg.OperationalError as error:
            if not deadline.is_over():
                raise
            self.close()
            raise Unresponsive from error


def api_pool_size(threads: int) -> int:
    """Return the size of the connection pool of an API process with ``threads`` request slots."""
    # A request in every slot may need a connection. With psycopg's default of four connections, some of eight requests
    # could time out.
    return max(threads, MIN_API_POOL) + 2


def worker_pool_size() -> int:
    """Return the size of the connection pool of a worker."""
    return WORKER_THREADS + 2


def connections_needed(*, api_processes: int, threads: int, workers: int) -> int:
    """Return the number of connections to provide for these processes and a few commands in total."""
    own = API_CONNECTIONS * api_processes + WORKER_CONNECTIONS * workers
    pools = api_processes * api_pool_size(threads) + workers * worker_pool_size()
    return pools + own + COMMANDS * COMMAND_CONNECTIONS


def _timeout_options(timeouts: Timeouts | None) -> str:
    """Return the timeouts as the value of the connection parameter ``options``."""
    if timeouts is None:
        return ""
    return (
        f"-c statement_timeout={timeouts.statement_s}s -c lock_timeout={timeouts.lock_s}s"
        f" -c idle_in_transaction_session_timeout={timeouts.idle_s}s"
    )


def database_settings(url: str, *, threads: int) -> dict[str, Any]:
    """Return Django's ``DATABASES`` entry for the database at ``url``.

    The URL's ``options`` follow the process's timeouts and therefore override them. Commands have no connection pool.
    A pool would keep trying to connect for five seconds, and then fail without saying why the database cannot be used.
    """
    parts = urlsplit(url)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    kind = os.environ.get(PROCESS_KIND_VARIABLE, "")
    timeouts = TIMEOUTS.get(kind)
    server_options = f"{_timeout_options(timeouts)} {options.pop('options', '')}".strip()
    if server_options:
        options["options"] = server_options
    if kind != COMMAND:
        options["pool"] = {
            "min_size": 2,
            "max_size": api_pool_size(threads) if kind == "api" else worker_pool_size(),
            # During outages, a request waits at most ``timeout`` seconds for a connection, and the pool tries to
            # open one for ``reconnect_timeout`` seconds.
            "timeout": 5,
            "reconnect_timeout": 5,
            "check": ensure_alive,
            "connection_class": Connection,
        }
    return {
        # Not django-prometheus's engine, which would wrap the cursors of pooled connections again at every request.
        "ENGINE": "byteor_cloud.database.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", unquote(parts.hostname or "")),
        "PORT": str(parts.port or ""),
        "OPTIONS": {"connect_timeout": CONNECT_S, **options},
    }


def direct_connection() -> Connection:
    """Open a connection for LISTEN and session locks, which the caller closes.

    It goes to ``BYTEOR_CLOUD_DATABASE_DIRECT_URL``, which bypasses a pooler, or by default to the usual address.
    On Linux, the kernel closes a TCP connection if the server does not acknowledge data for two seconds.
    """
    network = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 2000, "keepalives_idle": 2, "keepalives_interval": 1}
    url = settings.CONFIG.database_direct_url
    if url is not None:
        return Connection.connect(url, autocommit=True, **network)  # type: ignore[arg-type]  # some of libpq's parameters are numbers
    known = connections[DEFAULT_DB_ALIAS].settings_dict
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    options = {name: value for name, value in known["OPTIONS"].items() if name != "pool"}
    parameters = {name: known[key] for name, key in names.items() if known[key]}
    return Connection.connect(autocommit=True, **{**network, **options, **parameters})


def try_lock(session: psycopg.Connection[Any], lock: int, *, shared: bool = False) -> bool:
    """Take an advisory lock until the session ends. Returns False if another session has it, unless both share it.

    ``lock`` is an arbitrary id, equal in all processes. Sessions share the lock if each takes it with ``shared``.
    """
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    row = session.execute(f"SELECT {function}(%s)".encode(), [lock]).fetchone()
    return row is not None and bool(row[0])


def run_prepared(statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a statement that is prepared once per connection, and return its rows.

    PostgreSQL can reuse its query plan. Django's cursors insert the parameters into the statement, so PostgreSQL plans
    each execution again.
    """
    connection.ensure_connection()
    session: Any = connection.connection
    session.prepare_threshold = 0
    if connection.queries_logged:
        connection.queries_log.append({"sql": statement, "time": ""})  # for tests, as Django's cursors do
    with connection.wrap_database_errors, psycopg.Cursor(session) as cursor:
        cursor.execute(statement.encode(), parameters, prepare=True)
        return cursor.fetchall()


class FrequentStatement:
    """A statement with one text parameter. Outside of a transaction, it runs on connections of its own.

    It then takes a third of the processor time of ``run_prepared``, since the pool and psycopg's cursors cost more than
    a short statement. It opens one connection per concurrent caller. If the database is down, it fails without a retry.
    """

    _all: ClassVar[WeakSet[FrequentStatement]] = WeakSet()

    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._idle: list[Connection] = []
        self._all.add(self)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    @classmethod
    def close_all(cls) -> None:
        """Close the idle connections of all statements."""
        for statement in cls._all:
            statement.close()

    def run(self, parameter: str) -> list[tuple[Any, ...]]:
        """Run the statement and return its rows. Commits, unless the caller is inside a transaction."""
        if connection.in_atomic_block:
            return run_prepared(self._statement, [parameter])
        if connection.queries_logged:
            connection.queries_log.append({"sql": self._statement, "time": ""})  # for tests, as Django's cursors do
        with connection.wrap_database_errors:
            session = self._take()
            try:
                session.pgconn.send_query_prepared(_NAME, [parameter.encode()])
                [result] = _results(session.pgconn)
            except BaseException:  # includes a killed greenlet: the statement may still be running
                session.close()
                raise
            self._idle.append(session)
            transformer = Transformer(session)
            transformer.set_pgresult(result)
            return transformer.load_rows(0, result.ntuples, tuple)

    def _take(self) -> Connection:
        while self._idle:
            session = self._idle.pop()
            try:
                ensure_alive(session)
            except psycopg.OperationalError:
                session.close()
            else:
                return session
        session = _connect()
        try:
            session.pgconn.send_prepare(_NAME, self._statement.replace("%s", "$1").encode())
            _results(session.pgconn)
        except BaseException:
            session.close()
            raise
        return session


atexit.register(FrequentStatement.close_all)


def _connect() -> Connection:
    parameters = connection.get_connection_params()
    with deadline.waiting() as left_s:
        if left_s is not None:
            patience_s = min(left_s, float(parameters["connect_timeout"]))
            parameters["connect_timeout"] = max(1, math.ceil(patience_s))  # 0 would mean no limit
        return Connection.connect(autocommit=True, **parameters)


def _results(pgconn: PGconn) -> list[PGresult]:
    """Wait for all results of the sent command. Raises the first error, also of the commit, or Unresponsive."""
    while pgconn.flush():
        _wait_for_server(pgconn, select.POLLOUT)
    results: list[PGresult] = []
    while True:
        while pgconn.is_busy():
            _wait_for_server(pgconn, select.POLLIN)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return results
        if result.status not in {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}:
            raise psycopg.errors.error_from_result(result)
        results.append(result)


def _wait_for_server(pgconn: PGconn, event: int) -> None:
    with deadline.waiting() as left_s:
        is_ready = wait_for(pgconn.socket, event, seconds=left_s)
    if not is_ready:
        raise Unresponsive


def wait_for(fileno: int, event: int, *, seconds: float | None = None) -> bool:
    """Wait until a file is ready. Returns False on timeout. ``select.select`` would fail for descriptors above 1023."""
    poller = select.poll()
    poller.register(fileno, event)
    return bool(poller.poll(None if seconds is None else seconds * 1000))


def ensure_alive(session: psycopg.Connection[Any]) -> None:
    """Raise OperationalError if the server has closed the idle connection. A quiet connection needs no round trip."""
    poller = _poll()
    poller.register(session.fileno(), select.POLLIN)
    if not poller.poll(0):  # nothing has arrived, not even the end of the connection
        return
    try:
        ConnectionPool.check_connection(session)
    except psycopg.OperationalError:
        # The pool's other connections are probably closed as well. Checking all of them now avoids the pool's growing
        # pauses between attempts to reconnect.
        pool = connections[DEFAULT_DB_ALIAS].pool  # type: ignore[attr-defined]  # the wrapper for PostgreSQL has a pool
        pool.check()
        raise


def release_connection() -> None:
    """Return this thread's or greenlet's connection to the pool. Call this before a long wait.

    The next query takes a connection from the pool again. Inside a transaction, this does nothing.
    """
    if not connection.in_atomic_block:
        connection.close()


class PausingRows(ModelIterable):  # type: ignore[type-arg]  # generic in the stubs only
    """Django's iteration over the rows of a query. Other requests may compute while rows become model instances."""

    @override
    def __iter__(self) -> Iterator[Any]:
        return event_loop.pausing(super().__iter__())


def pause_between_rows[Q: QuerySet[Any, Any]](queryset: Q) -> Q:
    """Return the query with pauses between its model instances, for pages with many rows and columns."""
    paused = queryset.all()
    if paused._iterable_class is ModelIterable:
        paused._iterable_class = PausingRows  # the attribute has no public name
    return paused
