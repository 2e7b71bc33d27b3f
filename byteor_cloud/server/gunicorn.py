"""gunicorn's settings, which `manage.py serve` passes with `--config`.

The address and the number of processes are on gunicorn's command line. Its log lines are formatted like the
application's, because the application, and with it Django's LOGGING, is loaded before the first request.
"""

from __future__ import annotations

import gc
import os
import resource
from typing import Any

from gevent import events, monkey

# gevent would look for its plugins once per patched module, each time in the metadata of all installed packages. There
# are none.
events.notify_and_call_entry_points = events.notify
# This must run before the application is imported: locks and sockets that exist earlier would block the event loop.
monkey.patch_all()

from byteor_cloud.config import load  # noqa: E402
from byteor_cloud.server import counters  # noqa: E402

worker_class = "byteor_cloud.server.front_door.ConnectionWorker"
preload_app = True  # one import for all processes
control_socket_disable = True  # gunicorn would create the socket in the home folder
loglevel = "warning"
keepalive = 75  # longer than a load balancer's, so that the load balancer closes idle connections
graceful_timeout = 20
timeout = 120
limit_request_line = 8190
sendfile = False  # it would bypass the minimum rate of front_door.PacedSocket

# Each waiting client costs a file descriptor. Allow as many as the system permits, except for a reserve of 256.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
worker_connections = max(64, min(8192, _hard - 256))

GC_THRESHOLDS = (2000, 4, 1)

_shared = counters.share_counters(load(os.environ).api_processes)  # this must precede the application's first counter


def pre_fork(server: Any, worker: Any) -> None:
    """Reserve shared memory for the counters of a new process, and keep what is loaded shared with it.

    A garbage collection writes to every object that it visits, so that the system must copy the object's memory.
    """
    worker.counters = _shared.reserve_part()
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """Make a new process count in its reserved memory, and collect garbage often and little at a time.

    By default the garbage of about fifty large pages is collected at once, and all requests wait for up to 0.2 s. What
    was loaded before the fork is not visited (``gc.freeze``), so a collection costs little more than it frees.
    """
    _shared.use(worker.counters)
    gc.set_threshold(*GC_THRESHOLDS)


def post_worker_init(worker: Any) -> None:
    """Start to listen for notifications, without which the process caches nothing."""
    from byteor_cloud.database.notices import notices  # noqa: PLC0415  the application must be loaded first

    notices.start()


def child_exit(server: Any, worker: Any) -> None:
    """Release a dead process's memory for the next process. Its counts remain in the sums."""
    _shared.release_part(worker.counters)
