"""The packet of an approval: what a reviewer should know before the decision."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from apps.artifacts.models import Fixture, RegressionResult
from apps.artifacts.services.regression_details import MAX_BYTES, array_length, prefix, size_of, with_examples
from apps.artifacts.services.regression_headline import (
    Counts,
    counted_results,
    counts_of,
    describe_result,
    why_vacuous,
)
from apps.fleet.services.selection import select_agents
from apps.releases.models import Acceptance, AcceptedDifference, Approval, ConfigBundle, Deployment, Regression
from apps.releases.services import regression_queue, replay_gate, rollbacks
from apps.releases.services.changes import Changes, compare, find_bases
from apps.releases.services.replay_gate import Difference
from apps.tenancy.models import AuditEvent
from byteor.engine.blockers import Blocker
from byteor.engine.counted import count_of
from byteor.engine.machines import RegressionStatus
from byteor.engine.regression import MAX_NAMED
from byteor.engine.replay import FixtureOutcome
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.database.together import Plan, Rows, Statement, read, run, together
from byteor_cloud.errors import Conflict
from byteor_cloud.ids import smallest_uuid7

MAX_AGENT_GROUPS = 100
"""The maximum number of running configurations that a packet lists."""
MAX_REMOVED = 100
"""The maximum number of removed fixtures that a packet lists."""
MAX_COMPARED = 5
"""The maximum number of earlier regressions with which a packet compares the fixtures of accepted groups."""
MAX_SHOWN = 200_000
"""A regression is compared only if its results cannot refer to groups more often than this."""
_PART_BYTES = 512 * 1024  # the maximum size of the JSON of each: spec changes, configuration changes, and captures
_UNREAD = ("spec_kv", "groups", "not_tested", "summary", "tests")
_TESTED = tuple(each for each in FixtureOutcome if each is not FixtureOutcome.NOT_TESTED)
_DELETED = {"version": None, "config_bundle": None}
# Reads the group ids and the column ``tests`` of regressions. The column is read as null if its results can
# refer to groups too often. They refer to a group at most once for each pair of the group's fixtures and baselines.
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
class Unaccepted:
    """The groups that lack an acceptance for at least one baseline: their number, and the first groups."""

    count: int
    groups: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Gate:
    """What the replay gate evaluates for a deployment, and why the gate blocks the deployment, if it does.

    ``row`` is the regression, and ``group_count`` is the number of its groups. Without a regression, these are None and
    0. ``differences`` are the regression's groups for each baseline, with the acceptance that counts, if any.
    ``unaccepted`` are the groups that lack an acceptance. Its list is no longer than the caller requested.
    """

    row: Regression | None
    group_count: int
    differences: list[Difference]
    blockers: list[Blocker]
    unaccepted: Unaccepted


@dataclass(frozen=True, slots=True)
class Summary:
    """What was tested, in short. ``regression`` and ``agents`` are JSON data.

    ``headline`` is the result as text. ``is_tested`` states whether the regression was completed and tested anything.
    ``regression`` is the regression that the replay gate evaluates, or None without one, and ``gate`` is the gate's
    evaluation. ``agents`` are the configurations of the pipeline that the target's agents run now, those with most
    agents first, at most ``MAX_AGENT_GROUPS``. ``is_truncated`` states whether there are more. ``other_agents`` is the
    number of the target's agents that run no known configuration of the pipeline.
    """

    deployment: Deployment
    headline: str
    is_tested: bool
    gate: Gate
    regression: dict[str, Any] | None
    agents: list[dict[str, Any]]
    other_agents: int
    is_truncated: bool

    @property
    def row(self) -> Regression | None:
        """The regression, or None without one."""
        return self.gate.row

    @property
    def group_count(self) -> int:
        """The number of the regression's groups."""
        return self.gate.group_count

    @property
    def blockers(self) -> list[Blocker]:
        """The reasons why the replay gate blocks the deployment."""
        return self.gate.blockers


@dataclass(frozen=True, slots=True)
class Packet:
    """What a reviewer should know before the decision. Except ``summary``, ``changes`` and times, it is JSON data."""

    summary: Summary
    changes: Changes
    groups: list[dict[str, Any]]
    captures: list[dict[str, Any]]
    removed_fixtures: list[dict[str, Any]]
    rollback: dict[str, Any]
    explanations: list[dict[str, str]]
    is_truncated: bool


