"""The verifier takes a good export, and names what is wrong with each altered one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from byteor_cloud.engine.delivery import dsse, keys, tar
from byteor_cloud.engine.delivery.bundle import FileEntry, Manifest
from byteor_cloud.engine.delivery.encoding import canonical, sha256
from tests.engine.delivery.conftest import APPROVED, World
from tests.verify.conftest import Change, Files, Verifier, export

KID, STRANGER = (keys.kid(keys.public_key(key)) for key in (World().active, World().stranger))
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


# -- altered ----------------------------------------------------------------------------------------------------------


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def without(good: Files, name: str) -> Files:
    return {other: data for other, data in good.items() if other != name}


def entries(good: Files) -> Files:
    """What is in the bundle, but for its manifest."""
    return without(tar.unpack(good["deploy-bundle.tar"]), "manifest.json")


def _bit_in_tar(makers: World, good: Files) -> Files:
    return {**good, "deploy-bundle.tar": flipped(good["deploy-bundle.tar"], 600)}


def _bit_in_spec(makers: World, good: Files) -> Files:
    at = good["deploy-bundle.tar"].index(b"spec.model")
    return {**good, "deploy-bundle.tar": flipped(good["deploy-bundle.tar"], at)}


def _added_entry(makers: World, good: Files) -> Files:
    files = {**tar.unpack(good["deploy-bundle.tar"]), "extra.sh": b"rm -rf /"}
    return {**good, "deploy-bundle.tar": tar.pack(files)}


def _edited_manifest(makers: World, good: Files) -> Files:
    files = tar.unpack(good["deploy-bundle.tar"])
    files["manifest.json"] = files["manifest.json"].replace(b"environment-1", b"environment-2")
    return {**good, "deploy-bundle.tar": tar.pack(files)}


def _another_envelope(makers: World, good: Files) -> Files:
    other = makers.bundle(deployment_id="deployment-2")
    return {**good, "envelope.json": canonical(makers.envelope(other))}


def _signature(makers: World, good: Files) -> Files:
    envelope = json.loads(good["envelope.json"])
    sig = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("B" if sig[0] == "A" else "A") + sig[1:]
    return {**good, "envelope.json": canonical(envelope)}


def _payload_type(makers: World, good: Files) -> Files:
    return {**good, "envelope.json": good["envelope.json"].replace(b"vnd.in-toto", b"vnd.other")}


def _not_an_envelope(makers: World, good: Files) -> Files:
    return {**good, "envelope.json": b"{"}


def _strangers_envelope(makers: World, good: Files) -> Files:
    return {**good, "envelope.json": canonical(makers.envelope(makers.bundle(), makers.stranger))}


def _replaced_keys(makers: World, good: Files) -> Files:
    return {**good, "signing_keys.json": canonical(replace(makers, active=makers.stranger).keyset.document())}


def _another_key_under_our_kid(makers: World, good: Files) -> Files:
    document, forged = (json.loads(files["signing_keys.json"]) for files in (good, _replaced_keys(makers, good)))
    document["keys"][0]["x"] = forged["keys"][0]["x"]
    return {**good, "signing_keys.json": canonical(document)}


def _without_keys(makers: World, good: Files) -> Files:
    return without(good, "signing_keys.json")


def _without_envelope(makers: World, good: Files) -> Files:
    return without(good, "envelope.json")


def _without_credential(makers: World, good: Files) -> Files:
    return without(good, "approval.cred")


def _another_credential(makers: World, good: Files) -> Files:
    return {**good, "approval.cred": makers.credential(issued_by="eve@example.com").encode()}


def _edited_deployment(makers: World, good: Files) -> Files:
    return {**good, "deployment.json": good["deployment.json"].replace(b"environment-1", b"environment-2")}


def _no_deployment(makers: World, good: Files) -> Files:
    return {**good, "deployment.json": b"[]"}


def signed(makers: World, files: Files, **manifest: object) -> Files:
    """An export, whole and signed by our own key, of what ``build`` would never make: of a server taken over."""
    document = {**makers.bundle().manifest.document(), **manifest}
    described = {name: FileEntry.of(data) for name, data in files.items()}
    document["files"] = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in described.items()}
    archive = tar.pack({**files, "manifest.json": canonical(document)})
    envelope = dsse.sign_envelope(sha256(archive), Manifest.from_document(document), makers.active)
    beside = {"approval.cred": files["approval.cred"]} if "approval.cred" in files else {}
    return {
        "deploy-bundle.tar": archive,
        "envelope.json": canonical(envelope),
        "signing_keys.json": canonical(makers.keyset.document()),
        **beside,
    }


def _signed_with(**claims: Any) -> Change:
    """All of it fits, but what people approved was something else."""

    def change(makers: World, good: Files) -> Files:
        return signed(makers, {**entries(good), "approval.cred": makers.credential(**claims).encode()})

    return change


def _signed_bit_in_credential(makers: World, good: Files) -> Files:
    head, _, tail = good["approval.cred"].partition(b".")
    other = b"B" if tail[:1] == b"A" else b"A"
    return signed(makers, {**entries(good), "approval.cred": head + b"." + other + tail[1:]})


def _signed_without_credential(makers: World, good: Files) -> Files:
    return signed(makers, without(entries(good), "approval.cred"))


def _signed_another_spec(makers: World, good: Files) -> Files:
    other = makers.spec_kv.replace(b"quotes", b"trades")
    return signed(makers, {**entries(good), "spec.kv": other}, spec_hash=sha256(other))


ALTERED: list[tuple[Change, str]] = [
    (_bit_in_tar, "envelope.subject"),
    (_bit_in_spec, "envelope.subject"),
    (_added_entry, "envelope.subject"),
    (_edited_manifest, "envelope.subject"),
    (_another_envelope, "envelope.subject"),
    (_signature, "envelope.bad_signature"),
    (_payload_type, "envelope.malformed"),
    (_not_an_envelope, "envelope.malformed"),
    (_strangers_envelope, "envelope.unknown_key"),
    (_replaced_keys, "envelope.unknown_key"),
    (_another_key_under_our_kid, "keys.malformed"),
    (_without_keys, "evidence.file_missing"),
    (_without_envelope, "evidence.file_missing"),
    (_without_credential, "evidence.credential"),
    (_another_credential, "evidence.credential"),
    (_edited_deployment, "evidence.deployment"),
    (_no_deployment, "evidence.malformed"),
    (_signed_with(environment_id="environment-2"), "approval.environment"),
    (_signed_with(environment_posture="staging"), "approval.environment"),
    (_signed_with(spec_hash=sha256(b"another")), "approval.spec_hash"),
    (_signed_with(issued_at=APPROVED - timedelta(hours=2), expires_at=APPROVED - timedelta(hours=1)),
     "approval.expired"),
    (_signed_with(issued_at=APPROVED + timedelta(seconds=1)), "approval.expired"),
    (_signed_with(capabilities=["replay:execute"]), "approval.capability"),
    (_signed_with(private_key=World().stranger), "approval.unknown_key"),
    (_signed_bit_in_credential, "approval.bad_signature"),
    (_signed_without_credential, "bundle.approval_missing"),
    (_signed_another_spec, "approval.spec_hash"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "code"), ALTERED, ids=[f"{i} {code}" for i, (_, code) in enumerate(ALTERED)])
def test_it_names_what_is_wrong(makers: World, good: Files, verify: Verifier, change: Change, code: str) -> None:
    altered = change(makers, good)
    assert altered != good

    assert verify(altered) == verify(altered, "--trust", KID, "--trust", STRANGER) == 1

    assert verify.said.startswith(f"NOT PROVEN  {code}: ")
    assert verify.said.count("\n") == 1
    answer = verify.told(altered)
    assert answer == {"outcome": "not_proven", "code": code, "detail": answer["detail"]}


def test_no_bit_of_what_is_signed_can_change(good: Files, verify: Verifier) -> None:
    """A spread of them; each is seen."""
    for name, step in (("approval.cred", 11), ("envelope.json", 61), ("deploy-bundle.tar", 397)):
        for at in range(0, len(good[name]), step):
            assert verify({**good, name: flipped(good[name], at)}) == 1, (name, at)


# -- whose keys -------------------------------------------------------------------------------------------------------


def forged_by(forger: World) -> Files:
    """A whole export that fits together, made without any key of ours."""
    credential = forger.credential(private_key=forger.active)
    return export(forger, forger.bundle(approval=credential), approval=credential)


def test_an_export_that_is_forged_as_a_whole_is_consistent_and_not_proven(
    makers: World, good: Files, verify: Verifier, tmp_path: Path
) -> None:
    forged = forged_by(replace(makers, active=makers.stranger))
    ours = tmp_path / "ours.trusted"
    ours.write_bytes(good["signing_keys.json"])

    assert verify(forged) == verify(forged, "--require-approval") == 3
    assert verify.said.startswith("CONSISTENT ")
    assert verify.told(forged)["outcome"] == "consistent"
    assert verify.told(forged, "--trust", KID)["code"] == "keys.untrusted"
    assert verify.told(forged, "--keys", str(ours))["code"] == "envelope.unknown_key"
    assert verify(good, "--keys", str(ours)) == 0
    assert f"  keys          those of {ours}, as named by --keys\n" in verify.said
    assert verify(without(good, "signing_keys.json"), "--keys", str(ours), "--trust", KID) == 0
    assert verify(forged, "--keys", str(ours), "--trust", STRANGER) == 1


def test_our_key_among_a_forgers_makes_nothing_proven(makers: World, verify: Verifier, tmp_path: Path) -> None:
    """The set names our key, and the forger's, which signs."""
    for active, retiring in ((makers.stranger, makers.active), (makers.stranger, makers.retiring)):
        forger = replace(makers, active=active, retiring=retiring)
        forged = forged_by(forger)
        kid = keys.kid(keys.public_key(retiring))

        assert verify(forged) == 3
        assert verify.told(forged, "--trust", kid)["code"] == "keys.untrusted"


