"""The replay gate: the regressions of deployments, what they block, and the deadlines that they pause."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.releases.models import Acceptance, AcceptedDifference, Deployment, FixtureRevision, Regression
from apps.releases.services import regression_queue
from apps.releases.services.deployment_jobs import enqueue_build
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import Environment
from apps.tenancy.services.state import lock_row
from byteor.engine.blockers import Blocker
from byteor.engine.machines import (
    FINISHED_REGRESSION,
    UNFINISHED_REGRESSION,
    ApprovalStatus,
    DeploymentStatus,
    RegressionStatus,
)
from byteor.engine.replay import FixtureOutcome
from byteor.engine.replay_gate import GateFacts, GateMode, find_gate_blockers
from byteor_cloud.captures.engine_version import engine_digest
from byteor_cloud.database.together import Statement, read_together
from byteor_cloud.errors import NotFound

WORKER = system_actor("rollout")
WAITING = (DeploymentStatus.PENDING_APPROVAL, DeploymentStatus.APPROVED)
_COLUMNS = (
    "status", "progress_done", "progress_total", "outcomes", "more", "error", "work_candidate", "work_baseline",
    "engine",
)  # fmt: skip
# The columns of a regression that say what it covers.
_SCOPE = (
    "status", "error", "environment", "pipeline", "baselines", "engine", "fixtures_revision", "fixtures_removed",
    "fixtures_until", "created_at", "outcomes", "progress_total",
)  # fmt: skip
# The columns of a deployment that its blockers depend on.
_READ = (
    "environment", "config_hash", "status", "policy", "replay_gate_override", "regression", "requester_id",
    "break_glass", "gate_until",
)  # fmt: skip
# The groups of differences that the regressions of deployments show, for each baseline, with an acceptance that counts
# for the deployment, or null. If ``needs_person``, acceptances by API keys do not count. If the deployment then has
# reviewers, only their acceptances count. ``excluded`` is the requester if the requester's acceptances do not count. It
# is null if they count, or if the requester is unknown.
_DIFFERENCES: Final = f"""
    SELECT asked.id, shown->>'id' AS "group", compared->>'config_hash' AS baseline, (
        SELECT accepted.id FROM {AcceptedDifference._meta.db_table} AS part
        JOIN {Acceptance._meta.db_table} AS accepted ON accepted.id = part.acceptance_id
        WHERE accepted.environment_id = deployment.environment_id AND accepted.config_hash = deployment.config_hash
            AND accepted.ended_at IS NULL AND part."group" = shown->>'id'
            AND part.baseline IS NOT DISTINCT FROM compared->>'config_hash'
            AND (NOT asked.needs_person
                OR accepted.user_id IS NOT NULL AND accepted.user_id IS DISTINCT FROM asked.excluded
                    AND (deployment.reviewers = '[]' OR deployment.reviewers ? accepted.user_id::text))
        ORDER BY accepted.id LIMIT 1
    ) AS acceptance
    FROM unnest(%s::uuid[], %s::boolean[], %s::uuid[]) AS asked (id, needs_person, excluded)
    JOIN {Deployment._meta.db_table} AS deployment ON deployment.id = asked.id
    JOIN {Regression._meta.db_table} AS regression ON regression.id = deployment.regression_id
    CROSS JOIN LATERAL jsonb_array_elements(regression.groups) AS shown
    CROSS JOIN LATERAL jsonb_array_elements(shown->'baselines') AS compared
"""  # noqa: S608  the names of tables
_UNACCEPTED: Final = f"""
    SELECT id, count(DISTINCT "group") FROM ({_DIFFERENCES}) AS found WHERE acceptance IS NULL GROUP BY id
