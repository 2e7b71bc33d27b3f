"""The switcher at the top of the console's pages. It shows the page's scope, and links to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import CharField, F, QuerySet, Value
from django.http import HttpRequest
from django.urls import reverse

from apps.console.frame.columns import list_url, row_url
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.personal import personal_query
from apps.console.frame.scope import lineage, scope_condition, scope_of, visible_tenants, with_scope
from apps.tenancy.models import Environment, Organization, Project, Tenant
from byteor_cloud.database.together import Plan

MAX_LINKS: Final = 50  # links per menu; an installation may have thousands of organizations
_TENANTS: Final[tuple[type[Organization | Project | Environment], ...]] = (Organization, Project, Environment)
# For each level in ``_TENANTS``, the fields with the names from the organization down to the level.
_NAMES: Final = (("name",), ("organization__name", "name"), ("project__organization__name", "project__name", "name"))


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the switcher."""

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
    more: str | None  # the URL of the full list, if the menu does not show all rows


class Switcher:
    """The three menus of a page. ``choices`` returns the rows of ``plan_choices`` when a template shows the menus."""

    def __init__(self, request: HttpRequest, page_admin: Any, choices: Callable[[], list[tuple[Any, ...]]]) -> None:
        self._request, self._admin, self._choices = request, page_admin, choices

    @property
    def posture(self) -> str:
        """The posture of the page's environment; empty without one."""
        scope = scope_of(self._request)
        return str(scope.posture) if isinstance(scope, Environment) else ""

    def levels(self) -> list[Level]:
        """Return the menus of organizations, projects and environments."""
        chosen = lineage(scope_of(self._request))
        found: list[list[Any]] = [[] for _ in _TENANTS]
        for depth, *row in self._choices():
            found[depth].append(row)
        return [self._level(depth, chosen, rows) for depth, rows in enumerate(found)]

    def _level(self, depth: int, chosen: list[Any], rows: list[Any]) -> Level:
        model, around = _TENANTS[depth], _around(depth, chosen)
        current = chosen[depth] if depth < len(chosen) else None
        plural, said = str(model._meta.verbose_name_plural), min(depth, len(chosen))
        links = [
            Link(
                " / ".join(names[said : depth + 1]),
                self.url_in(model(pk=pk)),
                pk == getattr(current, "pk", None),
                posture,
            )
            for pk, posture, _, *names in sorted(rows, key=_place)
        ]
        return Level(
            noun=str(model._meta.verbose_name),
            text=f"All {plural}" if current is None else str(current),
            posture=getattr(current, "posture", ""),
            is_chosen=current is not None,
            everything=Link(f"All {plural}", self.url_in(around), current is None),
            links=links[:MAX_LINKS],
            more=with_scope(list_url(model), around, explicit=True) if len(links) > MAX_LINKS else None,
        )

    def url_in(self, scope: Tenant) -> str:
        """Return the URL to which a link to another scope leads: a list, "Records" or the overview.

        On the pages of organizations, projects and environments, and of acts on them, the link leads to the page of the
        other scope, if any.
        """
        if self._admin is None:
            match = self._request.resolver_match
            name = match.url_name if match and match.url_name == "records" else "index"
            return with_scope(reverse(f"admin:{name}"), scope, explicit=True)
        is_list = self._request.path == self._admin.list_url()
        if not is_list and self._admin.model in _TENANTS and scope is not None:
            return row_url(scope)
        return with_scope(self._admin.list_url(), scope, explicit=True)


def plan_choices(request: HttpRequest) -> Plan[list[tuple[Any, ...]]]:
    """Return the ``Plan`` for the rows that the switcher offers in the page's scope."""
    chosen = lineage(scope_of(request))
    query, values = personal_query(_choices, len(chosen), console_user_of(request), *(level.pk for level in chosen))
    (rows,) = yield [query.statement(*values)]
    return rows


def _place(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return the sort key of a row of ``_level_choices`` without its depth: names, and positions for environments.

    The environments of a project are sorted by position before their names.
    """
    _, _, position, organization, project, environment = row
    return organization.casefold(), project.casefold(), position, environment.casefold()


def _choices(count: int, console_user: ConsoleUser, *keys: UUID) -> QuerySet[Any, Any]:
    """Return the choices of every level. ``keys`` are the ids of the rows chosen in the first ``count`` levels."""
    chosen = [level(pk=pk) for level, pk in zip(_TENANTS[:count], keys, strict=True)]
    first, *others = (_level_choices(depth, console_user, _around(depth, chosen)) for depth in range(len(_TENANTS)))
    return first.union(*others, all=True)


def _level_choices(depth: int, console_user: ConsoleUser, around: Tenant) -> QuerySet[Any, Any]:
    """Return the depth, key, posture, position and three names of a level's first rows in the scope ``around``."""
    model, names = _TENANTS[depth], _NAMES[depth]
    rows = visible_tenants(model, console_user)
    if around is not None:
        rows = rows.filter(scope_condition(model, "", around))
    padding = [Value("", output_field=CharField())] * (len(_TENANTS) - len(names))
    is_last = depth == len(_TENANTS) - 1
    posture = F("posture") if is_last else Value("", output_field=CharField())
    place = F("position") if is_last else Value(0)
    columns = dict(zip(("first", "second", "third"), [*map(F, names), *padding], strict=True))
    order = (*names[:-1], "place", names[-1], "pk")
    listed = rows.annotate(depth=Value(depth), shown=posture, place=place, **columns).order_by(*order)
    first: QuerySet[Any, Any] = listed.values_list("depth", "pk", "shown", "place", *columns)[: MAX_LINKS + 1]
    return first


def _around(depth: int, chosen: list[Any]) -> Tenant:
    """Return the scope in which the rows of a level are listed: the part of the page's scope above the level."""
    return chosen[min(depth, len(chosen)) - 1] if depth and chosen else None
