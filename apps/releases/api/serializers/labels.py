"""The label change of many agents."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.fleet.api.serializers import LabelsField, SelectorField
from apps.fleet.services.labels import LABEL_KEY, MAX_LABELS, is_label_key
from byteor_cloud.api.fields import StrictSerializer, TextField


@extend_schema_field({"type": "array", "maxItems": MAX_LABELS, "items": {"type": "string", "pattern": LABEL_KEY}})
class LabelKeysField(serializers.ListField):
    """At most 64 keys of labels."""

    child = TextField(pattern=LABEL_KEY, rule="A key has 1 to 128 printable characters without = and ,.")

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the checked keys, each once. Raises ValidationError."""
        keys = super().to_internal_value(data)
        if len(keys) > MAX_LABELS:
            raise serializers.ValidationError(f"At most {MAX_LABELS} keys.", code="too_many")
        if not all(map(is_label_key, keys)):
            raise serializers.ValidationError("A key has printable characters only.")
        return list(dict.fromkeys(keys))


class RelabelSerializer(StrictSerializer):
    """Which agents to change, and how."""

    selector = SelectorField()
    set = LabelsField(required=False)
    unset = LabelKeysField(required=False)
    dry_run = serializers.BooleanField(required=False, default=False)
    descriptions = {
        "selector": "Labels that an agent must have, all of them. At least one.",
        "set": "Labels to add or to replace.",
        "unset": "The keys of labels to remove.",
        "dry_run": "Whether only to tell what would happen. Default: false.",
    }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the fields. Raises ValidationError unless the change is of something, and unambiguous."""
        if not (attrs.get("set") or attrs.get("unset")):
            raise serializers.ValidationError({"set": "Name labels in set or unset."})
        if attrs.get("set", {}).keys() & set(attrs.get("unset", ())):
            raise serializers.ValidationError({"unset": "A key cannot be both set and unset."})
        return attrs


class RelabeledSerializer(serializers.Serializer[Any]):
    """What a label change did, or would do."""

    matched = serializers.IntegerField()
    changed = serializers.IntegerField()
    deployments_offered = serializers.IntegerField()
    descriptions = {
        "matched": "How many agents the selector matches.",
        "changed": "How many of them have other labels by the change.",
        "deployments_offered": "How many of these are offered a deployment, because they match its target now.",
    }
