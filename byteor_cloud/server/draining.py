"""The end of an API process: whoever holds requests back is told to answer them."""

from __future__ import annotations

from collections.abc import Callable

_callbacks: list[Callable[[], None]] = []
_is_draining = False


def is_draining() -> bool:
    """Return whether this process is ending."""
    return _is_draining


def on_drain(callback: Callable[[], None]) -> None:
    """Have ``callback`` called once when this process begins to end."""
    _callbacks.append(callback)


def begin() -> None:
    """Call the callbacks. Further calls do nothing."""
    global _is_draining  # noqa: PLW0603  it describes the process
    if not _is_draining:
        _is_draining = True
        for callback in _callbacks:
            callback()


def reset() -> None:
    """Forget that the process began to end."""
    global _is_draining  # noqa: PLW0603  it describes the process
    _is_draining = False
