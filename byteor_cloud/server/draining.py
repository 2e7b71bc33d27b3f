"""The shutdown of an API process. Other modules register callbacks for it, for example to respond to long polls."""

from __future__ import annotations

from collections.abc import Callable

_callbacks: list[Callable[[], None]] = []
_is_draining = False


def is_draining() -> bool:
    """Return whether this process is shutting down."""
    return _is_draining


def on_drain(callback: Callable[[], None]) -> None:
    """Call ``callback`` once, when this process starts to shut down."""
    _callbacks.append(callback)


def start() -> None:
    """Call the callbacks. Further calls do nothing."""
    global _is_draining  # noqa: PLW0603  the state of the process
    if not _is_draining:
        _is_draining = True
        for callback in _callbacks:
            callback()


def reset() -> None:
    """Reset the state to that of a process that is not shutting down. For tests."""
    global _is_draining  # noqa: PLW0603  the state of the process
    _is_draining = False
