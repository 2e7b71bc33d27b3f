"""The CSV file of the audit events that a list shows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from html import unescape
from typing import Final

from django.db.models import QuerySet
from django.utils.html import strip_tags

from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.large import MOST_LISTED
from apps.console.pages.audit_sentences import PLACE, describe_event, with_subjects
from apps.tenancy.models import AuditEvent, Organization
from apps.tenancy.permissions import Permission

MOST_ROWS: Final = MOST_LISTED
_PAGE: Final = 500
# A spreadsheet treats a cell that begins with one of these as a formula. The last four are full-width signs, which only
# some spreadsheets accept.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_COLUMNS: Final = (
    "time", "event", "outcome", "action", "actor_kind", "actor", "actor_id", "resource_kind", "resource_id",
    "in", "project_id", "environment_id", "request_id", "ip", "changes", "id",
)  # fmt: skip


def csv_lines(events: QuerySet[AuditEvent], console_user: ConsoleUser) -> Iterator[str]:
    """Yield the lines of a CSV file with the newest ``MOST_ROWS`` events, read page by page.

    If there are more events, the last line says so. Only installation operators and the admins of an event's
    organization get its IP address.
    """
    yield _line(_COLUMNS)
    # The list defers the changes, and each event would need a query for them.
    count, rows = 0, with_subjects(events).defer(None).order_by("-pk")
    page = list(rows[:_PAGE])
    while page and count < MOST_ROWS:
        for each in page[: MOST_ROWS - count]:
            yield _line(_cells(each, console_user))
        count += len(page)
        page = list(rows.filter(pk__lt=page[-1].pk)[:_PAGE])
    if page or count > MOST_ROWS:
        yield _line([f"This file contains only the newest {MOST_ROWS:,} events. Narrow the filters to get older ones."])


def _cells(event: AuditEvent, console_user: ConsoleUser) -> Iterator[object]:
    organization = Organization(pk=event.organization_id)
    may_see_ip = Permission.MANAGE_ORG_MEMBERSHIPS in console_user.permissions(organization)
    sentence = unescape(strip_tags(describe_event(event, console_user)))
    yield from (event.timestamp.isoformat(), sentence, event.outcome, event.action)
    yield from (event.actor_kind, event.actor_display, event.actor_id, event.resource_kind, event.resource_id)
    yield from (getattr(event, PLACE), event.project_id, event.environment_id, event.request_id)
    yield event.ip if may_see_ip else None
    yield json.dumps(event.changes, ensure_ascii=False, sort_keys=True)
    yield event.pk


def _line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(_escape("" if each is None else str(each)) for each in cells)
    return text.getvalue()


def _escape(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
