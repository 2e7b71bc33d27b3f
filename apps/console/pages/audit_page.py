"""The page of an audit event: what happened, by whom and where, and the changed values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from apps.console.frame.columns import (
    SERVICE,
    exact_time,
    list_url,
    relative_time,
    row_link,
    state_pill,
    text_link,
    with_note,
)
from apps.console.frame.console_user import console_user_of
from apps.console.frame.personal import visible_row
from apps.console.frame.scope import with_scope
from apps.console.frame.site import site
from apps.console.pages.audit_sentences import (
    PLACE,
    SUBJECT,
    describe_event,
    describe_subject,
    noun_of,
    resource_model,
    with_subjects,
)
from apps.fleet.models import Agent, EnrollmentToken
from apps.tenancy.models import AuditEvent, OrganizationKey, User

_SHOWN = 10
_ACTORS: Final[Mapping[str, type[Model]]] = {
    "user": User,
    "organization_key": OrganizationKey,
    "agent": Agent,
    "enrollment_token": EnrollmentToken,
}
_ACTOR_NOUNS: Final = {"user": "person", "organization_key": "API key"}
# Fields whose value can be a list. If such a list has two elements, they are not the values before and after the event.
_LISTS: Final = frozenset({"baselines", "fixtures", "groups", "names", "proofs", "reasons", "unset"})


def event_summary(request: HttpRequest, row: AuditEvent, visible: QuerySet[AuditEvent]) -> dict[str, Any]:
    """Return the facts and panels of the event's page. ``visible`` are the events that the person may see."""
    named = with_subjects(AuditEvent.objects.filter(pk=row.pk)).get()
    panels = [
        {"title": "Changes", "wide": True, "id": "changes", **_changes(row), "empty": "No changed values are recorded."}
    ]
    if row.request_id:
        panels.append(_same_request(request, row, visible))
    return {"facts": _facts(request, named), "panels": panels}


def _facts(request: HttpRequest, row: AuditEvent) -> list[tuple[str, Any]]:
    console_user = console_user_of(request)
    facts = [
        ("Event", describe_event(row, console_user)),
        ("Time", with_note(exact_time(row.timestamp), relative_time(row.timestamp))),
        ("Actor", _actor(request, row)),
        ("Resource", _resource(request, row)),
        ("In", getattr(row, PLACE) or row.organization or "the installation"),
        ("Outcome", state_pill(row.outcome)),
    ]
    if row.request_id:
        link = text_link(_url(row, request=row.request_id), "All events of this request")
        facts.append(("Request", format_html('<code class="payload">{}</code> {}', row.request_id, link)))
    return facts


def _url(row: AuditEvent, **filters: str) -> str:
    """Return the URL of the list of events with these filters, limited to the event's organization if it has one."""
    return with_scope(f"{list_url(AuditEvent)}?{urlencode(filters)}", row.organization, explicit=True)


def _actor(request: HttpRequest, row: AuditEvent) -> str:
    """Return the actor with links to its events and, if the person may see it, its page. The service has no links."""
    if row.actor_kind == "system":
        return SERVICE
    noun = _ACTOR_NOUNS.get(row.actor_kind) or row.actor_kind.replace("_", " ")
    found = _visible(request, _ACTORS.get(row.actor_kind), row.actor_id)
    shown = row.actor_display if found is None else row_link(found, row.actor_display)
    events = text_link(_url(row, actor=row.actor_id), f"All events of this {noun}")
    return format_html('{}<div class="note">{}</div>', shown, events)


def _resource(request: HttpRequest, row: AuditEvent) -> str:
    """Return the resource with a link to its page, if the person may see it, and a link to its events."""
    found = _visible(request, resource_model(row.resource_kind), row.resource_id)
    name = getattr(row, SUBJECT, None)
    if not name:
        shown = describe_subject(row, console_user_of(request))
    else:
        shown = name if found is None else row_link(found, name)
    events = text_link(
        _url(row, kind=row.resource_kind, resource=row.resource_id), f"All events of this {noun_of(row.resource_kind)}"
    )
    return format_html('{}<div class="note">{}</div><div class="note">{}</div>', shown, row.resource_id, events)


def _visible(request: HttpRequest, model: type[Model] | None, pk: str) -> Any:
    """Return the row with this id if the person may see it; otherwise None."""
    if model is None or not (admin := site.get_model_admin(model)).has_view_permission(request):
        return None
    return visible_row(admin, console_user_of(request), pk)


def _same_request(request: HttpRequest, row: AuditEvent, visible: QuerySet[AuditEvent]) -> dict[str, Any]:
    console_user = console_user_of(request)
    others = with_subjects(visible.filter(request_id=row.request_id).exclude(pk=row.pk)).order_by("id")[:_SHOWN]
    return {
        "title": "Other events of this request",
        "wide": True,
        "id": "same-request",
        "url": _url(row, request=row.request_id),
        "columns": ("Event", "Time"),
        "rows": [
            (
                format_html("{} {}", describe_event(each, console_user), row_link(each, "Details")),
                exact_time(each.timestamp),
            )
            for each in others
        ],
        "empty": "There are no other events that you can see.",
    }


def _changes(row: AuditEvent) -> dict[str, Any]:
    """Return the columns and rows of the table of changed values."""
    rows = []
    for name, value in row.changes.items():
        is_list = name in _LISTS or (row.action, name) == ("deployment.create", "reviewers")
        is_pair = isinstance(value, list) and len(value) == 2 and not is_list
        before, after = value if is_pair else (None, value)
        rows.append((name.replace("_", " "), _value(before), _value(after)))
    return {"columns": ("Field", "Before", "After"), "rows": rows}


def _value(value: Any) -> str:
    """Return a value as text, a list or an object as indented JSON, and a digest as the size and hash of the value."""
    if value is None or value == "":
        return "-"
    if isinstance(value, dict) and value.keys() == {"size", "sha256"}:
        return format_html(
            'Too large to record: {} bytes<div class="note">{}</div>', f"{value['size']:,}", value["sha256"]
        )
    if isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
        return format_html('<code class="payload">{}</code>', text)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
