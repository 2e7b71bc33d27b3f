"""Rests of a connection between two requests, with which the application puts off what its client sends next."""

from __future__ import annotations

import time
from typing import Any

_VARIABLE = "byteor.rest_s"


def rest_before_next(environ: dict[str, Any], seconds: float) -> None:
    """Let the request's connection rest after the response, before the next request is read from it.

    This holds only for connections in ``agent_requests.ShortCut``. Otherwise, it does nothing.
    """
    if seconds > 0:
        environ[_VARIABLE] = seconds


def rest(environ: dict[str, Any]) -> None:
    """Rest for the time that the application requested for this request, if any."""
    seconds = environ.get(_VARIABLE)
    if seconds is not None:
        time.sleep(seconds)
