"""Serializers of config bundles and their warnings."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle
from apps.releases.services.bundle_copies import MAX_MISSING, find_missing_secrets
from apps.releases.services.bundles import ADAPTER_KINDS, WAIT_BY_PROFILE, warnings_of
from byteor_cloud.api.fields import (
    EnvironmentRelatedField,
    IdField,
    JSONObjectField,
    ModelSerializer,
    NameField,
    StrictSerializer,
)

WARNINGS = (
    "Warnings about the config bundle: one for each stage that has no parameters although its op needs some (at most "
    "100). Null in a list."
)
_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
ADAPTER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["kind"],
    "properties": {"kind": {"type": "string", "enum": list(ADAPTER_KINDS), "description": "The kind of adapter."}},
    "additionalProperties": {},
}
"""The JSON Schema of an adapter."""
ENV_SCHEMA: dict[str, Any] = {
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
                        "description": "The name of a secret on the agent's host.",
                    }
                },
                "additionalProperties": False,
            },
        ]
    },
}
"""The JSON Schema of the environment variables."""


@extend_schema_field(ADAPTER_SCHEMA)
class AdapterField(JSONObjectField):
    """An adapter: its ``kind``, and the parameters of that kind."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check that the adapter has a known kind. Raises ValidationError."""
        value: dict[str, Any] = super().to_internal_value(data)
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in ADAPTER_KINDS:
            raise serializers.ValidationError(
                {"kind": [ErrorDetail(f"Must be one of {', '.join(ADAPTER_KINDS)}.", code="invalid_choice")]}
            )
        return value


class AdaptersSerializer(StrictSerializer):
    ingress = AdapterField(required=False)
    egress = AdapterField(required=False)
    descriptions = {
        "ingress": "The adapter that reads records: its `kind`, and the parameters of that kind.",
        "egress": "The adapter that writes records: its `kind`, and the parameters of that kind.",
    }


@extend_schema_field(ENV_SCHEMA)
class EnvVarsField(serializers.DictField):
    """Environment variables. A value is a string or ``{"secret_ref": NAME}``, which the agent resolves on its host."""

    child = serializers.JSONField()

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check names and values. Raises ValidationError."""
        value: dict[str, Any] = super().to_internal_value(data)
        errors: dict[str, str] = {}
        for name, item in value.items():
            if not _ENV_NAME.fullmatch(name):
                errors[name] = "Use 1 to 128 upper-case letters A to Z, digits and _, and do not start with a digit."
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
        "interval_s": "The number of seconds between snapshots.",
    }


class ConfigWarningSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    pointer = serializers.CharField()
    detail = serializers.CharField()
    descriptions = {
        "code": "A stable code. `no_parameters`: a stage has no parameters and lets every record pass unchanged.",
        "pointer": "A JSON pointer to the part of the config bundle that the warning is about.",
        "detail": "The warning as a sentence.",
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
    origin = serializers.UUIDField(source="origin_id", read_only=True, allow_null=True)
    missing_secrets = serializers.SerializerMethodField()
    warnings = serializers.SerializerMethodField()

    descriptions = {
        "name": "The config bundle's name, unique in the environment.",
        "version_id": "The id of the version that the config bundle runs.",
        "tuning_profile": "How the runtime uses the host's cores. Defaults to `default`.",
        "wait": "How the runtime waits for records: by sleeping (`backoff`) or by occupying a core (`spin`). Defaults "
        "to the value of the tuning profile.",
        "stage_config": "The parameters of the stages, by stage id.",
        "adapters": "The adapters with which the pipeline reads and writes records.",
        "env": 'Environment variables. A value is a string, or `{"secret_ref": "NAME"}` for a secret on the host of '
        "the agent.",
        "snapshot": "Whether and how often the runtime takes snapshots of its state.",
        "required_capabilities": "The capabilities that an approval of this config bundle must permit.",
        "warnings": WARNINGS,
        "known_bad": "Whether the configuration is known bad in this environment and cannot be deployed.",
        "origin": "If this config bundle is a copy: the id of the original config bundle in another environment, even "
        "if the original was deleted. Null if this config bundle is not a copy.",
        "missing_secrets": "A warning about a copy: the names of secrets to which the copy refers, but no other config "
        f"bundle of this environment (at most {MAX_MISSING:,}). The agents' hosts may lack these secrets. "
        "Empty if the config bundle is not a copy. Null in a list.",
    }

    class Meta:
        model = ConfigBundle
        fields = [
            "id", "environment_id", "name", "version_id", "spec_hash", "tuning_profile", "wait", "stage_config",
            "adapters", "env", "snapshot", "required_capabilities", "config_hash", "known_bad", "origin",
            "missing_secrets", "warnings", "created_by", "created_at",
        ]  # fmt: skip
        read_only_fields = ["config_hash", "created_by"]

    def get_missing_secrets(self, row: ConfigBundle) -> list[str] | None:
        """Return the names, or None in a list, whose query reads no environment variables."""
        return None if isinstance(self.parent, serializers.ListSerializer) else find_missing_secrets(row)

    @extend_schema_field(ConfigWarningSerializer(many=True, allow_null=True))
    def get_warnings(self, row: ConfigBundle) -> list[dict[str, str]] | None:
        """Return the warnings, or None in a list, whose query reads no parameters."""
        return (
            None
            if isinstance(self.parent, serializers.ListSerializer)
            else [each._asdict() for each in warnings_of(row)]
        )


class CreateConfigBundleSerializer(ConfigBundleSerializer):
    """A new configuration of a version, or a copy of a config bundle of another environment."""

    name = NameField(required=False)
    version_id = EnvironmentRelatedField(
        source="version", queryset=Version.objects.all(), what="version", required=False
    )
    from_config_bundle_id = IdField(required=False)

    descriptions = {
        "name": "The config bundle's name, unique in the environment. Required unless `from_config_bundle_id` is sent.",
        "version_id": "The id of the version that the config bundle runs. Required unless `from_config_bundle_id` is "
        "sent.",
        "from_config_bundle_id": "The id of a config bundle to copy, from another environment of the same project. No "
        "other field may be sent with it.",
    }

    class Meta(ConfigBundleSerializer.Meta):
        fields = [
            "name", "version_id", "from_config_bundle_id", "tuning_profile", "wait", "stage_config", "adapters", "env",
            "snapshot",
        ]  # fmt: skip
        read_only_fields: list[str] = []

    def validate(self, attrs: Any) -> Any:
        """Reject a copy with other fields, and a new configuration without a name or version."""
        if "from_config_bundle_id" in attrs:
            others = sorted(self.initial_data.keys() - {"from_config_bundle_id"})
            wrong = {name: ["Do not send this field together with from_config_bundle_id."] for name in others}
            code = "one_of"
        else:
            wrong = {
                name: ["This field is required."] for name in ("name", "version_id") if name not in self.initial_data
            }
            code = "required"
        if wrong:
            errors = {name: [ErrorDetail(text, code=code) for text in texts] for name, texts in wrong.items()}
            raise serializers.ValidationError(errors)
        return attrs
