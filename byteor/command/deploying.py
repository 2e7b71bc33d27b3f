"""``byteor deploy`` and ``byteor deployments``: rollouts of config bundles."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from byteor.command import rollout_news as news
from byteor.command.exits import FAILED, PENDING, SIGNED_OUT, USAGE, Refusal
from byteor.command.output import is_terminal, note, plain, say, show
from byteor.command.session import Named, Session, find, is_id

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from byteor.client import models as m

INTERRUPTED: Final = 130
FIRST_POLL_S: Final = 0.25  # after a change; then less and less often
LAST_POLL_S: Final = 2.0
PAGE: Final = 200  # rows; also the most failed agents whose names are looked up
MOST_MEMBERS: Final = 2000
BAR_WIDTH: Final = 30


def find_deployment(session: Session, text: str | None) -> m.Deployment:
    """Return the deployment with this id or part of an id, or the one of this pipeline.

    Of a pipeline, and without a text, it is the only rollout that has not ended, or else the newest. Raises Refusal.
    """
    environment = session.environment
    if text is not None and is_id(text):
        return environment.get_deployment(text)
    of_pipeline = _newest(session, text)
    if of_pipeline is not None:
        return environment.get_deployment(of_pipeline)
    if text is None:
        raise Refusal("There are no deployments in this environment.", FAILED)
    listed = find(lambda: environment.list_deployments(limit=PAGE), text, "deployment", has_name=False)
    return environment.get_deployment(listed.id)


def _newest(session: Session, pipeline: str | None) -> str | None:
    """Return the id of the only rollout that has not ended, else of the newest; None if there is none."""
    listed = session.environment.list_deployments
    unfinished = [
        row for status in news.UNFINISHED for row in islice(listed(pipeline=pipeline, status=status, limit=10), 10)
    ]
    if len(unfinished) > 1:
        several = ", ".join(f"{row.pipeline} ({row.id}, {news.status_of(row)})" for row in unfinished)
        raise Refusal(f"There is more than one rollout that has not ended: {several}. Use an id.", USAGE)
    rows = unfinished or list(islice(listed(pipeline=pipeline, limit=1), 1))
    return rows[0].id if rows else None


def watch(session: Session, deployment_id: str, *, timeout: float | None, as_json: str | None) -> int:
    """Print what happens to a rollout until it ends, and return the exit code.

    A terminal shows bars; anything else gets one line for each change. With ``as_json``, the lines go to stderr, and
    the deployment is printed at the end. After ``timeout`` seconds the code is 8. Ctrl-C and errors do not stop the
    rollout, which is said. Raises Refusal and errors of the client.
    """
    with _screen(as_json) as screen:
        try:
            watched = _Watch(session, deployment_id, screen)
            found = watched.follow(None if timeout is None else time.monotonic() + timeout)
        except KeyboardInterrupt:
            screen.say(f"Interrupted. The rollout goes on.{how_to_continue(deployment_id)}")
            return INTERRUPTED
        code, text = news.outcome(found) if found.status in news.ENDED else (PENDING, "")
        if code == PENDING:
            text = f"The rollout has not ended after {timeout:g} s, and goes on.{how_to_continue(deployment_id)}"
        elif code != 0:
            text = "\n".join([text, *(f"  {line}" for line in watched.failures(found).values())])
        if as_json is not None or code == PENDING:
            screen.note(text)
        else:
            screen.say(text)
    if as_json is not None:
        show(found, as_json, "")
    return code


def how_to_continue(deployment_id: str) -> str:
    """Return the lines that say how to follow or stop a rollout."""
    return (
        f"\n  To follow it: byteor deployments watch {deployment_id}\n  To stop it:   byteor abort {deployment_id}"
    )


class _Watch:
    """Reads a deployment again and again, and prints what is new."""

    def __init__(self, session: Session, deployment_id: str, screen: _Screen) -> None:
        self._environment, self._session = session.environment, session
        self._id, self._screen = deployment_id, screen
        self._state: dict[str, str] = {}
        self._causes: set[tuple[str, str]] = set()
        self._agents: dict[str, str] = {}
        self._people: news.People | None = None
        self._is_lost = False

    def follow(self, deadline: float | None) -> m.Deployment:
        """Return the deployment when it has ended, or when the deadline has passed."""
        found, pause = None, FIRST_POLL_S
        while True:
            if (read := self._read()) is not None:
                found = read
                pause = FIRST_POLL_S if self._print(found) else min(pause * 1.3, LAST_POLL_S)
                self._screen.draw(found)
                if found.status in news.ENDED:
                    return found
            left = LAST_POLL_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                if found is None:
                    raise Refusal(f"The server does not respond.{how_to_continue(self._id)}", PENDING)
                return found
            time.sleep(min(pause, left))

    def failures(self, deployment: m.Deployment) -> dict[tuple[str, str], str]:
        """Return a line for each cause of failures, with names of agents."""
        if deployment.failures:
            with suppress_errors():
                rows = self._environment.list_deployment_agents(self._id, has_failure=True, limit=PAGE)
                self._agents |= {row.agent_id: row.agent_name for row in islice(rows, PAGE)}
        return news.failure_lines(deployment, self._agents)

    def _read(self) -> m.Deployment | None:
        """Return the deployment, or None if the server cannot be reached now, which is said once."""
        from byteor.client.errors import ApiError, ConnectionFailed  # noqa: PLC0415  only a command that runs needs it

        try:
            with _connection_lost(self._lose):
                found = self._environment.get_deployment(self._id)
        except ConnectionFailed:
            self._lose()
            return None
        except ApiError as error:
            if error.status == 429 or error.status >= 500:
                self._lose()
                return None
            self._screen.note(f"The rollout goes on.{how_to_continue(self._id)}")
            raise
        if self._is_lost:
            self._screen.note("The server responds again.")
        self._is_lost = False
        return found

    def _lose(self) -> None:
        if not self._is_lost:
            self._screen.note("The server does not respond. The rollout goes on; trying again.")
        self._is_lost = True

    def _print(self, deployment: m.Deployment) -> bool:
        """Print the lines that were not printed for the last state. Return whether there are any."""
        if deployment.status in news.ENDED:
            return True
        state = news.state_lines(deployment, self._read_people(deployment))
        lines = [line for key, line in state.items() if key not in self._state]
        self._state = state
        if {(each.reason, each.detail) for each in deployment.failures or ()} - self._causes:
            failures = self.failures(deployment)
            lines += [line for cause, line in failures.items() if cause not in self._causes]
            self._causes |= failures.keys()
        for line in lines:
            self._screen.say(line)
        return bool(lines)

    def _read_people(self, deployment: m.Deployment) -> news.People | None:
        """Return who can decide on the approval that the deployment waits for. None if it waits for none."""
        hold = deployment.wave_hold
        pending = deployment.approval_id if deployment.status == "pending_approval" else hold and hold.approval_id
        if pending is None:
            return None
        if self._people is None or self._people.approval.id != pending:
            with suppress_errors():
                approval = self._environment.get_approval(pending)
                self._people = news.People(approval, names_of(self._session, approval.reviewers))
        return self._people


def names_of(session: Session, user_ids: Collection[str]) -> dict[str, str]:
    """Return the e-mail addresses of members by user id, as far as the caller may see them."""
    if not user_ids:
        return {}
    found: dict[str, str] = {}
    for listed in (session.organization.list_organization_members, session.project.list_project_members):
        with suppress_errors():
            found |= {each.user_id: each.email for each in islice(listed(limit=PAGE), MOST_MEMBERS)}
    return {user_id: found[user_id] for user_id in user_ids if user_id in found}


@contextmanager
def suppress_errors() -> Iterator[None]:
    """Continue after the block if a request fails whose response only makes the output richer."""
    from byteor.client.errors import ByteOrError  # noqa: PLC0415  only a command that runs needs it

    with suppress(ByteOrError):
        yield


class _Retries(logging.Handler):
    """Gets the client's warnings that it sends a request again."""

    def __init__(self, lose: Callable[[], None]) -> None:
        super().__init__()
        self._lose = lose

    def emit(self, record: logging.LogRecord) -> None:
        self._lose()


