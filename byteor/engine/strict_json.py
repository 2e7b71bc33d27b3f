"""The strict reader of untrusted JSON, which refuses much text that different JSON parsers would read differently.

In addition to malformed text, the reader refuses duplicate keys, NaN and infinities, numbers out of range, a byte order
mark, and text that exceeds the caller's ``JsonLimits``. It refuses NUL and lone surrogates in strings unless these
limits allow them. It reads numbers without a fraction or exponent exactly, even those that no double can represent.

Python's own scanner reads the text. Text that the scanner refuses is read again, token by token, to find the first
fault, so that the messages are the same on every Python version. Time and memory are proportional to the size of the
text. Text with too many values is refused before any value is created.

This module imports no other module of this project, so that it can be published with the compiler.
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
"""With ``JsonLimits.decimal``: the maximum length of a number's text, and the maximum exponent, ignoring its sign."""
MAX_POINTER = 200
"""The maximum length of a fault's pointer. A longer pointer is shortened to that of an ancestor."""

_MAX_SAFE = 2**53
# characters; the largest double is near 1.8e308, so a longer integer is out of range
_MAX_DOUBLE_TEXT = 400
_AMBIGUOUS = " is not a number that all JSON parsers read as the same value."
_SHORT_NUMBER = 25  # characters; no double needs a longer text


class JsonFault(StrEnum):
    """The kind of fault in JSON text."""

    BYTES = "bytes"
    ENCODING = "encoding"
    SYNTAX = "syntax"
    DUPLICATE_NAME = "duplicate_name"
    NUMBER = "number"
    CHARACTER = "character"
    DEPTH = "depth"
    VALUES = "values"
    TYPE = "type"


class MalformedJson(ValueError):
    """Raised for text that is refused. ``message`` is the reason, without the position.

    ``line`` and ``column`` count from 1, the column in characters; ``pointer`` is the JSON Pointer of the faulty value,
    of the value before the fault, or of a value that contains the fault.
    """

    def __init__(self, fault: JsonFault, message: str, *, line: int = 1, column: int = 1, pointer: str = "") -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.fault = fault
        self.message = message
        self.line = line
        self.column = column
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """The limits of a JSON text, and how its numbers and strings are read.

    ``max_values`` limits the number of commas and opening brackets, which is at most twice the number of values. This
    also bounds memory, because a value needs at most about 200 bytes in addition to its text.

    With ``decimal``, no digits are lost: a whole number is an ``int``. Any other number is a ``float`` if the shortest
    text of that float is the same number, and otherwise a ``Decimal`` of at most ``MAX_DIGITS`` digits. Without
    ``decimal``, numbers must be in a double's range.
    """

    max_bytes: int | None = None
    max_depth: int = 64
    max_values: int = 250_000
    decimal: bool = False
    allow_nul: bool = False
    """Whether strings may contain NUL. PostgreSQL cannot store it, but the payload of a record may contain it."""
    allow_surrogates: bool = False
    """Whether strings may contain escaped lone surrogates, as RFC 8259 permits. They cannot be encoded as UTF-8.

    This has an effect only with ``allow_nul``.
    """


def read(data: bytes | str, limits: JsonLimits) -> Any:
    """Read one JSON value from UTF-8 bytes or a string. Raises MalformedJson."""
    if limits.max_bytes is not None and len(data) > limits.max_bytes:
        raise MalformedJson(JsonFault.BYTES, f"The text is longer than {limits.max_bytes} bytes.")
    text = _decoded(data)
    opening = text.count("[") + text.count("{")
    if text.count(",") + opening > limits.max_values:
        _check_value_count(text, limits)
    decoder = _DECIMAL if limits.decimal else _DOUBLE
    try:
        value = decoder.decode(text)
    except (ValueError, RecursionError):
        raise _first_fault(text, limits) from None
    # The scanner accepts deep nesting, and escapes of NUL and surrogates; the slower check handles these.
    is_deeper = opening > limits.max_depth and _is_deeper(value, limits.max_depth)
    if is_deeper or ("\\u" in text and _SUSPICIOUS.search(text)):
        _check(text, limits)
    return value


def read_object(data: bytes | str, limits: JsonLimits) -> dict[str, Any]:
    """Read one JSON object. Raises MalformedJson."""
    value = read(data, limits)
    if not isinstance(value, dict):
        raise MalformedJson(JsonFault.TYPE, "The value must be a JSON object.")
    return value