def test_an_approval_by_a_forger_in_what_we_signed(makers: World, good: Files, verify: Verifier) -> None:
    """The envelope is by our key; the approval is by the forger's, which the set that came along names too."""
    approval = makers.credential(private_key=makers.stranger)
    files = signed(makers, {**entries(good), "approval.cred": approval.encode()})
    mixed = replace(makers, retiring=makers.stranger).keyset
    files["signing_keys.json"] = canonical(mixed.document())

    assert verify(files) == 3
    assert verify.told(files, "--trust", KID)["code"] == "keys.untrusted"
    beside = export(makers, makers.bundle(approved_at=None), approval=approval)
    beside["signing_keys.json"] = canonical(mixed.document())
    assert verify.told(beside, "--trust", KID)["code"] == "keys.untrusted"


def test_what_a_retired_key_signs_after_its_end_is_refused(makers: World, good: Files, verify: Verifier) -> None:
    """It may not sign an envelope at all, and no approval after its end."""
    retired = keys.kid(keys.public_key(makers.retired))
    envelope = {**good, "envelope.json": canonical(makers.envelope(makers.bundle(), makers.retired))}
    approval = _signed_with(private_key=makers.retired)(makers, good)

    for options in ((), ("--trust", retired, "--trust", KID)):
        assert verify.told(envelope, *options)["code"] == "envelope.unknown_key"
        assert verify.told(approval, *options)["code"] == "approval.unknown_key"


