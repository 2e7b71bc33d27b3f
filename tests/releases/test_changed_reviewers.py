"""Approvals after a change of reviewers, the limit of scheduled deployments, and offers that cannot be signed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.utils import timezone

from apps.fleet.models import Assignment
from apps.releases.api import offered
from apps.releases.models import Approval, Deployment
from apps.releases.services import rollout_steps
from apps.tenancy.services import signing_keys
from tests.releases import stories
from tests.releases.stories import Run, command, state
from tests.releases.test_wave_evidence import export, verified
from tests.worlds import Person, World

pytestmark = pytest.mark.django_db


def change(world: World, deployment: Deployment, *people: Person) -> Any:
    reviewers = [str(each.user.pk) for each in people]
    return command(world.admin.api, world, deployment, "reviewers", reviewers=reviewers)


def decide(world: World, deployment: Deployment, by: Person) -> str:
    sent = {"deployment_id": str(deployment.pk), "decision": "approve"}
    status: str = by.api.post(world.path(world.prod, "/approvals"), sent).json()["status"]
    return status


def consented(world: World) -> Deployment:
    """Request a deployment that needs two approvals. Two people approve it, but one of them is no longer a reviewer."""
    world.prod.settings = {"required_approvals": 2}
    world.prod.save(update_fields=["settings"])
    stories.fleet(world, 1, world.prod)
    people = (world.reviewer, world.project_admin)
    deployment = world.deployment(world.bundle(world.prod), reviewer_ids=[each.user.pk for each in people])
    assert decide(world, deployment, world.reviewer) == "pending"
    assert change(world, deployment, world.project_admin, world.viewer).status_code == 200
    assert decide(world, deployment, world.project_admin) == "pending"
    return deployment


def test_evidence_proves_approval_completed_by_change_of_reviewers(
    world: World, run_jobs: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = consented(world)

    assert change(world, deployment, world.reviewer, world.project_admin).json()["status"] == "approved"

    run_jobs()
    assert state(deployment) == ("deploying", "")
    trust = f"--trust={signing_keys.key_set(world.organization.pk).active.kid}"
    output = verified(tmp_path, export(world, deployment), capsys, trust, "--require-approval")
    assert output.startswith("PROVEN\n"), output


def test_change_of_reviewers_does_not_complete_expired_approval(world: World) -> None:
    deployment = consented(world)
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert change(world, deployment, world.reviewer, world.project_admin).status_code == 200

    approval = Approval.objects.get()
    assert (approval.status, approval.credential) == ("pending", None)
    assert state(deployment) == ("pending_approval", "")


def test_number_of_scheduled_deployments_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.releases.services.admission.MAX_SCHEDULED", 2)
    world.agent()
    bundle = world.bundle()
    body = {
        "config_bundle_id": str(bundle.pk), "target": {"all": True},
        "start_at": (timezone.now() + timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    path = world.path(rest="/deployments")
    made = [world.operator.api.post(path, body) for _ in range(3)]

    assert [each.status_code for each in made] == [201, 201, 409]
    assert made[-1].json()["type"] == "urn:byteor:problem:scheduled_limit"
    assert Deployment.objects.count() == 2


def test_offer_that_cannot_be_signed_does_not_affect_other_offers(world: World, run_jobs: Run) -> None:
    other = World("other")
    fleets = [stories.fleet(each, 1) for each in (world, other)]
    made = [stories.offered(each, each.bundle()) for each in (world, other)]
    ids = [agents[0][0].pk for agents in fleets]
    sign = rollout_steps.sign_deployment_envelopes

    def refuse(deployments: Any) -> Any:
        if any(each.pk == made[1].pk for each in deployments):
            raise ValueError("the key cannot be read")
        return sign(deployments)

    with (
        patch.object(offered, "_texts", offered._Texts()),
        patch.object(rollout_steps, "sign_deployment_envelopes", refuse),
    ):
        good, bad = offered._read_batch(ids)

    assert isinstance(good, offered.Offered)
    assert str(made[0].pk) in good.text
    assert isinstance(bad, ValueError)
    assert Assignment.objects.filter(deployment_id=made[1].pk).exists()
