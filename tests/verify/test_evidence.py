"""The verifier takes a good export, and says what it proves and whether anybody approved it."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.engine.delivery import tar
from byteor_cloud.engine.delivery.encoding import sha256
from tests.engine.delivery.conftest import APPROVED, World
from tests.verify.conftest import Files, Verifier, export
from tests.verify.exports import KID

MODULE = (sys.executable, "-I", "-m", "byteor_cloud.verify")
OFFLINE = """
import sys
from byteor_cloud.verify.cli import main
code = main(sys.argv[1:])
assert not {name.partition(".")[0] for name in sys.modules} & {"django", "rest_framework", "psycopg", "apps"}
sys.exit(code)
"""


def program(folder: Path, *argv: str) -> tuple[int, str, str]:
    """A program's exit code and what it said, in ``folder``."""
    done = subprocess.run(argv, cwd=folder, env={}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_it_proves_who_approved_which_bytes_for_which_environment(makers: World, good: Files, verify: Verifier) -> None:
    assert verify(good, "--trust", KID) == 0

    manifest = makers.bundle().manifest
    assert verify.said == (
        "PROVEN\n"
        "  approved by   ada@example.com at 2026-10-20T08:00:00.250000Z, good until 2026-10-20T09:00:00.250000Z\n"
        f"  approval      approval-1, for deploy; key {KID}\n"
        "  environment   environment-1 (prod), project project-1\n"
        "  organization  org-1\n"
        "  deployment    deployment-1, asked for at 2026-10-20T07:55:00.250000Z\n"
        f"  spec          {manifest.spec_hash}\n"
        f"  config        {manifest.config_hash}\n"
        f"  bundle        {sha256(good['deploy-bundle.tar'])}; key {KID}\n"
        '  not signed    requested_by: "bob@example.com"\n'
        f"  keys          only {KID}, as named by --trust\n"
    )


def test_without_named_keys_the_same_is_consistent_at_most(good: Files, verify: Verifier) -> None:
    assert verify(good, "--trust", KID) == 0
    proven = verify.said.splitlines()

    assert verify(good) == 3

    first, *rest, keys_ = verify.said.splitlines()
    assert first.startswith("CONSISTENT  ")
    assert "--trust" in first
    assert "PROVEN" not in verify.said
    assert rest == proven[1:-1]
    assert keys_ == (
        "  keys          any of the export's signing_keys.json, which came with the files: "
        "whoever made the files chose them"
    )
    told = verify.told(good)
    assert told["outcome"] == "consistent"
    assert told["keys"] == {"source": "the export's signing_keys.json", "named": False, "trusted_kids": []}


def test_it_says_it_as_json(makers: World, good: Files, verify: Verifier) -> None:
    told = verify.told(good, "--trust", KID)

    manifest = makers.bundle().manifest.document()
    del manifest["files"]
    assert told == {
        "outcome": "proven",
        "approved": True,
        "approval_beside": False,
        "bundle_hash": sha256(good["deploy-bundle.tar"]),
        "manifest": manifest,
        "approval": {
            "approval_id": "approval-1",
            "issued_by": "ada@example.com",
            "issued_at": "2026-10-20T08:00:00.250000Z",
            "expires_at": "2026-10-20T09:00:00.250000Z",
            "capabilities": ["deploy"],
            "kid": KID,
        },
        "envelope_kid": KID,
        "unsigned": {"requested_by": "bob@example.com"},
        "keys": {"source": "the export's signing_keys.json", "named": False, "trusted_kids": [KID]},
    }


def test_it_needs_neither_server_nor_django(good: Files, verify: Verifier, tmp_path: Path) -> None:
    verify(good, "--trust", KID)
    alone = (sys.executable, "-I", "-c", OFFLINE, ".", "--trust", KID)

    assert program(tmp_path, *alone) == (0, verify.said, "")

    (tmp_path / "approval.cred").unlink()
    assert program(tmp_path, *alone) == (1, "NOT PROVEN  evidence.credential: approval.cred is missing\n", "")


def test_it_is_a_command(good: Files, verify: Verifier, tmp_path: Path) -> None:
    for options, code in ((("--trust", KID), 0), ((), 3)):
        verify(good, *options)

        for program_ in ((str(Path(sys.executable).with_name("byteor-verify")),), MODULE):
            assert program(tmp_path, *program_, ".", *options) == (code, verify.said, "")


def test_the_tar_as_it_was_downloaded_will_do(good: Files, verify: Verifier, tmp_path: Path) -> None:
    verify(good)
    by_folder = verify.said
    (tmp_path / "evidence.tar").write_bytes(tar.pack(good))

    assert verify.run(str(tmp_path / "evidence.tar")) == 3

    assert verify.said == by_folder


def test_the_files_one_by_one_will_do(good: Files, verify: Verifier, tmp_path: Path) -> None:
    verify(good)
    parts = {
        "bundle": "deploy-bundle.tar", "envelope": "envelope.json", "credential": "approval.cred",
        "keys": "signing_keys.json",
    }  # fmt: skip
    argv = [f"--{option}={tmp_path / name}" for option, name in parts.items()]

    assert verify.run(*argv) == 0

    assert f"  keys          those of {tmp_path}/signing_keys.json, as named by --keys\n" in verify.said
    assert "not signed" not in verify.said
    assert verify.run(*argv[:2], argv[3]) == 0  # the credential is in the bundle too
    assert "approved by   ada@example.com" in verify.said


# -- without approval -------------------------------------------------------------------------------------------------


def test_it_says_that_nobody_approved(makers: World, verify: Verifier) -> None:
    files = export(makers, makers.bundle(approved_at=None), break_glass={"by": "ada@example.com", "reason": "outage"})

    assert verify(files, "--trust", KID) == 0

    assert "  approved by   NOBODY: no approval was needed, or it went ahead by break-glass\n" in verify.said
    assert '  not signed    break_glass: {"by":"ada@example.com","reason":"outage"}\n' in verify.said
    told = verify.told(files, "--trust", KID)
    assert (told["approved"], told["approval_beside"], told["approval"]) == (False, False, None)


@pytest.mark.parametrize("options", [(), ("--trust", KID)])
def test_an_approval_can_be_required(makers: World, good: Files, verify: Verifier, options: tuple[str, ...]) -> None:
    unapproved = export(makers, makers.bundle(approved_at=None), break_glass={"by": "ada@example.com", "reason": "x"})
    afterwards = export(makers, makers.bundle(approved_at=None), approval=makers.credential())

    for files, why in ((unapproved, "nobody approved this"), (afterwards, "is not bound to these bytes")):
        told = verify.told(files, "--require-approval", *options)

        assert (told["outcome"], told["code"]) == ("not_proven", "evidence.not_approved")
        assert why in told["detail"]
        assert verify(files, *options) == verify(good, "--require-approval", *options) == (0 if options else 3)


def test_an_approval_beside_the_bundle_is_none_of_these_bytes(makers: World, verify: Verifier) -> None:
    files = export(makers, makers.bundle(approved_at=None), approval=makers.credential())

    assert verify(files, "--trust", KID) == 0

    assert (
        "  approved by   NOBODY within these bytes; beside them lies ada@example.com's approval of "
        "2026-10-20T08:00:00.250000Z of this spec for this environment, which is not bound to these bytes\n"
    ) in verify.said
    told = verify.told(files)
    assert (told["approved"], told["approval_beside"]) == (False, True)
    assert told["approval"]["issued_by"] == "ada@example.com"


def test_another_deployments_approval_beside_a_bundle_does_not_make_it_approved(
    makers: World, verify: Verifier
) -> None:
    """The credential fits any config of that spec: it was given for another one."""
    other = makers.bundle(approved_at=None, deployment_id="deployment-2")
    files = export(makers, other, approval=makers.credential())

    told = verify.told(files, "--trust", KID)

    assert (told["outcome"], told["approved"], told["approval_beside"]) == ("proven", False, True)


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
def test_an_approval_beside_the_bundle_must_fit_its_manifest(
    makers: World, verify: Verifier, claims: dict[str, Any], code: str
) -> None:
    files = export(makers, makers.bundle(approved_at=None), approval=makers.credential(**claims))

    assert verify.told(files)["code"] == code


def test_a_credential_that_is_none_is_malformed(makers: World, verify: Verifier) -> None:
    files = export(makers, makers.bundle(approved_at=None), approval="no credential")

    assert verify.told(files)["code"] == "approval.malformed"
