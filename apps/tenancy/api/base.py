"""The base of every view under /api: who calls, where, whether they may; a subclass only declares.

A subclass names ``permissions`` (and where it differs ``credentials``) an action; what is not named is denied.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar, final
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from apps.tenancy import audit
from apps.tenancy.access import Principal, Roles, roles_in
from apps.tenancy.actors import Actor
from apps.tenancy.api import limits
from apps.tenancy.api.authentication import BEARER
from apps.tenancy.api.idempotency import once
from apps.tenancy.credentials import Family
from apps.tenancy.models import Environment, Organization, Project
from apps.tenancy.permissions import Permission
from byteor_cloud.errors import Forbidden, NotFound, PreconditionFailed, Unauthenticated

_TAG = re.compile(r'"([0-9]{1,9})\.[0-9a-f]{32}"')
SIGNED_IN = frozenset[Permission]()  # any caller with the right family of credential


def body_digest(data: Any) -> str:
    """A digest of what an answer says, for its ETag."""
    return hashlib.sha256(JSONRenderer().render(data)).hexdigest()[:32]


class AnyAccept(BaseContentNegotiation):
    """Each route has one form of answer, whatever ``Accept`` says: a JSON resource, a spec's text, a tar."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ApiViewSet(GenericViewSet[Any]):
    """Below no tenant: what a caller may do with itself."""

    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    content_negotiation_class = AnyAccept
    credentials: ClassVar[Mapping[str, tuple[Family, ...]]] = {}
    permissions: ClassVar[Mapping[str, Permission | frozenset[Permission]]] = {}
    # Actions whose answer holds a secret: kept encrypted for ten minutes only, under an Idempotency-Key.
    secret_actions: ClassVar[frozenset[str]] = frozenset()
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"

    rate_headers: Mapping[str, str] = {}

    # -- who calls ----------------------------------------------------------------------------------------------

    @property
    def principal(self) -> Principal:
        """The authenticated caller."""
        return self.request.user  # type: ignore[return-value]  # our authenticators make it

    @property
    def actor(self) -> Actor:
        """The caller as services and the audit trail see it."""
        return self.principal.actor

    @classmethod
    def families(cls, action: str) -> tuple[Family, ...]:
        """The families of credential that ``action`` takes."""
        return cls.credentials.get(action, BEARER)

    @final
    def check_permissions(self, request: Request) -> None:
        """401, then 403 for the wrong family, then 404 for strangers and wrong ids, then 403 for a low role."""
        if self.action not in self.action_map.values():
            raise MethodNotAllowed(request.method or "")
        if request.user is None:
            raise Unauthenticated("This needs a bearer credential.")
        if self.principal.family not in self.families(self.action):
            raise Forbidden("Another family of credential is needed here.", code="wrong_credential")
        self.resolve_scope()
        needed = self.permissions.get(self.action)
        if needed is None or (isinstance(needed, Permission) and needed not in self.granted):
            raise Forbidden("Your role does not permit this.")

    def handle_exception(self, exc: Exception) -> Response:
        """Whatever a valid credential is forbidden, here or by a service, is counted."""
        if isinstance(exc, Forbidden):
            self.count_denial(self.principal.organization_id or (self.kwargs["org_id"] if self.scope else None))
        return super().handle_exception(exc)

    def count_denial(self, organization_id: UUID | None) -> None:
        """Count it for the caller, in the organization's trail."""
        audit.count_denial(f"{type(self).__name__}.{self.action}", actor=self.actor, organization_id=organization_id)

    def resolve_scope(self) -> None:
        """Load what the URL names. Raises NotFound."""

    @property
    def granted(self) -> frozenset[Permission]:
        """What the caller may do here."""
        return frozenset()

    @property
    def scope(self) -> audit.Scope:
        """The tenant row that the URL names."""
        return None

    # -- limits and repeated requests ---------------------------------------------------------------------------

    def rate_key(self) -> str | None:
        """What is counted instead of the caller."""
        return None

    @final
    def check_throttles(self, request: Request) -> None:
        """Count the request."""
        self.rate_headers = limits.count_request(self.principal, key=self.rate_key())

    @final
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """DRF's checks; then a creating POST with an ``Idempotency-Key`` is made repeatable."""
        super().initial(request, *args, **kwargs)
        if request.method == "POST" and "Idempotency-Key" in request.headers and not self._is_upload(request):
            handler = getattr(self, "post")  # noqa: B009  the ViewSet binds it by name
            secret = self.action in self.secret_actions
            self.post = once(handler, principal=self.principal, holds_secret=secret)

    @staticmethod
    def _is_upload(request: Request) -> bool:
        return (request.content_type or "").startswith("multipart/")

    # -- rows ---------------------------------------------------------------------------------------------------

    @final
    def get_queryset(self) -> QuerySet[Any]:
        """The rows of this scope; subclasses narrow, they do not replace."""
        return self.narrow(self.scoped(super().get_queryset()))

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Only the rows of the scope that the URL names."""
        return queryset

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Further restrictions of a subclass: filters, joins."""
        return queryset

    def get_object(self) -> Any:
        """The row that the URL names. Raises NotFound."""
        row = self.get_queryset().filter(**self.object_lookup()).first()
        if row is None:
            raise NotFound("There is nothing here.")
        return row

    def object_lookup(self) -> dict[str, Any]:
        """How the last id of the path finds the row."""
        return {"pk": self.kwargs[self.lookup_url_kwarg]}

    # -- ETag ---------------------------------------------------------------------------------------------------

    @property
    def expected_revision(self) -> int | None:
        """The revision that ``If-Match`` names; None without one. Raises PreconditionFailed on a foreign tag."""
        header = self.request.headers.get("If-Match", "*").strip()
        if header == "*":
            return None
        tag = _TAG.fullmatch(header)
        if tag is None:
            raise PreconditionFailed("If-Match holds no ETag of this resource.")
        return int(tag[1])

    @final
    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Rate headers; an ETag on single resources; 304 where the caller has it already."""
        response = super().finalize_response(request, response, *args, **kwargs)
        for name, value in self.rate_headers.items():
            response[name] = value
        response.setdefault("Cache-Control", "private, no-store")
        data = getattr(response, "data", None)
        if response.status_code in {200, 201} and isinstance(data, dict) and "id" in data:
            # ``"<revision>.<digest of the body>"``: ``If-Match`` compares the first, ``If-None-Match`` the whole.
            response["ETag"] = f'"{getattr(response, "revision", 0)}.{body_digest(data)}"'
        if request.method == "GET" and response.status_code == 200 and "ETag" in response:
            known = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
            if known & {response["ETag"], "*"}:
                return self._not_modified(response)
        return response

    @staticmethod
    def _not_modified(response: Any) -> HttpResponse:
        unchanged = HttpResponse(status=304, headers=dict(response.items()))
        for name in ("Content-Type", "Content-Length", "Content-Disposition"):
            unchanged.headers.pop(name, None)
        # The file that is not sent after all is closed with this answer.
        unchanged._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]  # has no public way
        return unchanged


class OrganizationViewSet(ApiViewSet):
    """Below ``/orgs/{org_id}``."""

    scope_field: ClassVar[str] = "organization"
    organization: Organization
    roles: Roles

    def resolve_scope(self) -> None:
        organization = Organization.objects.filter(pk=self.kwargs["org_id"]).first()
        if organization is None:
            raise NotFound("There is nothing here.")
        self._enter(organization)

    def _enter(self, organization: Organization) -> None:
        roles = roles_in(self.principal, organization)
        if not roles.any:
            # Not said in the chain of the organization: it is none of the caller's.
            self.count_denial(self.principal.organization_id)
            raise NotFound("There is nothing here.")
        self.organization, self.roles = organization, roles

    @property
    def granted(self) -> frozenset[Permission]:
        return self.roles.permissions()

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "organization", None)

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.scope_field: self.scope})


class ProjectViewSet(OrganizationViewSet):
    """Below ``/orgs/{org_id}/projects/{project_id}``."""

    scope_field = "project"
    project: Project

    def resolve_scope(self) -> None:
        project = (
            Project.objects.live()
            .select_related("organization")
            .filter(pk=self.kwargs["project_id"], organization_id=self.kwargs["org_id"])
            .first()
        )
        if project is None:
            raise NotFound("There is nothing here.")
        self._enter_project(project)

    def _enter_project(self, project: Project) -> None:
        self._enter(project.organization)
        if not self.roles.permissions(project):
            raise NotFound("There is nothing here.")
        self.project = project

    @property
    def granted(self) -> frozenset[Permission]:
        return self.roles.permissions(self.project)

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "project", None)


class EnvironmentViewSet(ProjectViewSet):
    """Below ``…/environments/{env_id}``: the base of nearly every resource."""

    scope_field = "environment"
    environment: Environment

    def resolve_scope(self) -> None:
        environment = (
            Environment.objects.live()
            .select_related("project__organization")
            .filter(
                pk=self.kwargs["env_id"],
                project_id=self.kwargs["project_id"],
                project__organization_id=self.kwargs["org_id"],
            )
            .first()
        )
        if environment is None:
            raise NotFound("There is nothing here.")
        self._enter_environment(environment)

    def _enter_environment(self, environment: Environment) -> None:
        self._enter_project(environment.project)
        self.environment = environment

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "environment", None)
