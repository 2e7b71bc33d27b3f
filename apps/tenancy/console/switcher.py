"""The switcher at the top of each page: which organization, project and environment it shows, and links to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse

from apps.tenancy.console.columns import row_url
from apps.tenancy.console.console_user import Tenant
from apps.tenancy.console.scope import lineage, scope_condition, scope_of, visible_tenants, with_scope
from apps.tenancy.models import Environment, Organization, Project

MAX_LINKS: Final = 50  # an installation may have thousands of organizations
_TENANTS: Final[tuple[type[Model], ...]] = (Organization, Project, Environment)
_ORDER: Final[dict[type[Model], tuple[str, ...]]] = {
    Organization: ("name", "pk"),
    Project: ("organization__name", "name", "pk"),
    Environment: ("project__organization__name", "project__name", "name", "pk"),
}


@dataclass(frozen=True, slots=True)
class Link:
    """A place to which the switcher leads."""

    text: str
    url: str
    is_current: bool
    posture: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """One of the three menus of the switcher."""

    noun: str
    text: str
    posture: str
    is_chosen: bool
    everything: Link
    links: Sequence[Link]
    more: str | None  # the list of all, if there are more than the menu shows


class Switcher:
    """The three menus of a page. They are read when a template shows them."""

    def __init__(self, request: HttpRequest, page_admin: Any) -> None:
        self._request, self._admin = request, page_admin

    @property
    def posture(self) -> str:
        """The posture of the page's environment."""
        scope = scope_of(self._request)
        return str(scope.posture) if isinstance(scope, Environment) else ""

    def levels(self) -> list[Level]:
        """Return the menus of organizations, projects and environments."""
        chosen = lineage(scope_of(self._request))
        return [self._level(model, chosen) for model in _TENANTS]

    def _level(self, model: type[Model], chosen: list[Any]) -> Level:
        depth = _TENANTS.index(model)
        around: Tenant = chosen[min(depth, len(chosen)) - 1] if depth and chosen else None
        current = chosen[depth] if depth < len(chosen) else None
        rows = visible_tenants(self._request, model)
        if around is not None:
            rows = rows.filter(scope_condition(model, "", around))
        found = list(rows.order_by(*_ORDER[model])[: MAX_LINKS + 1])
        plural = str(model._meta.verbose_name_plural)
        list_url = reverse(f"admin:tenancy_{model._meta.model_name}_changelist")
        return Level(
            str(model._meta.verbose_name),
            str(current) if current is not None else f"All {plural}",
            getattr(current, "posture", ""),
            current is not None,
            Link(f"All {plural}", self.url_in(around), current is None),
            [
                Link(_name(row, len(chosen)), self.url_in(row), row == current, getattr(row, "posture", ""))
                for row in found[:MAX_LINKS]
            ],
            with_scope(list_url, around, explicit=True) if len(found) > MAX_LINKS else None,
        )

    def url_in(self, scope: Tenant) -> str:
        """Return the URL of what this page shows, in another scope: the same list, or the list of the page's row."""
        if self._admin is None:
            match = self._request.resolver_match
            name = match.url_name if match and match.url_name == "records" else "index"
            return with_scope(reverse(f"admin:{name}"), scope, explicit=True)
        is_list = self._request.path == self._admin.list_url()
        if not is_list and self._admin.model in _TENANTS and scope is not None:
            return row_url(scope)
        return with_scope(self._admin.list_url(), scope, explicit=True)


def _name(row: Any, depth: int) -> str:
    """Return the row's name with the names of what it is in, as far as the page's scope does not say them."""
    return " / ".join(str(each) for each in lineage(row)[min(depth, len(lineage(row)) - 1) :])
