"""How tenancy's rows look in the API."""

from __future__ import annotations

import zoneinfo
from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import empty

from apps.tenancy import policy
from apps.tenancy.api.fields import Id, ModelSerializer, Name, Strict, Text
from apps.tenancy.models import (
    AuditEvent,
    AuditSeal,
    Environment,
    Membership,
    Organization,
    OrganizationKey,
    Project,
    SigningKey,
    User,
    UserToken,
    choices,
)
from apps.tenancy.permissions import Role
from byteor_cloud.engine import freeze
from byteor_cloud.engine.delivery.keys import KeyStatus

MAX_TOKEN_S = 3650 * 86400


class Slug(Text):
    """Lower-case letters, digits and dashes."""

    def __init__(self, **kwargs: Any) -> None:
        rule = "Must be 1 to 63 lower-case letters, digits and dashes, and may not begin with a dash."
        super().__init__(pattern="^[a-z0-9][a-z0-9-]{0,62}$", rule=rule, **kwargs)


_WINDOW_EDGE = r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){1,2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?$"
_YEARS = range(2000, 3000)  # what time zones know, and far from where arithmetic with times overflows


@extend_schema_field(
    {
        "type": "string",
        "pattern": _WINDOW_EDGE,
        "example": "2026-12-24T18:00:00Z",
        "description": (
            "RFC 3339; without an offset it is wall-clock time in `time_zone`. Years 2000 to 2999. Shown in UTC."
        ),
    }
)
class WindowEdge(serializers.RegexField):
    """The start or the end of a freeze window."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(_WINDOW_EDGE, trim_whitespace=False, **kwargs)

    def run_validation(self, data: Any = empty) -> Any:
        """Check the text and return its time, with or without an offset. Raises ValidationError."""
        text = super().run_validation(data)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:  # its text depends on the interpreter
            raise serializers.ValidationError("There is no such time.", code="invalid") from None
        if moment.year not in _YEARS:
            raise serializers.ValidationError("Must be in the years 2000 to 2999.", code="out_of_range")
        return moment


class FreezeWindowSerializer(Strict):
    """A time in which nothing is deployed."""

    start = WindowEdge()
    end = WindowEdge()
    time_zone = Text(default="UTC", max_length=64)
    recurrence = serializers.ChoiceField(list(freeze.Recurrence), required=False, allow_null=True)
    reason = Name()

    descriptions = {
        "time_zone": "The IANA name of the time zone of times without an offset.",
        "recurrence": "How often the window repeats. Null if it does not.",
        "reason": "Why nothing may be deployed. It is shown to people whose deployment waits.",
    }

    def validate_time_zone(self, value: str) -> str:
        """An IANA name."""
        if value not in zoneinfo.available_timezones():
            raise serializers.ValidationError("Not an IANA time zone.")
        return value

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """The window as stored: JSON, with its times in UTC. Raises ValidationError."""
        value = super().to_internal_value(data)
        zone = zoneinfo.ZoneInfo(value["time_zone"])
        for name in ("start", "end"):
            moment = value[name]
            if moment.tzinfo is None and freeze.is_skipped(moment, zone):
                text = f"The clocks in {zone} skip this time; give another, or one with an offset."
                raise serializers.ValidationError({name: [ErrorDetail(text, code="skipped")]})
        # Of an hour that the clocks repeat, the window takes in all.
        start, end = freeze.instants(value["start"], zone)[0], freeze.instants(value["end"], zone)[1]
        if end <= start:
            raise serializers.ValidationError({"end": [ErrorDetail("Must be after start.", code="invalid")]})
        return {**value, "start": _in_utc(start), "end": _in_utc(end)}


def _in_utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


class EnvironmentSettingsSerializer(Strict):
    """An environment's settings; what is left out keeps the default of its posture."""

    approvals_required = serializers.BooleanField(required=False)
    required_approvals = serializers.IntegerField(required=False, min_value=1, max_value=20)
    allow_self_approval = serializers.BooleanField(required=False)
    approval_ttl_s = serializers.IntegerField(required=False, min_value=60, max_value=30 * 86400)
    replay_policy = serializers.ChoiceField(list(policy.ReplayPolicy), required=False)
    heartbeat_interval_s = serializers.IntegerField(required=False, min_value=1, max_value=3600)
    agent_timeout_s = serializers.IntegerField(required=False, min_value=5, max_value=86400)
    max_in_flight_deployments = serializers.IntegerField(required=False, min_value=1, max_value=100)
    artifact_retention_days = serializers.IntegerField(required=False, min_value=1, max_value=3650)
    freeze_windows = FreezeWindowSerializer(many=True, required=False, max_length=100)  # type: ignore[call-arg]  # the list's
    descriptions = {
        "approvals_required": "Whether a deployment needs approval. Default: true for `prod`, else false.",
        "required_approvals": "How many different people must approve. Default: 1.",
        "allow_self_approval": "Whether the approval of the requester counts. Default: true for `dev`, else false.",
        "approval_ttl_s": "Seconds until a request for approval expires. Default: 3600.",
        "replay_policy": "Which replays are permitted. Default: `allowed` for `dev`, else `dry_run_only`.",
        "heartbeat_interval_s": "Seconds between the heartbeats of an agent. Default: 30.",
        "agent_timeout_s": "Seconds after which an agent that does not finish counts as failed. Default: 600.",
        "max_in_flight_deployments": "How many deployments may run at the same time. Default: 1.",
        "artifact_retention_days": "Days until an artifact is deleted. Default: 90.",
        "freeze_windows": "Times in which nothing is deployed. Default: none.",
    }


class OrganizationSettingsSerializer(Strict):
    """An organization's settings."""

    token_max_days = serializers.IntegerField(required=False, min_value=1, max_value=3650)
    email_domains = serializers.ListField(
        child=Text(pattern="^[A-Za-z0-9.-]{1,253}$", rule="Must be a domain."), required=False, max_length=100
    )
    default_environment_settings = EnvironmentSettingsSerializer(required=False)
    descriptions = {
        "token_max_days": "The longest lifetime of a token in days. Default: 90.",
        "email_domains": "Domains whose e-mail addresses may become members. Empty: all.",
        "default_environment_settings": "Settings with which new environments start.",
    }


class Settings(serializers.Field[Any, Any, Any, Any]):
    """Settings as an object: written by key, read with every default filled in."""

    def __init__(self, shape: type[Strict], **kwargs: Any) -> None:
        self.shape = shape
        super().__init__(**kwargs)

    def get_attribute(self, instance: Any) -> Any:
        """All of them, also those that nobody set."""
        return instance.settings_with_defaults

    def to_representation(self, value: Any) -> Any:
        """As they are."""
        return value

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """The given keys, checked and as JSON."""
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
class OrganizationSettings(Settings):
    """For the schema."""


@extend_schema_field(EnvironmentSettingsSerializer)
class EnvironmentSettings(Settings):
    """For the schema."""


class OrganizationSerializer(ModelSerializer):
    name = Name()
    slug = Slug(required=False)
    settings = OrganizationSettings(OrganizationSettingsSerializer, required=False)

    descriptions = {
        "name": "The name, unique in the installation.",
        "slug": "A short name for URLs. Made from the name if it is left out.",
        "settings": "The organization's settings, merged key by key.",
    }

    class Meta:
        model = Organization
        fields = ["id", "name", "slug", "settings", "created_at", "updated_at"]


class ProjectSerializer(ModelSerializer):
    name = Name()
    slug = Slug(required=False)

    descriptions = {
        "name": "The name, unique in the organization.",
        "slug": "A short name for URLs. Made from the name if it is left out.",
    }

    class Meta:
        model = Project
        fields = ["id", "organization_id", "name", "slug", "created_at", "updated_at"]


class EnvironmentSerializer(ModelSerializer):
    name = Name()
    settings = EnvironmentSettings(EnvironmentSettingsSerializer, required=False)

    descriptions = {
        "name": "The name, unique in the project.",
        "posture": "How careful the environment is. It is fixed at creation.",
        "settings": "The environment's settings, merged key by key.",
    }

    class Meta:
        model = Environment
        fields = ["id", "project_id", "name", "posture", "settings", "created_at", "updated_at"]

    def validate_posture(self, value: str) -> str:
        """Fixed at creation."""
        if isinstance(self.instance, Environment) and value != self.instance.posture:
            raise serializers.ValidationError("The posture is fixed at creation.", code="immutable")
        return value


class MemberSerializer(ModelSerializer):
    user_id = serializers.UUIDField(read_only=True)
    email = serializers.EmailField(source="user.email", max_length=254, trim_whitespace=False)
    role = serializers.ChoiceField(list(Role))

    descriptions = {
        "user_id": "The person's id.",
        "email": "The person's e-mail address.",
        "role": "The role. `org_admin` can only be given in an organization.",
        "project_id": "The project in which the role counts. Null: the whole organization.",
    }

    class Meta:
        model = Membership
        fields = ["id", "user_id", "email", "role", "project_id", "created_at", "updated_at"]

    def validate_email(self, value: str) -> str:
        """Who it is can't be changed, only their role."""
        if isinstance(self.instance, Membership) and value != self.instance.user.email:
            raise serializers.ValidationError("A member's address can't be changed here.", code="immutable")
        return value


CREDENTIAL_FIELDS = ["id", "name", "prefix", "expires_at", "last_used_at", "revoked_at", "created_at"]


class UserTokenSerializer(ModelSerializer):
    name = Name()
    expires_in_s = serializers.IntegerField(write_only=True, required=False, min_value=60, max_value=MAX_TOKEN_S)
    expires_at = serializers.DateTimeField(read_only=True)

    descriptions = {
        "name": "A name by which you recognize the token.",
        "prefix": "The first characters of the secret, by which you recognize it.",
        "expires_in_s": "Seconds until it expires. Default and limit: the organizations' `token_max_days`.",
        "expires_at": "When it expires.",
        "last_used_at": "When it was last used, to the minute. Null if never.",
        "revoked_at": "When it was revoked. Null if it was not.",
    }

    class Meta:
        model = UserToken
        fields = [*CREDENTIAL_FIELDS, "expires_in_s"]
        read_only_fields = ["prefix"]


class OrganizationKeySerializer(ModelSerializer):
    name = Name()
    role = serializers.ChoiceField(list(Role))
    project_id = Id(required=False, allow_null=True)
    expires_in_s = serializers.IntegerField(write_only=True, required=False, min_value=60, max_value=MAX_TOKEN_S)
    expires_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.EmailField(
        source="created_by.email",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="The person who made the key, or the key that made it. They count as the requester of what it asks "
        "for. Null where nobody knows: such a key can't ask for what needs an approval.",
    )

    descriptions = {
        "name": "A name by which you recognize the key.",
        "prefix": "The first characters of the secret, by which you recognize it.",
        "role": "The role that the key has.",
        "project_id": "The only project in which the key has its role. Null: the whole organization.",
        "expires_in_s": "Seconds until it expires. Default and limit: the organization's `token_max_days`.",
        "expires_at": "When it expires.",
        "last_used_at": "When it was last used, to the minute. Null if never.",
        "revoked_at": "When it was revoked. Null if it was not.",
        "created_by": "The person who made the key, also where another key made it. That person counts as the "
        "requester of what"
        " the key requests. Null if unknown: then the key cannot request what needs an approval.",
    }

    class Meta:
        model = OrganizationKey
        fields = [*CREDENTIAL_FIELDS, "role", "project_id", "created_by", "expires_in_s"]
        read_only_fields = ["prefix"]


class UserSerializer(ModelSerializer):
    descriptions = {
        "id": "The person's id.",
        "email": "The e-mail address.",
        "name": "The name.",
    }

    class Meta:
        model = User
        fields = ["id", "email", "name"]


class RoleSerializer(serializers.Serializer[Any]):
    organization_id = serializers.UUIDField()
    project_id = serializers.UUIDField(allow_null=True)
    role = serializers.ChoiceField(list(Role))
    descriptions = {
        "organization_id": "The organization in which the role counts.",
        "project_id": "The project in which the role counts. Null: the whole organization.",
        "role": "The role.",
    }


class CredentialSerializer(serializers.Serializer[Any]):
    family = serializers.CharField()
    id = serializers.UUIDField()
    prefix = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "family": "The family: `usr` (user token) or `org` (organization API key).",
        "prefix": "The first characters of the secret.",
        "expires_at": "When it expires.",
    }


