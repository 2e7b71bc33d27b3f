"""Helpers that keep captures as fixtures without checking each capture, and request regressions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture, RegressionResult
from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle, Regression
from apps.releases.services import regressions
from apps.tenancy.models import AuditEvent
from byteor_cloud.storage import blobs
from tests.artifacts.incidents import incident, journal
from tests.worlds import World, plan

STAGES = [{"id": "check", "op": "dataguard_check"}, {"id": "redact", "op": "dataguard_redact", "depends_on": ["check"]}]
CHECK = {"schema": {"type": "object"}}
MASK = {"rules": ["card:mask=2:2:*"]}
OTHER_MASK = {"rules": ["card:mask=4:2:*"]}


def configured(world: World, name: str = "now", version: Version | None = None, **stages: Any) -> ConfigBundle:
    """Create a config bundle, by default of a pipeline that checks and masks."""
    if version is None:
        version = world.version(content=plan(stages=STAGES))
    return world.bundle(name=name, version=version, stage_config=stages or {"check": CHECK, "redact": MASK})


def keep(world: World, made: ConfigBundle, *captures: Sequence[bytes], **columns: Any) -> list[Fixture]:
    """Keep captures of a configuration as fixtures. A capture is a list of payloads."""
    return [_keep(world, made, payloads, **columns) for payloads in captures]


def _keep(
    world: World, made: ConfigBundle, payloads: Sequence[bytes], *, lane: str = "quotes_in", **columns: Any
) -> Fixture:
    content = incident(made.version.spec_kv, stage_config=made.stage_config, **{lane: journal(payloads)})
    content_hash = "sha256:" + hashlib.sha256(content).hexdigest()
    blobs.put(content_hash, content)
    agent = Agent.objects.first() or world.agent()[0]
    artifact = Artifact.objects.create(
        environment=world.dev, agent=agent, kind="incident_bundle", status="verified", captured_at=timezone.now(),
        content_hash=content_hash, size_bytes=len(content), declared=f"{Artifact.objects.count()}",
        version=made.version, spec_hash=made.version.spec_hash,
    )  # fmt: skip
    return Fixture.objects.create(
        environment=world.dev, pipeline=made.version.name, name=f"fixture {Fixture.objects.count()}",
        artifact=artifact, created_by="test", **columns,
    )  # fmt: skip


def cards(number: int, records: int = 3) -> list[bytes]:
    """Return the payloads of the capture with this number. Each number gives different payloads."""
    return [b'{"id":%d,"card":"%010d"}' % (number, 7 * number + record) for record in range(records)]


def requested(world: World, candidate: ConfigBundle, *against: ConfigBundle) -> Regression:
    """Request a regression, by default against the configurations that agents run."""
    return regressions.request(
        environment=world.dev,
        config_bundle=candidate,
        against=[each.config_hash for each in against] or None,
        actor=world.operator.actor,
    )


def outcomes(row: Regression) -> list[tuple[str | None, str | None]]:
    """Return the outcome and the error of each result."""
    results = RegressionResult.objects.filter(regression=row).order_by("pk")
    return list(results.values_list("outcome", "error"))


def events(row: Regression) -> list[str]:
    """Return the audit actions about a regression without the prefix ``regression.``, oldest first."""
    found = AuditEvent.objects.filter(resource_id=str(row.pk)).order_by("id")
    return [each.removeprefix("regression.") for each in found.values_list("action", flat=True)]
