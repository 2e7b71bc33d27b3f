"""Commands on a row or a scope. View sets turn them into actions, and the console turns most of them into buttons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from byteor_cloud.api.operations import Operation


@dataclass(frozen=True)
class Command:
    """A command on a row, or on the scope in the URL if the URL names no row.

    ``run(row, *, actor, **body)`` calls a service. It returns a Response, a Created, or the object that the operation's
    ``responses`` serialize. If ``responses`` is not set, the response shows the row, read again from the database. To
    refuse a request but keep the changes that the service made, ``run`` returns a DomainError instead of raising it.
    """

    operation: Operation
    run: Callable[..., Any]
    # ``check(row, **body)`` raises the error that the service would raise for this row, if the error is predictable.
    check: Callable[..., object]
    # The collection in which the command creates a row, relative to the request's URL, for the ``Location`` header.
    creates: str | None

    @property
    def name(self) -> str:
        """The name of the action: the name of the function."""
        return self.run.__name__


def command(
    *, check: Callable[..., object] = lambda row, **body: None, creates: str | None = None
) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that turns a function, already decorated by an ``Operation``, into a command."""
    return lambda run: Command(run.operation, run, check, creates)  # type: ignore[attr-defined]  # set by ``Operation``
