"""The ledger: its hash chain, the verification of a chain, its export, and signed checkpoints.

The hash of a link is the SHA-256 of the RFC 8785 JSON of the event's fields, its sequence number and the previous hash.
Whoever alters, removes, inserts or reorders an event must therefore recompute every later hash. A checkpoint that is
kept elsewhere reveals that hashes up to its sequence number were recomputed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import NamedTuple
from uuid import UUID

from .canonical import Fields, Json, base64url, canonical, format_time, from_base64url, parse_object, parse_time
from .signing import keys
from .signing.keys import KeySet

GENESIS = "sha256:" + "0" * 64
GRACE = timedelta(hours=1)
"""How much older an event may be than the event that was sealed before it.

Transactions may commit in a different order than they start, but none should stay open for an hour. Therefore, an
event with a greater difference counts as backdated.
"""

_parsed = json.JSONDecoder().decode
_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_START_OF_TIME = datetime.min.replace(tzinfo=UTC)


class LedgerCode(StrEnum):
    """The faults of a ledger, and the reasons to refuse a checkpoint."""

    MISSING = "ledger.missing"
    BROKEN = "ledger.broken"
    ALTERED = "ledger.altered"
    EVENT_GONE = "ledger.event_gone"
    FOREIGN = "ledger.foreign"
    BACKDATED = "ledger.backdated"
    UNSEALED = "ledger.unsealed"
    REWRITTEN = "ledger.rewritten"
    CUT_OFF = "ledger.cut_off"
    CHECKPOINT_MALFORMED = "checkpoint.malformed"
    CHECKPOINT_UNKNOWN_KEY = "checkpoint.unknown_key"
    CHECKPOINT_BAD_SIGNATURE = "checkpoint.bad_signature"


class CheckpointRefused(Exception):
    """Raised for a malformed or untrusted checkpoint. ``code`` is stable, and ``detail`` is human-readable."""

    def __init__(self, code: LedgerCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class LedgerEvent(NamedTuple):
    """A stored audit event. ``timestamp`` is in UTC, and ``changes`` is JSON in any formatting.

    An event without an organization belongs to the installation's own chain.
    """

    id: str
    timestamp: datetime
    organization_id: str | None
    project_id: str | None
    environment_id: str | None
    resource_kind: str
    resource_id: str
    action: str
    outcome: str
    actor_kind: str
    actor_id: str
    actor_display: str
    request_id: str
    ip: str | None
    changes: str


class Link(NamedTuple):
    """One link of a chain. ``event`` is None if the event was deleted."""

    seq: int
    prev_hash: str
    hash: str
    event_id: str
    event: LedgerEvent | None


def link_hash(event: LedgerEvent, *, seq: int, prev_hash: str) -> str:
    """Return the hash of the link of ``event`` at this sequence number.

    This runs for every event of a ledger, so the RFC 8785 JSON is formatted by hand: the members are in order, and
    ``encode_basestring`` escapes strings as RFC 8785 requires. ``changes`` is included as a string, because canonical
    JSON has no integers beyond 2**53, and an event that contains one must not break the chain.
    """
    (
        event_id, timestamp, organization_id, project_id, environment_id, resource_kind, resource_id, action, outcome,
        actor_kind, actor_id, actor_display, request_id, ip, changes,
    ) = event  # fmt: skip
    changes = _common_changes(changes) if len(changes) < _COMMON else _canonical_changes(changes)
    body = (
        f'{{"action":{_quoted(action)}'
        f',"actor":[{_quoted(actor_kind)},{_quoted(actor_id)},{_quoted(actor_display)}]'
        f',"changes":{_quoted(changes)}'
        f',"environment_id":"{environment_id}"'
        f',"id":"{event_id}"'
        f',"ip":{"null" if ip is None else _quoted(ip)}'
        f',"organization_id":{"null" if organization_id is None else _quoted(organization_id)}'
        f',"outcome":{_quoted(outcome)}'
        f',"prev_hash":{_quoted(prev_hash)}'
        f',"project_id":"{project_id}"'
        f',"request_id":{_quoted(request_id)}'
        f',"resource":[{_quoted(resource_kind)},{_quoted(resource_id)}]'
        f',"seq":{seq}'
        f',"timestamp":"{timestamp.isoformat()}"}}'
    )
    return "sha256:" + hashlib.sha256(body.encode()).hexdigest()


def _canonical_changes(changes: str) -> str:
    return _sorted(_parsed(changes))


# Most changes are short and repeat, such as {"status": ["approved", "building"]}, so their canonical form is cached.
_COMMON = 200
_common_changes = lru_cache(maxsize=1024)(_canonical_changes)


@dataclass(frozen=True, slots=True)
class LedgerFault:
    """One fault of a chain; ``seq`` is None for an event that is not sealed."""

    code: LedgerCode
    seq: int | None
    event_id: str | None
    detail: str

    def __str__(self) -> str:
        place = "not sealed" if self.seq is None else f"seq {self.seq}"
        return f"{place}, event {self.event_id or '(none)'}: {self.code}: {self.detail}"


def _has_hash(event: LedgerEvent, seq: int, prev_hash: str, sealed_hash: str) -> bool:
    try:
        return link_hash(event, seq=seq, prev_hash=prev_hash) == sealed_hash
    except (ValueError, RecursionError):  # an event whose changes cannot be parsed was altered after sealing
        return False


class Chain:
    """Verifies the chain of one organization, or of the installation if ``organization_id`` is None.

    It keeps only the current position, so a chain of any length can be verified. ``known`` maps sequence numbers to
    the hashes in earlier checkpoints.
    """

    def __init__(
        self, organization_id: str | None, *, seq: int = 0, last: str = GENESIS, known: Mapping[int, str] | None = None
    ) -> None:
        self.organization_id = organization_id
        self.seq, self.hash = seq, last
        self.time = _START_OF_TIME  # the timestamp of the last event
        self.count = 0
        self.known = known or {}

    def verify_links(self, links: Iterable[Link]) -> Iterator[LedgerFault]:
        """Verify the next links, in order of their sequence numbers, and yield their faults."""
        for seq, prev_hash, sealed_hash, event_id, event in links:
            if seq != self.seq + 1:
                gap = f"{self.seq + 1} to {seq - 1} are" if seq > self.seq + 2 else f"{self.seq + 1} is"
                detail = f"{gap} missing" if seq > self.seq else f"follows {self.seq}, so it is out of order"
                yield LedgerFault(LedgerCode.MISSING, min(self.seq + 1, seq), None, detail)
            if prev_hash != self.hash:
                detail = "its previous hash is not the hash of the link before it"
                yield LedgerFault(LedgerCode.BROKEN, seq, event_id, detail)
            if event is None:
                yield LedgerFault(LedgerCode.EVENT_GONE, seq, event_id, "the event of this link was deleted")
            else:
                if not _has_hash(event, seq, prev_hash, sealed_hash):
                    detail = "the event, its sequence number or its link was altered"
                    yield LedgerFault(LedgerCode.ALTERED, seq, event_id, detail)
                if event.organization_id != self.organization_id:
                    yield LedgerFault(LedgerCode.FOREIGN, seq, event_id, "the event belongs to another chain")
                if self.time - event.timestamp > GRACE:
                    time = format_time(event.timestamp)
                    detail = f"its timestamp {time} is over an hour older than that of the previously sealed event"
                    yield LedgerFault(LedgerCode.BACKDATED, seq, event_id, detail)
                self.time = event.timestamp
            if self.known.get(seq, sealed_hash) != sealed_hash:
                detail = "a signed checkpoint has another hash for this sequence number"
                yield LedgerFault(LedgerCode.REWRITTEN, seq, event_id, detail)
            self.seq, self.hash = seq, sealed_hash
            self.count += 1

    def finish(self) -> Iterator[LedgerFault]:
        """Yield a fault for each checkpoint that is beyond the end of the chain."""
        for seq in sorted(seq for seq in self.known if seq > self.seq):
            detail = f"the chain ends at {self.seq}, but a checkpoint was signed when it reached {seq}"
            yield LedgerFault(LedgerCode.CUT_OFF, seq, None, detail)


# -- the export: one line for each link, then a checkpoint ------------------------------------------------------------


def write_line(link: Link) -> str:
    """Format a link as a line of the export. The event has the members that the API returns, except ``seal``."""
    event = link.event
    return _compact(
        {
            "seq": link.seq,
            "prev_hash": link.prev_hash,
            "hash": link.hash,
            "event": event
            and {
                "id": event.id,
                "timestamp": format_time(event.timestamp),
                "actor": {"kind": event.actor_kind, "id": event.actor_id, "display": event.actor_display},
                "action": event.action,
                "outcome": event.outcome,
                "resource_scope": {
                    "organization_id": event.organization_id,
                    "project_id": event.project_id,
                    "environment_id": event.environment_id,
                    "kind": event.resource_kind,
                    "id": event.resource_id,
                },
                "request_id": event.request_id,
                "ip": event.ip,
                "changes": _parsed(event.changes),
            },
        }
    )


def read_line(text: str) -> Link:
    """Parse a line of the export that has an event.

    Raises ValueError if the event was deleted, or if ``write_line`` would not write exactly this line.
    """
    members = Fields(parse_object(text))
    fields = members.fields("event")
    actor, scope = fields.fields("actor"), fields.fields("resource_scope")
    event = LedgerEvent(
        id=_uuid(fields, "id"),
        timestamp=parse_time(fields.text("timestamp")),
        organization_id=_uuid_or_none(scope, "organization_id"),
        project_id=_uuid_or_none(scope, "project_id"),
        environment_id=_uuid_or_none(scope, "environment_id"),
        resource_kind=scope.any_text("kind"),
        resource_id=scope.any_text("id"),
        action=fields.any_text("action"),
        outcome=fields.any_text("outcome"),
        actor_kind=actor.any_text("kind"),
        actor_id=actor.any_text("id"),
        actor_display=actor.any_text("display"),
        request_id=fields.any_text("request_id"),
        ip=None if fields.member("ip") is None else fields.any_text("ip"),
        changes=_compact(fields.object("changes")),
    )
    link = Link(members.integer("seq"), members.digest("prev_hash"), members.digest("hash"), event.id, event)
    # The hash covers only known members in canonical form, so anything else in the line could have been altered.
    if write_line(link) != text:
        raise ValueError("not in the form in which it was exported")
    return link


def _uuid(fields: Fields, name: str) -> str:
    text = fields.text(name)
    if str(UUID(text)) != text:
        raise ValueError(f"{name!r} is not a UUID in canonical form")
    return text


def _uuid_or_none(fields: Fields, name: str) -> str | None:
    return None if fields.member(name) is None else _uuid(fields, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed statement of a chain's newest hash and its sequence number.

    ``org_id`` is None for the installation's own chain. Only ``verify`` checks the signature.
    """

    org_id: str | None
    seq: int
    hash: str
    created_at: datetime
    kid: str
    signature: bytes

    @classmethod
    def read(cls, text: str) -> Checkpoint:
        """Parse the last line of an export. Raises CheckpointRefused."""
        try:
            members = Fields(parse_object(text))
            members.only("checkpoint", "signature")
            fields = members.fields("checkpoint")
            fields.only("v", "org_id", "seq", "hash", "created_at", "kid")
            if fields.integer("v") != 1:
                raise ValueError("'v' is not 1")
            found = cls(
                org_id=_uuid_or_none(fields, "org_id"),
                seq=fields.integer("seq"),
                hash=fields.digest("hash"),
                created_at=fields.time("created_at"),
                kid=fields.text("kid"),
                signature=from_base64url(members.text("signature")),
            )
            canonical(found.document())  # ``verify`` could not format numbers that are too large
        except ValueError as error:
            raise CheckpointRefused(LedgerCode.CHECKPOINT_MALFORMED, f"checkpoint: {error}") from error
        return found

    def verify(self, keyset: KeySet) -> None:
        """Check that a trusted key of the set signed this checkpoint. Raises CheckpointRefused."""
        key = keyset.find(self.kid)
        if key is None or not key.trusts(self.created_at):
            raise CheckpointRefused(
                LedgerCode.CHECKPOINT_UNKNOWN_KEY, f"the checkpoint names the key {self.kid}, which is not trusted"
            )
        if not keys.verify(key.public, canonical(self.document()), self.signature):
            raise CheckpointRefused(LedgerCode.CHECKPOINT_BAD_SIGNATURE, "the signature does not match the checkpoint")

    def document(self) -> Json:
        """Return the signed part as JSON data."""
        return {
            "v": 1,
            "org_id": self.org_id,
            "seq": self.seq,
            "hash": self.hash,
            "created_at": format_time(self.created_at),
            "kid": self.kid,
        }

    def write_line(self) -> str:
        """Format the checkpoint as the last line of an export."""
        return _compact({"checkpoint": self.document(), "signature": base64url(self.signature)})


def sign_checkpoint(*, org_id: str | None, seq: int, last: str, created_at: datetime, private_key: bytes) -> Checkpoint:
    """Create a checkpoint and sign its RFC 8785 JSON. ``last`` is the newest hash of the chain."""
    kid = keys.kid(keys.public_key(private_key))
    unsigned = Checkpoint(org_id=org_id, seq=seq, hash=last, created_at=created_at, kid=kid, signature=b"")
    return replace(unsigned, signature=keys.sign(private_key, canonical(unsigned.document())))
