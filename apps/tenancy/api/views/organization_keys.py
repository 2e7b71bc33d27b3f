"""The API keys of organizations."""

from __future__ import annotations

from typing import Any

from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.api.serializers.credentials import OrganizationKeySerializer
from apps.tenancy.models import OrganizationKey
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from apps.tenancy.services import organizations, tokens
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin
from byteor_cloud.api.operations import Operation, Tag


class OrganizationKeyViewSet(ListModelMixin, CreateMixin, DestroyMixin, OrganizationViewSet):
    """The organization's API keys."""

    tag = Tag.ORGANIZATION_KEYS
    queryset = OrganizationKey.objects.select_related("created_by")
    serializer_class = OrganizationKeySerializer
    filters = BY_NAME
    operations = {
        "list": Operation(
            "listOrganizationKeys",
            P.MANAGE_ORG_MEMBERSHIPS,
            "List organization API keys",
            "Returns the organization's API keys, newest first, including keys that expired or were revoked in the "
            "last 90 days. Secrets are never returned again.",
        ),
        "create": Operation(
            "createOrganizationKey",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Create an organization API key",
            "Creates a key for scripts, with a role in the organization or in one of its projects. Only this response "
            "contains the secret (`token`).",
            example={"name": "ci", "role": "operator"},
            holds_secret=True,
        ),
        "destroy": Operation(
            "revokeOrganizationKey",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Revoke an organization API key",
            "Revokes the key. It is rejected within one second.",
        ),
    }

    def perform_create(self, data: dict[str, Any]) -> Created:
        project = organizations.find_project(self.organization, data.pop("project_id", None))
        key, secret = tokens.create_organization_key(
            organization=self.organization,
            project=project,
            granter=self.granted_permissions,
            actor=self.actor,
            **{**data, "role": Role(data["role"])},
        )
        return Created(key, {"token": secret})

    def perform_destroy(self, row: OrganizationKey) -> None:
        tokens.revoke(row, action="api_key.revoke", actor=self.actor, scope=self.organization)