def find_deployment(approval: Approval) -> Deployment:
    """Return the deployment of an approval. Raises Conflict for approvals of replays and waves: they have no packet."""
    unread = ("manifest", "signing_keys", "config_bundle__version__plan", "config_bundle__version__spec")
    found = Deployment.objects.select_related("environment__project", "config_bundle__version").defer(*unread)
    deployment = found.filter(approval=approval).first()
    if deployment is None:
        detail = "Only the approval of a whole deployment has a packet. For a wave, read the approval's `wave_report`."
        raise Conflict(detail, code="approval.no_packet")
    return deployment


# -- the summary ------------------------------------------------------------------------------------------------


def read_summary(deployment: Deployment) -> Summary:
    """Return what was tested, in short."""
    return run(plan_summary(deployment))


def plan_summary(deployment: Deployment, *, unaccepted: int = 0) -> Plan[Summary]:
    """Return the ``Plan`` of ``read_summary``, which also finds at most ``unaccepted`` unaccepted groups."""
    environment, pipeline, target = deployment.environment, deployment.pipeline, deployment.target
    members = select_agents(environment, target).order_by().values("environment").annotate(members=Count("pk"))
    bundles, (row, group_count, differences), (by_baseline, counted, selected) = yield from together(
        regression_queue.plan_bundles(environment, pipeline, target),
        _plan_tested(deployment),
        read(_outcomes(deployment.regression_id), counted_results(deployment.regression_id), members),
    )
    missing = _find_missing(differences)
    built = regression_queue.find_built(environment, pipeline, bundles)
    names_of = [
        _names(deployment, [] if row is None else [each["config_hash"] for each in row.baselines]),
        _names(deployment, built.order_by().values("config_bundle__config_hash")),
    ]
    built_rows, first, *named = yield [built, _first_groups(deployment, missing, unaccepted), *names_of]
    found, names = regression_queue.rank(built_rows, bundles), _by_hash(chain.from_iterable(named))
    agents = [*found.tested, *found.not_tested]
    known = sum(each["agents"] for each in agents)
    shown = agents[:MAX_AGENT_GROUPS]
    outcome_counts = _count_outcomes(by_baseline)
    regression = None if row is None else _regression(row, names, outcome_counts)
    tested = {name for name, counts in outcome_counts.items() if any(counts.get(each) for each in _TESTED)}
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
    why = why_untested(deployment, row)
    gate = _gate(deployment, row, group_count, differences, Unaccepted(len(missing), [each for (each,) in first]))
    headline = why or _headline(gate, counts_of(counted), regression, running)
    other_agents = max(0, sum(each["members"] for each in selected) - known)
    return Summary(
        deployment, headline, not why, gate, regression, running, other_agents, is_truncated=len(shown) < len(agents)
    )


def _plan_tested(deployment: Deployment) -> Plan[tuple[Regression | None, int, list[Difference]]]:
    """Read the differences, the number of the regression's groups, and the regression, but not its results."""
    if deployment.regression_id is None:
        return None, 0, []
    rows = Regression.objects.filter(pk=deployment.regression_id).annotate(group_count=array_length("groups"))
    found, differences = yield [rows.defer(*_UNREAD), replay_gate.differences_of(deployment)]
    row = next(iter(found), None)
    return row, 0 if row is None else row.group_count, [Difference(*each[1:]) for each in differences]


def plan_gate(deployment: Deployment, *, unaccepted: int) -> Plan[Gate]:
    """Read what the gate evaluates, with the first ``unaccepted`` unaccepted groups."""
    row, group_count, differences = yield from _plan_tested(deployment)
    missing = _find_missing(differences)
    [first] = yield [_first_groups(deployment, missing, unaccepted)]
    return _gate(deployment, row, group_count, differences, Unaccepted(len(missing), [each for (each,) in first]))


def _gate(
    deployment: Deployment,
    row: Regression | None,
    group_count: int,
    differences: list[Difference],
    unaccepted: Unaccepted,
) -> Gate:
    blockers = replay_gate.blockers_of(deployment, row, differences)
    return Gate(row, group_count, differences, blockers, unaccepted)


def _find_missing(differences: Iterable[Difference]) -> list[str]:
    """Return the ids of the groups that lack an acceptance for at least one baseline."""
    return list({each.group for each in differences if each.acceptance_id is None})


def _first_groups(deployment: Deployment, missing: Sequence[str], count: int) -> Rows:
    """Return the first ``count`` of these groups of the deployment's regression."""
    if not missing or not count:
        return Regression.objects.none()
    return Statement(_FIRST_GROUPS, [deployment.regression_id, missing, count], (json.loads,))


