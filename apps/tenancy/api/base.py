"""The base of every view under /api: who calls, where, whether they may; a subclass only declares.

A subclass names ``permissions`` (and where it differs ``credentials``) an action; what is not named is denied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, final
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder
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
from byteor_cloud.api.bodies import admit, declared_length, is_chunked
from byteor_cloud.api.declared import DeclaredView
from byteor_cloud.api.parameters import PAGE, Parameter, check_query
from byteor_cloud.errors import Forbidden, NotFound, PreconditionFailed, Unauthenticated, UnsupportedMediaType

SIGNED_IN = frozenset[Permission]()  # any caller with the right family of credential


def body_digest(data: Any) -> str:
    """A digest of what an answer says, for its ETag. The order of names says nothing: the database keeps none."""
    text = json.dumps(data, cls=JSONEncoder, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _tags(header: str) -> set[str]:
    """The entity tags of a list as ``If-Match`` and ``If-None-Match`` carry it."""
    return {tag.strip() for tag in header.split(",")}


class AnyAccept(BaseContentNegotiation):
    """Each route has one form of answer, whatever ``Accept`` says: a JSON resource, a spec's text, a tar."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ApiViewSet(DeclaredView, GenericViewSet[Any]):
    """Below no tenant: what a caller may do with itself."""

    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    content_negotiation_class = AnyAccept
    credentials: ClassVar[Mapping[str, tuple[Family, ...]]] = {}
    permissions: ClassVar[Mapping[str, Permission | frozenset[Permission]]] = {}
    # The query parameters of the list, and of other actions; ``given`` holds the request's, read.
    filters: ClassVar[Mapping[str, Parameter]] = {}
    parameters: ClassVar[Mapping[str, Mapping[str, Parameter]]] = {}
    given: Mapping[str, Any] = {}
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"

    # The setting that bounds a body of this view, and what a form may have around its file.
    body_cap: ClassVar[str] = "max_body_bytes"
    body_allowance: ClassVar[int] = 0

    # Fields that a machine reports all the time. An edit does not depend on them.
    reported_fields: ClassVar[frozenset[str]] = frozenset()

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
        """Refuse in this order: 401, 403 (family), 429, 404 (a stranger, or a wrong id), 403 (role).

        The request counts as soon as the credential is recognized, so that refusals are limited too.
        """
        if request.user is None:
            raise Unauthenticated("This needs a bearer credential.")
        usage = limits.count_request(self.principal)
        if usage is not None:
            self.rate_headers = usage.headers
        if self.principal.family not in self.families(self.action):
            raise Forbidden("Another family of credential is needed here.", code="wrong_credential")
        if usage is not None:
            usage.check()
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

    # -- parameters ---------------------------------------------------------------------------------------------

    @classmethod
    def query_parameters(cls, action: str) -> Mapping[str, Parameter]:
        """The query parameters that ``action`` takes."""
        return {**PAGE, **cls.filters} if cls.is_list(action) else cls.parameters.get(action, {})

    def check_parameters(self, request: Request) -> None:
        """Read the query into ``given``. Raises InvalidInput, also for a parameter that the action does not have."""
        self.given = check_query(self.query_parameters(self.action), request._request.GET)

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Only the rows that the list's filters ask for."""
        asked = self.filters.keys() & self.given.keys()
        lookups = {str(self.filters[name].lookup): self.given[name] for name in asked}
        return queryset.filter(**lookups)

    # -- bodies and repeated requests ---------------------------------------------------------------------------

    @final
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the request in the contract's order, and receive its body once it is known who sends it.

        A creating POST with an ``Idempotency-Key`` is then made repeatable.
        """
        if self.action not in self.action_map.values():
            raise MethodNotAllowed(request.method or "")
        super().initial(request, *args, **kwargs)
        has_body = request.method in {"POST", "PUT", "PATCH"} and self._admit_body(request)
        self.check_parameters(request)
        if has_body:
            # Read and parsed here, before the first transaction and without a database connection.
            request.data  # noqa: B018  DRF parses it when it is first asked for
        if request.method == "POST" and "Idempotency-Key" in request.headers and self.takes_idempotency_key:
            handler = getattr(self, "post")  # noqa: B009  the ViewSet binds it by name
            secret = self.action in self.secret_actions
            self.post = once(handler, principal=self.principal, holds_secret=secret)

    def _admit_body(self, request: Request) -> bool:
        """Say whether there is a body to read. Raises for one that is too large (413) or of another type (415)."""
        sent = request._request
        admit(sent, getattr(settings.CONFIG, self.body_cap) + self.body_allowance)
        if not (declared_length(sent) or is_chunked(sent)):
            return False
        parsers = self.get_parsers()
        if self.get_content_negotiator().select_parser(request, parsers) is None:
            raise UnsupportedMediaType(f"Send {parsers[0].media_type}.")
        if is_chunked(sent):
            request._stream = sent  # type: ignore[assignment]  # without a length DRF would find no body
        return True

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
            raise NotFound("There is no resource at this URL.")
        return row

    def object_lookup(self) -> dict[str, Any]:
        """How the last id of the path finds the row."""
        return {"pk": self.kwargs[self.lookup_url_kwarg]}

    # -- ETag ---------------------------------------------------------------------------------------------------

    @property
    def expected_revision(self) -> int | None:
        """The revision that ``If-Match`` asks for; None without one. Raises PreconditionFailed when no tag matches.

        The whole tag is compared here, and the revision again by the service, under the row's lock.
        """
        header = self.request.headers.get("If-Match", "*").strip()
        if header == "*":
            return None
        row = self.get_object()
        current = self._without_reports(self.etag(self.get_serializer(row).data, row.revision))
        # The comparison is strong (RFC 9110, 13.1.1): a weak tag never matches.
        if current not in map(self._without_reports, _tags(header)):
            raise PreconditionFailed("If-Match names another state than the current one. Read it again.")
        return int(row.revision)

    def etag(self, data: Mapping[str, Any], revision: int) -> str:
        """Return the entity tag: the row's revision, a digest of its fields, and one of what a machine reports."""
        edited = {name: value for name, value in data.items() if name not in self.reported_fields}
        tag = f"{revision}.{body_digest(edited)}"
        if self.reported_fields:
            tag += "." + body_digest({name: data[name] for name in sorted(self.reported_fields)})
        return f'"{tag}"'

    def _without_reports(self, tag: str) -> str:
        """The part of a tag that ``If-Match`` compares: a heartbeat must not get in the way of an edit."""
        return tag.rpartition(".")[0] if self.reported_fields else tag

    @final
    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Rate headers; an ETag on single resources; 304 where the caller has it already."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if 400 <= response.status_code < 500 and self.rate_headers:  # else no credential was recognized
            limits.count_refusal(self.principal)
        for name, value in self.rate_headers.items():
            response[name] = value
        response.setdefault("Cache-Control", "private, no-store")
        data = getattr(response, "data", None)
        if response.status_code in {200, 201} and isinstance(data, dict) and "id" in data:
            response["ETag"] = self.etag(data, getattr(response, "revision", 0))
        if request.method == "GET" and response.status_code == 200 and "ETag" in response:
            known = {tag.removeprefix("W/") for tag in _tags(request.headers.get("If-None-Match", ""))}
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
            raise NotFound("There is no resource at this URL.")
        self._enter(organization)

    def _enter(self, organization: Organization) -> None:
        roles = roles_in(self.principal, organization)
        if not roles.any:
            # Not said in the chain of the organization: it is none of the caller's.
            self.count_denial(self.principal.organization_id)
            raise NotFound("There is no resource at this URL.")
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
            raise NotFound("There is no resource at this URL.")
        self._enter_project(project)

    def _enter_project(self, project: Project) -> None:
        self._enter(project.organization)
        if not self.roles.permissions(project):
            raise NotFound("There is no resource at this URL.")
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
            raise NotFound("There is no resource at this URL.")
        self._enter_environment(environment)

    def _enter_environment(self, environment: Environment) -> None:
        self._enter_project(environment.project)
        self.environment = environment

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "environment", None)
