"""Ed25519 signing keys, such as those of an organization, and their published key sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from byteor.engine.canonical import Fields, Json, base64url, canonical, format_time, from_base64url, parse_object

from .refusals import DeliveryCode, Refused


class KeyStatus(StrEnum):
    """The life cycle of a signing key. Only the active key signs. The next key is published, but signs nothing yet."""

    NEXT = "next"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


def generate() -> bytes:
    """Return a new private key: 32 raw bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """Return the raw public key of a private key."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def kid(public: bytes) -> str:
    """Return the RFC 7638 thumbprint (SHA-256, base64url) of a public key."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": base64url(public)}
    return base64url(hashlib.sha256(canonical(members)).digest())


def jwk(
    public: bytes, *, status: KeyStatus, not_before: datetime, not_after: datetime | None = None
) -> dict[str, str | None]:
    """Return the published form of a public key."""
    return {
        "kid": kid(public),
        "kty": "OKP",
        "crv": "Ed25519",
        "x": base64url(public),
        "alg": "EdDSA",
        "use": "sig",
        "status": status.value,
        "not_before": format_time(not_before),
        "not_after": None if not_after is None else format_time(not_after),
    }


def sign(private: bytes, message: bytes) -> bytes:
    """Return the 64-byte signature of a message."""
    return Ed25519PrivateKey.from_private_bytes(private).sign(message)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the signature of the message is valid for this key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One published key. A retired key has a ``not_after``."""

    public: bytes
    status: KeyStatus
    not_before: datetime
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        if len(self.public) != 32:
            raise ValueError("an Ed25519 public key must have 32 bytes")
        if self.status is KeyStatus.RETIRED and self.not_after is None:
            raise ValueError("a retired key must have a not_after")

    @property
    def kid(self) -> str:
        """The RFC 7638 thumbprint."""
        return kid(self.public)

    def trusts(self, signed_at: datetime | None) -> bool:
        """Return whether a signature of this key from ``signed_at`` is trusted; None stands for an unknown time.

        A retired key is trusted only for signatures from before its ``not_after``. If ``not_after`` is not later
        than ``not_before``, the key was withdrawn before its first use, and is never trusted. The dates of other keys
        are ignored: clocks differ, and the key set may be older than the current status of the key.
        """
        if self.status is not KeyStatus.RETIRED:
            return True
        if self.not_after is None or self.not_before >= self.not_after:
            return False
        return signed_at is not None and signed_at < self.not_after

    def document(self) -> dict[str, str | None]:
        """Return the published form."""
        return jwk(self.public, status=self.status, not_before=self.not_before, not_after=self.not_after)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The published keys of one owner, such as an organization. Exactly one is active."""

    keys: tuple[PublicKey, ...]

    def __post_init__(self) -> None:
        if sum(key.status is KeyStatus.ACTIVE for key in self.keys) != 1:
            raise ValueError("a key set must have exactly one active key")
        if len({key.public for key in self.keys}) != len(self.keys):
            raise ValueError("a key is listed twice")

    @classmethod
    def parse(cls, data: bytes | str) -> KeySet:
        """Parse the JSON text of a key set. Raises Refused if it is malformed."""
        try:
            return cls.from_document(parse_object(data))
        except ValueError as error:
            raise Refused(DeliveryCode.KEYS_MALFORMED, f"signing keys: {error}") from error

    @classmethod
    def from_document(cls, document: object) -> KeySet:
        """Read the JSON object of a key set. Raises Refused if it is malformed.

        Unknown members are ignored, as RFC 7517 requires, so that a later server can add some.
        """
        try:
            fields = Fields(document)
            keys = cls(tuple(_public_key(Fields(item)) for item in fields.items("keys")))
            if fields.text("active_kid") != keys.active.kid:
                raise ValueError("'active_kid' is not the active key")
        except ValueError as error:
            raise Refused(DeliveryCode.KEYS_MALFORMED, f"signing keys: {error}") from error
        return keys

    @property
    def active(self) -> PublicKey:
        """The active key."""
        return next(key for key in self if key.status is KeyStatus.ACTIVE)

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self.keys)

    def find(self, kid: str) -> PublicKey | None:
        """Return the key with this id and any status, or None."""
        return next((key for key in self if key.kid == kid), None)

    def document(self) -> Json:
        """Return the JSON object of the key set, as in the response of ``GET …/signing-key``."""
        return {"active_kid": self.active.kid, "keys": [key.document() for key in self]}


def _public_key(fields: Fields) -> PublicKey:
    for name, value in (("kty", "OKP"), ("crv", "Ed25519"), ("alg", "EdDSA"), ("use", "sig")):
        fields.constant(name, value)
    key = PublicKey(
        public=from_base64url(fields.text("x")),
        status=KeyStatus(fields.text("status")),
        not_before=fields.time("not_before"),
        not_after=fields.optional_time("not_after"),
    )
    if fields.text("kid") != key.kid:
        raise ValueError("'kid' is not the thumbprint of the key")
    return key
