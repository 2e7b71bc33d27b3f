"""``byteor deploy`` and ``byteor deployments``: rollouts of config bundles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import click

from byteor.command import rollout_news as news
from byteor.command.agents import AGENT, find_agent_id
from byteor.command.bundles import BUNDLE, find_bundle
from byteor.command.exits import DONE, FAILED, PENDING, ROLLOUT_FAILED, USAGE, Refusal
from byteor.command.output import (
    confirm,
    is_terminal,
    json_option,
    list_options,
    note,
    plain,
    say,
    show,
    show_list,
    size_text,
    when,
)
from byteor.command.release_plan import Release, describe_release
from byteor.command.session import Named, Session, find, is_id, suppress_errors, with_session

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from byteor.client import models as m

INTERRUPTED: Final = 130
FIRST_POLL_S: Final = 0.25  # the pause after a change; without changes it grows
LAST_POLL_S: Final = 2.0  # the longest pause
PAGE: Final = 200  # rows per request, and the most failed agents whose names are read
MOST_MEMBERS: Final = 2000
BAR_WIDTH: Final = 30
CANARY: Final = [5, 100]  # percent


def find_deployment(session: Session, text: str | None) -> m.Deployment:
    """Return the deployment with this id or part of an id, or of this pipeline.

    For a pipeline, or without a text, it is the deployment in progress, or else the newest one. Raises Refusal.
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
    """Return the id of the deployment in progress, or else of the newest one. None if there is none.

    A deployment that waits for approval counts as in progress. Raises Refusal if more than one is in progress.
    """
    listed = session.environment.list_deployments
    unfinished = [
        row for status in news.UNFINISHED for row in islice(listed(pipeline=pipeline, status=status, limit=10), 10)
    ]
    if len(unfinished) > 1:
        several = ", ".join(f"{row.pipeline} ({row.id}, {news.status_of(row)})" for row in unfinished)
        raise Refusal(f"More than one deployment is in progress: {several}. Use an id.", USAGE)
    rows = unfinished or list(islice(listed(pipeline=pipeline, limit=1), 1))
    return rows[0].id if rows else None


def watch(session: Session, deployment_id: str, *, timeout: float | None, as_json: str | None) -> int:
    """Print the progress of a rollout until it ends, and return the exit code.

    Prints lines for each change and, on a terminal, a bar for each wave. With ``as_json``, the lines go to stderr,
    there are no bars, and the deployment is printed at the end, except after Ctrl-C. After ``timeout`` seconds, the
    exit code is 8. Neither Ctrl-C nor an error stops the rollout. Raises Refusal and errors of the client.
    """
    output = say if as_json is None else note
    try:
        with _screen(as_json) as screen:
            watched = _Watch(session, deployment_id, screen)
            found = watched.follow(None if timeout is None else monotonic() + timeout)
    except KeyboardInterrupt:
        _print_lines(note, f"Interrupted. The work continues on the server.{how_to_continue(deployment_id)}")
        return INTERRUPTED
    if found.status in news.ENDED:
        code, text = _outcome(session, found)
        failures = watched.new_failures(found) if code == ROLLOUT_FAILED else []
        _print_lines(output, "\n".join([text, *(f"  {line}" for line in failures)]))
    else:
        code = PENDING
        text = f"The deployment is still in progress after {timeout:g} s.{how_to_continue(deployment_id)}"
        _print_lines(note, text)
    if as_json is not None:
        show(found, as_json, "")
    return code


def _print_lines(output: Callable[[str], None], text: str) -> None:
    for line in text.split("\n"):
        output(line)


def _outcome(session: Session, deployment: m.Deployment) -> tuple[int, str]:
    """Return the exit code and a text about a rollout that has ended.

    The text of a denial includes its comment, unless the request for the comment fails.
    """
    approval = None
    if deployment.status == "denied" and deployment.approval_id is not None:
        with suppress_errors():
            approval = session.environment.get_approval(deployment.approval_id)
    return news.outcome(deployment, approval)


def how_to_continue(deployment_id: str) -> str:
    """Return the commands that follow a deployment or abort its rollout, as lines."""
    return (
        f"\n  To follow the deployment: byteor deployments watch {deployment_id}"
        f"\n  To stop it, unless it is being rolled back: byteor abort {deployment_id}"
    )


