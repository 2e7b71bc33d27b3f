"""Tests of forged evidence. It is not proven, even if the caller trusts our key."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.canonical import Json, canonical, sha256
from byteor.engine.signing import keys, tar
from tests.engine.signing.conftest import World
from tests.verify.conftest import CONFIG, DECISION, SPEC, Change, Files, Verifier, config_hash, export, signed_record
from tests.verify.exports import KID, entries, flipped, signed, without

RETIRING = keys.kid(keys.public_key(World().retiring))
OTHER_CONFIG: Json = {**CONFIG, "env": {}}
EXEC = SPEC.replace(b"op=identity", b"op=exec:/bin/sh")
EVE = {**DECISION, "user_id": "user-3", "decided_by": "eve@example.com"}


# -- forged content ---------------------------------------------------------------------------------------------------


def _bound(**changes: Any) -> Json:
    return {"spec_hash": sha256(SPEC), "config_hash": config_hash(), **changes}


def _recorded(**changes: Any) -> Change:
    """Return an edit that replaces the record with another one, signed with our key unless ``key`` is passed."""

    def change(makers: World, approved: Files) -> Files:
        record = signed_record(makers, sha256(approved["deploy-bundle.tar"]), **changes)
        return {**approved, "approval.json": record}

    return change


def _bundled(files: Files, **manifest: object) -> Change:
    """Return an edit of the bundle. Our key signs the bundle and the record again, as on a compromised server."""

    def change(makers: World, approved: Files) -> Files:
        forged = signed(makers, {**entries(approved), **files}, **manifest)
        return _recorded()(makers, forged)

    return change


def _record_of_another_configuration(makers: World, approved: Files) -> Files:
    """Use a record about another bundle, which has the same spec but another configuration."""
    theirs = _bound(config_hash=sha256(b"x"))
    return {**approved, "approval.json": signed_record(makers, sha256(b"its bundle"), bound=theirs)}


def _envelope_as_record(makers: World, approved: Files) -> Files:
    return {**approved, "approval.json": approved["envelope.json"]}


def _record_as_envelope(makers: World, approved: Files) -> Files:
    return {**approved, "envelope.json": approved["approval.json"]}


def _bit_in_record(makers: World, approved: Files) -> Files:
    at = approved["approval.json"].index(b"payload") + 200
    return {**approved, "approval.json": flipped(approved["approval.json"], at)}


def _without_later_credential(makers: World, approved: Files) -> Files:
    return export(makers, makers.bundle(approved_at=None), record={"break_glass": True})


def _other_config_beside(makers: World, approved: Files) -> Files:
    record = {"break_glass": True, "bound": _bound(config_hash=sha256(b"x"))}
    return export(makers, makers.bundle(approved_at=None), approval=makers.credential(), record=record)


def _issued_by_eve(makers: World, approved: Files) -> Files:
    credential = makers.credential(issued_by="eve@example.com")
    return export(makers, makers.bundle(approval=credential), approval=credential, record={})


def _deployment_with_another_configuration(makers: World, approved: Files) -> Files:
    edited = approved["deployment.json"].replace(config_hash().encode(), sha256(b"x").encode())
    return {**approved, "deployment.json": edited}


RECORD = "evidence.approval_record: approval.json: "
CONTENT: dict[str, tuple[Change, str]] = {
    "an arbitrary config hash": (_bundled({}, config_hash=sha256(b"x")), "evidence.config_hash: "),
    "another configuration": (
        _bundled({"runtime_config.json": canonical(OTHER_CONFIG)}), "evidence.config_hash: "),
    "a configuration that names its own spec hash": (
        _bundled({"runtime_config.json": canonical({**CONFIG, "spec_hash": sha256(b"x")})}),
        "bundle.malformed: runtime_config.json "),
    "an incomplete configuration": (
        _bundled({"runtime_config.json": b"{}"}, config_hash=config_hash(config={})),
        "bundle.malformed: runtime_config.json "),
    "undeclared side effects": (
        _bundled({"spec.kv": EXEC, "approval.cred": World(spec_kv=EXEC).credential().encode()},
                 spec_hash=sha256(EXEC), config_hash=config_hash(EXEC)),
        "evidence.capabilities: spec.kv needs the capabilities deploy, side_effect:exec"),
    "capabilities that the spec does not need": (
        _bundled({"approval.cred": World(spec_kv=SPEC).credential(capabilities=["deploy", "x"]).encode()},
                 capabilities=["deploy", "x"], config_hash=config_hash(capabilities=("deploy", "x"))),
        "evidence.capabilities: "),
    "an invalid spec": (
        _bundled({"spec.kv": b"x", "approval.cred": World(spec_kv=b"x").credential().encode()},
                 spec_hash=sha256(b"x"), config_hash=config_hash(b"x")),
        "bundle.malformed: spec.kv: line 1"),
    "the approval of another configuration": (
        _record_of_another_configuration, f"{RECORD}envelope.subject: "),
    "an approval bound to another configuration": (
        _recorded(bound=_bound(config_hash=sha256(b"x"))), "approval.binding: "),
    "an approval bound to another spec": (_recorded(bound=_bound(spec_hash=sha256(b"x"))), "approval.binding: "),
    "an approval bound to no configuration": (_recorded(bound={"spec_hash": sha256(SPEC)}), f"{RECORD}envelope."),
    "a later approval bound to another configuration": (_other_config_beside, "approval.binding: "),
    "the approval of another deployment": (_recorded(deployment_id="deployment-2"), f"{RECORD}deployment_id "),
    "the approval of another environment": (_recorded(environment_id="staging-1"), f"{RECORD}environment_id "),
    "the approval of another organization": (_recorded(org_id="org-2"), f"{RECORD}org_id "),
    "another approval than the credential's": (
        _recorded(approval_id="approval-2"), f"{RECORD}approval.cred was issued for another approval, approval-1"),
    "a record by a stranger": (_recorded(key=World().stranger), f"{RECORD}envelope.unknown_key: "),
    "a record by a retired key": (_recorded(key=World().retired), f"{RECORD}envelope.unknown_key: "),
    "a record by a key that is not named": (
        _recorded(key=World().retiring), f"keys.untrusted: signed by the key {RETIRING}"),
    "a changed bit in the record": (_bit_in_record, f"{RECORD}envelope."),
    "a record of another type": (_recorded(type_="urn:byteor:gate:v1"), f"{RECORD}envelope.malformed: "),
    "the envelope as the record": (_envelope_as_record, f"{RECORD}envelope.malformed: "),
    "the record as the envelope": (_record_as_envelope, "envelope.malformed: "),
    "a record with an unknown member": (_recorded(extra=1), f"{RECORD}envelope.malformed: "),
    "a denied approval": (_recorded(status="denied"), "evidence.not_approved: the approval approval-1 is denied"),
    "a denial among the decisions": (
        _recorded(decisions=[DECISION, {**EVE, "decision": "deny"}]), "evidence.not_approved: somebody denied "),
    "too few approvals": (_recorded(required_approvals=2), "evidence.not_approved: approvals required: 2, counted: 1"),
    "one person who approves twice": (
        _recorded(required_approvals=2, decisions=[DECISION, DECISION]),
        "evidence.not_approved: approvals required: 2, counted: 1"
    ),
    "the requester's own approval": (
        _recorded(requester_id="user-1"), "evidence.not_approved: approvals required: 1, counted: 0"),
    "no decision": (_recorded(required_approvals=0, decisions=[]), f"{RECORD}approval.cred was issued by ada"),
    "a credential by somebody who did not decide": (
        _issued_by_eve, f"{RECORD}approval.cred was issued by eve@example.com, but no approval "
        "by this person counts"),
    "an approval from another time": (
        _recorded(approved_at="2026-10-20T08:00:01Z"), f"{RECORD}approved_at or expires_at differs"),
    "an approval that is valid for longer": (
        _recorded(expires_at="2026-10-21T09:00:00Z"), f"{RECORD}approved_at or expires_at differs"),
    "a break-glass approval inside the bundle": (
        _recorded(break_glass=True), f"{RECORD}the deployment used break-glass, "),
    "a later approval without its credential": (_without_later_credential, "evidence.credential: "),
    "a summary with another configuration": (
        _deployment_with_another_configuration, "evidence.deployment: deployment.json: config_hash "),
}  # fmt: skip


def test_genuine_exports_are_proven(makers: World, approved: Files, verify: Verifier) -> None:
    again = _bundled({})(makers, approved)
    later = export(makers, makers.bundle(approved_at=None), approval=makers.credential(), record={"break_glass": True})
    both = _recorded(required_approvals=2, decisions=[DECISION, EVE])(makers, approved)
    own = _recorded(requester_id="user-1", allow_self_approval=True)(makers, approved)

    for files in (approved, again, later, both, own):
        assert verify(files, "--trust", KID) == 0, verify.output
    assert verify(_recorded(key=makers.retiring)(makers, approved), "--trust", KID, "--trust", RETIRING) == 0


@pytest.mark.parametrize("name", CONTENT)
def test_forged_evidence_is_not_proven(makers: World, approved: Files, verify: Verifier, name: str) -> None:
    change, reason = CONTENT[name]
    forged = change(makers, approved)
    assert forged != approved

    assert verify(forged, "--trust", KID) == 1

    assert verify.output.startswith(f"NOT PROVEN  {reason}"), verify.output
    assert verify.output.count("\n") == 1


def test_approved_evidence_without_approval_record_is_only_consistent(approved: Files, verify: Verifier) -> None:
    older = without(approved, "approval.json")

    result = verify.result(older, "--trust", KID)

    assert (result["outcome"], result["approved"], result["approval_record"]) == ("consistent", True, None)
    [doubt] = result["doubts"]
    assert doubt["code"] == "evidence.approval_record_missing"
    assert verify(older, "--trust", KID) == 3
    assert verify.output.startswith("CONSISTENT  but not proven: approval.json is missing, so the approved ")
    assert [d["code"] for d in verify.result(older)["doubts"]] == ["keys.exported", "evidence.approval_record_missing"]


# -- entries that do not belong to the evidence -----------------------------------------------------------------------


def _archive(files: Files, *added: tarfile.TarInfo) -> bytes:
    """Return a tar of the files and the added entries, sorted by name. Added files contain ``x``."""
    made = [(tarfile.TarInfo(name), data) for name, data in files.items()]
    made += [(info, b"x" if info.isreg() else b"") for info in added]
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in sorted(made, key=lambda entry: entry[0].name):
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return written.getvalue()


def _entry(name: str, type_: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, "/etc/passwd" if type_ in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
    return info


ENTRIES: dict[str, tuple[Callable[[Files], bytes], str]] = {
    "a foreign file": (lambda files: _archive(files, _entry("zz.txt")), "evidence.entry_extra: zz.txt "),
    "a path to outside": (lambda files: _archive(files, _entry("../../evil")), "evidence.entry_extra: ../../evil "),
    "an absolute path": (lambda files: _archive(files, _entry("/tmp/evil")), "evidence.entry_extra: /tmp/evil "),
    "a file in a folder": (lambda files: _archive(files, _entry("x/envelope.json")), "evidence.entry_extra: x/envel"),
    "another form of a name": (lambda files: _archive(files, _entry("./envelope.json")), "evidence.entry_extra: ./en"),
    "a duplicate": (
        lambda files: _archive(files, _entry("envelope.json")), "evidence.malformed: e.tar: 'envelope.json' occurs "),
    "a symbolic link": (
        lambda files: _archive(without(files, "approval.json"), _entry("approval.json", tarfile.SYMTYPE)),
        "evidence.malformed: e.tar: 'approval.json' is not a regular file"),
    "a hard link": (
        lambda files: _archive(files, _entry("link", tarfile.LNKTYPE)),
        "evidence.malformed: e.tar: 'link' is not a regular file"),
    "a folder": (
        lambda files: _archive(files, _entry("x", tarfile.DIRTYPE)), "evidence.malformed: e.tar: 'x"),
    "a device": (
        lambda files: _archive(files, _entry("x", tarfile.CHRTYPE)), "evidence.malformed: e.tar: 'x' is not a reg"),
    "trailing bytes": (lambda files: _archive(files) + b"x", "evidence.malformed: e.tar: not the canonical archive"),
    "a cut archive": (lambda files: _archive(files)[:-10240], "evidence.malformed: e.tar: "),
    "a name with control characters": (
        lambda files: _archive(files, _entry("zz\x1b[2K")), "evidence.entry_extra: zz\\u001b[2K "),
}  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_tar_with_unexpected_entry_or_damaged_end_is_not_proven(
    approved: Files, verify: Verifier, tmp_path: Path, name: str
) -> None:
    make, reason = ENTRIES[name]
    assert _archive(approved) == tar.pack(approved)
    (tmp_path / "e.tar").write_bytes(make(approved))

    assert verify.run(str(tmp_path / "e.tar"), "--trust", KID) == 1

    assert verify.output.startswith(f"NOT PROVEN  {reason}"), verify.output
    assert verify.output.count("\n") == 1
    assert os.listdir(tmp_path) == ["e.tar"]


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(32 * 1024 * 1024 + 1)


FOLDER: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a foreign file": ("zz.txt", Path.touch, "evidence.entry_extra: zz.txt "),
    "a hidden file": (".x", Path.touch, "evidence.entry_extra: .x "),
    "a folder": ("x", Path.mkdir, "evidence.entry_extra: x "),
    "a folder with an expected name": ("envelope.json", Path.mkdir, "evidence.entry_type: envelope.json "),
    "a link": ("signing_keys.json", lambda path: path.symlink_to("../keys"), "evidence.entry_type: signing_keys.json "),
    "a pipe": ("deployment.json", os.mkfifo, "evidence.entry_type: deployment.json "),
    "a large file": ("envelope.json", _large, "evidence.too_large: envelope.json "),
}


@pytest.mark.parametrize("name", FOLDER)
def test_folder_with_unexpected_or_too_large_entry_is_not_proven(
    makers: World, approved: Files, verify: Verifier, tmp_path: Path, name: str
) -> None:
    entry, make, reason = FOLDER[name]
    (tmp_path / "keys").write_bytes(approved["signing_keys.json"])
    assert verify(approved, "--trust", KID) == 0
    (verify.export / entry).unlink(missing_ok=True)
    make(verify.export / entry)

    assert verify.run(str(verify.export), "--trust", KID) == 1

    assert verify.output.startswith(f"NOT PROVEN  {reason}"), verify.output


def test_approval_record_signed_by_untrusted_exported_key_is_not_proven(
    makers: World, approved: Files, verify: Verifier
) -> None:
    mixed = replace(makers, retiring=makers.stranger).keyset
    forged = {**_recorded(key=makers.stranger)(makers, approved), "signing_keys.json": canonical(mixed.document())}

    assert verify(forged) == 3
    assert verify.result(forged, "--trust", KID)["code"] == "keys.untrusted"
