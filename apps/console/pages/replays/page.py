"""The page of a replay: its result, the records that differ, its stages, and links to other versions and replays."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from apps.artifacts.models import Bisect, Replay
from apps.artifacts.services import captures
from apps.console.frame import relative_time, row_link, short_id, state_pill
from apps.console.frame.columns import page_url, row_url
from apps.console.pages.artifacts import wording
from apps.console.pages.artifacts.page import artifact_title
from apps.console.pages.artifacts.parts import FOUND, payload_text, query_link
from apps.console.pages.bisects.page import bisect_headline, verdict_strip
from apps.console.pages.replays import differences
from apps.pipelines.models import Version
from apps.releases.models import Deployment
from byteor.engine.compiler import split_op
from byteor.engine.counted import count_of
from byteor.engine.machines import ReplayStatus
from byteor.engine.replay import unchecked_stages
from byteor.engine.replay.compare import compare_with_members
from byteor.engine.replay.divergence_context import Divergence
from byteor_cloud.api.compute_slot import compute_slot
from byteor_cloud.computing.compute import Compute
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import DomainError

_VERSIONS = 10
_STAGES = 100
_EFFECTS = 100  # rows of the panel of side effects
_TRACED_BYTES = 256 * 1024  # if a trace has this many bytes of JSON, the page omits further steps


def replay_headline(row: Replay, records: Divergence | None, *, may_read: bool) -> str:
    """Return a sentence about the state of the replay, and a warning if stages had no parameters.

    ``records`` are the records that differ; None without a divergence, or if the person may not see them.
    """
    standing = _standing(row, records, may_read=may_read)
    unchecked = wording.describe_unchecked(unchecked_stages(row.result))
    return format_html("{}{} {}", standing, "" if standing.endswith(".") else ".", unchecked) if unchecked else standing


def _standing(row: Replay, records: Divergence | None, *, may_read: bool) -> str:
    match row.status:
        case ReplayStatus.PENDING_APPROVAL:
            return "Waiting for approval."
        case ReplayStatus.QUEUED:
            return "Waiting for a worker."
        case ReplayStatus.RUNNING if row.progress_total:
            return f"{row.progress_done:,} of {count_of(row.progress_total, 'record')} replayed."
        case ReplayStatus.RUNNING:
            return "Running."
        case ReplayStatus.DIVERGED:
            found = row.result["divergence"]
            difference = ""
            if records is not None and records.expected is not None and records.actual is not None:
                difference = wording.describe_difference(records.expected, records.actual, records.start)
            return wording.describe_divergence(found, difference, wording.find_drop(_stage_counts(row), found))
        case ReplayStatus.SUCCEEDED if may_read and not _was_compared(row):
            return "Finished. The capture has no expected output to compare with."
        case ReplayStatus.SUCCEEDED:
            return "Finished. No differences from the capture were found."
    reproduced = (row.result or {}).get("reproduced")
    error = row.error or ""
    return f"{error.rstrip('.')}. The replay stopped as in the capture." if reproduced else error


def _was_compared(row: Replay) -> bool:
    try:
        return captures.has_expected(row.artifact)
    except DomainError:
        return True  # the capture cannot be read


def progress_bar(row: Replay) -> dict[str, Any] | None:
    """Return the progress bar of a running replay; None in any other state, and while no records are counted."""
    if row.status != ReplayStatus.RUNNING or not row.progress_total:
        return None
    done, left = row.progress_done, row.progress_total - row.progress_done
    parts = [("good", done), ("plain", left)]
    key = [("good", f"{done:,}", "replayed"), ("plain", f"{left:,}", "left")]
    return {"title": "Records", "text": f"{done:,} of {count_of(done + left, 'record')}", "parts": parts, "key": key}


def replay_facts(row: Replay) -> list[tuple[str, object]]:
    """Return the replay's inputs and results as labels and values."""
    waits = row.status == ReplayStatus.PENDING_APPROVAL
    reproduced = (row.result or {}).get("reproduced")
    notes = [f"{note['code'].replace('_', ' ')}: {note['name']}" for note in (row.result or {}).get("notes", [])]
    facts = [
        ("Mode", row.mode.replace("_", " ")),
        ("Artifact", row_link(row.artifact, artifact_title(row.artifact))),
        ("Version", row_link(row.version)),
        ("Parameters from", _parameters_from(row)),
        ("Journal", row.journal_lane),
        ("Records", row.last_n and f"the last {row.last_n:,}"),
        ("Requested by", row.requested_by),
        ("Waiting for approval" if waits else "Approval", row.approval and row_link(row.approval)),
        ("Finished", row.finished_at and relative_time(row.finished_at)),
        ("Stopped as captured", {None: "", True: "yes", False: "no"}[reproduced]),
        ("Error", row.error),
        ("Notes", "; ".join(notes)),
        ("Warnings", "; ".join(row.warnings)),
    ]
    return [(label, value) for label, value in facts if value]


