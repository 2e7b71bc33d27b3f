"""The one reader of JSON from outside: it refuses what two JSON readers would take for different values.

Refused besides malformed text: a name twice in one object, NaN and infinities, numbers out of range, NUL and lone
surrogates in strings, a byte order mark, and whatever is over the caller's ``Limits``. Python's own scanner reads a
text; only a text that is refused is read again, token by token, to say where its first fault is. So the messages are
ours on every Python version, and a pointer is built for one place only. Time and memory are proportional to the bytes
read; a text with more values than the limit is refused before any of them is built.

This module imports nothing of ours: whoever publishes the compiler takes it along.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, NoReturn

MAX_DIGITS = 1_000
"""The digits of a decimal number, and its exponent of ten, are at most this."""
MAX_POINTER = 200
"""The pointer of a fault has at most this many characters: beyond, the nearest ancestor is named."""

_MAX_SAFE = 2**53
# A double ends near 1.8e308; longer texts are integers beyond it, or fractions that nobody writes.
_MAX_DOUBLE_TEXT = 400


class Fault(StrEnum):
    """What kind of fault a text has."""

    BYTES = "bytes"
    ENCODING = "encoding"
    SYNTAX = "syntax"
    DUPLICATE_NAME = "duplicate_name"
    NUMBER = "number"
    CHARACTER = "character"
    DEPTH = "depth"
    VALUES = "values"
    TYPE = "type"


class Malformed(ValueError):
    """A text that is refused: the fault, its line and column (from 1, in characters), and the JSON Pointer of the
    place that holds it. ``message`` says only what is wrong.
    """

    def __init__(self, fault: Fault, message: str, *, line: int = 1, column: int = 1, pointer: str = "") -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.fault = fault
        self.message = message
        self.line = line
        self.column = column
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a text may hold. ``max_values`` bounds its commas and opening brackets, each of which begins a value;
    as a value takes about 200 bytes of memory at most besides its text, it bounds memory too.

    With ``decimal`` no number is rounded: a whole one is an ``int``, any other a ``float`` whose shortest text equals
    it, else a ``Decimal``, of at most ``MAX_DIGITS`` digits. Without it numbers must be in the range of a double.
    """

    max_bytes: int | None = None
    max_depth: int = 64
    max_values: int = 250_000
    decimal: bool = False
    allow_nul: bool = False
    """PostgreSQL cannot store a NUL, but a record may hold one."""


def read(data: bytes | str, limits: Limits) -> Any:
    """Read one JSON value from UTF-8 bytes or a text. Raises Malformed."""
    if limits.max_bytes is not None and len(data) > limits.max_bytes:
        raise Malformed(Fault.BYTES, f"Longer than {limits.max_bytes} bytes.")
    text = _decoded(data)
    if text.count(",") + text.count("[") + text.count("{") > limits.max_values:
        _refuse_too_many_values(text, limits)
    decoder = _DECIMAL if limits.decimal else _DOUBLE
    try:
        value = decoder.decode(text)
    except (ValueError, RecursionError):
        raise _first_fault(text, limits) from None
    if _is_deeper(value, limits.max_depth) or _SUSPICIOUS.search(text):  # only an escape brings such a character
        _check(text, limits)
    return value


def read_object(data: bytes | str, limits: Limits) -> dict[str, Any]:
    """Read one JSON object. Raises Malformed."""
    value = read(data, limits)
    if not isinstance(value, dict):
        raise Malformed(Fault.TYPE, "Not a JSON object.")
    return value


def pointer_of(path: Iterable[str | int]) -> str:
    """Write the JSON Pointer (RFC 6901) of a path of names and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def shown(text: str, length: int = 60) -> str:
    """Quote a text in a message: one line of ASCII, its end left out when it is long."""
    return json.dumps(text if len(text) <= length else text[: length - 3] + "...")


def _decoded(data: bytes | str) -> str:
    try:
        return data.decode() if isinstance(data, bytes) else data.encode().decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        raise _at(before, len(before), Fault.ENCODING, "This is not UTF-8.") from None
    except UnicodeEncodeError as error:
        raise _at(error.object, error.start, Fault.ENCODING, "This is half a surrogate pair, no character.") from None


class _RefusedError(ValueError):
    """Raised in the scanner's hooks, which do not know the position."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedError
    return members


def _constant(name: str) -> NoReturn:
    raise _RefusedError


