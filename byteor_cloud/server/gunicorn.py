"""gunicorn's settings, which `manage.py serve` passes with `--config`.

The address and the number of processes are on gunicorn's command line. gunicorn's log lines have the application's
format, because the application, including Django's LOGGING, is loaded before the first request.
"""

from __future__ import annotations

import gc
import os
import resource
from typing import Any

from gevent import events, monkey

# Otherwise gevent would search the metadata of all installed packages for plugins many times. There are no plugins.
events.notify_and_call_entry_points = events.notify
# This must run before the application is imported: locks and sockets that were created earlier block the event loop.
monkey.patch_all()

from byteor_cloud.config import load  # noqa: E402
from byteor_cloud.server import counters  # noqa: E402

worker_class = "byteor_cloud.server.front_door.ConnectionWorker"
preload_app = True  # one import for all processes
control_socket_disable = True  # otherwise gunicorn would create a socket in XDG_RUNTIME_DIR or in the home folder
loglevel = "warning"
keepalive = 75  # must be longer than a load balancer's, so that the load balancer closes idle connections
graceful_timeout = 20
timeout = 120
limit_request_line = 8190
sendfile = False  # sendfile would bypass the minimum rate of front_door.PacedSocket

# Each waiting client costs a file descriptor. Allow as many connections as the system permits descriptors, minus a
# reserve of 256, but at least 64 and at most 8,192.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
worker_connections = 8192 if _hard == resource.RLIM_INFINITY else max(64, min(8192, _hard - 256))

GC_THRESHOLDS = (2000, 4, 1)

_shared = counters.share_counters(load(os.environ).api_processes)  # must precede the application's first counter


def pre_fork(server: Any, worker: Any) -> None:
    """Reserve shared memory for the counters of a new process, and let it share the memory of all loaded objects.

    Without ``gc.freeze``, garbage collection would write to every loaded object, and the system would copy its memory.
    """
    worker.counters = _shared.reserve_part()
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """Make a new process count in its reserved memory, and collect garbage in frequent small steps.

    By default, the garbage of about fifty large pages is collected in one step, and all requests wait for up to 0.2 s.
    Frequent collections are cheap, because they skip all objects that were loaded before the fork (``gc.freeze``).
    """
    _shared.use(worker.counters)
    gc.set_threshold(*GC_THRESHOLDS)


def post_worker_init(worker: Any) -> None:
    """Start to listen for the notifications that caches depend on."""
    from byteor_cloud.database.notices import notices  # noqa: PLC0415  the application must be loaded first

    notices.start()


def child_exit(server: Any, worker: Any) -> None:
    """Release a dead process's memory for the next process. Its counts remain in the sums."""
    _shared.release_part(worker.counters)
