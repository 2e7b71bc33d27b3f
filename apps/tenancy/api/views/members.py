"""The members of organizations and projects."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Model, QuerySet
from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.api.base import OrganizationViewSet, ProjectViewSet
from apps.tenancy.api.serializers.resources import InvitedMemberSerializer, MemberSerializer
from apps.tenancy.models import Membership
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from apps.tenancy.services import members
from apps.tenancy.services.members import Invitation
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, line_parameter
from byteor_cloud.errors import Conflict, PreconditionFailed


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
    undigested_fields = frozenset({"invitation_url"})

    def object_lookup(self) -> dict[str, Any]:
        return {"user_id": self.kwargs["user_id"]}

    def path_id(self, row: Membership) -> UUID:
        return row.user_id

    def _invite_again(self) -> Response:
        invitation = members.invite_again(self.get_object(), granter=self.granted_permissions, actor=self.actor)
        return self.represent(invitation.membership, invitation_url=self._url(invitation))

    def _url(self, invitation: Invitation) -> str | None:
        """Return the URL of the sign-in link, or None if the inviter gets no link."""
        if invitation.link is None:
            return None
        path = reverse("sign-in-link", args=[invitation.link])
        base_url = settings.CONFIG.public_base_url
        return base_url + path if base_url else self.request.build_absolute_uri(path)

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
            "Returns the people with a role in the whole organization. They can have other roles in projects. The list "
            "is empty for callers who only have a role in a project.",
        ),
        "create": Operation(
            "addOrganizationMember",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Add a member to an organization",
            "Grants a role in the whole organization to the person with this e-mail address, and sends an invitation. "
            "A person who has never signed in, or whose address is not confirmed yet, gets an e-mail with a sign-in "
            "link. If no mail server is configured, the response can contain a link instead (`invitation_url`). The "
            "person can also sign in with the identity provider if it has verified this address.",
            responses={201: InvitedMemberSerializer},
            example={"email": "ada@example.com", "role": "viewer"},
            holds_secret=True,
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

    def perform_create(self, data: dict[str, Any]) -> Created:
        invitation = members.add(
            organization=self.organization,
            project=None,
            email=data["user"]["email"],
            role=Role(data["role"]),
            granter=self.granted_permissions,
            actor=self.actor,
        )
        return Created(invitation.membership, {"invitation_url": self._url(invitation)})

    @Operation(
        "inviteOrganizationMember",
        P.MANAGE_ORG_MEMBERSHIPS,
        responses=InvitedMemberSerializer,
        errors=(Conflict,),
        holds_secret=True,
    )
    def invite(self, request: Request, **kwargs: Any) -> Response:
        """Invite a member of an organization again.

        Sends another invitation to a member who has never signed in, or whose address is not confirmed yet. If no mail
        server is configured, the response can contain a new link, as when adding a member. A link in the response makes
        earlier links invalid. Returns 409 for other members, for installation operators, if the account is not active,
        and if the person first signed in with a link of another organization. Returns 429 within a minute of the last
        invitation.
        """
        return self._invite_again()


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
            "Grants the person with this e-mail address a role in this project only, and sends an invitation, as when "
            "adding a member to the organization.",
            responses={201: InvitedMemberSerializer},
            example={"email": "ada@example.com", "role": "viewer"},
            holds_secret=True,
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

    def perform_create(self, data: dict[str, Any]) -> Created:
        invitation = members.add(
            organization=self.organization,
            project=self.project,
            email=data["user"]["email"],
            role=Role(data["role"]),
            granter=self.granted_permissions,
            actor=self.actor,
        )
        return Created(invitation.membership, {"invitation_url": self._url(invitation)})

    @Operation(
        "inviteProjectMember",
        P.MANAGE_PROJECT,
        responses=InvitedMemberSerializer,
        errors=(Conflict,),
        holds_secret=True,
    )
    def invite(self, request: Request, **kwargs: Any) -> Response:
        """Invite a member of a project again.

        Sends another invitation to a member of the project, under the same conditions as for a member of the
        organization. The response contains a link only if the caller is an `org_admin`.
        """
        return self._invite_again()
