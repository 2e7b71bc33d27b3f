"""Sentences about replays and differences between two records, as text and HTML. Uses no database and no request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from django.utils.html import format_html, format_html_join

from byteor.engine.replay.member_rows import ABSENT, Change, Number, Path, find_changes, json_text
from byteor.engine.replay.shown_payload import show_payload

HEX_WIDTH = 8  # bytes per row
HEX_ROWS = 24
JSON_LINES = 80
_BEFORE = 3  # lines or rows shown above the first difference
_VALUE = 80  # characters of a value or a path in a sentence
_MAX_FOUND = 100
_NAMED = 5  # stages named in a sentence

type Runs = list[tuple[str, bool]]
"""The pieces of a line: the text of each piece, and whether it differs from the other side."""


def read_json(payload: bytes | None) -> Any:
    """Return a payload's JSON value, with numbers as ``Number``; ``ABSENT`` if missing, null, too large or not JSON."""
    if payload is None or show_payload(payload)["json"] is None:
        return ABSENT
    return keep_digits(payload)


def keep_digits(payload: bytes) -> Any:
    """Return the value of a JSON payload, with numbers as ``Number``."""
    return json.loads(payload, parse_float=Number, parse_int=Number)


def name_path(path: Path) -> str:
    """Return a path as people write it, such as ``legs[0].price``; "the record" for the empty path."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}"
        else:
            text += f"[{json_text(part)}]"
    return _cut(text.removeprefix(".")) or "the record"


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"


# -- sentences --------------------------------------------------------------------------------------------------


def describe_divergence(found: Mapping[str, Any], difference: str, dropped: tuple[str, str] | None) -> str:
    """Return a sentence about where and how the output diverged.

    ``difference`` says how a changed record differs, and is "" if that is unknown or hidden from the person.
    ``dropped`` is the stage that dropped a missing record, and the reason; None if that is unknown.
    """
    of = format_html(" of <code>{}</code>", found["ingress"]) if found.get("ingress") else ""
    where = format_html("Diverged at <code>{}</code>, record {}{}", found["egress"], f"{found['sequence']:,}", of)
    match found["kind"]:
        case "changed" | "bytes":
            what = difference or "the record differs from the captured one"
        case "missing" if dropped is not None:
            what = format_html("stage <code>{}</code> dropped the record ({})", *dropped)
        case "missing":
            what = "the record is missing"
        case _:
            what = "the capture has no such record"
    return format_html("{}: {}.", where, what)


def describe_difference(expected: bytes, actual: bytes, start: int = 0) -> str:
    """Return a phrase about how two records differ. ``start`` is their offset in the complete records."""
    one, other = read_json(expected), read_json(actual)
    offset = first_difference(expected, actual)
    if ABSENT in (one, other) or start:
        if offset == min(len(expected), len(actual)):
            length = "short" if len(actual) < len(expected) else "long"
            return f"the record is too {length} and ends at byte {start + len(actual):,}"
        return format_html(
            "byte {} is <code>{}</code>, expected <code>{}</code>",
            f"{start + offset:,}", f"0x{actual[offset]:02x}", f"0x{expected[offset]:02x}",
        )  # fmt: skip
    found = find_changes(one, other, _MAX_FOUND)
    if not found:
        return f"the JSON is equal, but the bytes differ, first at byte {offset:,}"
    first = found[0]
    path = format_html("<code>{}</code>", name_path(first.path)) if first.path else "the record"
    more = format_html(" ({} differences in total)", "100 or more" if len(found) == _MAX_FOUND else len(found))
    return format_html("{} {}{}", path, _difference(first), more if len(found) > 1 else "")


def _difference(found: Change) -> str:
    if found.after is ABSENT:
        return format_html("is missing, expected <code>{}</code>", _cut(json_text(found.before)))
    if found.before is ABSENT:
        return format_html("is <code>{}</code>, expected nothing", _cut(json_text(found.after)))
    return format_html(
        "is <code>{}</code>, expected <code>{}</code>", _cut(json_text(found.after)), _cut(json_text(found.before))
    )


def find_drop(stages: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the stage that dropped a missing record, and the reason; None if the counts do not identify one stage."""
    candidates = [
        (stage, reason)
        for stage, counts in stages.items()
        for reason, each in counts.get("drops", {}).items()
        if each["first_sequence"] == found["sequence"] and each.get("ingress") == found.get("ingress")
    ]
    return candidates[0] if len(candidates) == 1 else None


