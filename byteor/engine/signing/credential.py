"""The approval credential v1: a signed statement of the approved spec, environment and capabilities."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from byteor.engine.canonical import (
    Fields,
    base64url,
    canonical,
    format_time,
    from_base64url,
    parse_canonical_object,
)

from . import keys
from .bundle import POSTURES
from .keys import KeySet
from .refusals import ApprovalCode, Refused

DEPLOY = "deploy"
REPLAY_EXECUTE = "replay:execute"

_MAX_CHARACTERS = 16 * 1024
_TEXTS = ("kid", "org_id", "project_id", "environment_id", "issued_by", "approval_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The content of a credential. ``capabilities`` are sorted."""

    kid: str
    org_id: str
    project_id: str
    environment_id: str
    environment_posture: str
    spec_hash: str
    capabilities: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    issued_by: str
    approval_id: str


def issue(
    *,
    private_key: bytes,
    org_id: str,
    project_id: str,
    environment_id: str,
    environment_posture: str,
    spec_hash: str,
    capabilities: Collection[str],
    issued_at: datetime,
    expires_at: datetime,
    issued_by: str,
    approval_id: str,
) -> str:
    """Sign an approval and return the credential. Raises ValueError if its content is invalid."""
    document = {
        "v": 1,
        "kid": keys.kid(keys.public_key(private_key)),
        "org_id": org_id,
        "project_id": project_id,
        "environment_id": environment_id,
        "environment_posture": environment_posture,
        "spec_hash": spec_hash,
        "capabilities": sorted(set(capabilities)),
        "issued_at": format_time(issued_at),
        "expires_at": format_time(expires_at),
        "issued_by": issued_by,
        "approval_id": approval_id,
    }
    _payload(Fields(document))
    payload = canonical(document)
    return f"{base64url(payload)}.{base64url(keys.sign(private_key, payload))}"


def verify(
    credential: str,
    *,
    keyset: KeySet,
    spec_hash: str,
    environment_id: str,
    at: datetime,
    capabilities: Collection[str],
) -> Payload:
    """Return the credential's content if it covers this use at this time. Raises Refused with the first reason.

    A time before ``issued_at`` is also refused as ``EXPIRED``, because it is outside the credential's validity.
    """
    try:
        message, signature, members = _parts(credential)
        kid, version = members.text("kid"), members.integer("v")
        # The format of other versions is unknown. Their version is refused after the key and the signature are checked.
        payload = _payload(members) if version == 1 else None
    except ValueError as error:
        raise Refused(ApprovalCode.MALFORMED, f"approval credential: {error}") from error
    key = keyset.find(kid)
    if key is None or not key.trusts(None if payload is None else payload.issued_at):
        raise Refused(ApprovalCode.UNKNOWN_KEY, f"no trusted signing key {kid}")
    if not keys.verify(key.public, message, signature):
        raise Refused(ApprovalCode.BAD_SIGNATURE, "the signature does not match the approval credential")
    if payload is None:
        raise Refused(ApprovalCode.VERSION, f"approval credential version {version} is not supported")
    if payload.spec_hash != spec_hash:
        raise Refused(ApprovalCode.SPEC_HASH, "another spec was approved")
    if payload.environment_id != environment_id:
        raise Refused(ApprovalCode.ENVIRONMENT, "another environment was approved")
    if not payload.issued_at <= at <= payload.expires_at:
        window = f"{format_time(payload.issued_at)} to {format_time(payload.expires_at)}"
        raise Refused(ApprovalCode.EXPIRED, f"the approval is valid from {window}, not at {format_time(at)}")
    if lacking := sorted(set(capabilities) - set(payload.capabilities)):
        raise Refused(ApprovalCode.CAPABILITY, f"{lacking[0]} was not approved")
    return payload


def _parts(credential: str) -> tuple[bytes, bytes, Fields]:
    if len(credential) > _MAX_CHARACTERS:
        raise ValueError("too long")
    match credential.split("."):
        case [payload, signature]:
            message = from_base64url(payload)
            return message, from_base64url(signature), Fields(parse_canonical_object(message))
        case _:
            raise ValueError("not two parts")


def _payload(members: Fields) -> Payload:
    members.only("v", *_TEXTS, "environment_posture", "spec_hash", "capabilities", "issued_at", "expires_at")
    payload = Payload(
        **{name: members.text(name) for name in _TEXTS},
        environment_posture=members.constant("environment_posture", *POSTURES),
        spec_hash=members.digest("spec_hash"),
        capabilities=members.sorted_texts("capabilities"),
        issued_at=members.time("issued_at"),
        expires_at=members.time("expires_at"),
    )
    if payload.issued_at > payload.expires_at:
        raise ValueError("it expires before it is issued")
    if {DEPLOY, REPLAY_EXECUTE} <= set(payload.capabilities):
        raise ValueError("an approval is for a deployment or for a replay, never both")
    return payload
