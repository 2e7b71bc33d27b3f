"""``byteor artifacts``: uploads of agents, and replays of incident bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from byteor.command import replaying
from byteor.command.agents import AGENT, find_agent_id
from byteor.command.drafts import VERSION, find_version
from byteor.command.exits import FAILED, USAGE, Refusal
from byteor.command.output import is_terminal, json_option, list_options, show, show_list, size_text, when
from byteor.command.payloads import payload_text
from byteor.command.replaying import ARTIFACT, REPLAY, find_artifact, find_replay
from byteor.command.session import Session, with_session
from byteor.command.waiting import bar

if TYPE_CHECKING:
    from byteor.client import models as m
    from byteor.client.runtime import Download

INCIDENT: Final = "incident_bundle"


@click.group()
def artifacts() -> None:
    """Download, replay, trace and bisect incidents."""


for _command in replaying.COMMANDS:
    artifacts.add_command(_command)


class _Names:
    """The names of the newest enrolled agents and the newest versions."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def _agents(self) -> dict[str, str]:
        page = next(self._session.environment.list_agents(limit=200).pages())
        return {each.id: each.name for each in page.results}

    @cached_property
    def _versions(self) -> dict[str, str]:
        page = next(self._session.environment.list_versions(limit=200).pages())
        return {each.id: f"{each.name}:{each.number}" for each in page.results}

    def agent(self, id: str) -> str:
        """Return the agent's name, or the id if the agent is not among the newest enrolled agents."""
        return self._agents.get(id, id)

    def version(self, id: str | None) -> str | None:
        """Return the version as ``NAME:NUMBER``, or the id if the version is not among the newest."""
        return id and self._versions.get(id, id)


@artifacts.command("list")
@click.option(
    "--kind",
    type=click.Choice([INCIDENT, "snapshot", "telemetry", "diagnostic"]),
    help="Only artifacts of this kind.",
)
@click.option("--status", type=click.Choice(["received", "verified", "rejected"]), help="Only with this status.")
@click.option("--agent", type=AGENT, help="Only artifacts of this agent, by name or id.")
@click.option("--version", type=VERSION, help="Only incident bundles of this version, such as quotes:3.")
@click.option("--deployment", help="Only artifacts of the deployment with this id.")
@click.option("--spec-hash", help="Only artifacts with this spec hash.")
@click.option("--since", help="Only artifacts captured at or after this time, such as 2026-11-29T12:00:00Z.")
@click.option("--until", help="Only artifacts captured before this time.")
@list_options("ListedArtifact")
@with_session
def list_artifacts(
    session: Session,
    kind: str | None,
    status: str | None,
    agent: str | None,
    version: str | None,
    deployment: str | None,
    spec_hash: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: str | None,
) -> None:
    """List the artifacts of the environment, newest first.

    \b
    Examples:
      byteor artifacts list --kind incident_bundle
      byteor artifacts list --agent edge-1 --since 2026-11-29T00:00:00Z --json id,captured_at
    """
    environment, names = session.environment, _Names(session)
    agent_id = None if agent is None else find_agent_id(session, agent)
    columns = {
        "captured": lambda each: when(each.captured_at),
        "kind": lambda each: words(each.kind),
        "status": lambda each: each.status,
        "agent": lambda each: names.agent(each.agent_id),
        "version": lambda each: names.version(each.version_id),
        "size": lambda each: size_text(each.size_bytes),
        "id": lambda each: each.id,
    }
    found = environment.list_artifacts(
        kind=kind,
        status=status,
        agent_id=agent_id,
        version_id=None if version is None else find_version(session, version).id,
        deployment_id=deployment,
        spec_hash=spec_hash,
        captured_after=since,
        captured_before=until,
    )
    show_list(found, as_json, columns, limit)


@artifacts.command("show")
@click.argument("artifact", type=ARTIFACT)
@json_option("Artifact")
@with_session
def show_artifact(session: Session, artifact: str, as_json: str | None) -> None:
    """Show an artifact. If it was rejected or its check cannot continue, show why.

    \b
    Examples:
      byteor artifacts show 5d1c04
      byteor artifacts show 5d1c04 --json metadata
    """
    found, names = find_artifact(session, artifact), _Names(session)
    show(
        found,
        as_json,
        {
            "kind": lambda _: words(found.kind),
            "status": lambda _: found.status,
            **({"reasons": lambda _: "; ".join(each.detail for each in found.reasons)} if found.reasons else {}),
            "captured": lambda _: when(found.captured_at),
            "agent": lambda _: names.agent(found.agent_id),
            "version": lambda _: names.version(found.version_id),
            "deployment": lambda _: found.deployment_id,
            "size": lambda _: size_text(found.size_bytes),
            "content hash": lambda _: found.content_hash,
            "metadata": lambda _: found.metadata,
            **({"records of": lambda each: _origin(each.origin)} if found.origin else {}),
            "id": lambda _: found.id,
        },
    )


