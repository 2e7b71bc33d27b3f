"""The DSSE v1 envelope that signs a deploy bundle. It holds an in-toto Statement v1 with the manifest as predicate."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from . import keys
from .bundle import Manifest
from .encoding import Fields, Json, canonical, from_base64, parse_object
from .keys import KeySet
from .refusals import DeliveryCode, Refused

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:byteor:deploy-bundle:v1"
SUBJECT_NAME = "deploy-bundle.tar"


@dataclass(frozen=True, slots=True)
class Statement:
    """The content of a verified envelope: the tar with this hash has this manifest."""

    bundle_hash: str
    manifest: Manifest
    kid: str


def sign_envelope(bundle_hash: str, manifest: Manifest, private_key: bytes) -> Json:
    """Return a signed envelope for a bundle. ``bundle_hash`` is the ``sha256:<hex>`` of its tar."""
    payload = canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": SUBJECT_NAME, "digest": {"sha256": bundle_hash.removeprefix("sha256:")}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": manifest.document(),
        }
    )
    signature = keys.sign(private_key, _pae(payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {
                "keyid": keys.kid(keys.public_key(private_key)),
                "sig": base64.b64encode(signature).decode(),
            }
        ],
    }


def verify_envelope(envelope: object, keyset: KeySet) -> Statement:
    """Return the statement if a trusted key signed it. Raises Refused otherwise.

    Retired keys are not trusted here, since the server signs an envelope anew whenever it offers the bundle.
    """
    try:
        kid, signature, payload = _parts(envelope)
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"envelope: {error}") from error
    key = keyset.find(kid)
    if key is None or not key.trusts(signed_at=None):
        raise Refused(DeliveryCode.ENVELOPE_UNKNOWN_KEY, f"no trusted signing key {kid}")
    if not keys.verify(key.public, _pae(payload), signature):
        raise Refused(DeliveryCode.ENVELOPE_BAD_SIGNATURE, "the signature does not match the envelope")
    try:
        bundle_hash, manifest = _statement(payload)
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"statement: {error}") from error
    return Statement(bundle_hash, manifest, kid)


def _pae(payload: bytes) -> bytes:
    """Return the DSSE pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _parts(envelope: object) -> tuple[str, bytes, bytes]:
    members = Fields(envelope)
    members.only("payloadType", "payload", "signatures")
    members.constant("payloadType", PAYLOAD_TYPE)
    match members.items("signatures"):
        case [only]:
            signature = Fields(only)
        case _:
            raise ValueError("an envelope must have exactly one signature")
    signature.only("keyid", "sig")
    return signature.text("keyid"), from_base64(signature.text("sig")), from_base64(members.text("payload"))


def _statement(payload: bytes) -> tuple[str, Manifest]:
    members = Fields(parse_object(payload))
    members.only("_type", "subject", "predicateType", "predicate")
    members.constant("_type", STATEMENT_TYPE)
    members.constant("predicateType", PREDICATE_TYPE)
    match members.items("subject"):
        case [{"name": str(name), "digest": {"sha256": str(digest)}}] if name == SUBJECT_NAME:
            return f"sha256:{digest}", Manifest.from_document(members.member("predicate"))
        case _:
            raise ValueError(f"the subject is not one {SUBJECT_NAME} with its sha256")
