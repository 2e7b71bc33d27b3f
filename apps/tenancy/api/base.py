"""Base classes of all views under /api: authentication, scope, permissions, parameters, bodies and ETags.

A subclass declares the ``permissions`` (and, if they differ, the ``credentials``) of each action. An action without
declared permissions is denied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, final
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from apps.tenancy.access import OrganizationRoles, Principal, roles_in
from apps.tenancy.actors import Actor
from apps.tenancy.api import limits, scopes
from apps.tenancy.api.authentication import BEARER, note_verified
from apps.tenancy.api.idempotency import answer_once
from apps.tenancy.credentials import Family
from apps.tenancy.models import Environment, Organization, Project
from apps.tenancy.permissions import Permission
from apps.tenancy.policy import Posture
from apps.tenancy.services import audit
from byteor_cloud.api import request_slots
from byteor_cloud.api.bodies import check_declared_length, declared_length, is_chunked
from byteor_cloud.api.computing_lane import compute_for
from byteor_cloud.api.declared import DeclaredView
from byteor_cloud.api.lists import listed_serializer, shown_columns
from byteor_cloud.api.operations import Operations
from byteor_cloud.api.parameters import PAGE, Parameter, check_query
from byteor_cloud.api.rendering import json_pieces
from byteor_cloud.computing.compute import Compute
from byteor_cloud.concurrency.event_loop import Pausing
from byteor_cloud.concurrency.fair import Holder
from byteor_cloud.database.connections import pause_between_rows
from byteor_cloud.database.large_columns import with_small_values, without_large
from byteor_cloud.errors import Forbidden, NotFound, PreconditionFailed, Unauthenticated, UnsupportedMediaType

_GROUPS = {Family.USER: "people", Family.ORGANIZATION: "keys", Family.ENROLLMENT: "agents", Family.AGENT: "agents"}
SIGNED_IN = frozenset[Permission]()  # any caller with the right family of credential


def body_digest(data: Any) -> str:
    """Return a digest of a response's data for its ETag. Keys are sorted, because the database changes their order."""
    digest = hashlib.sha256()
    for piece in json_pieces(data, sort_keys=True):
        digest.update(piece.encode())
    return digest.hexdigest()[:32]


def _tags(header: str) -> set[str]:
    """Return the entity tags in a header ``If-Match`` or ``If-None-Match``."""
    return {tag.strip() for tag in header.split(",")}


def matches_tag(header: str, etag: str) -> bool:
    """Return whether a header ``If-None-Match`` names the ETag. The comparison is weak (RFC 9110, 13.1.2)."""
    if header == etag:
        return True
    return not {tag.removeprefix("W/") for tag in _tags(header)}.isdisjoint({etag, "*"})


