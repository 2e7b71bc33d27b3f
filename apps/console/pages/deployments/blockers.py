"""The panel of a deployment's page that lists the deployment's blockers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.utils.html import format_html, format_html_join

from apps.console.frame import state_pill
from apps.console.frame.columns import page_url, text_link, time_of_deadline
from apps.releases.models import Deployment
from byteor.engine.blockers import NAMED, Blocker, BlockerCode


def blockers_panels(found: Sequence[Blocker]) -> list[dict[str, Any]]:
    """Return a list with the panel of blockers, or an empty list. A hold is left out, because a banner shows it."""
    rows = [
        (
            state_pill(blocker.code),
            blocker.detail,
            format_html(_describe_until(blocker.code), time_of_deadline(blocker.until)) if blocker.until else "",
            format_html_join(", ", "{}", ((_link(pk),) for pk in blocker.ids[:NAMED])),
        )
        for blocker in found
        if blocker.code != BlockerCode.WAVE_HOLD
    ]
    return [{"title": "Waiting for", "rows": rows}] if rows else []


def _describe_until(code: BlockerCode) -> str:
    """Return a phrase for the time ``until`` of a blocker, with a placeholder for the time."""
    if code is BlockerCode.START_AT:
        return "starts {} at the earliest"
    return "otherwise the deployment fails {}" if code.is_of_gate else "until {}"


def _link(pk: UUID) -> str:
    return text_link(page_url(Deployment, "change", pk), "deployment")