def _origin(origin: m.Origin) -> str:
    first, last = origin.records
    return f"{origin.artifact_id}, positions {first:,} to {last:,}"


@artifacts.command()
@click.argument("artifact", type=ARTIFACT)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file or folder to write to. Default: the current folder.",
)
@click.option("--file", "inner", help="Download only this file of the incident bundle, such as spec.kv.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@json_option(["id", "path", "size_bytes", "sha256"])
@with_session
def pull(
    session: Session, artifact: str, output: Path | None, inner: str | None, force: bool, as_json: str | None
) -> None:
    """Download an artifact. The file is written only after its hash has been verified.

    \b
    Examples:
      byteor artifacts pull 5d1c04
      byteor artifacts pull 5d1c04 -o incident.tar.gz --force
      byteor artifacts pull 5d1c04 --file journal/quotes_in.bin
    """
    found = find_artifact(session, artifact)
    environment = session.environment
    if inner is None:
        name = f"{found.id}.{'tar.gz' if found.kind == INCIDENT else 'bin'}"
        size, digest, download = found.size_bytes, found.content_hash, environment.download_artifact(found.id)
    else:
        entry = next((each for each in _files(session, found) if each.path == inner), None)
        if entry is None:
            raise Refusal(f"The artifact has no file {inner}. List its files with `byteor artifacts files {found.id}`.")
        name = Path(inner).name
        size, digest = entry.size, entry.sha256
        download = environment.list_artifact_files_content(found.id, path=inner)
    folder = output is None or output.is_dir()
    path = (output or Path()) / name if folder else output or Path(name)
    if path.exists() and not force:
        raise Refusal(f"{path} already exists. Use --force to overwrite it.", USAGE)
    save(download, path, size, digest)
    done = {"id": found.id, "path": str(path), "size_bytes": size, "sha256": digest}
    show(done, as_json, f"Saved {path} ({size_text(size)})")


def save(download: Download, path: Path, size: int, digest: str) -> None:
    """Save a download as ``path``, but only if it is complete and has this SHA-256. Raises Refusal."""
    from byteor.client.request import complete  # noqa: PLC0415  imported when used, so that --help is fast

    hashed, done = hashlib.sha256(), 0
    try:
        with complete(path) as write, download.open() as parts, bar(path.name, of_bytes=True) as move:
            for part in parts:
                write(part)
                hashed.update(part)
                done += len(part)
                move(done, size)
            if hashed.hexdigest() != digest.removeprefix("sha256:"):
                raise Refusal(f"The content of {path.name} does not have the hash {digest}. Nothing was saved.", FAILED)
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror or error}.", FAILED) from None


def _files(session: Session, artifact: m.Artifact) -> Iterator[m.ArtifactFile]:
    after: str | None = None
    while True:
        page = session.environment.list_artifact_files(artifact.id, after=after)
        yield from page.results
        after = page.next_after
        if after is None:
            return


@artifacts.command()
@click.argument("artifact", type=ARTIFACT)
@list_options("ArtifactFile")
@with_session
def files(session: Session, artifact: str, limit: int, as_json: str | None) -> None:
    """List the files of an incident bundle.

    \b
    Examples:
      byteor artifacts files 5d1c04
      byteor artifacts files 5d1c04 --json path,size
    """
    columns = {
        "path": lambda each: each.path,
        "size": lambda each: size_text(each.size),
        "sha256": lambda each: each.sha256,
    }
    show_list(_files(session, find_artifact(session, artifact)), as_json, columns, limit)


@artifacts.command()
@click.argument("artifact", type=ARTIFACT)
@click.option("--lane", help="The lane of the journal. Required if there are several journals.")
@click.option("--after", type=click.IntRange(min=0), help="Start after the record at this position.")
@click.option(
    "--sequence",
    type=click.IntRange(min=0),
    help="Start at the first record with this sequence number or a higher one.",
)
@click.option("--time", help="Start at the first record at or after this time, such as 2026-11-29T12:00:00Z.")
@list_options("JournalRecord")
@with_session
def records(
    session: Session,
    artifact: str,
    lane: str | None,
    after: int | None,
    sequence: int | None,
    time: str | None,
    limit: int,
    as_json: str | None,
) -> None:
    """List the recorded input of an incident bundle.

    \b
    Examples:
      byteor artifacts records 5d1c04
      byteor artifacts records 5d1c04 --lane quotes_in --sequence 1042 --limit 5
      byteor artifacts records 5d1c04 --json sequence,json
    """
    if sum(each is not None for each in (after, sequence, time)) > 1:
        raise Refusal("Use only one of --after, --sequence and --time.", USAGE)
    found = find_artifact(session, artifact)
    lane = lane or _only_lane(session, found)
    columns = {
        "position": lambda each: each.position,
        "sequence": lambda each: each.sequence,
        "time": _time,
        "size": lambda each: each.size,
        "payload": payload_text,
    }
    rows = _records(session, found, lane, after=after, sequence=sequence, time=time)
    show_list(rows, as_json, columns, limit)


