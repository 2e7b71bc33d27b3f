"""Whose keys prove something: ours, not those that came with the export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from byteor_cloud.engine.delivery import keys
from byteor_cloud.engine.delivery.encoding import canonical
from tests.engine.delivery.conftest import World
from tests.verify.conftest import Files, Verifier, export
from tests.verify.exports import KID, STRANGER, _signed_with, entries, signed, without


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
