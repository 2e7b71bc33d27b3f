"""The sentences about a divergence, the comparison of two records, and the payloads and records that pages show."""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
from typing import Any

import pytest

from apps.console.pages.artifacts import parts, wording
from apps.console.pages.regressions import page
from byteor.engine.replay.divergence_context import read_around
from byteor.engine.replay.member_rows import ABSENT
from byteor.engine.replay.shown_payload import show_payload
from tests.artifacts.incidents import frames


def plain(text: str) -> str:
    return html.unescape(re.sub(r"</?code>", "`", text))


@pytest.mark.parametrize(
    ("expected", "actual", "sentence"),
    [
        (b'{"price": 101.25}', b'{"price": 101.5}', "`price` is `101.5`, expected `101.25`"),
        (b'{"a": 1, "b": 2}', b'{"a": 1}', "`b` is missing, expected `2`"),
        (b'{"a": 1}', b'{"a": 1, "b": null}', "`b` is `null`, expected nothing"),
        (b'{"a": 1, "b": 1}', b'{"a": 2, "b": 2}', "`a` is `2`, expected `1` (2 differences in total)"),
        (b'{"legs": [{"x": 1}, {"x": 2}]}', b'{"legs": [{"x": 1}, {"x": 3}]}', "`legs[1].x` is `3`, expected `2`"),
        (b'{"a b": 1}', b'{"a b": true}', '`["a b"]` is `true`, expected `1`'),
        (b"[1]", b'"<b>"', 'the record is `"<b>"`, expected `[1]`'),
        (b'{"p": 0.10000000000000000001}', b'{"p": 0.1}', "`p` is `0.1`, expected `0.10000000000000000001`"),
        (b'{"p": {"x": 1.10}}', b'{"p": -0}', '`p` is `-0`, expected `{"x": 1.10}`'),
        (b'{"a":1}', b'{"a": 1}', "the JSON is equal, but the bytes differ, first at byte 5"),
        (b"abc", b"abd", "byte 2 is `0x64`, expected `0x63`"),
        (b"abc", b"ab", "the record is too short and ends at byte 2"),
        (b"ab", b"abc", "the record is too long and ends at byte 3"),
    ],
)
def test_difference_between_expected_and_actual_record_is_described(
    expected: bytes, actual: bytes, sentence: str
) -> None:
    described = wording.describe_difference(expected, actual)

    assert plain(described) == sentence
    assert "<b>" not in described


def test_divergence_sentence_names_place_and_dropping_stage() -> None:
    found = {"egress": "md_out", "sequence": 1204, "kind": "missing"}
    stages = {"limit": {"drops": {"schema": {"count": 2, "first_sequence": 1204}}}, "copy": {}}
    several = {**stages, "other": {"drops": {"filter": {"count": 1, "first_sequence": 1204}}}}

    def sentence(kind: str, difference: str = "", drop: Any = None, **more: str) -> str:
        return plain(wording.describe_divergence({**found, "kind": kind, **more}, difference, drop))

    assert sentence("changed", "`price` is 2") == "Diverged at `md_out`, record 1,204: `price` is 2."
    assert sentence("changed") == "Diverged at `md_out`, record 1,204: the record differs from the captured one."
    assert sentence("missing") == "Diverged at `md_out`, record 1,204: the record is missing."
    assert (
        sentence("extra", ingress="in") == "Diverged at `md_out`, record 1,204 of `in`: the capture has no such record."
    )
    drop = wording.find_drop(stages, found)
    assert (
        sentence("missing", drop=drop)
        == "Diverged at `md_out`, record 1,204: stage `limit` dropped the record (schema)."
    )
    assert wording.find_drop(several, found) is None
    assert wording.find_drop(stages, {**found, "sequence": 1}) is None