class _Watch:
    """Polls a deployment and prints what has changed."""

    def __init__(self, session: Session, deployment_id: str, screen: _Screen) -> None:
        self._environment, self._session = session.environment, session
        self._id, self._screen = deployment_id, screen
        self._state: dict[str, str] = {}
        self._causes: set[tuple[str, str]] = set()
        self._failures: set[str] = set()
        self._people: news.People | None = None
        self._is_lost = False

    def follow(self, deadline: float | None) -> m.Deployment:
        """Return the deployment when it has ended, or when the deadline has passed.

        Raises Refusal if no request has succeeded by the deadline, and errors of the client after which a retry would
        not help.
        """
        found, pause = None, FIRST_POLL_S
        while True:
            if (read := self._read()) is not None:
                found = read
                self._screen.draw(found)
                pause = FIRST_POLL_S if self._print(found) else min(pause * 1.3, LAST_POLL_S)
                if found.status in news.ENDED:
                    return found
            left = LAST_POLL_S if deadline is None else deadline - monotonic()
            if left <= 0:
                if found is None:
                    problem = "The state of the deployment is unknown, because all requests failed."
                    raise Refusal(f"{problem}{how_to_continue(self._id)}", PENDING)
                return found
            sleep(min(pause, left))

    def new_failures(self, deployment: m.Deployment) -> list[str]:
        """Return the lines about causes of failures that are new or have changed, with the names of agents."""
        lines = news.failure_lines(deployment, agent_names(self._session, deployment))
        new = [line for line in lines.values() if line not in self._failures]
        self._causes |= lines.keys()
        self._failures.update(new)
        return new

    def _read(self) -> m.Deployment | None:
        """Return the deployment, or None if the request failed and a retry may succeed.

        Prints a note at the first failure, and when a request succeeds again. Raises other errors of the client.
        """
        from byteor.client.errors import ByteOrError  # noqa: PLC0415  only a command that runs needs it
        from byteor.command.retries import is_temporary, on_retry  # noqa: PLC0415  imports the client

        try:
            with on_retry(self._lose):
                found = self._environment.get_deployment(self._id)
        except ByteOrError as error:
            if is_temporary(error):
                self._lose()
                return None
            self._screen.note(f"The work continues on the server.{how_to_continue(self._id)}")
            raise
        if self._is_lost:
            self._screen.note("Requests succeed again.")
        self._is_lost = False
        return found

    def _lose(self) -> None:
        if not self._is_lost:
            self._screen.note("A request failed. Retrying; the work continues on the server.")
        self._is_lost = True

    def _print(self, deployment: m.Deployment) -> bool:
        """Print the lines that are new since the last state. Return whether there are any, or the rollout has ended."""
        if deployment.status in news.ENDED:
            return True
        state = news.state_lines(deployment, self._read_people(deployment))
        lines = [line for key, line in state.items() if key not in self._state]
        self._state = state
        if {(each.reason, each.detail) for each in deployment.failures or ()} - self._causes:
            lines += self.new_failures(deployment)
        for line in lines:
            self._screen.say(line)
        return bool(lines)

    def _read_people(self, deployment: m.Deployment) -> news.People | None:
        """Return who can decide on the approval that the deployment waits for.

        Returns None if it waits for none, or if the request fails.
        """
        if (pending := _pending_approval(deployment)) is None:
            return None
        if self._people is None or self._people.approval.id != pending:
            self._people = people_of(self._session, deployment)
        return self._people


def _pending_approval(deployment: m.Deployment) -> str | None:
    if deployment.status == "pending_approval":
        return deployment.approval_id
    return None if deployment.wave_hold is None else deployment.wave_hold.approval_id


def people_of(session: Session, deployment: m.Deployment) -> news.People | None:
    """Return who can decide on the approval that the deployment waits for.

    Returns None if it waits for none, or if the request fails.
    """
    pending = _pending_approval(deployment)
    if pending is not None:
        with suppress_errors():
            approval = session.environment.get_approval(pending)
            return news.People(approval, names_of(session, approval.reviewers))
    return None


def agent_names(session: Session, deployment: m.Deployment) -> dict[str, str]:
    """Return names of agents that have failed in a deployment, by id. Empty if the request fails."""
    if deployment.failures:
        with suppress_errors():
            rows = session.environment.list_deployment_agents(deployment.id, has_failure=True, limit=PAGE)
            return {row.agent_id: row.agent_name for row in islice(rows, PAGE)}
    return {}


