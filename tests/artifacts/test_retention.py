"""Artifacts end with their environment's setting; bytes with the last row that refers to them."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone

from apps.artifacts import retention
from apps.artifacts.models import Artifact
from apps.artifacts.services import uploads
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud import blobs
from tests.worlds import World

pytestmark = pytest.mark.django_db


def _artifact(world: World, environment: Environment, content: bytes) -> Artifact:
    agent, _ = world.agent(environment, name=f"agent {content!r}")
    artifact, _ = uploads.receive(
        environment=environment,
        agent=agent,
        kind="diagnostic",
        captured_at=timezone.now(),
        content_hash="sha256:" + hashlib.sha256(content).hexdigest(),
        file=ContentFile(content),
        actor=world.admin.actor,
    )
    return artifact


def _is_stored(content_hash: str) -> bool:
    try:
        blobs.read(content_hash).close()
    except FileNotFoundError:
        return False
    return True


def test_artifacts_past_their_time_go_and_younger_ones_stay(world: World) -> None:
    short = world.environment("dev", "short", artifact_retention_days=1)
    old, kept = _artifact(world, short, b"old"), _artifact(world, world.dev, b"kept")

    assert retention.expire_artifacts(timezone.now() + timedelta(hours=23)) == 0
    assert retention.expire_artifacts(timezone.now() + timedelta(days=2)) == 1

    assert list(Artifact.objects.values_list("pk", flat=True)) == [kept.pk]
    event = AuditEvent.objects.get(action="artifact.expire")
    assert (event.environment_id, event.changes) == (old.environment_id, {"artifacts": 1, "retention_days": 1})


def test_bytes_stay_while_one_row_refers_to_them(world: World) -> None:
    one, two = _artifact(world, world.dev, b"shared"), _artifact(world, world.staging, b"shared")
    later = timezone.now() + timedelta(days=2)

    one.delete()
    retention.remove_orphans(later)
    assert _is_stored(two.content_hash)

    two.delete()
    assert retention.remove_orphans(timezone.now()) == 0  # too young: a row may be on its way
    assert retention.remove_orphans(later) >= 1
    assert not _is_stored(two.content_hash)


def test_a_deploy_bundle_is_kept(world: World) -> None:
    from tests.worlds import run_jobs

    world.agent()
    deployment = world.deployment(world.bundle())
    run_jobs()
    deployment.refresh_from_db()

    retention.remove_orphans(timezone.now() + timedelta(days=2))

    assert _is_stored(deployment.bundle_hash or "")
