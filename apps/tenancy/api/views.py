"""Views of organizations, projects, environments, members, credentials and signing keys."""

from __future__ import annotations

from typing import Any

from django.db.models import Model, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.access import visible_organizations
from apps.tenancy.api import operations
from apps.tenancy.api import serializers as s
from apps.tenancy.api.base import (
    SIGNED_IN,
    ApiViewSet,
    EnvironmentViewSet,
    OrganizationViewSet,
    ProjectViewSet,
)
from apps.tenancy.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
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
from byteor_cloud.api.parameters import (
    choice_parameter,
    line_parameter,
)
from byteor_cloud.errors import Conflict, PreconditionFailed

USER_ONLY = (Family.USER,)


class MeViewSet(ApiViewSet):
    """The caller itself."""

    operations = operations.ME
    permissions = {"retrieve": SIGNED_IN}
    serializer_class = s.MeSerializer
    queryset = UserToken.objects.none()

    def retrieve(self, request: Request) -> Response:
        """Return the caller, its credential and its roles."""
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

    operations = operations.TOKEN
    queryset = UserToken.objects.all()
    serializer_class = s.UserTokenSerializer
    filters = BY_NAME
    permissions = {"list": SIGNED_IN, "create": SIGNED_IN, "destroy": SIGNED_IN}
    credentials = {"list": USER_ONLY, "create": USER_ONLY, "destroy": USER_ONLY}
    secret_actions = frozenset({"create"})

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

    operations = operations.ORGANIZATION_COLLECTION
    single_operation = "getOrganization"
    queryset = Organization.objects.all()
    serializer_class = s.OrganizationSerializer
    filters = BY_NAME
    permissions = {"list": SIGNED_IN, "create": SIGNED_IN}
    credentials = {"create": USER_ONLY}

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return visible_organizations(self.principal)

    def perform_create(self, data: dict[str, Any]) -> Model:
        assert self.principal.user is not None  # noqa: S101  only user tokens get here
        return organizations.create_organization(owner=self.principal.user, actor=self.actor, **data)


class OrganizationDetailViewSet(RetrieveMixin, UpdateMixin, OrganizationViewSet):
    """One organization."""

    operations = operations.ORGANIZATION_DETAIL
    queryset = Organization.objects.all()
    serializer_class = s.OrganizationSerializer
    lookup_url_kwarg = "org_id"
    permissions = {"retrieve": P.VIEW_ORG, "update": P.MANAGE_ORG_MEMBERSHIPS}

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.organization.pk)

    def perform_update(self, row: Organization, data: dict[str, Any]) -> Model:
        return organizations.update_organization(row, data, actor=self.actor, expected_revision=self.expected_revision)


class ProjectCollectionViewSet(ListModelMixin, CreateMixin, OrganizationViewSet):
    """The organization's projects that the caller may see."""

    operations = operations.PROJECT_COLLECTION
    queryset = Project.objects.live()
    serializer_class = s.ProjectSerializer
    filters = BY_NAME
    permissions = {"list": P.VIEW_ORG, "create": P.CREATE_PROJECT}

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.roles.org else queryset.filter(pk__in=self.roles.projects)

    def perform_create(self, data: dict[str, Any]) -> Model:
        return organizations.create_project(organization=self.organization, actor=self.actor, **data)


class ProjectDetailViewSet(RetrieveMixin, UpdateMixin, DestroyMixin, ProjectViewSet):
    """One project."""

    operations = operations.PROJECT_DETAIL
    queryset = Project.objects.live()
    serializer_class = s.ProjectSerializer
    lookup_url_kwarg = "project_id"
    errors = {"destroy": (PreconditionFailed,)}
    permissions = {"retrieve": P.VIEW_PROJECT, "update": P.MANAGE_PROJECT, "destroy": P.MANAGE_PROJECT}

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(pk=self.project.pk)

    def perform_update(self, row: Project, data: dict[str, Any]) -> Model:
        return organizations.update_project(row, data, actor=self.actor, expected_revision=self.expected_revision)

    def perform_destroy(self, row: Project) -> None:
        organizations.delete(row, kind="project", actor=self.actor, expected_revision=self.expected_revision)


