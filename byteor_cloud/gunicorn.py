"""gunicorn's settings, as `manage.py serve` runs it (`gunicorn -c`); address and numbers are on its command line.

Its log lines go where ours do: with the application, Django's LOGGING is loaded before the first request.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from gevent import monkey

# Before the application is imported (preload_app): locks and sockets that were made earlier would block the event loop.
monkey.patch_all()

from byteor_cloud.api import counters  # noqa: E402
from byteor_cloud.config import load  # noqa: E402

worker_class = "byteor_cloud.front_door.Worker"
preload_app = True  # one import for all processes
control_socket_disable = True  # else it writes into the home folder
loglevel = "warning"
keepalive = 75  # longer than a load balancer's, so that it is never we who hang up first
graceful_timeout = 20
timeout = 120
limit_request_line = 8190
sendfile = False  # it would go round the minimum rate of front_door.PacedSocket

# Each waiting client costs a file descriptor: allow as many as the system does, and leave some for everything else.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
worker_connections = max(64, min(8192, _hard - 256))

_shared = counters.share(load(os.environ).api_processes)  # before the application declares its first counter


def pre_fork(server: Any, worker: Any) -> None:
    """Set memory for its counters aside for a process."""
    worker.counters = _shared.reserve_part()


def post_fork(server: Any, worker: Any) -> None:
    """Let a new process count there."""
    _shared.use(worker.counters)


def child_exit(server: Any, worker: Any) -> None:
    """Pass the memory of a dead process on; what it counted stays in the sums."""
    _shared.release_part(worker.counters)
