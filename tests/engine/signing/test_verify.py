from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from byteor.engine.canonical import Json, canonical, sha256
from byteor.engine.signing import dsse, keys, tar, verify
from byteor.engine.signing.bundle import BuiltBundle, FileEntry, Manifest
from byteor.engine.signing.keys import KeySet, KeyStatus, PublicKey
from byteor.engine.signing.refusals import Refused
from byteor.engine.signing.verify import verify_delivery
from tests.engine.signing.conftest import APPROVED


def refusal(world: Any, archive: bytes, envelope: object, environment_id: str | None = None) -> str:
    with pytest.raises(Refused) as refused:
        verify_delivery(archive, envelope, world.keyset, environment_id or world.environment)
    return refused.value.code


def refusal_of(world: Any, built: BuiltBundle) -> str:
    return refusal(world, built.tar, world.envelope(built))


def forged(world: Any, files: dict[str, bytes], **members: object) -> tuple[bytes, Json]:
    """Return a tar with these files, and its signed envelope. ``members`` are changed members of the manifest.

    The manifest lists the files. Unlike ``build_bundle``, this does not check whether they form a valid bundle.
    """
    document = world.bundle().manifest.document() | members
    entries = {name: FileEntry.of_data(data) for name, data in files.items()}
    document["files"] = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in entries.items()}
    manifest = Manifest.from_document(document)
    archive = tar.pack(files | {"manifest.json": canonical(document)})
    return archive, dsse.sign_envelope(sha256(archive), manifest, world.active)


def files_of(built: BuiltBundle) -> dict[str, bytes]:
    return {name: data for name, data in tar.unpack(built.tar).items() if name != "manifest.json"}


def test_valid_delivery_is_accepted(world: Any) -> None:
    built = world.bundle()

    verified = verify_delivery(built.tar, world.envelope(built), world.keyset, world.environment)

    assert verified.bundle_hash == built.bundle_hash
    assert verified.manifest == built.manifest
    assert verified.spec_kv == world.spec_kv
    assert verified.runtime_config == world.runtime_config
    assert verified.approval is not None
    assert verified.approval.approval_id == "approval-1"


def test_bundle_signed_by_key_with_status_next_is_accepted(world: Any) -> None:
    begins = APPROVED + timedelta(minutes=1)
    published = KeySet((*world.keyset.keys, PublicKey(keys.public_key(world.stranger), KeyStatus.NEXT, begins)))
    built = world.bundle(approval=world.credential(private_key=world.stranger))
    keyset = KeySet.parse(canonical(published.document()))

    verified = verify_delivery(built.tar, world.envelope(built, world.stranger), keyset, world.environment)

    assert keyset == published
    assert keyset.active.public == keys.public_key(world.active)
    assert verified.approval is not None
    assert verified.approval.kid == published.keys[-1].kid
    assert refusal(world, built.tar, world.envelope(built, world.stranger)) == "envelope.unknown_key"


@pytest.mark.parametrize("posture", ["dev", "staging", "prod"])
def test_bundle_without_approval_is_accepted(world: Any, posture: str) -> None:
    built = world.bundle(posture=posture, approved_at=None)

    verified = verify_delivery(built.tar, world.envelope(built), world.keyset, world.environment)

    assert verified.approval is None


def test_envelope_signed_by_unknown_key_is_refused(world: Any) -> None:
    built = world.bundle()

    assert refusal(world, built.tar, world.envelope(built, world.stranger)) == "envelope.unknown_key"


def test_tar_whose_digest_differs_from_envelope_is_refused(world: Any) -> None:
    envelope = world.envelope(world.bundle(deployment_id="other"))

    assert refusal(world, world.bundle().tar, envelope) == "envelope.subject"


def test_manifest_that_differs_from_envelope_is_refused(world: Any) -> None:
    built, other = world.bundle(), world.bundle(deployment_id="other")
    envelope = dsse.sign_envelope(built.bundle_hash, other.manifest, world.active)

    assert refusal(world, built.tar, envelope) == "envelope.predicate"


def test_bundle_for_another_environment_is_refused(world: Any) -> None:
    built = world.bundle()

    assert refusal(world, built.tar, world.envelope(built), "environment-2") == "bundle.environment"


