"""The models of this app, imported from the modules of this package."""

from apps.tenancy.models.accounts import (
    DeviceSignIn,
    DeviceStatus,
    SignInLink,
    User,
    UserManager,
)
from apps.tenancy.models.audit import (
    AuditEvent,
    AuditSeal,
    DenialCount,
    RepeatedEvent,
)
from apps.tenancy.models.base import (
    ID_TAIL,
    INDEXED_WORDS,
    Revisioned,
    Row,
    enum_choices,
    folded,
    from_word,
    id_index,
    id_tail,
    name_index,
    one_of_constraint,
    word_indexes,
)
from apps.tenancy.models.credentials import (
    Credential,
    CredentialQuerySet,
    OrganizationKey,
    SigningKey,
    UserToken,
)
from apps.tenancy.models.hosts import (
    Host,
    MasterKey,
)
from apps.tenancy.models.messages import (
    MessageEvent,
)
from apps.tenancy.models.organizations import (
    Environment,
    EnvironmentOwned,
    EnvironmentQuerySet,
    LiveQuerySet,
    Membership,
    Organization,
    Project,
    Stateful,
    Tenant,
    tenant_ids,
)
from apps.tenancy.models.requests import (
    IdempotencyKey,
    IdempotencyKeyQuerySet,
    RateCounter,
)
from apps.tenancy.models.usage import (
    MonthlyPeak,
    OrganizationQuotas,
    Quota,
    UseCount,
)
from apps.tenancy.models.webhooks import (
    Delivery,
    Receiver,
    Webhook,
    WebhookDelivery,
)

__all__ = [
    "ID_TAIL",
    "INDEXED_WORDS",
    "AuditEvent",
    "AuditSeal",
    "Credential",
    "CredentialQuerySet",
    "Delivery",
    "DenialCount",
    "DeviceSignIn",
    "DeviceStatus",
    "Environment",
    "EnvironmentOwned",
    "EnvironmentQuerySet",
    "Host",
    "IdempotencyKey",
    "IdempotencyKeyQuerySet",
    "LiveQuerySet",
    "MasterKey",
    "Membership",
    "MessageEvent",
    "MonthlyPeak",
    "Organization",
    "OrganizationKey",
    "OrganizationQuotas",
    "Project",
    "Quota",
    "RateCounter",
    "Receiver",
    "RepeatedEvent",
    "Revisioned",
    "Row",
    "SignInLink",
    "SigningKey",
    "Stateful",
    "Tenant",
    "UseCount",
    "User",
    "UserManager",
    "UserToken",
    "Webhook",
    "WebhookDelivery",
    "enum_choices",
    "folded",
    "from_word",
    "id_index",
    "id_tail",
    "name_index",
    "one_of_constraint",
    "tenant_ids",
    "word_indexes",
]
