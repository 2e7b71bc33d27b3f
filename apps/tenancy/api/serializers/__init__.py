"""Serializers of tenancy's resources, one module for each kind of resource."""

from apps.tenancy.api.serializers.audit import (
    AuditActorSerializer,
    AuditEventSerializer,
    AuditScopeSerializer,
    AuditSealSerializer,
)
from apps.tenancy.api.serializers.credentials import (
    CREDENTIAL_FIELDS,
    MAX_TOKEN_S,
    CredentialSerializer,
    MeSerializer,
    OrganizationKeySerializer,
    RoleSerializer,
    UserSerializer,
    UserTokenSerializer,
)
from apps.tenancy.api.serializers.resources import (
    EnvironmentSerializer,
    MemberSerializer,
    OrganizationSerializer,
    ProjectSerializer,
    SlugField,
)
from apps.tenancy.api.serializers.settings import (
    EnvironmentSettingsField,
    EnvironmentSettingsSerializer,
    FreezeWindowSerializer,
    OrganizationSettingsField,
    OrganizationSettingsSerializer,
    SettingsField,
    WindowEdgeField,
)
from apps.tenancy.api.serializers.signing_keys import (
    JwkSerializer,
    KeySetSerializer,
    RetireSigningKeySerializer,
    RotateSigningKeySerializer,
    SigningKeySerializer,
)
from apps.tenancy.api.serializers.usage import (
    LimitsSerializer,
    MonthField,
    MonthOfUsageSerializer,
    UsageSerializer,
    UsedSerializer,
)
from apps.tenancy.api.serializers.webhooks import EventSerializer, WebhookDeliverySerializer, WebhookSerializer

__all__ = [
    "CREDENTIAL_FIELDS",
    "MAX_TOKEN_S",
    "AuditActorSerializer",
    "AuditEventSerializer",
    "AuditScopeSerializer",
    "AuditSealSerializer",
    "CredentialSerializer",
    "EnvironmentSerializer",
    "EnvironmentSettingsField",
    "EnvironmentSettingsSerializer",
    "EventSerializer",
    "FreezeWindowSerializer",
    "JwkSerializer",
    "KeySetSerializer",
    "LimitsSerializer",
    "MeSerializer",
    "MemberSerializer",
    "MonthField",
    "MonthOfUsageSerializer",
    "OrganizationKeySerializer",
    "OrganizationSerializer",
    "OrganizationSettingsField",
    "OrganizationSettingsSerializer",
    "ProjectSerializer",
    "RetireSigningKeySerializer",
    "RoleSerializer",
    "RotateSigningKeySerializer",
    "SettingsField",
    "SigningKeySerializer",
    "SlugField",
    "UsageSerializer",
    "UsedSerializer",
    "UserSerializer",
    "UserTokenSerializer",
    "WebhookDeliverySerializer",
    "WebhookSerializer",
    "WindowEdgeField",
]
