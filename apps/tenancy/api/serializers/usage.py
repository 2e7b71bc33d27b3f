"""The quotas and the usage of an organization."""

from __future__ import annotations

from datetime import date
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


@extend_schema_field({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$", "example": "2026-11"})
class MonthField(serializers.Field[date, Any, str, Any]):
    """A calendar month in UTC."""

    def to_representation(self, value: date) -> str:
        return f"{value:%Y-%m}"


class LimitsSerializer(serializers.Serializer[Any]):
    agents = serializers.IntegerField(allow_null=True)
    stored_bytes = serializers.IntegerField(allow_null=True)
    captures_per_day = serializers.IntegerField(allow_null=True)
    drafts = serializers.IntegerField(allow_null=True)
    descriptions = {
        "agents": "The maximum number of enrolled agents. Null if there is no quota.",
        "stored_bytes": "The maximum number of stored bytes. Null if there is no quota.",
        "captures_per_day": (
            "The maximum number of captures per day (UTC), counted as in `used`. When it is reached, agents cannot "
            "upload new incident bundles. Null if there is no quota."
        ),
        "drafts": "The maximum number of drafts. Null if there is no quota.",
    }


class UsedSerializer(serializers.Serializer[Any]):
    agents = serializers.IntegerField()
    stored_bytes = serializers.IntegerField()
    captures_per_day = serializers.IntegerField()
    drafts = serializers.IntegerField()
    descriptions = {
        "agents": "The number of enrolled agents. Decommissioned and replaced agents do not count.",
        "stored_bytes": "The size in bytes of all artifacts, the data derived from them, and all deploy bundles. Equal "
        "content counts once for each artifact.",
        "captures_per_day": (
            "The number of incident bundles that agents have uploaded today (UTC), including rejected ones, plus the "
            "number of reduced captures that were created for fixtures today."
        ),
        "drafts": "The number of drafts.",
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
        "agents": "The highest number of enrolled agents, counted once a minute. Null if there is no count.",
        "heartbeats": "The number of stored heartbeats. Each server process adds its count at most once a minute. When "
        "a process stops, its heartbeats since the last addition are not counted.",
        "uploaded_bytes": "The size in bytes of all new artifacts, including those that have been deleted since.",
        "stored_bytes": "The highest number of stored bytes, counted once a minute. Null if there is no count.",
        "replays": "The number of requested replays, including those of bisects.",
        "work": "The work of all replays that produced a result, including those of regressions, in units. For each "
        "record that is a JSON object, a stage that checks a schema counts at least the number of the schema's "
        "keywords times the number of JSON values in the record. Any stage that checks no schema counts at least one "
        "unit, plus one for each full KiB of the record.",
    }


class UsageSerializer(serializers.Serializer[Any]):
    month = MonthField()
    limits = LimitsSerializer()
    used = UsedSerializer()
    by_month = MonthOfUsageSerializer(many=True)
    descriptions = {
        "month": "The current month in UTC.",
        "limits": "The quotas, which only installation operators can set.",
        "used": "The current usage. Deleted projects and environments do not count, except in `captures_per_day`.",
        "by_month": "The usage in the current month and in up to 12 earlier months, newest first. Earlier months in "
        "which nothing was counted are omitted. Counting started with the release that added this operation.",
    }