def describe_unchecked(stages: Sequence[str]) -> str:
    """Return a warning about stages that did nothing because they had no parameters; "" without such stages."""
    if not stages:
        return ""
    named = format_html_join(", ", "<code>{}</code>", ((stage,) for stage in stages[:_NAMED]))
    more = f" and {len(stages) - _NAMED} more" if len(stages) > _NAMED else ""
    subject = "Stage" if len(stages) == 1 else "Stages"
    return format_html("{} {}{} had no parameters and let every record pass unchanged.", subject, named, more)


# -- records side by side ---------------------------------------------------------------------------------------


def first_difference(one: bytes, other: bytes) -> int:
    """Return the index of the first byte that differs; the shorter length if one starts with the other."""
    shared = min(len(one), len(other))
    return next((at for at in range(shared) if one[at] != other[at]), shared)


def json_lines(value: Any, other: Any) -> list[Runs]:
    """Return the lines of a JSON value, with at most 100 differences from the other value marked.

    If there are more than 80 lines, returns 80 or fewer, starting a little above the first difference. "…" stands for
    the lines before and after them.
    """
    # Without another value, mark nothing.
    differing = set() if other is ABSENT else {each.path for each in find_changes(value, other, _MAX_FOUND)}
    lines = list(_lines((), "", "", value, differing, is_marked=False))
    first = next((at for at, (_, is_marked) in enumerate(lines) if is_marked), 0)
    begin = max(0, first - _BEFORE) if len(lines) > JSON_LINES else 0
    shown = [_marked(*line) for line in lines[begin : begin + JSON_LINES]]
    more = begin + JSON_LINES < len(lines)
    return [*([[("…", False)]] if begin else []), *shown, *([[("…", False)]] if more else [])]


def _marked(text: str, is_marked: bool) -> Runs:
    """Return the pieces of a line. The indentation is never marked."""
    inner = text.lstrip(" ")
    return [(text[: len(text) - len(inner)], False), (inner, True)] if is_marked else [(text, False)]


def _lines(
    path: Path, indent: str, label: str, value: Any, differing: set[Path], *, is_marked: bool
) -> Iterator[tuple[str, bool]]:
    marked = is_marked or path in differing
    if not isinstance(value, (dict, list)) or not value:
        yield f"{indent}{label}{json_text(value)}", marked
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    yield f"{indent}{label}{opening}", marked
    for number, (key, item) in enumerate(items, 1):
        name = f"{json_text(key)}: " if isinstance(value, dict) else ""
        inner = _lines((*path, key), f"{indent}  ", name, item, differing, is_marked=marked)
        *lines, (last, last_marked) = inner
        yield from lines
        yield last + ("," if number < len(items) else ""), last_marked
    yield f"{indent}{closing}", marked


def hex_rows(payload: bytes, other: bytes | None, start: int = 0) -> list[tuple[str, Runs, Runs]]:
    """Return rows of eight bytes: the offset, the bytes as hex and as text, with differences marked.

    If there are more than 24 rows, returns 24 or fewer, starting a little above the first difference. Without
    ``other``, marks nothing.
    """
    first = 0 if other is None else first_difference(payload, other)
    begin = max(0, first // HEX_WIDTH - _BEFORE) * HEX_WIDTH if len(payload) > HEX_ROWS * HEX_WIDTH else 0
    end = min(len(payload), begin + HEX_ROWS * HEX_WIDTH)
    rows = []
    for at in range(begin, end, HEX_WIDTH):
        cells = [(payload[i], other is not None and payload[i : i + 1] != other[i : i + 1])
                 for i in range(at, min(at + HEX_WIDTH, end))]  # fmt: skip
        groups = [(differs, bytes(byte for byte, _ in run)) for differs, run in groupby(cells, lambda cell: cell[1])]
        as_hex = [(part.hex(" "), differs) for differs, part in groups]
        rows.append((f"{start + at:06x}", as_hex, [(printable(part), differs) for differs, part in groups]))
    return rows


def byte_count(size: int) -> str:
    """Return a number of bytes as a phrase."""
    return "1 byte" if size == 1 else f"{size:,} bytes"


def printable(payload: bytes) -> str:
    """Return printable ASCII unchanged, and a dot for each other byte."""
    return "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in payload)
