"""The agent list: its search, its columns, and the links that narrow the search."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, override
from urllib.parse import urlencode

from django.contrib.admin.views.main import PAGE_VAR, SEARCH_VAR
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from apps.console.frame import short_id, state_pill
from apps.console.frame.base import ScopedChangeList
from apps.console.frame.columns import page_url, text_link
from apps.console.frame.console_user import user_of
from apps.console.frame.large import FOUND
from apps.console.frame.scope import SCOPE, scope_of, with_scope
from apps.console.frame.site import listed_rows
from apps.console.pages.agents.grouping import VERSION, group_table
from apps.console.pages.agents.saving import organization_of_searches
from apps.fleet.models import Agent, Heartbeat, Liveness
from apps.fleet.services import agent_search, facts, saved_searches
from apps.pipelines.models import Version
from apps.releases.services.running_versions import BundleVersion, runs, runs_in, versions_of
from apps.tenancy.models import Environment
from byteor_cloud.errors import InvalidInput

GROUP = "group"
_MOST_CHIPS = 5
_MOST_GROUP_LINKS = 6


def find_agents(rows: QuerySet[Any], text: str, environments: QuerySet[Any]) -> QuerySet[Any]:
    """Return the agents among ``rows`` that match a search; none if the search is invalid.

    ``environments`` are those of the agents. If the search compares names, it finds at most ``FOUND`` agents.
    """
    try:
        terms = agent_search.parse(text)
    except InvalidInput:
        return rows.none()
    if not agent_search.finds_words(terms):
        return rows.filter(agent_search.agent_condition(terms, partial(runs_in, environments)))
    # Comparing the names of all agents is slow, so the count and the page must not both do it.
    found = rows.filter(agent_search.agent_condition(terms, runs))
    return rows.filter(pk__in=list(found.order_by().values_list("pk", flat=True)[:FOUND]))


class AgentChangeList(ScopedChangeList):
    """The list of agents, or the groups of the agents that match the search."""

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        self.group = request.GET.get(GROUP, "")
        super().__init__(request, *args)

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Return the filters in the URL, without the scope and the grouping."""
        found = super().get_filters_params(params)
        found.pop(GROUP, None)
        return found

    @property
    @override
    def search_note(self) -> str:
        """A note on the limit if a search that compares names may have reached it; otherwise empty."""
        try:
            is_limited = agent_search.finds_words(agent_search.parse(self.query))
        except InvalidInput:
            return ""
        return super().search_note if is_limited else ""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page and the versions in their bundles. If agents are grouped, read only the groups."""
        self._request = request
        if self.groups is not None:
            self.queryset = self.root_queryset.none()  # the page shows only the groups
        super().get_results(request)
        hashes = {
            each for row in self.result_list for each in (row.heartbeat.running_bundle_hash, row.assignment.bundle_hash)
        }
        versions = versions_of(listed_rows(request, Environment), hashes - {None})
        for row in self.result_list:
            row.shown_in = _Shown(self, versions)

    @cached_property
    def search_error(self) -> str:
        """Why the search is invalid; empty if it is valid."""
        try:
            agent_search.parse(self.query)
        except InvalidInput as error:
            return error.detail
        return ""

    def narrowed_url(self, term: str) -> str:
        """Return the URL of the list with this term in addition to the search and the filters."""
        query = self.query.strip()
        parts = query if f" {term} " in f" {query} " else f"{query} {term}".strip()
        return f"{self._base}{urlencode({SEARCH_VAR: parts})}"

    @cached_property
    def _base(self) -> str:
        rest: str = self.get_query_string(remove=[SEARCH_VAR, PAGE_VAR, GROUP])
        return f"{rest}&" if len(rest) > 1 else "?"

    @cached_property
    def groups(self) -> dict[str, Any] | None:
        """The table of groups; None if the agents are not grouped, or if the search is invalid."""
        if not self.group or self.search_error:
            return None
        environments = listed_rows(self._request, Environment)
        return group_table(environments, self.group, agent_search.parse(self.query), self.narrowed_url)

    @cached_property
    def group_links(self) -> list[dict[str, Any]]:
        """Links to the groups by version and by the most frequent labels, and back to the agents."""
        keys = [*facts.find_label_keys(listed_rows(self._request, Environment), limit=_MOST_GROUP_LINKS)]
        if self.group and self.group not in {VERSION, *keys}:
            keys.append(self.group)
        return [
            {"title": title, "url": self._group_url(by), "is_current": by == self.group}
            for by, title in [("", "Agents"), (VERSION, "Version"), *((key, key) for key in keys if key != VERSION)]
        ]

    def _group_url(self, by: str) -> str:
        """Return the URL of the groups, or of the agents if ``by`` is empty, with the search and the scope only."""
        given = {SEARCH_VAR: self.query, GROUP: by, SCOPE: self.params.get(SCOPE, "")}
        return f"?{urlencode({name: value for name, value in given.items() if value})}"

    @cached_property
    def saved(self) -> list[dict[str, Any]]:
        """The person's saved searches in the organization of the page."""
        organization, scope = organization_of_searches(self._request), scope_of(self._request)
        if organization is None:
            return []
        return [
            {
                "row": row,
                "url": with_scope(f"?{urlencode({SEARCH_VAR: row.query})}", scope),
                "delete_url": with_scope(reverse("admin:agent_search_delete", args=[row.pk]), scope),
                "is_current": row.query == self.query.strip(),
            }
            for row in saved_searches.searches_of(user_of(self._request), organization)
        ]

    @cached_property
    def save_url(self) -> str:
        """The URL of the form that saves the search.

        Empty if the search is empty, invalid or saved already, or if ``organization_of_searches`` returns None.
        """
        if not self.query.strip() or self.search_error or any(each["is_current"] for each in self.saved):
            return ""
        if organization_of_searches(self._request) is None:
            return ""
        return with_scope(reverse("admin:agent_searches"), scope_of(self._request))

    @cached_property
    def completions_url(self) -> str:
        """The URL of the completions for the search field."""
        return with_scope(reverse("admin:agent_completions"), scope_of(self._request))


