"""Deletes old artifacts, regressions and verdicts, long-decommissioned agents, and blobs that no row refers to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import batched
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture, RegressionResult, UnreferencedBlob, Verdict, VerdictExample
from apps.artifacts.services.current_tests import is_proof
from apps.artifacts.services.fixtures import is_expired
from apps.fleet.models import Agent
from apps.releases.models import AgentReport, Deployment, DeploymentAgent, Regression
from apps.tenancy.actors import system_actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from byteor_cloud.backup.locks import may_delete_blobs
from byteor_cloud.database.deletion import delete_in_batches
from byteor_cloud.database.large_columns import each_row, without_large
from byteor_cloud.errors import NotStored, Unavailable
from byteor_cloud.storage import blobs

WORKER = system_actor("retention")
BATCH_SIZE = 1000  # rows processed per transaction or query
# A blob is stored before the row that refers to it, so a blob that is younger than this may not have its row yet.
STRAY_AGE = timedelta(days=1)
AGENTS_KEPT_FOR = timedelta(days=90)  # the minimum time for which ``delete_old_agents`` keeps decommissioned agents
REGRESSIONS_KEPT_FOR = timedelta(days=90)  # how long finished regressions and unused verdicts are kept
BLOB_FOLDERS, HOURS_PER_WEEK = 256, 168


def delete_old_artifacts(now: datetime | None = None) -> int:
    """Delete artifacts older than their environment's ``artifact_retention_days``, with their replays and bisects.

    Expired fixtures are deleted with their artifact. Artifacts with a fixture that has not expired are kept. Deleted
    environments are skipped. Returns the number of deleted artifacts.
    """
    now = now or timezone.now()
    removed = 0
    for environment in each_row(Environment.objects.live().select_related("project")):
        while count := _delete_batch(environment, now):
            removed += count
    return removed


def _delete_batch(environment: Environment, now: datetime) -> int:
    days = environment.effective_settings.artifact_retention_days
    live_fixtures = Fixture.objects.filter(~is_expired(since=now), artifact=OuterRef("pk"))
    expired = Artifact.objects.filter(
        ~Exists(live_fixtures), environment=environment, created_at__lt=now - timedelta(days=days)
    ).order_by("pk")
    # An artifact may have more examples than one transaction should delete.
    delete_in_batches(
        VerdictExample.objects.filter(artifact__in=list(expired.values_list("pk", flat=True)[:BATCH_SIZE]))
    )
    with transaction.atomic():
        # While an artifact is locked, no fixture of it can be created, so the second query sees all fixtures.
        locked = expired.select_for_update(skip_locked=True, of=("self",)).values_list("pk", flat=True)[:BATCH_SIZE]
        ids = list(expired.filter(pk__in=list(locked)).values_list("pk", flat=True))
        if ids:
            _record_expired_fixtures(environment, ids)
            without_large(Artifact.objects.filter(pk__in=ids)).delete()
            audit.record(
                "artifact.expire",
                actor=WORKER,
                scope=environment,
                resource=("environment", environment.pk),
                changes={"artifacts": len(ids), "retention_days": days},
            )
    return len(ids)


def _record_expired_fixtures(environment: Environment, artifact_ids: list[UUID]) -> None:
    """Record the fixtures that are deleted with their artifacts, for the packets of approvals."""
    expired = Fixture.objects.filter(artifact__in=artifact_ids).order_by("pk")
    audit.record_all(
        audit.Entry(
            "fixture.expire",
            WORKER,
            environment,
            ("fixture", pk),
            {"name": [name, None], "pipeline": [pipeline, None], "expires_at": [expires_at.isoformat(), None]},
        )
        for pk, name, pipeline, expires_at in expired.values_list("pk", "name", "pipeline", "expires_at")
        if expires_at is not None  # only expired fixtures are deleted
    )


def delete_old_regressions(now: datetime | None = None) -> int:
    """Delete regressions that finished more than 90 days ago, with their results. Returns their number.

    Keeps the regressions that ``queue_due`` may still need (``is_proof``).
    """
    old = Regression.objects.filter(~is_proof(), finished_at__lt=(now or timezone.now()) - REGRESSIONS_KEPT_FOR)
    delete_in_batches(RegressionResult.objects.filter(regression__in=old))
    return delete_in_batches(old)


def delete_unused_verdicts(now: datetime | None = None) -> int:
    """Delete verdicts that no regression has used for more than 90 days, with their examples. Returns their number."""
    before = (now or timezone.now()) - REGRESSIONS_KEPT_FOR
    delete_in_batches(VerdictExample.objects.filter(verdict__used_at__lt=before))
    return delete_in_batches(Verdict.objects.filter(used_at__lt=before))


def delete_old_agents(now: datetime | None = None) -> int:
    """Delete agents that were decommissioned more than 90 days ago. Returns the number of deleted agents.

    An agent is kept while it has artifacts, reports or stored progress in a deployment.
    """
    of_agent = {"agent_id": OuterRef("pk")}
    deletable = Agent.objects.filter(
        ~Exists(Artifact.objects.filter(**of_agent)),
        ~Exists(DeploymentAgent.objects.filter(**of_agent)),
        ~Exists(AgentReport.objects.filter(**of_agent)),
        decommissioned_at__lt=(now or timezone.now()) - AGENTS_KEPT_FOR,
    )
    return delete_in_batches(deletable)


def delete_unreferenced_blobs() -> int:
    """Delete the blobs that ``UnreferencedBlob`` lists, unless a row refers to them. Returns how many were deleted.

    Each blob is deleted in its own transaction. Raises Unavailable or OSError if the blob store fails. The next run
    then starts with the other blobs, and tries the failed one again after them. While a backup runs, nothing is
    deleted, because the backup may still have to copy the blobs.
    """
    removed = 0
    for content_hash in _list_unreferenced():
        try:
            removed += _delete_blob(content_hash)
        except _BackupRunning:
            break
        except (Unavailable, OSError):
            UnreferencedBlob.objects.filter(pk=content_hash).update(since=timezone.now())
            raise
    return removed


def _list_unreferenced() -> Iterator[str]:
    """Yield the listed hashes, oldest first. Hashes whose ``since`` is after the start are left to the next run."""
    listed = UnreferencedBlob.objects.filter(since__lte=timezone.now()).order_by("since", "pk")
    while page := list(listed.values_list("pk", flat=True)[:BATCH_SIZE]):
        yield from page


class _BackupRunning(Exception):
    """A backup is running, so no blob may be deleted. The next run of the job tries again."""


@transaction.atomic
def _delete_blob(content_hash: str) -> bool:
    """Delete the blob unless a row refers to it again. Returns whether the blob was deleted. Raises _BackupRunning."""
    if not may_delete_blobs():
        raise _BackupRunning
    # A transaction that deletes an artifact or a deployment holds this lock until it commits, so waiting for the lock
    # makes sure that the check below sees the deletion.
    listed = UnreferencedBlob.objects.select_for_update().filter(pk=content_hash).first()
    if listed is None:
        return False
    # A concurrent upload of the same bytes has either committed its row before this lock was acquired, or it waits for
    # the lock and then notices that the blob is gone.
    blobs.lock_for_removal(content_hash)
    is_needed = bool(_find_referenced([content_hash]))
    if not is_needed:
        blobs.delete(content_hash)
    # The row is deleted last. If this transaction fails, the next run tries again; deleting a blob twice is harmless.
    listed.delete()
    return not is_needed


def _find_referenced(hashes: list[str]) -> set[str | None]:
    """Return the hashes that an artifact or a deployment refers to."""
    found: set[str | None] = set()
    found |= set(Artifact.objects.filter(content_hash__in=hashes).values_list("content_hash", flat=True))
    found |= set(Deployment.objects.filter(bundle_hash__in=hashes).values_list("bundle_hash", flat=True))
    return found


def list_stray_blobs(now: datetime | None = None) -> int:
    """Find stray blobs and list them for ``delete_unreferenced_blobs``. Returns how many were found.

    A process that dies after it stored a blob and before it wrote the row leaves a stray blob, to which no row refers.
    Each hour of the week is assigned one or two of the blob store's 256 folders, so hourly calls check all of them
    within a week.
    """
    now = now or timezone.now()
    hour = int(now.timestamp() // 3600) % HOURS_PER_WEEK
    count = 0
    for folder in range(BLOB_FOLDERS):
        if folder % HOURS_PER_WEEK == hour:
            count += _list_stray_blobs_in(folder, now - STRAY_AGE)
    return count


def _list_stray_blobs_in(folder: int, before: datetime) -> int:
    count = 0
    for hashes in batched(blobs.list_stored(folder), BATCH_SIZE):
        needed = _find_referenced(list(hashes))
        strays = [UnreferencedBlob(content_hash=h) for h in hashes if h not in needed and _is_older(h, before)]
        UnreferencedBlob.objects.bulk_create(strays, ignore_conflicts=True)
        count += len(strays)
    return count


def _is_older(content_hash: str, moment: datetime) -> bool:
    try:
        return blobs.stored_at(content_hash) < moment
    except NotStored:
        return False