"""  # noqa: S608  a constant


class Difference(NamedTuple):
    """A group of differences from one baseline (null: from golden results), and the acceptance that counts, if any."""

    group: str
    baseline: str | None
    acceptance_id: UUID | None


def is_tested(deployment: Deployment) -> bool:
    """Return whether the deployment gets a regression: the gate was not off when the deployment was requested."""
    return deployment.policy.replay_gate is not GateMode.OFF


def is_governed(deployment: Deployment) -> bool:
    """Return whether the gate can block the deployment now."""
    requires = deployment.policy.replay_gate is GateMode.REQUIRE
    return requires and not deployment.replay_gate_override and deployment.status in WAITING


def request_test(deployment: Deployment, *, actor: Actor) -> None:
    """Queue a regression of the deployment's configuration against what the target's agents run now.

    Sets ``deployment.regression`` and does not save the deployment, which may be new. If an earlier regression of the
    same spec repeatedly killed its worker, the new regression fails immediately.
    """
    environment, bundle = deployment.environment, deployment.config_bundle
    found = regression_queue.running(environment, deployment.pipeline, deployment.target)
    row = Regression(
        environment=environment,
        pipeline=deployment.pipeline,
        config_bundle=bundle,
        spec_kv=bundle.version.spec_kv,
        baselines=found.tested,
        not_tested=found.not_tested,
    )
    deployment.regression = regression_queue.queue_or_fail(row, actor=actor, worker=WORKER)


def find_blockers(deployments: Iterable[Deployment]) -> dict[UUID, list[Blocker]]:
    """Return the gate's blockers of each deployment that the gate governs, by id. An open gate has none."""
    governed = {row.pk: row for row in deployments if is_governed(row)}
    if not governed:
        return {}
    tested = Regression.objects.filter(pk__in=[row.regression_id for row in governed.values()])
    found: dict[UUID | None, Regression] = {row.pk: row for row in tested.only(*_COLUMNS)}
    differing = {pk for pk, row in found.items() if row.outcomes.get(FixtureOutcome.DIFFERENT)}
    unaccepted = _count_unaccepted([row for row in governed.values() if row.regression_id in differing])
    return {
        row.pk: find_gate_blockers(_facts(row, found.get(row.regression_id), unaccepted.get(row.pk, 0)))
        for row in governed.values()
    }


def blockers_of(deployment: Deployment, tested: Regression | None, differences: Iterable[Difference]) -> list[Blocker]:
    """Return the gate's blockers of a deployment, as ``find_blockers`` does, from what the caller has read.

    ``tested`` is the deployment's regression, and ``differences`` are those of ``read_differences``.
    """
    if not is_governed(deployment):
        return []
    is_different = tested is not None and tested.outcomes.get(FixtureOutcome.DIFFERENT)
    unaccepted = {each.group for each in differences if each.acceptance_id is None} if is_different else ()
    return find_gate_blockers(_facts(deployment, tested, len(unaccepted)))


def _facts(deployment: Deployment, tested: Regression | None, unaccepted: int) -> GateFacts:
    policy = deployment.policy
    if tested is None or _is_of_older_release(tested):
        return GateFacts(None, until=deployment.gate_until)
    outcomes = tested.outcomes
    failed = sum(outcomes.get(each, 0) for each in (FixtureOutcome.FAILED, FixtureOutcome.UNSTABLE))
    return GateFacts(
        RegressionStatus(tested.status),
        progress=(tested.progress_done, tested.progress_total),
        verdicts=sum(outcomes.values()) - outcomes.get(FixtureOutcome.NOT_TESTED, 0),
        failed=failed,
        unaccepted=unaccepted,
        more=tested.more,
        work=(tested.work_candidate, tested.work_baseline),
        error=tested.error,
        min_verdicts=policy.replay_gate_min_fixtures,
        max_work_increase_percent=policy.max_work_increase_percent,
        until=deployment.gate_until,
    )


def _is_of_older_release(row: Regression) -> bool:
    """Return whether a worker of an older release, which may still run during an upgrade, completed the regression.

    Such a worker does not store the engine and the outcomes.
    """
    is_completed = row.status in FINISHED_REGRESSION and row.error is None
    return is_completed and (row.engine is None or (row.progress_total > 0 and not row.outcomes))


