"""The queue of regressions, and the configurations that they compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

import byteor
from apps.fleet.models import Agent
from apps.fleet.services import facts
from apps.fleet.services.selection import select_agents
from apps.releases.jobs import RunRegression
from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent, Regression
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from apps.tenancy.services.state import advance
from apps.tenancy.services.tokens import person_behind
from byteor.engine.canonical import sha256
from byteor.engine.compiler import decode
from byteor.engine.machines import UNDER_WAY, AgentProgress, DeploymentStatus, RegressionEvent, RegressionStatus
from byteor.engine.regression import summarize
from byteor.engine.target import Target
from byteor_cloud.captures.engine_version import engine_digest
from byteor_cloud.database.together import Plan, run
from byteor_cloud.errors import InvalidInput
from byteor_cloud.worker.jobs import enqueue, is_queued

MAX_BASELINES = 5
_REPORTS_KEPT_S = 600  # after an activation, the agents' reports are read for at least this many seconds
BARRED = "An earlier regression of this spec repeatedly killed its worker. Ask an operator to retry its job."


@dataclass(frozen=True, slots=True)
class Baselines:
    """The configurations to compare with, and those that are not tested, both as JSON data."""

    tested: list[dict[str, Any]]
    not_tested: list[dict[str, Any]]


def queue(row: Regression, *, actor: Actor) -> bool:
    """Store a new regression and enqueue its job.

    Return whether the job can run. It cannot if an earlier regression of the same spec repeatedly killed its worker.
    The caller opens the transaction.
    """
    environment = row.environment
    row.config_hash = None if row.config_bundle is None else row.config_bundle.config_hash
    row.requested_by, row.person = actor.display, person_behind(actor)
    row.save(force_insert=True)
    candidate = row.config_bundle or row.version or row.draft
    audit.record(
        "regression.request",
        actor=actor,
        scope=environment,
        resource=("regression", row.pk),
        changes={"candidate": str(candidate), "baselines": [each["config_hash"] for each in row.baselines]},
    )
    # An organization's regressions of the same spec run one after the other, so that a later one finds the verdicts of
    # an earlier one.
    serial = f"regression:{environment.project.organization_id}:{sha256(row.spec_kv.encode())}"
    enqueue(
        RunRegression(regression_id=str(row.pk)),
        organization=environment.project.organization_id,
        person=row.person,
        serial=serial,
    )
    return is_queued(RunRegression, serial)


def queue_or_fail(row: Regression, *, actor: Actor, worker: Actor) -> Regression:
    """Store a new regression and enqueue its job. Return the regression, which has failed if the job cannot run.

    ``worker`` is the actor of the failure. The caller opens the transaction.
    """
    if queue(row, actor=actor):
        return row
    return advance(
        row,
        RegressionEvent.FAIL,
        actor=worker,
        error=BARRED,
        summary=summarize_unfinished(row, RegressionStatus.FAILED, BARRED),
        finished_at=timezone.now(),
    )


def running(environment: Environment, pipeline: str, target: Target | None = None) -> Baselines:
    """Return the configurations of a pipeline that the environment's agents run, those with most agents first.

    With ``target``, only the agents that it selects count. Only the first ``MAX_BASELINES`` are tested.
    """
    bundles = run(plan_bundles(environment, pipeline, target))
    return rank(find_built(environment, pipeline, bundles), bundles)


def plan_bundles(environment: Environment, pipeline: str, target: Target | None) -> Plan[Counter[str]]:
    """Return the ``Plan`` that counts the agents by the bundle that they run."""
    agents = select_agents(environment, target or Target())
    counted = [] if target is None else [facts.running_bundles(environment, agents)]
    *running_bundles, recent = yield [*counted, _recent(environment, pipeline)]
    bundles: Counter[str] = Counter(facts.count_groups(environment).bundles if target is None else {})
    for bundle_hash, count in chain.from_iterable(running_bundles):
        bundles[bundle_hash] += count
    if recent:
        [reports] = yield [_reports(agents, recent)]
        bundles = _with_reports(bundles, reports)
    return bundles


def _recent(environment: Environment, pipeline: str) -> QuerySet[Deployment, UUID]:
    """Return the ids of the deployments whose reports are read.

    They are the pipeline's deployments that are under way or were recently activated, and the newest one that was
    offered, if it was rolled back.
    """
    now, interval_s = timezone.now(), environment.effective_settings.heartbeat_interval_s
    recent = Q(activated_at__gt=now - timedelta(seconds=max(_REPORTS_KEPT_S, 3 * interval_s)))
    of_pipeline = Deployment.objects.filter(environment=environment, pipeline=pipeline)
    newest = of_pipeline.filter(bundle_hash__isnull=False).order_by("-pk").values("pk")[:1]
    rolled_back = Q(status=DeploymentStatus.ROLLED_BACK, pk__in=newest)
    return of_pipeline.filter(Q(status__in=UNDER_WAY) | recent | rolled_back).values_list("pk", flat=True)


def _reports(agents: QuerySet[Agent], recent: Sequence[UUID]) -> QuerySet[DeploymentAgent, Any]:
    """Count the reports of agents that have sent no heartbeat since their report, by the bundles before and after.

    An agent that reported a bundle as active, or a rollback to it, runs this bundle.
    """
    reported = DeploymentAgent.objects.filter(
        Q(agent__heartbeat__last_seen_at=None) | Q(agent__heartbeat__last_seen_at__lt=F("updated_at")),
        deployment__in=recent,
        agent__in=agents.order_by(),
        progress__in=[AgentProgress.ACTIVE, AgentProgress.ROLLED_BACK],
        agent__assignment__deployment_id=F("deployment_id"),
    )
    columns = ("agent__heartbeat__running_bundle_hash", "agent__assignment__bundle_hash")
    return reported.order_by().values_list(*columns).annotate(Count("pk"))


def _with_reports(bundles: Mapping[str, int], reports: Iterable[tuple[str | None, str, int]]) -> Counter[str]:
    """Return the number of agents by bundle, after the reports."""
    counted = Counter(bundles)
    for before, after, count in reports:
        counted[after] += count
        if before is not None:
            counted[before] -= count
    return Counter({bundle_hash: count for bundle_hash, count in counted.items() if count > 0})


def find_built(environment: Environment, pipeline: str, bundles: Iterable[str]) -> QuerySet[Deployment, Any]:
    """Return a row for each deployment of the pipeline that built one of these bundles, oldest first."""
    built = Deployment.objects.filter(environment=environment, bundle_hash__in=list(bundles), pipeline=pipeline)
    columns = ("bundle_hash", "config_bundle_id", "config_bundle__config_hash", "config_bundle__version_id")
    return built.order_by("pk").values_list(*columns).distinct()


def rank(built: Iterable[tuple[str, UUID, str, UUID]], bundles: Mapping[str, int]) -> Baselines:
    """Return the configurations that agents run. ``built`` are the rows of ``find_built``."""
    found = _run_by_agents(built, bundles)
    return Baselines(found[:MAX_BASELINES], _untested(found[MAX_BASELINES:]))


def _run_by_agents(built: Iterable[tuple[str, UUID, str, UUID]], bundles: Mapping[str, int]) -> list[dict[str, Any]]:
    agents: Counter[str] = Counter()
    newest: dict[str, tuple[UUID, UUID]] = {}
    for bundle_hash, bundle_id, config_hash, version_id in built:
        agents[config_hash] += bundles.get(bundle_hash, 0)
        newest[config_hash] = (bundle_id, version_id)
    ranked = sorted(agents.items(), key=lambda each: (-each[1], each[0]))
    total = sum(agents.values()) or 1
    return [_baseline(config_hash, *newest[config_hash], count, count / total) for config_hash, count in ranked]


def named(environment: Environment, pipeline: str, config_hashes: Sequence[str]) -> Baselines:
    """Return the configurations with these hashes as tested, and the others that agents run as not tested.

    Raises InvalidInput for a hash that no config bundle of the pipeline in the environment has.
    """
    bundles = facts.count_groups(environment).bundles
    found = _run_by_agents(find_built(environment, pipeline, bundles), bundles)
    others = {each["config_hash"]: each for each in found}
    rows = ConfigBundle.objects.filter(
        environment=environment, config_hash__in=config_hashes, version__name=pipeline
    ).order_by("pk")
    known = {row[0]: row[1:] for row in rows.values_list("config_hash", "pk", "version_id")}
    tested = []
    for number, config_hash in enumerate(dict.fromkeys(config_hashes)):
        if config_hash not in known:
            detail = f"No config bundle of the pipeline {pipeline} in this environment has this config hash."
            raise InvalidInput.at(f"/against/{number}", detail, code="does_not_exist")
        tested.append(others.pop(config_hash, _baseline(config_hash, *known[config_hash], 0, 0.0)))
    return Baselines(tested, _untested(others.values()))


def _untested(run: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: each[name] for name in ("config_hash", "agents")} for each in run]


def _baseline(config_hash: str, bundle_id: UUID, version_id: UUID, agents: int, share: float) -> dict[str, Any]:
    return {
        "config_hash": config_hash,
        "config_bundle_id": str(bundle_id),
        "version_id": str(version_id),
        "agents": agents,
        "share": round(share, 4),
    }


def engine_of(row: Regression) -> dict[str, Any]:
    """Return the ops that the candidate and its baselines use, and the version and digest of the engine with these ops.

    The digest also covers the packages that provide the ops.
    """
    ids = [each["config_bundle_id"] for each in row.baselines]
    specs = [row.spec_kv, *ConfigBundle.objects.filter(pk__in=ids).values_list("version__spec_kv", flat=True)]
    ops = {op for spec_kv in specs for _, op in decode(spec_kv).stages}
    return {"digest": engine_digest(ops), "version": byteor.__version__, "ops": sorted(ops)}


def candidate_of(row: Regression) -> str:
    """Return the name of the candidate, or that of its pipeline if the candidate was a draft that was deleted."""
    return str(row.config_bundle or row.version or row.draft or row.pipeline)


def summarize_unfinished(row: Regression, status: RegressionStatus, error: str) -> str:
    """Return the summary of a regression that was canceled or could not be completed."""
    return summarize(
        candidate=candidate_of(row),
        status=status,
        outcomes={},
        reasons={},
        baselines=row.baselines,
        not_tested=row.not_tested,
        groups=[],
        more=0,
        work=(0, 0),
        error=error,
    )