def pointer_of(path: Iterable[str | int]) -> str:
    """Return the JSON Pointer (RFC 6901) of a path of names and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def quote_text(text: str, length: int = 60) -> str:
    """Quote a string for a message, as one line of ASCII. A string of more than ``length`` characters is shortened."""
    return json.dumps(text if len(text) <= length else text[: length - 3] + "...")


def _decoded(data: bytes | str) -> str:
    try:
        return data.decode() if isinstance(data, bytes) else data.encode().decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        raise _at(before, len(before), JsonFault.ENCODING, "This is not UTF-8.") from None
    except UnicodeEncodeError as error:
        message = "This is a lone surrogate, not a character."
        raise _at(error.object, error.start, JsonFault.ENCODING, message) from None


class _RefusedError(ValueError):
    """Raised by the scanner's hooks. They do not know the position, so the text is checked again to find it."""


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
    is_short = len(text) < _SHORT_NUMBER and repr(number := float(text)) == text
    if is_short and -_MAX_SAFE < number < _MAX_SAFE and not number.is_integer():
        return number
    exponent = text.lower().partition("e")[2]
    if len(text) > MAX_DIGITS or len(exponent.lstrip("+-0")) > 4 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise _RefusedError
    exact = Decimal(text)
    if exact == exact.to_integral_value():
        return int(exact)
    number = float(text)
    return number if abs(number) < _MAX_SAFE and Decimal(repr(number)) == exact else exact


_DOUBLE = json.JSONDecoder(object_pairs_hook=_object, parse_float=_double, parse_int=_integer, parse_constant=_constant)
_DECIMAL = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_long_integer, parse_constant=_constant
)
_SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_VALUE_MARK = re.compile(r'"(?:[^"\\]++|\\.)*+"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<comma>,)', re.DOTALL)


def _check_value_count(text: str, limits: JsonLimits) -> None:
    """Check the number of commas and opening brackets, without those in strings.

    Raises MalformedJson if there are more than ``max_values``. If the text exceeds the depth limit earlier, raises its
    first fault instead.
    """
    count = depth = 0
    for token in _VALUE_MARK.finditer(text):
        kind = token.lastgroup
        count += kind in {"open", "comma"}
        depth += (kind == "open") - (kind == "close")
        if depth > limits.max_depth:
            raise _first_fault(text, limits)
        if count > limits.max_values:
            raise _at(
                text,
                token.start(),
                JsonFault.VALUES,
                f"The text has more than {limits.max_values:,} commas and opening brackets.",
            )


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
"""Matches each token of well-formed JSON except commas. The match of a key includes its colon."""

# The strict check reads whitespace, then one token. If the pattern does not match, ``_no_token`` determines why.
_STRICT_TOKEN = re.compile(
    r"[ \t\n\r]*+(?:(?P<string>\"(?:[^\"\\\x00-\x1f]++|\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4}))*+\")"
    r"|(?P<mark>[\[\]{},:])"
    r"|(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)(?![\w.+-])"
    r"|(?P<word>true|false|null)(?!\w)"
    r"|(?P<end>\Z))"
)
_WHITESPACE = re.compile(r"[ \t\n\r]*+")
_WORD = re.compile(r"[\w.+-]+")
_STRING_START = re.compile(r"\"(?:[^\"\\\x00-\x1f]++|\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4}))*+")


@dataclass(slots=True)
class _OpenValue:
    """An object or list that is being read."""

    closing: str
    names: set[str] = field(default_factory=set)
    part: str | int | None = None
    """The key or index of the current or last value; None in an object before the first key and after a comma."""


def _first_fault(text: str, limits: JsonLimits) -> MalformedJson:
    """Return the first fault of text that is refused."""
    try:
        _check(text, limits)
    except MalformedJson as fault:
        return fault
    # The check finds a fault in every text that the scanner refuses, but a later Python version may refuse more.
    return MalformedJson(JsonFault.SYNTAX, "This is not valid JSON.")


def _check(text: str, limits: JsonLimits) -> None:
    """Check text token by token. Raises MalformedJson at the first fault."""
    inside: list[_OpenValue] = []
    expects = "value"  # "comma" or a key of ``_EXPECTED``
    for token in _tokens(text, inside):
        kind = token.lastgroup or ""
        start, word = token.start(kind), token[kind]
        if not _is_expected(kind, word, expects, inside):
            raise _unexpected(text, start, expects, inside)
        if kind == "string" and expects.startswith("name"):
            inside[-1].names.add(_read_name(text, start, word, limits, inside))
            expects = "colon"
        elif kind == "mark" and word in "[{":
            if len(inside) == limits.max_depth:
                raise _at(
                    text, start, JsonFault.DEPTH, f"The text nests deeper than {limits.max_depth} levels.", inside
                )
            inside.append(_OpenValue("]", part=0) if word == "[" else _OpenValue("}"))
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


