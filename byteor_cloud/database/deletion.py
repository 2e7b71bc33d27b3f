"""Deletion of many rows in batches, each in a separate transaction."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from byteor_cloud.database.large_columns import without_large

BATCH_SIZE = 1000


def delete_in_batches(expired: QuerySet[Any]) -> int:
    """Delete the rows of ``expired``, at most 1,000 per transaction. Return how many of them were deleted."""
    removed = 0
    while keys := list(expired.order_by("pk").values_list("pk", flat=True)[:BATCH_SIZE]):
        # The whole condition is applied again, because a row may have come into use again after its key was read.
        _, by_model = without_large(expired.filter(pk__in=keys)).delete()
        count = by_model.get(expired.model._meta.label, 0)
        if not count:  # all rows of this batch are in use again or already deleted
            break
        removed += count
    return removed
