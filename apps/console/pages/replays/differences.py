"""Panels that show a record that differs: the divergence of a replay, and the first difference of two replays."""

from __future__ import annotations

from typing import Any

from apps.artifacts.models import Replay
from apps.artifacts.services.divergences import read_divergence
from apps.console.frame import short_id
from apps.console.frame.columns import page_url
from apps.console.pages.artifacts import wording
from apps.console.pages.artifacts.parts import FOUND, code, hex_dump, json_dump, query_link, text_of
from byteor.engine.replay.divergence_context import Divergence
from byteor.engine.replay.member_rows import ABSENT, MemberRows
from byteor_cloud.computing.compute import Compute

_BODY = "console/difference.html"
_POINTERS = 10  # pointers that are named if the members cannot be compared


def find_records(row: Replay, *, may_read: bool, compute: Compute) -> Divergence | None:
    """Return the records that differ; None without a divergence, or if the person may not see captured records."""
    return read_divergence(row, compute=compute) if may_read and (row.result or {}).get("divergence") else None


def divergence(row: Replay, records: Divergence | None) -> dict[str, Any] | None:
    """Return the panel of the expected and actual record, and the records around them; None without a divergence."""
    found = (row.result or {}).get("divergence")
    if found is None:
        return None
    kinds = {"missing": "missing in the replay", "extra": "not in the capture"}
    members = None if records is None else records.members
    pointers = [] if records is None or members is not None else found.get("pointers") or []
    named = ", ".join(pointers[:_POINTERS]) + (" …" if len(pointers) > _POINTERS else "")
    facts = [
        ("Egress", found["egress"]),
        ("Ingress", found.get("ingress")),
        ("Record", f"{found['sequence']:,}"),
        ("Kind", kinds.get(found["kind"], "the record differs")),
        ("Members that differ", "the record as a whole" if pointers == [""] else named),
    ]
    panel = _panel(found, "Captured", "Replayed", members)
    panel |= {"id": "divergence", "title": "Divergence", "facts": [(label, value) for label, value in facts if value]}
    expected, actual = (None, None) if records is None else (records.expected, records.actual)
    digests = found["expected_sha256"], found["actual_sha256"]
    panel["sides"] = [
        _side("Captured", found["diff"]["expected_bytes"], digests[0], expected, actual, records),
        _side("Replayed", found["diff"]["actual_bytes"], digests[1], actual, expected, records),
    ]
    if records is None:
        return panel
    if records.start or (not records.neighbors and members is None and (expected or actual)):
        panel["lead"] = f"At most 64 bytes of each record, from byte {records.start:,}, are shown."
    panel["url"] = page_url(Replay, "change", row.pk, query={"trace": found["sequence"]}, fragment=FOUND)
    panel["link"] = f"Trace record {found['sequence']:,}"
    panel["neighbors"] = [
        (
            query_link(row, f"{each.sequence:,}", trace=each.sequence),
            *("-" if side is None else code(text_of(side), 120) for side in (each.expected, each.actual)),
            "equal" if each.expected == each.actual else "different",
            each.is_divergence,
        )
        for each in records.neighbors
    ]
    return panel


def first_difference(found: dict[str, Any], members: MemberRows | None, before: str, after: str) -> dict[str, Any]:
    """Return the panel that shows the ``first_difference`` of a comparison.

    ``before`` and ``after`` are the titles of the two sides. Without ``members``, shows at most 64 bytes of
    each side, from the first byte that differs.
    """
    panel = _panel(found, before, after, members) | {"title": "First difference"}
    panel["facts"] = [("Egress", found["egress"]), ("Record", f"{found['sequence']:,}")]
    if members is None:
        diff = found["diff"]
        one, other = (bytes.fromhex(diff[f"{side}_hex"]) for side in ("expected", "actual"))
        excerpts = Divergence(one, other, diff["offset"], [])
        panel["sides"] = [
            _side(before, diff["expected_bytes"], found["sha256"][0], one, other, excerpts),
            _side(after, diff["actual_bytes"], found["sha256"][1], other, one, excerpts),
        ]
    return panel


def _panel(found: dict[str, Any], before: str, after: str, members: MemberRows | None) -> dict[str, Any]:
    return {"body": _BODY, "before": before, "after": after, "members": members, "rows": []}


def _side(
    title: str,
    size: int,
    digest: str | None,
    payload: bytes | None,
    other: bytes | None,
    records: Divergence | None,
) -> dict[str, Any]:
    side = {"title": title, "size": wording.byte_count(size), "digest": digest and short_id(digest)}
    if records is None or payload is None or digest is None:
        return side
    value = ABSENT if records.start else wording.read_json(payload)
    lines = [] if value is ABSENT else wording.json_lines(value, wording.read_json(other))
    return {**side, "json": json_dump(lines), "hex": hex_dump(wording.hex_rows(payload, other, records.start))}
