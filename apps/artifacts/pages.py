"""Panels of the console's pages of artifacts, replays and bisects."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import captures
from apps.tenancy.console import row_link, short_id, state_pill
from byteor_cloud.errors import DomainError

_PAGE = 20  # records of a journal
_SHOWN = 300  # characters of a payload


def query_link(row: Any, text: object, **query: object) -> str:
    """Return a link to the row's page with a query."""
    url = reverse(f"admin:artifacts_{row._meta.model_name}_change", args=[row.pk], query=query)
    return format_html('<a class="text-link" href="{}">{}</a>', url, text)


def number(request: HttpRequest, name: str) -> int | None:
    """Return a whole number of the query, or None."""
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def drops(row: Replay, *, may_trace: bool) -> dict[str, Any]:
    """Return the panel of dropped records by stage and reason."""
    rows = [
        (stage, reason, each["count"], _traced(row, each["first_sequence"], may_trace=may_trace))
        for stage, counts in ((row.result or {}).get("stages") or {}).items()
        for reason, each in counts.get("drops", {}).items()
    ]
    columns = ("Stage", "Reason", "Records", "First sequence")
    return {"title": "Dropped records", "columns": columns, "rows": rows, "empty": "No record was dropped."}


def _traced(row: Replay, sequence: int, *, may_trace: bool) -> object:
    return query_link(row, sequence, trace=sequence) if may_trace else sequence


def divergence(row: Replay, *, may_trace: bool) -> str:
    """Return where the output first differs from the expected one, with a link to the trace of the record."""
    found = (row.result or {}).get("divergence")
    if found is None:
        return "-"
    at = _traced(row, found["sequence"], may_trace=may_trace)
    return format_html("{} at egress {}, sequence {}", found["kind"], found["egress"], at)


def trace(row: Replay, sequence: int) -> dict[str, Any]:
    """Return the panel that follows the records with a sequence."""
    panel: dict[str, Any] = {"title": f"Trace of sequence {sequence}", "rows": [], "empty": ""}
    try:
        found = captures.trace_record(row, sequence, None)
    except DomainError as error:
        return {**panel, "empty": error.detail}
    rows = [
        (record["ingress"], step["kind"], step["id"], _payload(step), step["dropped"] or "-")
        for record in found["records"]
        for step in record["steps"]
    ]
    return {**panel, "columns": ("Ingress", "Step", "Name", "Record after it", "Dropped"), "rows": rows}


def _payload(shown: dict[str, Any]) -> str:
    text = shown["payload_base64"] or "" if shown["json"] is None else json.dumps(shown["json"])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def comparisons(row: Replay, other_id: str) -> list[dict[str, Any]]:
    """Return the panel of other replays of the same records, and the comparison with the chosen one."""
    same = Replay.objects.filter(
        artifact=row.artifact, journal_lane=row.journal_lane, last_n=row.last_n, result__isnull=False
    ).exclude(pk=row.pk)
    others = list(same.select_related("version").order_by("-id")[:10])
    panels: list[dict[str, Any]] = [
        {
            "title": "Other replays of these records",
            "columns": ("Replay", "Version", "Status", ""),
            "rows": [
                (
                    row_link(each),
                    str(each.version),
                    state_pill(each.status),
                    query_link(row, "Compare", compare=each.pk),
                )
                for each in others
            ],
            "empty": "There is none.",
        }
    ]
    chosen = next((each for each in others if str(each.pk) == other_id), None)
    if chosen is not None and row.result is not None:
        panels.insert(0, _comparison(row, chosen))
    return panels


def _comparison(row: Replay, other: Replay) -> dict[str, Any]:
    found = captures.compare_replays(row, other)
    rows = [
        (kind, name, "equal" if each["equal"] else "different", *(str(value) for value in each[shown]))
        for kind, parts, shown in (("Egress", found["egress"], "records"), ("Stage", found["stages"], "out"))
        for name, each in parts.items()
    ]
    first = found["first_difference"]
    where = f"The first difference is at egress {first['egress']}, sequence {first['sequence']}." if first else ""
    lead = "The results are equal." if found["equal"] else f"The results differ. {where}"
    columns = ("Part", "Name", "", "Records here", "Records there")
    return {"title": f"Compared with {other}", "lead": lead, "columns": columns, "rows": rows, "empty": ""}


def files(row: Artifact) -> dict[str, Any]:
    """Return the panel of the capture's files."""
    panel: dict[str, Any] = {"title": "Files", "rows": [], "empty": ""}
    try:
        listed = captures.list_files(row)
    except DomainError as error:
        return {**panel, "empty": error.detail}
    rows = [(_file(row, each["path"]), f"{each['size']:,}", short_id(each["sha256"])) for each in listed[:100]]
    return {**panel, "columns": ("Path", "Bytes", "SHA-256"), "rows": rows}


def _file(row: Artifact, path: str) -> str:
    lane = path.removeprefix("journal/").removesuffix(".bin")
    return query_link(row, path, lane=lane) if path == f"journal/{lane}.bin" else path


def records(row: Artifact, lane: str, *, after: int | None, sequence: int | None) -> dict[str, Any]:
    """Return the panel with a page of a journal."""
    panel: dict[str, Any] = {"title": f"Journal of {lane}", "rows": [], "empty": "There is no further record."}
    begin: dict[str, Any] = (
        {"after": after} if after is not None else {"sequence": sequence} if sequence is not None else {}
    )
    try:
        page = captures.read_journal(row, lane, limit=_PAGE, **begin)
    except DomainError as error:
        return {**panel, "empty": error.detail}
    links = [query_link(row, "First page", lane=lane)]
    if page["next_after"] is not None:
        links.append(query_link(row, "Next page", lane=lane, after=page["next_after"]))
    rows = [
        (each["position"], each["sequence"], each["time"], f"{each['size']:,}", _payload(each))
        for each in page["results"]
    ]
    lead = format_html("{} records. {}", f"{page['total']:,}", format_html_join(" ", "{}", ((link,) for link in links)))
    return {**panel, "lead": lead, "columns": ("Position", "Sequence", "Time", "Bytes", "Payload"), "rows": rows}


def verdicts(row: Bisect) -> dict[str, Any]:
    """Return the panel with the strip of verdicts."""
    replays = Replay.objects.in_bulk([each["replay_id"] for each in row.versions if each["replay_id"]])
    by_id = {str(pk): replay for pk, replay in replays.items()}
    rows = [
        (
            f"v{each['number']}",
            state_pill(each["verdict"]) if each["verdict"] else "-",
            row_link(by_id.get(each["replay_id"])),
        )
        for each in row.versions
    ]
    return {"title": "Versions", "columns": ("Version", "Verdict", "Replay"), "rows": rows, "empty": ""}
