"""Creates the lines of exported ledgers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from byteor.engine.hash_chain import GENESIS, LedgerEvent, Link, link_hash, sign_checkpoint, write_line
from tests.engine.signing.conftest import World

ORG, OTHER = "01990a5c-7a40-7cc0-8000-3f2b7e5d1c05", "01990a5c-7a40-7cc0-8000-3f2b7e5d1c06"
BEGAN = datetime(2026, 10, 20, 8, tzinfo=UTC)


def event(number: int, **changes: object) -> LedgerEvent:
    made = LedgerEvent(
        id=f"01990a5c-7a40-7cc0-8000-{number:012x}",
        timestamp=BEGAN + timedelta(seconds=number),
        organization_id=ORG,
        project_id=None,
        environment_id=None,
        resource_kind="deployment",
        resource_id=str(number),
        action="deployment.build",
        outcome="success",
        actor_kind="user",
        actor_id="1",
        actor_display="ada@example.com",
        request_id="",
        ip=None,
        changes='{"status":["approved","building"]}',
    )
    return made._replace(**changes)  # type: ignore[arg-type]  # each test passes values of the right types


def chained(*events: LedgerEvent) -> list[str]:
    """Return the export lines of these events. Each line contains the hash of the previous link."""
    lines, last = [], GENESIS
    for seq, one in enumerate(events, start=1):
        link = Link(seq, last, link_hash(one, seq=seq, prev_hash=last), one.id, one)
        lines.append(write_line(link))
        last = link.hash
    return lines


def checkpoint(lines: list[str], *, org_id: str | None = ORG, key: bytes | None = None) -> str:
    """Return the line of a checkpoint that covers these lines."""
    last: dict[str, Any] = json.loads(lines[-1]) if lines else {"seq": 0, "hash": GENESIS}
    signed = sign_checkpoint(
        org_id=org_id, seq=last["seq"], last=last["hash"], created_at=BEGAN, private_key=key or World().active
    )
    return signed.write_line()


LINES = chained(*(event(number) for number in range(1, 9)))
