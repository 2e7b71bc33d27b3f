"""The law of the state machines: every pair of status and event moves with its records, or changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from apps.artifacts.models import Artifact, Replay
from apps.releases.models import Approval, Deployment, TimelineEntry
from apps.tenancy.models import AuditEvent
from apps.tenancy.state import Stateful, advance
from byteor_cloud.engine.machines import MACHINES, Machine
from byteor_cloud.errors import IllegalTransition
from tests.releases import stories
from tests.worlds import World

pytestmark = pytest.mark.django_db

MODELS = {model.machine.name: model for model in apps.get_models() if issubclass(model, Stateful)}


def pairs() -> Iterator[tuple[str, Any, Any]]:
    for machine in MACHINES:
        for status in machine.states:
            for event in machine.events:
                yield machine.name, status, event


def row(world: World, name: str) -> Stateful:
    """One row that the machine governs."""
    stories.fleet(world, 1, world.prod)
    if name in {"deployment", "approval"}:
        deployment = world.deployment(world.bundle(world.prod))
        assert deployment.approval is not None
        return deployment if name == "deployment" else deployment.approval
    agent, _ = world.agent()
    artifact = Artifact.objects.create(
        environment=world.dev, agent=agent, kind="telemetry", content_hash="sha256:" + "0" * 64, size_bytes=1,
        captured_at=timezone.now(),
    )  # fmt: skip
    if name == "artifact":
        return artifact
    return Replay.objects.create(environment=world.dev, artifact=artifact, version=world.version())


def test_every_machine_governs_a_model() -> None:
    assert {machine.name for machine in MACHINES} == set(MODELS)
    assert set(MODELS.values()) == {Deployment, Approval, Artifact, Replay}


@pytest.mark.parametrize(("name", "status", "event"), list(pairs()))
def test_a_pair_moves_with_its_records_or_changes_nothing(world: World, name: str, status: Any, event: Any) -> None:
    governed = row(world, name)
    machine: Machine = governed.machine
    governed.status = status
    governed.save()
    audited, told = AuditEvent.objects.count(), TimelineEntry.objects.count()
    target = machine.table[event].get(status)

    if target is None:
        with pytest.raises(IllegalTransition, match=f"The {name} is {status}:") as refusal:
            advance(governed, event, actor=world.operator.actor)
        assert refusal.value.status == 409
    else:
        advance(governed, event, actor=world.operator.actor)

    moved = target is not None
    governed.refresh_from_db()
    assert governed.status == (target if moved else status)
    assert AuditEvent.objects.count() == audited + moved
    assert TimelineEntry.objects.count() == told + (moved and name == "deployment")
    if moved:
        written = AuditEvent.objects.order_by("id").last()
        assert written is not None
        assert (written.action, written.resource_id, written.changes["status"], written.actor_id) == (
            f"{name}.{event}", str(governed.pk), [str(status), str(target)], str(world.operator.user.pk),
        )  # fmt: skip
