"""Compares the results of two replays."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from byteor.engine.replay.divergence import Comparison, digest_of, first_divergence
from byteor.engine.replay.journal import read_frames
from byteor.engine.replay.member_rows import MemberRows, compare_payloads

MAX_BYTES = 1024 * 1024
"""The maximum size, as JSON, of the returned egresses, and of the returned stages."""
_COUNTS = ("in", "out", "dropped", "errors", "drops")

type Frames = Mapping[str, bytes | BinaryIO | None]
"""The frames of each egress, in memory or as a file; None if they were not kept."""


def compare(
    result_a: Mapping[str, Any],
    result_b: Mapping[str, Any],
    *,
    actions_a: Sequence[Mapping[str, Any]] = (),
    actions_b: Sequence[Mapping[str, Any]] = (),
    frames_a: Frames | None = None,
    frames_b: Frames | None = None,
) -> dict[str, Any]:
    """Return how two results differ, as JSON data.

    For an egress or stage that only one result has, the values of the other result are null.

    ``equal`` means equal egresses, stages and actions. ``actions_a`` and ``actions_b`` come from the audits.
    ``first_difference`` is the first frame that differs in an egress whose frames both results kept; of several
    egresses, the frame with the lowest sequence. An egress that only one result has is compared with no frames.
    ``first_difference`` is null if there is no such frame. ``notes`` are the notes of both results, because equal
    results mean less if stages had no parameters. If there are too many egresses or stages, those that differ are
    preferred, and ``truncated`` is true.
    """
    egress = {
        name: _compare_egress(result_a["egress"].get(name), result_b["egress"].get(name))
        for name in dict.fromkeys((*result_a["egress"], *result_b["egress"]))
    }
    stages = {
        name: _compare_stage(result_a["stages"].get(name), result_b["stages"].get(name))
        for name in dict.fromkeys((*result_a["stages"], *result_b["stages"]))
    }
    actions = {"equal": list(actions_a) == list(actions_b), "count": [len(actions_a), len(actions_b)]}
    parts = [*egress.values(), *stages.values(), actions]
    differing = [name for name, each in egress.items() if not each["equal"]]
    shown_egress, shown_stages = _bounded(egress), _bounded(stages)
    return {
        "equal": all(part["equal"] for part in parts),
        "egress": shown_egress,
        "stages": shown_stages,
        "truncated": len(shown_egress) + len(shown_stages) < len(egress) + len(stages),
        "actions": actions,
        "notes": [result.get("notes", []) for result in (result_a, result_b)],
        "first_difference": _first_difference(differing, frames_a or {}, frames_b or {}),
    }


def compare_with_members(
    result_a: Mapping[str, Any], result_b: Mapping[str, Any], **options: Any
) -> tuple[dict[str, Any], MemberRows | None]:
    """Return what ``compare`` returns, and the members that differ in the record of ``first_difference``.

    The members are None if there is no such record, or if only its bytes can be compared. A record that only one side
    has is a single added or removed value.
    """
    found = compare(result_a, result_b, **options)
    first = found["first_difference"]
    if first is None:
        return found, None
    sides = (
        _payload(options[name].get(first["egress"]), first["sequence"], digest)
        for name, digest in zip(("frames_a", "frames_b"), first["sha256"], strict=True)
    )
    return found, compare_payloads(*sides)


def _payload(frames: bytes | BinaryIO | None, sequence: int, digest: str | None) -> bytes | None:
    """Return the payload with this sequence and digest; None if the digest is None."""
    if digest is None:
        return None
    opened = _opened(frames or b"")
    opened.seek(0)
    same = (frame.payload for frame in read_frames(opened) if frame.sequence == sequence)
    return next(payload for payload in same if digest_of(payload) == digest)


def _bounded(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the parts that fit, in their original order. Parts that differ are preferred to equal parts."""
    left, kept = MAX_BYTES, set[str]()
    for name in sorted(parts, key=lambda name: bool(parts[name]["equal"])):
        left -= len(json.dumps({name: parts[name]}))
        if left >= 0:
            kept.add(name)
    return {name: part for name, part in parts.items() if name in kept}


def _compare_egress(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"equal": a == b, **{key: [a and a[key], b and b[key]] for key in ("records", "sha256")}}


def _compare_stage(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"equal": a == b, **{key: [a and a.get(key), b and b.get(key)] for key in _COUNTS}}


def _first_difference(names: Sequence[str], a: Frames, b: Frames) -> dict[str, Any] | None:
    """Return the ``first_difference``: ``egress, sequence, kind, pointers, diff, sha256``, or None."""
    comparisons = []
    for name in names:
        left, right = a.get(name, b""), b.get(name, b"")
        if left is None or right is None:
            continue
        comparison = Comparison(name, read_frames(_opened(left)))
        for frame in read_frames(_opened(right)):
            comparison.compare(frame.sequence, frame.payload)
            if comparison.divergence:
                break
        comparison.finish()
        comparisons.append(comparison)
    found = first_divergence(comparisons)
    if found is None:
        return None
    kept = {key: found[key] for key in ("egress", "sequence", "kind", "pointers", "diff")}
    return kept | {"sha256": [found["expected_sha256"], found["actual_sha256"]]}


def _opened(frames: bytes | BinaryIO) -> BinaryIO:
    return io.BytesIO(frames) if isinstance(frames, bytes) else frames
