"""How services are told where to compute: in this process, or in the lane of the request that they work for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Compute(Protocol):
    """Calls one of ``byteor_cloud.computing.computations`` and returns its result. Raises what the function raises.

    In an API process the call may wait for other requests, so it must come before a transaction begins.
    """

    def __call__[**A, R](self, function: Callable[A, R], /, *args: A.args, **kwargs: A.kwargs) -> R:
        """Call ``function`` with the arguments."""


def here[**A, R](function: Callable[A, R], /, *args: A.args, **kwargs: A.kwargs) -> R:
    """Compute in this process: in a worker, a command or a test."""
    return function(*args, **kwargs)