def test_only_differing_lines_and_bytes_are_marked() -> None:
    one, other = {"id": 1, "legs": [{"x": 1}, {"x": 2}]}, {"id": 1, "legs": [{"x": 1}, {"x": 3, "y": 4}]}

    lines = wording.json_lines(other, one)

    assert json.loads("".join(text for line in lines for text, _ in line)) == other
    assert [text.strip() for line in lines for text, differs in line if differs] == ['"x": 3,', '"y": 4']
    assert not any(differs for line in wording.json_lines(other, ABSENT) for _, differs in line)
    assert wording.hex_rows(b"0123456789", b"012345X789") == [
        ("000000", [("30 31 32 33 34 35", False), ("36", True), ("37", False)],
         [("012345", False), ("6", True), ("7", False)]),
        ("000008", [("38 39", False)], [("89", False)]),
    ]  # fmt: skip
    dump = parts.hex_dump(wording.hex_rows(b"<i>\x00", b"<i>\x01"))
    assert dump == "<i>000000</i>  3c 69 3e <mark>00</mark>              &lt;i&gt;<mark>·</mark>"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"p":0.30000000000000000001,"q":[1.10,-0]}', '{"p": 0.30000000000000000001, "q": [1.10, -0]}'),
        (b'{"n":9007199254740993,"e":1E5}', '{"n": 9007199254740993, "e": 1E5}'),
        (b'["\\u00e9", true, null, 0.5]', '["\u00e9", true, null, 0.5]'),
    ],
)
def test_shown_payload_keeps_all_digits_of_its_numbers(payload: bytes, text: str) -> None:
    for has_bytes in (True, False):
        shown = parts.payload_text(show_payload(payload, has_bytes=has_bytes))
        assert html.unescape(shown) == f'<code class="payload">{text}</code>'

    lines = wording.json_lines(wording.read_json(payload), ABSENT)
    assert "".join(part.strip() for line in lines for part, _ in line) == text.replace(", ", ",")


def test_large_record_is_shown_around_first_difference() -> None:
    one = [0] * 5_000
    other = [*one[:4_000], 1, *one[4_001:]]

    lines = wording.json_lines(other, one)
    rows = wording.hex_rows(b"a" * 5_000 + b"b", b"a" * 5_000 + b"c")

    assert len(lines) <= wording.JSON_LINES + 2
    assert [at for at, line in enumerate(lines) if line[-1][1]] == [4]
    assert (rows[0][0], rows[-1][0]) == (f"{5_000 - 24:06x}", f"{5_000:06x}")


def outputs(*payloads: bytes) -> bytes:
    return frames(*((number, payload) for number, payload in enumerate(payloads, 1) if payload != b"-"))


@pytest.mark.parametrize("kind", ["changed", "missing", "extra"])
def test_records_around_divergence_are_read_from_expected_and_actual_output(kind: str) -> None:
    captured = [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]
    replayed = [b"a", b"b", b"c", {"changed": b"D", "missing": b"-", "extra": b"d"}[kind], b"E", b"f", b"g"]
    if kind == "extra":
        captured[3] = b"-"

    def digest(payload: bytes) -> str | None:
        return None if payload == b"-" else f"sha256:{hashlib.sha256(payload).hexdigest()}"

    found = {
        "sequence": 4, "kind": kind, "expected_sha256": digest(captured[3]), "actual_sha256": digest(replayed[3])
    }  # fmt: skip
    read = read_around(found, io.BytesIO(outputs(*captured)), outputs(*replayed))

    sides = [(None if each == b"-" else each) for each in (captured[3], replayed[3])]
    assert [read.expected, read.actual] == sides
    assert [(each.sequence, each.expected, each.actual) for each in read.neighbors] == [
        (2, b"b", b"b"), (3, b"c", b"c"), (4, *sides), (5, b"e", b"E"), (6, b"f", b"f"),
    ]  # fmt: skip
    assert [each.sequence for each in read.neighbors if each.is_divergence] == [4]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("caf\u00e9 1", "caf\u00e8 1", [("caf", False), ("\u00e9 1", True)]),
        ("\u00e9" * 200, "\u00e9" * 199 + "x", [("\u2026" + "\u00e9" * 80, False), ("\u00e9", True)]),
        ("ab", "abc", [("ab", False)]),
    ],
)
def test_excerpt_marks_whole_characters(one: str, other: str, expected: list[tuple[str, bool]]) -> None:
    assert page._excerpt(one.encode(), other.encode()) == expected
