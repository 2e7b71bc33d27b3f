"""Strict encodings and parsers. Data in an invalid form raises a ValueError."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import rfc8785

from byteor.engine import strict_json

type Json = dict[str, object]


class Malformed(ValueError):
    """Raised for data that is not in a valid form."""


# Callers limit the size.
_LIMITS = strict_json.JsonLimits(max_depth=200, allow_nul=True)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def sha256(data: bytes) -> str:
    """Return ``sha256:<hex>`` of the data."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def base64url(data: bytes) -> str:
    """Encode to base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Decode canonical base64url without padding."""
    data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64url(data) != text:
        raise Malformed("not canonical base64url")
    return data


def from_base64(text: str) -> bytes:
    """Decode canonical standard base64 with padding."""
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != text:
        raise Malformed("not canonical base64")
    return data


def format_time(moment: datetime) -> str:
    """Format an aware time as RFC 3339 in UTC with ``Z``, with microseconds only if they are not zero."""
    if moment.tzinfo is None:
        raise Malformed("the time has no time zone")
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time in UTC with uppercase ``T`` and ``Z``, and at most six decimals."""
    if not _TIME.fullmatch(text):
        raise Malformed("not an RFC 3339 time in UTC")
    return datetime.fromisoformat(text)


def canonical(value: object) -> bytes:
    """Return the canonical JSON (RFC 8785) of a value. Raises ValueError for values that have none.

    A large integer is written as a double if the double's text denotes the same number, because PostgreSQL returns 1e22
    as an integer of 23 digits.
    """
    try:
        # rfc8785 declares a private, narrower type, but it checks the value at run time.
        try:
            return rfc8785.dumps(value)  # type: ignore[arg-type]
        except rfc8785.IntegerDomainError:
            return rfc8785.dumps(_with_doubles(value))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise Malformed(f"cannot be written as canonical JSON: {error}") from error


def _with_doubles(value: Any) -> Any:
    """Return the value with each large integer replaced by the double whose text denotes the same number, if any.

    There is none for 2**60: as a double it is written as 1152921504606847000, which is another integer.
    """
    if isinstance(value, dict):
        return {name: _with_doubles(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_doubles(item) for item in value]
    if not isinstance(value, int) or abs(value) < 2**53 or abs(value) > sys.float_info.max:
        return value
    return float(value) if Decimal(repr(float(value))) == value else value


def parse_object(data: bytes | str) -> Json:
    """Parse a strict JSON object in UTF-8."""
    try:
        return strict_json.read_object(data, _LIMITS)
    except strict_json.MalformedJson as error:
        raise Malformed(str(error)) from None


def parse_objects(data: bytes | str) -> list[Json]:
    """Parse a strict JSON array of objects in UTF-8. Raises Malformed."""
    try:
        values = strict_json.read(data, _LIMITS)
    except strict_json.MalformedJson as error:
        raise Malformed(str(error)) from None
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise Malformed("not a JSON array of objects")
    return values


def parse_canonical_object(data: bytes) -> Json:
    """Parse a JSON object that must be canonical (RFC 8785)."""
    value = parse_object(data)
    if canonical(value) != data:
        raise Malformed("not canonical JSON")
    return value


class Fields:
    """Typed access to the members of a JSON object. Raises ValueError for members that a method does not permit."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise Malformed("not a JSON object")
        self._value: Json = value

    def only(self, *names: str) -> None:
        """Raise ValueError if the object has a member that is not in ``names``."""
        if extra := sorted(self._value.keys() - set(names)):
            raise Malformed(f"unknown member {extra[0]!r}")

    def member(self, name: str) -> object:
        """Return the value of a member, which may have any type."""
        if name not in self._value:
            raise Malformed(f"{name!r} is missing")
        return self._value[name]

    def text(self, name: str) -> str:
        """Return a member that is a non-empty string."""
        value = self.member(name)
        if not isinstance(value, str) or not value:
            raise Malformed(f"{name!r} is not a non-empty string")
        return value

    def any_text(self, name: str) -> str:
        """Return a member that is a string, which may be empty."""
        value = self.member(name)
        if not isinstance(value, str):
            raise Malformed(f"{name!r} is not a string")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a non-empty string, or None if the member is null or absent."""
        return None if self._value.get(name) is None else self.text(name)

    def constant(self, name: str, *allowed: str) -> str:
        """Return a member that is one of the ``allowed`` strings."""
        value = self.text(name)
        if value not in allowed:
            raise Malformed(f"{name!r} is not {' or '.join(allowed)}")
        return value

    def digest(self, name: str) -> str:
        """Return a member that is a hash: ``sha256:`` and 64 lowercase hexadecimal digits."""
        value = self.text(name)
        if not _HASH.fullmatch(value):
            raise Malformed(f"{name!r} is not a sha256 hash")
        return value

    def integer(self, name: str) -> int:
        """Return a member that is a non-negative integer."""
        value = self.member(name)
        # In Python bool is a subclass of int.
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise Malformed(f"{name!r} is not a non-negative integer")
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean member."""
        value = self.member(name)
        if not isinstance(value, bool):
            raise Malformed(f"{name!r} is not true or false")
        return value

    def time(self, name: str) -> datetime:
        """Return a member that is an RFC 3339 time in UTC with ``Z``."""
        return parse_time(self.text(name))

    def optional_time(self, name: str) -> datetime | None:
        """Return a member that is an RFC 3339 time in UTC with ``Z``, or None for null."""
        return None if self.member(name) is None else self.time(name)

    def items(self, name: str) -> list[object]:
        """Return a member that is a list."""
        value = self.member(name)
        if not isinstance(value, list):
            raise Malformed(f"{name!r} is not a list")
        return value

    def sorted_texts(self, name: str) -> tuple[str, ...]:
        """Return a member that is a sorted list of distinct, non-empty strings."""
        values = tuple(item for item in self.items(name) if isinstance(item, str) and item)
        if list(values) != self.items(name) or list(values) != sorted(set(values)):
            raise Malformed(f"{name!r} is not a sorted list of distinct, non-empty strings")
        return values

    def object(self, name: str) -> Json:
        """Return a member that is an object."""
        value = self.member(name)
        if not isinstance(value, dict):
            raise Malformed(f"{name!r} is not an object")
        return value

    def fields(self, name: str) -> Fields:
        """Return a member that is an object, as Fields."""
        return Fields(self.member(name))

    def optional[T](self, name: str, read: Callable[[Fields], T]) -> T | None:
        """Apply ``read`` to a member that is an object. Returns None for null."""
        return None if self.member(name) is None else read(self.fields(name))

    def names(self) -> frozenset[str]:
        """Return the names of all members."""
        return frozenset(self._value)