def _parameters_from(row: Replay) -> str:
    if row.config_bundle is not None:
        return row_link(row.config_bundle)
    if row.fallback_config_bundle is not None:
        return format_html("the capture, and from {} where the capture has none", row_link(row.fallback_config_bundle))
    return "the capture"


def links(row: Replay, others: list[Replay]) -> list[tuple[str, str, str]]:
    """Return the text, URL and icon of the headline's links. ``others`` are replays that can be compared."""
    found = []
    if others:
        url = _url(row, compare=max(each.pk for each in others))
        found.append(("Compare", url, "compare_arrows"))
    if row.artifact.deployment_id is not None:
        url = page_url(Deployment, "change", row.artifact.deployment_id)
        found.append(("Open the deployment", url, "rocket_launch"))
    return found


def _url(row: Replay, **query: object) -> str:
    return page_url(Replay, "change", row.pk, query=query, fragment=FOUND)


# -- stages and side effects ------------------------------------------------------------------------------------


def stages(row: Replay) -> list[dict[str, Any]]:
    """Return the first 100 stages in the order of the spec, and then the egresses, each with its counts."""
    if row.result is None:
        return []
    counted = _stage_counts(row)
    listed = [(id, op) for id, op in row.version.stages if id in counted]
    shown: list[dict[str, Any]] = []
    for id, op in listed[:_STAGES]:
        counts = counted[id]
        tone = "bad" if counts.get("errors") else "warn" if counts.get("dropped") else "good"
        parts = [(word, f"{counts.get(word, 0):,}") for word in ("in", "out", "dropped", "errors")]
        shown.append({"kind": split_op(op)[0], "name": id, "tone": tone, "counts": parts})
    if len(listed) > _STAGES:
        shown.append({"kind": "", "name": f"{len(listed) - _STAGES} more", "tone": "plain", "counts": []})
    for name, output in row.result["egress"].items():
        word = "record" if output["records"] == 1 else "records"
        counts = [(word, f"{output['records']:,}"), ("", short_id(output["sha256"]))]
        shown.append({"kind": "egress", "name": name, "tone": "plain", "counts": counts})
    return shown


def _stage_counts(row: Replay) -> dict[str, Any]:
    """Return the counts by stage; {} if the result has none."""
    return row.result.get("stages") or {}


def panels(row: Replay, *, may_read: bool) -> list[dict[str, Any]]:
    """Return the panels of dropped records and side effects. With ``may_read``, sequences link to traces."""
    if row.result is None:
        return []
    return [_drops(row, may_trace=may_read), _effects(row)]


def _drops(row: Replay, *, may_trace: bool) -> dict[str, Any]:
    """Return the panel of dropped records by stage and reason."""
    rows = [
        (stage, reason, f"{each['count']:,}", _traced(row, each["first_sequence"], may_trace=may_trace))
        for stage, counts in _stage_counts(row).items()
        for reason, each in counts.get("drops", {}).items()
    ]
    columns = ("Stage", "Reason", "Records", "First")
    return {"title": "Dropped records", "columns": columns, "rows": rows, "empty": "No records were dropped."}


def _traced(row: Replay, sequence: int, *, may_trace: bool) -> object:
    text = f"{sequence:,}"
    return query_link(row, text, trace=sequence) if may_trace else text


def _effects(row: Replay) -> dict[str, Any]:
    """Return the panel of side effects, counted by decision, action and target."""
    actions = (row.audit or {}).get("actions", [])
    by_decision = Counter(each["decision"] for each in actions)
    counted = Counter((each["decision"], each["action"], each["target"]) for each in actions)
    lead = ", ".join(f"{count:,} {decision}" for decision, count in sorted(by_decision.items()))
    return {
        "title": "Side effects",
        "lead": f"{lead}. The first {_EFFECTS} rows are shown." if len(counted) > _EFFECTS else lead,
        "columns": ("Decision", "Action", "Target", "Count"),
        "rows": [
            (state_pill(decision), action, target, f"{count:,}")
            for (decision, action, target), count in sorted(counted.items())[:_EFFECTS]
        ],
        "empty": "The replay reached no side effects.",
    }


def trace(request: HttpRequest, row: Replay, sequence: int) -> dict[str, Any]:
    """Return the panel that traces the records with this sequence through the stages."""
    panel: dict[str, Any] = {"id": FOUND, "title": f"Trace of record {sequence:,}", "rows": [], "empty": ""}
    try:
        body = captures.trace_record(row, sequence, max_bytes=_TRACED_BYTES, slot=partial(compute_slot, request))
    except DomainError as error:
        return {**panel, "empty": error.detail}
    found = json.loads(body)
    if found["truncated"]:
        panel["lead"] = "Only the first steps are shown. Use the API to read the others."
    rows = [
        (f"{step['kind']} {step['id']}", _after(step), "; ".join(_actions(step)) or "-")
        for record in found["records"]
        for step in record["steps"]
    ]
    return {**panel, "columns": ("Step", "Record after the step", "Side effects"), "rows": rows}


