"""The page of an artifact: what happened, its files, the records of its journals, and its replays and bisects."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services import captures
from apps.artifacts.services.uploads import find_obstacles
from apps.console.frame import relative_time, row_link, short_id, state_pill, with_note
from apps.console.frame.columns import page_url
from apps.console.pages.artifacts.parts import hex_dump, moment, number, payload_text, query_link
from apps.console.pages.artifacts.wording import HEX_ROWS, HEX_WIDTH, byte_count, hex_rows
from apps.console.pages.bisects.page import bisect_headline
from byteor.engine import strict_json
from byteor.engine.machines import ArtifactStatus
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.computing.computations import read_page
from byteor_cloud.database.large_columns import with_small_values, without_large
from byteor_cloud.errors import DomainError

_PAGE = 20  # records per page of a journal
_FILES = 100
_RUNS = 10
_MAX_OUTCOME = 64 * 1024  # bytes of outcome.json that are read
_JOURNAL = "journal"  # the HTML id of the journal panel


def is_capture(row: Artifact) -> bool:
    """Return whether the artifact is a verified incident bundle."""
    return row.kind == Artifact.Kind.INCIDENT_BUNDLE and row.status == ArtifactStatus.VERIFIED


def artifact_title(row: Artifact) -> str:
    """Return the title of the artifact's page."""
    return f"{row.get_kind_display().capitalize()} of {row.agent}"


def artifact_headline(row: Artifact, *, may_read: bool) -> str:
    """Return a sentence about what happened. ``may_read``: whether the person may see captured records.

    A row from a list may lack its reasons and its metadata (``large_columns.with_small_values``).
    """
    if row.status == ArtifactStatus.RECEIVED:
        obstacle = find_obstacles([row]).get(row.pk)
        return f"Waiting to be checked. {obstacle.sentence if obstacle else ''}".rstrip()
    if row.status == ArtifactStatus.REJECTED:
        details = "; ".join(each["detail"].rstrip(".") for each in row.reasons or ())
        return f"Rejected: {details}." if details else "Rejected."
    if row.kind != Artifact.Kind.INCIDENT_BUNDLE:
        return format_html("Captured by {} {}.", row_link(row.agent), relative_time(row.captured_at))
    ran = format_html("which ran {}", row_link(row.version) if row.version else "an unknown version")
    if row.deployment is not None:
        ran = format_html("{} in {}", ran, row_link(row.deployment, "this deployment"))
    agent, when = row_link(row.agent), relative_time(row.captured_at)
    stopped = find_stop(row) if may_read else None
    if stopped is not None:
        return format_html(
            "Stage <code>{}</code> stopped at record {} on {}, {}.", stopped["stage"], f"{stopped['sequence']:,}",
            agent, format_html("{}, {}", ran, when),
        )  # fmt: skip
    trigger = (row.metadata or {}).get("trigger")
    why = Truncator(trigger).chars(200) if isinstance(trigger, str) else "Captured"
    return format_html("{} on {}, {}, {}.", why, agent, ran, when)


def find_stop(row: Artifact) -> dict[str, Any] | None:
    """Return the stage that stopped the pipeline, and at which record; None if no stage did or this cannot be read."""
    try:
        with captures.open_file(row, "outcome.json") as source:
            text = source.read(_MAX_OUTCOME)
        stopped: dict[str, Any] | None = strict_json.read(text, strict_json.JsonLimits())["stopped"]
    except (DomainError, OSError, strict_json.MalformedJson):
        return None
    return stopped


def artifact_facts(row: Artifact) -> list[tuple[str, object]]:
    """Return the artifact's origin, size and first 8 metadata entries as labels and values, without unknown ones."""
    deployed = row.deployment and row.deployment.config_bundle
    facts = [
        ("Agent", row_link(row.agent)),
        ("Version", row.version and row_link(row.version)),
        ("Deployment", deployed and row_link(row.deployment, f"{deployed.version}, {deployed}")),
        ("Captured", relative_time(row.captured_at)),
        ("Size", byte_count(row.size_bytes)),
        ("Content hash", short_id(row.content_hash)),
        *((str(key), Truncator(str(value)).chars(200)) for key, value in list(row.metadata.items())[:8]),
    ]
    return [(label, value) for label, value in facts if value]


