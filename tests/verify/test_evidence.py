"""Tests of exports with and without approvals: the verifier prints what they prove, and who approved the deployment."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.canonical import sha256
from byteor.engine.signing import tar
from tests.engine.signing.conftest import APPROVED, World
from tests.verify.conftest import Files, Verifier, export, record_document, signed_record
from tests.verify.exports import KID

MODULE = (sys.executable, "-I", "-m", "byteor.verify")
BREAK_GLASS: dict[str, Any] = {"break_glass": True}
OFFLINE = """
import sys
from byteor.verify.cli import main
code = main(sys.argv[1:])
assert not {name.partition(".")[0] for name in sys.modules} & {"django", "rest_framework", "psycopg", "apps"}
sys.exit(code)
"""


def program(folder: Path, *argv: str) -> tuple[int, str, str]:
    """Run a program in ``folder``, and return its exit code, stdout and stderr."""
    done = subprocess.run(argv, cwd=folder, env={}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_proof_contains_approver_and_bundle_and_environment(makers: World, approved: Files, verify: Verifier) -> None:
    assert verify(approved, "--trust", KID) == 0

    manifest = makers.bundle().manifest
    assert verify.output == (
        "PROVEN\n"
        "  approved by   ada@example.com at 2026-10-20T08:00:00.250000Z, valid until 2026-10-20T09:00:00.250000Z\n"
        f"  approval      approval-1, for deploy; key {KID}\n"
        "  decision      approve by ada@example.com at 2026-10-20T08:00:00.250000Z: looks right\n"
        "  requested by  bob@example.com; required approvals: 1\n"
        '  bound to      strategy: {"kind":"all_at_once"}\n'
        '  bound to      target: {"all":true}\n'
        "  NOT TESTED    nothing in the evidence says how the configuration was tested\n"
        "  environment   environment-1 (prod), project project-1\n"
        "  organization  org-1\n"
        "  deployment    deployment-1, requested at 2026-10-20T07:55:00.250000Z\n"
        f"  spec          {manifest.spec_hash}\n"
        f"  config        {manifest.config_hash}\n"
        f"  bundle        {sha256(approved['deploy-bundle.tar'])}; key {KID}\n"
        '  not signed    requested_by: "bob@example.com"\n'
        f"  signature     envelope.json, key {KID} (trusted): every byte of deploy-bundle.tar, and the ids, hashes and "
        "times in it\n"
        f"  signature     approval.cred, key {KID} (trusted): the spec, environment, capabilities, approver and "
        "validity, but not the configuration or target\n"
        f"  signature     approval.json, key {KID} (trusted): the server's record at the time of the "
        "export: config_hash, "
        "spec_hash, strategy, target, decisions\n"
        f"  keys          only {KID}, named with --trust\n"
    )


def test_export_is_consistent_but_not_proven_if_no_trusted_key_is_named(approved: Files, verify: Verifier) -> None:
    assert verify(approved, "--trust", KID) == 0
    proven = verify.output.splitlines()

    assert verify(approved) == 3

    first, *rest, keys_ = verify.output.splitlines()
    assert first.startswith("CONSISTENT  ")
    assert "--trust" in first
    assert "PROVEN" not in verify.output
    assert [line.replace("(not trusted)", "(trusted)") for line in rest] == proven[1:-1]
    assert sum("(not trusted): " in line for line in rest) == 3
    assert keys_ == (
        "  keys          any of the export's signing_keys.json, which came with the files: "
        "whoever created the files chose these keys"
    )
    result = verify.result(approved)
    assert result["outcome"] == "consistent"
    assert [doubt["code"] for doubt in result["doubts"]] == ["keys.exported"]
    assert [signature["trusted"] for signature in result["signatures"]] == [False] * 3
    assert result["keys"] == {"source": "the export's signing_keys.json", "named": False, "trusted_kids": []}


def test_json_output_contains_proof(makers: World, approved: Files, verify: Verifier) -> None:
    result = verify.result(approved, "--trust", KID)

    manifest = makers.bundle().manifest.document()
    del manifest["files"]
    assert result == {
        "outcome": "proven",
        "approved": True,
        "approval_beside": False,
        "bundle_hash": sha256(approved["deploy-bundle.tar"]),
        "manifest": manifest,
        "approval": {
            "approval_id": "approval-1",
            "issued_by": "ada@example.com",
            "issued_at": "2026-10-20T08:00:00.250000Z",
            "expires_at": "2026-10-20T09:00:00.250000Z",
            "capabilities": ["deploy"],
            "kid": KID,
        },
        "approval_record": record_document(makers),
        "test_result": None,
        "gate": None,
        "wave_approvals": [],
        "wave_approvals_complete": False,
        "envelope_kid": KID,
        "unsigned": {"requested_by": "bob@example.com"},
        "doubts": [],
        "signatures": [
            {"place": place, "kid": KID, "covers": signature["covers"], "trusted": True}
            for place, signature in zip(
                ("envelope.json", "approval.cred", "approval.json"), result["signatures"], strict=True
            )
        ],
        "keys": {"source": "the export's signing_keys.json", "named": False, "trusted_kids": [KID]},
    }


def test_verifier_needs_neither_server_nor_django(approved: Files, verify: Verifier, tmp_path: Path) -> None:
    verify(approved, "--trust", KID)
    alone = (sys.executable, "-I", "-c", OFFLINE, "export", "--trust", KID)

    assert program(tmp_path, *alone) == (0, verify.output, "")

    (tmp_path / "export/approval.cred").unlink()
    assert program(tmp_path, *alone) == (1, "NOT PROVEN  evidence.credential: approval.cred is missing\n", "")


def test_verifier_runs_as_command_and_as_module(approved: Files, verify: Verifier, tmp_path: Path) -> None:
    for options, code in ((("--trust", KID), 0), ((), 3)):
        verify(approved, *options)

        for program_ in ((str(Path(sys.executable).with_name("byteor-verify")),), MODULE):
            assert program(tmp_path, *program_, "export", *options) == (code, verify.output, "")


def test_tar_is_verified_like_unpacked_folder(approved: Files, verify: Verifier, tmp_path: Path) -> None:
    verify(approved)
    by_folder = verify.output
    (tmp_path / "evidence.tar").write_bytes(tar.pack(approved))

    assert verify.run(str(tmp_path / "evidence.tar")) == 3

    assert verify.output == by_folder


def test_evidence_files_can_be_named_individually(approved: Files, verify: Verifier, tmp_path: Path) -> None:
    verify(approved)
    parts = {
        "bundle": "deploy-bundle.tar", "envelope": "envelope.json", "credential": "approval.cred",
        "keys": "signing_keys.json", "approval": "approval.json",
    }  # fmt: skip
    argv = [f"--{option}={verify.export / name}" for option, name in parts.items()]

    assert verify.run(*argv) == 0

    assert f"  keys          any of {verify.export}/signing_keys.json, named with --keys\n" in verify.output
    assert "not signed" not in verify.output
    assert verify.run(*argv[:2], *argv[3:]) == 0  # the bundle also contains the credential
    assert "approved by   ada@example.com" in verify.output
    assert verify.run(*argv[:4]) == 3
    assert verify.output.startswith(
        "CONSISTENT  but not proven: approval.json is missing, so the approved configuration"
    )


# -- without approval -------------------------------------------------------------------------------------------------


def test_proof_reports_missing_approval(makers: World, verify: Verifier) -> None:
    files = export(makers, makers.bundle(approved_at=None), break_glass={"by": "ada@example.com", "reason": "outage"})

    assert verify(files, "--trust", KID) == 0

    assert "  approved by   NOBODY: no approval was needed, or the deployment used break-glass\n" in verify.output
    assert '  not signed    break_glass: {"by":"ada@example.com","reason":"outage"}\n' in verify.output
    result = verify.result(files, "--trust", KID)
    assert (result["approved"], result["approval_beside"], result["approval"]) == (False, False, None)


@pytest.mark.parametrize("options", [(), ("--trust", KID)])
def test_require_approval_option_rejects_unapproved_bundle(
    makers: World, approved: Files, verify: Verifier, options: tuple[str, ...]
) -> None:
    unapproved = export(makers, makers.bundle(approved_at=None), break_glass={"by": "ada@example.com", "reason": "x"})
    later = export(makers, makers.bundle(approved_at=None), approval=makers.credential(), record=BREAK_GLASS)

    for files, why in ((unapproved, "there is no separate credential"), (later, "does not cover its bytes")):
        result = verify.result(files, "--require-approval", *options)

        assert (result["outcome"], result["code"]) == ("not_proven", "evidence.not_approved")
        assert why in result["detail"]
        assert verify(files, *options) == verify(approved, "--require-approval", *options) == (0 if options else 3)


def test_record_proves_approval_after_break_glass(makers: World, verify: Verifier) -> None:
    files = export(makers, makers.bundle(approved_at=None), approval=makers.credential(), record=BREAK_GLASS)

    assert verify(files, "--trust", KID) == 0

    assert (
        "  approved by   NOBODY before the deployment (break-glass); later ada@example.com at "
        "2026-10-20T08:00:00.250000Z\n"
    ) in verify.output
    result = verify.result(files, "--trust", KID)
    assert (result["approved"], result["approval_beside"]) == (False, True)


@pytest.mark.parametrize("status", ["pending", "denied", "expired"])
def test_approval_record_without_consent_is_reported_as_unapproved(
    makers: World, verify: Verifier, status: str
) -> None:
    record = {**BREAK_GLASS, "status": status, "approved_at": None, "decisions": []}
    files = export(makers, makers.bundle(approved_at=None), record=record)

    assert verify(files, "--trust", KID) == 0

    assert f"  approved by   NOBODY: the approval approval-1 is {status}\n" in verify.output
    result = verify.result(files, "--trust", KID)
    assert (result["approved"], result["approval"], result["approval_record"]["status"]) == (False, None, status)


def test_separate_approval_does_not_cover_bytes_of_bundle(makers: World, verify: Verifier) -> None:
    files = export(makers, makers.bundle(approved_at=None), approval=makers.credential())

    assert verify(files, "--trust", KID) == 3

    assert (
        "  approved by   NOBODY for these bytes; a separate approval by ada@example.com at "
        "2026-10-20T08:00:00.250000Z covers only the spec and environment\n"
    ) in verify.output
    result = verify.result(files)
    assert (result["approved"], result["approval_beside"]) == (False, True)
    assert result["approval"]["issued_by"] == "ada@example.com"


def test_separate_approval_of_another_deployment_does_not_count(makers: World, verify: Verifier) -> None:
    """The credential names the spec but not the configuration, so it also matches another deployment of that spec."""
    other = makers.bundle(approved_at=None, deployment_id="deployment-2")
    files = export(makers, other, approval=makers.credential())

    result = verify.result(files, "--trust", KID)

    assert (result["outcome"], result["approved"], result["approval_beside"]) == ("consistent", False, True)
    files["approval.json"] = signed_record(makers, other.bundle_hash, **BREAK_GLASS)
    assert verify.result(files, "--trust", KID)["code"] == "evidence.approval_record"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"spec_hash": sha256(b"another")}, "approval.spec_hash"),
        ({"environment_id": "environment-2"}, "approval.environment"),
        ({"project_id": "project-2"}, "approval.environment"),
        ({"capabilities": ["replay:execute"]}, "approval.capability"),
        ({"private_key": World().stranger}, "approval.unknown_key"),
        ({"issued_at": APPROVED - timedelta(hours=1)}, "approval.expired"),
    ],
)
def test_separate_approval_must_be_valid_and_match_manifest(
    makers: World, verify: Verifier, claims: dict[str, Any], code: str
) -> None:
    files = export(makers, makers.bundle(approved_at=None), approval=makers.credential(**claims))

    assert verify.result(files)["code"] == code


def test_malformed_credential_is_rejected(makers: World, verify: Verifier) -> None:
    files = export(makers, makers.bundle(approved_at=None), approval="no credential")

    assert verify.result(files)["code"] == "approval.malformed"
