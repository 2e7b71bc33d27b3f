"""The fleet panel of an environment's page: bars of counts, and a cell for each agent of a small fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from apps.console.frame.columns import TONES, list_url, page_url
from apps.console.frame.scope import with_scope
from apps.fleet.models import Agent, Heartbeat, Liveness
from apps.fleet.services import facts
from apps.tenancy.models import Environment

MAX_CELLS = 500
_COLUMNS = ("pk", "name", "liveness", "heartbeat__status", "drifted", "drained", "cloned")


def fleet_panel(environment: Environment) -> dict[str, Any]:
    """Return the panel. Agents are listed if the fleet is small, and otherwise only counted."""
    groups = facts.count_groups(environment)
    total = groups.total
    base = f"{list_url(Agent)}?environment__id__exact={environment.pk}&enrolled=yes"
    panel = {
        "title": "Fleet",
        "wide": True,
        "body": "console/fleet.html",
        "url": with_scope(base, environment),
        "link": f"{total:,} agent{'' if total == 1 else 's'}",
        "empty": "No agents yet. Create an enrollment token. The console then shows the commands to run on a machine.",
    }
    if not total:
        return panel
    cells: list[dict[str, str]] = []
    liveness = Counter[str]()
    if total > MAX_CELLS:
        liveness.update(facts.states_of([environment], groups.by_drift).liveness)
    else:
        cells, liveness = _cells(environment)
    drift = {"drifted": groups.by_drift[True], "as desired": groups.by_drift[False]}
    bars = [
        _bar("Liveness", {each: liveness[each] for each in Liveness}, f"{base}&liveness="),
        _bar("Status", groups.status, f"{base}&status="),
        _bar("Drift", drift, f"{base}&drift=", _DRIFT),
    ]
    bars = [each for each in bars if each["parts"]]
    return {**panel, "bars": bars, "cells": cells}


_DRIFT = {"drifted": "yes", "as desired": "no"}


def _bar(title: str, counts: Mapping[str, int], url: str, words: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a bar with a part for each word in ``counts`` whose count is not 0.

    Each part links to the list, filtered by the part's word. ``words`` maps a word to the filter's value, if the value
    differs from the word.
    """
    parts = [
        {
            "word": word,
            "count": f"{count:,}",
            "share": count,
            "tone": TONES.get(word, "good" if word == "as desired" else "plain"),
            "url": url + (words or {}).get(word, word),
        }
        for word, count in counts.items()
        if count
    ]
    return {"title": title, "parts": parts, "text": ", ".join(f"{each['count']} {each['word']}" for each in parts)}


def _cells(environment: Environment) -> tuple[list[dict[str, str]], Counter[str]]:
    """Return a cell for each agent, and the number of agents by liveness."""
    mine = Agent.objects.enrolled().filter(environment=environment).with_state().order_by("name")
    cells, liveness = [], Counter[str]()
    for pk, name, *marks in mine.values_list(*_COLUMNS)[:MAX_CELLS]:
        word = state_of(*marks)
        liveness[marks[0]] += 1
        url = page_url(Agent, "change", pk)
        cells.append({"url": url, "text": f"{name}: {word}", "tone": _TONE.get(word) or TONES.get(word, "plain")})
    return cells, liveness


_TONE = {"drained": "plain", "suspected clone": "bad", "starting": "busy"}


def state_of(liveness: str, status: str | None, drifted: bool, drained: bool, cloned: bool) -> str:
    """Return the most severe of an agent's states as a word."""
    if cloned:
        return "suspected clone"
    if liveness != Liveness.ONLINE:
        return str(liveness)
    if status in {Heartbeat.Status.FAILED, Heartbeat.Status.DEGRADED}:
        return str(status)
    if drained:
        return "drained"
    return "drifted" if drifted else status or "starting"
