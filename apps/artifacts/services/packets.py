"""The packet of an approval: what a reviewer should know before the decision, as JSON data."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Count, OuterRef, Subquery
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from apps.artifacts.models import Fixture, RegressionResult
from apps.artifacts.services.regression_details import MAX_BYTES, prefix, read_overview, size_of, with_examples
from apps.artifacts.services.regression_headline import count_results, describe_result, why_vacuous
from apps.fleet.services.selection import select_agents
from apps.releases.models import Acceptance, AcceptedDifference, Approval, ConfigBundle, Deployment, Regression
from apps.releases.services import regression_queue, replay_gate, rollbacks
from apps.releases.services.changes import Changes, find_changes
from apps.tenancy.models import AuditEvent
from byteor.engine.blockers import Blocker
from byteor.engine.machines import RegressionStatus
from byteor.engine.regression import MAX_NAMED, count_of
from byteor.engine.replay import FixtureOutcome
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.errors import Conflict
from byteor_cloud.ids import smallest_uuid7

MAX_AGENT_GROUPS = 100
"""The maximum number of running configurations that a packet lists."""
MAX_REMOVED = 100
"""The maximum number of removed fixtures that a packet lists."""
MAX_COMPARED = 5
"""The maximum number of earlier regressions with which a packet compares the fixtures of accepted groups."""
MAX_SHOWN = 200_000
"""The maximum size of a regression that is compared in this way: how often its results can refer to groups."""
_PART_BYTES = 512 * 1024  # the maximum size of the JSON of each: spec changes, configuration changes, and captures
_UNREAD = ("spec_kv", "groups", "not_tested", "summary", "engine", "tests")
_TESTED = tuple(each for each in FixtureOutcome if each is not FixtureOutcome.NOT_TESTED)
_DELETED = {"version": None, "config_bundle": None}
# The ids of the groups of regressions, and the tests. The tests are null if they can refer to groups too often: to each
# group at most once for each of its fixtures and baselines.
_TESTS: Final = f"""
    SELECT regression.id, listed.ids, CASE WHEN listed.size <= %s THEN regression.tests::text END
    FROM {Regression._meta.db_table} AS regression
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(shown->>'id' ORDER BY number), '{{}}'),
            coalesce(sum((shown->>'fixture_count')::bigint * jsonb_array_length(shown->'baselines')), 0)
        FROM jsonb_array_elements(regression.groups) WITH ORDINALITY AS found (shown, number)
    ) AS listed (ids, size)
    WHERE regression.id = ANY(%s)
"""  # noqa: S608  the name of a table
_FIRST_GROUPS: Final = f"""
    SELECT shown::text FROM {Regression._meta.db_table} AS regression
    CROSS JOIN LATERAL jsonb_array_elements(regression.groups) WITH ORDINALITY AS found (shown, number)
    WHERE regression.id = %s AND shown->>'id' = ANY(%s) ORDER BY number LIMIT %s
