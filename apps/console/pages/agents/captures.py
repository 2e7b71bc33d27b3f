"""The act that requests a capture from an agent, and the panel with the agent's last requests."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import F
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextareaWidget

from apps.artifacts.api import commands
from apps.artifacts.api.serializers.requested_captures import MAX_LAST_N, MAX_REASON, RequestCaptureSerializer
from apps.artifacts.models import Artifact, RequestedCapture
from apps.artifacts.services import requested_captures
from apps.console.frame import Act, ActContext, relative_time, row_link, state_pill, with_note
from apps.console.frame.columns import page_url, text_link
from apps.console.frame.forms import ActForm

_SHOWN = 5


class _CaptureForm(ActForm):
    rules = RequestCaptureSerializer

    reason = forms.CharField(
        max_length=MAX_REASON, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Why the capture is needed. It is stored with the capture.",
    )  # fmt: skip
    last_n = forms.IntegerField(
        required=False, label="Last records", min_value=1, max_value=MAX_LAST_N, widget=UnfoldAdminIntegerFieldWidget,
        help_text="How many records to capture from the end of the input. By default, all that the agent has.",
    )  # fmt: skip


def _request(agent: Any, context: ActContext) -> RequestedCapture:
    values = context.values
    return requested_captures.request(agent, reason=values["reason"], last_n=values.get("last_n"), actor=context.actor)


REQUEST_CAPTURE = Act.of(
    commands.capture,
    label="Request capture",
    done="{} created",
    explain="The agent uploads a capture of the pipeline that it runs, after its next heartbeat. The request expires "
    "after an hour.",
    run=_request,
    form=_CaptureForm,
    icon="screenshot_monitor",
)


def captures_panel(agent: Any) -> dict[str, Any]:
    """Return the panel with the latest captures that were requested from the agent."""
    rows = RequestedCapture.objects.filter(agent=agent).annotate(kind=F("artifact__kind")).order_by("-id")
    return {
        "title": "Requested captures",
        "columns": ("Requested", "Status", "Reason", "Artifact"),
        "rows": [
            (
                with_note(row_link(row, "Request"), relative_time(row.created_at)),
                state_pill(row.status),
                row.reason,
                artifact_link(row),
            )
            for row in rows[:_SHOWN]
        ],
        "empty": "No capture has been requested from this agent in the last 90 days.",
    }


def artifact_link(row: Any) -> str:
    """Return a link to the uploaded artifact, named by its kind; "-" without an artifact. The row has its ``kind``."""
    if row.artifact_id is None:
        return "-"
    return text_link(page_url(Artifact, "change", row.artifact_id), Artifact.Kind(row.kind).label.capitalize())
