"""Waiting for background work on the server, and progress bars."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic, sleep
from typing import Any, Final

import click

from byteor.command.exits import PENDING, Refusal
from byteor.command.output import note

FIRST_S: Final = 0.2  # the first pause between two requests
MOST_S: Final = 2.0  # the longest pause
PATIENCE_S: Final = 300  # how long requests may fail
type Move = Callable[[int, int], None]


def waiting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--detach`` and ``--timeout`` to a command that waits."""
    detach = click.option("--detach", is_flag=True, help="Do not wait for the result.")
    timeout = click.option(
        "--timeout", type=click.IntRange(min=0), metavar="SECONDS",
        help="Stop waiting after this time, with exit code 8. The work continues on the server.",
    )  # fmt: skip
    return detach(timeout(command))


def wait_for[Row](
    read: Callable[[], Row], title: str, progress: Callable[[Row], tuple[int, int]], timeout: float | None, later: str
) -> Row:
    """Read a row until it has finished, and return it.

    Returns an unfinished row if it waits for an approval, or if ``timeout`` seconds have passed. ``progress`` returns
    how many units of a row are done, and how many there are (0 if unknown). ``later`` is the command that shows the row
    later. Raises Refusal if a request fails and ``timeout`` seconds have passed. Raises ByteOrError if requests have
    failed for five minutes, or if a retry would not help.
    """
    from byteor.client.errors import ByteOrError  # noqa: PLC0415  imports the client
    from byteor.command.retries import is_temporary, on_retry  # noqa: PLC0415  imports the client

    goes_on = f"{title} continues on the server. To see the result, run `{later}`."
    deadline = inf if timeout is None else monotonic() + timeout
    pause, lost_at = FIRST_S, inf
    try:
        with bar(title) as move:
            while True:
                try:
                    with on_retry(lambda: None):  # no note by the client, because one is printed below
                        row: Any = read()
                except ByteOrError as error:
                    now = monotonic()
                    if not is_temporary(error) or now >= lost_at + PATIENCE_S:
                        note(goes_on)
                        raise
                    if now >= deadline:
                        cause = str(error).rstrip(".")
                        raise Refusal(f"A request failed: {cause}. {goes_on}", PENDING) from None
                    if lost_at == inf:
                        note(f"A request failed: {str(error).rstrip('.')}. Retrying.")
                        lost_at = now
                else:
                    lost_at = inf
                    if row.finished_at or row.status == "pending_approval":
                        return row  # type: ignore[no-any-return]  # the row has more attributes than its type says
                    move(*progress(row))
                    if monotonic() >= deadline:
                        break
                sleep(max(0, min(pause, deadline - monotonic())))
                pause = min(pause * 1.5, MOST_S)
    except KeyboardInterrupt:
        note(goes_on)
        raise
    note(f"{title} is still in progress. To see the result, run `{later}`.")
    return row  # type: ignore[no-any-return]


@contextmanager
def bar(title: str, *, of_bytes: bool = False) -> Iterator[Move]:
    """Show a progress bar on stderr while the block runs, if stderr is a terminal that can redraw a line.

    Yields a function that takes how many units are done, and how many there are (0 if unknown).
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda done, total: None
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, and only terminals need it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    units = DownloadColumn(binary_units=True) if of_bytes else TextColumn("{task.fields[units]}")
    text = TextColumn("{task.description}", markup=False)
    with Progress(
        text, BarColumn(), units, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task(title, total=None, units="")

        def move(done: int, total: int) -> None:
            units = f"{done:,} of {total:,}" if total else f"{done:,}" if done else ""
            progress.update(task, completed=done, total=total or None, units=units)

        yield move