def names_of(session: Session, user_ids: Collection[str]) -> dict[str, str]:
    """Return the e-mail addresses of members by user id. Ids that are not found are left out."""
    if not user_ids:
        return {}
    found: dict[str, str] = {}
    for listed in (session.organization.list_organization_members, session.project.list_project_members):
        with suppress_errors():
            found |= {each.user_id: each.email for each in islice(listed(limit=PAGE), MOST_MEMBERS)}
    return {user_id: found[user_id] for user_id in user_ids if user_id in found}


class _Screen:
    """Prints lines and notes about a rollout."""

    def __init__(self, as_json: str | None) -> None:
        self._to_stderr = as_json is not None

    def say(self, text: str) -> None:
        """Print lines about the rollout to stdout, or to stderr if stdout is for JSON."""
        _print_lines(note if self._to_stderr else say, text)

    def note(self, text: str) -> None:
        """Print a note to stderr, or to a terminal with bars, above them."""
        _print_lines(note, text)

    def draw(self, deployment: m.Deployment) -> None:
        """Show the progress as bars. Does nothing here, because only a terminal has bars."""


class _Terminal(_Screen):
    """A terminal, which shows bars below the lines."""

    def __init__(self, live: Live) -> None:
        super().__init__(None)
        self._live = live
        self._drawn: object = None

    def say(self, text: str) -> None:
        from rich.text import Text  # noqa: PLC0415  slow to import, and only terminals need it

        for line in text.split("\n"):
            self._live.console.print(Text(plain(line)), soft_wrap=True)

    def note(self, text: str) -> None:
        self.say(text)

    def draw(self, deployment: m.Deployment) -> None:
        waves, counts = news.waves_of(deployment), news.counts_of(deployment.progress)
        if (waves, counts) != self._drawn:
            self._drawn = (waves, counts)
            self._live.update(_bars(waves, counts), refresh=True)


@contextmanager
def _screen(as_json: str | None) -> Iterator[_Screen]:
    if as_json is not None or not is_terminal():
        yield _Screen(as_json)
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, and only terminals need it
    from rich.live import Live  # noqa: PLC0415

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        yield _Terminal(live)


def _bars(waves: Sequence[news.Wave], counts: str) -> Table:
    """Return a table with a bar for each wave, and the number of agents by state."""
    from rich.progress_bar import ProgressBar  # noqa: PLC0415  slow to import, and only terminals need it
    from rich.table import Table  # noqa: PLC0415

    table = Table.grid(padding=(0, 2, 0, 0))
    for wave in waves:
        bar = ProgressBar(total=wave.total, completed=wave.done, width=BAR_WIDTH)
        table.add_row(wave.title, bar, f"{wave.done:,} of {wave.total:,}", wave.state)
    if waves:
        table.add_row("Total", "", counts)
    return table


DEPLOYMENT = Named(
    lambda session: (
        text for each in session.environment.list_deployments(limit=PAGE) for text in (each.pipeline, each.id)
    )
)


class Pairs(click.ParamType[dict[str, str]]):
    """``KEY=VALUE,KEY=VALUE``, as a dictionary."""

    name = "KEY=VALUE,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Return the pairs. Fails if one has no key or no equals sign, or if a key occurs twice."""
        found: dict[str, str] = {}
        for each in value.split(","):
            key, equals, text = each.strip().partition("=")
            if not key or not equals or key in found:
                self.fail(f"{each or value!r} is not KEY=VALUE, or its key occurs twice.", param, ctx)
            found[key] = text
        return found


class Percents(click.ParamType[list[int]]):
    """``5,25,100``: increasing percentages, of which the last is 100."""

    name = "PERCENT,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return the percentages. Fails if the text is not such a list."""
        parts = value.split(",")
        if not all(each.strip().isdecimal() for each in parts):
            self.fail(f"{value!r} is not a list of percentages, such as 5,25,100.", param, ctx)
        found = [int(each) for each in parts]
        if found != sorted({*found}) or found[0] < 1 or found[-1] != 100:
            self.fail("The percentages must increase, begin with at least 1 and end with 100.", param, ctx)
        return found


