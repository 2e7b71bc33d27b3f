"""The members in which two payloads differ, as pointers and as rows: against a slow model, and case by case."""

from __future__ import annotations

import json
import pickle
import re
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byteor.engine.canonical import canonical
from byteor.engine.replay.json_difference import differing_payloads
from byteor.engine.replay.member_rows import (
    MAX_ROWS,
    MemberRows,
    Number,
    compare_examples,
    compare_members,
    compare_payloads,
    find_changes,
)
from byteor.engine.replay.shown_payload import show_payload
from tests.engine.replay import difference_model

NAMES = st.sampled_from(["a", "b", "", "/", "~1", "*", "0", "\0", "\ud800", "\u202e", "é", "n" * 9])
NUMBERS = st.sampled_from(["0", "-0", "1", "1.0", "10e-1", "1e0", "0.1", "0.10000000000000000001", "9007199254740993"])
LEAVES = st.sampled_from([None, True, False, "", "1", "x", "\ud800"]) | NUMBERS.map(Number)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))


def text(value: Any) -> str:
    """Return a JSON value as text, with each ``Number`` in its own notation."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(name)}:{text(member)}' for name, member in value.items())}}}"
    return f"[{','.join(map(text, value))}]" if isinstance(value, list) else json.dumps(value)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value that equals the given value, differs from it in a few members, or is unrelated to it."""
    if draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    if isinstance(value, dict):
        kept = {name: draw(changed(member)) for name, member in value.items() if draw(st.integers(0, 5))}
        return kept | (draw(st.dictionaries(NAMES, LEAVES, max_size=1)) if draw(st.booleans()) else {})
    if isinstance(value, list):
        return [draw(changed(item)) for item in value if draw(st.integers(0, 5))]
    return value


PAIRS = VALUES.flatmap(lambda value: st.tuples(st.just(value), changed(value)))


@settings(max_examples=500)
@given(PAIRS)
def test_pointers_and_rows_agree_with_slow_model(pair: tuple[Any, Any]) -> None:
    before, after = (text(value).encode() for value in pair)
    pointers = difference_model.pointers(before, after)

    assert differing_payloads(before, after) == (("bytes", []) if pointers is None else ("changed", pointers))
    canonical(pointers)  # does not raise, so the pointers can be hashed and stored
    changes = find_changes(*pair, 10_000)
    paths = {tuple("*" if isinstance(part, int) else part for part in change.path) for change in changes}
    assert {difference_model.shortened(path) for path in paths} == difference_model.paths(before, after)
    rows = compare_payloads(before, after)
    assert (rows is None) == (pointers is None) == (not changes)
    if rows is not None:
        assert rows.changes == len(changes)
        assert all(character.isprintable() for row in rows.rows for character in row.parent + row.name)
        assert pickle.loads(pickle.dumps(rows)) == rows  # the compute process sends its rows to the caller
        equal = sum(row.count for row in rows.rows)
        assert equal == difference_model.equal_members(before, after)


def shown(rows: MemberRows | None) -> list[tuple[str, ...]]:
    """Return each row as the texts that a person reads, with marked pieces in brackets."""
    assert rows is not None
    return [
        (row.sign, row.folded)
        if row.kind == "equal"
        else (row.sign, row.parent + row.name, *(marked(side) for side in (row.before, row.after)))
        for row in rows.rows
    ]


def marked(pieces: tuple[tuple[str, bool], ...]) -> str:
    return "".join(f"[{piece}]" if differs else piece for piece, differs in pieces)


def test_rows_show_changed_members_with_values_and_fold_equal_members() -> None:
    before = b'{"id":1,"t":[1,2],"legs":[{"x":1.10,"y":0},{"x":2}],"note":"sold at par","gone":{"k":null},"z":[],"e":1}'
    after = (
        b'{"id":1,"t":[1,2],"legs":[{"x":1.2,"y":0},{"x":2}],"note":"bought at par","z":{},"e":1e0,"new\\n":"\\u202e"}'
    )

    assert shown(compare_payloads(before, after)) == [
        ("…", "2 equal members"),
        ("~", "/legs/0/x", "1.10", "1.2"),
        ("…", "2 equal members"),
        ("~", "/note", '"[sold] at par"', '"[bought] at par"'),
        ("\N{MINUS SIGN}", "/gone", '{"k": null}', ""),
        ("~", "/z", "[]", "{}"),
        ("…", "1 equal member"),
        ("+", "/new\\n", "", '"\\u202e"'),
    ]


def test_rows_of_many_and_large_members_are_limited_in_number_and_length() -> None:
    long = "x" * 100_000
    before: dict[str, Any] = {"deep": 1, "text": f"{long}a{long}", "list": list(range(MAX_ROWS)), long: 1}
    for _ in range(60):
        before["deep"] = {"n" * 90: before["deep"]}
    after = {**before, "text": f"{long}b{long}", "list": [], long: long, "deep": {}}

    rows = compare_payloads(json.dumps(before).encode(), json.dumps(after).encode())

    assert rows is not None
    assert (len(rows.rows), rows.changes, rows.more) == (MAX_ROWS, MAX_ROWS + 3, 3)
    assert rows.more_text == "3 more members differ."
    found = shown(rows)
    assert found[1][1:] == ("/text", f"…{'x' * 40}[a]{'x' * 80}…", f"…{'x' * 40}[b]{'x' * 80}…")
    assert len(str(rows)) < 100_000
    (removed,) = shown(compare_payloads(json.dumps(before).encode(), None))
    assert (removed[1], len(removed[2]), removed[3]) == ("", 301, "")
    changed_name = shown(compare_members({long: {"a": {"b": 1}}}, {long: {"a": {"b": 2}}}))
    assert changed_name == [("~", f"/{'x' * 120}…/a/b", "1", "2")]


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"a", b"b"), (b'{"a":1}', b'{"a":1,"a":2}'), (b'{"a":1}', b'{"a": 1.0}'), (b"[1e9999]", b"[2]"), (None, None)],
)
def test_payloads_have_no_rows_if_values_are_equal_or_one_is_unreadable_or_both_are_missing(
    before: bytes | None, after: bytes | None
) -> None:
    assert compare_payloads(before, after) is None


def test_rows_of_examples_keep_digits_and_need_complete_payloads() -> None:
    before, after = b'{"p":1.10,"q":0.5}', b'{"p":1.2,"q":0.5}'
    examples = [show_payload(each, has_bytes=False) for each in (before, after)]

    assert [each["payload_base64"] for each in examples] == [b64encode(before).decode(), None]
    assert shown(compare_examples(*examples)) == [("~", "/p", "1.10", "1.2"), ("…", "1 equal member")]
    assert shown(compare_examples(None, examples[1])) == [("+", "", "", '{"p": 1.2, "q": 0.5}')]
    assert compare_examples(examples[0], show_payload(after[:5], len(after), has_bytes=False)) is None
    assert compare_examples(examples[0], show_payload(b"bytes", has_bytes=False)) is None
    assert compare_examples(None, None) is None
    assert re.fullmatch(r"[0-9,]+ equal members", compare_members([0] * 5_000, [*[0] * 4_999, 1]).rows[0].folded)
