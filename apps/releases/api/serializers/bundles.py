"""Config bundles."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle
from apps.releases.services.bundles import ADAPTER_KINDS, WAIT_BY_PROFILE, warnings_of
from byteor_cloud.api.fields import (
    EnvironmentRelatedField,
    JSONObjectField,
    ModelSerializer,
    NameField,
    StrictSerializer,
)

WARNINGS = (
    "What the config bundle permits and probably does not mean: each of the first 100 stages whose op needs parameters "
    "and has none. Null in a list."
)
_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


@extend_schema_field(
    {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"type": "string", "enum": list(ADAPTER_KINDS), "description": "The kind of adapter."}},
        "additionalProperties": {},
    }
)
class AdapterField(JSONObjectField):
    """An adapter: its ``kind``, and the parameters of that kind."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check the parameters for their kind. Raises ValidationError."""
        value: dict[str, Any] = super().to_internal_value(data)
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in ADAPTER_KINDS:
            raise serializers.ValidationError(
                {"kind": [serializers.ErrorDetail(f"One of {', '.join(ADAPTER_KINDS)}.", code="invalid_choice")]}
            )
        return value


class AdaptersSerializer(StrictSerializer):
    ingress = AdapterField(required=False)
    egress = AdapterField(required=False)
    descriptions = {
        "ingress": "Where records come from: the `kind` of adapter, and the parameters of that kind.",
        "egress": "Where records go to: the `kind` of adapter, and the parameters of that kind.",
    }


@extend_schema_field(
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{_ENV_NAME.pattern}$"},
        "additionalProperties": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "required": ["secret_ref"],
                    "properties": {
                        "secret_ref": {
                            "type": "string",
                            "pattern": f"^{_ENV_NAME.pattern}$",
                            "description": "The name of a secret on the host.",
                        }
                    },
                    "additionalProperties": False,
                },
            ]
        },
    }
)
class EnvVarsField(serializers.DictField):
    """Environment variables. A value is a text, or ``{"secret_ref": NAME}``, which the agent resolves on its host."""

    child = serializers.JSONField()

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check names and values. Raises ValidationError."""
        value: dict[str, Any] = super().to_internal_value(data)
        errors: dict[str, str] = {}
        for name, item in value.items():
            if not _ENV_NAME.fullmatch(name):
                errors[name] = "A name may have only upper-case letters, digits and _, and no digit first."
            elif isinstance(item, dict):
                reference = item.get("secret_ref")
                if set(item) != {"secret_ref"} or not (isinstance(reference, str) and _ENV_NAME.fullmatch(reference)):
                    errors[name] = 'Must be a string or {"secret_ref": "NAME"}.'
            elif not isinstance(item, str):
                errors[name] = 'Must be a string or {"secret_ref": "NAME"}.'
        if errors:
            raise serializers.ValidationError(errors)
        return value


class SnapshotSerializer(StrictSerializer):
    enabled = serializers.BooleanField(default=False)
    interval_s = serializers.IntegerField(required=False, min_value=1, max_value=86400)
    descriptions = {
        "enabled": "Whether the runtime takes snapshots.",
        "interval_s": "Seconds between snapshots.",
    }


class ConfigWarningSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    pointer = serializers.CharField()
    detail = serializers.CharField()
    descriptions = {
        "code": "A stable code of the warning. `no_parameters`: a stage lets every record pass unchanged.",
        "pointer": "A JSON Pointer into the config bundle.",
        "detail": "The warning as text.",
    }


class ConfigBundleSerializer(ModelSerializer):
    name = NameField()
    version_id = EnvironmentRelatedField(source="version", queryset=Version.objects.all(), what="version")
    tuning_profile = serializers.ChoiceField(list(WAIT_BY_PROFILE), required=False)
    wait = serializers.ChoiceField(["backoff", "spin"], required=False)
    stage_config = JSONObjectField(required=False)
    adapters = AdaptersSerializer(required=False)
    env = EnvVarsField(required=False)
    snapshot = SnapshotSerializer(required=False)
    required_capabilities = serializers.ListField(child=serializers.CharField(), read_only=True)
    known_bad = serializers.BooleanField(read_only=True)
    spec_hash = serializers.CharField(source="version.spec_hash", read_only=True)
    warnings = serializers.SerializerMethodField()

    descriptions = {
        "name": "The config bundle's name, unique in the environment.",
        "version_id": "The version that the config bundle runs.",
        "tuning_profile": "How the runtime uses the host's cores. Default: `default`.",
        "wait": "How the runtime waits for records: sleep (`backoff`) or use a core (`spin`). The default depends on "
        "the "
        "tuning profile.",
        "stage_config": "The parameters of the stages, by stage id.",
        "adapters": "Where the pipeline reads and writes.",
        "env": 'Environment variables. A value is a string, or `{"secret_ref": "NAME"}`, which the host resolves.',
        "snapshot": "Snapshots of the runtime's state.",
        "required_capabilities": "The capabilities that an approval of this config bundle must permit.",
        "warnings": WARNINGS,
        "known_bad": "Whether the configuration failed in this environment and is known bad.",
    }

    class Meta:
        model = ConfigBundle
        fields = [
            "id", "environment_id", "name", "version_id", "spec_hash", "tuning_profile", "wait", "stage_config",
            "adapters", "env", "snapshot", "required_capabilities", "config_hash", "known_bad", "warnings",
            "created_by", "created_at",
        ]  # fmt: skip
        read_only_fields = ["config_hash", "created_by"]

    @extend_schema_field(ConfigWarningSerializer(many=True, allow_null=True))
    def get_warnings(self, row: ConfigBundle) -> list[dict[str, str]] | None:
        """Return the warnings; None in a list, which reads no parameters."""
        return (
            None
            if isinstance(self.parent, serializers.ListSerializer)
            else [each._asdict() for each in warnings_of(row)]
        )