def _outcomes(regression_id: UUID | None) -> QuerySet[RegressionResult, Any]:
    """Return the number of results with each outcome for each baseline."""
    results = RegressionResult.objects.filter(regression=regression_id, outcome__isnull=False).order_by()
    return results.values_list("baseline", "outcome").annotate(count=Count("pk"))


def _count_outcomes(rows: Iterable[tuple[str | None, str, int]]) -> dict[str | None, Counter[str]]:
    """Return the number of results with each outcome, by config hash of the baseline, or None for golden results."""
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for baseline, outcome, count in rows:
        counts[baseline][outcome] = count
    return counts


def _names(deployment: Deployment, config_hashes: Sequence[str] | QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    """Return the config hash, version and name of the newest config bundle of each configuration."""
    bundles = ConfigBundle.objects.filter(environment=deployment.environment_id, config_hash__in=config_hashes)
    newest = bundles.order_by("config_hash", "-pk").distinct("config_hash")
    return newest.values_list("config_hash", "version__name", "version__number", "name")


def _by_hash(rows: Iterable[tuple[str, str, int, str]]) -> dict[str, dict[str, str]]:
    """Return the version and the config bundle of each configuration by config hash."""
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
    """Return a text that says why nothing was tested, why the regression is not complete, or that it was deleted.

    Returns "" if the regression is complete and something was tested. ``row`` is the deployment's regression, or None
    if it has none.
    """
    if row is None:
        if replay_gate.is_tested(deployment):
            return "The test result is no longer known: the regression was deleted."
        return "Nothing was tested: the replay gate was off when the deployment was requested."
    if row.status == RegressionStatus.QUEUED:
        return "Nothing was tested yet: the regression is waiting for a worker."
    what = "Not everything" if row.progress_done else "Nothing"
    if row.status == RegressionStatus.RUNNING:
        done, total = row.progress_done, row.progress_total
        verb = "is" if total == 1 else "are"
        return (
            f"{what} was tested yet: the regression is running. {done:,} of {count_of(total, 'result')} {verb} known."
        )
    if row.status == RegressionStatus.CANCELLED:  # the error begins with "canceled"
        return f"{what} was tested: the regression was {(row.error or 'canceled').rstrip('.')}."
    if row.error:
        return f"{what} was tested: the regression could not be completed ({row.error.rstrip('.')})."
    return f"Nothing was tested: {why_vacuous(row)}." if row.vacuous else ""


def name_configuration(each: Mapping[str, Any]) -> str:
    """Return the name of a baseline, or of a configuration that agents run."""
    return "a deleted configuration" if each["version"] is None else f"{each['version']}, {each['config_bundle']}"


def _headline(
    gate: Gate, counted: Counts, regression: Mapping[str, Any] | None, agents: Sequence[Mapping[str, Any]]
) -> str:
    if gate.row is None or regression is None:
        return ""
    parts = [describe_result(gate.row, counted, gate.group_count)]
    baselines = regression["baselines"]
    differing = [each for each in baselines if each["outcomes"][FixtureOutcome.DIFFERENT]]
    if differing and len(baselines) > 1:
        named = [f"{name_configuration(each)} ({each['share']:.1%} of agents)" for each in differing]
        some = f"{len(differing)}" if len(differing) < len(baselines) else "each"
        of = f"{some} of the {len(baselines)} compared configurations"
        parts.append(f"The result differs from that of {of}: {', '.join(named)}.")
    if untested := sum(each["agents"] for each in agents if not each["tested"]):
        verb = "runs" if untested == 1 else "run"
        parts.append(f"{count_of(untested, 'agent')} {verb} a configuration that was not tested.")
    return " ".join(parts)


def read_unaccepted(deployment: Deployment, *, count: int) -> Unaccepted:
    """Return the number of unaccepted groups, and the first ``count`` of them."""
    return run(plan_gate(deployment, unaccepted=count)).unaccepted


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
    """Return the packet of a deployment.

    The packet is limited to about ``limit`` bytes of JSON. If it would have more, first the payloads of the later
    examples are left out, and then the last groups. The changes of the spec, the changes of the configuration, and the
    captures each have a fixed limit. Without ``with_payloads``, no example has payloads. ``summary`` is the result of
    ``read_summary``, if the caller has it. With ``max_groups``, at most this number of groups is returned.
    """
    found = summary or read_summary(deployment)
    (bases, targets, captured), (wanted, occurring), removed = run(
        together(
            read(find_bases(deployment), _rollback_targets(deployment)[:1], _captures(found.row)),
            _plan_groups(found, max_groups),
            _plan_removed(deployment),
        )
    )
    every = compare(next(iter(bases), None), deployment.config_bundle, compute=compute)
    changes = _bounded(every)
    captures, rollback = _as_captures(captured), _as_rollback(next(iter(targets), None))
    shown_captures, shown_removed = prefix(captures, _PART_BYTES), removed[:MAX_REMOVED]
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
    """Return only the first changes of the spec and of the configuration, at most ``_PART_BYTES`` of each."""
    config = changes.config[: len(prefix([*map(asdict, changes.config)], _PART_BYTES))]
    return replace(changes, spec=changes.spec and changes.spec.bounded(_PART_BYTES), config=config)


def _count_spec_changes(changes: Changes) -> int:
    return 0 if changes.spec is None else len(changes.spec.changes)


def _captures(row: Regression | None) -> QuerySet[RegressionResult, Any]:
    """Return the fixtures that show differences, without a limit. The artifact is None if the fixture was deleted."""
    if row is None:
        return RegressionResult.objects.none()
    artifact = Fixture.objects.filter(pk=OuterRef("fixture_id")).values("artifact_id")[:1]
    results = RegressionResult.objects.filter(regression=row, outcome=FixtureOutcome.DIFFERENT).order_by("fixture_name")
    return results.values_list("fixture_id", "fixture_name", Subquery(artifact)).distinct()


def _as_captures(rows: Iterable[tuple[UUID, str, UUID | None]]) -> list[dict[str, Any]]:
    return [
        {"fixture_id": str(fixture_id), "name": name, "artifact_id": artifact_id and str(artifact_id)}
        for fixture_id, name, artifact_id in rows
    ]


def _plan_removed(deployment: Deployment) -> Plan[list[dict[str, Any]]]:
    """Return the fixtures that were removed since the current deployment was activated, the last removed first.

    Returns at most one fixture more than ``MAX_REMOVED``, and none without a current deployment.
    """
    environment, pipeline = deployment.environment, deployment.pipeline
    current = Deployment.objects.filter(environment=environment, pipeline=pipeline, is_current=True)
    [activated] = yield [current.values_list("activated_at", flat=True)]
    since = next(iter(activated), None)
    if since is None:
        return []
    events = AuditEvent.objects.filter(
        organization=environment.project.organization_id, action__in=["fixture.delete", "fixture.expire"],
        id__gte=smallest_uuid7(since), environment_id=environment.pk, changes__pipeline__0=pipeline,
    ).order_by("-id").only("action", "changes", "resource_id", "timestamp", "actor_display")  # fmt: skip
    expired = Fixture.objects.filter(
        environment=environment, pipeline=pipeline, expires_at__gte=since, expires_at__lte=timezone.now()
    ).order_by("-expires_at", "-pk")
    expired_rows, event_rows = yield [
        expired.values_list("pk", "name", "expires_at")[: MAX_REMOVED + 1], events[: MAX_REMOVED + 1]
    ]  # fmt: skip
    found = [_removed(pk, name, "expired", expires_at, None) for pk, name, expires_at in expired_rows]
    for event in event_rows:
        name = event.changes["name"][0]
        if event.action == "fixture.delete":
            found.append(_removed(event.resource_id, name, "deleted", event.timestamp, event.actor_display))
        elif (ended := parse_datetime(event.changes["expires_at"][0])) and ended >= since:
            found.append(_removed(event.resource_id, name, "expired", ended, None))
    return sorted(found, key=lambda each: (each["removed_at"], each["fixture_id"]), reverse=True)[: MAX_REMOVED + 1]


def _removed(pk: UUID | str, name: str, why: str, at: datetime, by: str | None) -> dict[str, Any]:
    return {"fixture_id": str(pk), "name": name, "why": why, "removed_at": at, "removed_by": by}


def _rollback_targets(deployment: Deployment) -> QuerySet[Deployment, Any]:
    """Return the ids, versions and config hashes of the deployments that a rollback can restore, the best first."""
    columns = ("pk", "config_bundle__version__name", "config_bundle__version__number", "config_hash")
    return rollbacks.find_targets(deployment).values_list(*columns)


def _as_rollback(target: tuple[UUID, str, int, str] | None) -> dict[str, Any]:
    """Return what a rollback to the target would restore, or why a rollback cannot restore a deployment."""
    if target is None:
        return {"deployment_id": None, "version": None, "config_hash": None, "reason": rollbacks.NO_TARGET}
    pk, name, number, config_hash = target
    return {"deployment_id": str(pk), "version": f"{name} v{number}", "config_hash": config_hash, "reason": None}


def _plan_groups(summary: Summary, max_groups: int | None) -> Plan[tuple[list[dict[str, Any]], set[str]]]:
    """Return the first groups, and the ids of all groups.

    The groups have their acceptances, explanations and unseen fixtures, but no examples.
    """
    deployment, row = summary.deployment, summary.row
    if row is None or not summary.group_count:
        return [], set()
    [stored], (accepted, counting) = yield from together(
        read(Regression.objects.filter(pk=row.pk).values_list("groups", flat=True)),
        _plan_acceptances(deployment, summary.gate.differences),
    )
    every: list[dict[str, Any]] = next(iter(stored), [])
    groups = every[:max_groups]
    shown = {each["id"] for each in groups}
    unseen = yield from _plan_unseen(row, {group: found for group, found in accepted.items() if group in shown})
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
    return groups, {each["id"] for each in every}


def _plan_acceptances(
    deployment: Deployment, differences: Sequence[Difference]
) -> Plan[tuple[dict[str, list[dict[str, Any]]], set[str]]]:
    """Return the acceptances of each group, and the groups that are accepted for the deployment for all baselines.

    For each baseline, returns an acceptance that counts for the deployment. If there is none, returns the oldest valid
    acceptance, if any.
    """
    of_others = AcceptedDifference.objects.filter(
        acceptance__environment=deployment.environment_id, acceptance__config_hash=deployment.config_hash,
        acceptance__ended_at=None, group__in={each.group for each in differences},
    )  # fmt: skip
    oldest = of_others.order_by("group", "baseline", "acceptance_id").distinct("group", "baseline")
    valid = Acceptance.objects.filter(
        Q(pk__in={each.acceptance_id for each in differences if each.acceptance_id is not None})
        | Q(pk__in=oldest.values("acceptance_id"))
    )
    oldest_rows, acceptances = yield [oldest.values_list("group", "baseline", "acceptance_id"), valid]
    chosen = {(group, baseline): pk for group, baseline, pk in oldest_rows}
    counting, missing = set[str](), set[str]()
    for each in differences:
        (counting if each.acceptance_id else missing).add(each.group)
        if each.acceptance_id:
            chosen[each.group, each.baseline] = each.acceptance_id
    rows = {row.pk: row for row in acceptances}
    found: dict[str, dict[UUID, dict[str, Any]]] = defaultdict(dict)
    for each in differences:
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


def _plan_unseen(
    row: Regression, accepted: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Plan[dict[str, dict[str, Any] | None]]:
    """Return, by group that was accepted only in other regressions, the fixtures that show it in ``row`` but not there.

    A group's value is None if ``row`` or one of the group's other regressions is too large, or if one of them is not
    among the ``MAX_COMPARED`` that are read. A deleted regression counts as if no fixture had shown the group.
    """
    earlier = {group: {each["regression_id"] for each in entries} for group, entries in accepted.items()}
    earlier = {group: found for group, found in earlier.items() if found and row.pk not in found}
    if not earlier:
        return {}
    uses = Counter(pk for found in earlier.values() for pk in found if pk is not None)
    regressions = [row.pk, *(pk for pk, _ in uses.most_common(MAX_COMPARED))]
    [rows] = yield [Statement(_TESTS, [MAX_SHOWN, regressions], (UUID, None, None))]
    shown = _shown_by(rows, earlier.keys())
    unseen: dict[str, dict[str, Any] | None] = {}
    for group, accepting in earlier.items():
        known = accepting - {None}
        if row.pk not in shown or not known <= shown.keys():
            unseen[group] = None
            continue
        seen = set[str]().union(*(shown[pk][group] for pk in known))
        now = shown[row.pk][group]
        new = sorted((name, fixture_id) for fixture_id, name in now.items() if fixture_id not in seen)
        fixtures = [{"id": fixture_id, "name": name} for name, fixture_id in new[:MAX_NAMED]]
        unseen[group] = {"count": len(new), "fixtures": fixtures}
    return unseen


def _shown_by(
    rows: Iterable[tuple[UUID, list[str], str | None]], groups: Collection[str]
) -> dict[UUID, dict[str, dict[str, str]]]:
    """Return, for each regression and each group, the names of the fixtures that show the group, by fixture id.

    ``rows`` are those of ``_TESTS``. Regressions that are too large are left out.
    """
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
