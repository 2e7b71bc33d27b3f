"""Base classes of the views of resources: the caller, its rate limit and permissions, and the scope in the URL.

An action without a declared ``Operation`` is denied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, final
from urllib.parse import urljoin
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.access import OrganizationRoles, Principal, roles_in
from apps.tenancy.actors import Actor
from apps.tenancy.api import limits, scopes
from apps.tenancy.api.authentication import BEARER, note_verified
from apps.tenancy.api.idempotency import Repeatable, idempotent, is_stored
from apps.tenancy.credentials import Family
from apps.tenancy.models import Environment, Organization, Project
from apps.tenancy.permissions import Permission
from apps.tenancy.policy import Posture
from apps.tenancy.services import audit
from byteor_cloud.api import request_slots
from byteor_cloud.api.commands import Command
from byteor_cloud.api.mixins import Created
from byteor_cloud.api.operations import Operation
from byteor_cloud.api.view_sets import ResourceViewSet
from byteor_cloud.concurrency.fair import Holder
from byteor_cloud.errors import DomainError, Forbidden, NotFound, Unauthenticated

_GROUPS = {Family.USER: "people", Family.ORGANIZATION: "keys", Family.ENROLLMENT: "agents", Family.AGENT: "agents"}
# The permission of an operation that needs none. The family of the credential and the scope are still checked.
SIGNED_IN: Final = None


class ApiViewSet(ResourceViewSet):
    """Base of the views that need a bearer credential. Its subclasses below are for URLs with ``org_id``."""

    credentials: ClassVar[tuple[Family, ...]] = BEARER
    commands: ClassVar[tuple[Command, ...]] = ()
    rate_headers: Mapping[str, str] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        for command in vars(cls).get("commands", ()):
            setattr(cls, command.name, _action(command))
        super().__init_subclass__(**kwargs)

    @property
    def principal(self) -> Principal:
        """The authenticated caller."""
        return self.request.user  # type: ignore[return-value]  # our authentication classes return a Principal

    @property
    def actor(self) -> Actor:
        """The caller as the actor for services and audit events."""
        return self.principal.actor

    @final
    def check_permissions(self, request: Request) -> None:
        """Check the caller in this order: 401, 403 (family), 429, 404 (not a member, or a wrong id), 403 (role).

        Refused requests also count toward the rate limit if their credential is recognized.
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
        needed = None if self.operation is None else self.needed(self.operation)
        if needed is None or (needed and not needed <= self.granted_permissions):
            raise Forbidden("Your role does not permit this operation.")

    def _holder(self) -> Holder:
        """Return the holder of the request's slot. Call this after ``resolve_scope``, which checks the organization."""
        principal = self.principal
        organization = principal.organization_id or self.kwargs.get("org_id") or principal.caller
        return Holder(str(organization), _GROUPS[principal.family], principal.caller)

    def needed(self, operation: Operation) -> frozenset[StrEnum]:
        """Return the permissions that the operation needs in this scope."""
        return frozenset() if operation.needs is None else frozenset({operation.needs})

    def handle_exception(self, exc: Exception) -> Response:
        """Return the response for an error. If this view or a service raised Forbidden, count a denial."""
        if isinstance(exc, Forbidden):
            self.count_denial(self.principal.organization_id or (self.kwargs["org_id"] if self.scope else None))
        return super().handle_exception(exc)

    @property
    def is_repeated(self) -> bool:
        """Whether a response is stored under the request's ``Idempotency-Key``.

        If so, ``prepare`` need not compute anything. Raises InvalidInput for an invalid key.
        """
        if "Idempotency-Key" not in self.request.headers or self.operation is None:
            return False
        return is_stored(
            Repeatable.of(self.request, principal=self.principal, holds_secret=self.operation.holds_secret)
        )

    def count_denial(self, organization_id: UUID | None) -> None:
        """Count a denial of this action, for an audit event of the organization (None: of the installation)."""
        audit.count_denial(f"{type(self).__name__}.{self.action}", actor=self.actor, organization_id=organization_id)

    def resolve_scope(self) -> None:
        """Load the scope of the request. Raises NotFound if it does not exist or the caller may not see it."""

    @property
    def granted_permissions(self) -> frozenset[Permission]:
        """The caller's permissions in the scope."""
        return frozenset()

    @property
    def scope(self) -> audit.Scope:
        """The organization, project or environment of the request, if it was loaded; None if the request has none."""
        return None

    @final
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the request. Make a POST with an ``Idempotency-Key`` idempotent, unless declared otherwise."""
        super().initial(request, *args, **kwargs)
        operation = self.operation
        assert operation is not None  # noqa: S101  check_permissions refuses an action without an operation
        is_stored = operation.takes_idempotency_key and not operation.stores_response
        if request.method == "POST" and "Idempotency-Key" in request.headers and is_stored:
            handler = getattr(self, "post")  # noqa: B009  unknown to mypy: the ViewSet sets ``post`` at run time
            self.post = idempotent(handler, principal=self.principal, holds_secret=operation.holds_secret)

    @final
    def perform(self, command: Command) -> Response:
        """Run a command on the row in the URL, or on the scope if the URL names no row. Return the response."""
        row = self.get_object() if self.lookup_url_kwarg in self.kwargs else self.scope
        body = {} if command.operation.body is None else self.validated(self.request)
        made = command.run(row, actor=self.actor, **body)
        if isinstance(made, Response):
            return made
        if isinstance(made, DomainError):
            return self.handle_exception(made)
        if command.operation.responses is None:
            return self.represent(self.get_object())
        ((status, shape),) = command.operation.responses.items()
        if isinstance(made, Created):
            return self.represent(made.row, status=status, **made.secrets)
        response = Response(shape(made, context=self.get_serializer_context()).data, status=status)
        if command.creates is not None:
            response["Location"] = urljoin(self.request.path, f"{command.creates}/{made.pk}")
        return response

    @final
    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the rate limit headers. Count a response with a client error as a refusal."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if 400 <= response.status_code < 500 and self.rate_headers:  # set only if the credential is recognized
            limits.count_refusal(self.principal)
        for name, value in self.rate_headers.items():
            response[name] = value
        return response


def _action(command: Command) -> Callable[..., Response]:
    def action(view: ApiViewSet, request: Request, **kwargs: Any) -> Response:
        return view.perform(command)

    action.operation = command.operation  # type: ignore[attr-defined]  # functions accept any attribute; DeclaringView reads this one
    return action


class OrganizationViewSet(ApiViewSet):
    """Base of the views at and below ``/orgs/{org_id}``."""

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
            # Count a key's denial in its own organization, and a person's in the installation: strangers must not fill
            # the ledger of the organization in the URL.
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
    """Base of the views at and below ``/orgs/{org_id}/projects/{project_id}``."""

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
    """Base of the views at and below ``/orgs/{org_id}/projects/{project_id}/environments/{env_id}``."""

    scope_field = "environment"
    environment: Environment

    def resolve_scope(self) -> None:
        ids = (self.kwargs[name] for name in ("org_id", "project_id", "env_id"))
        environment = scopes.ENVIRONMENT.first(*ids)
        if environment is None:
            raise NotFound("There is no resource at this URL.")
        self._enter_environment(environment)

    def _enter_environment(self, environment: Environment) -> None:
        self._enter_project(environment.project)
        self.environment = environment

    def needed(self, operation: Operation) -> frozenset[StrEnum]:
        needed = super().needed(operation)
        if operation.needs_on_prod is not None and self.environment.posture == Posture.PROD:
            return needed | {operation.needs_on_prod}
        return needed

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "environment", None)
