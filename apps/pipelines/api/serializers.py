"""Serializers of drafts, versions, diagnostics and diffs."""

from __future__ import annotations

from typing import Any, override

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.pipelines.models import Draft, Version
from byteor_cloud.api.fields import IdField, JSONObjectField, ModelSerializer, NameField, StrictSerializer


class DiagnosticSerializer(serializers.Serializer[Any]):
    """A finding of the compiler at a place in the plan."""

    severity = serializers.ChoiceField(["error", "warning", "info"])
    code = serializers.CharField()
    pointer = serializers.CharField(allow_blank=True)
    message = serializers.CharField()
    hint = serializers.CharField(allow_blank=True, allow_null=True)
    descriptions = {
        "severity": "The severity of the finding. Only `error` prevents the plan from compiling.",
        "code": "A stable code, such as `graph.cycle`.",
        "pointer": "The place in the plan, as a JSON Pointer. Empty for the whole plan.",
        "message": "A description of the finding.",
        "hint": "How to resolve the finding. Empty or null if there is no hint.",
    }


@extend_schema_field({"anyOf": [{"$ref": "#/components/schemas/Plan"}, {"type": "object"}]})
class PlanJSONField(JSONObjectField):
    """A plan. It does not need to compile; the draft's diagnostics describe the errors."""

    @override
    def to_representation(self, value: Any) -> Any:
        """Return the plan unchanged, because the renderer writes a JsonText without parsing it."""
        return value


class StoredObjectField(serializers.DictField):
    """A JSON object in a JsonTextField."""

    @override
    def to_representation(self, value: Any) -> Any:
        """Return the object unchanged, because the renderer writes a JsonText without parsing it."""
        return value


class DraftSerializer(ModelSerializer):
    name = NameField()
    plan = PlanJSONField()
    diagnostics = DiagnosticSerializer(many=True, read_only=True)
    spec_hash = serializers.CharField(read_only=True, allow_null=True)

    descriptions = {
        "name": "The name of the draft, unique in the environment. The name of the pipeline is in the plan.",
        "plan": "The plan of the pipeline.",
        "revision": "A number that increases with every change to the draft.",
        "diagnostics": "The compiler's findings when the plan was last saved.",
        "spec_hash": "The spec hash of the compiled plan. Null if the plan does not compile.",
    }

    class Meta:
        model = Draft
        fields = [
            "id", "environment_id", "name", "plan", "revision", "diagnostics", "spec_hash", "created_at",
            "created_by", "updated_at", "updated_by",
        ]  # fmt: skip
        read_only_fields = ["created_by", "updated_by"]


class PreviewDraftSerializer(StrictSerializer):
    """A plan to preview instead of the saved one."""

    plan = PlanJSONField(required=False)
    descriptions = {
        "plan": "A plan to compile instead of the saved one.",
    }


class GraphSerializer(serializers.Serializer[Any]):
    nodes = serializers.ListField(child=serializers.DictField())
    edges = serializers.ListField(child=serializers.DictField())
    descriptions = {
        "nodes": "The stages, endpoints and inserted roles.",
        "edges": "The lanes between the nodes. In a single ring, each edge shows the order of two nodes.",
    }


