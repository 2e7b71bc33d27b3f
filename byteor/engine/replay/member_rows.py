"""Shows a person how two JSON values differ: one row for each changed member, and one for each run of equal members.

Members are compared as in ``json_difference``. The texts of names and values show each character that is not
``str.isprintable`` as an escape, and long texts are cut.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from itertools import zip_longest
from typing import Any, Final

from byteor.engine.replay.payload import MalformedPayload, parse_payload
from byteor.engine.replay.work import RecordOverLimit

MAX_ROWS = 100
"""The maximum number of changed members that are shown."""
_VALUE = 300  # characters that are shown of a value without a marked part
_NAME = 120  # characters of a member's name that are shown
_PARENT = 240  # characters of the pointer to the member's parent that are shown
_PART = 160  # characters that are shown of the part in which two strings differ
# If more than twice this many equal characters precede that part, only this many of them are shown. After the part, at
# most twice this many are shown.
_CONTEXT = 40

type Path = tuple[str | int, ...]
type Pieces = tuple[tuple[str, bool], ...]
"""The pieces of a text: each piece, and whether it is marked as the part in which two strings differ."""


class _Absent:
    """The type of ``ABSENT``."""


ABSENT: Final = _Absent()
"""Stands for a value that one side does not have."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written in a payload. A float could lose digits."""

    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """A member that differs. ``before`` is ``ABSENT`` for an added member, and ``after`` for a removed one."""

    path: Path
    before: Any
    after: Any


class RowKind(StrEnum):
    """What a row shows: a member that differs, or a number of consecutive equal members."""

    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"
    EQUAL = "equal"


