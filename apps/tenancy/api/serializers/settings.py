"""Settings of organizations and environments."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import empty

from apps.tenancy import policy
from apps.tenancy.message_types import CHOOSABLE, DESCRIPTIONS, Timing
from byteor.engine import freeze
from byteor.engine.replay_gate import GateMode
from byteor_cloud.api.fields import IdField, NameField, StrictSerializer, TextField, unknown_fields

# The hour 24 is rejected: not all Python versions can read it, but every host must be able to read stored windows.
_WINDOW_EDGE = r"^[0-9]{4}(-[0-9]{2}){2}T([01][0-9]|2[0-3])(:[0-9]{2}){1,2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?$"


_YEARS = range(2000, 3000)  # time zones have rules for these years, and date arithmetic cannot overflow


def _document_edge(example: str) -> dict[str, str]:
    return {
        "type": "string",
        "pattern": _WINDOW_EDGE,
        "example": example,
        "description": (
            "An RFC 3339 time, whose seconds and offset are optional. Without an offset, the time is a wall-clock time "
            "in `time_zone` and follows changes of the zone's rules. The year must be from 2000 to 2999. The time is "
            "stored as it was sent."
        ),
    }


class WindowEdgeField(serializers.RegexField):
    """The start or the end of a freeze window."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(_WINDOW_EDGE, trim_whitespace=False, **kwargs)

    def run_validation(self, data: Any = empty) -> Any:
        """Return ``data`` unchanged. Raises ValidationError unless it is a valid time in a permitted year."""
        text = super().run_validation(data)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:  # the message is not shown, because it depends on the Python version
            raise serializers.ValidationError("This date or time does not exist.", code="invalid") from None
        if moment.year not in _YEARS:
            raise serializers.ValidationError("The year must be from 2000 to 2999.", code="out_of_range")
        return text


@extend_schema_field(_document_edge("2026-12-24T18:00:00Z"))
class WindowStartField(WindowEdgeField):
    """The start of a freeze window."""


@extend_schema_field(_document_edge("2026-12-25T06:00:00Z"))
class WindowEndField(WindowEdgeField):
    """The end of a freeze window, which is exclusive."""


@cache
def time_zones() -> frozenset[str]:
    """Return the IANA names of all time zones."""
    # Cached, because listing the time zones reads several hundred files.
    return frozenset(zoneinfo.available_timezones())


