"""Long computations, beside the event loop of an API process."""

from __future__ import annotations

from collections.abc import Callable

from gevent import get_hub
from gevent.monkey import is_module_patched


def run_in_thread[**A, R](function: Callable[A, R], *args: A.args, **kwargs: A.kwargs) -> R:
    """Run a pure function in a thread of its own and return its result, so that others are served meanwhile.

    A process without an event loop (the worker, a command, a test) runs it at once.
    """
    if not is_module_patched("threading"):
        return function(*args, **kwargs)
    result: R = get_hub().threadpool.apply(function, args, kwargs)
    return result