"""  # noqa: S608  the name of a table


@dataclass(frozen=True, slots=True)
class Summary:
    """What was tested, in short. The parts are JSON data.

    ``headline`` is the result in a sentence, and ``is_tested`` states whether anything was tested. ``regression`` is
    the regression that the replay gate evaluates, ``row`` is its row, and ``group_count`` is the number of its groups.
    Without a regression, these are None, None and 0. ``agents`` are the configurations that the target's agents run
    now, those with most agents first. ``other_agents`` is the number of the target's agents that run no known
    configuration of the pipeline.
    """

    deployment: Deployment
    headline: str
    is_tested: bool
    row: Regression | None
    group_count: int
    regression: dict[str, Any] | None
    agents: list[dict[str, Any]]
    other_agents: int
    blockers: list[Blocker]
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class Packet:
    """What a reviewer should know before the decision. All parts except ``changes`` and times are JSON data."""

    summary: Summary
    changes: Changes
    groups: list[dict[str, Any]]
    captures: list[dict[str, Any]]
    removed_fixtures: list[dict[str, Any]]
    rollback: dict[str, Any]
    explanations: list[dict[str, str]]
    is_truncated: bool


def find_deployment(approval: Approval) -> Deployment:
    """Return the deployment of an approval. Raises Conflict for that of a replay or a wave, which has no packet."""
    unread = ("manifest", "signing_keys", "config_bundle__version__plan", "config_bundle__version__spec")
    found = Deployment.objects.select_related("environment__project", "config_bundle__version").defer(*unread)
    deployment = found.filter(approval=approval).first()
    if deployment is None:
        detail = "Only the approval of a whole deployment has a packet. For a wave, read the approval's `wave_report`."
        raise Conflict(detail, code="approval.no_packet")
    return deployment


# -- the summary ------------------------------------------------------------------------------------------------


def read_summary(deployment: Deployment) -> Summary:
    """Return what was tested, in short. The number of queries does not depend on the number of rows."""
    rows = Regression.objects.filter(deployments=deployment).defer(*_UNREAD)
    row = rows.first() if deployment.regression_id else None
    outcomes = _count_outcomes(row)
    environment, pipeline, target = deployment.environment, deployment.pipeline, deployment.target
    run = regression_queue.running(environment, pipeline, target)
    agents = [*run.tested, *run.not_tested]
    known = sum(each["agents"] for each in agents)
    other_agents = max(0, select_agents(environment, target).order_by().count() - known)
    shown = agents[:MAX_AGENT_GROUPS]
    baselines = [] if row is None else row.baselines
    names = _names(deployment, [each["config_hash"] for each in (*baselines, *shown)])
    regression = None if row is None else _regression(row, names, outcomes)
    tested = {name for name, counts in outcomes.items() if any(counts.get(each) for each in _TESTED)}
    running = [
        {
            "config_hash": each["config_hash"],
            **names.get(each["config_hash"], _DELETED),
            "agents": each["agents"],
            "share": round(each["agents"] / (known or 1), 4),
            "tested": each["config_hash"] in tested,
        }
        for each in shown
    ]
    group_count = 0 if row is None else read_overview(row).groups
    why = why_untested(deployment, row)
    headline = why or _headline(row, group_count, regression, running)
    blockers = replay_gate.find_blockers([deployment]).get(deployment.pk, [])
    return Summary(
        deployment, headline, not why, row, group_count, regression, running, other_agents, blockers,
        is_truncated=len(shown) < len(agents),
    )  # fmt: skip


def _count_outcomes(row: Regression | None) -> dict[str | None, Counter[str]]:
    """Return the number of results with each outcome, by the config hash of the baseline. None: golden results."""
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    if row is not None:
        results = RegressionResult.objects.filter(regression=row, outcome__isnull=False).order_by()
        for baseline, outcome, count in results.values_list("baseline", "outcome").annotate(count=Count("pk")):
            counts[baseline][outcome] = count
    return counts


def _names(deployment: Deployment, config_hashes: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the version and the newest config bundle of configurations by config hash, with one query."""
    bundles = ConfigBundle.objects.filter(environment=deployment.environment_id, config_hash__in=[*config_hashes])
    newest = bundles.order_by("config_hash", "-pk").distinct("config_hash")
    rows = newest.values_list("config_hash", "version__name", "version__number", "name")
    return {
        config_hash: {"version": f"{pipeline} v{number}", "config_bundle": name}
        for config_hash, pipeline, number, name in rows
    }


def _regression(
    row: Regression, names: Mapping[str, Mapping[str, str]], outcomes: Mapping[str | None, Mapping[str, int]]
) -> dict[str, Any]:
    def showed(baseline: str | None) -> dict[str, int]:
        counts = outcomes.get(baseline, {})
        return {each.value: counts.get(each, 0) for each in FixtureOutcome}

    increase = None if not row.work_baseline else round(100 * (row.work_candidate / row.work_baseline - 1), 1)
    return {
        "id": str(row.pk),
        "status": row.status,
        "error": row.error,
        "progress": {"done": row.progress_done, "total": row.progress_total},
        "fixtures": row.fixtures,
        "vacuous": row.vacuous,
        "baselines": [
            {
                **{name: each[name] for name in ("config_hash", "agents", "share")},
                **names.get(each["config_hash"], _DELETED),
                "outcomes": showed(each["config_hash"]),
            }
            for each in row.baselines
        ],
        "golden": showed(None),
        "work": {"candidate": row.work_candidate, "baseline": row.work_baseline, "increase_percent": increase},
    }


def why_untested(deployment: Deployment, row: Regression | None) -> str:
    """Return a sentence that nothing was tested and why, or "" if something was tested.

    ``row`` is the deployment's regression, or None if it has none.
    """
    if row is None:
        if replay_gate.is_tested(deployment):
            return "Nothing was tested: the regression was deleted."
        return "Nothing was tested: the replay gate was off when the deployment was requested."
    if row.status == RegressionStatus.QUEUED:
        return "Nothing was tested yet: the regression is waiting for a worker."
    if row.status == RegressionStatus.RUNNING:
        done, total = row.progress_done, row.progress_total
        verb = "is" if total == 1 else "are"
        return (
            f"Nothing was tested yet: the regression is running. {done:,} of {count_of(total, 'result')} {verb} known."
        )
    if row.error:
        word = "was canceled" if row.status == RegressionStatus.CANCELLED else "could not be completed"
        return f"Nothing was tested: the regression {word} ({row.error.rstrip('.')})."
    return f"Nothing was tested: {why_vacuous(row)}." if row.vacuous else ""