def _double(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _RefusedError
    return number


def _integer(text: str) -> int:
    if len(text) > 300 and (len(text) > _MAX_DOUBLE_TEXT or math.isinf(float(text))):
        raise _RefusedError
    return int(text)


def _long_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _RefusedError
    return int(text)


def _decimal(text: str) -> int | float | Decimal:
    exponent = text.lower().partition("e")[2]
    if len(text) > MAX_DIGITS or len(exponent.lstrip("+-0")) > 4 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise _RefusedError
    if repr(number := float(text)) == text and abs(number) < _MAX_SAFE and not number.is_integer():
        return number
    exact = Decimal(text)
    if exact == exact.to_integral_value():
        return int(exact)
    return number if abs(number) < _MAX_SAFE and Decimal(repr(number)) == exact else exact


_DOUBLE = json.JSONDecoder(object_pairs_hook=_object, parse_float=_double, parse_int=_integer, parse_constant=_constant)
_DECIMAL = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_long_integer, parse_constant=_constant
)

_SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_VALUE_MARK = re.compile(r'"(?:[^"\\]++|\\.)*+"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<comma>,)', re.DOTALL)


def _refuse_too_many_values(text: str, limits: Limits) -> None:
    """Count again without what stands in strings; a text that nests too deep is refused for that."""
    count = depth = 0
    for token in _VALUE_MARK.finditer(text):
        kind = token.lastgroup
        count += kind in {"open", "comma"}
        depth += (kind == "open") - (kind == "close")
        if depth > limits.max_depth:
            raise _first_fault(text, limits)
        if count > limits.max_values:
            raise _at(text, token.start(), Fault.VALUES, f"More than {limits.max_values:,} values.")


def _is_deeper(value: object, max_depth: int) -> bool:
    level = [value]
    for _ in range(max_depth):
        level = [
            item
            for container in level
            if isinstance(container, (list, dict))
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (list, dict))
        ]
        if not level:
            return False
    return any(isinstance(item, (list, dict)) for item in level)


TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]++|\\.)*+")(?P<colon>\s*+:)?|(?P<open>[{\[])|(?P<close>[}\]])|[^\s"{}\[\],:]++',
    re.DOTALL,
)
"""What well-formed JSON consists of, but for commas and blanks."""

# What the strict check reads: blanks, then one token. A string's faults are looked for when it does not match.
_STRICT_TOKEN = re.compile(
    r"[ \t\n\r]*+(?:(?P<string>\"(?:[^\"\\\x00-\x1f]++|\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4}))*+\")"
    r"|(?P<mark>[\[\]{},:])"
    r"|(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)(?![\w.+-])"
    r"|(?P<word>true|false|null)(?!\w)"
    r"|(?P<end>\Z))"
)
_BLANKS = re.compile(r"[ \t\n\r]*+")
_WORD = re.compile(r"[\w.+-]+")
_STRING_START = re.compile(r"\"(?:[^\"\\\x00-\x1f]++|\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4}))*+")


@dataclass(slots=True)
class _Open:
    """An object or list that is being read."""

    closing: str
    names: set[str] = field(default_factory=set)
    part: str | int | None = None
    """The name or index of the member or item that is being read; None between members."""


def _first_fault(text: str, limits: Limits) -> Malformed:
    """Find the first fault of a text that the scanner refused."""
    try:
        _check(text, limits)
    except Malformed as fault:
        return fault
    # The scanner refuses nothing else; should a later Python do so, it is still no JSON for us.
    return Malformed(Fault.SYNTAX, "This is no JSON.")


def _check(text: str, limits: Limits) -> None:
    """Read a text token by token. Raises Malformed at its first fault."""
    inside: list[_Open] = []
    expects = "value"  # a key of ``_EXPECTED``
    for token in _tokens(text, inside):
        kind = token.lastgroup or ""
        start, word = token.start(kind), token[kind]
        if not _fits(kind, word, expects, inside):
            raise _unexpected(text, start, expects, inside)
        if kind == "string" and expects.startswith("name"):
            inside[-1].names.add(_new_name(text, start, word, limits, inside))
            expects = "colon"
        elif kind == "mark" and word in "[{":
            if len(inside) == limits.max_depth:
                raise _at(text, start, Fault.DEPTH, f"Nested deeper than {limits.max_depth} levels.", inside)
            inside.append(_Open("]", part=0) if word == "[" else _Open("}"))
            expects = "value or ]" if word == "[" else "name or }"
        elif word == ":":
            expects = "value"
        elif word == ",":
            part = inside[-1].part
            inside[-1].part = part + 1 if isinstance(part, int) else None
            expects = "value" if isinstance(part, int) else "name"
        else:
            if kind == "string":
                _read_string(text, start, word, limits, inside)
            elif kind == "number":
                _check_number(text, start, word, limits, inside)
            elif kind == "mark":
                inside.pop()
            expects = "comma" if inside else "end"


