"""Serializers of a label change of many agents."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.fleet.api.serializers import LabelsField, SelectorField
from apps.fleet.services.labels import LABEL_KEY, MAX_LABELS, is_label_key
from byteor_cloud.api.fields import StrictSerializer, TextField


@extend_schema_field({"type": "array", "maxItems": MAX_LABELS, "items": {"type": "string", "pattern": LABEL_KEY}})
class LabelKeysField(serializers.ListField):
    """Label keys, at most 64."""

    child = TextField(pattern=LABEL_KEY, rule="A key must have 1 to 128 printable characters, without = or commas.")

    def to_internal_value(self, data: Any) -> list[str]:
        """Check the keys and return them without duplicates. Raises ValidationError."""
        keys = super().to_internal_value(data)
        if len(keys) > MAX_LABELS:
            raise serializers.ValidationError(f"Send at most {MAX_LABELS} keys.", code="too_many")
        if not all(map(is_label_key, keys)):
            raise serializers.ValidationError("A key may contain only printable characters.")
        return list(dict.fromkeys(keys))


class RelabelSerializer(StrictSerializer):
    """Which agents to change, and how."""

    selector = SelectorField()
    set = LabelsField(required=False)
    unset = LabelKeysField(required=False)
    dry_run = serializers.BooleanField(required=False, default=False)
    descriptions = {
        "selector": "The labels that an agent must have. All of them must match. At least one is required.",
        "set": "The labels to add or replace.",
        "unset": "The keys of the labels to remove.",
        "dry_run": "Whether to only return the effect, without changing anything. Defaults to false.",
    }

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the fields. Raises ValidationError if there is nothing to change, or a key is both set and removed."""
        if not (attrs.get("set") or attrs.get("unset")):
            raise serializers.ValidationError({"set": "Send labels in set, or keys in unset."})
        if attrs.get("set", {}).keys() & set(attrs.get("unset", ())):
            raise serializers.ValidationError({"unset": "A key cannot be in both set and unset."})
        return attrs


class RelabeledSerializer(serializers.Serializer[Any]):
    """The effect of a label change or, with `dry_run`, the effect that the change would have."""

    matched = serializers.IntegerField()
    changed = serializers.IntegerField()
    deployments_offered = serializers.IntegerField()
    descriptions = {
        "matched": "The number of agents that match the selector.",
        "changed": "The number of these agents whose labels change.",
        "deployments_offered": "The number of changed agents that are offered a deployment because of the change.",
    }