class MeSerializer(serializers.Serializer[Any]):
    """Who the caller is, by which credential, with which roles."""

    user = UserSerializer(allow_null=True)
    credential = CredentialSerializer()
    roles = RoleSerializer(many=True)
    descriptions = {
        "user": "The person behind the credential. Null for an API key.",
        "credential": "The credential of this request.",
        "roles": "The roles that the credential has.",
    }


class SigningKeySerializer(ModelSerializer):
    """Published at ``created_at``; it signs from ``not_before`` until ``signs_until`` and is retired at ``not_after``.

    Null: no end is set yet.
    """

    status = serializers.ChoiceField(choices(KeyStatus), source="current_status", read_only=True)

    descriptions = {
        "kid": "The key's id: its RFC 7638 thumbprint.",
        "status": "`next` is published and does not sign yet, `active` signs, `retiring` only verifies, `retired` "
        "verifies "
        "what was signed before.",
        "not_before": "When it begins to sign.",
        "signs_until": "When it stops signing. Null if no time is set.",
        "not_after": "When it is retired. Null if no time is set.",
        "created_at": "When it was published.",
    }

    class Meta:
        model = SigningKey
        fields = ["id", "kid", "status", "not_before", "signs_until", "not_after", "created_at"]


class RotateSigningKeySerializer(Strict):
    """``activate_in_s``: when it signs, by default when all agents have seen it; 0 is at once, for an emergency.

    ``retire_in_s``: how long the key before it verifies from then on, by default a week.
    """

    activate_in_s = serializers.IntegerField(required=False, min_value=0, max_value=30 * 86400)
    retire_in_s = serializers.IntegerField(required=False, min_value=60, max_value=366 * 86400)
    descriptions = {
        "activate_in_s": "Seconds until the new key signs. Default: until every agent has had time to fetch it. 0 is "
        "at once, for "
        "an emergency.",
        "retire_in_s": "Seconds that the previous key continues to verify from then on. Default: one week.",
    }


