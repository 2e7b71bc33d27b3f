"""The incidents panel of an environment's page, with the newest captures."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.html import format_html

from apps.artifacts.models import Artifact
from apps.artifacts.services import folders
from apps.console.frame import row_link, state_pill
from apps.console.frame.columns import list_url
from apps.console.frame.scope import with_scope
from apps.console.pages.artifacts.page import artifact_headline, is_capture
from apps.tenancy.models import Environment
from byteor_cloud.database.large_columns import with_small_values
from byteor_cloud.ids import smallest_uuid7

_SHOWN, _DAYS, _COUNTED = 5, 7, 100


def incidents_panel(environment: Environment, visible: QuerySet[Artifact], *, may_read: bool) -> dict[str, Any]:
    """Return the panel. ``may_read``: whether the person may see captured records."""
    found = with_small_values(
        visible.filter(environment=environment, kind=Artifact.Kind.INCIDENT_BUNDLE), {"metadata", "reasons"}
    )
    # Ids increase with time, so the index on environment, kind and id serves both queries.
    since = smallest_uuid7(timezone.now() - timedelta(days=_DAYS))
    count = found.filter(pk__gte=since).order_by().values("pk")[: _COUNTED + 1].count()
    url = f"{list_url(Artifact)}?environment__id__exact={environment.pk}&kind__exact={Artifact.Kind.INCIDENT_BUNDLE}"
    number = f"More than {_COUNTED}" if count > _COUNTED else count or "None"
    return {
        "title": "Incidents",
        "lead": f"{number} in the last {_DAYS} days." if count else "",
        "url": with_scope(url, environment),
        "columns": ("What happened", "Capture"),
        "rows": [
            (
                _sentence(each, environment, may_read=may_read),
                format_html("{} {}", row_link(each, "Open"), state_pill(each.status)),
            )
            for each in found.order_by("-pk")[:_SHOWN]
        ],
        "empty": "No captures yet. Agents upload a capture when a stage stops or when somebody requests one.",
    }


def _sentence(row: Artifact, environment: Environment, *, may_read: bool) -> str:
    row.environment = environment  # saves a query for the environment and its project
    # Read only captures that are already unpacked, because unpacking others would delay the page.
    is_kept = folders.find(environment.project.organization_id, row.pk) is not None
    return artifact_headline(row, may_read=may_read and is_capture(row) and is_kept)