def _asked(deployments: Collection[Deployment]) -> list[list[Any]]:
    """Return the parameters of ``_DIFFERENCES``."""
    needs_person = [row.policy.approvals_required for row in deployments]
    return [
        [row.pk for row in deployments],
        needs_person,
        [None if may_accept_own(row) else row.requester_id for row in deployments],
    ]


def may_accept_own(deployment: Deployment) -> bool:
    """Return whether an acceptance by the requester can count for the deployment."""
    policy = deployment.policy
    return not policy.approvals_required or (policy.allow_self_approval and deployment.break_glass is None)


def _count_unaccepted(deployments: Collection[Deployment]) -> dict[UUID, int]:
    if not deployments:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_UNACCEPTED, _asked(deployments))
        return dict(cursor.fetchall())


def read_differences(*deployments: Deployment) -> list[Difference]:
    """Return each group that the regressions of the deployments show, for each deployment and each baseline."""
    [rows] = read_together(differences_of(*deployments))
    return [Difference(*row[1:]) for row in rows]


def differences_of(*deployments: Deployment) -> Statement:
    """Return the statement of ``read_differences``. A row is a deployment's id and the values of a Difference."""
    return Statement(_DIFFERENCES, _asked(deployments), (UUID, None, None, UUID))


def refresh(deployment: Deployment, *, is_blocked: bool, actor: Actor = WORKER) -> bool:
    """Request another regression if the last one was deleted or is outdated. Return whether one was requested.

    The caller has locked the environment and the deployment. A regression is outdated if a new one would compare with
    other configurations, if a fixture was added or its expectation or expiry was changed, if a configuration of the
    pipeline became known bad or was cleared, if the engine has changed, or if a worker of an older release completed
    the regression. A regression that blocks the deployment (``is_blocked``) is also outdated if a fixture was deleted,
    has expired, or also expects results that were accepted since. A regression that has not finished, was canceled or
    could not be completed is not renewed.
    """
    row = _read_scope(deployment)
    if row is not None and (row.status in UNFINISHED_REGRESSION or _is_incomplete(row)):
        return False
    if row is not None and not _is_outdated(row, deployment, is_blocked=is_blocked):
        return False
    request_test(deployment, actor=actor)
    deployment.save(update_fields=["regression"])
    return True


def _read_scope(deployment: Deployment) -> Regression | None:
    """Return the deployment's regression with what it covers, without its results, which may be large."""
    return Regression.objects.only(*_SCOPE).filter(deployments=deployment).first()


def _is_incomplete(row: Regression) -> bool:
    """Return whether the regression was canceled or could not be completed."""
    return row.status == RegressionStatus.CANCELLED or row.error is not None


def _is_outdated(row: Regression, deployment: Deployment, *, is_blocked: bool) -> bool:
    revision = FixtureRevision.objects.filter(environment=row.environment_id, pipeline=row.pipeline).first()
    if revision is not None and revision.revision != row.fixtures_revision:
        return True
    if is_blocked and revision is not None and revision.removed != row.fixtures_removed:
        return True
    if is_blocked and row.fixtures_until is not None and row.fixtures_until <= timezone.now():
        return True
    if _needed_baselines(deployment) != _baselines_of(row):
        return True
    return _is_of_older_release(row) or engine_digest(row.engine["ops"]) != row.engine["digest"]


def _baselines_of(row: Regression) -> set[str]:
    return {each["config_hash"] for each in row.baselines}


def _needed_baselines(deployment: Deployment) -> set[str]:
    """Return the config hashes that a regression of the deployment must compare with now."""
    running = regression_queue.running(deployment.environment, deployment.pipeline, deployment.target)
    return {each["config_hash"] for each in running.tested}


