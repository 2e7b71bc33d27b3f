"""Tests of altered exports: the verifier reports the fault of each."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from byteor.engine.canonical import canonical, sha256
from byteor.engine.signing import tar
from tests.engine.signing.conftest import APPROVED, World
from tests.verify.conftest import Change, Files, Verifier
from tests.verify.exports import KID, STRANGER, _signed_with, entries, flipped, signed, without


def _bit_in_tar(makers: World, approved: Files) -> Files:
    return {**approved, "deploy-bundle.tar": flipped(approved["deploy-bundle.tar"], 600)}


def _bit_in_spec(makers: World, approved: Files) -> Files:
    at = approved["deploy-bundle.tar"].index(b"spec.model")
    return {**approved, "deploy-bundle.tar": flipped(approved["deploy-bundle.tar"], at)}


def _added_entry(makers: World, approved: Files) -> Files:
    files = {**tar.unpack(approved["deploy-bundle.tar"]), "extra.sh": b"rm -rf /"}
    return {**approved, "deploy-bundle.tar": tar.pack(files)}


def _edited_manifest(makers: World, approved: Files) -> Files:
    files = tar.unpack(approved["deploy-bundle.tar"])
    files["manifest.json"] = files["manifest.json"].replace(b"environment-1", b"environment-2")
    return {**approved, "deploy-bundle.tar": tar.pack(files)}


def _another_envelope(makers: World, approved: Files) -> Files:
    other = makers.bundle(deployment_id="deployment-2")
    return {**approved, "envelope.json": canonical(makers.envelope(other))}


def _signature(makers: World, approved: Files) -> Files:
    envelope = json.loads(approved["envelope.json"])
    sig = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = ("B" if sig[0] == "A" else "A") + sig[1:]
    return {**approved, "envelope.json": canonical(envelope)}


def _payload_type(makers: World, approved: Files) -> Files:
    return {**approved, "envelope.json": approved["envelope.json"].replace(b"vnd.in-toto", b"vnd.other")}


def _not_an_envelope(makers: World, approved: Files) -> Files:
    return {**approved, "envelope.json": b"{"}


def _strangers_envelope(makers: World, approved: Files) -> Files:
    return {**approved, "envelope.json": canonical(makers.envelope(makers.bundle(), makers.stranger))}


def _replaced_keys(makers: World, approved: Files) -> Files:
    return {**approved, "signing_keys.json": canonical(replace(makers, active=makers.stranger).keyset.document())}


def _another_key_under_our_kid(makers: World, approved: Files) -> Files:
    document, forged = (
        json.loads(files["signing_keys.json"]) for files in (approved, _replaced_keys(makers, approved))
    )
    document["keys"][0]["x"] = forged["keys"][0]["x"]
    return {**approved, "signing_keys.json": canonical(document)}


def _without_keys(makers: World, approved: Files) -> Files:
    return without(approved, "signing_keys.json")


def _without_envelope(makers: World, approved: Files) -> Files:
    return without(approved, "envelope.json")


def _without_credential(makers: World, approved: Files) -> Files:
    return without(approved, "approval.cred")


def _another_credential(makers: World, approved: Files) -> Files:
    return {**approved, "approval.cred": makers.credential(issued_by="eve@example.com").encode()}


def _edited_deployment(makers: World, approved: Files) -> Files:
    return {**approved, "deployment.json": approved["deployment.json"].replace(b"environment-1", b"environment-2")}


def _no_deployment(makers: World, approved: Files) -> Files:
    return {**approved, "deployment.json": b"[]"}


def _signed_bit_in_credential(makers: World, approved: Files) -> Files:
    head, _, tail = approved["approval.cred"].partition(b".")
    other = b"B" if tail[:1] == b"A" else b"A"
    return signed(makers, {**entries(approved), "approval.cred": head + b"." + other + tail[1:]})


def _signed_without_credential(makers: World, approved: Files) -> Files:
    return signed(makers, without(entries(approved), "approval.cred"))


def _signed_another_spec(makers: World, approved: Files) -> Files:
    other = makers.spec_kv.replace(b"quotes", b"trades")
    return signed(makers, {**entries(approved), "spec.kv": other}, spec_hash=sha256(other))


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
def test_altered_export_is_not_proven_and_fault_is_reported(
    makers: World, approved: Files, verify: Verifier, change: Change, code: str
) -> None:
    altered = change(makers, approved)
    assert altered != approved

    assert verify(altered) == verify(altered, "--trust", KID, "--trust", STRANGER) == 1

    assert verify.output.startswith(f"NOT PROVEN  {code}: ")
    assert verify.output.count("\n") == 1
    result = verify.result(altered)
    assert result == {"outcome": "not_proven", "code": code, "detail": result["detail"]}


def test_changed_bit_in_signed_file_is_detected(approved: Files, verify: Verifier) -> None:
    """The test changes one bit at a time, in a sample of the bytes of the credential, the envelope and the bundle."""
    for name, step in (("approval.cred", 11), ("envelope.json", 61), ("deploy-bundle.tar", 397)):
        for at in range(0, len(approved[name]), step):
            assert verify({**approved, name: flipped(approved[name], at)}) == 1, (name, at)