class RetireSigningKeySerializer(Strict):
    reason = Text(max_length=2000)


class JwkSerializer(serializers.Serializer[Any]):
    kid = serializers.CharField()
    kty = serializers.ChoiceField(["OKP"])
    crv = serializers.ChoiceField(["Ed25519"])
    x = serializers.CharField()
    alg = serializers.ChoiceField(["EdDSA"])
    use = serializers.ChoiceField(["sig"])
    status = serializers.ChoiceField(choices(KeyStatus))
    not_before = serializers.DateTimeField()
    not_after = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "kid": "The key's id: its RFC 7638 thumbprint.",
        "kty": "The key type.",
        "crv": "The curve.",
        "x": "The public key in base64url.",
        "alg": "The signature algorithm.",
        "use": "What the key is for.",
        "status": "`next`, `active`, `retiring` or `retired`.",
        "not_before": "When it begins to sign.",
        "not_after": "After this time nothing that it signed is valid. Null if no time is set.",
    }


class KeySetSerializer(serializers.Serializer[Any]):
    """The organization's published signing keys."""

    active_kid = serializers.CharField()
    keys = JwkSerializer(many=True)
    descriptions = {
        "active_kid": "The id of the key that signs now.",
        "keys": "All published keys.",
    }


class AuditActorSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(source="actor_kind")
    id = serializers.CharField(source="actor_id")
    display = serializers.CharField(source="actor_display")
    descriptions = {
        "kind": "The kind of actor: a user, a key, an agent, or the system.",
        "id": "The actor's id.",
        "display": "The actor's name or e-mail address at that time.",
    }