class _Shown:
    """The data of the list that the cells of a row need."""

    __slots__ = ("changes", "versions")

    def __init__(self, changes: AgentChangeList, versions: Mapping[str, BundleVersion]) -> None:
        self.changes, self.versions = changes, versions


def running_cell(row: Any) -> str:
    """Return the version that the agent runs and the version of another bundle that it should run: "quotes v7 → v8".

    A bundle of the same version is "another configuration". If the version is unknown, a bundle's hash is shown. An
    agent that runs nothing has "nothing" on the left, or only "-" if it should run nothing.
    """
    running, desired = row.heartbeat.running_bundle_hash, row.assignment.bundle_hash
    versions = row.shown_in.versions
    now = _version(running, versions) if running else "nothing"
    if desired is None or desired == running:
        return now if running else "-"
    before, after = versions.get(running), versions.get(desired)
    if before and after and before.id == after.id:
        then: Any = "another configuration"
    elif before and after and before.pipeline == after.pipeline:
        then = text_link(page_url(Version, "change", after.id), f"v{after.number}")
    else:
        then = _version(desired, versions)
    return format_html('{} <span aria-hidden="true">→</span><span class="sr-only"> should run </span> {}', now, then)


def _version(bundle_hash: str, versions: Mapping[str, BundleVersion]) -> str:
    version = versions.get(bundle_hash)
    if version is None:
        return short_id(bundle_hash)
    return text_link(page_url(Version, "change", version.id), f"{version.pipeline} v{version.number}")


def state_cell(row: Any) -> str:
    """Return the agent's states as pills; only "decommissioned" for a decommissioned agent.

    An agent that is online shows its status, or "online" if it has none. Any other agent shows its liveness, and its
    status if that is failed or degraded. The pills "drained" and "cloned" follow if they apply.
    """
    if row.decommissioned_at is not None:
        return state_pill("decommissioned")
    status, words = row.heartbeat.status, []
    if row.liveness != Liveness.ONLINE:
        words.append(row.liveness)
    # An outdated status is shown only if it may explain why the heartbeats stopped.
    if row.liveness == Liveness.ONLINE or status in {Heartbeat.Status.FAILED, Heartbeat.Status.DEGRADED}:
        words.append(status or row.liveness)
    words += [mark for mark in ("drained", "cloned") if getattr(row, mark)]
    return format_html_join(" ", "{}", ((state_pill(word),) for word in words))


def labels_cell(row: Agent) -> str:
    """Return the labels as links that narrow the search. Long lists are shortened, with the rest in a tooltip."""
    shown: _Shown = row.shown_in  # type: ignore[attr-defined]  # set by the list
    labels = sorted(row.labels.items())
    chips = format_html_join(
        " ", '<a class="chip" href="{}" title="Narrow the search to {}={}">{}<b>{}</b></a>',
        (
            (shown.changes.narrowed_url(agent_search.label_term(key, value)), key, value, f"{key}=", value)
            for key, value in labels[:_MOST_CHIPS]
        ),
    )  # fmt: skip
    rest = labels[_MOST_CHIPS:]
    if not rest:
        return chips or "-"
    title = ", ".join(f"{key}={value}" for key, value in rest)
    return format_html('{} <span class="note" title="{}">and {} more</span>', chips, title, len(rest))
