"""Tests of trust: only keys named by the caller prove anything, not the keys that came with the export.

Also tests the option ``--environment``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from byteor.engine.canonical import canonical
from byteor.engine.signing import keys
from tests.engine.signing.conftest import World
from tests.verify.conftest import Files, Verifier, export
from tests.verify.exports import KID, STRANGER, _signed_with, entries, signed, without


def forged_by(forger: World) -> Files:
    """Create a consistent export that only the forger's active key signed, without an approval record."""
    credential = forger.credential(private_key=forger.active)
    return export(forger, forger.bundle(approval=credential), approval=credential)


def test_entirely_forged_export_is_consistent_only_without_named_keys(
    makers: World, approved: Files, verify: Verifier, tmp_path: Path
) -> None:
    forged = forged_by(replace(makers, active=makers.stranger))
    ours = tmp_path / "ours.trusted"
    ours.write_bytes(approved["signing_keys.json"])

    assert verify(forged) == verify(forged, "--require-approval") == 3
    assert verify.output.startswith("CONSISTENT ")
    assert verify.result(forged)["outcome"] == "consistent"
    assert verify.result(forged, "--trust", KID)["code"] == "keys.untrusted"
    assert verify.result(forged, "--keys", str(ours))["code"] == "envelope.unknown_key"
    assert verify(approved, "--keys", str(ours)) == 0
    assert f"  keys          any of {ours}, named with --keys\n" in verify.output
    assert verify(without(approved, "signing_keys.json"), "--keys", str(ours), "--trust", KID) == 0
    assert verify(forged, "--keys", str(ours), "--trust", STRANGER) == 1


def test_forged_export_is_not_proven_by_our_key_in_its_key_set(makers: World, verify: Verifier, tmp_path: Path) -> None:
    for active, retiring in ((makers.stranger, makers.active), (makers.stranger, makers.retiring)):
        forger = replace(makers, active=active, retiring=retiring)
        forged = forged_by(forger)
        kid = keys.kid(keys.public_key(retiring))

        assert verify(forged) == 3
        assert verify.result(forged, "--trust", kid)["code"] == "keys.untrusted"


def test_forged_approval_in_bundle_signed_by_our_key_is_not_proven(
    makers: World, approved: Files, verify: Verifier
) -> None:
    """The exported key set contains our key, which signed the envelope, and the forger's, which signed the approval."""
    approval = makers.credential(private_key=makers.stranger)
    files = signed(makers, {**entries(approved), "approval.cred": approval.encode()})
    mixed = replace(makers, retiring=makers.stranger).keyset
    files["signing_keys.json"] = canonical(mixed.document())

    assert verify(files) == 3
    assert verify.result(files, "--trust", KID)["code"] == "keys.untrusted"
    separate = export(makers, makers.bundle(approved_at=None), approval=approval)
    separate["signing_keys.json"] = canonical(mixed.document())
    assert verify.result(separate, "--trust", KID)["code"] == "keys.untrusted"


def test_retired_key_cannot_sign_envelope_or_approval(makers: World, approved: Files, verify: Verifier) -> None:
    retired = keys.kid(keys.public_key(makers.retired))
    envelope = {**approved, "envelope.json": canonical(makers.envelope(makers.bundle(), makers.retired))}
    approval = _signed_with(private_key=makers.retired)(makers, approved)

    for options in ((), ("--trust", retired, "--trust", KID)):
        assert verify.result(envelope, *options)["code"] == "envelope.unknown_key"
        assert verify.result(approval, *options)["code"] == "approval.unknown_key"


@pytest.mark.parametrize("kid", ["A" * 43, "", "x", KID.lower(), f" {KID}", KID[:-1]])
def test_trusting_unknown_key_id_proves_nothing(approved: Files, verify: Verifier, kid: str) -> None:
    assert verify.result(approved, "--trust", kid)["code"] == "keys.untrusted"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"active_kid":"x","keys":[]}'])
def test_invalid_key_file_is_rejected(approved: Files, verify: Verifier, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ours.trusted").write_bytes(data)

    result = verify.result(approved, "--keys", str(tmp_path / "ours.trusted"))

    assert (result["outcome"], result["code"]) == ("not_proven", "keys.malformed")


def test_keys_of_envelope_and_credential_and_record_must_be_trusted(makers: World, verify: Verifier) -> None:
    credential = makers.credential(private_key=makers.retiring)
    files = export(makers, makers.bundle(approval=credential), approval=credential, record={})
    retiring = keys.kid(keys.public_key(makers.retiring))

    assert verify.result(files, "--trust", KID)["code"] == "keys.untrusted"
    assert verify.result(files, "--trust", retiring)["code"] == "keys.untrusted"
    assert verify(files, "--trust", KID, "--trust", retiring) == 0
    record = export(makers, makers.bundle(), approval=makers.credential(), record={"key": makers.retiring})
    assert verify.result(record, "--trust", KID)["code"] == "keys.untrusted"
    assert verify(record, "--trust", KID, "--trust", retiring) == 0


def test_bundle_for_unexpected_environment_is_rejected(approved: Files, verify: Verifier) -> None:
    assert verify(approved, "--environment", "environment-1", "--trust", KID) == 0
    assert verify.result(approved, "--environment", "environment-2")["code"] == "bundle.environment"
