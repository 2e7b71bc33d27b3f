"""Commands: acts on a row, each declared once. View sets make actions of them, and the console makes buttons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from byteor_cloud.api.operations import Operation


@dataclass(frozen=True)
class Command:
    """An act on a row, or on the scope in the URL if the URL names no row. Its name is the function's.

    ``run(row, *, actor, **body)`` calls a service. It returns a Response, a Created, or what the serializer of the
    operation's ``responses`` shows. Without ``responses`` the response is the row, read again.
    """

    operation: Operation
    run: Callable[..., Any]
    # ``check(row, **body)`` raises the error with which the service would refuse the row now, as far as it can tell.
    check: Callable[..., object]
    # The sibling collection in which the command creates a row, for the header ``Location``.
    creates: str | None

    @property
    def name(self) -> str:
        """The name of the action."""
        return self.run.__name__


def command(
    *, check: Callable[..., object] = lambda row, **body: None, creates: str | None = None
) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function that an ``Operation`` decorates."""
    return lambda run: Command(run.operation, run, check, creates)  # type: ignore[attr-defined]  # set by Operation
