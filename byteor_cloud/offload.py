"""Threads for long computations, so that they do not block the event loop of an API process."""

from __future__ import annotations

from collections.abc import Callable

from gevent import get_hub
from gevent.monkey import is_module_patched


def run_in_thread[**A, R](function: Callable[A, R], *args: A.args, **kwargs: A.kwargs) -> R:
    """Run a pure function in a separate thread and return its result; the process serves other requests meanwhile.

    In a process without an event loop (a worker, a command, a test) this calls the function directly.
    """
    if not is_module_patched("threading"):
        return function(*args, **kwargs)
    result: R = get_hub().threadpool.apply(function, args, kwargs)
    return result
