"""The agent list in groups: by version, or by the value of a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.db.models import Q, QuerySet

from apps.fleet.services import agent_groups, agent_search
from apps.fleet.services.agent_groups import MAX_GROUPS, Group
from apps.fleet.services.agent_search import Term
from apps.releases.services.running_versions import BundleVersion, runs_in, versions_of

VERSION = "version"


def group_table(
    environments: QuerySet[Any], by: str, terms: Sequence[Term], link: Callable[[str], str]
) -> dict[str, Any]:
    """Return the table of the groups of agents that match the terms. ``link`` returns the URL of the narrowed search.

    ``by`` is ``version`` or a label's key. Each row has a title, and the texts and URLs of its counts.
    """
    condition = agent_search.pulse_condition(tuple(terms), partial(runs_in, environments)) if terms else Q()
    if by == VERSION:
        found = _by_version(environments, agent_groups.group_by_bundle(environments, condition))
    else:
        groups = agent_groups.group_by_label(environments, by, condition)
        found = [(_label_title(by, group), _label_term(by, group), group) for group in groups]
    return {
        "title": "Version" if by == VERSION else by,
        "rows": [_row(title, term, group, link) for title, term, group in found[:MAX_GROUPS]],
        "cut": MAX_GROUPS if len(found) > MAX_GROUPS else None,
    }


def _label_title(key: str, group: Group) -> str:
    return f"No {key}" if group.value is None else group.value or "(empty)"


def _label_term(key: str, group: Group) -> str:
    return agent_search.lacks_term(key) if group.value is None else agent_search.label_term(key, group.value)


def _by_version(environments: QuerySet[Any], groups: Sequence[Group]) -> list[tuple[str, str, Group]]:
    """Add up the groups of bundles that contain the same version."""
    versions = versions_of(environments, [group.value for group in groups if group.value is not None])
    summed: dict[tuple[str, str], Group] = {}
    for group in groups:
        version = versions.get(group.value or "")
        key = _version_key(group, version)
        summed[key] = Group(key[0] if version else None) + group + summed.get(key, Group(None))
    largest = sorted(summed.items(), key=lambda item: (item[1].value is None, -item[1].agents, item[0]))
    return [(title, term, group) for (title, term), group in largest]


def _version_key(group: Group, version: BundleVersion | None) -> tuple[str, str]:
    """Return the title of a version and the search term for it. Without a version, the term is empty."""
    if version is None:
        return ("No bundle" if group.value is None else "Bundles of unknown versions"), ""
    return f"{version.pipeline} v{version.number}", f"{version.pipeline}@v{version.number}"


def _row(title: str, term: str, group: Group, link: Callable[[str], str]) -> dict[str, Any]:
    def cell(count: int, more: str, tone: str) -> dict[str, str]:
        url = link(f"{term} {more}".strip()) if term and count else ""
        return {"text": f"{count:,}", "url": url, "tone": tone if count else ""}

    return {
        "title": title,
        "url": link(term) if term else "",
        "agents": f"{group.agents:,}",
        "cells": [
            ("Not online", {**cell(group.not_online, "", "warn"), "url": ""}),
            ("Drifted", cell(group.drifted, "drift:yes", "warn")),
            ("Failed", cell(group.failed, "status:failed", "bad")),
        ],
    }
