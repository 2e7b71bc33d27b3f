"""DSSE v1 envelopes, each around an in-toto Statement v1.

The envelope that agents verify is about a deploy bundle and has the manifest as its predicate.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from byteor.engine.canonical import Fields, Json, canonical, from_base64, parse_object, sha256

from . import keys
from .bundle import Manifest
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


@dataclass(frozen=True, slots=True)
class Claim:
    """The content of a verified envelope about a deploy bundle: a predicate of any type, and the hash of the tar."""

    bundle_hash: str
    predicate: object
    kid: str


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """The content of a verified envelope. ``subject`` has the hash of each part, by name.

    ``payload_hash`` is the hash of the signed statement.
    """

    subject: Mapping[str, str]
    predicate: object
    kid: str
    payload_hash: str


def sign_envelope(bundle_hash: str, manifest: Manifest, private_key: bytes) -> Json:
    """Return a signed envelope for a bundle. ``bundle_hash`` is the ``sha256:<hex>`` of its tar."""
    return sign_claim(PREDICATE_TYPE, bundle_hash, manifest.document(), private_key)


def sign_claim(predicate_type: str, bundle_hash: str, predicate: Json, private_key: bytes) -> Json:
    """Return a signed envelope with this predicate about a bundle."""
    return sign_statement(predicate_type, {SUBJECT_NAME: bundle_hash}, predicate, private_key)


def sign_statement(predicate_type: str, subject: Mapping[str, str], predicate: Json, private_key: bytes) -> Json:
    """Return a signed envelope with this predicate. ``subject`` has the ``sha256:<hex>`` of each part, by name."""
    parts = [{"name": name, "digest": {"sha256": hash_.removeprefix("sha256:")}} for name, hash_ in subject.items()]
    payload = canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": parts,
            "predicateType": predicate_type,
            "predicate": predicate,
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
    """Return the statement about a bundle and its manifest if a trusted key signed it. Raises Refused otherwise."""
    claim = verify_claim(PREDICATE_TYPE, envelope, keyset)
    try:
        manifest = Manifest.from_document(claim.predicate)
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"statement: {error}") from error
    return Statement(claim.bundle_hash, manifest, claim.kid)


def verify_claim(predicate_type: str, envelope: object, keyset: KeySet) -> Claim:
    """Return the content of an envelope of this type if a trusted key signed it. Raises Refused otherwise.

    Retired keys are not trusted here.
    """
    statement = verify_statement(predicate_type, envelope, keyset)
    if statement.subject.keys() != {SUBJECT_NAME}:
        detail = f"statement: the subject must be exactly one {SUBJECT_NAME} with a sha256"
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, detail)
    return Claim(statement.subject[SUBJECT_NAME], statement.predicate, statement.kid)


def verify_statement(
    predicate_type: str,
    envelope: object,
    keyset: KeySet,
    *,
    signed_at: Callable[[Mapping[str, str], object], datetime] | None = None,
) -> SignedStatement:
    """Return the content of an envelope of this type if a trusted key signed it. Raises Refused otherwise.

    A retired key is trusted only with ``signed_at``, and only if it was retired after it signed. ``signed_at`` returns
    the time of the signature from the subject and the predicate, or raises ValueError if they are malformed.
    """
    try:
        kid, signature, payload = _parts(envelope)
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"envelope: {error}") from error
    key = keyset.find(kid)
    if key is None or not (key.trusts(None) or signed_at is not None):
        raise Refused(DeliveryCode.ENVELOPE_UNKNOWN_KEY, f"no trusted signing key {kid}")
    if not keys.verify(key.public, _pae(payload), signature):
        raise Refused(DeliveryCode.ENVELOPE_BAD_SIGNATURE, "the signature does not match the envelope")
    try:
        subject, predicate = _statement(payload, predicate_type)
        is_trusted = signed_at is None or key.trusts(None) or key.trusts(signed_at(subject, predicate))
    except ValueError as error:
        raise Refused(DeliveryCode.ENVELOPE_MALFORMED, f"statement: {error}") from error
    if not is_trusted:
        raise Refused(DeliveryCode.ENVELOPE_UNKNOWN_KEY, f"the key {kid} had been retired before it signed")
    return SignedStatement(subject, predicate, kid, sha256(payload))


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


def _statement(payload: bytes, predicate_type: str) -> tuple[Mapping[str, str], object]:
    members = Fields(parse_object(payload))
    members.only("_type", "subject", "predicateType", "predicate")
    members.constant("_type", STATEMENT_TYPE)
    members.constant("predicateType", predicate_type)
    subject: dict[str, str] = {}
    for item in members.items("subject"):
        match item:
            case {"name": str(name), "digest": {"sha256": str(digest)}} if name not in subject:
                subject[name] = f"sha256:{digest}"
            case _:
                raise ValueError("each part of the subject must have a name of its own and a sha256")
    return subject, members.member("predicate")
