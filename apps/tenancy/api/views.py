"""Views of organizations, projects, environments, members, credentials and signing keys."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.access import visible_organizations
from apps.tenancy.api import serializers as s
from apps.tenancy.api.base import (
    SIGNED_IN,
    ApiViewSet,
    EnvironmentViewSet,
    OrganizationViewSet,
    ProjectViewSet,
)
from apps.tenancy.credentials import Family
from apps.tenancy.models import (
    Environment,
    Membership,
    Organization,
    OrganizationKey,
    Project,
    SigningKey,
    UserToken,
)
from apps.tenancy.permissions import Permission as P
from apps.tenancy.permissions import Role
from apps.tenancy.policy import Posture
from apps.tenancy.services import members, organizations, signing_keys, tokens
from byteor_cloud.api.filters import BY_NAME
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import (
    choice_parameter,
    line_parameter,
)
from byteor_cloud.errors import Conflict, PreconditionFailed


class MeViewSet(ApiViewSet):
    """The caller itself."""

    tag = Tag.AUTHENTICATION
    serializer_class = s.MeSerializer
    queryset = UserToken.objects.none()

    @Operation("getCaller", SIGNED_IN)
    def retrieve(self, request: Request) -> Response:
        """Show the caller.

        Returns the person who the credential belongs to, the credential itself without its secret, and the credential's
        roles. Use it to test a credential.
        """
        principal = self.principal
        if principal.user is not None:
            roles: list[Any] = list(Membership.objects.filter(user=principal.user).order_by("id"))
        else:
            roles = [principal.credential]
        body = {
            "user": principal.user,
            "credential": {
                "family": principal.family,
                "id": principal.credential.pk,
                "prefix": principal.credential.prefix,
                "expires_at": principal.credential.expires_at,
            },
            "roles": roles,
        }
        return Response(s.MeSerializer(body).data)


class TokenViewSet(ListModelMixin, CreateMixin, DestroyMixin, ApiViewSet):
    """The caller's own user tokens."""

    tag = Tag.AUTHENTICATION
    queryset = UserToken.objects.all()
    serializer_class = s.UserTokenSerializer
    filters = BY_NAME
    credentials = (Family.USER,)
    operations = {
        "list": Operation(
            "listUserTokens",
            SIGNED_IN,
            """List your user tokens.

            Returns the caller's own user tokens, newest first, including revoked and expired ones. Secrets are never
            shown again.
            """,
        ),
        "create": Operation(
            "createUserToken",
            SIGNED_IN,
            """Create a user token.

            Creates a token with all of the caller's roles. The response is the only one that contains the secret
            (`token`).
            """,
            example={"name": "laptop"},
            holds_secret=True,
        ),
        "destroy": Operation(
            "revokeUserToken",
            SIGNED_IN,
            """Revoke a user token.

            Revokes the token. It is refused within one second.
            """,
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(user=self.principal.user)

    def perform_create(self, data: dict[str, Any]) -> Created:
        assert self.principal.user is not None  # noqa: S101  only user tokens get here
        token, secret = tokens.create_user_token(user=self.principal.user, actor=self.actor, **data)
        return Created(token, {"token": secret})

    def perform_destroy(self, row: UserToken) -> None:
        tokens.revoke(row, action="token.revoke", actor=self.actor, scope=None)


class OrganizationCollectionViewSet(ListModelMixin, CreateMixin, ApiViewSet):
    """The caller's organizations. Anybody with a user token may create one."""

    tag = Tag.ORGANIZATIONS
    single_operation = "getOrganization"
    queryset = Organization.objects.all()
    serializer_class = s.OrganizationSerializer
    filters = BY_NAME
    operations = {
        "list": Operation(
            "listOrganizations",
            SIGNED_IN,
            """List organizations.

            Returns the organizations in which the caller has a role, newest first.
            """,
        ),
        "create": Operation(
            "createOrganization",
            SIGNED_IN,
            """Create an organization.

            Creates an organization. The caller becomes its first `org_admin`. Needs a user token.
            """,
            credentials=(Family.USER,),
            example={"name": "Acme"},
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return visible_organizations(self.principal)

    def perform_create(self, data: dict[str, Any]) -> Model:
        assert self.principal.user is not None  # noqa: S101  only user tokens get here
        return organizations.create_organization(owner=self.principal.user, actor=self.actor, **data)


class OrganizationDetailViewSet(RetrieveMixin, UpdateMixin, OrganizationViewSet):
    """One organization."""

    tag = Tag.ORGANIZATIONS
    queryset = Organization.objects.all()
    serializer_class = s.OrganizationSerializer
    lookup_url_kwarg = "org_id"
    operations = {
        "retrieve": Operation(
            "getOrganization",
            P.VIEW_ORG,
            """Get an organization.

            Returns the organization with all its settings, including defaults.
            """,
        ),
        "update": Operation(
            "updateOrganization",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Update an organization.

            Changes the fields in the body and keeps the others. In `settings`, each key that you send is changed, and
            the other keys are kept.
            """,
            example={"settings": {"token_max_days": 30}},
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.organization.pk)

    def perform_update(self, row: Organization, data: dict[str, Any]) -> Model:
        return organizations.update_organization(row, data, actor=self.actor, expected_revision=self.expected_revision)


class ProjectCollectionViewSet(ListModelMixin, CreateMixin, OrganizationViewSet):
    """The organization's projects that the caller may see."""

    tag = Tag.PROJECTS
    queryset = Project.objects.live()
    serializer_class = s.ProjectSerializer
    filters = BY_NAME
    operations = {
        "list": Operation(
            "listProjects",
            P.VIEW_ORG,
            """List projects.

            Returns the projects of the organization that the caller may see, newest first.
            """,
        ),
        "create": Operation(
            "createProject",
            P.CREATE_PROJECT,
            """Create a project.

            Creates a project in the organization.
            """,
            example={"name": "markets"},
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.roles.org else queryset.filter(pk__in=self.roles.projects)

    def perform_create(self, data: dict[str, Any]) -> Model:
        return organizations.create_project(organization=self.organization, actor=self.actor, **data)


class ProjectDetailViewSet(RetrieveMixin, UpdateMixin, DestroyMixin, ProjectViewSet):
    """One project."""

    tag = Tag.PROJECTS
    queryset = Project.objects.live()
    serializer_class = s.ProjectSerializer
    lookup_url_kwarg = "project_id"
    operations = {
        "retrieve": Operation(
            "getProject",
            P.VIEW_PROJECT,
            """Get a project.

            Returns one project.
            """,
        ),
        "update": Operation(
            "updateProject",
            P.MANAGE_PROJECT,
            """Update a project.

            Changes the fields in the body and keeps the others.
            """,
            example={"name": "markets-eu"},
        ),
        "destroy": Operation(
            "deleteProject",
            P.MANAGE_PROJECT,
            """Delete a project.

            Deletes the project and everything in it. The project disappears at once for every caller, and the keys of
            its agents are refused. Audit events stay with the organization.
            """,
            errors=(PreconditionFailed,),
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.project.pk)

    def perform_update(self, row: Project, data: dict[str, Any]) -> Model:
        return organizations.update_project(row, data, actor=self.actor, expected_revision=self.expected_revision)

    def perform_destroy(self, row: Project) -> None:
        organizations.delete(row, kind="project", actor=self.actor, expected_revision=self.expected_revision)


class EnvironmentCollectionViewSet(ListModelMixin, CreateMixin, ProjectViewSet):
    """The project's environments."""

    tag = Tag.ENVIRONMENTS
    single_operation = "getEnvironment"
    queryset = Environment.objects.live()
    serializer_class = s.EnvironmentSerializer
    filters = {**BY_NAME, "posture": choice_parameter(Posture, "posture")}
    operations = {
        "list": Operation(
            "listEnvironments",
            P.VIEW_PROJECT,
            """List environments.

            Returns the project's environments, newest first.
            """,
        ),
        "create": Operation(
            "createEnvironment",
            P.MANAGE_PROJECT,
            """Create an environment.

            Creates an environment. The posture is fixed at creation and decides the defaults of the settings.
            """,
            example={"name": "canary", "posture": "staging"},
        ),
    }

    def perform_create(self, data: dict[str, Any]) -> Model:
        return organizations.create_environment(
            project=self.project, may_loosen=self.roles.org is Role.ORG_ADMIN, actor=self.actor, **data
        )


class EnvironmentDetailViewSet(RetrieveMixin, UpdateMixin, DestroyMixin, EnvironmentViewSet):
    """One environment."""

    tag = Tag.ENVIRONMENTS
    queryset = Environment.objects.live()
    serializer_class = s.EnvironmentSerializer
    lookup_url_kwarg = "env_id"
    operations = {
        "retrieve": Operation(
            "getEnvironment",
            P.VIEW_ENVIRONMENT,
            """Get an environment.

            Returns the environment with all its settings, including defaults.
            """,
        ),
        "update": Operation(
            "updateEnvironment",
            P.MANAGE_ENVIRONMENT,
            """Update an environment.

            Changes the fields in the body and keeps the others. In `settings`, each key that you send is changed, and
            the other keys are kept. Loosening approvals, replay or freeze windows of a `staging` or `prod` environment
            needs `org_admin`.
            """,
            example={"settings": {"heartbeat_interval_s": 10}},
        ),
        "destroy": Operation(
            "deleteEnvironment",
            P.MANAGE_PROJECT,
            """Delete an environment.

            Deletes the environment and everything in it. The environment disappears at once for every caller, and the
            keys of its agents are refused. Audit events stay with the organization.
            """,
            errors=(PreconditionFailed,),
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.environment.pk)

    def perform_update(self, row: Environment, data: dict[str, Any]) -> Model:
        return organizations.update_environment(
            row,
            data,
            may_loosen=self.roles.org is Role.ORG_ADMIN,
            actor=self.actor,
            expected_revision=self.expected_revision,
        )

    def perform_destroy(self, row: Environment) -> None:
        organizations.delete(row, kind="environment", actor=self.actor, expected_revision=self.expected_revision)


class _Members(ListModelMixin, CreateMixin, UpdateMixin, DestroyMixin, OrganizationViewSet):
    """Base of the views of members. The URL of a member contains the person's id."""

    queryset = Membership.objects.select_related("user", "organization", "project")
    serializer_class = s.MemberSerializer
    filters = {
        "role": choice_parameter(Role, "role"),
        "email": line_parameter("user__email__icontains", max_length=254, description="A part of the e-mail address."),
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
            """List members of an organization.

            Returns the people with a role in the whole organization. A project can give a person another role.
            """,
        ),
        "create": Operation(
            "addOrganizationMember",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Add a member to an organization.

            Gives a role in the whole organization to the person with this e-mail address. A person without an account
            becomes a member at their first sign-in with that verified address.
            """,
            example={"email": "ada@example.com", "role": "viewer"},
        ),
        "update": Operation(
            "updateOrganizationMember",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Change a member's role in an organization.

            Changes the role. The last `org_admin` of an organization cannot be given another role.
            """,
            example={"role": "operator"},
        ),
        "destroy": Operation(
            "removeOrganizationMember",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Remove a member from an organization.

            Removes the person's role in the organization. The person's roles in single projects are kept. The last
            `org_admin` cannot be removed.
            """,
            errors=(PreconditionFailed,),
        ),
    }

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        # People who only have a role in a project see the members of that project, not those of the organization.
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
            """List members of a project.

            Returns the people who have a role in this project. In this project, that role applies instead of the
            person's role in the organization.
            """,
        ),
        "create": Operation(
            "addProjectMember",
            P.MANAGE_PROJECT,
            """Add a member to a project.

            Gives the person with this e-mail address a role in this project only.
            """,
            example={"email": "ada@example.com", "role": "viewer"},
        ),
        "update": Operation(
            "updateProjectMember",
            P.MANAGE_PROJECT,
            """Change a member's role in a project.

            Replaces the person's role in this project.
            """,
            example={"role": "operator"},
        ),
        "destroy": Operation(
            "removeProjectMember",
            P.MANAGE_PROJECT,
            """Remove a member from a project.

            Removes the person's role in this project. If the person has a role in the organization, that role applies
            again.
            """,
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


class OrganizationKeyViewSet(ListModelMixin, CreateMixin, DestroyMixin, OrganizationViewSet):
    """The organization's API keys."""

    tag = Tag.ORGANIZATION_KEYS
    queryset = OrganizationKey.objects.select_related("created_by")
    serializer_class = s.OrganizationKeySerializer
    filters = BY_NAME
    operations = {
        "list": Operation(
            "listOrganizationKeys",
            P.MANAGE_ORG_MEMBERSHIPS,
            """List organization API keys.

            Returns the organization's API keys, newest first, including revoked and expired ones. Secrets are never
            shown again.
            """,
        ),
        "create": Operation(
            "createOrganizationKey",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Create an organization API key.

            Creates a key for scripts, with one role in the organization or in one project. The response is the only one
            that contains the secret (`token`).
            """,
            example={"name": "ci", "role": "operator"},
            holds_secret=True,
        ),
        "destroy": Operation(
            "revokeOrganizationKey",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Revoke an organization API key.

            Revokes the key. It is refused within one second.
            """,
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


class SigningKeyViewSet(ListModelMixin, OrganizationViewSet):
    """The organization's signing keys. A private key is never returned, and destroyed when the key is retired."""

    tag = Tag.SIGNING_KEYS
    queryset = SigningKey.objects.all()
    serializer_class = s.SigningKeySerializer
    operations = {
        "list": Operation(
            "listSigningKeys",
            P.VIEW_ORG,
            """List signing keys.

            Returns the organization's signing keys with their validity. Private keys are never shown and are destroyed
            when a key is retired.
            """,
        ),
    }

    def object_lookup(self) -> dict[str, Any]:
        return {"kid": self.kwargs["kid"]}

    @Operation(
        "rotateSigningKey",
        P.MANAGE_ORG_MEMBERSHIPS,
        body=s.RotateSigningKeySerializer,
        responses={201: s.SigningKeySerializer},
        errors=(Conflict,),
        example={"activate_in_s": 3600},
    )
    def rotate(self, request: Request, **kwargs: Any) -> Response:
        """Rotate the signing key.

        Publishes a new key. The new key begins to sign when the agents have had time to fetch it. The previous key
        still verifies after that.
        """
        body = s.RotateSigningKeySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        key = signing_keys.rotate(organization=self.organization, actor=self.actor, **body.validated_data)
        return Response(self.get_serializer(key).data, status=201)

    @Operation(
        "retireSigningKey",
        P.MANAGE_ORG_MEMBERSHIPS,
        body=s.RetireSigningKeySerializer,
        responses=s.SigningKeySerializer,
        errors=(Conflict,),
        example={"reason": "The key is no longer needed."},
    )
    def retire(self, request: Request, **kwargs: Any) -> Response:
        """Retire a signing key.

        Retires a `retiring` key now, or withdraws the `next` key. Signatures that a retired key made before still
        verify.
        """
        body = s.RetireSigningKeySerializer(data=request.data)
        key = self.get_object()
        body.is_valid(raise_exception=True)
        key = signing_keys.retire(key, reason=body.validated_data["reason"], actor=self.actor)
        return Response(self.get_serializer(key).data)
