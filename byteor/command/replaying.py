"""The commands of ``byteor artifacts`` that replay incident bundles: replay, compare, trace and bisect."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

import click

from byteor.command.bundles import BUNDLE, find_bundle
from byteor.command.drafts import VERSION, find_version
from byteor.command.exits import DONE, FAILED, PENDING, USAGE, Refusal
from byteor.command.output import confirm, json_option, list_options, note, say, show, show_list, when
from byteor.command.payloads import escape, payload_text
from byteor.command.session import Named, Session, find, is_id, with_session
from byteor.command.waiting import wait_for, waiting_options

if TYPE_CHECKING:
    from byteor.client import models as m

ARTIFACT = Named(lambda session: (each.id for each in islice(session.environment.list_artifacts(limit=50), 50)))
REPLAY = Named(lambda session: (each.id for each in islice(session.environment.list_replays(limit=50), 50)))
BISECT = Named(lambda session: (each.id for each in islice(session.environment.list_bisects(limit=50), 50)))
WAITS: Final = "pending_approval"


def find_artifact(session: Session, text: str) -> m.Artifact:
    """Return the artifact with this id or part of an id. Raises Refusal."""
    environment = session.environment
    id = text if is_id(text) else find(environment.list_artifacts, text, "artifact", has_name=False).id
    return environment.get_artifact(id)


def find_replay(session: Session, text: str) -> m.Replay:
    """Return the replay with this id or part of an id. Raises Refusal."""
    environment = session.environment
    return environment.get_replay(
        text if is_id(text) else find(environment.list_replays, text, "replay", has_name=False).id
    )


# -- replays ----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("artifact", type=ARTIFACT)
@click.option("--version", type=VERSION, help=(
    "Replay through this version. Default: the version of --bundle, or else the captured version."
))  # fmt: skip
@click.option("--bundle", type=BUNDLE, help="Replay with the version and the configuration of this config bundle.")
@click.option("--lane", help="Replay only the journal of this ingress. Default: all journals.")
@click.option("--last", type=click.IntRange(min=1), help="Replay only this number of the latest records.")
@click.option("--execute", is_flag=True, help="Perform the permitted side effects. May require an approval.")
@click.option("--approval", type=click.File(), help="A file with the unused credential of an approval, or - for stdin.")
@click.option("--against", type=REPLAY, help="Another replay. Its result is compared with the new result.")
@click.option("--yes", is_flag=True, help="With --execute, skip the confirmation prompt.")
@waiting_options
@json_option("Replay")
@with_session
def replay(
    session: Session,
    artifact: str,
    version: str | None,
    bundle: str | None,
    lane: str | None,
    last: int | None,
    execute: bool,
    approval: IO[str] | None,
    against: str | None,
    yes: bool,
    detach: bool,
    timeout: int | None,
    as_json: str | None,
) -> int:
    """Replay an incident bundle, and print the result.

    Without --execute, the replay is a dry run, which has no side effects. The exit code is 0 if the replay succeeded, 1
    if it diverged from the capture or failed, and 8 if it waits for approval or after --timeout. With --against, the
    exit code is also 1 if the results differ.

    \b
    Examples:
      byteor artifacts replay 5d1c04
      byteor artifacts replay 5d1c04 --version quotes:4 --last 1000
      byteor artifacts replay 5d1c04 --bundle quotes-fix --against e5d1c0
    """
    if approval is not None and not execute:
        raise Refusal("--approval requires --execute.", USAGE)
    if against is not None and detach:
        raise Refusal("--against cannot be used with --detach.", USAGE)
    found = find_artifact(session, artifact)
    other = None if against is None else find_replay(session, against)
    version_id = None if version is None else find_version(session, version).id
    bundle_id = None if bundle is None else find_bundle(session, bundle).id
    if execute:
        confirm("Perform the side effects of this replay?", yes=yes)
    row = session.environment.replay_artifact(
        found.id,
        mode="execute" if execute else None,
        journal_lane=lane,
        last_n=last,
        version_id=version_id,
        config_bundle_id=bundle_id,
        approval=None if approval is None else approval.read().strip(),
    )
    later = f"byteor artifacts show-replay {row.id}"
    if not detach and not row.finished_at and row.status != WAITS:
        row = wait_for(
            lambda: session.environment.get_replay(row.id), f"Replay {row.id[-8:]}", _progress, timeout, later
        )
    show_result(session, row, as_json)
    if row.status == WAITS:
        note(f"To approve the replay, run `byteor approve {row.id}`. To see the result, run `{later}`.")
        return PENDING
    if not row.finished_at:
        return DONE if detach else PENDING
    code = _code(row)
    if other is None or row.result is None:
        return code
    comparison = session.environment.compare_replays(other.id, with_=row.id)
    if as_json is None:
        say(f"\nCompared with replay {other.id}:")
        _say_comparison(comparison)
    return code if comparison.equal else FAILED


def _progress(row: m.Replay) -> tuple[int, int]:
    return (row.progress.done, row.progress.total) if row.progress else (0, 0)


def _code(row: m.Replay) -> int:
    return DONE if row.status == "succeeded" else FAILED


def show_result(session: Session, row: m.Replay, as_json: str | None) -> None:
    """Print a replay: its state and warnings, the records of each stage, the outputs, and the side effects."""
    if as_json is not None:
        show(row, as_json, "")
        return
    version = session.environment.get_version(row.version_id)
    say(f"Replay {row.id} through {version.name}:{version.number}: {_standing(session, row)}")
    for warning in row.warnings:
        note(f"Warning: {warning}")
    result = row.result
    if result is None:
        return
    from byteor.engine.compiler import stages_in  # noqa: PLC0415  imports the engine

    counts: Mapping[str, Any] = result.get("stages") or {}
    order = {id: at for at, (id, _) in enumerate(stages_in(version.spec))}
    stages = sorted(counts.items(), key=lambda each: order.get(each[0], len(order)))
    if unchecked := [each["name"] for each in result.get("notes", []) if each["code"] == "no_parameters"]:
        note(f"Warning: these stages had no parameters and let every record pass unchanged: {', '.join(unchecked)}.")
    for each in result.get("notes", []):
        if each["code"] != "no_parameters":
            note(f"Note: {each['code'].replace('_', ' ')}: {each['name']}")
    if stages:
        say("")
        columns = {
            "stage": lambda each: each[0],
            "in": lambda each: each[1].get("in", 0),
            "out": lambda each: each[1].get("out", 0),
            "dropped": lambda each: each[1].get("dropped", 0),
            "errors": lambda each: each[1].get("errors", 0),
            "reasons": lambda each: [
                f"{reason.replace('_', ' ')} ({drop['count']:,})" for reason, drop in each[1].get("drops", {}).items()
            ],
        }
        show_list(stages, None, columns, len(stages))
    say("")
    outputs = result["egress"]
    columns = {
        "egress": lambda each: each[0],
        "records": lambda each: each[1]["records"],
        "sha256": lambda each: each[1]["sha256"],
    }
    show_list(outputs.items(), None, columns, len(outputs))
    if actions := (row.audit or {}).get("actions"):
        counted: dict[tuple[str, ...], int] = {}
        for each in actions:
            key = (each["action"], each["target"], each["decision"])
            counted[key] = counted.get(key, 0) + 1
        say("")
        columns = {
            "side effect": lambda each: each[0][0],
            "target": lambda each: each[0][1],
            "decision": lambda each: each[0][2],
            "records": lambda each: each[1],
        }
        show_list(counted.items(), None, columns, len(counted))


def _standing(session: Session, row: m.Replay) -> str:
    """Return a sentence about the state of a replay."""
    match row.status:
        case "pending_approval":
            return "Waiting for approval."
        case "queued":
            return "Waiting for a worker."
        case "running":
            done, total = _progress(row)
            noun = "record" if total == 1 else "records"
            return f"{done:,} of {total:,} {noun} replayed." if total else "Running."
        case "succeeded" if _was_compared(session, row):
            return "Finished without differences from the capture."
        case "succeeded":
            return "Finished. The capture has no expected output to compare with."
        case "diverged":
            return _divergence((row.result or {})["divergence"])
        case "denied" | "failed" if str(row.error).startswith("approval."):
            ended = {
                "approval.denied": "was denied", "approval.expired": "expired", "approval.revoked": "was revoked",
                "approval.used": "was already used",
            }  # fmt: skip
            return f"Not started, because its approval {ended.get(str(row.error), 'does not permit the replay')}."
    stopped = " The replay stopped as in the capture." if (row.result or {}).get("reproduced") else ""
    return f"{str(row.status).capitalize()}: {str(row.error or '').rstrip('.')}.{stopped}"


def _was_compared(session: Session, row: m.Replay) -> bool:
    """Return whether the capture has expected output; True if its files cannot be listed."""
    from byteor.client.errors import ApiError  # noqa: PLC0415  imports the client

    folder = "expected/"
    try:
        page = session.environment.list_artifact_files(row.artifact_id, after=folder)
    except ApiError:
        return True
    return any(each.path.startswith(folder) for each in page.results[:1])


def _divergence(found: Mapping[str, Any]) -> str:
    of = f" of {found['ingress']}" if found.get("ingress") else ""
    return f"Diverged at {found['egress']}, record {found['sequence']:,}{of}: {difference(found)}."


def difference(found: Mapping[str, Any]) -> str:
    """Return a phrase about how a record differs, such as its changed members or the bytes of both sides."""
    kind, pointers = found["kind"], found.get("pointers") or []
    if kind == "missing":
        return "the record is missing"
    if kind == "extra":
        return "the capture has no such record"
    if named := ", ".join(each or "the whole record" for each in pointers[:5]):
        more = f" and {len(pointers) - 5} more" if len(pointers) > 5 else ""
        return f"{named}{more} {'differs' if len(pointers) == 1 else 'differ'}"
    if diff := found.get("diff"):
        one, other = (escape(bytes.fromhex(diff[side] or "")) for side in ("expected_hex", "actual_hex"))
        return f"from byte {diff['offset']:,}, the record is “{other}” instead of “{one}”"
    return "the records differ"


@click.command("replays")
@click.option("--artifact", type=ARTIFACT, help="Only replays of this artifact.")
@click.option(
    "--status",
    type=click.Choice(["pending_approval", "queued", "running", "succeeded", "diverged", "failed", "denied"]),
    help="Only replays with this status.",
)
@click.option("--mode", type=click.Choice(["dry_run", "execute"]), help="Only replays with this mode.")
@click.option("--version", type=VERSION, help="Only replays through this version, such as quotes:3.")
@list_options("ListedReplay")
@with_session
def list_replays(
    session: Session,
    artifact: str | None,
    status: str | None,
    mode: str | None,
    version: str | None,
    limit: int,
    as_json: str | None,
) -> None:
    """List the replays of the environment, newest first.

    \b
    Examples:
      byteor artifacts replays --artifact 5d1c04
      byteor artifacts replays --status diverged --json id,version_id
    """
    columns = {
        "requested": lambda each: when(each.created_at),
        "status": lambda each: str(each.status).replace("_", " "),
        "mode": lambda each: str(each.mode).replace("_", " "),
        "by": lambda each: each.requested_by,
        "artifact": lambda each: each.artifact_id,
        "id": lambda each: each.id,
    }
    found = session.environment.list_replays(
        artifact_id=None if artifact is None else find_artifact(session, artifact).id,
        status=status,
        mode=mode,
        version_id=None if version is None else find_version(session, version).id,
    )
    show_list(found, as_json, columns, limit)


@click.command("show-replay")
@click.argument("replay", type=REPLAY)
@json_option("Replay")
@with_session
def show_replay(session: Session, replay: str, as_json: str | None) -> None:
    """Show a replay and its result.

    \b
    Examples:
      byteor artifacts show-replay e5d1c0
      byteor artifacts show-replay e5d1c0 --json result
    """
    show_result(session, find_replay(session, replay), as_json)


@click.command("cancel-replay")
@click.argument("replay", type=REPLAY)
@click.option("--reason", help="The reason, for the audit trail.")
@json_option("Replay")
@with_session
def cancel_replay(session: Session, replay: str, reason: str | None, as_json: str | None) -> None:
    """Cancel a queued or running dry run.

    \b
    Examples:
      byteor artifacts cancel-replay e5d1c0 --reason "Wrong version"
    """
    row = session.environment.cancel_replay(find_replay(session, replay).id, reason=reason)
    show(row, as_json, f"Canceled replay {row.id}")


@click.command()
@click.argument("replay", type=REPLAY)
@click.argument("other", type=REPLAY)
@json_option("Comparison")
@with_session
def compare(session: Session, replay: str, other: str, as_json: str | None) -> int:
    """Compare the results of two replays of the same records. The exit code is 1 if they differ.

    \b
    Examples:
      byteor artifacts compare e5d1c0 7f2b7e
    """
    first, second = find_replay(session, replay), find_replay(session, other)
    found = session.environment.compare_replays(first.id, with_=second.id)
    if as_json is not None:
        show(found, as_json, "")
    else:
        _say_comparison(found)
    return DONE if found.equal else FAILED


def _say_comparison(found: m.Comparison) -> None:
    if any(each["code"] == "no_parameters" for notes in found.notes for each in notes):
        note("Warning: some stages had no parameters and let every record pass unchanged.")
    if found.equal:
        say("The results are equal.")
        return
    differing = [
        ("egress", name, _both(each["records"], "with other content"))
        for name, each in found.egress.items()
        if not each["equal"]
    ] + [
        ("stage", name, "; ".join(f"{word} {_both(each[word])}" for word in ("in", "out", "dropped", "errors")))
        for name, each in found.stages.items()
        if not each["equal"]
    ]
    if not found.actions["equal"]:
        differing.append(("side effects", "", _both(found.actions["count"])))
    columns = {
        "differs": lambda each: each[0],
        "name": lambda each: each[1],
        "records": lambda each: each[2],
    }
    show_list(differing, None, columns, len(differing))
    if first := found.first_difference:
        say(f"\nFirst difference: {first['egress']}, record {first['sequence']:,}: {_side_difference(first)}.")


def _both(pair: list[Any], if_equal: str = "") -> str:
    one, other = ("-" if each is None else each for each in pair)
    return f"{one} → {other}" if one != other else f"{one} {if_equal}".rstrip()


def _side_difference(found: Mapping[str, Any]) -> str:
    sides = {"missing": "only the first replay has it", "extra": "only the second replay has it"}
    return sides.get(found["kind"]) or difference(found)


# -- traces -----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("replay", type=REPLAY)
@click.argument("sequence", type=click.IntRange(min=0))
@click.option("--ingress", help="The ingress of the record. Default: all replayed ingresses.")
@json_option("Trace")
@with_session
def trace(session: Session, replay: str, sequence: int, ingress: str | None, as_json: str | None) -> None:
    """Trace a record of a replay through the stages.

    Shows the payload after each step, such as a stage, or why the record was dropped.

    \b
    Examples:
      byteor artifacts trace e5d1c0 1042
      byteor artifacts trace e5d1c0 1042 --ingress quotes_in --json
    """
    found = _whole_trace(session, find_replay(session, replay).id, sequence, ingress)
    if as_json is not None:
        show(found, as_json, "")
        return
    for record in found.records:
        say(f"Record {sequence:,} of {record.ingress} (position {record.position:,})")
        titles = [f"{each.kind} {each.id}" for each in record.steps]
        width = max(map(len, titles)) + 2
        for title, step in zip(titles, record.steps, strict=True):
            say(f"  {title.ljust(width)}{_after(step)}")
            for action in step.actions:
                say(f"    {action['action']} {action['target']}: {action['decision']}")


def _after(step: m.TracedStep) -> str:
    """Return the record's payload after a step, or why the record ended there."""
    if step.dropped is None:
        return payload_text(step)
    word = "failed" if step.dropped == "stage_error" or step.dropped.startswith("limit") else "dropped"
    return f"{word}: {step.dropped.replace('_', ' ')}"