class Moment(click.ParamType[datetime]):
    """A time with its offset from UTC, such as ``2026-12-01T08:00Z``."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time. Fails if the text is not a time or has no offset."""
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-12-01T08:00Z.", param, ctx)
        if found.tzinfo is None:
            self.fail("The time needs Z for UTC, or an offset such as +01:00.", param, ctx)
        return found


def _strategy(values: dict[str, Any]) -> m.StrategyRequest | None:
    """Build the strategy from the options. None means the server's default. Raises Refusal."""
    from byteor.client import models as m  # noqa: PLC0415  slow to import

    percents, canary, holds = values["percents"], values["canary"], values["holds"]
    if sum(map(bool, (percents, canary, values["all_at_once"]))) > 1:
        raise Refusal("Use only one of --all-at-once, --canary and --waves.", USAGE)
    percents = CANARY if canary else percents
    if percents is None and (holds or values["pause_s"]):
        raise Refusal("--hold and --pause require --canary or --waves.", USAGE)
    chosen = {
        "pause_s": values["pause_s"], "failure_threshold_percent": values["threshold"],
        "auto_rollback": values["auto_rollback"],
    }  # fmt: skip
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if percents is None:
        return m.StrategyRequest(kind="all_at_once", **chosen) if chosen else None
    found = _holds(holds or (("manual",) if canary else ()), len(percents))
    return m.StrategyRequest(kind="waves", percents=percents, holds=found, **chosen)


def _holds(texts: Sequence[str], waves: int) -> list[str | None]:
    """Return the hold before each wave. ``manual`` holds all waves but the first, ``2=manual`` only wave 2.

    Raises Refusal for an invalid text, and for any text if there is only one wave.
    """
    if texts and waves < 2:
        raise Refusal("--hold requires at least two waves.", USAGE)
    found: list[str | None] = [None] * waves
    for text in texts:
        wave, equals, kind = text.rpartition("=")
        if kind not in {"manual", "approval"} or (equals and not (wave.isdecimal() and 2 <= int(wave) <= waves)):
            raise Refusal(
                f"--hold must be KIND or WAVE=KIND, not {text}. KIND is manual or approval. WAVE is at least 2, and at "
                f"most the number of waves ({waves}).",
                USAGE,
            )
        for number in [int(wave)] if equals else range(2, waves + 1):
            found[number - 1] = kind
    return found


def _target(session: Session, labels: dict[str, str] | None, agents: str | None, every: bool) -> m.TargetRequest:
    from byteor.client import models as m  # noqa: PLC0415  slow to import

    if sum((labels is not None, agents is not None, every)) > 1:
        raise Refusal("Use only one of --all, --labels and --agents.", USAGE)
    if labels is not None:
        return m.TargetRequest(selector=labels)
    if agents is None:
        return m.TargetRequest(all=True)
    names = [each.strip() for each in agents.split(",") if each.strip()]
    if not names:
        raise Refusal("--agents names no agent.", USAGE)
    return m.TargetRequest(agents=[find_agent_id(session, each) for each in names])