def name_configuration(each: Mapping[str, Any]) -> str:
    """Return the name of a baseline, or of a configuration that agents run."""
    return "a deleted configuration" if each["version"] is None else f"{each['version']}, {each['config_bundle']}"


def _headline(
    row: Regression | None, groups: int, regression: Mapping[str, Any] | None, agents: Sequence[Mapping[str, Any]]
) -> str:
    if row is None or regression is None:
        return ""
    parts = [describe_result(row, count_results(row), groups)]
    baselines = regression["baselines"]
    differing = [each for each in baselines if each["outcomes"][FixtureOutcome.DIFFERENT]]
    if differing and len(baselines) > 1:
        named = [f"{name_configuration(each)} ({each['share']:.1%} of agents)" for each in differing]
        some = f"{len(differing)}" if len(differing) < len(baselines) else "each"
        of = f"{some} of the {len(baselines)} configurations that agents run"
        parts.append(f"The output differs from {of}: {', '.join(named)}.")
    if untested := sum(each["agents"] for each in agents if not each["tested"]):
        verb = "runs" if untested == 1 else "run"
        parts.append(f"{count_of(untested, 'agent')} {verb} a configuration that was not tested.")
    return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Unaccepted:
    """The groups that lack an acceptance for at least one baseline: their number, and the first of them."""

    count: int
    groups: list[dict[str, Any]]


def read_unaccepted(deployment: Deployment, *, count: int) -> Unaccepted:
    """Return the first ``count`` groups that are not accepted for a deployment, without examples. Takes two queries."""
    missing = list({each.group for each in replay_gate.read_differences(deployment) if each.acceptance_id is None})
    if not missing:
        return Unaccepted(0, [])
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_GROUPS, [deployment.regression_id, missing, count])
        return Unaccepted(len(missing), [json.loads(group) for (group,) in cursor.fetchall()])


# -- the packet -------------------------------------------------------------------------------------------------


def read_packet(
    deployment: Deployment,
    *,
    with_payloads: bool,
    compute: Compute = here,
    summary: Summary | None = None,
    max_groups: int | None = None,
    limit: int = MAX_BYTES,
) -> Packet:
    """Return the packet of a deployment. The number of queries does not depend on the number of rows.

    All parts together have at most ``limit`` bytes of JSON. If they would have more, first the payloads of the later
    examples are left out, and then the last groups. The changes of the spec, the changes of the configuration, and the
    captures each have a fixed limit. Without ``with_payloads``, no example has payloads. ``summary`` is the result of
    ``read_summary``, if the caller has it. With ``max_groups``, at most this number of groups is read.
    """
    found = summary or read_summary(deployment)
    every = find_changes(deployment, compute=compute)
    changes = _bounded(every)
    captures, removed = _read_captures(found.row), _read_removed(deployment)
    shown_captures, shown_removed = prefix(captures, _PART_BYTES), removed[:MAX_REMOVED]
    rollback = _read_rollback(deployment)
    wanted, occurring = _read_groups(found, max_groups)
    explanations = [each for each in deployment.explain if each["group"] not in occurring]
    parts: list[Any] = [found.headline, found.regression, *found.agents, *shown_captures, *shown_removed, rollback]
    parts += [] if changes.spec is None else [each.to_json() for each in changes.spec.changes]
    room = limit - sum(map(size_of, [*parts, *explanations, *map(asdict, changes.config)]))
    groups = prefix(wanted, room)
    room = room - sum(map(size_of, groups)) if with_payloads and len(groups) == len(wanted) else 0
    shown, has_all = ([], True) if found.row is None else with_examples(found.row, groups, max(0, room))
    is_truncated = (
        found.is_truncated
        or len(changes.config) < len(every.config)
        or _count_spec_changes(changes) < _count_spec_changes(every)
        or len(shown_captures) < len(captures)
        or len(shown_removed) < len(removed)
        or len(groups) < found.group_count
        or (with_payloads and not has_all)
    )
    return Packet(found, changes, shown, shown_captures, shown_removed, rollback, explanations, is_truncated)


