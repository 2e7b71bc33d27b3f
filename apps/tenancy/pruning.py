"""Rows that are over: found by a query, removed in batches, each a transaction of its own."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

AT_ONCE = 1000


def delete_in_batches(over: QuerySet[Any]) -> int:
    """Delete the rows of ``over``, at most 1,000 in a transaction; return how many of them went."""
    removed = 0
    while keys := list(over.order_by("pk").values_list("pk", flat=True)[:AT_ONCE]):
        # Asked once more, since a row may have come into use meanwhile.
        _, by_model = over.filter(pk__in=keys).delete()
        count = by_model.get(over.model._meta.label, 0)
        if not count:  # the rest is in use now
            break
        removed += count
    return removed