def refresh_blocked() -> None:
    """Renew the deleted and outdated regressions that block deployments.

    Renews the regressions of deployments that wait for approval. Approved deployments that wait only for the gate have
    theirs renewed by their builds, which this function enqueues.
    """
    required = Deployment.objects.filter(policy__replay_gate=GateMode.REQUIRE, replay_gate_override="")
    waiting = required.filter(status=DeploymentStatus.PENDING_APPROVAL)
    rows = list(waiting.exclude(regression__status__in=UNFINISHED_REGRESSION).only(*_READ))
    blocked = find_blockers(rows)
    for found in (row for row in rows if blocked.get(row.pk)):
        with suppress(NotFound, Environment.DoesNotExist), transaction.atomic():  # deleted in the meantime
            lock_row(found.environment)
            row = lock_row(found, related=("environment__project", "config_bundle__version"))
            if find_blockers([row]).get(row.pk):
                refresh(row, is_blocked=True)
    for pk in required.filter(status=DeploymentStatus.APPROVED, gate_until__isnull=False).values_list("pk", flat=True):
        enqueue_build(pk)


def attach(row: Regression, *, actor: Actor) -> None:
    """Let the gate evaluate a new regression for the waiting deployments of the regression's configuration.

    The gate does so only if the regression compares with exactly the configurations with which the deployment must be
    compared now. If it does not, and the deployment's regression was deleted, was canceled or could not be completed,
    another regression of the deployment is requested. The caller opens the transaction.
    """
    if row.config_hash is None:
        return
    environment = lock_row(row.environment)
    waiting = Deployment.objects.filter(environment=environment, config_hash=row.config_hash, status__in=WAITING)
    for found in waiting.select_related("environment__project", "config_bundle__version").order_by("pk"):
        if not is_tested(found):
            continue
        old = _read_scope(found)
        fits = _needed_baselines(found) == _baselines_of(row)
        if not fits and old is not None and not _is_incomplete(old):
            continue
        if old is not None:
            old = lock_row(old)  # before the approval and the deployment, as when a regression ends
        deployment = _move_deadlines(found, old if old is not None and old.status in UNFINISHED_REGRESSION else None)
        if fits:
            deployment.regression = row
        else:
            request_test(deployment, actor=actor)
        deployment.save(update_fields=["regression"])


def end(row: Regression) -> None:
    """Move the deadlines of the deployments that waited for a regression. Enqueue the builds of the approved ones.

    Call this in the transaction in which the regression ends, after ``keep_environments``. Each deadline is moved by
    the time since the regression was requested.
    """
    for found in Deployment.objects.filter(regression=row, status__in=WAITING).order_by("pk"):
        deployment = _move_deadlines(found, row)
        if deployment.status == DeploymentStatus.APPROVED:
            enqueue_build(deployment.pk)


def _move_deadlines(found: Deployment, row: Regression | None) -> Deployment:
    """Move the deadlines by the time since the regression ``row`` was requested. Return the locked deployment.

    Moves nothing if ``row`` is None or is not the deployment's regression, or if the deployment does not wait.
    """
    # Lock the approval before the deployment, because the lock order must be the same everywhere.
    approval = lock_row(found.approval) if found.approval else None
    deployment = lock_row(found)
    if row is None or deployment.regression_id != row.pk or deployment.status not in WAITING:
        return deployment
    by = timezone.now() - row.created_at
    if approval is not None and approval.status == ApprovalStatus.PENDING:
        approval.expires_at += by
        approval.save(update_fields=["expires_at"])
        if deployment.break_glass is not None:
            deployment.break_glass = replace(deployment.break_glass, approve_by=approval.expires_at)
    if deployment.gate_until is not None:
        deployment.gate_until += by
    deployment.save(update_fields=["break_glass", "gate_until"])
    return deployment


def standing_still() -> QuerySet[Deployment]:
    """Return the deployments whose deadlines are paused because their regression has not finished."""
    return Deployment.objects.filter(status__in=WAITING, regression__status__in=UNFINISHED_REGRESSION)