class EnvironmentCollectionViewSet(ListModelMixin, CreateMixin, ProjectViewSet):
    """The project's environments."""

    operations = operations.ENVIRONMENT_COLLECTION
    single_operation = "getEnvironment"
    queryset = Environment.objects.live()
    serializer_class = s.EnvironmentSerializer
    filters = {**BY_NAME, "posture": choice_parameter(Posture, "posture")}
    permissions = {"list": P.VIEW_PROJECT, "create": P.MANAGE_PROJECT}

    def perform_create(self, data: dict[str, Any]) -> Model:
        return organizations.create_environment(
            project=self.project, may_loosen=self.roles.org is Role.ORG_ADMIN, actor=self.actor, **data
        )


class EnvironmentDetailViewSet(RetrieveMixin, UpdateMixin, DestroyMixin, EnvironmentViewSet):
    """One environment."""

    operations = operations.ENVIRONMENT_DETAIL
    queryset = Environment.objects.live()
    serializer_class = s.EnvironmentSerializer
    lookup_url_kwarg = "env_id"
    errors = {"destroy": (PreconditionFailed,)}
    permissions = {
        "retrieve": P.VIEW_ENVIRONMENT,
        "update": P.MANAGE_ENVIRONMENT,
        "destroy": P.MANAGE_PROJECT,
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


class _Members(ListModelMixin, CreateMixin, UpdateMixin, DestroyMixin):
    """Base of the views of members. The URL of a member contains the person's id."""

    queryset = Membership.objects.select_related("user", "organization", "project")
    serializer_class = s.MemberSerializer
    filters = {
        "role": choice_parameter(Role, "role"),
        "email": line_parameter("user__email__icontains", max_length=254, description="A part of the e-mail address."),
    }
    errors = {"destroy": (PreconditionFailed,)}
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


class OrganizationMemberViewSet(_Members, OrganizationViewSet):
    """The organization's members."""

    operations = operations.ORGANIZATION_MEMBER
    permissions = {
        "list": P.VIEW_ORG,
        "create": P.MANAGE_ORG_MEMBERSHIPS,
        "update": P.MANAGE_ORG_MEMBERSHIPS,
        "destroy": P.MANAGE_ORG_MEMBERSHIPS,
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

    operations = operations.PROJECT_MEMBER
    permissions = {
        "list": P.VIEW_PROJECT,
        "create": P.MANAGE_PROJECT,
        "update": P.MANAGE_PROJECT,
        "destroy": P.MANAGE_PROJECT,
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

    operations = operations.ORGANIZATION_KEY
    queryset = OrganizationKey.objects.select_related("created_by")
    serializer_class = s.OrganizationKeySerializer
    filters = BY_NAME
    permissions = {
        "list": P.MANAGE_ORG_MEMBERSHIPS,
        "create": P.MANAGE_ORG_MEMBERSHIPS,
        "destroy": P.MANAGE_ORG_MEMBERSHIPS,
    }
    secret_actions = frozenset({"create"})

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

    operations = operations.SIGNING_KEY
    queryset = SigningKey.objects.all()
    serializer_class = s.SigningKeySerializer
    errors = {"rotate": (Conflict,), "retire": (Conflict,)}
    permissions = {
        "list": P.VIEW_ORG,
        "rotate": P.MANAGE_ORG_MEMBERSHIPS,
        "retire": P.MANAGE_ORG_MEMBERSHIPS,
    }

    def object_lookup(self) -> dict[str, Any]:
        return {"kid": self.kwargs["kid"]}

    @extend_schema(request=s.RotateSigningKeySerializer, responses={201: s.SigningKeySerializer})
    def rotate(self, request: Request, **kwargs: Any) -> Response:
        """Publish a new key. It signs once agents had time to fetch it; the previous key still verifies for a time."""
        body = s.RotateSigningKeySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        key = signing_keys.rotate(organization=self.organization, actor=self.actor, **body.validated_data)
        return Response(self.get_serializer(key).data, status=201)

    @extend_schema(request=s.RetireSigningKeySerializer, responses=s.SigningKeySerializer)
    def retire(self, request: Request, **kwargs: Any) -> Response:
        """Retire a retiring key now, or withdraw the next key."""
        body = s.RetireSigningKeySerializer(data=request.data)
        key = self.get_object()
        body.is_valid(raise_exception=True)
        key = signing_keys.retire(key, reason=body.validated_data["reason"], actor=self.actor)
        return Response(self.get_serializer(key).data)
