"""The evidence of a deployment and the exported ledger: downloaded and verified offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.releases.models import Approval, Deployment
from apps.tenancy.services import ledger, signing_keys
from byteor.engine.signing import tar
from byteor.verify import cli
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture
def requested(world: World) -> Deployment:
    """A deployment to prod that waits for its approval."""
    world.agent(world.prod)
    return world.deployment(world.bundle(world.prod), note="for the auditors")


@pytest.fixture
def delivered(world: World, requested: Deployment) -> Deployment:
    """The deployment after its approval, build and first offer."""
    body = {"deployment_id": str(requested.pk), "decision": "approve", "comment": "looks right"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), body).status_code == 201
    run_jobs()
    requested.refresh_from_db()
    assert requested.status == "deploying"
    return requested


def path(world: World, deployment: Deployment) -> str:
    return world.path(world.prod, f"/deployments/{deployment.pk}/evidence")


def download(world: World, deployment: Deployment) -> dict[str, bytes]:
    response = world.operator.api.get(path(world, deployment))
    assert response.status_code == 200
    return tar.unpack(response.content)


def verified(folder: Path, files: dict[str, bytes], capsys: Any, *options: str) -> Any:
    (folder / "evidence.tar").write_bytes(tar.pack(files))
    cli.main([str(folder / "evidence.tar"), "--json", *options])
    return json.loads(capsys.readouterr().out)


def test_evidence_can_be_verified_offline(
    world: World, delivered: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = download(world, delivered)

    kid = signing_keys.key_set(world.organization.pk).active.kid
    proof = verified(tmp_path, files, capsys, "--trust", kid, "--environment", str(world.prod.pk))
    assert (proof["outcome"], proof["approved"]) == ("proven", True)
    assert proof["bundle_hash"] == delivered.bundle_hash
    assert proof["manifest"]["deployment_id"] == str(delivered.pk)
    assert proof["approval"]["issued_by"] == "reviewer@acme.example"
    approval = Approval.objects.get(deployment=delivered)
    assert proof["approval"]["approval_id"] == str(approval.pk)
    assert files["approval.cred"].decode() == approval.credential
    unsigned = proof["unsigned"]
    assert (unsigned["requested_by"], unsigned["note"]) == ("operator@acme.example", "for the auditors")
    record = proof["approval_record"]
    [decision] = record["decisions"]
    assert decision.pop("decided_at").endswith("Z")
    assert decision == {
        "user_id": str(world.reviewer.user.pk),
        "decided_by": "reviewer@acme.example",
        "decision": "approve",
        "comment": "looks right",
    }
    assert (record["status"], record["requested_by"]) == ("approved", "operator@acme.example")
    assert record["requester_id"] == str(world.operator.user.pk)
    assert record["bound"] == {
        "spec_hash": delivered.config_bundle.version.spec_hash,
        "config_hash": delivered.config_bundle.config_hash,
        "capabilities": ["deploy"],
        "target": {"all": True},
        "strategy": {"kind": "all_at_once", "failure_threshold_percent": 0, "auto_rollback": False},
        "take_over": False,
        "agent_timeout_s": 600,
        "override_freeze": None,
        "override_replay_gate": None,
        "start_at": None,
        "explain": [],
        "reviewers": [],
    }
    assert record["shown"]["agents"] == 1
    signers = [(signature["place"], signature["kid"], signature["trusted"]) for signature in proof["signatures"]]
    assert signers == [(place, kid, True) for place in ("envelope.json", "approval.cred", "approval.json")]


def test_repeated_download_without_changes_returns_same_bytes(world: World, delivered: Deployment) -> None:
    first, second = (world.operator.api.get(path(world, delivered)) for _ in range(2))

    assert first["Content-Type"] == "application/x-tar"
    assert first["Content-Disposition"] == f'attachment; filename="deployment-{delivered.pk}-evidence.tar"'
    assert first.content == second.content
    assert first["ETag"] == second["ETag"]
    assert world.operator.api.get(path(world, delivered), If_None_Match=first["ETag"]).status_code == 304


def test_envelope_in_evidence_is_signed_with_active_key(
    world: World, delivered: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = download(world, delivered)
    new = signing_keys.rotate(organization=world.organization, activate_in_s=0, actor=world.admin.actor)

    after = download(world, delivered)

    assert after["deploy-bundle.tar"] == before["deploy-bundle.tar"]
    assert verified(tmp_path, after, capsys)["envelope_kid"] == new.kid
    assert verified(tmp_path, before, capsys)["envelope_kid"] != new.kid


def test_evidence_is_refused_before_bundle_is_built(world: World, requested: Deployment) -> None:
    response = world.operator.api.get(path(world, requested))

    assert response.status_code == 409
    assert response.json()["type"].endswith("deployment.not_built")


def test_viewers_cannot_download_evidence(world: World, delivered: Deployment) -> None:
    assert world.viewer.api.get(path(world, delivered)).status_code == 403


def test_evidence_of_deployment_without_approval_has_no_credential(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.agent(world.dev)
    deployment = world.deployment(world.bundle(world.dev))
    run_jobs()

    response = world.operator.api.get(world.path(world.dev, f"/deployments/{deployment.pk}/evidence"))

    files = tar.unpack(response.content)
    assert sorted(files) == ["deploy-bundle.tar", "deployment.json", "envelope.json", "signing_keys.json"]
    proof = verified(tmp_path, files, capsys)
    assert (proof["outcome"], proof["approved"], proof["approval"]) == ("consistent", False, None)
    assert proof["approval_record"] is None


def test_evidence_includes_approval_after_break_glass(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.agent(world.prod)
    body = {
        "config_bundle_id": str(world.bundle(world.prod).pk),
        "target": {"all": True},
        "break_glass": {"reason": "the exchange changed its feed"},
    }
    made = world.admin.api.post(world.path(world.prod, "/deployments"), body)
    assert made.status_code == 201
    run_jobs()
    deployment = Deployment.objects.get(pk=made.json()["id"])
    before = verified(tmp_path, download(world, deployment), capsys)
    assert (before["outcome"], before["approved"], before["approval_beside"]) == ("consistent", False, False)
    assert before["unsigned"]["break_glass"]["by"] == "admin@acme.example"

    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201

    after = verified(tmp_path, download(world, deployment), capsys)
    assert (after["outcome"], after["approved"], after["approval_beside"]) == ("consistent", False, True)
    assert after["approval"]["issued_by"] == "reviewer@acme.example"
    assert after["bundle_hash"] == before["bundle_hash"]
    assert (before["approval_record"]["status"], after["approval_record"]["status"]) == ("pending", "approved")
    assert [doubt["code"] for doubt in after["doubts"]] == ["keys.exported"]


def test_evidence_with_credential_of_aborted_deployment_can_be_verified(
    world: World, requested: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decision = {"deployment_id": str(requested.pk), "decision": "approve"}
    credential = world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).json()["credential"]
    assert world.operator.api.post(world.path(world.prod, f"/deployments/{requested.pk}/abort"), {}).status_code == 200
    body = {"config_bundle_id": str(requested.config_bundle_id), "target": {"all": True}, "approval": credential}
    made = world.operator.api.post(world.path(world.prod, "/deployments"), body)
    assert made.status_code == 201
    run_jobs()

    deployment = Deployment.objects.get(pk=made.json()["id"])
    kid = signing_keys.key_set(world.organization.pk).active.kid
    proof = verified(tmp_path, download(world, deployment), capsys, "--trust", kid, "--require-approval")

    assert proof["outcome"] == "proven"
    assert proof["approval_record"]["deployment_id"] == str(deployment.pk)
    assert proof["approval_record"]["approval_id"] == str(requested.approval_id)


def test_exported_ledger_can_be_verified_offline(
    world: World, delivered: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.seal_all()
    exports = []
    for number, query in enumerate(("", "?after_seq=7")):
        path_ = f"/api/v1/orgs/{world.organization.pk}/audit-events/export{query}"
        file = tmp_path / f"{number}.ndjson"
        file.write_bytes(b"".join(world.admin.api.get(path_).streaming_content))
        exports.append(file)
    (tmp_path / "signing_keys.json").write_bytes(download(world, delivered)["signing_keys.json"])

    kid = signing_keys.key_set(world.organization.pk).active.kid
    assert cli.main(["ledger", str(exports[0]), "--json", "--trust", kid]) == 0

    proof = json.loads(capsys.readouterr().out)
    assert proof["checkpoint"]["org_id"] == str(world.organization.pk)
    assert proof["events"] == proof["checkpoint"]["seq"] > 20
    assert "approval.decision.approve" in exports[0].read_text()
    assert cli.main(["ledger", str(exports[1]), "--trust", kid]) == 1
    assert "ledger.missing" in capsys.readouterr().out
    seventh = json.loads(exports[0].read_text().splitlines()[6])["hash"]
    assert cli.main(["ledger", str(exports[1]), "--trust", kid, "--after", f"7:{seventh}"]) == 0
    assert f"seq 7 {seventh}, which you named" in capsys.readouterr().out
