"""Quotas and usage of an organization."""

from __future__ import annotations

from datetime import date
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


@extend_schema_field({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$", "example": "2026-11"})
class MonthField(serializers.Field[date, Any, str, Any]):
    """A month of the calendar, in UTC."""

    def to_representation(self, value: date) -> str:
        return f"{value:%Y-%m}"


class LimitsSerializer(serializers.Serializer[Any]):
    agents = serializers.IntegerField(allow_null=True)
    stored_bytes = serializers.IntegerField(allow_null=True)
    captures_per_day = serializers.IntegerField(allow_null=True)
    drafts = serializers.IntegerField(allow_null=True)
    descriptions = {
        "agents": "The most enrolled agents. Null if there is no quota.",
        "stored_bytes": "The most stored bytes. Null if there is no quota.",
        "captures_per_day": "The most incident bundles that agents may upload in a day (UTC). Null if there is none.",
        "drafts": "The most drafts. Null if there is no quota.",
    }


class UsedSerializer(serializers.Serializer[Any]):
    agents = serializers.IntegerField()
    stored_bytes = serializers.IntegerField()
    captures_per_day = serializers.IntegerField()
    drafts = serializers.IntegerField()
    descriptions = {
        "agents": "The enrolled agents. Decommissioned and superseded agents do not count.",
        "stored_bytes": "The size of all artifacts, of what is derived from them, and of all deploy bundles. Equal "
        "content counts once for each artifact.",
        "captures_per_day": "The incident bundles that agents have uploaded today in UTC, including rejected ones.",
        "drafts": "The drafts.",
    }


class MonthOfUsageSerializer(serializers.Serializer[Any]):
    month = MonthField()
    agents = serializers.IntegerField(allow_null=True)
    heartbeats = serializers.IntegerField()
    uploaded_bytes = serializers.IntegerField()
    stored_bytes = serializers.IntegerField(allow_null=True)
    replays = serializers.IntegerField()
    work = serializers.IntegerField()
    descriptions = {
        "month": "The month in UTC.",
        "agents": "The most enrolled agents that a count each minute found. Null if unknown.",
        "heartbeats": "The heartbeats that were stored. Each server process adds its own once a minute; when it ends, "
        "those since the last time are not counted.",
        "uploaded_bytes": "The size of all new artifacts, also of those that were deleted since.",
        "stored_bytes": "The most stored bytes that a count each minute found. Null if unknown.",
        "replays": "The replays that were requested, including those of bisects.",
        "work": "The units of work of the replays that ended with a result: about one for each record, stage and KiB.",
    }


class UsageSerializer(serializers.Serializer[Any]):
    month = MonthField()
    limits = LimitsSerializer()
    used = UsedSerializer()
    by_month = MonthOfUsageSerializer(many=True)
    descriptions = {
        "month": "The present month in UTC.",
        "limits": "The quotas. Only operators of the installation set them.",
        "used": "What the organization uses now. What belongs to a deleted project or environment does not count.",
        "by_month": "The present month and up to 12 before, newest first, without months in which nothing was counted. "
        "Counting began with the release that added this operation.",
    }
