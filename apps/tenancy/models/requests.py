"""Request counters for rate limits, and stored responses for idempotency keys and submitted forms."""

from __future__ import annotations

from typing import Any, Self

from django.db import models
from django.utils import timezone

from apps.tenancy.models.sealed_field import SealedField


class RateCounter(models.Model):
    """The count of a rate limit: requests in one minute, or wrong sign-in codes in one hour.

    The table is UNLOGGED, so a crash of the database empties it.
    """

    key = models.CharField(max_length=100, primary_key=True)
    minute = models.BigIntegerField()
    count = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.key}: {self.count}"


class IdempotencyKeyQuerySet(models.QuerySet[Any]):
    def expired(self) -> Self:
        """Keep only expired keys."""
        return self.filter(expires_at__lte=timezone.now())


class IdempotencyKey(models.Model):
    """The encrypted first 2xx response to an ``Idempotency-Key``, saved in the transaction of the request.

    The console stores its submitted forms and their results in this table as well (``services/sent_forms.py``).
    """

    caller = models.CharField(max_length=100)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    response = SealedField(context="idempotency:{row.caller}:{row.key}", noun="stored response")
    expires_at = models.DateTimeField()

    objects = IdempotencyKeyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["caller", "key"], name="tenancy_idempotencykey_unique"),
        ]

    def __str__(self) -> str:
        return self.key
