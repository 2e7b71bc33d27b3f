"""Panels of the console's pages of artifacts, replays and bisects."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from itertools import groupby
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import captures
from apps.tenancy.console import relative_time, row_link, short_id, state_pill
from byteor_cloud.engine.machines import ReplayStatus
from byteor_cloud.engine.replay import BisectOutcome
from byteor_cloud.errors import DomainError

_PAGE = 20  # records of a journal
_SHOWN = 300  # characters of a payload
_FOUND = "found"  # the id of the panel that a link asks for


def query_link(row: Any, text: object, **query: object) -> str:
    """Return a link to the row's page with a query."""
    url = reverse(f"admin:artifacts_{row._meta.model_name}_change", args=[row.pk], query=query, fragment=_FOUND)
    return format_html('<a class="text-link" href="{}">{}</a>', url, text)


def number(request: HttpRequest, name: str) -> int | None:
    """Return a whole number of the query, or None."""
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def replay_headline(row: Replay) -> str:
    """Say in a sentence where the replay stands."""
    match row.status:
        case ReplayStatus.PENDING_APPROVAL:
            return "Somebody must approve it first."
        case ReplayStatus.QUEUED:
            return "Waits for a worker."
        case ReplayStatus.RUNNING if row.progress_total:
            return f"{row.progress_done:,} of {row.progress_total:,} records are replayed."
        case ReplayStatus.RUNNING:
            return "The capture is unpacked."
        case ReplayStatus.DIVERGED:
            found = row.result["divergence"]
            return f"The output diverges at egress {found['egress']}, sequence {found['sequence']}."
        case ReplayStatus.SUCCEEDED:
            return "It ended without a difference to the capture."
    return row.error or ""


def progress_bar(row: Replay) -> dict[str, Any] | None:
    """Return the bar of a running replay."""
    if row.status != ReplayStatus.RUNNING or not row.progress_total:
        return None
    done, left = row.progress_done, row.progress_total - row.progress_done
    parts = [("good", done), ("plain", left)]
    key = [("good", f"{done:,}", "replayed"), ("plain", f"{left:,}", "left")]
    return {"title": "Records", "text": f"{done:,} of {done + left:,} records", "parts": parts, "key": key}


def replay_facts(row: Replay) -> list[tuple[str, object]]:
    """Return what was replayed, and with what."""
    waits = row.status == ReplayStatus.PENDING_APPROVAL
    reproduced = (row.result or {}).get("reproduced")
    notes = [f"{note['code'].replace('_', ' ')}: {note['name']}" for note in (row.result or {}).get("notes", [])]
    facts = [
        ("Mode", row.get_mode_display()),
        ("Artifact", row_link(row.artifact)),
        ("Version", row_link(row.version)),
        ("Parameters of", row_link(row.config_bundle) if row.config_bundle else "the capture"),
        ("Requested by", row.requested_by),
        ("Waits for approval" if waits else "Approval", row.approval and row_link(row.approval)),
        ("Bisect", row.bisect and row_link(row.bisect)),
        ("Finished", relative_time(row.finished_at)),
        ("Stopped as captured", {None: "", True: "yes", False: "no"}[reproduced]),
        ("Error", row.error),
        ("Notes", "; ".join(notes)),
        ("Warnings", "; ".join(row.warnings)),
    ]
    return [(label, value) for label, value in facts if value]


def replay_panels(row: Replay, *, may_read: bool) -> list[dict[str, Any]]:
    """Return the result of an ended replay. ``may_read``: the person may see captured records."""
    if row.result is None:
        return []
    actions = Counter((a["action"], a["target"], a["decision"]) for a in (row.audit or {}).get("actions", []))
    return [
        *_divergence(row, may_read=may_read),
        {
            "title": "Egress",
            "columns": ("Name", "Records", "Digest"),
            "rows": [
                (name, f"{output['records']:,}", short_id(output["sha256"]))
                for name, output in row.result["egress"].items()
            ],
            "empty": "",
        },
        drops(row, may_trace=may_read),
        {
            "title": "Side effects",
            "columns": ("Action", "Target", "Decision", "Records"),
            "rows": [
                (action, target, state_pill(decision), count) for (action, target, decision), count in actions.items()
            ],
            "empty": "The replay reached no side effect.",
        },
    ]


def _divergence(row: Replay, *, may_read: bool) -> list[dict[str, Any]]:
    """Return the panel of the first output that differs from the captured one."""
    found = row.result["divergence"]
    if found is None:
        return []
    rows = [
        ("Egress", found["egress"]),
        *([("Ingress", found["ingress"])] if found.get("ingress") else []),
        ("Sequence", _traced(row, found["sequence"], may_trace=may_read)),
        ("Kind", {"changed": "the record differs", "missing": "missing here", "extra": "only here"}[found["kind"]]),
    ]
    if may_read:
        diff = found["diff"]
        at = f", from byte {diff['offset']:,}" if found["kind"] == "changed" else ""
        rows += [
            (f"{label} record{at}", _code(_text(bytes.fromhex(diff[f"{side}_hex"]))))
            for label, side in (("Captured", "expected"), ("Replayed", "actual"))
            if found[f"{side}_sha256"]
        ]
    return [{"title": "Divergence", "wide": True, "rows": rows, "empty": ""}]


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


