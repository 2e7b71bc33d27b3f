"""Pages of a journal, in sequence order, through its index."""

from __future__ import annotations

from typing import Any

from byteor_cloud.engine.replay.journal_index import JournalIndex
from byteor_cloud.engine.replay.shown import SHOWN_BYTES, show_payload

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early before its payloads exceed this, but has at least one record."""


def journal_page(
    index: JournalIndex,
    lane: str,
    *,
    after: int | None = None,
    sequence: int | None = None,
    unix_ns: int | None = None,
    limit: int = 50,
    has_bytes: bool = False,
) -> dict[str, Any]:
    """Return a page as JSON data: ``lane, total, results, next_after``.

    It begins after the position ``after``, or at the first record with at least this ``sequence``, or at the first
    record at or after this time; by default at the beginning. ``next_after`` is null on the last page. ``time`` is in
    nanoseconds since 1970. ``has_bytes`` gives every payload ``payload_base64``; otherwise it is null where ``json``
    has the digits of the payload.
    """
    first = 0
    if after is not None:
        first = max(0, after + 1)
    elif sequence is not None:
        first = index.find_sequence(sequence)
    elif unix_ns is not None:
        first = index.find_time(unix_ns)
    results: list[dict[str, Any]] = []
    shown_bytes = 0
    position = first
    while position < min(first + limit, index.total):
        size, found, time_ns = index.head(position)
        shown_bytes += min(size, SHOWN_BYTES)
        if results and shown_bytes > MAX_PAGE_BYTES:
            break
        shown = show_payload(index.record(position, SHOWN_BYTES).payload, size, has_bytes=has_bytes)
        results.append({"position": position, "sequence": found, "time": time_ns, "size": size, **shown})
        position += 1
    more = results and position < index.total
    return {"lane": lane, "total": index.total, "results": results, "next_after": position - 1 if more else None}
