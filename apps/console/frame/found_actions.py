"""The actions that the global search finds, such as "deploy quotes to prod".

Some words of the text name the action: they are prefixes of words of its label, or of its ``also``. The others name a
row on which to perform the action, or the row's environment, project or organization. The words can be in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any, Final

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from apps.console.frame.acts import Act, is_permitted
from apps.console.frame.base import ActionPage, FoundBy, ReadOnlyAdmin
from apps.console.frame.columns import act_url, page_url, tenant_path
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.names import MOST, find_named
from apps.console.frame.scope import granted_condition, join_path, path_to
from apps.tenancy.models import Environment, Organization, Project, Tenant
from apps.tenancy.permissions import Permission

_LINKING: Final = frozenset({"a", "an", "at", "for", "from", "in", "into", "of", "on", "the", "to", "with"})
_TENANTS: Final = (Organization, Project, Environment)
_MOST_WORDS: Final = 8  # a text with more words names no action
_MOST_NAMES: Final = 4  # words that are compared with the names of a table with an index
_MOST_READ: Final = 50  # rows of a table that are read to choose the best


@dataclass(frozen=True, slots=True)
class FoundAction:
    """An action and its target.

    ``is_verb`` is whether a word of the text is the start of the label's first word or of a word of ``also``.
    """

    label: str
    where: str
    url: str
    icon: str
    is_verb: bool


@dataclass(frozen=True, slots=True)
class _Action:
    """An act, or a page on which people perform an action, on rows of the table ``admin``."""

    label: str
    also: str
    icon: str
    admin: ReadOnlyAdmin
    needs: Permission | None  # the permission that the person needs at least in the tenant of the row
    permits: Callable[[Any, Tenant], bool]
    url_of: Callable[[Any], str]
    start: str  # the URL of the page on which the person chooses the row; "" if there is none
    find: Callable[[QuerySet[Any]], Iterable[Any]] | None = None  # see ``ActionPage.find``

    def words(self) -> list[str]:
        return [word for word in self.label.casefold().split() if word not in _LINKING]

    def verbs(self) -> list[str]:
        return [*self.words()[:1], *self.also.split()]

    def named_by(self, words: Iterable[str]) -> list[str]:
        """Return the words that are prefixes of the action's own words."""
        own = (*self.words(), *self.also.split())
        return [word for word in words if any(each.startswith(word) for each in own)]


def find_actions(request: HttpRequest, admins: Sequence[ReadOnlyAdmin], text: str) -> list[FoundAction]:
    """Return at most ``MOST`` actions that the text names and that the person may perform, the best first.

    Offers only the actions whose own words match the largest number of words in the text.
    """
    words = [each for each in (word.strip(".,;:!?'\"") for word in text.casefold().split()) if each not in _LINKING]
    words = [each for each in words if len(each) > 1 or each.isdigit()]
    if not 0 < len(words) <= _MOST_WORDS:
        return []
    named = [(action, action.named_by(words)) for action in _actions(request, admins)]
    most = max((len(by) for _, by in named), default=0)
    if most == 0:
        return []
    targets: dict[tuple[Any, ...], list[Any]] = {}
    found: list[tuple[int, FoundAction]] = []
    for action, by in named:
        if len(by) < most:
            continue
        rest = tuple(word for word in words if word not in by)
        is_verb = any(each.startswith(word) for word in by for each in action.verbs())
        unnamed = len(action.words()) - len(by)
        if not rest and action.start:
            found.append((unnamed, FoundAction(action.label, "Action", action.start, action.icon, is_verb)))
            continue
        key = (action.admin, action.find, action.needs, rest)
        if key not in targets:
            targets[key] = _targets(request, action, rest)
        for row in targets[key]:
            tenant = _admin_of(action.admin, row).tenant_of(row)
            if action.permits(row, tenant):
                where = " · ".join(dict.fromkeys([_describe(action.admin, row), tenant_path(tenant)]))
                found.append((unnamed, FoundAction(action.label, where, action.url_of(row), action.icon, is_verb)))
    return [each for _, each in sorted(found, key=lambda pair: (not pair[1].is_verb, pair[0]))[:MOST]]