@pytest.mark.parametrize("kid", ["A" * 43, "", "x", KID.lower(), f" {KID}", KID[:-1]])
def test_a_key_id_that_nobody_has_proves_nothing(good: Files, verify: Verifier, kid: str) -> None:
    assert verify.told(good, "--trust", kid)["code"] == "keys.untrusted"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"active_kid":"x","keys":[]}'])
def test_a_key_file_that_is_none_does_not_fall_back_to_the_exports(
    good: Files, verify: Verifier, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "ours.trusted").write_bytes(data)

    told = verify.told(good, "--keys", str(tmp_path / "ours.trusted"))

    assert (told["outcome"], told["code"]) == ("not_proven", "keys.malformed")


def test_the_keys_of_envelope_and_approval_must_both_be_trusted(makers: World, verify: Verifier) -> None:
    credential = makers.credential(private_key=makers.retiring)
    files = export(makers, makers.bundle(approval=credential), approval=credential)
    retiring = keys.kid(keys.public_key(makers.retiring))

    assert verify.told(files, "--trust", KID)["code"] == "keys.untrusted"
    assert verify.told(files, "--trust", retiring)["code"] == "keys.untrusted"
    assert verify(files, "--trust", KID, "--trust", retiring) == 0


def test_another_environment_than_the_expected_is_refused(good: Files, verify: Verifier) -> None:
    assert verify(good, "--environment", "environment-1", "--trust", KID) == 0
    assert verify.told(good, "--environment", "environment-2")["code"] == "bundle.environment"


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


