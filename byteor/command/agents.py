"""``byteor agents``: the commands for agents, their enrollment tokens, and the captures requested from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from shutil import get_terminal_size
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple, override

import click

from byteor.command.exits import DONE, FAILED, PENDING, USAGE, Refusal
from byteor.command.output import (
    confirm,
    is_terminal,
    json_option,
    list_options,
    note,
    say,
    show,
    show_list,
    text_of,
    when,
)
from byteor.command.session import Named, Session, find, is_id, suppress_errors, with_session
from byteor.command.times import DURATION, MOMENT

if TYPE_CHECKING:
    from byteor.client import models as m
    from byteor.client.resources import Environment

PAGE: Final = 200  # rows per request
_PAUSE_S: Final = 2.0  # between two requests for the state of a requested capture
_NAMED: Final = 20  # how many deployments one command requests at most, to name their bundles
_SHOWN: Final = 10  # the most values in a line of the summary
_CHANGED: Final = ("matched", "changed", "deployments_offered")
_ENROLLMENT: Final = ("id", "prefix", "token", "command", "expires_at", "max_uses", "labels", "replace")
_PART_OF_ID: Final = frozenset("0123456789abcdef-")


@click.group()
def agents() -> None:
    """List, explain and manage agents."""


class _AgentNamed(Named):
    """An argument or option that names an agent.

    Completion requests only names that contain the typed text, because a fleet can be large.
    """

    _typed = ""

    def __init__(self) -> None:
        super().__init__(
            lambda session: (
                each.name for each in session.environment.list_agents(name=self._typed or None, limit=PAGE)
            )
        )

    @override
    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        self._typed = incomplete
        return super().shell_complete(ctx, param, incomplete)


AGENT: Final = _AgentNamed()


def find_agent_id(session: Session, text: str) -> str:
    """Return the id of the agent with this name, id or part of an id. Raises Refusal.

    A complete id is returned unchecked, because it may belong to a decommissioned agent.
    """
    if is_id(text):
        return text
    environment = session.environment

    def listed(name: str | None = None) -> Iterator[m.ListedAgent]:
        rows = iter(environment.list_agents(name=name, limit=PAGE))
        if name is None and not _PART_OF_ID.issuperset(text.lower()):
            rows = islice(rows, 11)  # only for the names in the error message
        for row in rows:
            yield row
            if name is not None and row.name == name:
                return  # names are unique, and many other names may contain this one

    return str(find(listed, text, "agent").id)


def find_agent(session: Session, text: str) -> m.Agent:
    """Return the enrolled agent with this name, id or part of an id. Raises Refusal."""
    return session.environment.get_agent(find_agent_id(session, text))


class _Bundles:
    """The names of bundles, such as ``quotes:3``. Each name is requested only once."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._by_deployment: dict[str, str] = {}
        self._by_version: dict[str, str] = {}

    def of_state(self, state: m.RunningState | m.DesiredState | None) -> str:
        """Return the name of the bundle in this state, a short hash if the name is unknown, or ``nothing``."""
        if state is None:
            return "nothing"
        known = self._by_deployment
        if state.deployment_id is None or (state.deployment_id not in known and len(known) >= _NAMED):
            return _short_hash(state.bundle_hash)
        if state.deployment_id not in known:
            known[state.deployment_id] = self._of_deployment(state.deployment_id) or _short_hash(state.bundle_hash)
        return known[state.deployment_id]

    def of_interval(self, interval: m.RunningInterval) -> str:
        """Return the name of the bundle in this interval, or a short hash if the name is unknown."""
        found = interval.version_id and self._of_version(interval.version_id)
        return found or _short_hash(interval.bundle_hash)

    def _of_deployment(self, deployment_id: str) -> str:
        from byteor.client.errors import NotFound  # noqa: PLC0415  the client is imported with the first request

        try:
            return self._of_version(self._environment.get_deployment(deployment_id).version_id)
        except NotFound:  # a deployment of another environment
            return ""

    def _of_version(self, version_id: str) -> str:
        if version_id not in self._by_version:
            version = self._environment.get_version(version_id)
            self._by_version[version_id] = f"{version.name}:{version.number}"
        return self._by_version[version_id]


def _short_hash(bundle_hash: str) -> str:
    return f"bundle {bundle_hash.removeprefix('sha256:')[:12]}"


