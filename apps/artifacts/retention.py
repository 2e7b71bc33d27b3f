"""What is kept how long: artifacts by their environment's setting, bytes while something refers to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import batched

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from apps.artifacts.models import Artifact, UnreferencedBlob
from apps.fleet.models import Agent
from apps.releases.models import AgentReport, Deployment, DeploymentAgent
from apps.tenancy import audit
from apps.tenancy.actors import system
from apps.tenancy.models import Environment
from apps.tenancy.pruning import delete_in_batches
from byteor_cloud import blobs
from byteor_cloud.errors import Unavailable

WORKER = system("retention")
AT_ONCE = 1000  # rows of one transaction
# Bytes are stored before the row that refers to them: a stray that is younger may still be waiting for it.
STRAY_AGE = timedelta(days=1)
AGENTS_KEPT_FOR = timedelta(days=90)
FOLDERS, HOURS_A_WEEK = 256, 168


def expire_artifacts(now: datetime | None = None) -> int:
    """Remove artifacts past their environment's ``artifact_retention_days``, with their replays; return how many."""
    now = now or timezone.now()
    removed = 0
    for environment in Environment.objects.live().select_related("project"):
        while count := _expire(environment, now):
            removed += count
    return removed


@transaction.atomic
def _expire(environment: Environment, now: datetime) -> int:
    days = environment.effective_settings.artifact_retention_days
    past = Artifact.objects.filter(environment=environment, created_at__lt=now - timedelta(days=days))
    ids = list(past.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
    if ids:
        Artifact.objects.filter(pk__in=ids).delete()
        audit.record(
            "artifact.expire",
            actor=WORKER,
            scope=environment,
            resource=("environment", environment.pk),
            changes={"artifacts": len(ids), "retention_days": days},
        )
    return len(ids)


def forget_agents(now: datetime | None = None) -> int:
    """Remove agents that left the fleet 90 days ago and that nothing tells of any more; return how many.

    Their artifacts, their parts in deployments and their reports have times of their own, and go first.
    """
    mine = {"agent_id": OuterRef("pk")}
    left = Agent.objects.filter(
        ~Exists(Artifact.objects.filter(**mine)),
        ~Exists(DeploymentAgent.objects.filter(**mine)),
        ~Exists(AgentReport.objects.filter(**mine)),
        decommissioned_at__lt=(now or timezone.now()) - AGENTS_KEPT_FOR,
    )
    return delete_in_batches(left)


def remove_unreferenced() -> int:
    """Remove the bytes whose last row is gone, one transaction for each; return how many went.

    A trigger of the database notes them when the row is deleted (UnreferencedBlob). When the store is in trouble the
    rest waits for the next run, and what failed is then tried last.
    """
    removed = 0
    for content_hash in _noted():
        try:
            removed += _remove(content_hash)
        except (Unavailable, OSError):
            UnreferencedBlob.objects.filter(pk=content_hash).update(since=timezone.now())
            raise
    return removed


def _noted() -> Iterator[str]:
    """Yield what is noted now, oldest first; not what is noted meanwhile, so that it ends."""
    notes = UnreferencedBlob.objects.filter(since__lte=timezone.now()).order_by("since", "pk")
    while page := list(notes.values_list("pk", flat=True)[:AT_ONCE]):
        yield from page


@transaction.atomic
def _remove(content_hash: str) -> bool:
    """Remove the bytes unless a row refers to them again; return whether they went."""
    # A deletion that is under way holds the note until it commits, and only then is its row seen to be gone.
    note = UnreferencedBlob.objects.select_for_update().filter(pk=content_hash).first()
    if note is None:
        return False
    # Whoever uploads the same bytes now has its row before this, or waits and then stores them anew.
    blobs.lock_for_removal(content_hash)
    is_needed = bool(_referenced([content_hash]))
    if not is_needed:
        blobs.delete(content_hash)
    # Last: if this transaction fails, the note is still there, and removing twice does no harm.
    note.delete()
    return not is_needed


def _referenced(hashes: list[str]) -> set[str | None]:
    """Return those of the hashes that an artifact or a deployment refers to."""
    found: set[str | None] = set()
    found |= set(Artifact.objects.filter(content_hash__in=hashes).values_list("content_hash", flat=True))
    found |= set(Deployment.objects.filter(bundle_hash__in=hashes).values_list("bundle_hash", flat=True))
    return found


def note_strays(now: datetime | None = None) -> int:
    """Note stored bytes that no row ever referred to, for ``remove_unreferenced``; return how many.

    Processes that die between storing and writing the row leave them. Each call looks into a 168th of the folders, as
    the hour says, so that hourly calls see all within a week and none asks the store for much.
    """
    now = now or timezone.now()
    hour = int(now.timestamp() // 3600) % HOURS_A_WEEK
    noted = 0
    for folder in range(FOLDERS):
        if folder % HOURS_A_WEEK == hour:
            noted += _note_strays_in(folder, now - STRAY_AGE)
    return noted


def _note_strays_in(folder: int, before: datetime) -> int:
    noted = 0
    for hashes in batched(blobs.list_stored(folder), AT_ONCE):
        needed = _referenced(list(hashes))
        strays = [UnreferencedBlob(content_hash=h) for h in hashes if h not in needed and _is_older(h, before)]
        UnreferencedBlob.objects.bulk_create(strays, ignore_conflicts=True)
        noted += len(strays)
    return noted


def _is_older(content_hash: str, moment: datetime) -> bool:
    try:
        return blobs.stored_at(content_hash) < moment
    except FileNotFoundError:
        return False
