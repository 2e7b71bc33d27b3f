"""Typed JSON columns: values are stored as JSON, read as their type, and queried as JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from apps.releases.models import Approval, Deployment
from byteor.engine.approval_subject import DeploymentOptions
from byteor.engine.break_glass import BreakGlass, BreakGlassRequest
from byteor.engine.release_policy import ReleasePolicy
from byteor.engine.rollout import EnlistmentCursor, Strategy
from byteor.engine.target import ApprovalTarget, ReplayTarget, Target
from byteor.engine.wave_hold import WaveHold, WaveReport
from tests.engine.test_stored_forms import FORMS
from tests.worlds import World

pytestmark = pytest.mark.django_db

COLUMNS: dict[type, tuple[type[Approval | Deployment], str]] = {
    Strategy: (Deployment, "strategy"),
    Target: (Deployment, "target"),
    ReleasePolicy: (Deployment, "policy"),
    EnlistmentCursor: (Deployment, "enlisting"),
    BreakGlass: (Deployment, "break_glass"),
    ApprovalTarget: (Approval, "target"),
    DeploymentOptions: (Approval, "options"),
    WaveHold: (Deployment, "wave_hold"),
    WaveReport: (Approval, "wave_report"),
    ReplayTarget: (Approval, "target"),
}


def column(model: type[Approval | Deployment], name: str) -> Any:
    """Return the column's stored text in the only row of the model's table, or None for a null value."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name}::text FROM {model._meta.db_table}")
        return cursor.fetchone()[0]


def test_typed_values_are_stored_as_json_and_read_back(world: World) -> None:
    world.agent(world.prod)
    world.operator = world.admin
    world.deployment(world.bundle(world.prod), break_glass=BreakGlassRequest("outage"), is_org_admin=True)

    for value, text in FORMS:
        model, name = COLUMNS[type(value)]
        if isinstance(value, ReplayTarget):
            continue  # stored only inside the target of an approval
        row = model.objects.get()
        setattr(row, name, value)
        row.save(update_fields=[name])

        assert column(model, name) == text
        assert getattr(model.objects.get(), name) == value
        assert model.objects.values_list(name, flat=True).get() == value


def test_missing_typed_value_is_stored_as_null(world: World) -> None:
    world.agent()
    deployment = world.deployment(world.bundle())

    assert (deployment.break_glass, column(Deployment, "break_glass")) == (None, None)
    assert Deployment.objects.filter(break_glass__isnull=True).get().break_glass is None


def test_json_keys_of_typed_values_can_be_queried(world: World) -> None:
    agent, _ = world.agent(tier="edge")
    world.deployment(world.bundle(), target={"selector": {"tier": "edge"}})
    Approval.objects.create(
        environment=world.dev, requested_by="ada", spec_hash="sha256:" + "a" * 64, required_approvals=1,
        target=ApprovalTarget(Target.of_agents([agent.pk]), 1), allow_self_approval=False,
        expires_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip

    assert Deployment.objects.filter(target__has_key="selector").values_list("target__selector", flat=True).get() == {
        "tier": "edge"
    }
    assert Approval.objects.filter(target__agents__contains=str(agent.pk), strategy__isnull=True).exists()