_SIGNS = {RowKind.CHANGED: "~", RowKind.ADDED: "+", RowKind.REMOVED: "\N{MINUS SIGN}", RowKind.EQUAL: "…"}


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A row: a member that differs, or a fold, which stands for consecutive equal members.

    ``parent`` and ``name`` together show the member's JSON Pointer; both are empty for the value as a whole. ``before``
    and ``after`` show the member's JSON, and are empty for a side that does not have the member. A fold has only
    ``count``, the number of equal members. An equal object or array counts as one member.
    """

    kind: RowKind
    parent: str = ""
    name: str = ""
    before: Pieces = ()
    after: Pieces = ()
    count: int = 0

    @property
    def sign(self) -> str:
        """A sign for the kind, so that the kind is not shown by color alone."""
        return _SIGNS[self.kind]

    @property
    def folded(self) -> str:
        """The text of a fold, such as "12 equal members"."""
        return f"{self.count:,} equal {'member' if self.count == 1 else 'members'}"


@dataclass(frozen=True, slots=True)
class MemberRows:
    """The rows of a difference, in the order of the members before the change. An object's added members come last.

    ``changes`` is the number of changed, added and removed members. ``more`` is how many of them have no row, because
    there are more than ``MAX_ROWS``.
    """

    rows: tuple[MemberRow, ...]
    changes: int
    more: int

    @property
    def more_text(self) -> str:
        """A sentence about the members without a row."""
        return f"{self.more:,} more {'member differs' if self.more == 1 else 'members differ'}."


def compare_members(before: Any, after: Any) -> MemberRows:
    """Return the rows that show how two JSON values differ.

    Numbers may be ``Number`` objects, which are shown as they are written but compared by value. A side without a value
    is ``ABSENT``. ``compare_payloads`` and ``compare_examples`` read the values from payloads and from the examples of
    regressions. The template ``console/members.html`` shows the rows: it needs them as ``members``, and the titles of
    the two sides as ``before`` and ``after``.
    """
    walk = _Walk(MAX_ROWS)
    walk.compare(before, after)
    rows = tuple(_folded(each) if isinstance(each, int) else _row(each) for each in walk.events())
    return MemberRows(rows, walk.changes, max(0, walk.changes - MAX_ROWS))


def compare_payloads(before: bytes | None, after: bytes | None) -> MemberRows | None:
    """Return the rows of two payloads, of which one may be missing.

    Returns None if a payload is not strict JSON or exceeds a limit of ``payload.py``, if both are missing, or if their
    values are equal. Then at most the bytes can be shown.
    """
    if before is None and after is None:
        return None
    try:
        found = compare_members(*(ABSENT if each is None else read_value(each) for each in (before, after)))
    except (MalformedPayload, RecordOverLimit):
        return None
    return found if found.changes else None


def compare_examples(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> MemberRows | None:
    """Return the rows of two payloads in the form of ``show_payload``, such as those in the example of a group.

    Returns None as ``compare_payloads`` does, and if a payload is cut.
    """
    sides = [before, after]
    if any(each is not None and each["truncated"] for each in sides):
        return None
    return compare_payloads(*(None if each is None else payload_bytes(each) for each in sides))


def payload_bytes(shown: Mapping[str, Any]) -> bytes:
    """Return the bytes of a payload in the form of ``show_payload``: the stored bytes, or else the encoded JSON."""
    if shown["payload_base64"] is None:
        return json.dumps(shown["json"]).encode()
    return b64decode(shown["payload_base64"])


def read_value(payload: bytes) -> Any:
    """Return the JSON value of a payload, with numbers as ``Number``. Raises what ``parse_payload`` raises."""
    parse_payload(payload)
    return json.loads(payload, parse_float=Number, parse_int=Number)


def find_changes(before: Any, after: Any, limit: int) -> list[Change]:
    """Return the first members that differ, at most ``limit``."""
    walk = _Walk(limit)
    walk.compare(before, after)
    return [each for each in walk.events() if isinstance(each, Change)]


# -- comparison -------------------------------------------------------------------------------------------------


class _Walk:
    """Compares two values. Keeps the first changes, each with the number of equal members before it."""

    def __init__(self, limit: int) -> None:
        self.changes = 0
        self._limit = limit
        self._kept: list[tuple[int, Change]] = []
        self._equal = 0  # equal members since the last kept change
        self._path: list[str | int] = []

    def compare(self, before: Any, after: Any) -> None:
        """Compare two values. The recursion is bounded by the depth of a payload."""
        if type(before) is type(after) and isinstance(before, (dict, list)):
            earlier, equal = self.changes, self._equal
            for key, one, other in _pairs(before, after):
                self._path.append(key)
                self.compare(one, other)
                self._path.pop()
            if self.changes == earlier:
                self._equal = equal + 1
        elif before is not ABSENT and after is not ABSENT and _is_equal(before, after):
            self._equal += 1
        else:
            self.changes += 1
            if len(self._kept) < self._limit:
                self._kept.append((self._equal, Change(tuple(self._path), before, after)))
                self._equal = 0

    def events(self) -> Iterator[Change | int]:
        """Yield the kept changes and, between them, how many members are equal.

        A number comes before the first change, between two changes and after the last one, unless it is 0. If changes
        were left out, the last number is left out as well.
        """
        for equal, change in self._kept:
            if equal:
                yield equal
            yield change
        if self._equal and self.changes == len(self._kept):
            yield self._equal


def _pairs(before: Any, after: Any) -> Iterator[tuple[str | int, Any, Any]]:
    if isinstance(before, dict):
        for name, value in before.items():
            yield name, value, after.get(name, ABSENT)
        for name, value in after.items():
            if name not in before:
                yield name, ABSENT, value
    else:
        for at, (one, other) in enumerate(zip_longest(before, after, fillvalue=ABSENT)):
            yield at, one, other


def _is_equal(before: Any, after: Any) -> bool:
    """Return whether two values are equal. They must not both be objects or both be arrays."""
    one, other = _exact(before), _exact(after)
    return type(one) is type(other) and bool(one == other)


def _exact(value: Any) -> Any:
    """Return a number as a Decimal if its exponent permits this, and any other value unchanged."""
    if isinstance(value, Number):
        try:
            return Decimal(value.text)
        except InvalidOperation:  # an exponent of more than 18 digits, which ``read_value`` refuses
            return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Decimal(repr(value))
    return value


# -- texts ------------------------------------------------------------------------------------------------------


def json_text(value: Any) -> str:
    """Return a JSON value on one line, with each ``Number`` as written in the payload."""
    return "".join(_pieces(value))


def visible(text: str) -> str:
    """Return a text with each character that is not ``str.isprintable`` as its JSON escape."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Number):
        yield value.text
    elif isinstance(value, dict):
        separator = "{"
        for name, member in value.items():
            yield f"{separator}{_quoted(name)}: "
            yield from _pieces(member)
            separator = ", "
        yield "}" if value else "{}"
    elif isinstance(value, list):
        separator = "["
        for item in value:
            yield separator
            yield from _pieces(item)
            separator = ", "
        yield "]" if value else "[]"
    else:
        yield _quoted(value)


