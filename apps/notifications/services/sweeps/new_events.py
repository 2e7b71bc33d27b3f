"""Insert the events that a sweep has found."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from apps.tenancy.models import MessageEvent

LOOKED_BACK = timedelta(days=7)
"""How far back the sweeps for clones and failing webhooks look, in case no worker was running.

Events must be kept for longer than this.
"""


def insert(found: Iterable[MessageEvent]) -> None:
    """Insert the events whose keys do not exist yet."""
    events = {event.key: event for event in found}
    known = set(MessageEvent.objects.filter(key__in=list(events)).values_list("key", flat=True))
    new = [event for key, event in events.items() if key not in known]
    MessageEvent.objects.bulk_create(new, ignore_conflicts=True)  # a concurrent sweep may have inserted them