def _state(agent: m.Agent | m.ListedAgent) -> str:
    words = [agent.liveness, agent.status or ""]
    words += ["drifted"] if agent.drifted else []
    words += ["drained"] if agent.drained_at else []
    words += ["suspected clone"] if agent.clone_suspected_at else []
    return ", ".join(filter(None, words))


@agents.command("list")
@click.option("-q", "--query", help="A search, such as 'zone=eu-1 status:failed quotes@v7'.")
@click.option("--liveness", type=click.Choice(["online", "stale", "offline"]), help="Only agents with this liveness.")
@click.option(
    "--status", type=click.Choice(["starting", "healthy", "degraded", "failed", "draining"]),
    help="Only agents that last reported this status.",
)  # fmt: skip
@click.option(
    "--drifted/--no-drifted",
    default=None,
    help="Only agents that do not run the bundle that they should run, or only the other agents.",
)
@click.option("--drained/--no-drained", default=None, help="Only agents that are drained, or only those that are not.")
@click.option(
    "-l", "--label", "labels", multiple=True, metavar="KEY=VALUE|KEY|!KEY",
    help="Only agents with this label, with any value of it, or without it. Can be repeated.",
)  # fmt: skip
@list_options("ListedAgent")
@with_session
def list_agents(session: Session, /, labels: tuple[str, ...], limit: int, as_json: str | None, **filters: Any) -> None:
    """List the agents of the environment, newest first.

    \b
    Examples:
      byteor agents list
      byteor agents list --liveness offline --label zone=eu-1
      byteor agents list -q 'status:failed quotes@v7' --json id,name
    """
    bundles = _Bundles(session.environment)
    columns = {
        "name": lambda each: each.name,
        "state": _state,
        "runs": lambda each: bundles.of_state(each.running),
        "labels": lambda each: each.labels,
        "last seen": lambda each: when(each.last_seen_at),
        "id": lambda each: each.id,
    }
    rows = session.environment.list_agents(label=list(labels) or None, limit=min(limit + 1, PAGE), **filters)
    show_list(rows, as_json, columns, limit)


@agents.command("show")
@click.argument("agent", type=AGENT)
@json_option("Agent")
@with_session
def show_agent(session: Session, agent: str, as_json: str | None) -> None:
    """Show an agent: its state and what it runs. With --json, also its last report.

    \b
    Examples:
      byteor agents show edge-1
      byteor agents show edge-1 --json report
    """
    found = find_agent(session, agent)
    bundles = _Bundles(session.environment)
    about: dict[str, Callable[[m.Agent], Any]] = {
        "agent": lambda each: each.name,
        "state": _state,
        "runs": lambda each: bundles.of_state(each.running),
        "should run": lambda each: bundles.of_state(each.desired) if each.desired else "-",
        "progress": lambda each: each.progress.replace("_", " ") if each.desired else "-",
        "last failure": lambda each: _at(each.last_failed.since, each.last_failed.detail) if each.last_failed else "-",
        "drained": lambda each: _at(each.drained_at, each.drain_reason) if each.drained_at else "no",
        "labels": lambda each: each.labels,
        "host name": lambda each: each.hostname,
        "agent version": lambda each: each.agent_version,
        "last seen": lambda each: when(each.last_seen_at),
        "enrolled": lambda each: when(each.created_at),
        "id": lambda each: each.id,
    }
    show(found, as_json, about)


def _at(moment: datetime | None, why: str) -> str:
    return f"{when(moment)}: {why}" if why else when(moment)


@agents.command()
@click.argument("agent", type=AGENT)
@json_option("Explanation")
@with_session
def explain(session: Session, agent: str, as_json: str | None) -> None:
    """Explain why an agent runs what it runs.

    Prints the reasons, what happens next, and commands that can unblock the agent.

    \b
    Examples:
      byteor agents explain edge-1
      byteor agents explain edge-1 --json summary
    """
    found = session.environment.explain_agent(find_agent_id(session, agent))
    upcoming = [f"{when(each.at)}: {each.detail}" if each.at else each.detail for each in found.next]
    parts = [
        _wrapped(found.summary),
        _section("Why:", [_wrapped(f"- {each.detail}") for each in found.because]),
        _section("Next:", [_wrapped(f"- {each}") for each in upcoming]),
        _section("To unblock:", [f"  {each}" for each in _ways_to_continue(found)]),
    ]
    show(found, as_json, "\n\n".join(filter(None, parts)))


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def _wrapped(text: str) -> str:
    """Return the text, on a terminal wrapped to its width. The further lines of an item are indented."""
    if not is_terminal():
        return text
    from textwrap import fill  # noqa: PLC0415  imported for terminals only

    indent = "  " if text.startswith("- ") else ""
    return fill(text, get_terminal_size().columns, subsequent_indent=indent, break_on_hyphens=False)


