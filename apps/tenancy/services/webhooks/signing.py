"""Signatures of webhook messages as specified by Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"
ID_HEADER, TIME_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"


def generate() -> bytes:
    """Return a new random secret."""
    return secrets.token_bytes(32)


def text(secret: bytes) -> str:
    """Return the secret in the text form that Standard Webhooks libraries accept."""
    return PREFIX + base64.b64encode(secret).decode()


def headers(message_id: str, body: bytes, *, at: int, keys: Iterable[bytes]) -> dict[str, str]:
    """Return the three headers of an attempt made at Unix time ``at``, with one signature for each of ``keys``."""
    signed = f"{message_id}.{at}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        ID_HEADER: message_id,
        TIME_HEADER: str(at),
        SIGNATURE_HEADER: " ".join(f"v1,{signature}" for signature in signatures),
    }