def trace(row: Replay, sequence: int) -> dict[str, Any]:
    """Return the panel that follows the records with a sequence."""
    panel: dict[str, Any] = {"id": _FOUND, "title": f"Trace of sequence {sequence}", "rows": [], "empty": ""}
    try:
        found = captures.trace_record(row, sequence, None)
    except DomainError as error:
        return {**panel, "empty": error.detail}
    rows = [
        (f"{step['kind']} {step['id']}", _after(step), "; ".join(_actions(step)) or "-")
        for record in found["records"]
        for step in record["steps"]
    ]
    return {**panel, "columns": ("Step", "Record after it", "Side effects"), "rows": rows}


def _after(step: dict[str, Any]) -> str:
    """Return what the record was after this step, or why it was dropped."""
    if step["dropped"] is None:
        return _payload(step)
    return f"dropped: {step['dropped']}"


def _actions(step: dict[str, Any]) -> list[str]:
    return [f"{each['action']} {each['target']}: {each['decision']}" for each in step["actions"]]


def _payload(shown: dict[str, Any]) -> str:
    """Return the beginning of a payload as text."""
    if shown["payload_base64"] is None and shown["json"] is None:
        return "-"
    if shown["json"] is None:
        text = _text(b64decode(shown["payload_base64"])[: _SHOWN + 1])
    else:
        text = json.dumps(shown["json"], ensure_ascii=False)
    return _code(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _code(text: str) -> str:
    return format_html('<code class="payload">{}</code>', text)


def _text(payload: bytes) -> str:
    """Return bytes as text; other bytes than printable ASCII as \\x and two digits."""
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in payload) or "(nothing)"


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
    return {
        "id": _FOUND,
        "title": f"Compared with {other}",
        "lead": lead,
        "columns": columns,
        "rows": rows,
        "empty": "",
    }


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
    panel: dict[str, Any] = {
        "id": _FOUND,
        "wide": True,
        "title": f"Journal of {lane}",
        "rows": [],
        "empty": "There is no further record.",
    }
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
        (each["position"], each["sequence"], _payload(each), f"{each['size']:,}", each["time"])
        for each in page["results"]
    ]
    lead = format_html("{} records. {}", f"{page['total']:,}", format_html_join(" ", "{}", ((link,) for link in links)))
    return {**panel, "lead": lead, "columns": ("Position", "Sequence", "Payload", "Bytes", "Time"), "rows": rows}


_TONES = {"good": "good", "bad": "bad", "untestable": "warn", None: "plain"}


def bisect_headline(row: Bisect) -> str:
    """Say in a sentence what was found."""
    match row.outcome:
        case BisectOutcome.FOUND:
            return f"{row.first_bad} is the first bad version."
        case BisectOutcome.NO_CHANGE:
            return "The first and the last version have the same verdict."
        case BisectOutcome.INVERTED:
            return "The first version is bad and the last one is good."
        case BisectOutcome.INCONCLUSIVE:
            return "Too few versions can be tested to name the first bad one."
    done = sum(each["verdict"] is not None for each in row.versions)
    return row.error or f"{done} of {len(row.versions)} versions have a verdict."


def predicate(row: Bisect) -> str:
    """Say what makes a version bad."""
    texts = {"diverges": "its output differs from the captured one", "fails": "a stage fails"}
    if isinstance(row.predicate, str):
        return texts[row.predicate]
    other = Replay.objects.filter(pk=row.predicate["output_differs_from"]).first()
    return format_html("its output differs from that of {}", row_link(other))


def verdict_strip(row: Bisect) -> dict[str, Any]:
    """Return the strip of verdicts, from the oldest to the newest version."""
    verdicts = [each["verdict"] for each in row.versions]
    counts = Counter(verdicts)
    words = {"good": "good", "bad": "bad", "untestable": "untestable", None: "not replayed"}
    return {
        "title": "Versions",
        "text": ", ".join(f"{counts[each]} {word}" for each, word in words.items() if counts[each]),
        "parts": [(_TONES[verdict], len(list(same))) for verdict, same in groupby(verdicts)],
        "key": [(_TONES[each], counts[each], word) for each, word in words.items() if counts[each]],
    }


def verdicts(row: Bisect) -> dict[str, Any]:
    """Return the panel of the versions that were chosen for a replay."""
    replays = Replay.objects.in_bulk([each["replay_id"] for each in row.versions if each["replay_id"]])
    by_id = {str(pk): replay for pk, replay in replays.items()}
    rows = [
        (
            f"v{each['number']}",
            format_html('<span class="pill {}">{}</span>', _TONES[each["verdict"]], each["verdict"] or "not known yet"),
            row_link(by_id.get(each["replay_id"]), "Replay"),
        )
        for each in row.versions
        if each["replay_id"]
    ]
    columns = ("Version", "Verdict", "Replay")
    return {"title": "Replayed versions", "columns": columns, "rows": rows, "empty": "None yet."}


def runs(row: Artifact) -> dict[str, Any]:
    """Return the panel of the newest replays and bisects of an artifact."""
    found = [
        *row.replays.filter(bisect=None).select_related("version").order_by("-id")[:10],
        *row.bisects.order_by("-id")[:10],
    ]
    rows = [
        (
            row_link(each, f"Replay through {each.version}" if isinstance(each, Replay) else "Bisect"),
            state_pill(each.status),
            relative_time(each.created_at),
        )
        for each in sorted(found, key=lambda each: each.pk, reverse=True)
    ]
    columns = ("What", "Status", "Requested")
    return {"title": "Replays and bisects", "columns": columns, "rows": rows, "empty": "None yet."}