def _fits(kind: str, word: str, expects: str, inside: list[_Open]) -> bool:
    """Whether a token may stand where it stands."""
    match kind, word:
        case "string", _:
            return expects.startswith(("value", "name"))
        case ("number" | "word", _) | ("mark", "[" | "{"):
            return expects.startswith("value")
        case "mark", "]" | "}":
            return bool(inside) and inside[-1].closing == word and (expects == "comma" or expects.endswith(word))
        case "end", _:
            return expects == "end"
    return expects == {":": "colon", ",": "comma"}[word]


def _new_name(text: str, start: int, quoted: str, limits: Limits, inside: list[_Open]) -> str:
    """Read the key of a member; faults of a key are faults of its object."""
    name = _read_string(text, start, quoted, limits, inside[:-1])
    if name in inside[-1].names:
        message = f"The key {shown(name)} comes twice in this object."
        raise _at(text, start, Fault.DUPLICATE_NAME, message, inside[:-1])
    inside[-1].part = name
    return name


def _tokens(text: str, inside: list[_Open]) -> Iterator[re.Match[str]]:
    offset = 0
    while True:
        token = _STRICT_TOKEN.match(text, offset)
        if token is None:
            raise _no_token(text, offset, inside)
        yield token
        if token.lastgroup == "end":
            return
        offset = token.end()


def _no_token(text: str, offset: int, inside: list[_Open]) -> Malformed:
    blanks = _BLANKS.match(text, offset)
    start = blanks.end() if blanks else offset
    if string := _STRING_START.match(text, start):
        end = string.end()
        if end == len(text):
            return _at(text, start, Fault.SYNTAX, "This string has no end.", inside)
        if text[end] == "\\":
            return _at(text, end, Fault.SYNTAX, "This is no escape of JSON.", inside)
        return _at(text, end, Fault.SYNTAX, "A string may hold no control character; write it as an escape.", inside)
    word = _WORD.match(text, start)
    found = word[0] if word else text[start]
    if found.endswith(("NaN", "Infinity")):
        return _at(text, start, Fault.NUMBER, _no_number(found), inside)
    return _at(text, start, Fault.SYNTAX, f"{shown(found, 20)} is no JSON.", inside)


_EXPECTED = {
    "value": "Expected a value.",
    "value or ]": 'Expected a value or "]".',
    "name": "Expected a key in double quotes.",
    "name or }": 'Expected a key in double quotes or "}".',
    "colon": 'Expected ":" after the key.',
    "end": "Expected nothing after the value.",
}


def _unexpected(text: str, offset: int, expects: str, inside: list[_Open]) -> Malformed:
    message = f'Expected "," or "{inside[-1].closing}".' if expects == "comma" else _EXPECTED[expects]
    return _at(text, offset, Fault.SYNTAX, message, inside)


def _read_string(text: str, start: int, quoted: str, limits: Limits, inside: list[_Open]) -> str:
    string: str = json.loads(quoted) if "\\" in quoted else quoted[1:-1]
    if (_SURROGATE if limits.allow_nul else _UNSTORABLE).search(string):
        message = "A string may hold neither NUL nor half a surrogate pair."
        if limits.allow_nul:
            message = "A string may not hold half a surrogate pair."
        raise _at(text, start, Fault.CHARACTER, message, inside)
    return string


def _check_number(text: str, start: int, word: str, limits: Limits, inside: list[_Open]) -> None:
    is_integer = word.lstrip("-").isdigit()
    try:
        if limits.decimal:
            _long_integer(word) if is_integer else _decimal(word)
        else:
            _integer(word) if is_integer else _double(word)
    except _RefusedError:
        raise _at(text, start, Fault.NUMBER, _no_number(word), inside) from None


def _no_number(word: str) -> str:
    return f"{word[:20]} is no number that JSON readers agree on."


def _at(text: str, offset: int, fault: Fault, message: str, inside: Iterable[_Open] = ()) -> Malformed:
    line_start = text.rfind("\n", 0, offset) + 1
    pointer = ""
    for container in inside:
        if container.part is None:
            break
        longer = pointer + pointer_of([container.part]) if len(str(container.part)) <= MAX_POINTER else None
        if longer is None or len(longer) > MAX_POINTER:
            break
        pointer = longer
    return Malformed(
        fault, message, line=text.count("\n", 0, offset) + 1, column=offset - line_start + 1, pointer=pointer
    )