def _ways_to_continue(explanation: m.Explanation) -> Iterable[str]:
    """Return commands that can unblock the agent, without duplicates."""
    found: dict[str, None] = {}
    for each in explanation.because:
        match each.code:
            case "waits_for_approval" | "waits_for_hold" if each.approval_id:
                found[f"byteor approve {each.approval_id}"] = None
            case "waits_for_hold":
                found[f"byteor next-wave {each.deployment_id}"] = None
            case "paused":
                found[f"byteor resume {each.deployment_id}"] = None
            case "offer_held":
                found["byteor held-offers resume"] = None
            case "drained":
                found[f"byteor agents undrain {explanation.agent_id}"] = None
    return found


@agents.command()
@click.argument("agent", type=AGENT)
@click.option("--since", type=MOMENT, help="Only what ran after this time, such as 2026-11-29 or 7d (ago).")
@click.option("--until", type=MOMENT, help="Only what ran before this time.")
@list_options("RunningInterval")
@with_session
def history(
    session: Session, agent: str, since: str | None, until: str | None, limit: int, as_json: str | None
) -> None:
    """List what an agent has run, newest first.

    Also shows who approved each bundle. For a decommissioned agent, use its complete id.

    \b
    Examples:
      byteor agents history edge-1
      byteor agents history edge-1 --since 7d --json from,to,bundle_hash
    """
    bundles = _Bundles(session.environment)
    columns = {
        "from": lambda each: when(each.from_),
        "until": lambda each: when(each.to) if each.to else "now",
        "confirmed": lambda each: when(each.confirmed_until),
        "ran": bundles.of_interval,
        "approved by": lambda each: each.approved_by,
        "deployment": lambda each: each.deployment_id,
    }
    found = session.environment.list_agent_history(find_agent_id(session, agent), since=since, until=until)
    show_list(found, as_json, columns, limit)


@agents.command()
@click.argument("agent", type=AGENT)
@click.option(
    "--since", type=MOMENT, help="The start, such as 2026-11-29 or 7d (ago). Default: 24 hours before --until."
)
@click.option("--until", type=MOMENT, help="The end. Default: now.")
@json_option("Series")
@with_session
def series(session: Session, agent: str, since: str | None, until: str | None, as_json: str | None) -> None:
    """Chart what an agent reported over time.

    Shows records, drops, errors, CPU, memory and restarts. If the output is not a terminal, prints a table with one row
    for each slot of 15 minutes.

    \b
    Examples:
      byteor agents series edge-1
      byteor agents series edge-1 --since 7d > edge-1.txt
    """
    found = session.environment.get_agent_series(find_agent_id(session, agent), since=since, until=until)
    if as_json is not None:
        show(found, as_json, "")
        return
    from byteor.command.agent_charts import show_series  # noqa: PLC0415  imported for this command only

    show_series(found)


@agents.command()
@json_option("AgentSummary")
@with_session
def summary(session: Session, as_json: str | None) -> None:
    """Count agents by state, version and label.

    \b
    Examples:
      byteor agents summary
      byteor agents summary --json total,liveness
    """
    found = session.environment.get_agent_summary()
    ran = {
        f"{each.pipeline}:{each.number}" if each.version_id else "other builds": each.count for each in found.versions
    }
    about: dict[str, Callable[[m.AgentSummary], str]] = {
        "agents": lambda each: f"{each.total:,}",
        "liveness": lambda each: _counts(each.liveness),
        "status": lambda each: _counts(each.status),
        "drifted": lambda each: f"{each.drifted:,}",
        "suspected clones": lambda each: f"{each.cloned:,}",
        "running": lambda _: _counts(ran) or "-",
    }
    show(found, as_json, about)
    if as_json is None:
        for key, values in found.labels.items():
            say(f"Label {key}: {_counts(values)}")


