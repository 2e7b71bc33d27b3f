"""What is kept how long: artifacts by their environment's setting, bytes while something refers to them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from apps.artifacts.models import Artifact
from apps.releases.models import Deployment
from apps.tenancy import audit
from apps.tenancy.actors import system
from apps.tenancy.models import Environment
from byteor_cloud import blobs

WORKER = system("retention")
# Bytes are stored before the row that refers to them: younger ones may still be waiting for it.
ORPHAN_AGE = timedelta(days=1)


def expire_artifacts(now: datetime | None = None) -> int:
    """Remove artifacts past their environment's ``artifact_retention_days``, with their replays; how many went."""
    now = now or timezone.now()
    return sum(_expire(environment, now) for environment in Environment.objects.live().select_related("project"))


@transaction.atomic
def _expire(environment: Environment, now: datetime) -> int:
    days = environment.effective_settings["artifact_retention_days"]
    past = Artifact.objects.filter(environment=environment, created_at__lt=now - timedelta(days=days))
    ids = list(past.values_list("pk", flat=True)[:5000])
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


def remove_orphans(now: datetime | None = None) -> int:
    """Remove stored bytes that no artifact and no deployment refers to any more; how many went."""
    now = now or timezone.now()
    removed = 0
    for hashes in blobs.stored_before(now - ORPHAN_AGE):
        needed: set[str | None] = set()
        needed |= set(Artifact.objects.filter(content_hash__in=hashes).values_list("content_hash", flat=True))
        needed |= set(Deployment.objects.filter(bundle_hash__in=hashes).values_list("bundle_hash", flat=True))
        for content_hash in hashes:
            if content_hash not in needed:
                blobs.delete(content_hash)
                removed += 1
    return removed
