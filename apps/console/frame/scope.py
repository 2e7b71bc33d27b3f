"""The scope of a page: the organization, project or environment to which the console narrows its lists.

The URL of a list names the scope as ``?in=ID``. Without it, the list has no scope. The scope of a row's page is the
row's tenant.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, cast
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest

from apps.console.frame.console_user import ConsoleUser, console_user_of, count_for_organization
from apps.console.frame.personal import personal_query
from apps.tenancy.models import Environment, Organization, Project, Tenant
from apps.tenancy.permissions import Permission as P

SCOPE: Final = "in"
EVERYTHING: Final = "all"  # instead of an id, to show all rows and to delete the session's last scope
# The permission that a person needs to see an organization, a project or an environment.
NEEDED: Final[Mapping[type[Model], P]] = {
    Environment: P.VIEW_ENVIRONMENT,
    Project: P.VIEW_PROJECT,
    Organization: P.VIEW_ORG,
}
_LEVELS: Final = tuple(NEEDED)
_UP: Final = ("project", "organization")  # the field that leads from each level to the level above
_REMEMBERED: Final = "console_scope"


def join_path(*parts: str) -> str:
    """Return a field path for a query."""
    return "__".join(part for part in parts if part)


@cache
def level_of(model: type[Model], tenant: str) -> type[Model]:
    """Return the tenant model to which the field path ``tenant`` leads from ``model``."""
    for part in filter(None, tenant.split("__")):
        model = cast("type[Model]", model._meta.get_field(part).related_model)
    return model


def path_to(model: type[Model], tenant: str, level: type[Model]) -> str | None:
    """Return the field path from ``model`` to ``level``, or None if the model's rows belong to a level above it."""
    first, last = _LEVELS.index(level_of(model, tenant)), _LEVELS.index(level)
    return join_path(tenant, *_UP[first:last]) if first <= last else None


def scope_condition(model: type[Model], tenant: str, scope: Tenant) -> Q:
    """Return the condition that a row belongs to the scope.

    Rows of a level above the scope, such as signing keys, belong to the scope if their organization or project
    contains the scope.
    """
    level = level_of(model, tenant)
    while scope is not None and (path := path_to(model, tenant, type(scope))) is None:
        scope = getattr(scope, _UP[_LEVELS.index(type(scope))])
    return Q() if scope is None or level not in _LEVELS else Q(**{path or "pk": scope.pk})


def live_tenant_condition(model: type[Model], tenant: str) -> Q:
    """Return the condition that a row's project and environment are not deleted."""
    level = level_of(model, tenant)
    if level is Environment:
        return Q(**{join_path(tenant, "deleted_at"): None, join_path(tenant, "project", "deleted_at"): None})
    return Q(**{join_path(tenant, "deleted_at"): None}) if level is Project else Q()


def granted_condition(model: type[Model], tenant: str, permission: P, console_user: ConsoleUser) -> Q:
    """Return the condition that the person has ``permission`` in a row's tenant, which is at the path ``tenant``."""
    level = level_of(model, tenant)
    if level is Organization:
        return console_user.organization_condition(permission, join_path(tenant, "pk"))
    project = join_path(tenant, "project") if level is Environment else tenant
    return console_user.project_condition(permission, join_path(project, "pk"), join_path(project, "organization"))


def visible_tenants(level: type[Model], console_user: ConsoleUser) -> QuerySet[Any]:
    """Return the organizations, projects or environments that the person may see."""
    return level._default_manager.filter(
        live_tenant_condition(level, ""), granted_condition(level, "", NEEDED[level], console_user)
    )


def reaching(queryset: QuerySet[Any], scope: Tenant) -> QuerySet[Any]:
    """Keep the rows that apply in the scope or a part of it. Rows may be limited to a project or an environment."""
    found, fields = queryset, {field.name for field in queryset.model._meta.fields}
    for level in lineage(scope):
        name = type(level).__name__.lower()
        if name in fields:
            condition = Q(**{name: level.pk})
            found = found.filter(condition if name == "organization" else condition | Q(**{name: None}))
    if isinstance(scope, Project) and "environment" in fields:  # such rows may have an environment, but no project
        found = found.filter(Q(environment=None) | Q(environment__project=scope.pk))
    return found


def lineage(scope: Tenant) -> list[Organization | Project | Environment]:
    """Return the levels of a scope from the organization down to the scope itself."""
    found: list[Organization | Project | Environment] = []
    while scope is not None:
        found.insert(0, scope)
        scope = None if isinstance(scope, Organization) else getattr(scope, _UP[_LEVELS.index(type(scope))])
    return found


# -- the scope of a request ---------------------------------------------------------------------------------------


def set_scope(request: HttpRequest, scope: Tenant) -> None:
    """Make ``scope`` the page's scope, even if the URL has another.

    Count the request's slot (``request_slots``) for the scope's organization, if there is one.
    """
    request._console_scope = scope  # type: ignore[attr-defined]  # an attribute of our own, as a cache
    if scope is not None:
        count_for_organization(request, lineage(scope)[0].pk)


def scope_of(request: HttpRequest) -> Tenant:
    """Return the scope of this page; None for everything that the person may see.

    Raises Http404, with the same text for every id that is not a visible organization, project or environment.
    """
    if not hasattr(request, "_console_scope"):
        set_scope(request, _read(request))
    return cast("Tenant", request._console_scope)  # type: ignore[attr-defined]  # see ``set_scope``


def _read(request: HttpRequest) -> Tenant:
    if SCOPE not in request.GET:
        return None
    asked = request.GET[SCOPE]
    if asked == EVERYTHING:
        request.session.pop(_REMEMBERED, None)
        return None
    found = _find(request, asked)
    if found is None:
        raise Http404("There is no such organization, project or environment, or you may not see it.")
    if request.session.get(_REMEMBERED) != asked:
        request.session[_REMEMBERED] = asked
    return found


def remembered_scope(request: HttpRequest) -> Tenant:
    """Return the last scope of the session; None if there is none, or if the person may no longer see it."""
    known = request.session.get(_REMEMBERED)
    return _find(request, known) if known else None


def _find(request: HttpRequest, asked: str) -> Tenant:
    try:
        pk = UUID(asked)
    except ValueError:
        return None
    if str(pk) != asked:  # accept only one spelling of an id, so that each page has one URL
        return None
    queries = (personal_query(_visible_tenant, level, console_user_of(request), pk) for level in _LEVELS)
    return next(filter(None, (query.first(*values) for query, values in queries)), None)


def _visible_tenant(level: type[Model], console_user: ConsoleUser, pk: UUID) -> QuerySet[Any]:
    above = join_path(*_UP[_LEVELS.index(level) :])
    return visible_tenants(level, console_user).filter(pk=pk).select_related(above or None)


def list_scope_of(request: HttpRequest) -> Tenant:
    """Return the scope to which this page limits its rows; None if the page has no scope or shows rows of any scope.

    Returns a scope only on the overview and its live part, on lists and their CSV files, and on pages that offer the
    rows for an act.
    """
    match = getattr(request, "resolver_match", None)
    name = (match.url_name or "") if match else ""
    return (
        scope_of(request)
        if name in {"index", "home_live"} or name.endswith(("_changelist", "_choice", "_csv"))
        else None
    )


def with_scope(url: str, scope: Tenant, *, explicit: bool = False) -> str:
    """Return a URL with the scope. With ``explicit``, the URL for the scope None clears the session's last scope."""
    if scope is None and not explicit:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode({SCOPE: EVERYTHING if scope is None else scope.pk})}"