class AuditScopeSerializer(serializers.Serializer[Any]):
    organization_id = serializers.UUIDField(allow_null=True)
    project_id = serializers.UUIDField(allow_null=True)
    environment_id = serializers.UUIDField(allow_null=True)
    kind = serializers.CharField(source="resource_kind")
    id = serializers.CharField(source="resource_id")
    descriptions = {
        "kind": "The kind of resource.",
        "id": "The resource's id.",
        "project_id": "Its project. Null if it belongs to none.",
        "environment_id": "Its environment. Null if it belongs to none.",
        "organization_id": "Its organization. Null if it belongs to none.",
    }


class AuditSealSerializer(ModelSerializer):
    descriptions = {
        "seq": "The position in the chain, from 1.",
        "prev_hash": "The hash of the event before it.",
        "hash": "The SHA-256 of this event and `prev_hash`.",
    }

    class Meta:
        model = AuditSeal
        fields = ["seq", "prev_hash", "hash"]


class AuditEventSerializer(ModelSerializer):
    actor = AuditActorSerializer(source="*")
    resource_scope = AuditScopeSerializer(source="*")
    outcome = serializers.ChoiceField(["success", "denied", "error"])
    changes = serializers.DictField()
    seal = AuditSealSerializer(allow_null=True, default=None)

    descriptions = {
        "timestamp": "When it happened.",
        "actor": "Who did it.",
        "action": "What was done, such as `deployment.create`.",
        "outcome": "Whether it succeeded, was denied, or ended in an error.",
        "resource_scope": "What it was done to.",
        "request_id": "The `X-Request-ID` of the request. Null for work of the system.",
        "ip": "The client's address.",
        "changes": "What changed, by field. Secrets are left out.",
        "seal": "The event's place in the ledger. Null until it is sealed, a few seconds after it happened.",
    }

    class Meta:
        model = AuditEvent
        fields = [
            "id", "timestamp", "actor", "action", "outcome", "resource_scope", "request_id", "ip", "changes", "seal",
        ]  # fmt: skip