def _counts(numbers: dict[str, int]) -> str:
    shown = [f"{word or 'empty'} ({number:,})" for word, number in islice(numbers.items(), _SHOWN) if number]
    return ", ".join(shown) + (", …" if len(numbers) > _SHOWN else "")


class _LabelChange(NamedTuple):
    """The labels to set, and the keys to remove."""

    added: dict[str, str]
    removed: list[str]

    def of(self, labels: dict[str, str]) -> dict[str, str]:
        """Return the labels after the change."""
        return {key: value for key, value in {**labels, **self.added}.items() if key not in self.removed}


def _read_labels(texts: Iterable[str]) -> dict[str, str]:
    """Parse KEY=VALUE texts. Raises Refusal."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise Refusal(f"A label must be KEY=VALUE: {text}", USAGE)
        found[key] = value
    return found


@agents.command()
@click.argument("words", nargs=-1, required=True, metavar="[AGENT...] KEY=VALUE|KEY-...", type=AGENT)
@click.option(
    "--selector", metavar="KEY=VALUE,...",
    help="Instead of named agents, change all agents that have these labels, in one transaction.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print how many agents would change, without changing them.")
@click.option("--yes", is_flag=True, help="With --selector, skip the confirmation prompt.")
@json_option(_CHANGED)
@with_session
def label(
    session: Session, words: tuple[str, ...], selector: str | None, dry_run: bool, yes: bool, as_json: str | None
) -> None:
    """Change the labels of agents.

    KEY=VALUE sets a label, and KEY- removes it. Changed agents that match the target of a current deployment can then
    be offered that deployment.

    \b
    Examples:
      byteor agents label edge-1 zone=eu-1 trial-
      byteor agents label edge-1 edge-2 ring=canary
      byteor agents label --selector zone=eu-1 ring=canary --dry-run
    """
    named = 0 if selector is not None else next((at for at, each in enumerate(words) if at and _is_change(each)), 0)
    if selector is None and not named:
        raise Refusal("Name an agent and then the changes: KEY=VALUE or KEY-.", USAGE)
    change = _read_change(words[named:])
    if selector is None:
        found = _label_named(session, words[:named], change, dry_run=dry_run)
    else:
        found = _label_selected(session, _read_labels(selector.split(",")), change, dry_run=dry_run, yes=yes)
    offered = found["deployments_offered"]
    verb = "would be" if dry_run else "is" if offered == 1 else "are"
    show(
        found,
        as_json,
        f"{'Would change' if dry_run else 'Changed'} the labels of {found['changed']:,} of {_agents(found['matched'])}"
        + (f"; {_agents(offered)} {verb} offered a current deployment" if offered else ""),
    )


def _is_change(word: str) -> bool:
    return "=" in word or word.endswith("-")


def _read_change(words: Sequence[str]) -> _LabelChange:
    if wrong := [each for each in words if not _is_change(each)]:
        raise Refusal(f"A change must be KEY=VALUE or KEY-: {wrong[0]}", USAGE)
    added = _read_labels(each for each in words if "=" in each)
    removed = [each.removesuffix("-") for each in words if "=" not in each]
    if both := added.keys() & removed:
        raise Refusal(f"The label {min(both)} is both set and removed.", USAGE)
    return _LabelChange(added, removed)


def _label_named(session: Session, names: Sequence[str], change: _LabelChange, *, dry_run: bool) -> dict[str, Any]:
    found = {each.id: each for each in (find_agent(session, name) for name in names)}
    changes = [(each, new) for each in found.values() if (new := change.of(each.labels or {})) != each.labels]
    done = 0
    try:
        for each, labels in changes if not dry_run else ():
            session.environment.update_agent(each.id, labels=labels, if_match=each.etag)
            done += 1
    except Exception:
        if done:
            note(f"Changed the labels of {done} of {_agents(len(found))} before the error.")
        raise
    return dict(zip(_CHANGED, (len(found), len(changes), None), strict=True))


def _label_selected(
    session: Session, selector: dict[str, str], change: _LabelChange, *, dry_run: bool, yes: bool
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "selector": selector, "set": change.added or None, "unset": change.removed or None,
    }  # fmt: skip
    if dry_run or not yes:
        effect = session.environment.label_agents(**options, dry_run=True)
        if dry_run or not effect.changed:
            return effect.to_dict()
        offered = effect.deployments_offered
        offers = f" {_agents(offered)} will be offered a current deployment." if offered else ""
        confirm(
            f"This changes the labels of {effect.changed:,} of {_agents(effect.matched)}.{offers} Continue?", yes=False
        )
    return session.environment.label_agents(**options).to_dict()


def _agents(count: int) -> str:
    return f"{count:,} agent{'' if count == 1 else 's'}"


@agents.command()
@click.argument("agent", type=AGENT)
@click.option("--reason", help="The reason, such as 'The disk is replaced.' It is shown with the agent.")
@json_option("Agent")
@with_session
def drain(session: Session, agent: str, reason: str | None, as_json: str | None) -> None:
    """Exclude an agent from deployments.

    Drain an agent while its machine is repaired, for example. The agent keeps running its bundle, and can finish an
    offer that it already has. Rollbacks still apply to it.

    \b
    Examples:
      byteor agents drain edge-1 --reason 'The disk is replaced.'
    """
    found = session.environment.drain_agent(find_agent_id(session, agent), reason=reason)
    show(found, as_json, f"Drained agent {found.name}")


@agents.command()
@click.argument("agent", type=AGENT)
@click.option("--reason", help="The reason, for the audit trail.")
@json_option("Agent")
@with_session
def undrain(session: Session, agent: str, reason: str | None, as_json: str | None) -> None:
    """Include a drained agent in deployments again.

    If the agent matches the target of a current deployment that has not reached it, it can be offered that deployment.

    \b
    Examples:
      byteor agents undrain edge-1
    """
    found = session.environment.undrain_agent(find_agent_id(session, agent), reason=reason)
    show(found, as_json, f"Undrained agent {found.name}")


@agents.command()
@click.option(
    "--max-uses", type=click.IntRange(min=1), default=1, show_default=True, help="The number of agents that can enroll."
)
@click.option(
    "--expires-in", type=DURATION, default="1h", show_default=True, help="The lifetime of the token, from 60s to 30d."
)
@click.option(
    "-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label for the agents. Can be repeated."
)
@click.option(
    "--replace",
    is_flag=True,
    help="Let a new agent replace an agent of the same name. The old agent is decommissioned.",
)
@json_option(_ENROLLMENT)
@with_session
def enroll_token(
    session: Session, max_uses: int, expires_in: int, labels: tuple[str, ...], replace: bool, as_json: str | None
) -> None:
    """Create an enrollment token.

    Prints the token, which is shown only once, and the command that installs, enrolls and runs an agent on its machine.
    The command prompts for the token, so that the token is not in the shell history.

    \b
    Examples:
      byteor agents enroll-token
      byteor agents enroll-token --max-uses 20 --label zone=eu-1 --expires-in 7d
      byteor agents enroll-token --json token,command
    """
    from byteor.agent.setup_command import setup_command  # noqa: PLC0415  imported for this command only

    wanted = _read_labels(labels)
    place = f"{session.organization_id}/{session.project_id}/{session.environment_id}"
    package, digest = _agent_package(session.context.url)
    made = session.environment.create_enrollment_token(
        max_uses=max_uses, labels=wanted or None, replace=replace or None, expires_in_s=expires_in
    )
    command = setup_command(session.context.url.rstrip("/"), package, digest, place)
    text = (
        f"Created an enrollment token for {_agents(max_uses)}. It expires {when(made.expires_at)}.\n\n"
        f"Token: {made.token}\n\n"
        "Run this command on the machine, which needs Python 3.12 or newer with its venv module.\n"
        "It installs the agent in the folder byteor-agent, prompts for the token, and runs the agent\n"
        f"until you press Ctrl-C.\n\n{command}"
    )
    show({**made.to_dict(), "command": command}, as_json, text)


def _agent_package(url: str) -> tuple[str, str]:
    """Return the URL of the agent's package on the server, and its SHA-256 digest. Raises Refusal."""
    from hashlib import sha256  # noqa: PLC0415  imported for this command only

    from byteor import __version__  # noqa: PLC0415
    from byteor.client.errors import NotFound  # noqa: PLC0415
    from byteor.client.request import TIMEOUT_S, Request  # noqa: PLC0415
    from byteor.client.runtime import Connection  # noqa: PLC0415

    path = f"/agent/byteor-{__version__}-py3-none-any.whl"
    connection = Connection(url, None, TIMEOUT_S)
    try:
        content = connection.send(Request("GET", path)).content
    except NotFound:
        raise Refusal(
            f"The server does not have the same release as this byteor ({__version__}). Install the release of the "
            "server, or create the token in the console."
        ) from None
    finally:
        connection.close()
    return url.rstrip("/") + path, sha256(content).hexdigest()


