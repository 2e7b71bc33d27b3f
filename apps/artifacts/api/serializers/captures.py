"""Serializers of the files and journals in a capture."""

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
        "path": "The path in the bundle.",
        "size": "The size in bytes.",
        "sha256": "The SHA-256 of the file.",
    }


class ArtifactFilesSerializer(serializers.Serializer[Any]):
    results = ArtifactFileSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.CharField(allow_null=True)
    descriptions = {
        "results": "The files, sorted by path.",
        "truncated": "Whether there are more files than one response lists.",
        "next_after": "The value of `after` that lists the rest. Null if `truncated` is false.",
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
        "position": "The number of the record in sequence order, from 0.",
        "sequence": "The sequence of the record.",
        "time": "The time of the record, with nanoseconds.",
        "size": "The size of the payload in bytes.",
        "json": "The payload, if it is JSON.",
        "payload_base64": "The payload or its first 64 KiB. Null if `json` keeps the digits of each number.",
        "truncated": "Whether the payload is cut.",
    }


class JournalPageSerializer(serializers.Serializer[Any]):
    lane = serializers.CharField()
    total = serializers.IntegerField()
    results = JournalRecordSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.IntegerField(allow_null=True)
    descriptions = {
        "lane": "The lane of the journal.",
        "total": "How many records the journal has.",
        "results": "The records of this page.",
        "truncated": "Whether the page has fewer than `limit` records because a response has at most 4 MiB.",
        "next_after": "The value of `after` for the next page. Null on the last page.",
    }