def _whole_trace(session: Session, replay_id: str, sequence: int, ingress: str | None) -> m.Trace:
    """Return the steps of all pages as one trace."""
    found = page = session.environment.trace_record(replay_id, sequence=sequence, ingress=ingress)
    while page.next_after is not None:
        page = session.environment.trace_record(replay_id, sequence=sequence, ingress=ingress, after=page.next_after)
        for record in page.records:
            last = found.records[-1] if found.records else None
            if last is not None and (last.ingress, last.position) == (record.ingress, record.position):
                last.steps += record.steps
                last.egress = record.egress
            else:
                found.records.append(record)
    found.truncated, found.next_after = False, None
    return found


# -- bisects ----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("artifact", type=ARTIFACT)
@click.option(
    "--bad-if",
    type=click.Choice(["diverges", "fails"]),
    help="What makes a version bad: its replay diverges from the capture, or a stage fails. Default: diverges.",
)
@click.option(
    "--differs-from", type=REPLAY, help="A version is bad if its output differs from the output of this replay."
)
@click.option("--good", type=VERSION, help="A good version, at which the search starts. Default: the oldest.")
@click.option("--bad", type=VERSION, help="A bad version, at which the search ends. Default: the newest.")
@click.option("--pipeline", help="The pipeline. Default: the captured pipeline.")
@click.option("--exhaustive", is_flag=True, help="Replay all versions (at most 256) instead of a binary search.")
@waiting_options
@json_option("Bisect")
@with_session
def bisect(
    session: Session,
    artifact: str,
    bad_if: str | None,
    differs_from: str | None,
    good: str | None,
    bad: str | None,
    pipeline: str | None,
    exhaustive: bool,
    detach: bool,
    timeout: int | None,
    as_json: str | None,
) -> int:
    """Find the first bad version of a pipeline.

    Replays an incident bundle through versions of the pipeline.

    The exit code is 0 if the first bad version was found, 1 if it was not found or the search failed, and 8 after
    --timeout.

    \b
    Examples:
      byteor artifacts bisect 5d1c04
      byteor artifacts bisect 5d1c04 --bad-if fails --good quotes:3 --bad quotes:9
      byteor artifacts bisect 5d1c04 --differs-from e5d1c0
    """
    if bad_if and differs_from:
        raise Refusal("Use only one of --bad-if and --differs-from.", USAGE)
    from byteor.client.models import Predicate1  # noqa: PLC0415  slow to import

    found = find_artifact(session, artifact)
    row = session.environment.bisect_artifact(
        found.id,
        predicate=Predicate1(output_differs_from=find_replay(session, differs_from).id)
        if differs_from
        else bad_if or "diverges",
        good=None if good is None else find_version(session, good).id,
        bad=None if bad is None else find_version(session, bad).id,
        pipeline=pipeline,
        exhaustive=exhaustive or None,
    )
    later = f"byteor artifacts show-bisect {row.id}"
    if not detach and not row.finished_at:
        row = wait_for(lambda: session.environment.get_bisect(row.id), f"Bisect {row.id[-8:]}", _judged, timeout, later)
    _show_bisect(session, row, as_json)
    if not row.finished_at:
        return DONE if detach else PENDING
    return DONE if row.outcome == "found" else FAILED


