"""The id of the installation's master key, and the hosts that run servers."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from byteor_cloud.ids import uuid7


class MasterKey(models.Model):
    """The id (``vault.key_id``) of the master key under which all values are encrypted. The table has at most one row.

    A rotation of the key waits for all transactions that encrypt values, because these hold share locks on the row.
    """

    ONLY = 1

    id = models.SmallIntegerField(primary_key=True, default=ONLY)
    key_id = models.CharField(max_length=16)
    previous_key_id = models.CharField(max_length=16, null=True)
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="tenancy_masterkey_only_row"),
        ]

    def __str__(self) -> str:
        return self.key_id


class Host(models.Model):
    """A ``serve`` process: its host and mode, the ids of its master keys, and when it last reported that it runs."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=255)
    data_dir = models.CharField(max_length=4096)
    mode = models.CharField(max_length=10)
    # Whether the keys are files in the data folder instead of settings. Such an installation has only one data folder,
    # which also contains the database.
    has_key_files = models.BooleanField()
    key_id = models.CharField(max_length=16, blank=True)
    previous_key_id = models.CharField(max_length=16, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    last_seen = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.name} ({self.mode}, {self.data_dir})"
