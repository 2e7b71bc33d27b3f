"""How drafts and versions look in the API."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.pipelines.models import Draft, Version
from apps.tenancy.api.fields import Id, JSONObject, ModelSerializer, Name, Strict


class DiagnosticSerializer(serializers.Serializer[Any]):
    """What the compiler says of a place in the plan."""

    severity = serializers.ChoiceField(["error", "warning", "info"])
    code = serializers.CharField()
    pointer = serializers.CharField(allow_blank=True)
    message = serializers.CharField()
    hint = serializers.CharField(allow_blank=True, allow_null=True)


@extend_schema_field({"anyOf": [{"$ref": "#/components/schemas/Plan"}, {"type": "object"}]})
class Plan(JSONObject):
    """A plan: any JSON object may be saved; the diagnostics say what is wrong with it."""


class DraftSerializer(ModelSerializer):
    name = Name()
    plan = Plan()
    diagnostics = DiagnosticSerializer(many=True, read_only=True)
    spec_hash = serializers.CharField(read_only=True, allow_null=True)

    class Meta:
        model = Draft
        fields = [
            "id", "environment_id", "name", "plan", "revision", "diagnostics", "spec_hash", "created_at",
            "created_by", "updated_at", "updated_by",
        ]  # fmt: skip
        read_only_fields = ["created_by", "updated_by"]


class PreviewRequestSerializer(Strict):
    """A plan to preview instead of the saved one."""

    plan = Plan(required=False)


class GraphSerializer(serializers.Serializer[Any]):
    nodes = serializers.ListField(child=serializers.DictField())
    edges = serializers.ListField(child=serializers.DictField())


class PreviewSerializer(serializers.Serializer[Any]):
    """The compiler's whole answer; nothing of it was persisted."""

    ok = serializers.BooleanField()
    target = serializers.ChoiceField(["single_ring", "lane_graph"], allow_null=True)
    spec_kv = serializers.CharField(allow_null=True)
    spec_hash = serializers.CharField(allow_null=True)
    spec = serializers.DictField(allow_null=True)
    diagnostics = DiagnosticSerializer(many=True)
    graph = GraphSerializer(allow_null=True)
    dot = serializers.CharField(allow_null=True)


class PromoteSerializer(Strict):
    expected_revision = serializers.IntegerField(required=False, min_value=1, max_value=999_999_999)


class VersionSerializer(ModelSerializer):
    plan = serializers.DictField()
    spec = serializers.DictField()
    origin = serializers.UUIDField(source="origin_id", allow_null=True)

    class Meta:
        model = Version
        fields = [
            "id", "environment_id", "name", "number", "draft_id", "draft_revision", "plan", "spec", "spec_kv",
            "spec_hash", "compiler_version", "created_by", "created_at", "origin",
        ]  # fmt: skip


@extend_schema_field({"type": ["string", "integer", "null"]})
class Fact(serializers.JSONField):
    pass


class ChangeSerializer(serializers.Serializer[Any]):
    change = serializers.ChoiceField(["added", "removed", "changed"])
    what = serializers.ChoiceField(
        ["pipeline", "endpoint", "stage", "op", "order", "dependency", "lane", "inserted", "policy"]
    )
    name = serializers.CharField()
    old = Fact()
    new = Fact()


class DiffSerializer(serializers.Serializer[Any]):
    """What changed, by meaning and as a unified diff of the KV texts."""

    against = serializers.UUIDField()
    changes = ChangeSerializer(many=True)
    unified = serializers.CharField(allow_blank=True)


class CopyVersionSerializer(Strict):
    from_version_id = Id()