def _bounded(changes: Changes) -> Changes:
    """Return the changes with only the first ones of the spec and of the configuration."""
    config = changes.config[: len(prefix([*map(asdict, changes.config)], _PART_BYTES))]
    return replace(changes, spec=changes.spec and changes.spec.bounded(_PART_BYTES), config=config)


def _count_spec_changes(changes: Changes) -> int:
    return 0 if changes.spec is None else len(changes.spec.changes)


def _read_captures(row: Regression | None) -> list[dict[str, Any]]:
    """Return the fixtures that show differences, without a limit. The artifact is None if the fixture was deleted."""
    if row is None:
        return []
    artifact = Fixture.objects.filter(pk=OuterRef("fixture_id")).values("artifact_id")[:1]
    results = RegressionResult.objects.filter(regression=row, outcome=FixtureOutcome.DIFFERENT).order_by("fixture_name")
    found = results.values_list("fixture_id", "fixture_name", Subquery(artifact)).distinct()
    return [
        {"fixture_id": str(fixture_id), "name": name, "artifact_id": artifact_id and str(artifact_id)}
        for fixture_id, name, artifact_id in found
    ]


def _read_removed(deployment: Deployment) -> list[dict[str, Any]]:
    """Return the fixtures that were removed since the pipeline's current release was activated, newest first.

    Returns at most one fixture more than ``MAX_REMOVED``, and none without a current release.
    """
    environment, pipeline = deployment.environment, deployment.pipeline
    current = Deployment.objects.filter(environment=environment, pipeline=pipeline, is_current=True)
    since = current.values_list("activated_at", flat=True).first()
    if since is None:
        return []
    events = AuditEvent.objects.filter(
        organization=environment.project.organization_id, action__in=["fixture.delete", "fixture.expire"],
        id__gte=smallest_uuid7(since), environment_id=environment.pk, changes__pipeline__0=pipeline,
    ).order_by("-id")  # fmt: skip
    expired = Fixture.objects.filter(
        environment=environment, pipeline=pipeline, expires_at__gte=since, expires_at__lte=timezone.now()
    ).order_by("-expires_at", "-pk")
    found = [
        _removed(pk, name, "expired", expires_at, None)
        for pk, name, expires_at in expired.values_list("pk", "name", "expires_at")[: MAX_REMOVED + 1]
        if expires_at is not None
    ]
    for event in events[: MAX_REMOVED + 1]:
        name = event.changes["name"][0]
        if event.action == "fixture.delete":
            found.append(_removed(event.resource_id, name, "deleted", event.timestamp, event.actor_display))
        elif (ended := parse_datetime(event.changes["expires_at"][0])) and ended >= since:
            found.append(_removed(event.resource_id, name, "expired", ended, None))
    return sorted(found, key=lambda each: (each["removed_at"], each["fixture_id"]), reverse=True)[: MAX_REMOVED + 1]


def _removed(pk: UUID | str, name: str, why: str, at: datetime, by: str | None) -> dict[str, Any]:
    return {"fixture_id": str(pk), "name": name, "why": why, "removed_at": at, "removed_by": by}


def _read_rollback(deployment: Deployment) -> dict[str, Any]:
    """Return what a rollback of the deployment would restore, or why it could restore nothing."""
    columns = ("pk", "config_bundle__version__name", "config_bundle__version__number", "config_hash")
    target = rollbacks.find_targets(deployment).values_list(*columns).first()
    if target is None:
        return {"deployment_id": None, "version": None, "config_hash": None, "reason": rollbacks.NO_TARGET}
    pk, name, number, config_hash = target
    return {"deployment_id": str(pk), "version": f"{name} v{number}", "config_hash": config_hash, "reason": None}


def _read_groups(summary: Summary, max_groups: int | None) -> tuple[list[dict[str, Any]], set[str]]:
    """Return the first groups with their acceptances and explanations, without examples, and the ids of all groups."""
    deployment, row = summary.deployment, summary.row
    if row is None or not summary.group_count:
        return [], set()
    stored: list[dict[str, Any]] = Regression.objects.values_list("groups", flat=True).get(pk=row.pk)
    groups = stored[:max_groups]
    accepted, counting = _read_acceptances(deployment, [each["id"] for each in groups])
    unseen = _read_unseen(row, accepted)
    texts: dict[str, list[str]] = defaultdict(list)
    for each in deployment.explain:
        texts[each["group"]].append(each["text"])
    for group in groups:
        pk = group["id"]
        group["accepted"] = [
            {name: value for name, value in each.items() if name != "regression_id"} for each in accepted[pk]
        ]
        group["counts"] = pk in counting
        group["unseen"] = unseen.get(pk, {"count": 0, "fixtures": []})
        group["explanations"] = texts[pk]
    return groups, {each["id"] for each in stored}