class FreezeWindowSerializer(StrictSerializer):
    """A period in which no deployment starts, unless its request overrides the window (`override_freeze`)."""

    start = WindowStartField()
    end = WindowEndField()
    time_zone = TextField(default="UTC", max_length=64)
    recurrence = serializers.ChoiceField(list(freeze.Recurrence), required=False, allow_null=True)
    reason = NameField()

    descriptions = {
        "time_zone": "The IANA name of the time zone for times without an offset. A recurring window repeats at the "
        "same wall-clock times in this time zone.",
        "recurrence": "How often the window repeats. Null if it does not repeat.",
        "reason": "Why no deployment may start. This text is shown to people whose deployments are refused or waiting.",
    }

    def validate_time_zone(self, value: str) -> str:
        """Accept only IANA names of time zones."""
        if value not in time_zones():
            raise serializers.ValidationError("Must be the IANA name of a time zone, such as Europe/Berlin.")
        return value

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the window as JSON to store, with its times as they were sent. Raises ValidationError."""
        value: dict[str, Any] = super().to_internal_value(data)
        if fault := freeze.find_fault(freeze.FreezeWindow.from_stored(value)):
            raise serializers.ValidationError({fault.edge: [ErrorDetail(fault.detail, code=fault.code)]})
        return value


class EnvironmentSettingsSerializer(StrictSerializer):
    """An environment's settings. Some defaults depend on its posture, unless the organization has other defaults."""

    approvals_required = serializers.BooleanField(required=False)
    required_approvals = serializers.IntegerField(required=False, min_value=1, max_value=20)
    allow_self_approval = serializers.BooleanField(required=False)
    approval_ttl_s = serializers.IntegerField(required=False, min_value=60, max_value=30 * 86400)
    replay_policy = serializers.ChoiceField(list(policy.ReplayPolicy), required=False)
    heartbeat_interval_s = serializers.IntegerField(required=False, min_value=1, max_value=3600)
    agent_timeout_s = serializers.IntegerField(required=False, min_value=5, max_value=86400)
    max_in_flight_deployments = serializers.IntegerField(required=False, min_value=1, max_value=100)
    artifact_retention_days = serializers.IntegerField(required=False, min_value=1, max_value=3650)
    replay_gate = serializers.ChoiceField(list(GateMode), required=False)
    replay_gate_min_fixtures = serializers.IntegerField(required=False, min_value=0, max_value=5000)
    max_work_increase_percent = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, max_value=100_000
    )
    reviewers = serializers.ListField(child=IdField(), required=False, max_length=100)
    freeze_windows = FreezeWindowSerializer(many=True, required=False, max_length=100)  # type: ignore[call-arg]  # max_length is an argument of the list serializer
    sometimes_absent: ClassVar[frozenset[str] | None] = frozenset()
    descriptions = {
        "approvals_required": "Whether a deployment needs approval. Defaults to true for `prod`, otherwise to false.",
        "required_approvals": "The number of different people who must approve. Defaults to 1.",
        "allow_self_approval": (
            "Whether the requester may approve, except after break-glass. Defaults to true for `dev`, otherwise to "
            "false."
        ),
        "approval_ttl_s": "The number of seconds until a pending approval expires, and the maximum number of seconds "
        "for which a granted approval is valid. If the start time of a deployment has not been reached, both periods "
        "begin at the start time. A pending approval gets more time if its deployment waits for a regression, or if "
        "the approval is for a wave and the deployment is paused. A request for a break-glass deployment can set a "
        "shorter time. Defaults to 3600.",
        "replay_policy": "Which replays are permitted. Defaults to `allowed` for `dev`, otherwise to `dry_run_only`.",
        "heartbeat_interval_s": "The usual number of seconds between an agent's heartbeats. Defaults to 30.",
        "agent_timeout_s": (
            "The number of seconds that an agent has to finish a deployment after it was offered. After that time, the "
            "agent counts as failed. Agents for which the rollout does not wait, for example because they were offline "
            "when it started, have no time limit. Defaults to 600."
        ),
        "max_in_flight_deployments": "The maximum number of deployments in the environment that are in progress at the "
        "same time. Defaults to 1.",
        "artifact_retention_days": "The number of days after which an artifact is deleted, unless it has a fixture "
        "that has not expired. Defaults to 90.",
        "replay_gate": (
            "Whether a regression tests each deployment, and whether its result can block the deployment. `off`: no "
            "regression is requested. `warn`: the result is shown, and blocks nothing. `require`: while the gate "
            "blocks the deployment, for example because a difference is not accepted, the deployment can neither be "
            "approved nor start, unless its request overrides the gate. Defaults to `off`."
        ),
        "replay_gate_min_fixtures": "The number of verdicts that the regression needs if `replay_gate` is `require`. "
        "Verdicts that are `not_tested` do not count. Defaults to 0.",
        "max_work_increase_percent": "How much more work, in percent, the configuration of a deployment may need "
        "than the configurations with which the regression compares it. Used only if `replay_gate` is `require`. "
        "Null means no limit. Defaults to null.",
        "freeze_windows": "The periods in which no deployment starts, unless its request overrides freeze windows. "
        "Defaults to none.",
        "reviewers": "The ids of the users who may decide on approvals, whatever their role. Each must be a member. If "
        "empty, everybody with the permission `environment:operate` may decide. Defaults to none.",
    }

    def validate_reviewers(self, value: Sequence[Any]) -> list[str]:
        """Return the ids as text. Raises ValidationError if an id is repeated."""
        if len(set(value)) != len(value):
            raise serializers.ValidationError("Name each reviewer only once.")
        return [str(user_id) for user_id in value]


