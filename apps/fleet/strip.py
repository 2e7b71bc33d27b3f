"""The fleet on the page of an environment: a cell for each agent, or bars of counts for a large fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.urls import reverse

from apps.fleet import facts
from apps.fleet.models import Agent, Heartbeat, Liveness
from apps.tenancy.console.columns import TONES
from apps.tenancy.models import Environment

MAX_CELLS = 500
_COLUMNS = ("pk", "name", "liveness", "heartbeat__status", "drifted", "drained", "cloned")


def fleet_panel(environment: Environment) -> dict[str, Any]:
    """Return the panel. It reads the agents themselves only if they are few, and else the maintained counts."""
    counts = facts.count_health(environment)
    total = sum(counts.liveness.values())
    base = f"{reverse('admin:fleet_agent_changelist')}?environment__id__exact={environment.pk}&enrolled=yes"
    panel = {
        "title": "Fleet",
        "wide": True,
        "place": 1,
        "body": "console/fleet.html",
        "url": base,
        "link": f"{total:,} agent{'' if total == 1 else 's'}",
        "empty": "No agent is enrolled here yet. Create an enrollment token, and paste its command on a machine.",
    }
    if not total:
        return panel
    bars = [
        _bar("Liveness", counts.liveness, f"{base}&liveness="),
        _bar("Status", counts.status, f"{base}&status="),
        _bar("Drift", {"drifted": counts.drifted, "as desired": total - counts.drifted}, f"{base}&drift=", _DRIFT),
    ]
    return {**panel, "bars": bars, "cells": _cells(environment) if total <= MAX_CELLS else []}


_DRIFT = {"drifted": "yes", "as desired": "no"}


def _bar(title: str, counts: Mapping[str, int], url: str, words: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a bar with a part for each word. ``words`` are the filter's words where they are others."""
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


def _cells(environment: Environment) -> list[dict[str, str]]:
    mine = Agent.objects.enrolled().filter(environment=environment).with_state().order_by("name")
    cells = []
    for pk, name, *marks in mine.values_list(*_COLUMNS)[:MAX_CELLS]:
        word = state_of(*marks)
        url = reverse("admin:fleet_agent_change", args=[pk])
        cells.append({"url": url, "text": f"{name}: {word}", "tone": _TONE.get(word) or TONES.get(word, "plain")})
    return cells


_TONE = {"drained": "plain", "suspected clone": "bad", "starting": "busy"}


def state_of(liveness: str, status: str | None, drifted: bool, drained: bool, cloned: bool) -> str:
    """Return in one word the worst that is known of an agent."""
    if cloned:
        return "suspected clone"
    if liveness != Liveness.ONLINE:
        return str(liveness)
    if status in {Heartbeat.Status.FAILED, Heartbeat.Status.DEGRADED}:
        return str(status)
    if drained:
        return "drained"
    return "drifted" if drifted else status or "starting"