def _after(step: dict[str, Any]) -> str:
    """Return the record's payload after this step, or why the record got no further: a drop, an error or a limit."""
    return payload_text(step) if step["dropped"] is None else f"dropped: {step['dropped']}"


def _actions(step: dict[str, Any]) -> list[str]:
    return [f"{each['action']} {each['target']}: {each['decision']}" for each in step["actions"]]


# -- other versions and replays ---------------------------------------------------------------------------------


def _same_records(row: Replay) -> Any:
    same = Replay.objects.filter(artifact=row.artifact_id, journal_lane=row.journal_lane, last_n=row.last_n)
    return same.exclude(pk=row.pk).order_by("-id")


def versions(row: Replay, below: int | None, *, may_read: bool) -> tuple[dict[str, Any], list[Replay]]:
    """Return the panel of versions and their newest replays of the same records, and the comparable replays.

    With ``below``, the panel has only versions with lower numbers.
    """
    same_pipeline = Version.objects.filter(environment=row.environment_id, name=row.version.name)
    found = without_large(same_pipeline).order_by("-number")
    page = list((found.filter(number__lt=below) if below is not None else found)[: _VERSIONS + 1])
    listed = page[:_VERSIONS]
    newest = _same_records(row).filter(version__in=listed).order_by("version_id", "-id").distinct("version_id")
    by_version = {each.version_id: each for each in without_large(newest).annotate(has_result=Q(result__isnull=False))}
    rows, comparable = [], list[Replay]()
    for version in listed:
        other = by_version.get(version.pk)
        shown = [format_html("{} this replay", state_pill(row.status))] if version.pk == row.version_id else []
        if other is not None:
            shown.append(
                format_html("{} {}", state_pill(other.status), row_link(other, relative_time(other.created_at)))
            )
        if may_read and other is not None and other.has_result and row.result is not None:
            comparable.append(other)
        rows.append(
            (
                row_link(version, f"v{version.number}"),
                format_html_join(" ", "{}", ((each,) for each in shown)) or "-",
                query_link(row, "Compare", compare=other.pk) if other in comparable and other else "",
            )
        )
    panel = {"id": "versions", "title": f"Versions of {row.version.name}", "rows": rows, "empty": ""}
    if len(page) > len(listed):
        panel["lead"] = query_link(row, "Older versions", at="versions", below=listed[-1].number)
    return {**panel, "columns": ("Version", "Replays of these records", "")}, comparable


def comparison(row: Replay, other_id: UUID, *, compute: Compute) -> list[dict[str, Any]]:
    """Return the panels that compare the replay with another one of the same records; none without such a replay."""
    other = _same_records(row).filter(pk=other_id).select_related("version").first()
    if other is None:
        return []
    panel: dict[str, Any] = {"id": FOUND, "rows": [], "empty": ""}
    panel["title"] = f"Compared with the replay through {other.version}"
    panel["url"], panel["link"] = row_url(other), "Open"
    try:
        found, members = captures.compare_replays(row, other, compare_with_members, compute=compute)
    except DomainError as error:
        return [{**panel, "empty": error.detail}]
    rows = [
        (
            kind,
            name,
            "equal" if each["equal"] else "different",
            *("-" if value is None else f"{value:,}" for value in each[shown]),
        )
        for kind, parts, shown in (("Egress", found["egress"], "records"), ("Stage", found["stages"], "out"))
        for name, each in parts.items()
    ]
    first = found["first_difference"]
    where = f"The first difference is at {first['egress']}, record {first['sequence']:,}." if first else ""
    verdict = "The results are equal." if found["equal"] else f"The results differ. {where}"
    unchecked = (
        format_html(" In {} replay: {}", which, wording.describe_unchecked(stages))
        for which, replay in (("this", row), ("the other", other))
        if (stages := unchecked_stages(replay.result))
    )
    lead = format_html("{}{}", verdict, format_html_join("", "{}", ((each,) for each in unchecked)))
    columns = ("Part", "Name", "", "Records in this replay", "Records in the other replay")
    panels = [{**panel, "lead": lead, "columns": columns, "rows": rows}]
    if first:
        panels.append(differences.first_difference(first, members, "This replay", "Other replay"))
    return panels


def bisect_of(row: Replay) -> dict[str, Any] | None:
    """Return the verdicts of the replay's bisect, or otherwise of the artifact's newest bisect; None without any."""
    found = row.bisect or Bisect.objects.filter(artifact=row.artifact_id).order_by("-id").first()
    if found is None:
        return None
    return {"link": row_link(found, "Open"), "headline": bisect_headline(found), "strip": verdict_strip(found)}