def _enrollment_tokens(session: Session) -> Iterable[m.EnrollmentToken]:
    return session.environment.list_enrollment_tokens(limit=PAGE)


TOKEN: Final = Named(lambda session: (each.prefix for each in _enrollment_tokens(session) if not each.revoked_at))


@agents.command()
@list_options("EnrollmentToken")
@with_session
def enroll_tokens(session: Session, limit: int, as_json: str | None) -> None:
    """List enrollment tokens, newest first.

    Includes used, revoked and expired tokens. Secrets are not shown.

    \b
    Examples:
      byteor agents enroll-tokens
      byteor agents enroll-tokens --json prefix,uses,expires_at
    """
    columns = {
        "token": lambda each: f"{each.prefix}…",
        "state": _token_state,
        "uses": lambda each: f"{each.uses} of {each.max_uses}",
        "labels": lambda each: each.labels,
        "expires": lambda each: when(each.expires_at),
        "created": lambda each: when(each.created_at),
        "id": lambda each: each.id,
    }
    show_list(_enrollment_tokens(session), as_json, columns, limit)


def _token_state(token: m.EnrollmentToken) -> str:
    if token.revoked_at:
        return "revoked"
    if token.expires_at <= datetime.now(UTC):
        return "expired"
    return "used up" if token.uses == token.max_uses else "active"


