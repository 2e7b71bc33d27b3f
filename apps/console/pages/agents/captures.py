"""The act that requests a capture from an agent, and the panel with the agent's captures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextareaWidget

from apps.artifacts.api import commands
from apps.artifacts.api.serializers.requested_captures import MAX_LAST_N, MAX_REASON, RequestCaptureSerializer
from apps.artifacts.models import Artifact, Replay, RequestedCapture
from apps.artifacts.services import requested_captures
from apps.console.frame import Act, ActContext, relative_time, state_pill, with_note
from apps.console.frame.columns import list_url, page_url, text_link
from apps.console.frame.forms import ActForm
from apps.console.frame.scope import with_scope
from apps.console.pages.agents.records import AgentRecords, time_of


class _CaptureForm(ActForm):
    rules = RequestCaptureSerializer

    reason = forms.CharField(
        max_length=MAX_REASON, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Why the capture is needed. The reason is stored with the request.",
    )  # fmt: skip
    last_n = forms.IntegerField(
        required=False, label="Last records", min_value=1, max_value=MAX_LAST_N, widget=UnfoldAdminIntegerFieldWidget,
        help_text="How many records to capture from the end of each journal. By default, all that the agent has.",
    )  # fmt: skip


def _request(agent: Any, context: ActContext) -> RequestedCapture:
    values = context.values
    return requested_captures.request(agent, reason=values["reason"], last_n=values.get("last_n"), actor=context.actor)


REQUEST_CAPTURE = Act.of(
    commands.capture,
    label="Request capture",
    done="{} created",
    explain="After its next heartbeat, the agent uploads a capture of the pipeline that it runs, or a diagnostic if it "
    "cannot upload a capture. If neither is uploaded within an hour, the request expires.",
    run=_request,
    form=_CaptureForm,
    icon="screenshot_monitor",
)


def captures_panel(agent: Any, records: AgentRecords) -> dict[str, Any]:
    """Return the panel with the agent's latest incidents and the latest captures that were requested from it."""
    artifacts = {each["artifact_id"] for each in records.requested}
    rows = [(each["created_at"], _requested_row(each)) for each in records.requested]
    rows += [(each["captured_at"], _incident_row(each)) for each in records.incidents if each["id"] not in artifacts]
    return {
        "id": "captures",
        "title": "Captures",
        "wide": True,
        "url": with_scope(f"{list_url(Artifact)}?agent__id__exact={agent.pk}", agent.environment),
        "columns": ("Capture", "Why", "Status", "Latest replay"),
        "rows": [row for _, row in sorted(rows, key=lambda each: each[0], reverse=True)],
        "empty": "No captures. Agents upload a capture when somebody requests one, and may upload one when a "
        "stage stops.",
    }


def _requested_row(each: Mapping[str, Any]) -> tuple[Any, ...]:
    request = text_link(page_url(RequestedCapture, "change", each["id"]), "Requested capture")
    uploaded = each["artifact_id"] is not None
    artifact = (
        text_link(page_url(Artifact, "change", each["artifact_id"]), _kind_label(each["kind"])) if uploaded else ""
    )
    return (
        with_note(request, relative_time(time_of(each["created_at"]))),
        each["why"],
        with_note(state_pill(each["status"]), artifact),
        _replay_link(each["replay"]),
    )


def _incident_row(each: Mapping[str, Any]) -> tuple[Any, ...]:
    link = text_link(page_url(Artifact, "change", each["id"]), "Incident")
    return (
        with_note(link, relative_time(time_of(each["captured_at"]))),
        each["why"] or "-",
        state_pill(each["status"]),
        _replay_link(each["replay"]),
    )


def _replay_link(replay: Mapping[str, Any] | None) -> str:
    if replay is None:
        return "-"
    link = text_link(page_url(Replay, "change", replay["id"]), "Replay")
    return format_html("{} {}", link, state_pill(replay["status"]))


def artifact_link(row: Any) -> str:
    """Return a link to the uploaded artifact, named by its kind (``row.kind``); "-" without an artifact."""
    if row.artifact_id is None:
        return "-"
    return text_link(page_url(Artifact, "change", row.artifact_id), _kind_label(row.kind))


def _kind_label(kind: str) -> str:
    return str(Artifact.Kind(kind).label.capitalize())
