"""The decisions on waves in the evidence of a deployment: made through the API and verified offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.releases.models import Approval, Deployment
from apps.releases.services import approvals
from apps.tenancy.models import Environment
from apps.tenancy.services import signing_keys
from byteor.engine.signing import tar
from byteor.verify import cli
from tests.releases import stories
from tests.releases.stories import Run, command, report_from_all, waves
from tests.worlds import Person, World

pytestmark = pytest.mark.django_db


def decide(world: World, deployment: Deployment, by: Person, decision: str = "approve", comment: str = "") -> None:
    """Decide on the wave that the deployment waits for."""
    deployment.refresh_from_db()
    assert deployment.wave_hold is not None
    assert deployment.wave_hold.approval_id is not None
    approval = Approval.objects.get(pk=deployment.wave_hold.approval_id)
    assert approval.wave_report is not None
    body = {
        "deployment_id": str(deployment.pk), "decision": decision, "comment": comment, "wave": approval.wave,
        "digest": approval.wave_report.digest,
    }  # fmt: skip
    assert by.api.post(world.path(deployment.environment, "/approvals"), body).status_code == 201


def export(world: World, deployment: Deployment) -> dict[str, bytes]:
    path = world.path(deployment.environment, f"/deployments/{deployment.pk}/evidence")
    response = world.operator.api.get(path)
    assert response.status_code == 200
    return tar.unpack(response.content)


def verified(folder: Path, files: dict[str, bytes], capsys: Any, *options: str) -> str:
    (folder / "evidence.tar").write_bytes(tar.pack(files))
    cli.main([str(folder / "evidence.tar"), *options])
    output: str = capsys.readouterr().out
    return output


def held_deployment(world: World, environment: Environment, **options: Any) -> tuple[stories.Fleet, Deployment]:
    """Create a deployment with approval holds before the second and the third wave, for four agents."""
    agents = stories.fleet(world, 4, environment)
    strategy = {**waves(25, 50, 100, threshold=100), "holds": [None, "approval", "approval"]}
    return agents, world.deployment(world.bundle(environment), strategy=strategy, **options)


def test_decisions_on_waves_are_verified_offline(
    world: World, run_jobs: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviewers = sorted(each.user.pk for each in (world.reviewer, world.admin))
    agents, deployment = held_deployment(world, world.prod, reviewer_ids=reviewers)
    approve = {"deployment_id": str(deployment.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), approve).status_code == 201
    run_jobs()
    report_from_all(agents[:1], "active", run_jobs)
    decide(world, deployment, world.reviewer, comment="ran for an hour")
    run_jobs()
    first_kid = signing_keys.key_set(world.organization.pk).active.kid
    signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)
    report_from_all(agents[1:2], "failed", run_jobs)
    before = export(world, deployment)
    changed = {"reviewers": [str(each.user.pk) for each in (world.reviewer, world.viewer)], "reason": "on leave"}
    path = world.path(world.prod, f"/deployments/{deployment.pk}/reviewers")
    assert world.admin.api.post(path, changed).status_code == 200
    decide(world, deployment, world.viewer, "deny", "The second agent failed.")
    run_jobs()

    files = export(world, deployment)

    trust = [f"--trust={kid}" for kid in (first_kid, signing_keys.key_set(world.organization.pk).active.kid)]
    output = verified(tmp_path, files, capsys, *trust, "--require-approval")
    assert output.startswith("PROVEN\n"), output
    first, second = json.loads(files["wave-approvals.json"])
    assert [each["signatures"][0]["keyid"] for each in (first, second)] == [trust[0][8:], trust[1][8:]]
    shown = [line[16:] for line in output.splitlines() if line.startswith(("  wave approval", "  on the wave"))]
    assert shown[0].startswith("Wave 2 was approved by reviewer@acme.example at 20")
    assert shown[0].endswith("Z. Wave 1: 1 agent (1 active).")
    assert shown[1].endswith(": ran for an hour")
    assert shown[2].startswith("Wave 3 was denied by viewer@acme.example at 20")
    assert shown[2].endswith("Z. Waves 1 to 2: 2 agents (1 active, 1 failed). 1 agent failed (reported).")
    assert shown[3].endswith(": The second agent failed.")
    assert (
        f"  bound to      reviewers: {json.dumps([str(each) for each in reviewers], separators=(',', ':'))}\n" in output
    )
    assert "  reviewers     of wave 3 (" in output
    assert ") differ from those in approval.json; an org_admin can change the reviewers" in output
    assert "  reviewers     of wave 2" not in output
    assert '"holds":[null,"approval","approval"]' in output
    assert verified(tmp_path, before, capsys, *trust).count("  wave approval") == 1

    # The verifier detects that the file with the wave approvals was replaced by an older one, or removed.
    older = {**files, "wave-approvals.json": before["wave-approvals.json"]}
    assert verified(tmp_path, older, capsys, *trust).startswith("NOT PROVEN  statements.missing: ")
    older = {name: data for name, data in files.items() if name != "wave-approvals.json"}
    assert verified(tmp_path, older, capsys, *trust).startswith("NOT PROVEN  statements.missing: ")
    assert export(world, deployment) == files


def test_statement_of_withdrawn_approval_stays_in_evidence(
    world: World, run_jobs: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agents, deployment = held_deployment(world, world.dev)
    run_jobs()
    report_from_all(agents[:1], "failed", run_jobs)
    assert "wave-approvals.json" not in export(world, deployment)
    decide(world, deployment, world.reviewer)
    [approval] = Approval.objects.filter(rollout=deployment)
    statement = approval.statement
    assert statement is not None
    approvals.revoke(approval, actor=world.operator.actor)
    approval.refresh_from_db()
    assert (approval.status, approval.statement) == ("revoked", statement)
    run_jobs()
    assert command(world.operator.api, world, deployment, "retry").status_code == 200
    report_from_all(agents[:1], "active", run_jobs)
    decide(world, deployment, world.admin)

    output = verified(tmp_path, export(world, deployment), capsys)

    assert output.startswith("CONSISTENT"), output
    shown = [line for line in output.splitlines() if line.startswith("  wave approval")]
    assert [line.partition("Z. ")[2] for line in shown] == [
        "Wave 1: 1 agent (1 failed). 1 agent failed (reported).",
        "Wave 1: 1 agent (1 active). 1 agent failed (reported).",
    ]
    assert "  NOT COVERED   no signature covers the list of the wave approvals" in output