# -- hostile texts ----------------------------------------------------------------------------------------------------

HOSTILE = "a\x1b[8A\r  approved by   ceo"


def test_what_nobody_signed_cannot_write_over_what_is_proven(makers: World, verify: Verifier) -> None:
    told = {HOSTILE: "\x9b8A\n\u202eb\u2028\x7f"}
    credential = makers.credential(issued_by="ada\n  approved by   ceo")
    files = export(makers, makers.bundle(approval=credential), approval=credential, **told)

    assert verify(files, "--trust", KID) == 0

    lines = verify.said.split("\n")
    assert all(line.isprintable() for line in lines)
    assert [line[:16] for line in lines if "approved by" in line[:16]] == ["  approved by   "]
    assert lines[1].startswith("  approved by   ada\\u000a  approved by   ceo at ")
    assert "  not signed    a\\u001b[8A\\u000d  approved by   ceo: " in verify.said
    assert "\\u009b8A" in verify.said
    assert verify.told(files)["unsigned"] == told
    assert verify.said.strip("\n").isprintable()


def test_a_refusal_is_one_printable_line(good: Files, verify: Verifier, tmp_path: Path) -> None:
    envelope = {**json.loads(good["envelope.json"]), HOSTILE: "\x9b"}
    assert verify({**good, "envelope.json": canonical(envelope)}) == 1
    assert verify.said.startswith("NOT PROVEN  envelope.")
    assert verify.said.removesuffix("\n").isprintable()

    (tmp_path / "x\x1b[2K.tar").write_bytes(b"x" * 2000)
    assert verify.run(str(tmp_path / "x\x1b[2K.tar")) == 1
    assert verify.said.startswith("NOT PROVEN  evidence.malformed: x\\u001b[2K.tar: ")
    assert verify.said.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    "text",
    ['{"n":99999999999999999999}', '{"n":NaN}', '{"n":Infinity}', '{"n":"\\ud800"}', '{"\\ud800":1}',
     '{"n":' + "[" * 5000 + "]" * 5000 + "}", '{"n":' + "9" * 5000 + "}", '{"n":1e999}'],
    ids=range(8),
)  # fmt: skip
def test_what_has_no_spelling_is_refused_before_anything_is_said(good: Files, verify: Verifier, text: str) -> None:
    """It must not end the program after it said PROVEN."""
    hostile = {**good, "deployment.json": good["deployment.json"][:-1] + b"," + text[1:].encode()}

    told = verify.told(hostile, "--trust", KID)

    assert (told["outcome"], told["code"]) == ("not_proven", "evidence.malformed")
    assert verify(hostile, "--trust", KID) == 1
    assert verify.said.startswith("NOT PROVEN  evidence.malformed: ")


# -- misused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["/nowhere"],
        [".", "--bundle", "x"],
        ["--bundle", "x", "--envelope", "y"],
        ["--bundle", "/nowhere", "--envelope", "y", "--keys", "z"],
        ["ledger", "/nowhere/export"],
        ["ledger", "/nowhere/export", "--keys", "/nowhere/keys"],
    ],
    ids=" ".join,
)
def test_misuse_is_told_apart(verify: Verifier, argv: list[str]) -> None:
    assert verify.run(*argv) == 2
    assert verify.said == ""


def test_no_archive_of_ours_is_malformed(verify: Verifier, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)

    assert verify.run(str(tmp_path / "x.tar"), "--json") == 1
    assert json.loads(verify.said)["code"] == "evidence.malformed"