class DefaultEnvironmentSettingsSerializer(EnvironmentSettingsSerializer):
    """The settings of new environments. Those that are absent have the defaults of the environment's posture."""

    sometimes_absent = None


TIMING: dict[str, Any] = {"type": "string", "enum": [*map(str, Timing)]}


@extend_schema_field(
    {
        "type": "object",
        "properties": {str(each): {**TIMING, "description": DESCRIPTIONS[each]} for each in CHOOSABLE},
        "additionalProperties": False,
    }
)
class TimingsField(serializers.Field[Any, Any, Any, Any]):
    """When e-mails are sent, by event."""

    def to_representation(self, value: Any) -> Any:
        """Return the value unchanged, because it already is JSON."""
        return value

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """Return the checked object. Raises ValidationError."""
        return check_timings(check_events(data))


def check_events(data: Any) -> dict[str, Any]:
    """Return ``data`` if it is an object whose keys are events for which people can choose. Raises ValidationError."""
    if not isinstance(data, dict):
        raise serializers.ValidationError("Must be an object.", code="invalid")
    if unknown := unknown_fields(data, [*map(str, CHOOSABLE)]):
        raise serializers.ValidationError(unknown)
    return data


def check_timings(data: dict[str, Any]) -> dict[str, str]:
    """Return ``data`` if its values are timings. Raises ValidationError."""
    rule = f"Must be one of {', '.join(Timing)}."
    if wrong := {key: [ErrorDetail(rule, code="invalid_choice")] for key in data if data[key] not in TIMING["enum"]}:
        raise serializers.ValidationError(wrong)
    return data


class OrganizationSettingsSerializer(StrictSerializer):
    """An organization's settings."""

    token_max_days = serializers.IntegerField(required=False, min_value=1, max_value=3650)
    email_domains = serializers.ListField(
        child=TextField(pattern="^[A-Za-z0-9.-]{1,253}$", rule="Must be a domain such as example.com."),
        required=False,
        max_length=100,
    )
    default_environment_settings = DefaultEnvironmentSettingsSerializer(required=False)
    default_notification_settings = TimingsField(required=False)
    sometimes_absent = frozenset()
    descriptions = {
        "token_max_days": "The maximum lifetime of user tokens and organization API keys in days. Defaults to 90.",
        "email_domains": "The permitted domains of new members' e-mail addresses. If empty, every domain is permitted.",
        "default_environment_settings": "The settings of new environments, unless the request contains others. An "
        "update replaces them as a whole.",
        "default_notification_settings": "For each type of event, when members who have not chosen this themselves get "
        "e-mails: `off`, `now` or `daily`. An update replaces all of these settings.",
    }


class SettingsField(serializers.Field[Any, Any, Any, Any]):
    """Settings as a JSON object. A write changes only the given keys.

    A read returns all keys, including defaults. In a list, large settings are null.
    """

    def __init__(self, shape: type[StrictSerializer], **kwargs: Any) -> None:
        self.shape = shape
        super().__init__(**kwargs)

    def get_attribute(self, instance: Any) -> Any:
        """Return all settings of the row, with defaults filled in. In a list, returns None for large settings."""
        return None if instance.settings is None else instance.settings_with_defaults

    def to_representation(self, value: Any) -> Any:
        """Return the settings unchanged, because they already are JSON."""
        return value

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Check the given keys and return them as JSON. Raises ValidationError if a key or value is invalid."""
        checker = self.shape(data=data)
        checker.is_valid(raise_exception=True)
        return {key: _plain(value) for key, value in checker.validated_data.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


@extend_schema_field(OrganizationSettingsSerializer)
class OrganizationSettingsField(SettingsField):
    """Settings that the OpenAPI document describes as an organization's settings."""


@extend_schema_field(EnvironmentSettingsSerializer)
class EnvironmentSettingsField(SettingsField):
    """Settings that the OpenAPI document describes as an environment's settings."""
