"""Tests of the ledger's link hashes, export lines and checkpoints."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byteor.engine.hash_chain import (
    GENESIS,
    Chain,
    Checkpoint,
    CheckpointRefused,
    LedgerCode,
    LedgerEvent,
    Link,
    link_hash,
    read_line,
    sign_checkpoint,
    write_line,
)
from byteor.engine.signing import keys
from byteor.engine.signing.keys import KeySet, KeyStatus, PublicKey

texts = st.text(max_size=30)
uuids = st.uuids().map(str)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
spellings = st.builds(
    json.dumps,
    st.dictionaries(texts, values, max_size=5),
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
events = st.builds(
    LedgerEvent,
    id=uuids,
    timestamp=st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.just(UTC)),
    organization_id=st.none() | uuids,
    project_id=st.none() | uuids,
    environment_id=st.none() | uuids,
    ip=st.none() | texts,
    changes=spellings,
    **dict.fromkeys(
        ["resource_kind", "resource_id", "action", "outcome", "actor_kind", "actor_id", "actor_display", "request_id"],
        texts,
    ),
)
# Generating an event may take long on a busy machine.
patient = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EVENT = LedgerEvent(
    id="01990a5c-7a40-7cc0-8000-3f2b7e5d1c04",
    timestamp=datetime(2026, 11, 24, 12, 0, 0, 120_000, tzinfo=UTC),
    organization_id="01990a5c-7a40-7cc0-8000-3f2b7e5d1c05",
    project_id=None,
    environment_id=None,
    resource_kind="deployment",
    resource_id="1",
    action="deployment.build",
    outcome="success",
    actor_kind="user",
    actor_id="2",
    actor_display="ada@acme.example",
    request_id="",
    ip=None,
    changes='{"status": ["approved", "building"]}',
)
# The link hash of EVENT with the sequence number 7, as computed by the first release of the format.
GOLDEN = "sha256:47716c5db94405fdfb6f15190901d6c9e849b08a0260f5a5e4af172df3097814"
PRIVATE = bytes(range(32))
KEYS = KeySet((PublicKey(keys.public_key(PRIVATE), KeyStatus.ACTIVE, EVENT.timestamp),))


def link_hash_by_library(event: LedgerEvent, seq: int, prev_hash: str) -> str:
    """Compute the link hash with the rfc8785 library."""
    body: dict[str, Any] = {
        "seq": seq,
        "prev_hash": prev_hash,
        "id": event.id,
        "timestamp": event.timestamp.isoformat(),
        "organization_id": event.organization_id,
        "project_id": str(event.project_id),
        "environment_id": str(event.environment_id),
        "resource": [event.resource_kind, event.resource_id],
        "action": event.action,
        "outcome": event.outcome,
        "actor": [event.actor_kind, event.actor_id, event.actor_display],
        "request_id": event.request_id,
        "ip": event.ip,
        "changes": json.dumps(json.loads(event.changes), sort_keys=True, separators=(",", ":")),
    }
    return "sha256:" + hashlib.sha256(rfc8785.dumps(body)).hexdigest()


@patient
@given(events, st.integers(1, 2**53 - 1), texts)
def test_link_hash_matches_rfc8785_library(event: LedgerEvent, seq: int, prev_hash: str) -> None:
    assert link_hash(event, seq=seq, prev_hash=prev_hash) == link_hash_by_library(event, seq, prev_hash)


def test_link_hash_is_same_as_in_first_release() -> None:
    assert link_hash(EVENT, seq=7, prev_hash=GENESIS) == GOLDEN


@patient
@given(events, st.integers(1, 2**63 - 1))
def test_read_line_returns_link_of_exported_line(event: LedgerEvent, seq: int) -> None:
    link = Link(seq, GENESIS, link_hash(event, seq=seq, prev_hash=GENESIS), event.id, event)

    read = read_line(write_line(link))

    assert read.event is not None
    assert read[:4] == link[:4]
    assert read.event._replace(changes="") == event._replace(changes="")
    assert link_hash(read.event, seq=seq, prev_hash=GENESIS) == link.hash


LINE = write_line(Link(1, GENESIS, link_hash(EVENT, seq=1, prev_hash=GENESIS), EVENT.id, EVENT))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"project_id":null', '"project_id":"None"'),  # the link hash would be the same
        ('"project_id":null', '"project_id":5'),
        ('"seq":1', '"seq":true'),
        ('"seq":1', '"seq":1,"more":1'),
        ('"ip":null', '"ip":null,"note":"not covered by the link"'),
        ('"ip":null', '"ip":"192.0.2.1","ip":null'),
        ('"action":"deployment.build"', '"action":5'),
        ('"kind":"user"', '"kind":null'),
        (".120000Z", ".12Z"),
        ('{"seq"', '{ "seq"'),
        (EVENT.id, EVENT.id.upper()),
        (EVENT.id, '","x":"'),
        ('"event":{', '"event":null,"was":{'),
    ],
)
def test_read_line_refuses_malformed_or_noncanonical_line(old: str, new: str) -> None:
    assert old in LINE

    with pytest.raises(ValueError, match=r"."):
        read_line(LINE.replace(old, new))


def test_checkpoint_beyond_end_of_chain_is_reported_as_fault() -> None:
    chain = Chain(EVENT.organization_id, known={5: GENESIS})

    assert list(chain.verify_links([read_line(LINE)])) == []

    assert (chain.seq, chain.count) == (1, 1)
    assert [(f.code, f.seq) for f in chain.finish()] == [(LedgerCode.CUT_OFF, 5)]


def checkpoint(**changes: Any) -> Checkpoint:
    made: dict[str, Any] = {
        "org_id": EVENT.organization_id,
        "seq": 3,
        "last": GENESIS,
        "created_at": EVENT.timestamp,
        "private_key": PRIVATE,
    }
    return sign_checkpoint(**made | changes)


def test_checkpoint_round_trips_through_its_line() -> None:
    signed = checkpoint()

    read = Checkpoint.read(signed.write_line())

    assert read == signed
    read.verify(KEYS)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"seq":3', '"seq":4', LedgerCode.CHECKPOINT_BAD_SIGNATURE),
        ('"hash":"sha256:0', '"hash":"sha256:1', LedgerCode.CHECKPOINT_BAD_SIGNATURE),
        ('"org_id":"0', '"org_id":"1', LedgerCode.CHECKPOINT_BAD_SIGNATURE),
        ('"org_id":"', '"org_id":"x', LedgerCode.CHECKPOINT_MALFORMED),
        ('"org_id":"', '"org_id":"urn:uuid:', LedgerCode.CHECKPOINT_MALFORMED),
        ('"kid":"', '"kid":"x', LedgerCode.CHECKPOINT_UNKNOWN_KEY),
        ('"v":1', '"v":2', LedgerCode.CHECKPOINT_MALFORMED),
        ('"v":1', '"v":1,"x":1', LedgerCode.CHECKPOINT_MALFORMED),
        ('"seq":3', '"seq":-3', LedgerCode.CHECKPOINT_MALFORMED),
        ('"seq":3', f'"seq":{2**60}', LedgerCode.CHECKPOINT_MALFORMED),
        ('"signature":"', '"signature":"=', LedgerCode.CHECKPOINT_MALFORMED),
    ],
)
def test_altered_checkpoint_is_refused(old: str, new: str, code: LedgerCode) -> None:
    text = checkpoint().write_line()
    assert old in text

    with pytest.raises(CheckpointRefused) as refused:
        Checkpoint.read(text.replace(old, new)).verify(KEYS)

    assert refused.value.code == code


def test_retired_key_is_trusted_only_for_checkpoints_before_retirement() -> None:
    end = EVENT.timestamp
    retired = PublicKey(keys.public_key(PRIVATE), KeyStatus.RETIRED, end - timedelta(days=9), end)
    other = PublicKey(keys.public_key(bytes(32)), KeyStatus.ACTIVE, end)
    keyset = KeySet((other, retired))

    checkpoint(created_at=end - timedelta(seconds=1)).verify(keyset)

    with pytest.raises(CheckpointRefused) as refused:
        checkpoint(created_at=end).verify(keyset)
    assert refused.value.code == LedgerCode.CHECKPOINT_UNKNOWN_KEY