def _time(record: m.JournalRecord) -> str | None:
    """Return the time of a record, on a terminal only the time of day in UTC."""
    if record.time is None or not is_terminal():
        return record.time
    return record.time.partition("T")[2].rstrip("Z") or record.time


def _only_lane(session: Session, artifact: m.Artifact) -> str:
    folder, end = "journal/", ".bin"
    paths = [each.path for each in _files(session, artifact)]
    lanes = [each[len(folder) : -len(end)] for each in paths if each.startswith(folder) and each.endswith(end)]
    if len(lanes) == 1:
        return lanes[0]
    if not lanes:
        raise Refusal("The artifact has no journals.", FAILED)
    raise Refusal(f"The artifact has several journals. Choose one with --lane: {', '.join(lanes)}.", USAGE)


def _records(session: Session, artifact: m.Artifact, lane: str, **start: Any) -> Iterator[m.JournalRecord]:
    while True:
        page = session.environment.read_artifact_journal(artifact.id, lane, **start)
        yield from page.results
        if page.next_after is None:
            return
        start = {"after": page.next_after}


@artifacts.command()
@click.argument("artifact", type=ARTIFACT)
@click.option("--name", required=True, help="The name of the fixture, unique in its pipeline.")
@click.option("--note", help="Why the capture is kept.")
@click.option("--owner", help="The responsible person, by e-mail address. Default: you. With an API key: nobody.")
@click.option("--pipeline", help="Fail if the capture belongs to another pipeline.")
@click.option("--lane", help="Replay only the journal of this ingress. Default: all journals.")
@click.option("--last", type=click.IntRange(min=1), help="Replay only this number of the latest records.")
@click.option(
    "--records",
    type=(click.IntRange(min=0), click.IntRange(min=0)),
    metavar="FIRST LAST",
    help="Keep only the records at positions FIRST to LAST, at most 10,000, in a new artifact.",
)
@click.option("--expires", help="When the fixture expires, such as 2027-01-31. Default: never.")
@click.option("--golden", type=REPLAY, help="Expect the result of this replay. Default: the result of the baseline.")
@json_option("Fixture")
@with_session
def keep(
    session: Session,
    artifact: str,
    name: str,
    note: str | None,
    owner: str | None,
    pipeline: str | None,
    lane: str | None,
    last: int | None,
    records: tuple[int, int] | None,
    expires: str | None,
    golden: str | None,
    as_json: str | None,
) -> None:
    """Keep an incident bundle as a fixture.

    Until the fixture expires, candidates of its pipeline are tested with it.

    \b
    Examples:
      byteor artifacts keep 5d1c04 --name crossed-market --note "Bid above ask"
      byteor artifacts keep 5d1c04 --name crossed-market --records 100 120
      byteor artifacts keep 5d1c04 --name crossed-market --golden e5d1c0
    """
    expires_at = None if expires is None else moment(expires)
    found = find_artifact(session, artifact)
    fixture = session.environment.create_fixture(
        artifact_id=found.id,
        name=name,
        note=note,
        owner=None if owner is None else member_id(session, owner),
        pipeline=pipeline,
        journal_lane=lane,
        last_n=last,
        records=None if records is None else list(records),
        expires_at=expires_at,
        expect=None if golden is None else golden_result(find_replay(session, golden)),
    )
    show(fixture, as_json, f"Created fixture {fixture.name} of pipeline {fixture.pipeline}")


def golden_result(replay: m.Replay) -> m.Expect:
    """Return the expectation that candidates have the same result as this replay."""
    from byteor.client.models import Expect  # noqa: PLC0415  slow to import

    return Expect(golden=replay.id)


def member_id(session: Session, email: str) -> str:
    """Return the id of the person with this e-mail address. Raises Refusal if no member has it."""
    for listed in (session.organization.list_organization_members, session.project.list_project_members):
        for each in listed(email=email):
            if each.email.lower() == email.lower():
                return each.user_id
    raise Refusal(f"No member has the e-mail address {email}.", FAILED)


def moment(text: str) -> datetime:
    """Read a date or a time; UTC if it has no time zone. Raises Refusal."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{text} is not a date or time such as 2027-01-31T12:00:00Z.", USAGE) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def words(code: str) -> str:
    """Return a code such as ``incident_bundle`` as words."""
    return code.replace("_", " ")
