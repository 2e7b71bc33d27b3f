"""Retries: the notes about requests that the client repeats, and the errors after which a command may retry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, override

from byteor.client.errors import ApiError, ConnectionFailed, UnexpectedResponse
from byteor.command.output import note

_LOG: Final = logging.getLogger("byteor.client")


class _Handler(logging.Handler):
    """Receives the client's warnings about retries."""

    def __init__(self, act: Callable[[str], None]) -> None:
        super().__init__()
        self._act = act

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._act(record.getMessage())


def note_retries() -> None:
    """Print the warnings about retries with ``note``.

    By default, Python would print them with the control characters that a server's text may contain.
    """
    if not _LOG.handlers:
        _LOG.addHandler(_Handler(note))


@contextmanager
def on_retry(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` when the client has to send a request again, instead of printing its warning."""
    before = _LOG.handlers, _LOG.propagate
    _LOG.handlers, _LOG.propagate = [_Handler(lambda _: act())], False
    try:
        yield
    finally:
        _LOG.handlers, _LOG.propagate = before


def is_temporary(error: Exception) -> bool:
    """Return whether a retry may succeed, because the server failed, is unavailable or limits the rate of requests.

    An unexpected response counts too: a proxy may show a web page while the server restarts. The server may have
    carried out the request.
    """
    if isinstance(error, ApiError):
        return error.status == 429 or error.status >= 500
    return isinstance(error, (ConnectionFailed, UnexpectedResponse))