def _quoted(value: Any) -> str:
    return visible(json.dumps(value, ensure_ascii=False))


def _brief(value: Any) -> Pieces:
    """Return the start of a value's JSON; nothing for ``ABSENT``."""
    if value is ABSENT:
        return ()
    text = ""
    for piece in _pieces(value[: _VALUE + 1] if isinstance(value, str) else value):
        text += piece[: _VALUE + 1]
        if len(text) > _VALUE:
            return ((f"{text[:_VALUE]}…", False),)
    return ((text, False),)


def _texts(before: Any, after: Any) -> tuple[Pieces, Pieces]:
    """Return the texts of two values that differ. If two strings begin or end alike, the other parts are marked."""
    if not (isinstance(before, str) and isinstance(after, str)):
        return _brief(before), _brief(after)
    shorter = min(len(before), len(after))
    begin = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    end = next((at for at in range(shorter - begin) if before[-1 - at] != after[-1 - at]), shorter - begin)
    if not begin and not end:
        return _brief(before), _brief(after)
    one, other = (_marked(text, begin, len(text) - end) for text in (before, after))
    return one, other


def _marked(text: str, begin: int, end: int) -> Pieces:
    """Return a JSON string with the part between two offsets marked, cut to the surroundings of the part."""
    part = text[begin:end]
    is_cut = len(part) > _PART
    start = 0 if begin <= 2 * _CONTEXT else begin - _CONTEXT
    rest = "" if is_cut else text[end : end + 2 * _CONTEXT]
    pieces = (
        (("…" if start else '"') + _inside(text[start:begin]), False),
        (_inside(part[:_PART]), True),
        (_inside(rest) + ('"' if end + len(rest) == len(text) and not is_cut else "…"), False),
    )
    return tuple(piece for piece in pieces if piece[0])


def _inside(text: str) -> str:
    """Return a text as it is written inside of a JSON string."""
    return _quoted(text)[1:-1]


def _row(change: Change) -> MemberRow:
    added, removed = change.before is ABSENT, change.after is ABSENT
    kind = RowKind.ADDED if added else RowKind.REMOVED if removed else RowKind.CHANGED
    before, after = _texts(change.before, change.after)
    *above, last = [f"/{_token(each)}" for each in change.path] or [""]
    parent = "".join(above)
    shown = parent if len(parent) <= _PARENT else f"…{parent[-_PARENT:]}"
    # The slash before the name belongs to the parent, so that a page can emphasize the name alone.
    return MemberRow(kind, shown + last[:1], last[1:], before, after)


def _token(part: str | int) -> str:
    text = str(part).replace("~", "~0").replace("/", "~1")
    return _inside(text) if len(text) <= _NAME else f"{_inside(text[:_NAME])}…"


def _folded(count: int) -> MemberRow:
    return MemberRow(RowKind.EQUAL, count=count)
