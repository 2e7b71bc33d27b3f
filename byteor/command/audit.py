"""``byteor audit`` and ``byteor usage``: audit events, the ledger, quotas and usage."""

from __future__ import annotations

import errno
import json
import re
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, Final

import click

from byteor.command.exits import USAGE, Refusal
from byteor.command.output import (
    is_terminal,
    json_option,
    list_options,
    note,
    say,
    short_id,
    show,
    show_line,
    show_list,
    size_text,
    when,
)
from byteor.command.session import Session, find, is_id, with_session

if TYPE_CHECKING:
    from byteor.client import models as m

POLL_S: Final = 2.0
# An event becomes visible when its transaction ends, so older events can appear after newer ones.
OVERLAP: Final = timedelta(minutes=1)
BAR: Final = 10  # characters of a bar
LAST_LINE: Final = 65_536  # bytes at the end of an export that contain its last line
_START_OF_TIME: Final = datetime.min.replace(tzinfo=UTC)
_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """An age such as ``2h`` or ``7d``, or a date with or without a time of day (UTC unless it has an offset)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time. Fails if the text is neither an age nor a date."""
        try:
            if age := _AGE.fullmatch(str(value)):
                return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
            moment = datetime.fromisoformat(str(value))
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value} is not a time. Examples: 30m, 2h, 7d, 2026-11-29, 2026-11-29T08:00Z.", param, ctx)


MOMENT: Final = Moment()


