"""Helpers for tests of the console's plan editor."""

from __future__ import annotations

from typing import Any

from django.test import Client

from apps.pipelines.models import Draft, Version
from apps.tenancy.models import AuditEvent
from byteor_cloud.json_text import parsed
from tests.browser.filled import table
from tests.worlds import plan

BROKEN = plan(stages=[{"id": "a", "op": "identity"}, {"id": "b", "op": "nonsense", "depends_on": ["a"]}])


def page(row: Draft | Version, name: str) -> str:
    return f"{table(type(row))}{row.pk}/{name}"


def post(client: Client, draft: Draft, name: str, text: str | bytes, **query: Any) -> Any:
    # Send the request as the page's script does.
    headers = {"Accept": "*/*"}
    return client.post(page(draft, f"{name}/"), text, "application/json", query_params=query, headers=headers)


def unchanged(draft: Draft, events: int) -> bool:
    saved = Draft.objects.get(pk=draft.pk)
    return (saved.plan.value, saved.revision, AuditEvent.objects.count()) == (
        parsed(draft.plan),
        draft.revision,
        events,
    )
