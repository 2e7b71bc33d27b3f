"""The ``compute`` argument of services: it runs a computation in this process or in the compute process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Compute(Protocol):
    """A function that calls one of ``byteor_cloud.computing.computations`` and returns its result.

    Raises the errors of that function. In an API process, it also raises Unavailable, or InvalidInput if the function
    needs too much time or memory. There, a call may wait for other requests, so it must not be made inside a
    transaction.
    """

    def __call__[**A, R](self, function: Callable[A, R], /, *args: A.args, **kwargs: A.kwargs) -> R:
        """Call ``function`` with the arguments and return its result."""


def here[**A, R](function: Callable[A, R], /, *args: A.args, **kwargs: A.kwargs) -> R:
    """Call ``function`` in this process."""
    return function(*args, **kwargs)