def _filter_options[C: Callable[..., Any]](command: C) -> C:
    """Add the filters of audit events."""
    for option in (
        click.option("--since", type=MOMENT, help="Only events since this time, such as 2h, 7d or 2026-11-29."),
        click.option(
            "--in", "level", type=click.Choice(["project", "environment"]),
            help="Only events of the selected project or environment. Default: the whole organization.",
        ),
        click.option("--resource", help="Only events of the resource with this id."),
        click.option("--kind", help="Only events of this kind of resource, such as deployment."),
        click.option("--outcome", type=click.Choice(["success", "denied", "error"]), help="Only this outcome."),
        click.option("--action", help="Only this action, such as deployment.create."),
        click.option("--actor", help="Only events of this actor: an e-mail address, the name of an API key, or an id."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """List, follow and export audit events."""


@audit.command("list")
@_filter_options
@click.option("--until", type=MOMENT, help="Only events before this time.")
@list_options("AuditEvent")
@with_session
def list_events(session: Session, /, limit: int, as_json: str | None, **filters: Any) -> None:
    """List the audit events of the organization, newest first. With --json, also what changed.

    \b
    Examples:
      byteor audit list --since 2h
      byteor audit list --actor alice@example.com --outcome denied
      byteor audit list --action deployment.create --since 7d --json timestamp,actor,changes
    """
    columns: dict[str, Callable[[m.AuditEvent], Any]] = {
        "time": lambda each: when(each.timestamp),
        "actor": lambda each: each.actor.display,
        "action": lambda each: each.action,
        "outcome": lambda each: each.outcome,
        "resource": lambda each: _resource(each.resource_scope),
    }
    show_list(_events(session, limit + 1, **filters), as_json, columns, limit)


@audit.command()
@_filter_options
@json_option("AuditEvent")
@with_session
def follow(session: Session, /, as_json: str | None, since: datetime | None, **filters: Any) -> None:
    """Print new audit events as they are recorded.

    With --since, earlier events are printed first. Press Ctrl-C to stop. No event is printed twice. With --json, each
    event is one line of JSON.

    \b
    Examples:
      byteor audit follow
      byteor audit follow --since 1h --outcome denied
      byteor audit follow --json | jq -r .action
    """
    with suppress(KeyboardInterrupt):
        for each in _new_events(session, since, filters):
            time, resource = each.timestamp.astimezone(UTC), _resource(each.resource_scope)
            text = f"{time:%Y-%m-%d %H:%M:%S} UTC  {each.outcome:7}  {each.actor.display}  {each.action}  {resource}"
            show_line(each, as_json, text)


def _events(session: Session, page: int, **filters: Any) -> Iterable[m.AuditEvent]:
    """Return the audit events with these filters, newest first. Raises Refusal for an unknown actor or empty period."""
    since, until, level = (filters.get(each) for each in ("since", "until", "level"))
    if since and until and since >= until:
        raise Refusal("--since must be before --until.", USAGE)
    actor = filters.get("actor")
    found: Iterable[m.AuditEvent] = session.organization.list_audit_events(
        actor_id=None if actor is None else _actor_id(session, actor),
        action=filters.get("action"),
        outcome=filters.get("outcome"),
        resource_kind=filters.get("kind"),
        resource_id=filters.get("resource"),
        project_id=session.project_id if level == "project" else None,
        environment_id=session.environment_id if level == "environment" else None,
        after=since.isoformat() if since else None,
        before=until.isoformat() if until else None,
        limit=min(page, 200),
    )
    return found


def _actor_id(session: Session, text: str) -> str:
    if is_id(text):
        return text
    organization = session.organization
    if "@" not in text:
        return str(find(organization.list_organization_keys, text, "API key").id)
    members = [organization.list_organization_members(email=text)]
    projects = (session.client.project(session.organization_id, each.id) for each in organization.list_projects())
    for listed in (*members, *(each.list_project_members(email=text) for each in projects)):
        for member in listed:
            if member.email.lower() == text.lower():
                return str(member.user_id)
    raise Refusal(f"No member has the e-mail address {text}. For a former member, use the id.")


def _new_events(session: Session, since: datetime | None, filters: dict[str, Any]) -> Iterator[m.AuditEvent]:
    """Yield the events since a time (default: now) as they appear, none twice.

    The new events of each request are yielded oldest first. Raises BrokenPipeError if the output no longer has a
    reader, Refusal for an unknown actor, and errors of the client.
    """
    from byteor.client import ByteOrError  # noqa: PLC0415  slow to import
    from byteor.command.retries import is_temporary  # noqa: PLC0415  imports the client

    if filters["actor"] is not None:
        filters["actor"] = _actor_id(session, filters["actor"])
    seen: dict[str, datetime] = {}  # the events that can be listed again, with their times
    position, is_first = since, True
    while True:
        found: list[m.AuditEvent] = []
        try:
            for each in _events(session, 200, since=position, **filters):
                if is_first and since is None and found and each.timestamp < found[0].timestamp - OVERLAP:
                    break
                found.append(each)
        except ByteOrError as error:
            if is_first or not is_temporary(error):
                raise
            note(f"A request failed: {str(error).rstrip('.')}. Retrying.")
        else:
            fresh = [each for each in found if each.id not in seen]
            seen |= {each.id: each.timestamp for each in fresh}
            if not is_first or since is not None:
                yield from sorted(fresh, key=lambda each: (each.timestamp, each.id))
            if found:
                position = max(found[0].timestamp - OVERLAP, position or _START_OF_TIME)
                seen = {id: time for id, time in seen.items() if time >= position}
            is_first = False
        sleep(POLL_S)
        if not _has_reader():
            raise BrokenPipeError(errno.EPIPE, "The reader of the output has ended")


def _has_reader() -> bool:
    """Return False if stdout is a pipe without a reader, as after ``byteor audit follow | head -1``."""
    with suppress(OSError, ValueError, AttributeError):  # stdout is no file, or the system has no poll
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return not any(event & select.POLLERR for _, event in poll.poll(0))
    return True


def _resource(scope: m.AuditScope) -> str:
    """Return the kind and the id of a resource."""
    return f"{scope.kind.replace('_', ' ')} {short_id(scope.id)}"


EXPORT: Final = ("file", "size_bytes", "after_seq", "seq")


@audit.command()
@click.option(
    "-o", "--output", "path", required=True, type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write. It is created only when the export is complete.",
)  # fmt: skip
@click.option(
    "--after-seq", type=click.IntRange(min=0), default=0, help="Only events after the one with this sequence number."
)
@json_option(EXPORT)
@with_session
def export(session: Session, path: Path, after_seq: int, as_json: str | None) -> None:
    """Export the ledger of the organization.

    The file contains the sealed audit events, ordered by sequence number, and a signed checkpoint.
    `byteor verify ledger` checks the file offline. It needs the organization's keys, which are in the evidence of any
    deployment whose bundle was built. Export the evidence after the ledger. To continue an earlier export, pass its
    last sequence number to --after-seq.

    \b
    Examples:
      byteor audit export -o ledger.ndjson
      byteor audit export -o more.ndjson --after-seq 1200
    """
    from byteor.client.request import complete  # noqa: PLC0415  imported when used, so that --help is fast

    size, last = 0, b""
    try:
        download = session.organization.export_audit_events(after_seq=after_seq or None)
        with complete(path) as write, download.open() as parts:
            for part in parts:
                write(part)
                size, last = size + len(part), (last + part)[-LAST_LINE:]
            seq = _checkpoint_seq(last)
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror or error}.") from None
    found = dict(zip(EXPORT, (str(path), size, after_seq, seq), strict=True))
    events = (
        f"1 event, sequence number {seq},"
        if seq == after_seq + 1
        else f"{seq - after_seq:,} events, sequence numbers {after_seq + 1} to {seq},"
        if seq > after_seq
        else "no events"
    )
    show(found, as_json, f"Exported {events} to {path}")
    if as_json is None:
        note(f"To export later events, use --after-seq {seq}.")


def _checkpoint_seq(end: bytes) -> int:
    """Return the sequence number of the checkpoint in the last line. Raises Refusal if the export is incomplete."""
    try:
        return int(json.loads(end.rstrip(b"\n").rpartition(b"\n")[2])["checkpoint"]["seq"])
    except (ValueError, KeyError, TypeError):
        raise Refusal("The export is incomplete: it has no checkpoint. Run the command again.") from None


@click.command()
@json_option("Usage")
@with_session
def usage(session: Session, as_json: str | None) -> None:
    """Show the quotas and the usage of the organization, also by month.

    \b
    Examples:
      byteor usage
      byteor usage --json used,limits
    """
    found = session.organization.get_usage()
    if as_json is not None:
        show(found, as_json, "")
        return
    quotas = (
        ("Agents", found.used.agents, found.limits.agents, _number),
        ("Stored data", found.used.stored_bytes, found.limits.stored_bytes, size_text),
        ("Captures today", found.used.captures_per_day, found.limits.captures_per_day, _number),
        ("Drafts", found.used.drafts, found.limits.drafts, _number),
    )
    columns = {
        "quota": lambda row: row[0],
        "used": lambda row: row[3](row[1]),
        "limit": lambda row: "unlimited" if row[2] is None else row[3](row[2]),
        "share": lambda row: _share(row[1], row[2]),
    }
    show_list(quotas, None, columns, len(quotas))
    months: dict[str, Callable[[m.MonthOfUsage], str]] = {
        "month": lambda each: each.month,
        "agents": lambda each: _number(each.agents),
        "heartbeats": lambda each: _number(each.heartbeats),
        "uploaded": lambda each: size_text(each.uploaded_bytes),
        "stored": lambda each: size_text(each.stored_bytes),
        "replays": lambda each: _number(each.replays),
        "work": lambda each: _number(each.work),
    }
    if found.by_month:
        say("")
        show_list(found.by_month, None, months, len(found.by_month))


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _share(used: int, limit: int | None) -> str:
    """Return the used percentage of a quota, on a terminal with a bar; ``-`` without a limit."""
    if limit is None:
        return "-"
    share = used / limit if limit else float(used > 0)
    percent = f"{share:.0%}"
    if not is_terminal():
        return percent
    full = round(min(share, 1.0) * BAR)
    marks = "█░" if (sys.stdout.encoding or "").lower().startswith("utf") else "#-"
    return f"{marks[0] * full}{marks[1] * (BAR - full)} {percent}"
