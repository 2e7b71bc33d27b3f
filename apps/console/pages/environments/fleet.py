"""The fleet panel of an environment's page: counts by state, a cell for each agent of a small fleet, and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.console.frame.columns import TONES, act_url, list_url, page_url, row_url
from apps.console.frame.next_steps import returning
from apps.console.frame.scope import with_scope
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.console.pages.deployments.phrases import FAILED_HOW, agent_count
from apps.fleet.models import Agent, Heartbeat, Liveness, PulseCount
from apps.fleet.services import facts
from apps.releases.services import failures
from apps.tenancy.models import Environment

MAX_CELLS = 500
_COLUMNS = ("liveness", "heartbeat__status", "drifted", "drained", "cloned")
_CAUSES = 5  # causes that are listed


@dataclass(frozen=True, slots=True)
class Fleet:
    """The enrolled agents of an environment, counted by state, and by the hash of the bundle that they run.

    A small fleet has a cell for each agent, and ``causes`` counts its failed agents by reason and cause.
    """

    liveness: Mapping[str, int]
    status: Mapping[str, int]
    by_drift: Mapping[bool, int]
    running: Mapping[str, int]
    cells: list[dict[str, str]] | None = None
    causes: Counter[tuple[str, str]] | None = None


def read_fleet(environment: Environment, expected: int) -> Fleet:
    """Return the fleet. ``expected`` is the approximate number of agents.

    The counts of a large fleet may be outdated until the job ``fleet.settle`` has run, because updating them for each
    request could take seconds.
    """
    if expected <= MAX_CELLS:
        agents = Agent.objects.enrolled().filter(environment=environment).with_state().order_by("name")
        rows = list(
            agents.annotate(failure=failures.failure_of_agent()).values_list(
                "pk", "name", "failure", "heartbeat__running_bundle_hash", *_COLUMNS
            )[: MAX_CELLS + 1]
        )
        if len(rows) <= MAX_CELLS:
            return _small(rows)
    groups = facts.sum_groups(PulseCount.objects.filter(environment=environment))
    liveness = facts.states_of([environment], groups.by_drift).liveness
    return Fleet(liveness, groups.status, groups.by_drift, groups.bundles)


def _small(rows: Iterable[tuple[Any, ...]]) -> Fleet:
    liveness, by_drift, running = Counter[str](), Counter[bool](), Counter[str]()
    status, causes = Counter[str](dict.fromkeys(Heartbeat.Status.values, 0)), Counter[tuple[str, str]]()
    cells = []
    for pk, name, failure, bundle_hash, *marks in rows:
        liveness[marks[0]] += 1
        by_drift[marks[2]] += 1
        if marks[1] is not None:
            status[marks[1]] += 1
        if bundle_hash is not None:
            running[bundle_hash] += 1
        if failure is not None:
            causes[failure["reason"], failure["cause"]] += 1
        word = state_of(*marks, failed=failure is not None)
        text = f"{name}: {word}"
        if failure is not None:
            text = f"{text}{'' if word == 'failed' else ', failed'}: {_why(failure['reason'], failure['detail'])}"
        tone = _TONE.get(word) or TONES.get(word, "plain")
        cells.append({"url": page_url(Agent, "change", pk), "text": text, "tone": tone})
    return Fleet(liveness, status, by_drift, running, cells, causes)


def fleet_panel(
    environment: Environment, fleet: Fleet, causes: Iterable[Mapping[str, Any]], *, may_enroll: bool
) -> dict[str, Any]:
    """Return the panel. ``causes`` are those of the deployments, which the panel of a large fleet shows.

    Without agents, people with ``may_enroll`` get a button that creates an enrollment token.
    """
    total = sum(fleet.by_drift.values())
    base = f"{list_url(Agent)}?environment__id__exact={environment.pk}&enrolled=yes"
    panel = {
        "title": "Fleet",
        "id": "fleet",
        "wide": True,
        "body": "console/fleet.html",
        "url": with_scope(base, environment),
        "link": agent_count(total),
        "empty": "No enrolled agents. Create an enrollment token to enroll a machine as an agent.",
    }
    if not total:
        url = returning(act_url(environment, CREATE_ENROLLMENT_TOKEN.name), row_url(environment))
        button = {"text": CREATE_ENROLLMENT_TOKEN.label, "icon": CREATE_ENROLLMENT_TOKEN.icon, "url": url}
        return panel | ({"button": button} if may_enroll else {})
    counted = fleet.causes
    if counted is None:
        counted = Counter[tuple[str, str]]()
        for each in causes:
            counted[each["reason"], each["cause"]] += each["count"]
    drift = {"drifted": fleet.by_drift.get(True, 0), "as desired": fleet.by_drift.get(False, 0)}
    bars = [
        _bar("Liveness", {each: fleet.liveness.get(each, 0) for each in Liveness}, f"{base}&liveness="),
        _bar("Status", fleet.status, f"{base}&status="),
        _bar("Drift", drift, f"{base}&drift=", _DRIFT),
    ]
    bars = [each for each in bars if each["parts"]]
    return {**panel, "bars": bars, "cells": fleet.cells or [], "causes": _describe_causes(counted)}


def _describe_causes(causes: Counter[tuple[str, str]]) -> list[str]:
    """Return phrases for the most frequent causes, such as "3 failed: no such core", and one for any other causes."""
    shown = [f"{count:,} failed: {_why(*cause)}" for cause, count in causes.most_common(_CAUSES)]
    rest = sum(count for _, count in causes.most_common()[_CAUSES:])
    return [*shown, f"{rest:,} failed for other reasons"] if rest else shown


def _why(reason: str, detail: str) -> str:
    return detail or FAILED_HOW[reason]


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


_TONE = {"drained": "plain", "suspected clone": "bad", "starting": "busy"}


def state_of(
    liveness: str, status: str | None, drifted: bool, drained: bool, cloned: bool, *, failed: bool = False
) -> str:
    """Return the most severe of an agent's states as a word. ``failed``: whether the agent failed in its deployment."""
    if cloned:
        return "suspected clone"
    if liveness != Liveness.ONLINE:
        return str(liveness)
    if failed:
        return str(Heartbeat.Status.FAILED)
    if status in {Heartbeat.Status.FAILED, Heartbeat.Status.DEGRADED}:
        return str(status)
    if drained:
        return "drained"
    return "drifted" if drifted else status or "starting"