@contextmanager
def _connection_lost(lose: Callable[[], None]) -> Iterator[None]:
    """Call ``lose`` instead of logging when the client has to send a request again."""
    logger, handler = logging.getLogger("byteor.client"), _Retries(lose)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Screen:
    """Where the lines of a rollout are printed: stdout, or stderr while stdout is for JSON."""

    def __init__(self, as_json: str | None) -> None:
        self._to_stderr = as_json is not None

    def say(self, text: str) -> None:
        """Print lines about the rollout."""
        for line in text.split("\n"):
            note(line) if self._to_stderr else say(line)

    def note(self, text: str) -> None:
        """Print lines to stderr."""
        for line in text.split("\n"):
            note(line)

    def draw(self, deployment: m.Deployment) -> None:
        """Show how far the rollout is. Only a terminal has bars."""


class _Terminal(_Screen):
    """A terminal, which shows bars below the lines."""

    def __init__(self, live: Live) -> None:
        super().__init__(None)
        self._live = live

    def say(self, text: str) -> None:
        from rich.text import Text  # noqa: PLC0415  slow to import, and only terminals need it

        for line in text.split("\n"):
            self._live.console.print(Text(plain(line)), soft_wrap=True)

    def note(self, text: str) -> None:
        self.say(text)

    def draw(self, deployment: m.Deployment) -> None:
        self._live.update(_bars(deployment), refresh=True)


@contextmanager
def _screen(as_json: str | None) -> Iterator[_Screen]:
    if as_json is not None or not is_terminal():
        yield _Screen(as_json)
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, and only terminals need it
    from rich.live import Live  # noqa: PLC0415

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        yield _Terminal(live)


def _bars(deployment: m.Deployment) -> Table:
    """Return a bar for each wave, as a renderable of rich."""
    from rich.progress_bar import ProgressBar  # noqa: PLC0415  slow to import, and only terminals need it
    from rich.table import Table  # noqa: PLC0415

    table = Table.grid(padding=(0, 2, 0, 0))
    for wave in news.waves_of(deployment):
        bar = ProgressBar(total=wave.total, completed=wave.done, width=BAR_WIDTH)
        table.add_row(wave.title, bar, f"{wave.done:,} of {wave.total:,}", wave.state)
    if deployment.progress.total:
        table.add_row("Total", "", "", news.counts_of(deployment.progress))
    return table
