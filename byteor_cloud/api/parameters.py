"""Declarations of query parameters and of one header. They check requests and document operations."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.http import QueryDict

from byteor_cloud.errors import InvalidInput, ParameterError
from byteor_cloud.ids import read_id
from byteor_cloud.patterns import LINE, SHA256, matcher

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])"
)
_IDEMPOTENCY_KEY = r"^[!-~]([ -~]{0,253}[!-~])?$"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter: its JSON Schema, the function that parses its text, and what it filters by.

    ``read`` raises ValueError with a sentence for the caller. A list filters by the Django lookup, or by the Q object
    that ``condition`` returns for the parsed value. If ``max_times`` is greater than 1, the parameter may be repeated,
    and its value is the list of the parsed values.
    """

    schema: Mapping[str, Any]
    read: Callable[[str], Any]
    description: str = ""
    required: bool = False
    lookup: str | None = None
    condition: Callable[[Any], Any] | None = None
    max_times: int = 1

    def document(self, name: str, *, location: str = "query", rows: str = "resources") -> dict[str, Any]:
        """Return the parameter as an OpenAPI object. ``rows`` replaces ``{rows}`` in the description of a filter."""
        document: dict[str, Any] = {"in": location, "name": name, "schema": dict(self.schema)}
        if self.max_times > 1:
            document["schema"] = {"type": "array", "maxItems": self.max_times, "items": dict(self.schema)}
        description = self.description or f"Returns only {{rows}} whose `{name}` is this value."
        document["description"] = description.replace("{rows}", rows)
        if self.required:
            document["required"] = True
        return document


def text_parameter(description: str) -> Parameter:
    """Declare a parameter that accepts any text."""
    return Parameter(schema={"type": "string"}, read=str, description=description)


def read_time(text: str) -> datetime:
    """Read an RFC 3339 time with its offset, and convert it to UTC. Raises ValueError."""
    if not _TIME.fullmatch(text):
        raise ValueError("Must be an RFC 3339 time with an offset, such as 2026-11-24T12:00:00Z.")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("This time does not exist, or is not between the years 1 and 9999 in UTC.") from None


def pattern_parameter(pattern: str, rule: str, *, max_length: int | None = None, **more: Any) -> Parameter:
    """Declare a text parameter that must match ``pattern``. ``rule`` is the error message for other values."""
    schema: dict[str, Any] = {"type": "string", "pattern": pattern}
    if max_length is not None:
        schema |= {"minLength": 1, "maxLength": max_length}
    is_match = matcher(pattern)

    def read(text: str) -> str:
        if (max_length is not None and not 1 <= len(text) <= max_length) or not is_match(text):
            raise ValueError(rule)
        return text

    return Parameter(schema=schema, read=read, **more)


def line_parameter(lookup: str | None = None, *, max_length: int = 200, **more: Any) -> Parameter:
    """Declare a parameter that is one line of text."""
    rule = f"Must be 1 to {max_length} characters without line breaks and control characters."
    return pattern_parameter(LINE, rule, max_length=max_length, lookup=lookup, **more)


def choice_parameter(values: Iterable[str], lookup: str | None = None, **more: Any) -> Parameter:
    """Declare a parameter that is one of ``values``."""
    allowed = [str(value) for value in values]

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"Must be one of {', '.join(allowed)}.")
        return text

    return Parameter(schema={"type": "string", "enum": allowed}, read=read, lookup=lookup, **more)


def flag_parameter(lookup: str | None = None, **more: Any) -> Parameter:
    """Declare a parameter that is ``true`` or ``false``."""

    def read(text: str) -> bool:
        if text not in {"true", "false"}:
            raise ValueError("Must be true or false.")
        return text == "true"

    return Parameter(schema={"type": "boolean"}, read=read, lookup=lookup, **more)


def integer_parameter(minimum: int, maximum: int, lookup: str | None = None, **more: Any) -> Parameter:
    """Declare a parameter that is a whole number from ``minimum`` to ``maximum``."""
    schema = {"type": "integer", "minimum": minimum, "maximum": maximum}
    if "default" in more:
        schema["default"] = more.pop("default")

    def read(text: str) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,19}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"Must be a whole number from {minimum} to {maximum}.")
        return int(text)

    return Parameter(schema=schema, read=read, lookup=lookup, **more)


def id_parameter(lookup: str | None = None, **more: Any) -> Parameter:
    """Declare a parameter that is a UUID."""
    return Parameter(schema={"type": "string", "format": "uuid"}, read=read_id, lookup=lookup, **more)


def time_parameter(lookup: str | None = None, **more: Any) -> Parameter:
    """Declare a parameter that is an RFC 3339 time with an offset."""
    return Parameter(schema={"type": "string", "format": "date-time"}, read=read_time, lookup=lookup, **more)


def sha256_parameter(lookup: str | None = None, **more: Any) -> Parameter:
    """Declare a parameter that is a SHA-256: ``sha256:`` and 64 lower-case hexadecimal digits."""
    return pattern_parameter(SHA256, "Must be sha256: and 64 lower-case hexadecimal digits.", lookup=lookup, **more)


LIMIT = integer_parameter(1, 200, description="The maximum number of rows per page.", default=50)
CURSOR = pattern_parameter(
    r"^[A-Za-z0-9+/]{4,400}={0,2}$",
    "Must be a cursor from a page of this list.",
    description="The page to return: the `next_cursor` of another page, or the `cursor` in its `next` or `previous` "
    "URL.",
)
PAGE: Mapping[str, Parameter] = {"limit": LIMIT, "cursor": CURSOR}
IDEMPOTENCY_KEY = pattern_parameter(
    _IDEMPOTENCY_KEY,
    "Must be 1 to 255 printable ASCII characters, without spaces around them.",
    description=(
        "A unique key that you generate. If you retry the request with the same key and body within 24 hours, the "
        "first 2xx response is returned again. A response with a secret is returned again only within 10 minutes."
    ),
)


def check_query(declared: Mapping[str, Parameter], given: QueryDict) -> dict[str, Any]:
    """Return the query's parsed parameters by name. Raises InvalidInput, which lists the errors."""
    values: dict[str, Any] = {}
    errors: list[ParameterError] = []
    for name, texts in given.lists():
        parameter = declared.get(name)
        if parameter is None:
            errors.append(ParameterError(name[:200], "unknown_parameter", _unknown(name, declared)))
        elif len(texts) > parameter.max_times:
            errors.append(ParameterError(name, "repeated", _too_often(parameter.max_times)))
        else:
            try:
                read = [parameter.read(text) for text in texts]
                values[name] = read[0] if parameter.max_times == 1 else read
            except ValueError as wrong:
                errors.append(ParameterError(name, "invalid", str(wrong)))
    for name, parameter in declared.items():
        if parameter.required and name not in given:
            errors.append(ParameterError(name, "required", "This parameter is required."))
    if errors:
        summary = " ".join(f"{wrong.parameter}: {wrong.detail}" for wrong in errors[:3])
        raise InvalidInput(summary, errors=errors)
    return values


def _too_often(max_times: int) -> str:
    return "Send this parameter only once." if max_times == 1 else f"Send this parameter at most {max_times} times."


def _unknown(name: str, declared: Mapping[str, Parameter]) -> str:
    near = difflib.get_close_matches(name[:64], list(declared), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"This operation has no such parameter.{hint}"
