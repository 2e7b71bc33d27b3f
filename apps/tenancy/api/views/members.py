"""The members of organizations and projects."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet

from apps.tenancy.api.base import OrganizationViewSet, ProjectViewSet
from apps.tenancy.api.serializers.resources import MemberSerializer
from apps.tenancy.models import Membership
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from apps.tenancy.services import members
from byteor_cloud.api.mixins import CreateMixin, DestroyMixin, ListModelMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, line_parameter
from byteor_cloud.errors import PreconditionFailed


class _Members(ListModelMixin, CreateMixin, UpdateMixin, DestroyMixin, OrganizationViewSet):
    """Base of the member views. The URL of a member contains the person's id."""

    queryset = Membership.objects.select_related("user", "organization", "project")
    serializer_class = MemberSerializer
    filters = {
        "role": choice_parameter(Role, "role"),
        "email": line_parameter(
            "user__email__icontains",
            max_length=254,
            description="Returns only {rows} whose e-mail address contains this text.",
        ),
    }
    lookup_url_kwarg = "user_id"

    def object_lookup(self) -> dict[str, Any]:
        return {"user_id": self.kwargs["user_id"]}

    def perform_update(self, row: Membership, data: dict[str, Any]) -> Model:
        return members.change_role(
            row,
            role=Role(data.get("role", row.role)),
            granter=self.granted_permissions,
            actor=self.actor,
            expected_revision=self.expected_revision,
        )

    def perform_destroy(self, row: Membership) -> None:
        members.remove(
            row, granter=self.granted_permissions, actor=self.actor, expected_revision=self.expected_revision
        )


class OrganizationMemberViewSet(_Members):
    """The organization's members."""

    tag = Tag.ORGANIZATIONS
    operations = {
        "list": Operation(
            "listOrganizationMembers",
            P.VIEW_ORG,
            "List members of an organization",
            "Returns the people with a role in the whole organization, who can have other roles in projects. The list "
            "is empty for callers who only have a role in a project.",
        ),
        "create": Operation(
            "addOrganizationMember",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Add a member to an organization",
            "Grants a role in the whole organization to the person with this e-mail address. If nobody has an account "
            "with this address, the person gets the role when they first sign in with this verified address.",
            example={"email": "ada@example.com", "role": "viewer"},
        ),
        "update": Operation(
            "updateOrganizationMember",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Change a member's role in an organization",
            "Changes the member's role. The role of the organization's last active `org_admin` cannot be changed.",
            example={"role": "operator"},
        ),
        "destroy": Operation(
            "removeOrganizationMember",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Remove a member from an organization",
            "Removes the person's role in the organization. Roles in individual projects are kept. The last active "
            "`org_admin` cannot be removed.",
            errors=(PreconditionFailed,),
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        # Callers who only have a role in a project see no members of the organization.
        members_of_organization = queryset.filter(project=None)
        return members_of_organization if self.roles.org else members_of_organization.filter(user=self.principal.user)

    def perform_create(self, data: dict[str, Any]) -> Model:
        return members.add(
            organization=self.organization,
            project=None,
            email=data["user"]["email"],
            role=Role(data["role"]),
            granter=self.granted_permissions,
            actor=self.actor,
        )


class ProjectMemberViewSet(_Members, ProjectViewSet):
    """The project's own members."""

    tag = Tag.PROJECTS
    operations = {
        "list": Operation(
            "listProjectMembers",
            P.VIEW_PROJECT,
            "List members of a project",
            "Returns the people with a role in this project. In the project, this role overrides the person's role in "
            "the organization. The exception is an `org_admin` of the organization, who has all permissions.",
        ),
        "create": Operation(
            "addProjectMember",
            P.MANAGE_PROJECT,
            "Add a member to a project",
            "Grants the person with this e-mail address a role in this project only.",
            example={"email": "ada@example.com", "role": "viewer"},
        ),
        "update": Operation(
            "updateProjectMember",
            P.MANAGE_PROJECT,
            "Change a member's role in a project",
            "Replaces the person's role in this project.",
            example={"role": "operator"},
        ),
        "destroy": Operation(
            "removeProjectMember",
            P.MANAGE_PROJECT,
            "Remove a member from a project",
            "Removes the person's role in this project. If the person has a role in the organization, that role "
            "applies again.",
            errors=(PreconditionFailed,),
        ),
    }

    def perform_create(self, data: dict[str, Any]) -> Model:
        return members.add(
            organization=self.organization,
            project=self.project,
            email=data["user"]["email"],
            role=Role(data["role"]),
            granter=self.granted_permissions,
            actor=self.actor,
        )