def _is_expected(kind: str, word: str, expects: str, inside: list[_OpenValue]) -> bool:
    """Return whether a token is allowed at its position."""
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


def _read_name(text: str, start: int, quoted: str, limits: JsonLimits, inside: list[_OpenValue]) -> str:
    """Read the key of a member. The pointer of a faulty key is the pointer of its object."""
    name = _read_string(text, start, quoted, limits, inside[:-1])
    if name in inside[-1].names:
        message = f"The key {quote_text(name)} occurs twice in this object."
        raise _at(text, start, JsonFault.DUPLICATE_NAME, message, inside[:-1])
    inside[-1].part = name
    return name


def _tokens(text: str, inside: list[_OpenValue]) -> Iterator[re.Match[str]]:
    offset = 0
    while True:
        token = _STRICT_TOKEN.match(text, offset)
        if token is None:
            raise _no_token(text, offset, inside)
        yield token
        if token.lastgroup == "end":
            return
        offset = token.end()


def _no_token(text: str, offset: int, inside: list[_OpenValue]) -> MalformedJson:
    """Return the fault of text that has no valid token at this offset."""
    whitespace = _WHITESPACE.match(text, offset)
    start = whitespace.end() if whitespace else offset
    if string := _STRING_START.match(text, start):
        end = string.end()
        if end == len(text):
            return _at(text, start, JsonFault.SYNTAX, "This string has no closing quote.", inside)
        if text[end] == "\\":
            return _at(text, end, JsonFault.SYNTAX, "This is not a JSON escape sequence.", inside)
        message = "A string must not contain a control character; write it as an escape sequence."
        return _at(text, end, JsonFault.SYNTAX, message, inside)
    word = _WORD.match(text, start)
    found = word[0] if word else text[start]
    if found.endswith(("NaN", "Infinity")):
        return _at(text, start, JsonFault.NUMBER, f"{found[:20]}{_AMBIGUOUS}", inside)
    return _at(text, start, JsonFault.SYNTAX, f"{quote_text(found, 20)} is not valid JSON.", inside)


_EXPECTED = {
    "value": "Expected a value.",
    "value or ]": 'Expected a value or "]".',
    "name": "Expected a key in double quotes.",
    "name or }": 'Expected a key in double quotes or "}".',
    "colon": 'Expected ":" after the key.',
    "end": "Expected nothing after the value.",
}


def _unexpected(text: str, offset: int, expects: str, inside: list[_OpenValue]) -> MalformedJson:
    message = f'Expected "," or "{inside[-1].closing}".' if expects == "comma" else _EXPECTED[expects]
    return _at(text, offset, JsonFault.SYNTAX, message, inside)


def _read_string(text: str, start: int, quoted: str, limits: JsonLimits, inside: list[_OpenValue]) -> str:
    string: str = json.loads(quoted) if "\\" in quoted else quoted[1:-1]
    refused = _UNSTORABLE if not limits.allow_nul else None if limits.allow_surrogates else _SURROGATE
    if refused is not None and refused.search(string):
        refused_characters = "a lone surrogate" if limits.allow_nul else "NUL or a lone surrogate"
        raise _at(text, start, JsonFault.CHARACTER, f"A string must not contain {refused_characters}.", inside)
    return string


def _check_number(text: str, start: int, word: str, limits: JsonLimits, inside: list[_OpenValue]) -> None:
    is_integer = word.lstrip("-").isdigit()
    try:
        if limits.decimal:
            _long_integer(word) if is_integer else _decimal(word)
        else:
            _integer(word) if is_integer else _double(word)
    except _RefusedError:
        raise _at(text, start, JsonFault.NUMBER, f"{word[:20]}{_AMBIGUOUS}", inside) from None


def _at(text: str, offset: int, fault: JsonFault, message: str, inside: Iterable[_OpenValue] = ()) -> MalformedJson:
    """Return the fault at an offset of the text; ``inside`` are the objects and lists around it."""
    line_start = text.rfind("\n", 0, offset) + 1
    pointer = ""
    for container in inside:
        if container.part is None:
            break
        longer = pointer + pointer_of([container.part]) if len(str(container.part)) <= MAX_POINTER else None
        if longer is None or len(longer) > MAX_POINTER:
            break
        pointer = longer
    line = text.count("\n", 0, offset) + 1
    return MalformedJson(fault, message, line=line, column=offset - line_start + 1, pointer=pointer)
