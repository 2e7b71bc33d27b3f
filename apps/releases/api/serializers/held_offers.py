"""The serializer of an environment's held offers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class HeldOffersSerializer(serializers.Serializer[Any]):
    """The offers of an environment that have been held since the installation was restored from a backup."""

    agents = serializers.IntegerField()
    backup_at = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "agents": "The number of agents whose offers are held. These agents keep running what they run.",
        "backup_at": "When the backup was made. Null if no offers are held.",
    }
