from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest

from byteor.engine.canonical import base64url, canonical, from_base64url, parse_object, sha256
from byteor.engine.signing import credential, keys
from byteor.engine.signing.refusals import ApprovalCode, Refused


def verify(world: Any, text: str, **changes: Any) -> credential.Payload:
    use = {
        "keyset": world.keyset,
        "spec_hash": sha256(world.spec_kv),
        "environment_id": world.environment,
        "at": world.about().approved_at,
        "capabilities": {"deploy"},
    }
    return credential.verify(text, **use | changes)


def refusal(world: Any, text: str, **changes: Any) -> str:
    with pytest.raises(Refused) as refused:
        verify(world, text, **changes)
    return refused.value.code


def resigned(world: Any, *, key: bytes | None = None, **members: object) -> str:
    """Return the credential with changed members (``...`` removes a member), signed again."""
    document = parse_object(from_base64url(world.credential().split(".")[0])) | members
    payload = canonical({name: value for name, value in document.items() if value is not ...})
    return f"{base64url(payload)}.{base64url(keys.sign(key or world.active, payload))}"


def spelled(world: Any, payload: bytes) -> str:
    return f"{base64url(payload)}.{base64url(keys.sign(world.active, payload))}"


def test_issued_credential_has_documented_format(world: Any) -> None:
    text = world.credential(capabilities=["side_effect:http_post", "deploy"])

    payload, signature = text.split(".")
    assert from_base64url(payload).decode() == (
        '{"approval_id":"approval-1","capabilities":["deploy","side_effect:http_post"],'
        '"environment_id":"environment-1","environment_posture":"prod","expires_at":"2026-10-20T09:00:00.250000Z",'
        '"issued_at":"2026-10-20T08:00:00.250000Z","issued_by":"ada@example.com",'
        '"kid":"' + keys.kid(keys.public_key(world.active)) + '","org_id":"org-1","project_id":"project-1",'
        f'"spec_hash":"{sha256(world.spec_kv)}","v":1}}'
    )
    assert keys.verify(keys.public_key(world.active), from_base64url(payload), from_base64url(signature))
    assert verify(world, text, capabilities={"side_effect:http_post"}).approval_id == "approval-1"


def test_credential_signed_by_retiring_or_later_retired_key_is_accepted(world: Any) -> None:
    before = world.keyset.keys[2].not_after - timedelta(seconds=1)

    verify(world, world.credential(private_key=world.retiring))
    verify(world, world.credential(private_key=world.retired, issued_at=before))


def test_validity_window_includes_both_ends(world: Any) -> None:
    payload = verify(world, world.credential())

    verify(world, world.credential(), at=payload.issued_at)
    verify(world, world.credential(), at=payload.expires_at)