class PreviewSerializer(serializers.Serializer[Any]):
    """The result of a compilation that stores nothing."""

    ok = serializers.BooleanField()
    target = serializers.ChoiceField(["single_ring", "lane_graph"], allow_null=True)
    spec_kv = serializers.CharField(allow_null=True)
    spec_hash = serializers.CharField(allow_null=True)
    spec = serializers.DictField(allow_null=True)
    diagnostics = DiagnosticSerializer(many=True)
    graph = GraphSerializer(allow_null=True)
    dot = serializers.CharField(allow_null=True)
    truncated = serializers.BooleanField()
    descriptions = {
        "ok": "Whether the plan compiles.",
        "target": "The target that the plan was compiled for: the `target` of the request or, by default, the plan's "
        "own target. Null if there is no valid target.",
        "spec_kv": "The canonical text of the spec. Null if the plan does not compile or the value is too "
        "large (see `truncated`).",
        "spec_hash": "The spec hash. Null if the plan does not compile.",
        "spec": "The spec as JSON. Null if the plan does not compile or the value is too large (see `truncated`).",
        "diagnostics": "The compiler's findings in the plan.",
        "graph": "The compiled graph. Null if the plan does not compile or the value is too large (see `truncated`).",
        "dot": "The compiled graph in the DOT language. Null if the plan does not compile or the value is too "
        "large (see `truncated`).",
        "truncated": "Whether one or more of `spec_kv`, `spec`, `graph` and `dot` are null because the response would "
        "exceed 4 MiB. To read the whole spec, save the plan, promote the draft, and get the version.",
    }


class PromoteSerializer(StrictSerializer):
    expected_revision = serializers.IntegerField(required=False, min_value=1, max_value=999_999_999)
    descriptions = {
        "expected_revision": (
            "The revision that you read. If the draft has another revision, the request fails with 412."
        ),
    }


class VersionSerializer(ModelSerializer):
    plan = StoredObjectField()
    spec = StoredObjectField()
    origin = serializers.UUIDField(source="origin_id", allow_null=True)

    descriptions = {
        "name": "The name of the pipeline, as in its plan.",
        "number": "The number of the version, counted from 1 for each pipeline in the environment.",
        "draft_id": "The id of the draft that the version was promoted from, even if the draft was deleted. A copied "
        "version has the `draft_id` of the original. Null if unknown.",
        "draft_revision": "The revision of the draft that the version was promoted from. Null if `draft_id` is null.",
        "plan": "The plan that the version was compiled from.",
        "spec": "The spec as JSON.",
        "spec_kv": "The canonical text of the spec.",
        "compiler_version": "The version of the compiler.",
        "origin": "If this version is a copy: the id of the version in another environment from which it was copied, "
        "even if that version was deleted. Null if this version was promoted.",
    }

    class Meta:
        model = Version
        fields = [
            "id", "environment_id", "name", "number", "draft_id", "draft_revision", "plan", "spec", "spec_kv",
            "spec_hash", "compiler_version", "created_by", "created_at", "origin",
        ]  # fmt: skip


@extend_schema_field({"type": ["string", "integer", "null"]})
class PartValueField(serializers.JSONField):
    pass


class ChangeSerializer(serializers.Serializer[Any]):
    change = serializers.ChoiceField(["added", "removed", "changed"])
    what = serializers.ChoiceField(
        ["pipeline", "endpoint", "stage", "op", "order", "dependency", "lane", "inserted", "policy"]
    )
    name = serializers.CharField()
    old = PartValueField()
    new = PartValueField()
    descriptions = {
        "change": "Whether the part was added, removed or changed.",
        "what": "The kind of part that changed.",
        "name": "The name of the part.",
        "old": "The part's value before the change. Null if the part was added, or is a `dependency`.",
        "new": "The part's value after the change. Null if the part was removed, or is a `dependency`.",
    }


class DiffSerializer(serializers.Serializer[Any]):
    """The changes between two specs: as a list, and as a unified diff of their canonical texts."""

    against = serializers.UUIDField()
    changes = ChangeSerializer(many=True)
    unified = serializers.CharField(allow_blank=True)
    truncated = serializers.BooleanField()
    descriptions = {
        "against": "The id of the version to which the changes are relative.",
        "changes": "The changes, one for each part that differs.",
        "unified": "The unified diff of the canonical texts. Empty if the texts are equal.",
        "truncated": "Whether changes or lines at the end are left out. `changes` and `unified` are each limited to "
        "1.5 MiB of JSON. To see everything, compare the canonical texts.",
    }


class CopyVersionSerializer(StrictSerializer):
    from_version_id = IdField()
    descriptions = {
        "from_version_id": "The id of the version to copy, from another environment of the same project.",
    }