def _reviewers(session: Session, texts: Sequence[str]) -> list[str] | None:
    """Return the user ids for e-mail addresses or ids. Raises Refusal for an unknown address.

    Returns None without texts, which means the reviewers of the environment.
    """
    if not texts:
        return None
    levels = (session.organization.list_organization_members, session.project.list_project_members)
    found = []
    for text in texts:
        members = (each for listed in levels for each in listed(email=text) if each.email.lower() == text.lower())
        user_id = text if is_id(text) else next((each.user_id for each in members), None)
        if user_id is None:
            raise Refusal(f"No member has the e-mail address {text}.", FAILED)
        found.append(user_id)
    return found


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.option("--all", "every", is_flag=True, help="Deploy to all agents of the environment. This is the default.")
@click.option("--labels", type=Pairs(), help="Deploy to the agents that have all of these labels.")
@click.option("--agents", type=AGENT, metavar="A,B", help="Deploy to these agents, by name or id.")
@click.option("--all-at-once", is_flag=True, help="Deploy in one wave. This is the default.")
@click.option("--canary", is_flag=True, help=(
    "Deploy to 5% of the agents first. Unless --hold is used, wave 2 starts when somebody starts it."
))  # fmt: skip
@click.option(
    "--waves",
    "percents",
    type=Percents(),
    help="Deploy in waves, up to these percentages of the agents, such as 10,50,100.",
)
@click.option("--hold", "holds", multiple=True, metavar="[WAVE=]KIND", help=(
    "Hold all waves after the first, or only WAVE. KIND is manual (somebody must start the wave) or approval (people "
    "must approve it). Can be repeated."
))  # fmt: skip
@click.option(
    "--pause", "pause_s", type=click.IntRange(0), metavar="SECONDS", help="Pause this long between two waves."
)
@click.option("--failure-threshold", "threshold", type=click.IntRange(0, 100), metavar="PERCENT", help=(
    "The percentage of agents in a wave that may fail. Default: 0."
))  # fmt: skip
@click.option("--auto-rollback/--no-auto-rollback", default=None, help=(
    "Whether to roll back a failed rollout automatically. Default: only with waves."
))  # fmt: skip
@click.option("--start-at", type=Moment(), help="Start at this time or later, such as 2026-12-01T08:00Z.")
@click.option("--note", "text", help="A note for the approvers.")
@click.option("--reviewer", "reviewers", multiple=True, metavar="E-MAIL", help=(
    "A person who may decide, by e-mail address. Default: the reviewers of the environment. Can be repeated."
))  # fmt: skip
@click.option("--explain", "explanations", multiple=True, metavar="GROUP=TEXT", help=(
    "Explain a group of differences to the approvers. Can be repeated."
))  # fmt: skip
@click.option("--take-over", is_flag=True, help="Replace other pipelines on the agents.")
@click.option("--override-freeze", metavar="REASON", help="Deploy during a freeze window. Requires the role org_admin.")
@click.option("--override-gate", metavar="REASON", help="Override the replay gate. Requires the role org_admin.")
@click.option("--break-glass", metavar="REASON", help=(
    "In an emergency, deploy without waiting for approval. Requires a person with the role org_admin."
))  # fmt: skip
@click.option("--approval", metavar="FILE", help="A file with the unused credential of an approval, or - for stdin.")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="A unique key. Repeating the command with the same key within 24 hours does not deploy twice.",
)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@click.option(
    "--detach",
    is_flag=True,
    help="Do not wait for the rollout. If the deployment waits for approval, the exit code is 8.",
)
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help=(
    "Stop waiting after this time, with exit code 8. The rollout continues."
))  # fmt: skip
@json_option("Deployment")
@with_session
def deploy(session: Session, /, bundle: str, as_json: str | None, **values: Any) -> int:
    """Deploy a config bundle, and follow the rollout until it ends.

    Shows what changes, on which agents, and who can approve, and prompts for confirmation. Ctrl-C stops the command,
    but not the rollout.

    \b
    Exit codes:
      0  the config bundle is active; with --detach: the deployment is requested and
         does not wait for approval
      1  refused, blocked by the replay gate, or the approval was denied, revoked or
         expired: nothing changed; or a request failed
      3  the rollout failed, was aborted or rolled back
      8  still pending after --timeout, or waiting for approval with --detach
      130  interrupted by Ctrl-C; a deployment that was requested continues

    \b
    Examples:
      byteor deploy quotes-7
      byteor deploy quotes-7 --canary --labels zone=eu-1
      byteor deploy quotes-7 --waves 10,50,100 --pause 300 --hold 3=approval
      byteor deploy quotes-7 --yes --timeout 1800 --json id,status
    """
    key = values["idempotency_key"] or uuid4().hex
    strategy = _strategy(values)
    found = find_bundle(session, bundle)
    request = _request(session, found.id, strategy, values)
    if found.known_bad:
        raise Refusal(
            f"The configuration of {found.name} is known bad in this environment. "
            "To deploy it anyway, run `byteor bundles clear` first."
        )
    output = say if as_json is None else note
    _print_lines(output, describe_release(session, found, request, names_of))
    confirm("Deploy?", yes=values["yes"])
    created = _create(session, request, key)
    output(f"Requested deployment {created.id}.")
    if not values["detach"]:
        return watch(session, created.id, timeout=values["timeout"], as_json=as_json)
    if as_json is not None:
        show(created, as_json, "")
    for line in news.state_lines(created, people_of(session, created)).values():
        _print_lines(output, line)
    output(how_to_continue(created.id).lstrip("\n").split("\n")[0])
    return PENDING if created.status == "pending_approval" else DONE