def _actions(request: HttpRequest, admins: Sequence[ReadOnlyAdmin]) -> list[_Action]:
    """Return the actions that the person's roles may permit on some row."""
    console_user, tables = console_user_of(request), {admin.model: admin for admin in admins}
    acts = [
        _act(admin, act, console_user)
        for admin in admins
        for act in admin.acts
        if act.on_page
        and (console_user.is_superuser or not act.only_operators)
        and (act.needs is None or console_user.holds_anywhere(act.needs))
    ]
    pages = [
        _page(tables[page.model], page, console_user)
        for admin in admins
        for page in admin.action_pages
        if page.model in tables and console_user.holds_anywhere(page.needs)
    ]
    return [*pages, *acts]


def _act(admin: ReadOnlyAdmin, act: Act, console_user: ConsoleUser) -> _Action:
    def permits(row: Any, tenant: Tenant) -> bool:
        return is_permitted(act, row, tenant, console_user) and act.applies(row)

    start = page_url(admin.model, "choice", act.name) if act.creates is not None else ""
    return _Action(act.label, act.also, act.icon, admin, act.needs, permits, lambda row: act_url(row, act.name), start)


def _page(admin: ReadOnlyAdmin, page: ActionPage, console_user: ConsoleUser) -> _Action:
    def permits(row: Any, tenant: Tenant) -> bool:
        return page.needs in console_user.permissions(tenant)

    start = page.start() if page.start else ""
    return _Action(page.label, page.also, page.icon, admin, page.needs, permits, page.url_of, start, page.find)


def _targets(request: HttpRequest, action: _Action, words: Collection[str]) -> list[Any]:
    """Return at most ``MOST`` visible rows whose titles, together with the names of their tenants, contain all words.

    Leaves out rows in whose tenant the person lacks the action's permission.
    """
    admin, found_by = action.admin, action.admin.found_by
    if found_by is None:
        return []
    rows = admin.visible_rows(request)
    if action.needs is not None and admin.tenant is not None:
        rows = rows.filter(granted_condition(admin.model, admin.tenant, action.needs, console_user_of(request)))
    if found_by.acted_on is not None or (found_by.words and admin.tenant is not None):
        chosen = _containing(admin, found_by, rows, words)
    elif found_by.name and words:
        named = find_named(console_user_of(request), [(admin, found_by)], [*words][:_MOST_NAMES])
        keys = {key for _, key in named}
        chosen = rows.filter(pk__in=keys).order_by("-pk") if keys else rows.none()
    else:
        return []
    found = list((action.find or list)(chosen[:_MOST_READ]))
    described = [(row, _names(action.admin, row)) for row in found]
    matching = [(row, names) for row, names in described if all(word in names for word in words)]
    # Matches of whole words come first: "prod" before "preprod".
    matching.sort(key=lambda pair: -sum(word in pair[1].split() for word in words))
    return [row for row, _ in matching[:MOST]]


def _containing(admin: ReadOnlyAdmin, found_by: FoundBy, rows: QuerySet[Any], words: Iterable[str]) -> QuerySet[Any]:
    """Return the rows on which people act and that contain each word in a name of their own or of their tenants.

    They are sorted by organization, project and environment.
    """
    assert admin.tenant is not None  # noqa: S101  for mypy: the caller has checked it
    paths = [(level, path_to(admin.model, admin.tenant, level)) for level in _TENANTS]
    names = [join_path(path, "name") for _, path in paths if path is not None]
    fields = dict.fromkeys([*filter(None, [found_by.name]), *found_by.words, *names])
    conditions = (reduce(or_, (Q(**{f"{field}__icontains": word}) for field in fields)) for word in words)
    narrowed = rows.filter(reduce(and_, conditions, found_by.acted_on or Q()))
    position = [join_path(path, "position") for level, path in paths if level is Environment and path is not None]
    return narrowed.order_by(*names[:2], *position, *names[2:], "pk")


def _admin_of(admin: ReadOnlyAdmin, row: Model) -> ReadOnlyAdmin:
    found: ReadOnlyAdmin = admin.admin_site.get_model_admin(type(row))
    return found


def _describe(admin: ReadOnlyAdmin, row: Any) -> str:
    """Return the title of the row's page; for an organization, project or environment, its ``tenant_path``."""
    return tenant_path(row) if isinstance(row, _TENANTS) else _admin_of(admin, row).page_title(row)


def _names(admin: ReadOnlyAdmin, row: Any) -> str:
    tenant = _admin_of(admin, row).tenant_of(row)
    return f"{_describe(admin, row)} {tenant_path(tenant)}".casefold()