class IgnoreAccept(BaseContentNegotiation):
    """Content negotiation that ignores ``Accept``: each route has only one media type."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ApiViewSet(DeclaredView, GenericViewSet[Any]):
    """Base of all views, and of those outside any organization."""

    operations: ClassVar[Operations]
    # The id of the operation of another view that returns a single row of the list; None if there is none.
    single_operation: ClassVar[str | None] = None
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    content_negotiation_class = IgnoreAccept
    credentials: ClassVar[Mapping[str, tuple[Family, ...]]] = {}
    permissions: ClassVar[Mapping[str, Permission | frozenset[Permission]]] = {}
    # Query parameters of the list action, and of other actions by name. The parsed ones are in ``parameter_values``.
    filters: ClassVar[Mapping[str, Parameter]] = {}
    parameters: ClassVar[Mapping[str, Mapping[str, Parameter]]] = {}
    parameter_values: Mapping[str, Any] = {}
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"

    # Actions that handle an Idempotency-Key themselves, since their requests share a transaction with others.
    repeatable_by_itself: ClassVar[frozenset[str]] = frozenset()

    # The setting that limits a body's size, and the bytes that a form may have in addition to its file.
    body_cap: ClassVar[str] = "max_body_bytes"
    body_allowance: ClassVar[int] = 0

    # Fields that agents report all the time. ``If-Match`` ignores them.
    reported_fields: ClassVar[frozenset[str]] = frozenset()
    # Large fields that never change without the row's revision or id. The ETag does not digest them.
    undigested_fields: ClassVar[frozenset[str]] = frozenset()

    rate_headers: Mapping[str, str] = {}

    # -- the caller ---------------------------------------------------------------------------------------------

    @property
    def principal(self) -> Principal:
        """The authenticated caller."""
        return self.request.user  # type: ignore[return-value]  # our authentication classes return a Principal

    @property
    def actor(self) -> Actor:
        """The caller as the actor for services and audit events."""
        return self.principal.actor

    @classmethod
    def families(cls, action: str) -> tuple[Family, ...]:
        """Return the families of credentials that ``action`` accepts."""
        return cls.credentials.get(action, BEARER)

    @final
    def check_permissions(self, request: Request) -> None:
        """Check the caller in this order: 401, 403 (family), 429, 404 (not a member, or a wrong id), 403 (role).

        The request counts as soon as the credential is recognized, so that refused requests are limited, too.
        """
        if request.user is None:
            raise Unauthenticated("A bearer credential is required. Send it as: Authorization: Bearer <token>.")
        note_verified(request, self.principal.credential.digest)
        usage = limits.count_request(self.principal)
        if usage is not None:
            self.rate_headers = usage.headers
        if self.principal.family not in self.families(self.action):
            detail = "This operation does not accept this family of credentials."
            raise Forbidden(detail, code="wrong_credential")
        if usage is not None:
            usage.check()
        self.resolve_scope()
        request_slots.count_for(request._request, self._holder())
        declared = self.permissions.get(self.action)
        needed = {each for each in (declared, *self.also_needed()) if isinstance(each, Permission)}
        if declared is None or (needed and not needed <= self.granted_permissions):
            raise Forbidden("Your role does not permit this operation.")

    def _holder(self) -> Holder:
        """Return who the request's slot counts for. ``resolve_scope`` has checked the organization in the path."""
        principal = self.principal
        organization = principal.organization_id or self.kwargs.get("org_id") or principal.caller
        return Holder(str(organization), _GROUPS[principal.family], principal.caller)

    def also_needed(self) -> frozenset[Permission]:
        """Return the permissions that the action needs in this scope, in addition to the declared one."""
        return frozenset()

    def handle_exception(self, exc: Exception) -> Response:
        """Count the denial if the request was forbidden, here or by a service."""
        if isinstance(exc, Forbidden):
            self.count_denial(self.principal.organization_id or (self.kwargs["org_id"] if self.scope else None))
        return super().handle_exception(exc)

    def count_denial(self, organization_id: UUID | None) -> None:
        """Count that the caller was denied this action. The count becomes an audit event of the organization."""
        audit.count_denial(f"{type(self).__name__}.{self.action}", actor=self.actor, organization_id=organization_id)

    def resolve_scope(self) -> None:
        """Load the organization, project and environment in the URL. Raises NotFound."""

    @property
    def granted_permissions(self) -> frozenset[Permission]:
        """The caller's permissions in the scope."""
        return frozenset()

    @property
    def scope(self) -> audit.Scope:
        """The organization, project or environment in the URL; None outside any organization."""
        return None

    @property
    def compute(self) -> Compute:
        """The function with which services compute for this request."""
        return compute_for(self.request._request)

    # -- parameters ---------------------------------------------------------------------------------------------

    @classmethod
    def query_parameters(cls, action: str) -> Mapping[str, Parameter]:
        """Return the query parameters that ``action`` accepts."""
        return {**PAGE, **cls.filters} if cls.is_list(action) else cls.parameters.get(action, {})

    def check_parameters(self, request: Request) -> None:
        """Parse the query into ``parameter_values``. Raises InvalidInput for a wrong value or an unknown parameter."""
        self.parameter_values = check_query(self.query_parameters(self.action), request._request.GET)

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep only the rows that match the given filters."""
        for name in self.filters.keys() & self.parameter_values.keys():
            parameter, value = self.filters[name], self.parameter_values[name]
            queryset = queryset.filter(
                parameter.condition(value) if parameter.condition else Q(**{str(parameter.lookup): value})
            )
        return queryset

    # -- bodies and repeated requests ---------------------------------------------------------------------------

    @final
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the request, and receive its body only after the caller is authenticated and permitted.

        The handler of a creating POST with an ``Idempotency-Key`` is wrapped so that the request can be repeated.
        """
        if self.action not in self.action_map.values():
            raise MethodNotAllowed(request.method or "")
        super().initial(request, *args, **kwargs)
        has_body = request.method in {"POST", "PUT", "PATCH"} and self.admit_body(request)
        self.check_parameters(request)
        if has_body:
            # Receive the body before the first transaction, so that a slow sender holds no database connection.
            request.data  # noqa: B018  DRF parses the body at the first access
        self.prepare(request)
        repeatable = self.takes_idempotency_key and self.action not in self.repeatable_by_itself
        if request.method == "POST" and "Idempotency-Key" in request.headers and repeatable:
            handler = getattr(self, "post")  # noqa: B009  the ViewSet sets this attribute at run time
            holds_secret = self.action in self.secret_actions
            self.post = answer_once(handler, principal=self.principal, holds_secret=holds_secret)

    def prepare(self, request: Request) -> None:
        """Compute what the action needs. Subclasses override it: with an ``Idempotency-Key`` a transaction follows."""

    def admit_body(self, request: Request) -> bool:
        """Tell whether there is a body to read. Raises if it is too large (413) or has another media type (415)."""
        sent = request._request
        check_declared_length(sent, getattr(settings.CONFIG, self.body_cap) + self.body_allowance)
        if not (declared_length(sent) or is_chunked(sent)):
            return False
        parsers = self.get_parsers()
        if self.get_content_negotiator().select_parser(request, parsers) is None:
            raise UnsupportedMediaType(f"This media type is not accepted. Send {parsers[0].media_type}.")
        if is_chunked(sent):
            request._stream = sent  # type: ignore[assignment]  # without Content-Length, DRF would ignore the body
        return True

    # -- rows ---------------------------------------------------------------------------------------------------

    @final
    def get_queryset(self) -> QuerySet[Any]:
        """Return the rows of the scope; of a list, without large values. Subclasses override ``narrow``, never this."""
        rows = self.narrow(self.scoped(super().get_queryset()))
        if self.is_list(self.action):
            serializer: Any = super().get_serializer_class()
            shown = shown_columns(serializer)
            rows = with_small_values(without_large(rows, shown), shown)
        return pause_between_rows(rows)

    def get_serializer_class(self) -> Any:
        """Return the serializer of the action. In a list, large values are null."""
        serializer: Any = super().get_serializer_class()
        if not self.is_list(self.action):
            return serializer
        model: Any = super().get_queryset().model
        retrieve = self.operations.by_action.get("retrieve")
        return listed_serializer(serializer, model, retrieve.id if retrieve else self.single_operation)

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep only the rows of the scope in the URL."""
        return queryset

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Restrict or join the rows further. Subclasses override it."""
        return queryset

    def paginate_queryset(self, queryset: Any) -> Any:
        """Return the rows of the page, between which others may compute."""
        return Pausing(super().paginate_queryset(queryset) or ())

    def get_object(self) -> Any:
        """Return the row in the URL. Raises NotFound."""
        row = self.get_queryset().filter(**self.object_lookup()).first()
        if row is None:
            raise NotFound("There is no resource at this URL.")
        return row

    def object_lookup(self) -> dict[str, Any]:
        """Return the lookup that finds the row by the last id in the path."""
        return {"pk": self.kwargs[self.lookup_url_kwarg]}

    # -- ETag ---------------------------------------------------------------------------------------------------

    @property
    def expected_revision(self) -> int | None:
        """The revision that ``If-Match`` requires; None without the header.

        The whole tag is compared here; the service compares the revision again under the row's lock. Raises
        PreconditionFailed if no tag matches.
        """
        header = self.request.headers.get("If-Match", "*").strip()
        if header == "*":
            return None
        row = self.get_object()
        current = self._without_reports(self.etag(self.get_serializer(row).data, row.revision))
        # The comparison is strong (RFC 9110, 13.1.1): a weak tag never matches.
        if current not in map(self._without_reports, _tags(header)):
            raise PreconditionFailed("If-Match does not match the current ETag. Read the resource again.")
        return int(row.revision)

    def etag(self, data: Mapping[str, Any], revision: int) -> str:
        """Return the ETag: the row's revision, a digest of its fields, and a digest of its reported fields, if any."""
        omitted = self.reported_fields | self.undigested_fields
        edited = {name: value for name, value in data.items() if name not in omitted}
        tag = f"{revision}.{body_digest(edited)}"
        if self.reported_fields:
            tag += "." + body_digest({name: data[name] for name in sorted(self.reported_fields)})
        return f'"{tag}"'

    def _without_reports(self, tag: str) -> str:
        """Return the part of a tag that ``If-Match`` compares, so that a heartbeat does not make an edit fail."""
        return tag.rpartition(".")[0] if self.reported_fields else tag

    @final
    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the rate limit headers, and an ETag for a single resource; answer 304 if the caller has it already."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if 400 <= response.status_code < 500 and self.rate_headers:  # set once a credential was recognized
            limits.count_refusal(self.principal)
        for name, value in self.rate_headers.items():
            response[name] = value
        response.setdefault("Cache-Control", "private, no-store")
        data = getattr(response, "data", None)
        if response.status_code in {200, 201} and isinstance(data, dict) and "id" in data:
            response["ETag"] = self.etag(data, getattr(response, "revision", 0))
        may_match = request.method == "GET" and response.status_code == 200 and "ETag" in response
        if may_match and matches_tag(request.headers.get("If-None-Match", ""), response["ETag"]):
            return self._not_modified(response)
        return response

    @staticmethod
    def _not_modified(response: Any) -> HttpResponse:
        unchanged = HttpResponse(status=304, headers=dict(response.items()))
        for name in ("Content-Type", "Content-Length", "Content-Disposition"):
            unchanged.headers.pop(name, None)
        # Close the file of the original response with this one, although that response is not sent.
        unchanged._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]  # no public API
        return unchanged


