"""Every operation under /api/v1, read from the URLconf, and valid requests to it as described in tests/resources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.viewsets import ViewSetMixin

from apps.tenancy.credentials import Family
from apps.tenancy.permissions import Permission, Role
from tests import described
from tests.laws.tenants import Tenants
from tests.openapi import document, template
from tests.permissions import MATRIX, NoRole
from tests.resources import Call, E
from tests.resources.own_agent import BOUNDARY
from tests.worlds import Api

CALLS = {(call.method, call.path): call for call in described.CALLS.values() if call.path.startswith("/api/v1/")}
_FAMILIES: dict[NoRole, tuple[Family, ...]] = {
    NoRole.SIGNED_IN: (Family.USER, Family.ORGANIZATION),
    NoRole.PERSON: (Family.USER,),
    NoRole.ENROLLMENT_TOKEN: (Family.ENROLLMENT,),
    NoRole.AGENT: (Family.AGENT,),
}


@dataclass(frozen=True)
class Operation:
    """One method of one path, with the view and the action that handle it."""

    method: str
    path: str
    view: Any = field(compare=False)
    action: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path.replace(E, '…').removeprefix('/api/v1')}"

    @property
    def documented(self) -> dict[str, Any]:
        """The operation in the OpenAPI document."""
        found: dict[str, Any] = document()["paths"][self.path][self.method.lower()]
        return found

    @property
    def id(self) -> str:
        """The ``operationId``."""
        return str(self.documented["operationId"])

    @property
    def call(self) -> Call:
        """How to call the operation, as described in tests/resources."""
        assert (self.method, self.path) in CALLS, f"describe {self} in tests/resources"
        return CALLS[self.method, self.path]

    @property
    def families(self) -> tuple[Family, ...]:
        """The credential families that the operation must accept. It must refuse all others."""
        needs = self.call.needs
        return (Family.USER, Family.ORGANIZATION) if isinstance(needs, Permission) else _FAMILIES[needs]

    @property
    def permission(self) -> Permission | None:
        """The permission that the operation must require, or None if the credential family is enough."""
        return self.call.on_prod or described.needed(self.call.id)  # the environment of the calls has the posture prod

    @property
    def is_tenant(self) -> bool:
        """Whether the path contains the id of an organization."""
        return "{org_id}" in self.path

    @property
    def role(self) -> Role:
        """The lowest role with the required permission."""
        return next(role for role, held in MATRIX.items() if self.permission is None or self.permission in held)


def _patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern, route)
        else:
            yield route, pattern


@cache
def operations() -> tuple[Operation, ...]:
    """Return all routed operations under /api/v1."""
    found = []
    for route, pattern in _patterns(get_resolver()):
        if not route.startswith("api/v1/"):
            continue
        callback: Any = pattern.callback
        view = getattr(callback, "cls", None) or callback.view_class
        if issubclass(view, ViewSetMixin):
            methods = {method: action for method, action in callback.actions.items() if method != "head"}
        else:
            methods = {method: method for method in view.http_method_names if hasattr(view, method)}
            methods.pop("options", None)
        found += [Operation(method.upper(), template(route), view, action) for method, action in methods.items()]
    return tuple(found)


def operation(method: str, path: str) -> Operation:
    """Return the operation with this method and path."""
    return next(o for o in operations() if (o.method, o.path) == (method, path))


def permitted_caller(operation: Operation, tenants: Tenants) -> Api:
    """Return the least privileged caller whom the operation permits: a person, the agent, or the enrollment token."""
    if set(operation.families) & {Family.ENROLLMENT, Family.AGENT}:
        return tenants.caller(operation.families[0])
    return tenants.person(operation.role).api


def path_of(operation: Operation, tenants: Tenants, ids: dict[str, Any]) -> str:
    """Return the operation's path for the rows in ``ids``, with a query for rows of ``home``."""
    return tenants.fill(operation.path, ids) + operation.call.query(tenants.home.place)


def example(operation: Operation, tenants: Tenants) -> dict[str, Any] | None:
    """Return the document's example body for the rows of ``home``, or None if the operation has no body."""
    if "requestBody" not in operation.documented:
        return None
    (content,) = operation.documented["requestBody"]["content"].values()
    return {**content["example"], **operation.call.values(tenants.home.place)}


def body_of(operation: Operation, tenants: Tenants) -> Any:
    """Return a valid body for rows of ``home``, or None if the operation has no body."""
    make = operation.call.body
    return example(operation, tenants) if make is None else make(tenants.home.place)


def send(operation: Operation, tenants: Tenants, caller: Api, ids: dict[str, Any] | None = None, **headers: str) -> Any:
    """Call the operation with a valid body for rows of ``home``. ``ids``, if given, replaces the ids in the path."""
    body = body_of(operation, tenants)
    if isinstance(body, bytes):
        headers["Content_Type"] = f"multipart/form-data; boundary={BOUNDARY}"
    return caller(operation.method, path_of(operation, tenants, ids or tenants.home.ids()), body, **headers)


def ids_for(operation: Operation, tenants: Tenants) -> dict[str, Any]:
    """Return ids of rows on which the operation succeeds. Creates rows if those of ``home`` do not suffice."""
    on = operation.call.on
    return tenants.home.ids() | (described.ids_on(on, operation.path, tenants.home.place) if on else {})


def send_valid(operation: Operation, tenants: Tenants, **headers: str) -> Any:
    """Call the operation as a permitted caller, for rows on which it succeeds."""
    ids = ids_for(operation, tenants)
    return send(operation, tenants, permitted_caller(operation, tenants), ids, **headers)
