"""Serializers of what is read of captures and replays: files, journals, traces and comparisons."""

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


class ComparisonSerializer(serializers.Serializer[Any]):
    equal = serializers.BooleanField()
    egress = serializers.DictField()
    stages = serializers.DictField()
    truncated = serializers.BooleanField()
    actions = serializers.DictField()
    notes = serializers.ListField(child=serializers.ListField(child=serializers.DictField()))
    first_difference = serializers.DictField(allow_null=True)
    descriptions = {
        "equal": "Whether egresses, stages and side effects are equal.",
        "egress": "Records and digest of each egress in both replays. Null for a replay without the egress.",
        "stages": "The counters of each stage in both replays. Null for a replay without the stage.",
        "truncated": "Whether parts are left out because a response has at most 4 MiB: first those that are equal. The "
        "`result` of each replay has all of them.",
        "actions": "Whether the side effects are equal, and how many there were.",
        "notes": "The `notes` of both results. Stages named by `no_parameters` let every record pass, so that equal "
        "results say nothing about them.",
        "first_difference": "The first output that differs. Null if none does, or the outputs were not kept.",
    }


class TracedStepSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["ingress", "stage", "lane", "egress"])
    id = serializers.CharField()
    lane = serializers.CharField(allow_null=True)
    json = AnyJSONField()
    payload_base64 = serializers.CharField(allow_null=True)
    truncated = serializers.BooleanField()
    dropped = serializers.CharField(allow_null=True)
    actions = serializers.ListField(child=serializers.DictField())
    descriptions = {
        "kind": "What the record passed.",
        "id": "The name of what the record passed.",
        "lane": "The lane that the record was on.",
        "json": "What the record was after this step, if it is JSON.",
        "payload_base64": "The bytes of the record after this step, at most 64 KiB. Null if it was dropped.",
        "truncated": "Whether the payload is cut.",
        "dropped": "Why the record went no further. Null if it did.",
        "actions": "The side effects that the record reached in this step.",
    }


class TracedRecordSerializer(serializers.Serializer[Any]):
    ingress = serializers.CharField()
    position = serializers.IntegerField()
    steps = TracedStepSerializer(many=True)
    egress = serializers.ListField(child=serializers.CharField())
    descriptions = {
        "ingress": "The ingress of the record.",
        "position": "The position of the record in its journal.",
        "steps": "What the record became, step by step.",
        "egress": "The egresses that the record reached.",
    }


class TraceSerializer(serializers.Serializer[Any]):
    records = TracedRecordSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.IntegerField(allow_null=True)
    descriptions = {
        "records": "Each record with this sequence that has steps on this page.",
        "truncated": "Whether there are more steps, because a response has at most 4 MiB.",
        "next_after": "The value of `after` that continues the trace: the number of the last step of this page. The "
        "steps of all records are counted from 0. Null if `truncated` is false.",
    }
