"""Serializers of the files and journals of a capture."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


@extend_schema_field({"type": ["object", "array", "string", "number", "boolean", "null"], "items": {}})
class AnyJSONField(serializers.JSONField):
    """Any JSON value."""


class ArtifactFileSerializer(serializers.Serializer[Any]):
    path = serializers.CharField()
    size = serializers.IntegerField()
    sha256 = serializers.CharField()
    descriptions = {
        "path": "The path of the file in the incident bundle.",
        "size": "The size of the file in bytes.",
        "sha256": "The SHA-256 of the file.",
    }


class ArtifactFilesSerializer(serializers.Serializer[Any]):
    results = ArtifactFileSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.CharField(allow_null=True)
    descriptions = {
        "results": "The files of this page, sorted by path.",
        "truncated": "Whether more files follow on the next page.",
        "next_after": "The value of `after` for the next page. Null on the last page.",
    }


class JournalRecordSerializer(serializers.Serializer[Any]):
    position = serializers.IntegerField()
    sequence = serializers.IntegerField()
    time = serializers.CharField()
    size = serializers.IntegerField()
    json = AnyJSONField()
    payload_base64 = serializers.CharField(allow_null=True)
    truncated = serializers.BooleanField()
    descriptions = {
        "position": "The position of the record in sequence order, starting at 0.",
        "sequence": "The sequence number of the record.",
        "time": "The time of the record (RFC 3339), with nanoseconds.",
        "size": "The size of the payload in bytes.",
        "json": "The payload as JSON. Null if it is incomplete or not valid JSON, or if the server refuses the JSON, "
        "for example because of duplicate keys.",
        "payload_base64": (
            "The payload in Base64, at most its first 64 KiB. Null if `json` is not null and contains each number with "
            "the same digits as the payload."
        ),
        "truncated": "Whether only the first 64 KiB of the payload are returned.",
    }


class JournalPageSerializer(serializers.Serializer[Any]):
    lane = serializers.CharField()
    total = serializers.IntegerField()
    results = JournalRecordSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.IntegerField(allow_null=True)
    descriptions = {
        "lane": "The lane whose journal is read.",
        "total": "The number of records in the journal.",
        "results": "The records of this page.",
        "truncated": "Whether the page has fewer than `limit` records because a response is limited to 4 MiB.",
        "next_after": "The value of `after` for the next page. Null on the last page.",
    }