def test_signed_bundle_with_extra_or_missing_entry_is_refused(world: Any) -> None:
    files = files_of(world.bundle())

    assert refusal(world, *forged(world, files | {"extra": b""})) == "bundle.entry_extra"
    del files["runtime_config.json"]
    assert refusal(world, *forged(world, files)) == "bundle.entry_missing"


def test_signed_bundle_with_spec_that_mismatches_spec_hash_is_refused(world: Any) -> None:
    files = files_of(world.bundle()) | {"spec.kv": b"spec.v=1\n"}

    assert refusal(world, *forged(world, files)) == "bundle.spec_hash"


def test_bundle_with_approval_time_but_without_credential_is_refused(world: Any) -> None:
    files = files_of(world.bundle())
    del files["approval.cred"]

    assert refusal(world, *forged(world, files)) == "bundle.approval_missing"


def test_bundle_with_credential_but_without_approval_time_is_refused(world: Any) -> None:
    files = files_of(world.bundle())

    assert refusal(world, *forged(world, files, approved_at=None)) == "bundle.approval_unexpected"


def test_bundle_over_size_limit_is_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = world.bundle()
    monkeypatch.setattr(verify, "MAX_BUNDLE_BYTES", len(built.tar) - 1)

    assert refusal_of(world, built) == "bundle.too_large"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"spec_hash": sha256(b"")}, "approval.spec_hash"),
        ({"environment_id": "environment-2"}, "approval.environment"),
        ({"org_id": "org-2"}, "approval.environment"),
        ({"project_id": "project-2"}, "approval.environment"),
        ({"environment_posture": "dev"}, "approval.environment"),
        ({"capabilities": ["side_effect:exec"]}, "approval.capability"),
        ({"capabilities": ["replay:execute"]}, "approval.capability"),
        ({"private_key": bytes(range(3, 35))}, "approval.unknown_key"),
    ],
    ids=str,
)
def test_credential_that_mismatches_manifest_or_has_unknown_key_is_refused(world: Any, changes: Any, code: str) -> None:
    assert refusal_of(world, world.bundle(approval=world.credential(**changes))) == code


def test_credential_that_lacks_capability_of_bundle_is_refused(world: Any) -> None:
    wanted = ("deploy", "side_effect:http_post")
    approval = world.credential(capabilities=wanted)

    assert refusal_of(world, world.bundle(capabilities=wanted)) == "approval.capability"
    built = world.bundle(capabilities=wanted, approval=approval)
    assert verify_delivery(built.tar, world.envelope(built), world.keyset, world.environment).approval


def test_approved_bundle_without_capabilities_requires_credential_with_deploy_capability(world: Any) -> None:
    replay = world.credential(capabilities=["replay:execute"])

    assert refusal_of(world, world.bundle(capabilities=(), approval=replay)) == "approval.capability"


def test_credential_not_valid_at_approval_time_is_refused(world: Any) -> None:
    approved = world.about().approved_at
    late = world.credential(issued_at=approved + timedelta(microseconds=1))
    early = world.credential(issued_at=approved - timedelta(hours=1), expires_at=approved - timedelta(microseconds=1))

    for approval in (late, early):
        assert refusal_of(world, world.bundle(approval=approval)) == "approval.expired"


def test_tar_with_flipped_bit_is_refused(world: Any) -> None:
    built = world.bundle()
    envelope = world.envelope(built)

    for index in range(0, len(built.tar), 3):
        flipped = bytearray(built.tar)
        flipped[index] ^= 1 << index % 8
        assert refusal(world, bytes(flipped), envelope) == "envelope.subject"


def test_signed_tar_with_flipped_bit_is_refused(world: Any) -> None:
    built = world.bundle()

    for index in range(0, len(built.tar), 3):
        flipped = bytearray(built.tar)
        flipped[index] ^= 1 << index % 8
        envelope = dsse.sign_envelope(sha256(bytes(flipped)), built.manifest, world.active)
        assert refusal(world, bytes(flipped), envelope).startswith(("bundle.", "envelope.predicate"))


def test_envelope_with_flipped_bit_is_refused(world: Any) -> None:
    built = world.bundle()
    good = json.dumps(world.envelope(built)).encode()
    refused = 0

    for index in range(len(good)):
        flipped = bytearray(good)
        flipped[index] ^= 1 << index % 7
        try:
            envelope = json.loads(flipped)
        except ValueError:
            refused += 1
            continue
        assert refusal(world, built.tar, envelope).startswith("envelope.")
        refused += 1

    assert refused == len(good)
