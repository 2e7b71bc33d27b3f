"""The menu of the console: about a dozen entries for everyday work, and one for all other tables."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from django.http import HttpRequest
from django.urls import reverse

from apps.console.frame.columns import row_url
from apps.console.frame.console_user import console_user_of
from apps.console.frame.scope import scope_of, with_scope
from apps.tenancy.models import Environment, Tenant

RECORDS: Final = "Records"
COUNTED: Final = "Approvals"  # the entry with the number of approvals that wait for the person
# The entries in groups, each with its icon. A table names its entry in ``section``.
GROUPS: Final[tuple[dict[str, str], ...]] = (
    {"Environments": "layers"},
    {
        "Pipelines": "account_tree",
        "Config bundles": "inventory_2",
        "Deployments": "rocket_launch",
        "Approvals": "how_to_reg",
    },
    {"Agents": "memory", "Artifacts": "package_2", "Replays": "replay", "Fixtures": "rule"},
    {"People and keys": "group", "Audit": "history"},
    {"Webhooks": "webhook", "Jobs": "conveyor_belt"},
)


@cache
def _keys() -> dict[str, str]:
    """Map the titles of menu entries to the second key of their shortcut, after "g": the title's first free letter."""
    keys: dict[str, str] = {}
    for title in ("Overview", *(title for group in GROUPS for title in group), RECORDS):
        key = next((each for each in title.casefold() if each.isalpha() and each not in keys.values()), None)
        if key is not None:
            keys[title] = key
    return keys


def visible_admins(site: Any, request: HttpRequest) -> list[Any]:
    """Return the tables that the person may see."""
    return [each for each in site._registry.values() if each.has_module_permission(request)]


def page_admin(site: Any, request: HttpRequest) -> Any:
    """Return the table to which the page belongs; None if it belongs to no table."""
    match = getattr(request, "resolver_match", None)
    return _by_name(site).get((match.url_name or "").rpartition("_")[0]) if match else None


@cache
def _by_name(site: Any) -> dict[str, Any]:
    return {f"{each.opts.app_label}_{each.opts.model_name}": each for each in site._registry.values()}


def build_menu(site: Any, request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups of the menu. Most of their links keep the scope of the page."""
    scope, here = scope_of(request), page_admin(site, request)
    sections: dict[str, list[Any]] = {}
    for each in visible_admins(site, request):
        sections.setdefault(each.section_for(request), []).append(each)
    section = here.section_of_page(request) if here else None
    path = request.path
    groups = [
        [menu_item("Overview", "dashboard", reverse("admin:index"), scope, active=path == reverse("admin:index"))]
    ]
    for group in GROUPS:
        items = [
            menu_item(
                title, icon, sections[title][0].list_url(), scope, active=section == title, is_counted=title == COUNTED
            )
            for title, icon in group.items()
            if title in sections
        ]
        groups.append(items)
    if isinstance(scope, Environment) and groups[1]:
        hub = row_url(scope)
        is_here = path.startswith(hub.removesuffix("change/"))
        groups[1] = [{**menu_item("Environment", "layers", hub, None, active=is_here), "key": _keys()["Environments"]}]
    groups[0] += groups.pop(1)
    if console_user_of(request).is_superuser:  # other people find the usage on the page of their organization
        url = reverse("admin:usage")
        groups[-1].append(menu_item("Usage", "data_usage", url, None, active=path == url))
    if RECORDS in sections:
        url = reverse("admin:records")
        groups[-1].append(menu_item(RECORDS, "table_rows", url, scope, active=path == url or section == RECORDS))
    return [{"separator": at > 0, "items": items} for at, items in enumerate(groups) if items]


def menu_item(
    title: str, icon: str, url: str, scope: Tenant, *, active: bool, is_counted: bool = False
) -> dict[str, Any]:
    """Return a menu entry. If ``is_counted``, it shows the number of approvals that wait for the person."""
    link = with_scope(url, scope)
    return {
        "title": title, "icon": icon, "link": link, "active": active, "has_permission": True,
        "is_counted": is_counted, "key": _keys().get(title, ""),
    }  # fmt: skip


def tabs(site: Any, request: HttpRequest) -> list[tuple[str, str, bool]]:
    """Return the title and URL of each list and tab under the page's menu entry, and whether this page shows it.

    Returns an empty list if there is only one such list or tab, if this page is not a list, or if its menu entry is
    Records.
    """
    here = page_admin(site, request)
    if here is None or request.path != here.list_url() or (section := here.section_for(request)) == RECORDS:
        return []
    scope, found = scope_of(request), []
    for each in visible_admins(site, request):
        if each.section_for(request) != section:
            continue
        queries = [query for query in each.tabs.values() if each is here and query in request.GET.urlencode()]
        found.append((each.menu_title(), with_scope(each.list_url(), scope), each is here and not queries))
        found += [
            (title, with_scope(f"{each.list_url()}?{query}", scope), query in queries)
            for title, query in each.tabs.items()
        ]
    return found if len(found) > 1 else []


def records(site: Any, request: HttpRequest) -> list[tuple[str, str, str]]:
    """Return the title, description and URL of the tables that belong to no other menu entry, sorted by title."""
    scope = scope_of(request)
    listed = {RECORDS, "Environments"} if isinstance(scope, Environment) else {RECORDS}
    return sorted(
        (each.menu_title(), each.holds, with_scope(each.list_url(), scope))
        for each in visible_admins(site, request)
        if each.section_for(request) in listed
    )
