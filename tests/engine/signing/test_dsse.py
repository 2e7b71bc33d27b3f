from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from byteor.engine.signing import dsse, keys
from byteor.engine.signing.refusals import Refused


def refusal(world: Any, envelope: object) -> str:
    with pytest.raises(Refused) as refused:
        dsse.verify_envelope(envelope, world.keyset)
    return refused.value.code


def signed(world: Any, **members: object) -> Any:
    """Return a correctly signed envelope. ``members`` are changes of its statement (``...`` removes a member)."""
    envelope: Any = world.envelope(world.bundle())
    statement = json.loads(base64.b64decode(envelope["payload"])) | members
    payload = json.dumps({name: value for name, value in statement.items() if value is not ...}).encode()
    pae = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    signature = {
        "keyid": keys.kid(keys.public_key(world.active)),
        "sig": base64.b64encode(keys.sign(world.active, pae)).decode(),
    }
    return envelope | {"payload": base64.b64encode(payload).decode(), "signatures": [signature]}


def test_envelope_contains_in_toto_statement_and_signature_of_dsse_encoding(world: Any) -> None:
    built = world.bundle()

    envelope: Any = world.envelope(built)

    payload = base64.b64decode(envelope["payload"])
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert json.loads(payload) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "deploy-bundle.tar", "digest": {"sha256": built.bundle_hash.removeprefix("sha256:")}}],
        "predicateType": "urn:byteor:deploy-bundle:v1",
        "predicate": built.manifest.document(),
    }
    pae = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    [signature] = envelope["signatures"]
    assert signature["keyid"] == keys.kid(keys.public_key(world.active))
    assert keys.verify(keys.public_key(world.active), pae, base64.b64decode(signature["sig"]))


@pytest.mark.parametrize("key", ["active", "retiring"])
def test_verify_envelope_returns_statement_signed_by_trusted_key(world: Any, key: str) -> None:
    built = world.bundle()
    private = getattr(world, key)

    statement = dsse.verify_envelope(world.envelope(built, private), world.keyset)

    assert statement == dsse.Statement(built.bundle_hash, built.manifest, keys.kid(keys.public_key(private)))
    assert dsse.verify_envelope(signed(world), world.keyset).manifest == built.manifest


@pytest.mark.parametrize("key", ["retired", "stranger"])
def test_envelope_signed_by_retired_or_unknown_key_is_refused(world: Any, key: str) -> None:
    envelope = world.envelope(world.bundle(), getattr(world, key))

    assert refusal(world, envelope) == "envelope.unknown_key"


def test_bad_signature_is_refused(world: Any) -> None:
    built = world.bundle()
    envelope: Any = world.envelope(built, world.stranger)
    envelope["signatures"][0]["keyid"] = keys.kid(keys.public_key(world.active))
    other = world.envelope(world.bundle(deployment_id="other")) | {"payload": world.envelope(built)["payload"]}

    assert refusal(world, envelope) == "envelope.bad_signature"
    assert refusal(world, other) == "envelope.bad_signature"


@pytest.mark.parametrize(
    "members",
    [
        {"payloadType": "text/plain"},
        {"payload": 1},
        {"payload": "!"},
        {"payload": "AB=="},  # not canonical: unused bits are set
        {"signatures": []},
        {"signatures": [{"keyid": "a", "sig": "AA=="}] * 2},
        {"signatures": [{"keyid": "a"}]},
        {
            "signatures": [
                {
                    "keyid": "a",
                    "sig": "AA",
                }
            ]
        },
        {"signatures": [{"keyid": "a", "sig": "AA==", "more": 1}]},
        {"signatures": ["a"]},
        {"more": 1},
    ],
    ids=repr,
)
def test_malformed_envelope_is_refused(world: Any, members: dict[str, object]) -> None:
    assert refusal(world, world.envelope(world.bundle()) | members) == "envelope.malformed"


def test_non_object_envelope_is_refused(world: Any) -> None:
    assert refusal(world, None) == "envelope.malformed"
    assert refusal(world, [world.envelope(world.bundle())]) == "envelope.malformed"


@pytest.mark.parametrize(
    "members",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "urn:other"},
        {"predicate": {}},
        {"predicate": ...},
        {"subject": []},
        {"subject": [{"name": "other.tar", "digest": {"sha256": "00"}}]},
        {"subject": [{"name": "deploy-bundle.tar", "digest": {"sha256": 1}}]},
        {"more": 1},
    ],
    ids=repr,
)
def test_malformed_statement_is_refused(world: Any, members: dict[str, object]) -> None:
    assert refusal(world, signed(world, **members)) == "envelope.malformed"
