"""The ledger, which is the sealed audit trail: one hash chain for each organization, and the installation's own.

The worker seals events. A ledger can be checked for tampering, and exported with a signed checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Min, OuterRef, QuerySet, Subquery
from django.utils import timezone

from apps.tenancy.models import AuditEvent, AuditSeal, Organization
from apps.tenancy.services import signing_keys, vault
from byteor.engine.hash_chain import (
    GENESIS,
    GRACE,
    Chain,
    LedgerCode,
    LedgerEvent,
    LedgerFault,
    Link,
    link_hash,
    sign_checkpoint,
    write_line,
)
from byteor_cloud.errors import InvalidInput
from byteor_cloud.ids import smallest_uuid7

BATCH_SIZE = 5000  # events sealed per transaction
_INSTALLATION_LOCK = 7_226_190_004  # an arbitrary lock number, the same in every process
PAGE = 5000  # sequence numbers per query
# Smaller than PAGE: an export keeps a page in memory while it waits for its client, and many may run concurrently.
EXPORT_PAGE = 50
# The query reads plain rows instead of model instances, which would be slower. It reads them page by page,
# because a ledger may have any length. A page is a range of seq, not a LIMIT: with outdated statistics, the planner
# would sort the rest of the ledger for each page. A time that Python cannot represent, such as infinity, can only come
# from tampering. It is clamped, so that reading continues and the verification reports the fault.
_PAGE_OF_LINKS = """
    SELECT s.seq, s.prev_hash, s.hash, s.event_id::text,
        e.id::text, least(greatest(e.timestamp, '0001-01-02Z'), '9999-12-30Z'),
        e.organization_id::text, e.project_id::text, e.environment_id::text,
        e.resource_kind, e.resource_id, e.action, e.outcome, e.actor_kind, e.actor_id, e.actor_display,
        e.request_id, e.ip, e.changes::text
    FROM tenancy_auditseal s LEFT JOIN tenancy_auditevent e ON e.id = s.event_id
    WHERE {chain} AND s.seq BETWEEN %s AND %s ORDER BY s.seq, s.id
"""
_UNSEALED = """
    SELECT count(*), least(greatest(min(e.timestamp), '0001-01-02Z'), '9999-12-30Z'),
        array_agg(e.id::text ORDER BY e.id) FILTER (WHERE e.timestamp < %s::timestamptz - make_interval(secs => %s))
    FROM tenancy_auditevent e
    WHERE {chain} AND NOT EXISTS (SELECT FROM tenancy_auditseal s WHERE s.event_id = e.id)