def _request(session: Session, bundle_id: str, strategy: m.StrategyRequest | None, values: dict[str, Any]) -> Release:
    """Build the request from the options. Raises Refusal."""
    from byteor.client import models as m  # noqa: PLC0415  slow to import

    explain = []
    for each in values["explanations"]:
        group, equals, text = each.partition("=")
        if not equals or not text.strip():
            raise Refusal(f"--explain must be GROUP=TEXT: {each}", USAGE)
        explain.append(m.DifferenceExplanationRequest(group=group, text=text))
    credential = _read_credential(values["approval"])
    target = _target(session, values["labels"], values["agents"], values["every"])
    freeze, gate, break_glass = (values[each] for each in ("override_freeze", "override_gate", "break_glass"))
    return Release(
        config_bundle_id=bundle_id,
        target=target,
        strategy=strategy,
        take_over=values["take_over"] or None,
        approval=credential,
        explain=explain or None,
        start_at=values["start_at"],
        reviewers=_reviewers(session, values["reviewers"]),
        note=values["text"],
        override_freeze=None if freeze is None else m.ReasonRequest(reason=freeze),
        override_replay_gate=None if gate is None else m.ReasonRequest(reason=gate),
        break_glass=None if break_glass is None else m.BreakGlassRequest(reason=break_glass),
    )


def _read_credential(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return (sys.stdin.read() if path == "-" else Path(path).read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} cannot be read: {error}", USAGE) from None


def _create(session: Session, request: Release, key: str) -> m.Deployment:
    """Create the deployment. If it may have been created although the request failed, say how to retry safely.

    Raises Refusal and errors of the client.
    """
    from byteor.client.errors import ByteOrError  # noqa: PLC0415  only a command that runs needs it
    from byteor.command.retries import is_temporary  # noqa: PLC0415  imports the client

    again = f"To continue, run the same command with --idempotency-key {key} within 24 hours. It does not deploy twice."
    try:
        return session.environment.create_deployment(**request.fields(), idempotency_key=key)
    except KeyboardInterrupt:
        note(f"The server may have received the request. {again}")
        raise
    except ByteOrError as error:
        if not is_temporary(error):
            raise
        raise Refusal(f"{str(error).rstrip('.')}. The server may have received the request. {again}", FAILED) from None


@click.group()
def deployments() -> None:
    """List, show and follow deployments."""


@deployments.command("list")
@click.option("--status", help="Only deployments with this status, such as deploying or failed.")
@click.option("--pipeline", help="Only deployments of this pipeline.")
@list_options("ListedDeployment")
@with_session
def list_deployments(
    session: Session, status: str | None, pipeline: str | None, limit: int, as_json: str | None
) -> None:
    """List the deployments of the environment, newest first.

    \b
    Examples:
      byteor deployments list
      byteor deployments list --status deploying --json id,progress
    """
    columns = {
        "pipeline": lambda each: each.pipeline,
        "status": lambda each: news.status_of(each) + (", current" if each.is_current else ""),
        "agents": lambda each: news.counts_of(each.progress) if each.progress.total else str(each.target_count),
        "requested": lambda each: when(each.created_at),
        "id": lambda each: each.id,
    }
    rows = session.environment.list_deployments(status=status, pipeline=pipeline, limit=min(limit + 1, PAGE))
    show_list(rows, as_json, columns, limit)


@deployments.command("show")
@click.argument("deployment", type=DEPLOYMENT, required=False)
@json_option("Deployment")
@with_session
def show_deployment(session: Session, deployment: str | None, as_json: str | None) -> None:
    """Show a deployment. Default: the deployment in progress, or else the newest one.

    \b
    Examples:
      byteor deployments show
      byteor deployments show quotes --json status,progress,failures
    """
    found = find_deployment(session, deployment)
    columns: dict[str, Callable[[Any], Any]] = {
        "pipeline": lambda each: each.pipeline,
        "status": lambda each: news.status_of(each) + (", current" if each.is_current else ""),
        "agents": lambda each: news.counts_of(each.progress) if each.progress.total else str(each.target_count),
        "requested": lambda each: f"{when(each.created_at)} by {each.requested_by}",
        "approved": lambda each: when(each.approved_at),
        "activated": lambda each: when(each.activated_at),
        "note": lambda each: each.note,
        "config hash": lambda each: each.config_hash,
        "id": lambda each: each.id,
    }
    show(found, as_json, columns)
    if as_json is not None:
        return
    lines = list(news.state_lines(found, people_of(session, found)).values())
    if found.status in news.ENDED:
        lines.append(_outcome(session, found)[1])
    lines += news.failure_lines(found, agent_names(session, found)).values()
    for line in ["", *lines] if lines else []:
        _print_lines(say, line)


@deployments.command("watch")
@click.argument("deployment", type=DEPLOYMENT, required=False)
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help=(
    "Stop waiting after this time, with exit code 8. The rollout continues."
))  # fmt: skip
@json_option("Deployment")
@with_session
def watch_deployment(session: Session, deployment: str | None, timeout: float | None, as_json: str | None) -> int:
    """Follow a rollout until it ends. Default: the deployment in progress, or else the newest one.

    The exit codes are those of `byteor deploy`. Ctrl-C stops the command, but not the rollout.

    \b
    Examples:
      byteor deployments watch
      byteor deployments watch quotes --timeout 600
    """
    return watch(session, find_deployment(session, deployment).id, timeout=timeout, as_json=as_json)