class OrganizationViewSet(ApiViewSet):
    """Base of the views below ``/orgs/{org_id}``."""

    scope_field: ClassVar[str] = "organization"
    organization: Organization
    roles: OrganizationRoles

    def resolve_scope(self) -> None:
        organization = scopes.ORGANIZATION.first(self.kwargs["org_id"])
        if organization is None:
            raise NotFound("There is no resource at this URL.")
        self._enter(organization)

    def _enter(self, organization: Organization) -> None:
        roles = roles_in(self.principal, organization)
        if not roles.has_any_role:
            # Count the denial in the caller's own organization, if any: strangers must not fill the ledger of this one.
            self.count_denial(self.principal.organization_id)
            raise NotFound("There is no resource at this URL.")
        self.organization, self.roles = organization, roles

    @property
    def granted_permissions(self) -> frozenset[Permission]:
        return self.roles.permissions()

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "organization", None)

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.scope_field: self.scope})


class ProjectViewSet(OrganizationViewSet):
    """Base of the views below ``/orgs/{org_id}/projects/{project_id}``."""

    scope_field = "project"
    project: Project

    def resolve_scope(self) -> None:
        project = scopes.PROJECT.first(self.kwargs["org_id"], self.kwargs["project_id"])
        if project is None:
            raise NotFound("There is no resource at this URL.")
        self._enter_project(project)

    def _enter_project(self, project: Project) -> None:
        self._enter(project.organization)
        if not self.roles.permissions(project):
            raise NotFound("There is no resource at this URL.")
        self.project = project

    @property
    def granted_permissions(self) -> frozenset[Permission]:
        return self.roles.permissions(self.project)

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "project", None)


class EnvironmentViewSet(ProjectViewSet):
    """Base of the views below ``/orgs/{org_id}/projects/{project_id}/environments/{env_id}``."""

    scope_field = "environment"
    environment: Environment
    # The permissions that actions need in addition on an environment with the posture prod.
    permissions_on_prod: ClassVar[Mapping[str, Permission]] = {}

    def resolve_scope(self) -> None:
        ids = (self.kwargs[name] for name in ("org_id", "project_id", "env_id"))
        environment = scopes.ENVIRONMENT.first(*ids)
        if environment is None:
            raise NotFound("There is no resource at this URL.")
        self._enter_environment(environment)

    def _enter_environment(self, environment: Environment) -> None:
        self._enter_project(environment.project)
        self.environment = environment

    def also_needed(self) -> frozenset[Permission]:
        needed = self.permissions_on_prod.get(self.action) if self.environment.posture == Posture.PROD else None
        return frozenset() if needed is None else frozenset({needed})

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "environment", None)
