"""The incidents panel of an environment's page: the captures of the last days, grouped by what happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import CharField, Exists, OuterRef, QuerySet, Subquery
from django.db.models.functions import Cast
from django.utils.html import format_html, format_html_join

from apps.artifacts.models import Artifact, RequestedCapture
from apps.artifacts.services.incidents import TYPES
from apps.console.frame import relative_time, with_note
from apps.console.frame.columns import list_url, page_url, text_link
from apps.console.frame.scope import with_scope
from apps.pipelines.models import Version
from apps.tenancy.models import Environment, MessageEvent
from byteor.engine.counted import count_of
from byteor.engine.machines import ArtifactStatus
from byteor_cloud.ids import smallest_uuid7

_DAYS, _READ, _SHOWN = 7, 100, 10  # days of the panel, captures that are grouped, groups that are shown
_VERSIONS = 3  # versions that a group names


@dataclass(slots=True)
class _Group:
    """A summary of the captures for which ``_describe`` returns the same phrase."""

    newest: UUID
    last: datetime
    first: datetime
    count: int = 0
    versions: dict[UUID, int] = field(default_factory=dict)  # the version numbers by version id


def incidents_panel(environment: Environment, visible: QuerySet[Artifact], *, now: datetime) -> dict[str, Any]:
    """Return the panel, with a row for each of the first groups of captures."""
    rows = list(_read(environment, visible, now))
    url = f"{list_url(Artifact)}?environment__id__exact={environment.pk}&kind__exact={Artifact.Kind.INCIDENT_BUNDLE}"
    lead = f"{count_of(len(rows), 'capture')} uploaded in the last {_DAYS} days."
    if len(rows) > _READ:
        lead = f"More than {_READ} captures uploaded in the last {_DAYS} days. Only the newest {_READ} are grouped."
    groups = _group(rows[:_READ])
    return {
        "title": "Incidents",
        "id": "incidents",
        "wide": True,
        "lead": lead if rows else "",
        "url": with_scope(url, environment),
        "columns": ("What happened", "Captures", "Versions", "First", "Last"),
        "rows": [
            (
                with_note(what, text_link(page_url(Artifact, "change", group.newest), "Open the newest capture")),
                group.count,
                _versions(group),
                relative_time(group.first),
                relative_time(group.last),
            )
            for what, group in list(groups.items())[:_SHOWN]
        ],
        "empty": f"No captures that were uploaded in the last {_DAYS} days are stored. Agents upload a capture when "
        "somebody requests one, and may upload one when a stage stops.",
    }


def _read(environment: Environment, visible: QuerySet[Artifact], now: datetime) -> Iterable[tuple[Any, ...]]:
    # Ids increase with time, so the index on environment, kind and id finds the newest captures.
    newest = visible.filter(
        environment=environment,
        kind=Artifact.Kind.INCIDENT_BUNDLE,
        origin__isnull=True,  # leave out reduced captures, which nobody uploaded
        pk__gte=smallest_uuid7(now - timedelta(days=_DAYS)),
    ).order_by("-pk")
    events = MessageEvent.objects.filter(resource_id=Cast(OuterRef("pk"), CharField()), type__in=TYPES)
    return newest.values_list(
        "pk", "captured_at", "status", "version", "version__name", "version__number",
        Subquery(events.order_by("-pk").values("data")[:1]),
        Exists(RequestedCapture.objects.filter(artifact=OuterRef("pk"))),
    )[: _READ + 1]  # fmt: skip


def _group(rows: Iterable[tuple[Any, ...]]) -> dict[str, _Group]:
    """Return the groups by a phrase for what happened, the group with the newest capture first."""
    groups: dict[str, _Group] = {}
    for pk, at, status, version, name, number, incident, is_requested in rows:
        what = _describe(status, name, incident, is_requested=is_requested)
        group = groups.setdefault(what, _Group(pk, at, at))
        group.count += 1
        group.first, group.last = min(group.first, at), max(group.last, at)
        if version is not None:
            group.versions[version] = number
    return groups


def _describe(status: str, name: str | None, incident: dict[str, str] | None, *, is_requested: bool) -> str:
    """Return a phrase for what happened. Only stages of the version's spec are named (see ``services.incidents``)."""
    pipeline = name or "an unknown pipeline"
    if status == ArtifactStatus.RECEIVED:
        return "Captures that wait to be checked"
    if status == ArtifactStatus.REJECTED:
        return "Rejected captures"
    if is_requested:
        return f"Requested capture of {pipeline}"
    if incident and incident["stage"]:
        return format_html("Stage <code>{}</code> of {} stopped", incident["stage"], incident["pipeline"])
    # If the pipeline is unknown, the incident names no stage, even if one stopped.
    return f"Incident of {pipeline} without a stopped stage" if name else f"Incident of {pipeline}"


def _versions(group: _Group) -> str:
    shown = sorted(group.versions.items(), key=lambda each: -each[1])
    links = format_html_join(
        ", ", "{}", ((text_link(page_url(Version, "change", pk), f"v{number}"),) for pk, number in shown[:_VERSIONS])
    )
    more = len(shown) - _VERSIONS
    return format_html("{} and {} more", links, more) if more > 0 else links or "unknown"
