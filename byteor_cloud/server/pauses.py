"""Pauses between two requests of a connection, with which the application delays its client's next request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_VARIABLE = "byteor.rest"


def rest_before_next(environ: dict[str, Any], wait: Callable[[], None]) -> None:
    """Call ``wait`` after the response to this request, before the next request is read from the connection.

    This works only for requests that ``agent_requests.ShortCut`` handles. For other requests, it does nothing.
    """
    environ[_VARIABLE] = wait


def rest(environ: dict[str, Any]) -> None:
    """Call the function that the application passed to ``rest_before_next`` for this request, if any."""
    wait = environ.get(_VARIABLE)
    if wait is not None:
        wait()