def _read_acceptances(
    deployment: Deployment, groups: Sequence[str]
) -> tuple[dict[str, list[dict[str, Any]]], set[str]]:
    """Return the acceptances of each group, and the groups that are accepted for the deployment from all baselines.

    For each baseline, returns an acceptance that counts for the deployment. If there is none, returns the oldest valid
    acceptance, if any.
    """
    of_others = AcceptedDifference.objects.filter(
        acceptance__environment=deployment.environment_id, acceptance__config_hash=deployment.config_hash,
        acceptance__ended_at=None, group__in=groups,
    )  # fmt: skip
    oldest = of_others.order_by("group", "baseline", "acceptance_id").distinct("group", "baseline")
    chosen = {(group, baseline): pk for group, baseline, pk in oldest.values_list("group", "baseline", "acceptance_id")}
    counting, missing = set[str](), set[str]()
    shown = replay_gate.read_differences(deployment)
    for each in shown:
        (counting if each.acceptance_id else missing).add(each.group)
        if each.acceptance_id:
            chosen[each.group, each.baseline] = each.acceptance_id
    rows = Acceptance.objects.in_bulk(set(chosen.values()))
    found: dict[str, dict[UUID, dict[str, Any]]] = defaultdict(dict)
    for each in shown:
        pk = chosen.get((each.group, each.baseline))
        if pk is None or (row := rows.get(pk)) is None:
            continue
        entry: dict[str, Any] = {
            "acceptance_id": str(pk),
            "accepted_by": row.accepted_by,
            "reason": row.reason,
            "accepted_at": row.created_at,
            "baselines": [],
            "regression_id": row.regression_id,
        }
        found[each.group].setdefault(pk, entry)["baselines"].append(each.baseline)
    accepted: dict[str, list[dict[str, Any]]] = defaultdict(list)
    accepted.update({group: list(entries.values()) for group, entries in found.items()})
    return accepted, counting - missing


def _read_unseen(
    row: Regression, accepted: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, dict[str, Any] | None]:
    """Return, for groups that were accepted in other regressions, the fixtures that show them only now.

    The value is None if one of the regressions is too large, or if there are too many of them. A deleted regression
    showed nothing. Takes at most one query.
    """
    earlier = {group: {each["regression_id"] for each in entries} for group, entries in accepted.items()}
    earlier = {group: found for group, found in earlier.items() if found and row.pk not in found}
    if not earlier:
        return {}
    uses = Counter(pk for found in earlier.values() for pk in found if pk is not None)
    shown = _read_shown([row.pk, *(pk for pk, _ in uses.most_common(MAX_COMPARED))], earlier.keys())
    unseen: dict[str, dict[str, Any] | None] = {}
    for group, regressions in earlier.items():
        known = regressions - {None}
        if row.pk not in shown or not known <= shown.keys():
            unseen[group] = None
            continue
        seen = set[str]().union(*(shown[pk][group] for pk in known))
        now = shown[row.pk][group]
        new = sorted((name, fixture_id) for fixture_id, name in now.items() if fixture_id not in seen)
        fixtures = [{"id": fixture_id, "name": name} for name, fixture_id in new[:MAX_NAMED]]
        unseen[group] = {"count": len(new), "fixtures": fixtures}
    return unseen


def _read_shown(regressions: Sequence[UUID], groups: Collection[str]) -> dict[UUID, dict[str, dict[str, str]]]:
    """Return, for each regression and each group, the names of the fixtures that show the group, by fixture id.

    Fixtures that were deleted before the regression finished are left out, and so are too large regressions.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TESTS, [MAX_SHOWN, [*regressions]])
        rows = cursor.fetchall()
    shown: dict[UUID, dict[str, dict[str, str]]] = {}
    for pk, ids, text in rows:
        if text is None:
            continue
        tests, found = json.loads(text), shown.setdefault(pk, {group: {} for group in groups})
        wanted = {number: found[group] for number, group in enumerate(ids) if group in found}
        for place, _, outcome, positions, _ in tests["results"]:
            if outcome != FixtureOutcome.DIFFERENT:
                continue
            fixture = tests["fixtures"][place]
            for position in wanted.keys() & positions:
                wanted[position][fixture["fixture_id"]] = fixture["name"]
    return shown
