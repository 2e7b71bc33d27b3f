"""Rests of a connection between two requests, with which the application puts off what its client sends next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_VARIABLE = "byteor.rest"


def rest_before_next(environ: dict[str, Any], wait: Callable[[], None]) -> None:
    """Call ``wait`` after the response to this request, before the next request is read from the connection.

    This holds only for connections in ``agent_requests.ShortCut``. Otherwise, it does nothing.
    """
    environ[_VARIABLE] = wait


def rest(environ: dict[str, Any]) -> None:
    """Rest as the application requested for this request, if it did."""
    wait = environ.get(_VARIABLE)
    if wait is not None:
        wait()