@agents.command()
@click.argument("token", type=TOKEN)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@json_option("EnrollmentToken")
@with_session
def revoke_token(session: Session, token: str, yes: bool, as_json: str | None) -> None:
    """Revoke an enrollment token.

    Name it by its first characters, as `byteor agents enroll-tokens` lists them, or by its id. Agents that have
    enrolled with the token are not affected.

    \b
    Examples:
      byteor agents revoke-token bor_enr_x4Tq9B --yes
    """
    start = token.removesuffix("…")
    same = [each for each in _enrollment_tokens(session) if each.prefix == start]
    found = same[0] if len(same) == 1 else find(lambda: _enrollment_tokens(session), token, "token", has_name=False)
    confirm(f"Revoke the enrollment token {found.prefix}…?", yes=yes)
    session.environment.revoke_enrollment_token(found.id)
    if as_json is not None:
        with suppress_errors():
            found = next((each for each in _enrollment_tokens(session) if each.id == found.id), found)
    show(found, as_json, f"Revoked enrollment token {found.prefix}…")


@agents.command()
@click.argument("agent", type=AGENT)
@click.option("--reason", default="Requested with byteor agents capture.", show_default=True, help="The reason.")
@click.option(
    "--last-n",
    type=click.IntRange(min=1),
    help="Capture only this number of the latest records of each journal. Default: all.",
)
@click.option("--wait", is_flag=True, help="Wait until the capture is uploaded or the request expires.")
@click.option(
    "--timeout", type=DURATION, help="With --wait, stop waiting after this time, such as 5min. Default: no limit."
)
@json_option("RequestedCapture")
@with_session
def capture(
    session: Session, agent: str, reason: str, last_n: int | None, wait: bool, timeout: int | None, as_json: str | None
) -> int:
    """Request a capture from an agent.

    After its next heartbeat, the agent uploads a capture of the pipeline that it runs. If an earlier request is still
    open, no other one is created.

    With --wait, the exit code is 0 if the capture was uploaded, 1 if the agent uploaded a diagnostic instead or the
    request expired after an hour, and 8 after --timeout. After --timeout, the request stays open.

    \b
    Examples:
      byteor agents capture edge-1 --reason 'Prices are late.'
      byteor agents capture edge-1 --last-n 1000 --wait --timeout 5min
    """
    environment = session.environment
    agent_id = find_agent_id(session, agent)
    found = next(iter(environment.list_requested_captures(agent_id, status="requested", limit=1)), None)
    if found is None:
        found = environment.request_capture(agent_id, reason=reason, last_n=last_n)
        note("Requested a capture. The agent uploads it after its next heartbeat.")
    else:
        note(
            f"{found.requested_by} requested a capture {when(found.created_at)}, and the agent has not uploaded it yet."
        )
    ends = monotonic() + timeout if timeout is not None else None
    while wait and found.status == "requested":
        if ends is not None and monotonic() >= ends:
            show(found, as_json, f"Requested capture {found.id} has not been uploaded yet")
            return PENDING
        sleep(_PAUSE_S)
        found = environment.get_requested_capture(agent_id, found.id)
    problem = _problem(environment, found)
    show(found, as_json, f"Requested capture {found.id}: " + (problem or _outcome(found)))
    return FAILED if problem else DONE