@deployments.command("timeline")
@click.argument("deployment", type=DEPLOYMENT, required=False)
@list_options("TimelineEntry")
@with_session
def list_timeline(session: Session, deployment: str | None, limit: int, as_json: str | None) -> None:
    """List the events of a deployment, newest first. Default: the deployment in progress, or else the newest one.

    \b
    Examples:
      byteor deployments timeline
      byteor deployments timeline quotes --limit 5
    """
    columns = {
        "when": lambda each: when(each.created_at),
        "event": news.describe_event,
        "by": lambda each: "the server" if each.actor.startswith("system:") else each.actor,
    }
    found = find_deployment(session, deployment)
    show_list(session.environment.list_deployment_timeline(found.id), as_json, columns, limit)


@deployments.command("agents")
@click.argument("deployment", type=DEPLOYMENT, required=False)
@click.option("--wave", type=click.IntRange(min=1), help="Only agents of this wave, counted from 1.")
@click.option("--progress", help="Only agents with this progress, such as offered, active or failed.")
@click.option(
    "--failed", is_flag=True, help="Only agents that have failed, including those that were retried or rolled back."
)
@list_options("DeploymentAgent")
@with_session
def list_deployment_agents(
    session: Session,
    deployment: str | None,
    wave: int | None,
    progress: str | None,
    failed: bool,
    limit: int,
    as_json: str | None,
) -> None:
    """List the agents of a deployment. Default: the deployment in progress, or else the newest one.

    \b
    Examples:
      byteor deployments agents --failed
      byteor deployments agents quotes --wave 2 --json agent_name,progress
    """
    columns = {
        "agent": lambda each: each.agent_name,
        "wave": lambda each: each.wave + 1,
        "progress": lambda each: each.progress.replace("_", " "),
        "detail": lambda each: each.detail or (each.failure.detail if each.failure else ""),
        "changed": lambda each: when(each.updated_at),
        "id": lambda each: each.agent_id,
    }
    found = find_deployment(session, deployment)
    rows = session.environment.list_deployment_agents(
        found.id,
        wave=None if wave is None else wave - 1,
        progress=progress,
        has_failure=failed or None,
        limit=min(limit + 1, PAGE),
    )
    show_list(rows, as_json, columns, limit)


@deployments.command("evidence")
@click.argument("deployment", type=DEPLOYMENT)
@click.option("-o", "--output", "path", required=True, type=click.Path(path_type=Path, dir_okay=False), help=(
    "The file to write."
))  # fmt: skip
@json_option(["deployment_id", "file", "size"])
@with_session
def save_evidence(session: Session, deployment: str, path: Path, as_json: str | None) -> None:
    """Download the signed evidence of a deployment.

    `byteor verify` checks the evidence offline.

    \b
    Examples:
      byteor deployments evidence quotes -o evidence.tar
    """
    found = find_deployment(session, deployment)
    try:
        session.environment.export_deployment_evidence(found.id).save(path)
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}.", FAILED) from None
    saved = {"deployment_id": found.id, "file": str(path), "size": path.stat().st_size}
    show(saved, as_json, f"Saved {path} ({size_text(path.stat().st_size)})\nTo verify it, run: byteor verify {path}")
