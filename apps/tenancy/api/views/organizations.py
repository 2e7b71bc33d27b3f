"""Organizations."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet

from apps.tenancy.access import visible_organizations
from apps.tenancy.api.base import SIGNED_IN, ApiViewSet, OrganizationViewSet
from apps.tenancy.api.serializers.resources import OrganizationSerializer
from apps.tenancy.credentials import Family
from apps.tenancy.models import Organization
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services import organizations
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import CreateMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag


class OrganizationCollectionViewSet(ListModelMixin, CreateMixin, ApiViewSet):
    """The caller's organizations. Anybody with a user token may create one."""

    tag = Tag.ORGANIZATIONS
    single_operation = "getOrganization"
    queryset = Organization.objects.all()
    serializer_class = OrganizationSerializer
    filters = BY_NAME
    operations = {
        "list": Operation(
            "listOrganizations",
            SIGNED_IN,
            "List organizations",
            "Returns the organizations in which the caller has a role, newest first.",
        ),
        "create": Operation(
            "createOrganization",
            SIGNED_IN,
            "Create an organization",
            "Creates an organization. The caller becomes its first `org_admin`. Requires a user token.",
            credentials=(Family.USER,),
            example={"name": "Acme"},
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return visible_organizations(self.principal)

    def perform_create(self, data: dict[str, Any]) -> Model:
        assert self.principal.user is not None  # noqa: S101  for mypy: the operation accepts only user tokens
        return organizations.create_organization(owner=self.principal.user, actor=self.actor, **data)


class OrganizationDetailViewSet(RetrieveMixin, UpdateMixin, OrganizationViewSet):
    """One organization."""

    tag = Tag.ORGANIZATIONS
    queryset = Organization.objects.all()
    serializer_class = OrganizationSerializer
    lookup_url_kwarg = "org_id"
    operations = {
        "retrieve": Operation(
            "getOrganization",
            P.VIEW_ORG,
            "Get an organization",
            "Returns the organization with all its settings, including defaults.",
        ),
        "update": Operation(
            "updateOrganization",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Update an organization",
            "Changes the fields in the body and keeps all others. The same applies to the keys of `settings`.",
            example={"settings": {"token_max_days": 30}},
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.organization.pk)

    def perform_update(self, row: Organization, data: dict[str, Any]) -> Model:
        return organizations.update_organization(row, data, actor=self.actor, expected_revision=self.expected_revision)