def _outcome(found: m.RequestedCapture) -> str:
    return f"uploaded as artifact {found.artifact_id}" if found.artifact_id else str(text_of(found.status))


def _problem(environment: Environment, found: m.RequestedCapture) -> str:
    """Return why there is no capture, or "" if it was uploaded or still can be."""
    if found.status == "expired" and not found.artifact_id:
        return "expired, because the agent did not upload a capture within an hour"
    artifact = environment.get_artifact(found.artifact_id) if found.artifact_id else None
    if artifact is None or artifact.kind != "diagnostic":
        return ""
    cause = (artifact.metadata or {}).get("problem")
    return f"the agent uploaded no capture ({cause or 'it gave no reason'}); its diagnostic is artifact {artifact.id}"


@agents.command()
@click.argument("agent", type=AGENT)
@list_options("RequestedCapture")
@with_session
def captures(session: Session, agent: str, limit: int, as_json: str | None) -> None:
    """List the captures requested from an agent.

    Lists the requests of the last 90 days, newest first. For a decommissioned agent, use its complete id.

    \b
    Examples:
      byteor agents captures edge-1
      byteor agents captures edge-1 --json status,artifact_id
    """
    columns = {
        "requested": lambda each: when(each.created_at),
        "by": lambda each: each.requested_by,
        "status": lambda each: each.status,
        "reason": lambda each: each.reason,
        "artifact": lambda each: each.artifact_id,
        "id": lambda each: each.id,
    }
    show_list(session.environment.list_requested_captures(find_agent_id(session, agent)), as_json, columns, limit)


@agents.command()
@click.argument("agent", type=AGENT)
@click.option(
    "--now", is_flag=True, help="Revoke the old key immediately, and print the new key, to be installed by hand."
)
@click.option("--yes", is_flag=True, help="With --now, skip the confirmation prompt.")
@json_option(("agent_id", "mode", "token"))
@with_session
def rotate_key(session: Session, agent: str, now: bool, yes: bool, as_json: str | None) -> None:
    """Rotate the key of an agent.

    The agent fetches a new key after its next heartbeat. If you suspect a clone of the agent, use --now, because the
    clone could fetch the new key too.

    \b
    Examples:
      byteor agents rotate-key edge-1
      byteor agents rotate-key edge-1 --now --yes --json token
    """
    agent_id = find_agent_id(session, agent)
    if now:
        confirm(f"Revoke the key of {agent} now? The agent cannot report until you give it the new key.", yes=yes)
    found = session.environment.rotate_agent_key(agent_id, mode="now" if now else "by_agent")
    token = getattr(found, "token", None)
    show(
        found,
        as_json,
        f"Rotated the key of agent {agent}. The new key is shown only once: {token}"
        if token
        else f"Requested a new key for agent {agent}. The agent fetches it after its next heartbeat.",
    )


@agents.command()
@click.argument("agent", type=AGENT)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@json_option("Agent")
@with_session
def decommission(session: Session, agent: str, yes: bool, as_json: str | None) -> None:
    """Remove an agent from the fleet.

    Its key is revoked immediately, so the reference agent stops at its next heartbeat. Stop other agents on their
    machines.

    \b
    Examples:
      byteor agents decommission edge-1
    """
    found = find_agent(session, agent)
    confirm(f"Decommission agent {found.name}? Its key is revoked, and it can only return by enrolling again.", yes=yes)
    session.environment.decommission_agent(found.id, if_match=found.etag)
    show(found, as_json, f"Decommissioned agent {found.name}")
