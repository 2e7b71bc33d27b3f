"""The checks of signatures, hashes and approval that an agent makes before it runs a downloaded deploy bundle."""

from __future__ import annotations

from dataclasses import dataclass

from byteor.engine.canonical import Json, sha256

from . import credential
from .bundle import MAX_BUNDLE_BYTES, Manifest, OpenedBundle, open_bundle
from .dsse import verify_envelope
from .keys import KeySet
from .refusals import ApprovalCode, DeliveryCode, Refused


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A deploy bundle that the environment's organization signed.

    ``approval`` is the verified approval, or None if the manifest has no ``approved_at``.
    """

    bundle_hash: str
    manifest: Manifest
    spec_kv: bytes
    runtime_config: Json
    approval: credential.Payload | None


def verify_delivery(archive: bytes, envelope: object, keyset: KeySet, environment_id: str) -> VerifiedBundle:
    """Return the bundle if every check for this environment passes. Raises Refused otherwise.

    A bundle has a credential exactly when its signed manifest has an ``approved_at``. The server's policy decides
    whether a posture needs approval, and the agent trusts the server's signature.
    """
    if len(archive) > MAX_BUNDLE_BYTES:
        raise Refused(DeliveryCode.BUNDLE_TOO_LARGE, f"the deploy bundle is larger than {MAX_BUNDLE_BYTES} bytes")
    statement = verify_envelope(envelope, keyset)
    if sha256(archive) != statement.bundle_hash:
        raise Refused(DeliveryCode.ENVELOPE_SUBJECT, "the tar is not the one that was signed")
    bundle = open_bundle(archive)
    if bundle.manifest != statement.manifest:
        raise Refused(DeliveryCode.ENVELOPE_PREDICATE, "the manifest is not the one that was signed")
    if bundle.manifest.environment_id != environment_id:
        raise Refused(DeliveryCode.BUNDLE_ENVIRONMENT, "the bundle is for another environment")
    return VerifiedBundle(
        bundle_hash=bundle.bundle_hash,
        manifest=bundle.manifest,
        spec_kv=bundle.spec_kv,
        runtime_config=bundle.runtime_config,
        approval=_approval(bundle, keyset),
    )


def _approval(bundle: OpenedBundle, keyset: KeySet) -> credential.Payload | None:
    manifest = bundle.manifest
    if manifest.approved_at is None:
        if bundle.credential is not None:
            detail = "the bundle has an approval credential, but its manifest has no approved_at"
            raise Refused(DeliveryCode.BUNDLE_APPROVAL_UNEXPECTED, detail)
        return None
    if bundle.credential is None:
        detail = "the manifest has an approved_at, but the bundle has no approval credential"
        raise Refused(DeliveryCode.BUNDLE_APPROVAL_MISSING, detail)
    approval = credential.verify(
        bundle.credential,
        keyset=keyset,
        spec_hash=manifest.spec_hash,
        environment_id=manifest.environment_id,
        at=manifest.approved_at,
        # Always require "deploy"; otherwise the credential of a replay would pass for a bundle without capabilities.
        capabilities={credential.DEPLOY, *manifest.capabilities},
    )
    approved = (approval.org_id, approval.project_id, approval.environment_posture)
    if approved != (manifest.org_id, manifest.project_id, manifest.posture):
        raise Refused(ApprovalCode.ENVIRONMENT, "the approval is for another organization, project or posture")
    return approval