"""


_BEFORE_ALL = -(2**63)


def _to_linked_event(row: AuditEvent) -> LedgerEvent:
    return LedgerEvent(
        id=str(row.id),
        timestamp=row.timestamp,
        organization_id=str(row.organization_id) if row.organization_id else None,
        project_id=str(row.project_id) if row.project_id else None,
        environment_id=str(row.environment_id) if row.environment_id else None,
        resource_kind=row.resource_kind,
        resource_id=row.resource_id,
        action=row.action,
        outcome=row.outcome,
        actor_kind=row.actor_kind,
        actor_id=row.actor_id,
        actor_display=row.actor_display,
        request_id=row.request_id,
        ip=row.ip,
        changes=json.dumps(row.changes),
    )


@transaction.atomic
def seal_chain(organization_id: UUID | None, *, limit: int = BATCH_SIZE, whole: bool = False) -> int:
    """Seal up to ``limit`` events, oldest first: append them to the organization's chain (None: the installation's).

    Returns the number of sealed events. ``whole`` searches the whole ledger, not only the recent part in which unsealed
    events are expected.
    """
    if organization_id is None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_INSTALLATION_LOCK])
    else:
        Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    seals_before = AuditSeal.objects.filter(organization=organization_id).select_related("event")
    head = seals_before.order_by("-seq").first()
    seq, prev_hash = (head.seq, head.hash) if head else (0, GENESIS)
    seals = []
    unsealed = _unsealed_events(None if whole else head).filter(organization=organization_id)
    for event in unsealed.order_by("id")[:limit]:
        seq += 1
        digest = link_hash(_to_linked_event(event), seq=seq, prev_hash=prev_hash)
        seals.append(AuditSeal(organization_id=organization_id, seq=seq, event=event, prev_hash=prev_hash, hash=digest))
        prev_hash = digest
    AuditSeal.objects.bulk_create(seals)
    return len(seals)


def _unsealed_events(last: AuditSeal | None) -> QuerySet[AuditEvent]:
    """Return the recent unsealed events. Without ``last``, return all unsealed events.

    An event is recent if it is at most ``GRACE`` older than ``last`` or the current time, whichever is earlier. This
    runs every few seconds, so it must not read the whole ledger.
    """
    events = AuditEvent.objects.filter(seal=None)
    if last is None:
        return events
    # The current time is a bound as well: if a clock was ahead and then corrected, later events must still be found.
    return events.filter(id__gte=smallest_uuid7(min(last.event.timestamp, timezone.now()) - GRACE))


def seal_all(*, whole: bool = False) -> None:
    """Seal the recent unsealed events of all chains.

    ``whole`` searches the whole ledger. This also finds old events that stayed unsealed while other chains were sealed.
    """
    last = None if whole else AuditSeal.objects.select_related("event").order_by("-id").first()
    for organization_id in _unsealed_events(last).order_by().values_list("organization_id", flat=True).distinct():
        while seal_chain(organization_id, limit=BATCH_SIZE, whole=whole) == BATCH_SIZE:
            pass


def _query_of_chain(sql: str, table: str, organization_id: UUID | None) -> tuple[str, list[UUID]]:
    """Restrict the query to the chain of an organization (None: of the installation). Return it with parameters."""
    if organization_id is None:
        return sql.format(chain=f"{table}.organization_id IS NULL"), []
    return sql.format(chain=f"{table}.organization_id = %s"), [organization_id]


def read_links(
    organization_id: UUID | None, *, after_seq: int = _BEFORE_ALL, until: int | None = None, page: int = PAGE
) -> Iterator[Link]:
    """Yield the links after ``after_seq`` in the chain of an organization (None: of the installation).

    Stops after the sequence number ``until``. Keeps only one page in memory.
    """
    seals = AuditSeal.objects.filter(organization=organization_id)
    while True:
        # Each page starts at the next existing link, because tampering may have left a gap of any size.
        first = seals.filter(seq__gt=after_seq).aggregate(first=Min("seq"))["first"]
        if first is None or (until is not None and first > until):
            return
        after_seq = first + page - 1 if until is None else min(first + page - 1, until)
        with connection.cursor() as cursor:
            sql, chain = _query_of_chain(_PAGE_OF_LINKS, "s", organization_id)
            cursor.execute(sql, [*chain, first, after_seq])
            rows = cursor.fetchall()
        for seq, prev_hash, sealed, event_id, *event in rows:
            yield Link(seq, prev_hash, sealed, event_id, LedgerEvent._make(event) if event[0] else None)


class Verification:
    """The verification of the ledger of an organization (None: of the installation).

    ``known`` maps sequence numbers to the hashes of earlier checkpoints, which the ledger must still contain.
    """

    def __init__(self, organization_id: UUID | None, *, known: dict[int, str] | None = None) -> None:
        self.organization_id = organization_id
        self.chain = Chain(None if organization_id is None else str(organization_id), known=known)
        self.unsealed = 0
        self.unsealed_since: datetime | None = None

    def faults(self) -> Iterator[LedgerFault]:
        """Read the whole ledger and yield every fault in it. At the end, set ``unsealed`` and ``unsealed_since``."""
        yield from self.chain.verify_links(read_links(self.organization_id))
        yield from self.chain.finish()
        with connection.cursor() as cursor:
            unsealed, chain = _query_of_chain(_UNSEALED, "e", self.organization_id)
            cursor.execute(unsealed, [self.chain.time, GRACE.total_seconds(), *chain])
            self.unsealed, since, early = cursor.fetchone()
            self.unsealed_since = since if self.unsealed else None
        for event_id in early or []:
            detail = (
                "unsealed, but over an hour older than the last sealed event: inserted later, or its seal was removed"
            )
            yield LedgerFault(LedgerCode.UNSEALED, None, event_id, detail)


def export_lines(organization: Organization | None, *, after_seq: int = 0) -> Iterator[str]:
    """Return NDJSON lines: each sealed event after ``after_seq`` in the chain's order, then a signed checkpoint.

    Without an organization, exports the installation's own chain; the installation must have a signing key. Raises
    InvalidInput if the chain ends before ``after_seq``, and MasterKeyUnavailable if this host does not have the
    installation's master key, in both cases before the first line.
    """
    vault.ensure_key()
    head = AuditSeal.objects.filter(organization=organization).order_by("seq").last()
    seq, last = (head.seq, head.hash) if head else (0, GENESIS)
    if after_seq > seq:
        raise InvalidInput.at_parameter("after_seq", f"Must be at most {seq}, the last sealed `seq`.", code="max_value")
    return _lines(organization, after_seq=after_seq, seq=seq, last=last)


def list_heads() -> Iterator[tuple[UUID | None, int, str]]:
    """Yield the organization id (None: the installation), and the last link's sequence number and hash, of each chain.

    Chains without links are left out.
    """
    last = AuditSeal.objects.filter(organization=OuterRef("pk")).order_by("-seq")
    heads = Organization.objects.annotate(seq=Subquery(last.values("seq")[:1]), hash=Subquery(last.values("hash")[:1]))
    installation = AuditSeal.objects.filter(organization=None).order_by("seq").last()
    if installation is not None:
        yield None, installation.seq, installation.hash
    yield from heads.exclude(seq=None).order_by("pk").values_list("pk", "seq", "hash").iterator()


def find_seq_before(organization: Organization, moment: datetime) -> int:
    """Return the sequence number after which all sealed events of ``moment`` and later follow.

    Some earlier events may follow as well, because events can be sealed late.
    """
    start = max(moment, datetime(2000, 1, 1, tzinfo=UTC)) - GRACE  # ids contain no time before 1970
    events = AuditEvent.objects.filter(organization=organization, seal__isnull=False, id__gte=smallest_uuid7(start))
    if (first := events.order_by("id").first()) is not None:
        # An event that is up to ``GRACE`` newer than this one may have been sealed earlier and have a lower number.
        near = events.filter(id__lt=smallest_uuid7(first.timestamp + 2 * GRACE))
        return int(near.aggregate(lowest=Min("seal__seq"))["lowest"]) - 1
    head = AuditSeal.objects.filter(organization=organization).order_by("seq").last()
    return head.seq if head else 0


def _lines(organization: Organization | None, *, after_seq: int, seq: int, last: str) -> Iterator[str]:
    organization_id = None if organization is None else organization.pk
    for link in read_links(organization_id, after_seq=after_seq, until=seq, page=EXPORT_PAGE):
        yield write_line(link) + "\n"
    # The checkpoint comes last, so that an interrupted export has none.
    checkpoint = sign_checkpoint(
        org_id=None if organization_id is None else str(organization_id),
        seq=seq,
        last=last,
        created_at=timezone.now(),
        private_key=signing_keys.active_private_key(organization_id),
    )
    yield checkpoint.write_line() + "\n"
