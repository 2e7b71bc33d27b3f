"""gunicorn's settings, as `manage.py serve` runs it (`gunicorn -c`); address and numbers are on its command line.

Its log lines go where ours do: with the application, Django's LOGGING is loaded before the first request.
"""

from __future__ import annotations

from typing import Any

from prometheus_client.multiprocess import mark_process_dead

worker_class = "gthread"
preload_app = True  # one import for all processes
control_socket_disable = True  # else it writes into the home folder
loglevel = "warning"
keepalive = 75  # longer than a load balancer's, so that it is never we who hang up first
graceful_timeout = 20
timeout = 120


def child_exit(server: Any, worker: Any) -> None:
    """A dead process's gauges end with it; what it counted stays in the sums."""
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # untyped library
