"""Pages of a journal, in sequence order, through its index."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from byteor.engine.replay.journal_index import JournalIndex
from byteor.engine.replay.shown_payload import SHOWN_BYTES, show_payload

MAX_PAGE_BYTES = 3 * 1024 * 1024
"""The JSON size at which a page ends early. The last record may exceed it by less than 1 MiB."""


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
    """Return a page as JSON data: ``lane, total, results, truncated, next_after``.

    The page begins after the position ``after``, or at the first record with at least this ``sequence``, or at the
    first record at or after ``unix_ns``, or by default at the first record. ``next_after`` is null on the last page. A
    page that would be too large is ``truncated``, with fewer than ``limit`` records. ``has_bytes`` has the same meaning
    as in ``show_payload``.
    """
    first = 0
    if after is not None:
        first = max(0, after + 1)
    elif sequence is not None:
        first = index.find_sequence(sequence)
    elif unix_ns is not None:
        first = index.find_time(unix_ns)
    results: list[dict[str, Any]] = []
    page_bytes = 0
    position = first
    end = min(first + limit, index.total)
    while position < end and page_bytes < MAX_PAGE_BYTES:
        size, found, time_ns = index.head(position)
        shown = show_payload(index.record(position, SHOWN_BYTES).payload, size, has_bytes=has_bytes)
        record = {"position": position, "sequence": found, "time": shown_time(time_ns), "size": size, **shown}
        page_bytes += len(json.dumps(record, ensure_ascii=False).encode())
        results.append(record)
        position += 1
    return {
        "lane": lane,
        "total": index.total,
        "results": results,
        "truncated": position < end,
        "next_after": position - 1 if results and position < index.total else None,
    }


def shown_time(unix_ns: int) -> str:
    """Return nanoseconds since 1970 as an RFC 3339 time."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