def test_malformed_credential_is_refused(world: Any) -> None:
    good = world.credential()
    payload, signature = good.split(".")
    raw = from_base64url(payload)
    padded = base64.urlsafe_b64encode(raw + b" ").decode()

    for text in (
        "",
        ".",
        payload,
        good + ".",
        f"{good}.{signature}",
        f"{payload}=.{signature}",
        f"{padded}.{signature}",
        f"{payload}.{signature[:-1]}" + chr(ord(signature[-1]) + 1),  # only unused bits differ
        f" {good}",
        f"{good}\n",
        good.replace("-", "+").replace("_", "/") + "+",
        good + "é",
        good + "A" * 16_384,
        spelled(world, raw.replace(b",", b", ")),
        spelled(world, raw.replace(b'"v":1', b'"v":1.0')),
        spelled(world, raw.replace(b'"v":1', b'"v":1,"v":1')),
        spelled(world, raw.replace(b'"v":1', b'"v":NaN')),
        spelled(world, b"[1]"),
        spelled(world, b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
        spelled(world, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"),
        spelled(world, b"\xff"),
    ):
        assert refusal(world, text) == ApprovalCode.MALFORMED, text[:80]


@pytest.mark.parametrize(
    "members",
    [
        {"v": ...},
        {"v": "1"},
        {"v": True},
        {"kid": 1},
        {"org_id": None},
        {"project_id": ""},
        {"environment_id": ...},
        {"environment_posture": "production"},
        {"spec_hash": "sha256:00"},
        {"spec_hash": "SHA256:" + "0" * 64},
        {"capabilities": "deploy"},
        {"capabilities": ["side_effect:exec", "deploy"]},
        {"capabilities": ["deploy", "deploy"]},
        {"capabilities": ["deploy", 1]},
        {"capabilities": ["deploy", "replay:execute"]},
        {"issued_at": 1},
        {"issued_at": "2026-10-20T08:00:00+00:00"},
        {"issued_at": "2026-10-20T08:00:61Z"},
        {"expires_at": "2026-10-20T07:59:59Z"},
        {"issued_by": {}},
        {"approval_id": ...},
        {"extra": 1},
    ],
    ids=repr,
)
def test_credential_with_missing_unknown_or_invalid_field_is_refused(world: Any, members: Any) -> None:
    assert refusal(world, resigned(world, **members)) == "approval.malformed"


def test_credential_signed_by_unknown_or_already_retired_key_is_refused(world: Any) -> None:
    assert refusal(world, world.credential(private_key=world.stranger)) == "approval.unknown_key"
    assert refusal(world, world.credential(private_key=world.retired)) == "approval.unknown_key"


def test_bad_signature_is_refused(world: Any) -> None:
    assert refusal(world, resigned(world, key=world.retiring)) == "approval.bad_signature"
    assert refusal(world, world.credential().split(".")[0] + ".") == "approval.bad_signature"


def test_unknown_format_version_is_refused(world: Any) -> None:
    assert refusal(world, resigned(world, v=2)) == "approval.version"
    assert refusal(world, resigned(world, v=2, spec_hash=..., whatever=[1])) == "approval.version"


def test_credential_for_another_spec_is_refused(world: Any) -> None:
    assert refusal(world, world.credential(), spec_hash=sha256(b"")) == "approval.spec_hash"


def test_credential_for_another_environment_is_refused(world: Any) -> None:
    assert refusal(world, world.credential(), environment_id="other") == "approval.environment"


def test_credential_outside_its_validity_window_is_refused(world: Any) -> None:
    issued: datetime = world.about().approved_at

    for at in (issued + timedelta(hours=1, microseconds=1), issued - timedelta(microseconds=1)):
        assert refusal(world, world.credential(), at=at) == "approval.expired"


def test_missing_capability_is_refused(world: Any) -> None:
    replay = world.credential(capabilities=["replay:execute"])

    assert refusal(world, replay) == "approval.capability"
    verify(world, replay, capabilities={"replay:execute"})


def test_verify_reports_first_failed_check(world: Any) -> None:
    """Start with all faults, and repair them one by one in the order of the checks."""
    wrong: dict[str, Any] = {
        "v": 2,
        "kid": "unknown",
        "spec_hash": sha256(b""),
        "environment_id": "other",
        "expires_at": "2026-10-20T08:00:00.250000Z",
        "capabilities": [],
    }
    late = {"at": world.about().approved_at + timedelta(seconds=1)}
    codes = [refusal(world, resigned(world, key=world.stranger, **wrong) + ".", **late)]
    codes.append(refusal(world, resigned(world, key=world.stranger, **wrong), **late))
    del wrong["kid"]
    codes.append(refusal(world, resigned(world, key=world.stranger, **wrong), **late))
    for repaired in ("v", "spec_hash", "environment_id", "expires_at", "capabilities"):
        codes.append(refusal(world, resigned(world, **wrong), **late))
        del wrong[repaired]

    assert codes == list(ApprovalCode)[:8]
    verify(world, resigned(world, **wrong), **late)


def test_credential_with_any_flipped_bit_is_refused(world: Any) -> None:
    good = world.credential().encode()

    for index in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[index] ^= 1 << bit
            assert refusal(world, flipped.decode("latin-1")).startswith("approval.")


def test_issue_refuses_invalid_content(world: Any) -> None:
    for changes in (
        {"capabilities": ["deploy", "replay:execute"]},
        {"expires_at": world.about().approved_at - timedelta(1)},
        {"issued_at": datetime(2026, 10, 20)},
        {"spec_hash": "00"},
        {"org_id": ""},
    ):
        with pytest.raises(ValueError, match=r"."):
            world.credential(**changes)