def runs_panel(row: Artifact) -> dict[str, Any]:
    """Return the panel of an artifact's newest bisects and newest replays, except the replays of bisects."""
    bisects = without_large(row.bisects.select_related("first_bad"), {"error"})
    found: list[Replay | Bisect] = [
        *without_large(row.replays.filter(bisect=None).select_related("version")).order_by("-id")[:_RUNS],
        *with_small_values(bisects, {"versions"}).order_by("-id")[:_RUNS],
    ]
    rows = [
        (
            row_link(each, f"Replay through {each.version}")
            if isinstance(each, Replay)
            else with_note(row_link(each, "Bisect"), bisect_headline(each)),
            state_pill(each.status),
            with_note(relative_time(each.created_at), each.requested_by),
        )
        for each in sorted(found, key=lambda each: each.pk, reverse=True)
    ]
    columns = ("Replay or bisect", "Status", "Requested")
    return {"title": "Replays and bisects", "columns": columns, "rows": rows, "empty": "No replays or bisects yet."}


def files_panel(row: Artifact) -> dict[str, Any]:
    """Return the panel of the capture's files."""
    panel: dict[str, Any] = {"title": "Files", "rows": [], "empty": ""}
    try:
        listed = captures.list_files(row)
    except DomainError as error:
        return {**panel, "empty": error.detail}
    rows = [
        (_file(row, each["path"]), f"{each['size']:,}", short_id(each["sha256"]), _download(row, each["path"]))
        for each in listed[:_FILES]
    ]
    if len(listed) > _FILES:
        panel["lead"] = f"Only the first {_FILES} of {len(listed):,} files are shown."
    return {**panel, "columns": ("Path", "Bytes", "SHA-256", ""), "rows": rows}


def _file(row: Artifact, path: str) -> str:
    lane = _lane(path)
    return query_link(row, path, at=_JOURNAL, lane=lane) if lane else path


def _lane(path: str) -> str:
    lane = path.removeprefix("journal/").removesuffix(".bin")
    return lane if path == f"journal/{lane}.bin" else ""


def find_lanes(row: Artifact) -> list[str]:
    """Return the lanes of the capture's journals. Raises the errors of ``captures.list_files``."""
    return [lane for each in captures.list_files(row) if (lane := _lane(each["path"]))]


def _download(row: Artifact, path: str) -> str:
    url = page_url(Artifact, "content", row.pk, query={"path": path})
    return format_html('<a class="text-link" href="{}" aria-label="Download {}">Download</a>', url, path)


def journal_panel(request: HttpRequest, row: Artifact) -> dict[str, Any] | None:
    """Return a page of the journal that the query names, or of the first one.

    Returns None if the files cannot be listed, or if the query names no journal and there is none.
    """
    try:
        lanes = find_lanes(row)
    except DomainError:
        return None  # the files panel shows the error
    lane = request.GET.get("lane", "") or next(iter(lanes), "")
    if not lane:
        return None
    as_hex = request.GET.get("as") == "hex"
    begin = _begin(request)
    panel: dict[str, Any] = {
        "id": _JOURNAL, "lane": lane, "rows": [], "hex": as_hex, "asked": request.GET, "lanes": lanes, "empty": "",
    }  # fmt: skip
    if begin is None:
        return {**panel, "empty": "Enter the sequence as a whole number, or the time as in 2026-11-01T10:00:00Z."}
    try:
        compute = compute_for(request)
        page = captures.read_journal(row, lane, read_page, limit=_PAGE, has_bytes=as_hex, compute=compute, **begin)
    except DomainError as error:
        return {**panel, "empty": error.detail}
    found = page["results"]
    rows = [
        {
            "sequence": f"{each['sequence']:,}",
            "size": f"{each['size']:,}",
            "time": each["time"],
            "truncated": each["truncated"],
            "text": "" if as_hex else payload_text(each),
            "dump": _dump(each) if as_hex else "",
            "is_asked": each["sequence"] == begin.get("sequence"),
        }
        for each in found
    ]
    before = found[0]["position"] - _PAGE - 1 if found else 0
    return {
        **panel,
        "rows": rows,
        "total": f"{page['total']:,}",
        "first": f"{found[0]['position'] + 1:,}" if found else "0",
        "last": f"{found[-1]['position'] + 1:,}" if found else "0",
        "previous": {"after": before if before >= 0 else None} if found and found[0]["position"] else None,
        "next": page["next_after"],
        "empty": "There are no records from here on.",
    }


def _begin(request: HttpRequest) -> dict[str, Any] | None:
    """Return the start of the journal's page as an argument for ``read_journal``; {} if not given, None if invalid."""
    for name, read in (("sequence", number), ("time", moment), ("after", number)):
        if request.GET.get(name, "").strip():
            value = read(request, name)
            return None if value is None else {name: value}
    return {}


def _dump(record: dict[str, Any]) -> str:
    return hex_dump(hex_rows(b64decode(record["payload_base64"])[: HEX_ROWS * HEX_WIDTH], None))