def _judged(row: m.Bisect) -> tuple[int, int]:
    return sum(each.verdict is not None for each in row.versions), 0


@click.command("show-bisect")
@click.argument("bisect", type=BISECT)
@json_option("Bisect")
@with_session
def show_bisect(session: Session, bisect: str, as_json: str | None) -> None:
    """Show a bisect with its verdicts.

    Also prints the diff between the last good and the first bad version.

    \b
    Examples:
      byteor artifacts show-bisect e5d1c0
      byteor artifacts show-bisect e5d1c0 --json first_bad,diff
    """
    environment = session.environment
    id = bisect if is_id(bisect) else find(environment.list_bisects, bisect, "bisect", has_name=False).id
    _show_bisect(session, environment.get_bisect(id), as_json)


def _show_bisect(session: Session, row: m.Bisect, as_json: str | None) -> None:
    if as_json is not None:
        show(row, as_json, "")
        return
    say(f"Bisect {row.id}: {_finding(session, row)}")
    replayed = [each for each in row.versions if each.replay_id]
    pipeline = session.environment.get_version(replayed[0].version_id).name if replayed else ""
    columns = {
        "version": lambda each: f"{pipeline}:{each.number}",
        "verdict": lambda each: each.verdict or (None if row.finished_at else "being replayed"),
        "without parameters": lambda each: each.no_parameters or None,
        "replay": lambda each: each.replay_id,
    }
    if not any(each.no_parameters for each in replayed):
        del columns["without parameters"]
    if replayed:
        say("")
        show_list(replayed, None, columns, len(replayed))
    if row.diff and row.diff.unified:
        say(f"\n{row.diff.unified.rstrip()}")


def _finding(session: Session, row: m.Bisect) -> str:
    if row.first_bad is not None:
        version = session.environment.get_version(row.first_bad)
        good = next((each.number for each in row.versions if each.version_id == row.last_good), None)
        after = f" The last good version is {version.name}:{good}." if good is not None else ""
        if row.outcome == "found":
            return f"{version.name}:{version.number} is the first bad version.{after}"
        return f"Some versions could not be tested. {version.name}:{version.number} is bad.{after}"
    match row.outcome:
        case "no_change":
            return "The oldest and the newest tested version have the same verdict."
        case "inverted":
            return "The oldest tested version is bad, and the newest one is good."
        case "inconclusive":
            return "Too few versions could be tested to find the first bad one."
    if row.finished_at:
        return f"{str(row.status).capitalize()}: {str(row.error or '').rstrip('.')}."
    done, _ = _judged(row)
    return f"{done} of {len(row.versions)} versions {'has' if done == 1 else 'have'} a verdict."


COMMANDS: Final = (
    replay, list_replays, show_replay, cancel_replay, compare, trace, bisect, show_bisect,
)  # fmt: skip
