from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from byteor.engine.canonical import from_base64url
from byteor.engine.signing import keys
from byteor.engine.signing.keys import KeySet, KeyStatus, PublicKey
from byteor.engine.signing.refusals import Refused

NOON = datetime(2026, 10, 10, 12, tzinfo=UTC)
# The key pair and thumbprint of RFC 8037, appendix A.
PRIVATE = from_base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
KID = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_public_key_and_thumbprint_match_rfc_8037() -> None:
    public = keys.public_key(PRIVATE)

    assert public == from_base64url(X)
    assert keys.kid(public) == KID


def test_jwk_has_documented_members() -> None:
    assert keys.jwk(from_base64url(X), status=KeyStatus.RETIRED, not_before=NOON, not_after=NOON) == {
        "kid": KID,
        "kty": "OKP",
        "crv": "Ed25519",
        "x": X,
        "alg": "EdDSA",
        "use": "sig",
        "status": "retired",
        "not_before": "2026-10-10T12:00:00Z",
        "not_after": "2026-10-10T12:00:00Z",
    }


def test_signature_verifies_only_with_its_own_key_and_message() -> None:
    private = keys.generate()
    signature = keys.sign(private, b"message")

    assert len(private) == 32
    assert len(signature) == 64
    assert keys.verify(keys.public_key(private), b"message", signature)
    assert not keys.verify(keys.public_key(private), b"massage", signature)
    assert not keys.verify(keys.public_key(PRIVATE), b"message", signature)
    assert not keys.verify(keys.public_key(private), b"message", signature[:-1])


@pytest.mark.parametrize(
    ("status", "signed_at", "trusted"),
    [
        (KeyStatus.NEXT, None, True),
        (KeyStatus.NEXT, datetime(2026, 10, 10, 11, tzinfo=UTC), True),
        (KeyStatus.ACTIVE, None, True),
        (KeyStatus.RETIRING, None, True),
        (KeyStatus.RETIRING, datetime(2026, 10, 10, 13, tzinfo=UTC), True),
        (KeyStatus.RETIRED, None, False),
        (KeyStatus.RETIRED, datetime(2026, 10, 10, 11, 59, 59, tzinfo=UTC), True),
        (KeyStatus.RETIRED, NOON, False),
    ],
)
def test_trust_depends_on_status_and_signing_time(status: KeyStatus, signed_at: datetime | None, trusted: bool) -> None:
    key = PublicKey(from_base64url(X), status, not_before=NOON - timedelta(days=1), not_after=NOON)

    assert key.trusts(signed_at) is trusted


@pytest.mark.parametrize("signed_at", [None, NOON - timedelta(days=1), NOON, NOON + timedelta(days=1)])
def test_key_that_was_withdrawn_before_its_use_is_never_trusted(signed_at: datetime | None) -> None:
    key = PublicKey(from_base64url(X), KeyStatus.RETIRED, not_before=NOON, not_after=NOON)

    assert not key.trusts(signed_at)


def test_published_key_set_round_trips(world: Any) -> None:
    keyset = KeySet.parse(json.dumps(world.keyset.document()))

    assert keyset == world.keyset
    assert keyset.active.public == keys.public_key(world.active)
    assert keyset.find(keys.kid(keys.public_key(world.retired))) == keyset.keys[2]
    assert keyset.find("unknown") is None


def test_unknown_members_of_key_set_are_ignored(world: Any) -> None:
    document = world.keyset.document() | {"note": 1}
    document["keys"][0]["note"] = 1

    assert KeySet.parse(json.dumps(document)) == world.keyset


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("kid", "other"),
        ("kty", "EC"),
        ("crv", "X25519"),
        ("x", X[:-1]),
        ("x", X + "="),
        ("x", "AAAA"),
        ("x", 1),
        ("alg", "none"),
        ("use", "enc"),
        ("status", "revoked"),
        ("status", "retiring"),
        ("status", "retired"),
        ("not_before", "2026-10-10 12:00:00Z"),
        ("not_before", "2026-10-10T12:00:00+00:00"),
        ("not_before", None),
        ("not_after", ""),
    ],
)
def test_damaged_key_is_refused(world: Any, member: str, value: object) -> None:
    document = world.keyset.document()
    document["keys"][0][member] = value

    with pytest.raises(Refused) as refused:
        KeySet.parse(json.dumps(document))

    assert refused.value.code == "keys.malformed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"active_kid": "a", "keys": []}',
        '{"active_kid": "a", "keys": {}}',
        '{"active_kid": "a", "keys": [1]}',
        '{"keys": [], "keys": []}',
        '{"keys": ' + "[" * 100_000,
        b"\xff",
    ],
)
def test_malformed_key_set_is_refused(text: bytes | str) -> None:
    with pytest.raises(Refused) as refused:
        KeySet.parse(text)

    assert refused.value.code == "keys.malformed"


def test_active_kid_must_name_active_key_and_keys_must_be_unique(world: Any) -> None:
    other = world.keyset.document() | {"active_kid": world.keyset.keys[1].kid}
    twice = world.keyset.document()
    twice["keys"].append(twice["keys"][1])

    for document in (other, twice):
        with pytest.raises(Refused):
            KeySet.parse(json.dumps(document))
