"""Threads that wait for the disk, because such waits would block the event loop of an API process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from gevent.monkey import is_module_patched
from gevent.threadpool import ThreadPool

DISK_THREADS = 8


def run_in_disk_thread[**A, R](function: Callable[A, R], *args: A.args, **kwargs: A.kwargs) -> R:
    """Run a function in another thread, so that other requests continue while the function reads or writes files.

    In a process without an event loop (a worker, a command, a test), it runs in the calling thread. The function must
    not use the database, the network or locks, which belong to the event loop.
    """
    if not is_module_patched("threading"):
        return function(*args, **kwargs)

    def run() -> tuple[R, None] | tuple[None, BaseException]:
        try:
            return function(*args, **kwargs), None
        except BaseException as error:  # returned, because gevent would print the traceback of an error
            return None, error

    result, error = _disk_threads().apply(run)
    if error is not None:
        raise error
    finished: R = result
    return finished


@cache
def _disk_threads() -> ThreadPool:
    """Return the pool. It is created at its first use, in the process that serves and not in the parent that forks."""
    return ThreadPool(DISK_THREADS)
